//! Proof by simulation: a whole cluster on one thread under faults from one seed, and the log under every crash.

#![forbid(unsafe_code)]

pub mod crash;
pub mod disk;
