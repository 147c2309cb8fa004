//! What the placement group logs, and why a change is refused.

use serde::{Deserialize, Serialize};

use crate::{ids::*, limits, map::*};

/// One entry of the placement group's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Founds the cluster: the first change, and only once.
    Found {
        /// Drawn at random by the proposer; never changes again.
        hash_key: HashKey,
        /// Of the cluster.
        incarnation: u16,
        /// The nodes of the static list, or those that [`founding_replicas`] takes from it: the outcome is
        /// the same.
        placement: Vec<NodeId>,
    },
    /// A node is new, or is reached in another way than before. One that says what the map says is accepted
    /// and changes nothing. Refused when the id is 0, when an address is out of bounds, or when the table is
    /// full; **not** when another node has the address: a machine may inherit it before the old node has said
    /// where it is now, and certificates tell the two apart.
    Register {
        /// Its id.
        node: NodeId,
        /// How to reach it.
        info: Node,
    },
    /// Creates all shards, with equal ranges, at epoch 1. Once.
    CreateShards {
        /// The nodes of each shard, distinct and registered; the first should lead it.
        assignments: Vec<Vec<NodeId>>,
    },
}

/// Why a change was refused. The map is untouched, on every replica.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Nothing can happen before [`Change::Found`].
    #[error("the cluster has not been founded")]
    NotFounded,
    /// A second founding.
    #[error("the cluster has already been founded")]
    AlreadyFounded,
    /// The founding list is empty, too long, names node 0 or names a node twice.
    #[error("not a list of founding nodes")]
    Founders,
    /// Node ids begin at 1.
    #[error("node {0} is not a valid id")]
    NodeId(NodeId),
    /// An address or a domain is empty or longer than [`limits::ADDRESS_BYTES`].
    #[error("node {0} has an address or a domain that is empty or too long")]
    Address(NodeId),
    /// The table is full.
    #[error("there are {} nodes already", limits::NODES)]
    TooManyNodes,
    /// The shards exist.
    #[error("the shards have already been created")]
    AlreadyCreated,
    /// Not 1 to [`limits::SHARDS`] shards.
    #[error("{0} shards are not between 1 and {max}", max = limits::SHARDS)]
    ShardCount(usize),
    /// Not 1 to [`limits::REPLICAS`] replicas.
    #[error("shard {shard} has {replicas} replicas, which is not between 1 and {max}", max = limits::REPLICAS)]
    ReplicaCount {
        /// The shard's group.
        shard: GroupId,
        /// How many.
        replicas: usize,
    },
    /// A shard has two replicas on one node.
    #[error("shard {shard} has more than one replica on node {node}")]
    TwiceOnNode {
        /// The shard's group.
        shard: GroupId,
        /// The node.
        node: NodeId,
    },
    /// A shard has a replica on a node that never registered.
    #[error("shard {shard} has a replica on node {node}, which has not registered")]
    UnknownNode {
        /// The shard's group.
        shard: GroupId,
        /// The node.
        node: NodeId,
    },
}

/// Bytes that are not a change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a change of the shard map that this version understands")]
pub struct Malformed;

/// The format of an encoded change, its first byte.
const FORMAT: u8 = 1;

impl Change {
    /// As the log keeps it.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        bytes.extend(postcard::to_stdvec(self).expect("a change has nothing that postcard refuses"));
        bytes
    }

    /// From the log. The same bytes are malformed on every replica.
    pub fn decode(bytes: &[u8]) -> Result<Change, Malformed> {
        match bytes.split_first() {
            Some((&FORMAT, body)) if bytes.len() <= limits::CHANGE_BYTES => match postcard::take_from_bytes(body) {
                Ok((change, [])) => Ok(change),
                _ => Err(Malformed),
            },
            _ => Err(Malformed),
        }
    }
}

/// The replicas that the placement group is founded with, out of the nodes of the static list: the lowest
/// node ids, 5, 3 or 1 of them (the largest odd number that the list has), with replica ids 1, 2, … in
/// ascending order of the nodes. Every node derives the same before there is a map.
pub fn founding_replicas(nodes: &[NodeId]) -> Vec<Replica> {
    let mut nodes = nodes.to_vec();
    nodes.sort_unstable();
    nodes.dedup();
    let count = match nodes.len().min(limits::FOUNDERS) {
        0 => 0,
        some => some - (some + 1) % 2,
    };
    nodes[..count].iter().zip(1..).map(|(&node, id)| Replica { id: ReplicaId(id), node }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn founders_are_an_odd_number_of_the_lowest_nodes() {
        for (nodes, founders) in [
            (vec![], vec![]),
            (vec![4], vec![4]),
            (vec![4, 2], vec![2]),
            (vec![3, 1, 2], vec![1, 2, 3]),
            (vec![9, 7, 7, 5], vec![5, 7, 9]),
            (vec![4, 3, 2, 1], vec![1, 2, 3]),
            (vec![9, 8, 7, 6, 5, 4, 3], vec![3, 4, 5, 6, 7]),
        ] {
            let nodes: Vec<NodeId> = nodes.into_iter().map(NodeId).collect();
            let replicas = founding_replicas(&nodes);
            let expected: Vec<_> =
                founders.iter().zip(1..).map(|(&n, id)| Replica { id: ReplicaId(id), node: NodeId(n) }).collect();
            assert_eq!(replicas, expected, "of {nodes:?}");
            let chosen: Vec<_> = replicas.iter().map(|r| r.node).collect();
            assert_eq!(founding_replicas(&chosen), replicas, "choosing again chooses the same");
        }
    }

    #[test]
    fn a_change_survives_the_log() {
        let change = Change::CreateShards { assignments: vec![vec![NodeId(u32::MAX); 7]; 1024] };
        let bytes = change.encode();
        assert!(bytes.len() <= limits::CHANGE_BYTES);
        assert_eq!(Change::decode(&bytes), Ok(change));
        assert_eq!(Change::decode(&bytes[..bytes.len() - 1]), Err(Malformed));
        assert_eq!(Change::decode(&[&bytes[..], &[0]].concat()), Err(Malformed));
        assert_eq!(Change::decode(&[9]), Err(Malformed));
        assert_eq!(Change::decode(&[]), Err(Malformed));
        assert_eq!(Change::decode(&vec![FORMAT; limits::CHANGE_BYTES + 1]), Err(Malformed));
    }
}
