//! Connections to AWS: certificates, HTTP proxies, websockets.

pub mod network;
pub mod websocket;
