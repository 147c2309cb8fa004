//! The numbers that placement deals in, a newtype each.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map($name)
            }
        }
    };
}

number!(
    /// A process of the cluster. Given by its configuration, from 1, never reused for another machine.
    NodeId(u32)
);
number!(
    /// A Raft group. Group 0 is the placement group; every other owns the shard of the same number.
    GroupId(u32)
);
number!(
    /// One group's copy on a node. Never reused: a replica that moves gets a fresh one.
    ReplicaId(u64)
);
number!(
    /// Rises with every change of the map.
    MapVersion(u64)
);
number!(
    /// Rises when a shard's hash range changes, by an entry of the shard's own log.
    Epoch(u64)
);

/// The placement group.
pub const PLACEMENT: GroupId = GroupId(0);
