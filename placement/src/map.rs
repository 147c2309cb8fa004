//! The shard map: hash range → group → replicas → nodes.
//!
//! # Invariants
//! 1. The ranges of the shards cover the hash space without gap or overlap, once there are shards.
//! 2. No two replicas of a group live on one node, and no replica id is ever used twice.
//! 3. The version rises with every change.
//!
//! [`Placement`](crate::Placement) asserts them after every change; [`ShardMap::check`] tests them in a map
//! that was read from elsewhere.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::ids::*;

/// What the group-0 state machine replicates, routers cache and clients fetch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardMap {
    /// Of this map; 0 before the cluster is founded.
    pub version: MapVersion,
    /// Of the cluster; raised by a restore.
    pub incarnation: u16,
    /// Keys the hash of names. Travels over mutual TLS only.
    pub hash_key: HashKey,
    /// Every node that has ever registered.
    pub nodes: BTreeMap<NodeId, Node>,
    /// Every group, the placement group among them.
    pub groups: BTreeMap<GroupId, Group>,
    /// The next replica id to give out.
    pub next_replica: ReplicaId,
}

impl ShardMap {
    /// Whether the cluster has been founded.
    pub fn is_founded(&self) -> bool {
        self.groups.contains_key(&PLACEMENT)
    }

    /// Every group that owns a range.
    pub fn shards(&self) -> impl Iterator<Item = (GroupId, Range, &Group)> {
        self.groups.iter().filter_map(|(id, group)| Some((*id, group.range?, group)))
    }

    /// The group that owns `hash`, by looking at each. [`Routes`](crate::Routes) is for those who ask often.
    pub fn owner(&self, hash: u64) -> Option<GroupId> {
        self.shards().find(|(_, range, _)| range.contains(hash)).map(|(id, ..)| id)
    }
}

/// A node as others reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// `host:port` for QUIC.
    pub quic: String,
    /// `host:port` of its HTTP gateway, if it has one.
    pub http: Option<String>,
    /// Its failure domain: rack, zone. Replicas of a group spread over distinct ones where they can.
    pub domain: Option<String>,
}

/// A Raft group and what it owns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its slice of the hash space, both ends included. The placement group has none.
    pub range: Option<Range>,
    /// Of that range.
    pub epoch: Epoch,
    /// Its voters. The first is where the planner would like the leader to start.
    pub replicas: Vec<Replica>,
}

/// A slice of the hash space, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Range {
    /// Lowest hash.
    pub first: u64,
    /// Highest hash.
    pub last: u64,
}

impl Range {
    /// Whether `hash` lies in it.
    pub fn contains(self, hash: u64) -> bool {
        self.first <= hash && hash <= self.last
    }
}

/// The hash space in `shards` ranges whose lengths differ by one at the most.
pub(crate) fn equal_ranges(shards: usize) -> Vec<Range> {
    let first = |i: usize| ((i as u128) << 64) / shards as u128;
    (0..shards).map(|i| Range { first: first(i) as u64, last: (first(i + 1) - 1) as u64 }).collect()
}

/// One group's copy on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Replica {
    /// Its own id.
    pub id: ReplicaId,
    /// Where it lives.
    pub node: NodeId,
}

/// A 128-bit SipHash key. Its `Debug` shows nothing of it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashKey(pub [u8; 16]);

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(…)")
    }
}
