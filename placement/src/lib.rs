//! Names → shards → groups → nodes, and how that changes.
//!
//! A name's [tag](hash_tag) is [hashed](hash_name) with a key of the cluster's own; the hash falls into
//! the range of one shard; the shard's group has replicas; each replica lives on a node. The whole of
//! it is one value, the [`ShardMap`], which the placement group replicates: a [`Placement`] is a
//! function of the [`Change`]s applied to it. What to change next is a function too: [`plan()`] takes the
//! map, the [`Goal`] and what the placement leader [`Observed`], and answers the next [`Step`]s. A new
//! placement leader carries on by asking again.
//!
//! # Promises
//! - **Pure.** No clock, no randomness, no thread, no I/O, no unordered iteration: `.clippy.toml` forbids
//!   them. Two replicas with the same log have equal maps, byte for byte.
//! - **Every hash has exactly one owner** once there are shards (invariant 1 of [`map`]).
//! - **A replica id names one copy for ever**, and a group has at most one copy on a node (invariant 2).
//! - **A map of a higher version is a later map**; a change that changes nothing raises nothing, and a
//!   refused one leaves no trace (invariant 3).
//! - **Plans come to rest**: executed as planned, they end, and then the leaders are as even as the
//!   replicas allow (invariants of [`plan`](mod@plan)).
//! - Everything is [bounded](limits), and what comes from outside is decoded into a `Result`.
//!
//! ```
//! use std::collections::BTreeSet;
//! use wardlock_placement::*;
//!
//! let node = |n| Node { quic: format!("10.0.0.{n}:7400"), http: None, domain: None };
//! let mut placement = Placement::default();
//! placement.apply(Change::Found { hash_key: HashKey([7; 16]), incarnation: 1, placement: vec![NodeId(1)] })?;
//! placement.apply(Change::Register { node: NodeId(1), info: node(1) })?;
//!
//! let goal = Goal::new(16, 1, BTreeSet::from([NodeId(1)])).unwrap();
//! for step in plan(placement.map(), &goal, &Observed::default()) {
//!     if let Step::Log(change) = step {
//!         placement.apply(change)?;
//!     }
//! }
//! let map = placement.map();
//! let routes = Routes::new(map);
//! assert!(routes.owner(hash_name(&map.hash_key, "orders/42")).is_some());
//! # Ok::<(), Rejected>(())
//! ```
//!
//! Not done here: moving a replica, draining or replacing a node, splitting and merging shards.

#![forbid(unsafe_code)]

pub mod change;
pub mod check;
pub mod hash;
pub mod ids;
pub mod limits;
pub mod machine;
pub mod map;
pub mod plan;
pub mod routes;

pub use change::*;
pub use check::*;
pub use hash::*;
pub use ids::*;
pub use machine::*;
pub use map::*;
pub use plan::*;
pub use routes::*;
