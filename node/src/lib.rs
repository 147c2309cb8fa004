//! One process of a Wardlock cluster: sockets, disk, clock, tasks.

#![forbid(unsafe_code)]

pub mod barrier;
pub mod certs;
pub mod cli;
pub mod clock;
pub mod config;
pub mod dev;
pub mod disk;
pub mod dns;
pub mod group;
pub mod host;
pub mod metrics;
pub mod node;
pub mod raft;
