//! `/cluster`: the map, the nodes, the shards, for people. Never the key of the hash.
//!
//! Nodes are asked all at once and given a second; one that does not answer is shown as such, and what the
//! others say of its replicas stands.

use std::{collections::BTreeMap, path::Path, time::Duration};

use futures_util::future::join_all;
use serde::Serialize;
use wardlock_placement::{Epoch, Group, GroupId, MapVersion, NodeId, PLACEMENT, ReplicaId, ShardMap};
use wardlock_wire::{GroupStatus, Status};

use super::{Gateway, backend::Backend, call::Call, input, problem::Problem, render::SUCCESS, reply::Reply};
use crate::Error;

const NODE_PATIENCE: Duration = Duration::from_secs(1);

impl<B: Backend> Gateway<B> {
    pub(super) fn cluster(&self, call: Call<'_>) -> Result<Reply, Problem> {
        call.params()?.finish()?;
        let map = self.backend().map();
        Reply::ok(&ClusterDoc {
            cluster: &self.info().cluster,
            map_version: map.version,
            incarnation: map.incarnation,
            shards: shards(&map).count(),
            nodes: map.nodes.iter().map(|(id, node)| Address::new(*id, node)).collect(),
            certs: self.info().certs_hint.as_deref(),
        })
    }

    pub(super) async fn nodes(&self, call: Call<'_>) -> Result<Reply, Problem> {
        call.params()?.finish()?;
        let map = self.backend().map();
        let statuses = self.statuses(&map).await;
        let nodes = statuses.iter().filter_map(|(id, status)| {
            let status_ok = status.as_ref().ok();
            let replicas = map.groups.values().flat_map(|g| &g.replicas).filter(|r| r.node == *id).count();
            Some(NodeDoc {
                address: Address::new(*id, map.nodes.get(id)?),
                reachable: status.is_ok(),
                error: status.as_ref().err().map(ToString::to_string),
                version: status_ok.map(|s| s.version.as_str()),
                leads: status_ok.map(|s| s.groups.iter().filter(|g| g.leader == Some(*id)).count()),
                replicas,
            })
        });
        Reply::ok(&Nodes { map_version: map.version, nodes: nodes.collect() })
    }

    pub(super) async fn shards(&self, call: Call<'_>) -> Result<Reply, Problem> {
        call.params()?.finish()?;
        let map = self.backend().map();
        let statuses = self.statuses(&map).await;
        Reply::ok(&Shards {
            map_version: map.version,
            placement: map.groups.get(&PLACEMENT).map(|group| shard(PLACEMENT, group, &statuses)),
            shards: shards(&map).map(|(id, group)| shard(*id, group, &statuses)).collect(),
        })
    }

    pub(super) async fn transfer(&self, id: GroupId, mut call: Call<'_>) -> Result<Reply, Problem> {
        let to = call.fields.integer("to", 1, u32::MAX.into())?.and_then(|n| u32::try_from(n).ok());
        let to = NodeId(to.ok_or_else(|| input::missing("to"))?);
        call.fields.finish()?;
        let map = self.backend().map();
        let group = map.groups.get(&id);
        let group =
            group.ok_or_else(|| Problem::missing("unknown-shard", "There is no such shard", "see /cluster/shards"))?;
        if !group.replicas.iter().any(|replica| replica.node == to) {
            return Err(Problem::field("to", format!("node {to} has no replica of shard {id}")));
        }
        self.backend().transfer(id, to, call.patience).await?;
        Reply::ok(&SUCCESS)
    }

    async fn statuses(&self, map: &ShardMap) -> Statuses {
        let asked = map.nodes.keys().map(|id| async move { (*id, self.backend().status(*id, NODE_PATIENCE).await) });
        join_all(asked).await.into_iter().collect()
    }
}

type Statuses = BTreeMap<NodeId, Result<Status, Error>>;

fn shards(map: &ShardMap) -> impl Iterator<Item = (&GroupId, &Group)> {
    map.groups.iter().filter(|(_, group)| group.range.is_some())
}

fn shard<'a>(id: GroupId, group: &'a Group, statuses: &'a Statuses) -> ShardDoc {
    let told = |node: NodeId| -> Option<&GroupStatus> {
        statuses.get(&node)?.as_ref().ok()?.groups.iter().find(|g| g.group == id)
    };
    let replicas = || group.replicas.iter().filter_map(|replica| told(replica.node).map(|g| (replica.node, g)));
    // A deposed leader may not know it yet: the highest term is right.
    let leader = replicas().filter(|(node, g)| g.leader == Some(*node)).max_by_key(|(_, g)| g.term);
    let lag = |node: NodeId| -> Option<u64> {
        let (leader_node, leading) = leader?;
        let end = leading.last_log?;
        if node == leader_node {
            return Some(0);
        }
        let matched = leading.matched.iter().find(|(member, _)| *member == node)?.1;
        Some(end.saturating_sub(matched.unwrap_or(0)))
    };
    ShardDoc {
        id,
        epoch: group.epoch,
        leader: leader.map(|(node, _)| node),
        term: replicas().map(|(_, g)| g.term).max(),
        replicas: group
            .replicas
            .iter()
            .map(|replica| ReplicaDoc {
                node: replica.node,
                replica: replica.id,
                reachable: told(replica.node).is_some(),
                lag: lag(replica.node),
                last_log: told(replica.node).and_then(|g| g.last_log),
                applied: told(replica.node).and_then(|g| g.applied),
                snapshot: told(replica.node).and_then(|g| g.snapshot),
            })
            .collect(),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ClusterDoc<'a> {
    cluster: &'a str,
    map_version: MapVersion,
    incarnation: u16,
    shards: usize,
    nodes: Vec<Address<'a>>,
    /// Where a client of this machine finds certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    certs: Option<&'a Path>,
}

#[derive(Serialize)]
struct Address<'a> {
    id: NodeId,
    quic: &'a str,
    http: Option<&'a str>,
    domain: Option<&'a str>,
}

impl<'a> Address<'a> {
    fn new(id: NodeId, node: &'a wardlock_placement::Node) -> Address<'a> {
        Address { id, quic: &node.quic, http: node.http.as_deref(), domain: node.domain.as_deref() }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Nodes<'a> {
    map_version: MapVersion,
    nodes: Vec<NodeDoc<'a>>,
}

#[derive(Serialize)]
struct NodeDoc<'a> {
    #[serde(flatten)]
    address: Address<'a>,
    reachable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    version: Option<&'a str>,
    /// How many groups it leads, the placement group among them.
    leads: Option<usize>,
    replicas: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shards {
    map_version: MapVersion,
    placement: Option<ShardDoc>,
    shards: Vec<ShardDoc>,
}

#[derive(Serialize)]
struct ShardDoc {
    id: GroupId,
    epoch: Epoch,
    leader: Option<NodeId>,
    term: Option<u64>,
    replicas: Vec<ReplicaDoc>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReplicaDoc {
    node: NodeId,
    replica: ReplicaId,
    reachable: bool,
    /// In log entries behind the leader, as the leader knows it.
    lag: Option<u64>,
    last_log: Option<u64>,
    applied: Option<u64>,
    snapshot: Option<u64>,
}
