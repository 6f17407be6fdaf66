//! One call to AWS: its endpoint, its signature, HTTP, and what AWS answered.

pub(super) mod connections;
pub(super) mod endpoint;
pub(super) mod error_response;
pub(super) mod http_client;
pub(super) mod operation;
pub(super) mod query;
pub(super) mod sdk_error;
pub(super) mod unsigned;
pub(super) mod upgrade_signature;
