//! The way from a hash to its owner, made ready for every request.
//!
//! # Invariants
//! 1. [`Routes::owner`] agrees with [`ShardMap::owner`] for every hash.
//! 2. A hash that no shard of the map covers has no owner; it is never sent to a neighbour.

use crate::{
    ids::GroupId,
    map::{Range, ShardMap},
};

/// The shards of one map in the order of their ranges. A few KiB; made anew with each version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes(Vec<(Range, GroupId)>);

impl Routes {
    /// Of a map.
    pub fn new(map: &ShardMap) -> Routes {
        let mut ranges: Vec<_> = map.shards().map(|(id, range, _)| (range, id)).collect();
        ranges.sort_unstable();
        Routes(ranges)
    }

    /// The group that owns `hash`. O(log shards).
    pub fn owner(&self, hash: u64) -> Option<GroupId> {
        let after = self.0.partition_point(|(range, _)| range.first <= hash);
        let (range, group) = self.0.get(after.checked_sub(1)?)?;
        range.contains(hash).then_some(*group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{machine::tests::with_shards, map::equal_ranges};

    #[test]
    fn lookup_agrees_with_the_map() {
        for shards in [1, 2, 3, 7, 64, 1024] {
            let placement = with_shards(3, shards);
            let routes = Routes::new(placement.map());
            let edges = equal_ranges(shards).into_iter().flat_map(|range| [range.first, range.last]);
            for hash in edges.chain([0, 1, u64::MAX, u64::MAX - 1, 0xdead_beef_dead_beef]) {
                let owner = routes.owner(hash);
                assert!(owner.is_some(), "invariant 1 of the map: {hash} has no owner");
                assert_eq!(owner, placement.map().owner(hash), "invariant 1");
            }
        }
    }

    #[test]
    fn what_nobody_covers_has_no_owner() {
        assert_eq!(Routes::default().owner(7), None);
        let mut map = with_shards(3, 4).map().clone();
        let gone = map.owner(u64::MAX / 3).unwrap();
        map.groups.remove(&gone);
        assert_eq!(Routes::new(&map).owner(u64::MAX / 3), None, "invariant 2");
        assert!(Routes::new(&map).owner(0).is_some());
    }
}
