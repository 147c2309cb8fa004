//! Names → shards → groups → nodes.

#![forbid(unsafe_code)]

pub mod hash;
pub mod ids;
pub mod map;

pub use hash::*;
pub use ids::*;
pub use map::*;
