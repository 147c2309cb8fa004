//! What this node says of itself, for people.

use std::sync::Arc;

use openraft::async_runtime::watch::WatchReceiver;
use wardlock_placement::{GroupId, NodeId, ReplicaId, ShardMap};
use wardlock_wire::{GroupStatus, Status};

use super::Host;
use crate::{group::Group, raft::store::Replica};

impl Host {
    /// This node's replica of a group, for those who compare replicas.
    pub fn replica(&self, group: GroupId) -> Option<Arc<Replica>> {
        Some(Arc::clone(&self.groups.get(&group)?.replica))
    }

    /// This node's groups as they are now.
    pub fn status(&self) -> Status {
        let map = self.map();
        let mut groups: Vec<GroupStatus> = self.groups.iter().map(|group| group_status(&group, &map)).collect();
        groups.sort_unstable_by_key(|status| status.group);
        Status { node: self.parts.node, version: env!("CARGO_PKG_VERSION").to_owned(), groups }
    }
}

fn group_status(group: &Group, map: &ShardMap) -> GroupStatus {
    let metrics = group.raft.metrics();
    let metrics = metrics.borrow_watched();
    let home = |replica: u64| -> Option<NodeId> {
        let places = &map.groups.get(&group.id)?.replicas;
        places.iter().find(|place| place.id == ReplicaId(replica)).map(|place| place.node)
    };
    let matched = metrics.replication.iter().flatten();
    GroupStatus {
        group: group.id,
        replica: group.replica_id,
        term: metrics.current_term,
        leader: metrics.current_leader.and_then(home),
        last_log: metrics.last_log_index,
        applied: metrics.last_applied.map(|log_id| log_id.index),
        snapshot: metrics.snapshot.map(|log_id| log_id.index),
        matched: matched.filter_map(|(id, at)| Some((home(*id)?, at.map(|log_id| log_id.index)))).collect(),
    }
}
