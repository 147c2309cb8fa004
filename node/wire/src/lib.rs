//! What Wardlock says on the network, and in what bounds.

#![forbid(unsafe_code)]

pub mod frame;
pub mod message;
pub mod raft;

pub use message::*;
