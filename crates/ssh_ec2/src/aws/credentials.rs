//! Which credentials sign the calls: `identity` decides, `providers` makes the provider, `cache`
//! gets them from it and keeps them.

pub(super) mod assume_role;
pub(super) mod aws_login;
pub(super) mod cache;
pub(super) mod configuration;
pub(super) mod expiry;
pub(super) mod identity;
pub(super) mod ini;
pub(super) mod mfa;
pub(super) mod process;
pub(super) mod profiles;
pub(super) mod providers;
pub(super) mod sign_in;
pub(super) mod sso;
pub(super) mod sts_client;
pub(super) mod token_file;
pub(super) mod variables;
pub(super) mod web_identity;
