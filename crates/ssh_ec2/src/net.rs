//! Connections to AWS: certificates, HTTP proxies, websockets.

pub(crate) mod network;
pub mod websocket;
