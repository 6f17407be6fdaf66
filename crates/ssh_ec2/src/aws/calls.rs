//! The calls, one file for each subject.

pub(super) mod ec2;
pub(super) mod instance_connect;
pub(super) mod session;
pub(super) mod sts;
pub(super) mod systems_manager;
