//! Whether a map that was read from elsewhere can be one that [`Placement`](crate::Placement) made.

use std::collections::BTreeSet;

use crate::{ids::*, limits, map::*};

/// Which promise a map breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Invariant 1.
    #[error("invariant 1: the ranges do not cover the hash space once, at hash {at}")]
    Cover {
        /// The first hash of a gap or an overlap.
        at: u64,
    },
    /// The placement group owns a range, another group owns none, or there are groups before the founding.
    #[error("group {0} should not be as it is")]
    Group(GroupId),
    /// Invariant 2.
    #[error("invariant 2: group {group} has more than one replica on node {node}")]
    TwiceOnNode {
        /// The group.
        group: GroupId,
        /// The node.
        node: NodeId,
    },
    /// Invariant 2.
    #[error("invariant 2: replica id {0} is used twice or not given out yet")]
    ReplicaId(ReplicaId),
    /// A shard has a replica on a node that never registered.
    #[error("group {group} has a replica on node {node}, which nobody knows")]
    UnknownNode {
        /// The group.
        group: GroupId,
        /// The node.
        node: NodeId,
    },
    /// A node's id or its addresses are out of bounds.
    #[error("node {0} should not be as it is")]
    Node(NodeId),
    /// Invariant 3.
    #[error("invariant 3: version {0} is too low for what the map holds, or impossibly high")]
    Version(MapVersion),
    /// Too many nodes, groups or replicas.
    #[error("the map is larger than any may be")]
    TooLarge,
}

impl ShardMap {
    /// Tests invariants 1 to 3 of [`map`](crate::map) and every bound.
    pub fn check(&self) -> Result<(), Broken> {
        self.check_sizes()?;
        self.check_groups()?;
        self.check_cover()
    }

    fn check_sizes(&self) -> Result<(), Broken> {
        // Founding, registering a node and creating the shards are at least one version each.
        let least = self.nodes.len() + usize::from(self.is_founded()) + usize::from(self.groups.len() > 1);
        if self.version.0 < least as u64 || self.version.0 >= limits::COUNTER_END {
            return Err(Broken::Version(self.version));
        }
        if self.nodes.len() > limits::NODES || self.groups.len() > limits::SHARDS + 1 {
            return Err(Broken::TooLarge);
        }
        match self.nodes.iter().find(|(id, node)| id.0 == 0 || !node.is_valid()) {
            Some((id, _)) => Err(Broken::Node(*id)),
            None => Ok(()),
        }
    }

    fn check_groups(&self) -> Result<(), Broken> {
        let mut ids = BTreeSet::new();
        for (&id, group) in &self.groups {
            if group.range.is_none() != (id == PLACEMENT) || !self.is_founded() || group.replicas.is_empty() {
                return Err(Broken::Group(id));
            }
            if group.replicas.len() > limits::REPLICAS {
                return Err(Broken::TooLarge);
            }
            let mut nodes = BTreeSet::new();
            for replica in &group.replicas {
                let (replica, node) = (replica.id, replica.node);
                if !nodes.insert(node) {
                    return Err(Broken::TwiceOnNode { group: id, node });
                }
                if replica.0 == 0 || replica >= self.next_replica || !ids.insert(replica) {
                    return Err(Broken::ReplicaId(replica));
                }
                // The founders of the placement group register through it, so they stand in it before.
                if id != PLACEMENT && !self.nodes.contains_key(&node) {
                    return Err(Broken::UnknownNode { group: id, node });
                }
            }
        }
        match self.next_replica.0 < limits::COUNTER_END {
            true => Ok(()),
            false => Err(Broken::ReplicaId(self.next_replica)),
        }
    }

    fn check_cover(&self) -> Result<(), Broken> {
        let mut ranges: Vec<_> = self.shards().map(|(_, range, _)| range).collect();
        ranges.sort_unstable();
        let mut next = Some(0);
        for range in &ranges {
            if next != Some(range.first) || range.last < range.first {
                return Err(Broken::Cover { at: next.unwrap_or(u64::MAX).min(range.first) });
            }
            next = range.last.checked_add(1);
        }
        match next {
            Some(at) if !ranges.is_empty() => Err(Broken::Cover { at }),
            _ => Ok(()),
        }
    }
}

impl Node {
    /// Whether its addresses and its domain are within bounds: neither empty nor too long.
    pub fn is_valid(&self) -> bool {
        let fits = |text: &String| (1..=limits::ADDRESS_BYTES).contains(&text.len());
        fits(&self.quic) && self.http.iter().all(fits) && self.domain.iter().all(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::with_shards;

    /// Each break is put in by hand and must be found, by its own name.
    #[test]
    fn every_break_is_found() {
        let whole = with_shards(3, 4).map().clone();
        assert_eq!(whole.check(), Ok(()));
        assert_eq!(ShardMap::default().check(), Ok(()));
        let broken = |change: &dyn Fn(&mut ShardMap)| {
            let mut map = whole.clone();
            change(&mut map);
            map.check().unwrap_err()
        };
        let shard = |map: &mut ShardMap, id| map.groups.remove(&GroupId(id)).unwrap();
        let quarter = 1 << 62;

        assert_eq!(broken(&|m| drop(shard(m, 1))), Broken::Cover { at: 0 });
        assert_eq!(broken(&|m| drop(shard(m, 2))), Broken::Cover { at: quarter });
        assert_eq!(broken(&|m| drop(shard(m, 4))), Broken::Cover { at: 3 * quarter });
        let overlap = Range { first: 0, last: quarter };
        let found = broken(&|m| m.groups.get_mut(&GroupId(1)).unwrap().range = Some(overlap));
        assert_eq!(found, Broken::Cover { at: quarter });
        let found = broken(&|m| m.groups.get_mut(&GroupId(1)).unwrap().range = None);
        assert_eq!(found, Broken::Group(GroupId(1)));
        assert_eq!(broken(&|m| drop(shard(m, 0))), Broken::Group(GroupId(1)));

        let found = broken(&|m| m.groups.get_mut(&GroupId(1)).unwrap().replicas[1].node = NodeId(1));
        assert_eq!(found, Broken::TwiceOnNode { group: GroupId(1), node: NodeId(1) });
        let found = broken(&|m| m.groups.get_mut(&GroupId(2)).unwrap().replicas[0].id = ReplicaId(1));
        assert_eq!(found, Broken::ReplicaId(ReplicaId(1)));
        assert!(matches!(broken(&|m| m.next_replica.0 -= 1), Broken::ReplicaId(_)));
        let found = broken(&|m| drop(m.nodes.remove(&NodeId(2))));
        assert!(matches!(found, Broken::UnknownNode { node: NodeId(2), .. }));

        assert_eq!(broken(&|m| m.version.0 = 4), Broken::Version(MapVersion(4)));
        let found = broken(&|m| m.nodes.get_mut(&NodeId(1)).unwrap().quic.clear());
        assert_eq!(found, Broken::Node(NodeId(1)));
    }
}
