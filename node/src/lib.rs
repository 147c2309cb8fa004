//! One process of a Wardlock cluster.

#![forbid(unsafe_code)]

pub mod certs;
pub mod raft;
