//! Names → shards → groups → nodes.

#![forbid(unsafe_code)]

pub mod ids;
pub mod map;

pub use ids::*;
pub use map::*;
