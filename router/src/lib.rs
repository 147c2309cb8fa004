//! Finds the right leader: the client library, the HTTP gateway and the DNS listener.

#![forbid(unsafe_code)]

mod address;
pub mod client;
pub mod deadlock;
pub mod dns;
mod error;
pub mod http;
pub mod link;
pub mod random;
mod routes;
pub mod tls;
pub mod webhook;

pub use address::split_host_port;
pub use client::{
    Builder, Candidate, Client, Clock, Config, ConfigError, ConnectError, Connected, Dialer, Election, Endpoint, Guard,
    Leader, LeaderWatch, Leadership, Lock, LockError, OpenError, RegisterError, Registering, Registration, ServerError,
    Service, ServiceWatch, Session, SessionState, Watch, WatchBuilder, WatchError, WatchToken, Watched,
};
pub use error::Error;
