//! Finds the right leader: the client library and the HTTP gateway.

#![forbid(unsafe_code)]

pub mod client;
mod error;
pub mod http;
pub mod link;
mod routes;
pub mod tls;

pub use client::{
    Builder, Client, Clock, ConnectError, Dialer, Election, Guard, LeaderWatch, Leadership, Lock, LockError, OpenError,
    Session, SessionState,
};
pub use error::Error;
