//! What a shard is told about its configuration, and what a change comes to.

use serde::{Deserialize, Serialize};

use crate::{blob::Blob, ids::*};

/// What a path of the configuration has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// What the value is, as its writer says: a media type.
    pub content_type: String,
    /// The value.
    pub value: Blob,
}

/// A change of one path of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Gives it a value.
    Put(Content),
    /// Takes its value away.
    Delete,
    /// Gives it the value again that it had at an earlier version.
    Rollback {
        /// Which.
        to: Version,
    },
}

/// Asks for a change of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configure {
    /// Makes a repeat harmless for [`limits::KEY_LIFE`](crate::limits::KEY_LIFE).
    pub request: u128,
    /// The path.
    pub key: Key,
    /// What to do.
    pub change: Change,
    /// Only where the path's version is this; 0 where it must have no value.
    pub expected: Option<Version>,
}

/// The version that a change made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configured {
    /// The path's version now.
    pub version: Version,
    /// The shard's revision of it.
    pub revision: Revision,
    /// When it was made, by the leader's wall clock.
    pub updated: WallMs,
}
