//! Which lock names are in which shard.

use std::collections::HashMap;

use crate::target::Target;

/// See the [module](self). Shards are known here by an index, in the order in which names met them.
#[derive(Debug, Default)]
pub(crate) struct Shards {
    /// Their own ids, and a name in each.
    known: Vec<(u32, u64)>,
    of_name: Vec<u16>,
}

/// The index of no shard: that of names whose shard is not known.
const UNKNOWN: u16 = u16::MAX;

impl Shards {
    /// Asks the target for each name from 0 to below `names`. Nothing is known where it cannot tell.
    pub(crate) fn of(target: &Target, names: u64) -> Shards {
        let mut shards = Shards::default();
        if target.shard_of(0).is_none() {
            return shards;
        }
        let mut by_id = HashMap::new();
        shards.of_name.reserve_exact(names as usize);
        for name in 0..names {
            let index = target.shard_of(name).map_or(UNKNOWN, |(id, _)| {
                *by_id.entry(id).or_insert_with(|| {
                    shards.known.push((id, name));
                    u16::try_from(shards.known.len() - 1).unwrap_or(UNKNOWN)
                })
            });
            shards.of_name.push(index);
        }
        shards
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        self.known.len()
    }

    /// The index of a name's shard.
    pub(crate) fn index(&self, name: u64) -> Option<usize> {
        self.of_name.get(name as usize).filter(|index| **index != UNKNOWN).map(|index| usize::from(*index))
    }

    /// The id of the shard with this index.
    pub(crate) fn id(&self, index: usize) -> Option<u32> {
        self.known.get(index).map(|(id, _)| *id)
    }

    /// All, in the order of their indexes: the id, and the name of a lock in it.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        self.known.iter().copied()
    }
}
