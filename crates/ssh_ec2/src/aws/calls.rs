//! The operations that are called, one file for each service:
//!
//! - `ec2`: DescribeInstances, DescribeRegions, GetConsoleOutput
//! - `instance_connect`: SendSSHPublicKey
//! - `session` (Session Manager): StartSession, ResumeSession, TerminateSession
//! - `sts`: GetCallerIdentity
//! - `systems_manager`: DescribeInstanceInformation, GetConnectionStatus
//!
//! Those that get credentials are in `aws/credentials`: AssumeRole in `assume_role`,
//! AssumeRoleWithWebIdentity in `web_identity`, GetRoleCredentials and CreateToken in `sso`,
//! CreateOAuth2Token in `aws_login`.

pub(super) mod ec2;
pub(super) mod instance_connect;
pub(super) mod session;
pub(super) mod sts;
pub(super) mod systems_manager;
