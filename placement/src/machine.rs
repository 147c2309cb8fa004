//! The state machine of the placement group.
//!
//! A [`Placement`] holds the [`ShardMap`] and is a function of the [`Change`]s applied to it.
//!
//! # Invariants
//! Those of [`map`](crate::map), numbered there, and:
//!
//! 4. A refused change, and one that says what the map says already, leaves the map as it was.
//! 5. A snapshot restores to an equal machine, or is refused as [`Corrupt`].

use siphasher::sip::SipHasher13;

use crate::{
    change::*,
    check::Broken,
    ids::*,
    limits,
    map::{equal_ranges, *},
};

/// The shard map as the placement group replicates it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    map: ShardMap,
}

/// Why a snapshot is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// Longer than any snapshot, or too short for its head.
    #[error("the snapshot has an impossible length")]
    Length,
    /// Of a format that this version does not read.
    #[error("the snapshot has format {0}, which this version does not read")]
    Format(u8),
    /// The bytes are not those that were written.
    #[error("the snapshot's checksum is wrong")]
    Checksum,
    /// The bytes are whole and hold no map.
    #[error("the snapshot holds no map: {0}")]
    Encoding(#[from] postcard::Error),
    /// The map breaks a promise.
    #[error(transparent)]
    Broken(#[from] Broken),
}

/// A snapshot is this byte, eight bytes of checksum over the rest, and the map.
const FORMAT: u8 = 1;
const HEAD: usize = 9;

impl Placement {
    /// The map as it stands.
    pub fn map(&self) -> &ShardMap {
        &self.map
    }

    /// Applies a change, entirely or not at all.
    pub fn apply(&mut self, change: Change) -> Result<(), Rejected> {
        let before = self.map.version;
        let changed = match change {
            Change::Found { hash_key, incarnation, placement } => self.found(hash_key, incarnation, placement)?,
            Change::Register { node, info } => self.register(node, info)?,
            Change::CreateShards { assignments } => self.create_shards(&assignments)?,
        };
        if changed {
            self.map.version.0 += 1;
            assert!(self.map.version > before, "invariant 3: version {before} did not rise");
            assert_eq!(self.map.check(), Ok(()), "an accepted change broke the map");
        }
        Ok(())
    }

    /// All of it, with a checksum.
    pub fn snapshot(&self) -> Vec<u8> {
        let body = self.body();
        let mut bytes = Vec::with_capacity(HEAD + body.len());
        bytes.push(FORMAT);
        bytes.extend(digest(&body).to_le_bytes());
        bytes.extend(body);
        assert!(bytes.len() <= limits::SNAPSHOT_BYTES, "the bounds let a snapshot grow to {} bytes", bytes.len());
        bytes
    }

    /// From a snapshot, which may come from a peer or a disk: checked in full.
    pub fn restore(bytes: &[u8]) -> Result<Placement, Corrupt> {
        if bytes.len() > limits::SNAPSHOT_BYTES {
            return Err(Corrupt::Length);
        }
        let (&[format, ref sum @ ..], body) = bytes.split_first_chunk::<HEAD>().ok_or(Corrupt::Length)?;
        if format != FORMAT {
            return Err(Corrupt::Format(format));
        }
        if u64::from_le_bytes(*sum) != digest(body) {
            return Err(Corrupt::Checksum);
        }
        let (map, rest) = postcard::take_from_bytes::<ShardMap>(body)?;
        if !rest.is_empty() {
            return Err(Corrupt::Length);
        }
        map.check()?;
        // Counters of this size are never reached by counting; beyond it the next changes would break the map.
        if map.version.0 >= limits::COUNTER_END / 2 {
            return Err(Broken::Version(map.version).into());
        }
        if map.next_replica.0 >= limits::COUNTER_END / 2 {
            return Err(Broken::ReplicaId(map.next_replica).into());
        }
        Ok(Placement { map })
    }

    /// A number that equal machines share and others do not: to compare replicas.
    pub fn digest(&self) -> u64 {
        digest(&self.body())
    }

    fn body(&self) -> Vec<u8> {
        postcard::to_stdvec(&self.map).expect("a map has nothing that postcard refuses")
    }

    fn found(&mut self, hash_key: HashKey, incarnation: u16, nodes: Vec<NodeId>) -> Result<bool, Rejected> {
        if self.map.is_founded() {
            return Err(Rejected::AlreadyFounded);
        }
        let twice = |i: usize| nodes[..i].contains(&nodes[i]);
        if nodes.is_empty() || nodes.len() > limits::NODES || nodes.contains(&NodeId(0)) || (0..nodes.len()).any(twice)
        {
            return Err(Rejected::Founders);
        }
        let replicas = founding_replicas(&nodes);
        self.map.hash_key = hash_key;
        self.map.incarnation = incarnation;
        self.map.next_replica = ReplicaId(replicas.len() as u64 + 1);
        self.map.groups.insert(PLACEMENT, Group { range: None, epoch: Epoch(0), replicas });
        Ok(true)
    }

    fn register(&mut self, node: NodeId, info: Node) -> Result<bool, Rejected> {
        check_registration(&self.map, node, &info)?;
        let old = self.map.nodes.insert(node, info);
        Ok(old.as_ref() != self.map.nodes.get(&node))
    }

    fn create_shards(&mut self, assignments: &[Vec<NodeId>]) -> Result<bool, Rejected> {
        self.check_assignments(assignments)?;
        for ((nodes, range), group) in assignments.iter().zip(equal_ranges(assignments.len())).zip(1..) {
            let next = self.map.next_replica.0;
            let replicas: Vec<_> =
                nodes.iter().zip(next..).map(|(&node, id)| Replica { id: ReplicaId(id), node }).collect();
            self.map.next_replica.0 += replicas.len() as u64;
            self.map.groups.insert(GroupId(group), Group { range: Some(range), epoch: Epoch(1), replicas });
        }
        Ok(true)
    }

    fn check_assignments(&self, assignments: &[Vec<NodeId>]) -> Result<(), Rejected> {
        if !self.map.is_founded() {
            return Err(Rejected::NotFounded);
        }
        if self.map.shards().next().is_some() {
            return Err(Rejected::AlreadyCreated);
        }
        if !(1..=limits::SHARDS).contains(&assignments.len()) {
            return Err(Rejected::ShardCount(assignments.len()));
        }
        for (nodes, shard) in assignments.iter().zip((1..).map(GroupId)) {
            if !(1..=limits::REPLICAS).contains(&nodes.len()) {
                return Err(Rejected::ReplicaCount { shard, replicas: nodes.len() });
            }
            for (i, &node) in nodes.iter().enumerate() {
                if nodes[..i].contains(&node) {
                    return Err(Rejected::TwiceOnNode { shard, node });
                }
                if !self.map.nodes.contains_key(&node) {
                    return Err(Rejected::UnknownNode { shard, node });
                }
            }
        }
        Ok(())
    }
}

/// Whether the map takes this node. The planner asks too, so as not to log what will be refused.
pub(crate) fn check_registration(map: &ShardMap, node: NodeId, info: &Node) -> Result<(), Rejected> {
    if !map.is_founded() {
        return Err(Rejected::NotFounded);
    }
    if node.0 == 0 {
        return Err(Rejected::NodeId(node));
    }
    if !info.is_valid() {
        return Err(Rejected::Address(node));
    }
    if map.nodes.len() >= limits::NODES && !map.nodes.contains_key(&node) {
        return Err(Rejected::TooManyNodes);
    }
    Ok(())
}

/// A checksum against accidents: its key is no secret.
fn digest(bytes: &[u8]) -> u64 {
    SipHasher13::new().hash(bytes)
}

#[cfg(test)]
#[path = "machine/tests.rs"]
pub(crate) mod tests;
