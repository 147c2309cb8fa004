//! The consensus library, behind one door: its types, its network, its state machine.
//!
//! Architecture invariant: outside this folder and the log's storage, nothing names the library, except
//! for the handle [`Raft`].

pub mod network;
pub mod runtime;
pub mod store;
pub mod types;

/// One group's consensus core.
pub type Raft = openraft::Raft<types::Types, store::Store>;
