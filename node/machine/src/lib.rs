//! The state machine of one shard.

#![forbid(unsafe_code)]

pub mod command;
pub mod ids;
pub mod limits;
pub mod query;

pub use command::*;
pub use ids::*;
pub use query::*;
