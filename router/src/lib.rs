//! Finds the right leader: the client library and the HTTP gateway.

#![forbid(unsafe_code)]

mod address;
pub mod client;
mod error;
pub mod http;
pub mod link;
pub mod random;
mod routes;
pub mod tls;

pub use address::split_host_port;
pub use client::{
    Builder, Candidate, Client, Clock, Config, ConfigError, ConnectError, Connected, Dialer, Election, Guard, Leader,
    LeaderWatch, Leadership, Lock, LockError, OpenError, ServerError, Session, SessionState, Watch, WatchBuilder,
    WatchError, WatchToken, Watched,
};
pub use error::Error;
