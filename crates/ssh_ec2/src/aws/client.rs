//! One call to AWS: its endpoint, its signature, HTTP, and the response.

pub(super) mod call;
pub(super) mod configured_endpoint;
pub(super) mod connections;
pub(super) mod endpoint;
pub(super) mod error_response;
pub(super) mod http_client;
pub(super) mod operation;
pub(super) mod query;
pub(super) mod request_id;
pub(super) mod runtime;
pub(super) mod sdk_error;
pub(super) mod service;
pub(super) mod unsigned;
mod upgrade_signature;
