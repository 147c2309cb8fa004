//! Finds the right leader: the client library and the HTTP gateway.

#![forbid(unsafe_code)]

pub mod link;
pub mod tls;
