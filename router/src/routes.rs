//! The route table: a shard map made ready for looking up, and who is believed to lead each group.
//!
//! A table is immutable but for the beliefs, which are atomics: a lookup takes no lock. A newer map makes
//! a new table that inherits the beliefs. A belief written to a table just replaced is lost; the next
//! refusal restores it.
//!
//! # Promises
//! 1. A lookup costs O(log groups).
//! 2. A belief names a node that hosts a replica in this map, or one that a replica named as its leader.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use wardlock_machine::{Key, RangeEpoch, SessionId};
use wardlock_placement::{GroupId, NodeId, ShardMap, hash_name, hash_session};

/// What a call is routed by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'a> {
    /// The owner of a name; the call carries the epoch of its range.
    Key(&'a Key),
    /// The home of a session.
    Home(SessionId),
    /// A group, whatever it owns.
    Group(GroupId),
}

/// A shard map made ready for looking up.
#[derive(Debug)]
pub(crate) struct Routes {
    map: Arc<ShardMap>,
    /// First hash of each range and the index of its group, in the order of the hashes.
    ranges: Vec<(u64, usize)>,
    /// In the order of their ids.
    groups: Vec<GroupRoute>,
}

/// What is known of one group.
#[derive(Debug)]
pub(crate) struct GroupRoute {
    pub(crate) id: GroupId,
    pub(crate) epoch: RangeEpoch,
    pub(crate) replicas: Vec<NodeId>,
    last_hash: Option<u64>,
    leader: AtomicU32,
}

impl Routes {
    /// Prepares `map`, with the beliefs of the table that it replaces.
    pub(crate) fn new(map: Arc<ShardMap>, before: Option<&Routes>) -> Routes {
        let mut groups = Vec::with_capacity(map.groups.len());
        let mut ranges = Vec::with_capacity(map.groups.len());
        for (index, (id, group)) in map.groups.iter().enumerate() {
            let replicas: Vec<NodeId> = group.replicas.iter().map(|replica| replica.node).collect();
            let believed = before.and_then(|before| before.group(*id)).and_then(GroupRoute::leader);
            let leader = believed.filter(|node| replicas.contains(node)).or_else(|| replicas.first().copied());
            if let Some(range) = group.range {
                ranges.push((range.first, index));
            }
            groups.push(GroupRoute {
                id: *id,
                epoch: RangeEpoch(group.epoch.0),
                replicas,
                last_hash: group.range.map(|range| range.last),
                leader: AtomicU32::new(leader.map_or(0, |node| node.0)),
            });
        }
        ranges.sort_unstable();
        Routes { map, ranges, groups }
    }

    /// The map as it came.
    pub(crate) fn map(&self) -> &Arc<ShardMap> {
        &self.map
    }

    /// The group that a call goes to, and the epoch that it carries.
    pub(crate) fn resolve(&self, target: Target<'_>) -> Option<(&GroupRoute, RangeEpoch)> {
        match target {
            Target::Key(key) => {
                let group = self.owner(hash_name(&self.map.hash_key, key.name.as_str()))?;
                Some((group, group.epoch))
            }
            Target::Home(session) => {
                Some((self.owner(hash_session(&self.map.hash_key, session.0))?, RangeEpoch::default()))
            }
            Target::Group(id) => Some((self.group(id)?, RangeEpoch::default())),
        }
    }

    /// Every group that owns a shard.
    pub(crate) fn shards(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.ranges.iter().map(|(_, index)| self.groups[*index].id)
    }

    fn owner(&self, hash: u64) -> Option<&GroupRoute> {
        let after = self.ranges.partition_point(|(first, _)| *first <= hash);
        let (_, index) = self.ranges.get(after.checked_sub(1)?)?;
        let group = &self.groups[*index];
        group.last_hash.is_some_and(|last| hash <= last).then_some(group)
    }

    /// A group of the map.
    pub(crate) fn group(&self, id: GroupId) -> Option<&GroupRoute> {
        self.groups.binary_search_by_key(&id, |group| group.id).ok().map(|index| &self.groups[index])
    }
}

impl GroupRoute {
    /// Who is believed to lead it.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        Some(NodeId(self.leader.load(Ordering::Relaxed))).filter(|node| node.0 != 0)
    }

    /// Believes that `node` leads it.
    pub(crate) fn believe(&self, node: NodeId) {
        if self.leader.load(Ordering::Relaxed) != node.0 {
            self.leader.store(node.0, Ordering::Relaxed);
        }
    }

    /// Whom to ask after `node` could not help.
    pub(crate) fn next(&self, node: NodeId) -> Option<NodeId> {
        let at = self.replicas.iter().position(|replica| *replica == node);
        let next = at.map_or(0, |at| (at + 1) % self.replicas.len());
        self.replicas.get(next).copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wardlock_machine::Name;
    use wardlock_placement::{Epoch, Group, HashKey, MapVersion, Range, Replica, ReplicaId};

    use super::*;

    fn map(cuts: &[u64]) -> ShardMap {
        let mut map = ShardMap { version: MapVersion(1), hash_key: HashKey([7; 16]), ..ShardMap::default() };
        let mut first = 0;
        let ends = cuts.iter().copied().chain([u64::MAX]);
        for (number, last) in (1..).zip(ends) {
            let replicas = vec![Replica { id: ReplicaId(u64::from(number)), node: NodeId(number) }];
            let group = Group { range: Some(Range { first, last }), epoch: Epoch(1), replicas };
            map.groups.insert(GroupId(number), group);
            first = last.saturating_add(1);
        }
        map
    }

    proptest! {
        #[test]
        fn finds_what_the_map_says(mut cuts in prop::collection::vec(any::<u64>(), 0..40), names in prop::collection::vec("[a-z{}]{1,12}", 1..40)) {
            cuts.sort_unstable();
            cuts.dedup();
            cuts.retain(|cut| *cut != u64::MAX);
            let map = Arc::new(map(&cuts));
            let routes = Routes::new(map.clone(), None);
            for name in names {
                let key = Key::lock(Name::new(&name).expect("short"));
                let found = routes.resolve(Target::Key(&key)).map(|(group, _)| group.id);
                prop_assert_eq!(found, map.owner(hash_name(&map.hash_key, &name)));
            }
        }
    }

    #[test]
    fn a_newer_table_inherits_beliefs_that_still_hold() {
        let mut first = map(&[]);
        first.groups.get_mut(&GroupId(1)).expect("there").replicas =
            (1..4).map(|n| Replica { id: ReplicaId(n), node: NodeId(n as u32) }).collect();
        let old = Routes::new(Arc::new(first.clone()), None);
        old.group(GroupId(1)).expect("there").believe(NodeId(3));
        let kept = Routes::new(Arc::new(first.clone()), Some(&old));
        assert_eq!(kept.group(GroupId(1)).and_then(GroupRoute::leader), Some(NodeId(3)));
        first.groups.get_mut(&GroupId(1)).expect("there").replicas.truncate(2);
        let moved = Routes::new(Arc::new(first), Some(&old));
        assert_eq!(moved.group(GroupId(1)).and_then(GroupRoute::leader), Some(NodeId(1)));
    }
}
