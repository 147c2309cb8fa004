//! Proof by simulation: a whole cluster on one thread under faults from one seed, and the log under every crash.
//!
//! The nodes are real: the same host, groups, machine, sessions, placement and log as in a process. What is not
//! real is around them: the network ([`wardlock_router::link::memory`]), the disks ([`disk`]), the clocks
//! ([`clock`]), time itself, and randomness. One seed gives one run ([`run`]), to the byte of its trace. The
//! promises are [`checks`], each listening to all that the clients ([`clients`]) and the operator see.
//!
//! The log alone goes further ([`crash`]): a crash after every call to its disk, with every kind of torn and lost
//! write; a failure at every call; a flipped bit in every kind of page.

#![forbid(unsafe_code)]

pub mod checks;
pub mod clients;
pub mod clock;
pub mod cluster;
pub mod crash;
pub mod disk;
pub mod event;
pub mod faults;
pub mod run;
pub mod world;
