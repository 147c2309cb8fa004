//! One process of a Wardlock cluster.

#![forbid(unsafe_code)]

pub mod disk;
pub mod raft;
