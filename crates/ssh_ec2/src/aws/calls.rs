//! The calls, one file for each subject.

pub(super) mod check;
pub(super) mod ec2;
pub(super) mod instance_connect;
pub(super) mod managed;
pub(super) mod session;
