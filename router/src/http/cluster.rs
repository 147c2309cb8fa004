//! `/cluster`: the map, the nodes, the shards, for people. Never the key of the hash.
//!
//! Nodes are asked all at once and given a second; one that does not answer is shown as such, and what the
//! others say of its replicas stands.

use std::{collections::BTreeMap, path::Path, time::Duration};

use futures_util::future::join_all;
use serde::Serialize;
use utoipa::ToSchema;
use wardlock_placement::{Epoch, Group, GroupId, MapVersion, NodeId, PLACEMENT, ReplicaId, ShardMap};
use wardlock_wire::{GroupStatus, Status};

use super::{
    Gateway, backend::Backend, call::Call, input, openapi::shapes, problem::Problem, render::SUCCESS, reply::Reply,
};
use crate::Error;

pub(super) mod spec;

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

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Cluster)]
struct ClusterDoc<'a> {
    cluster: &'a str,
    #[schema(value_type = shapes::Count)]
    map_version: MapVersion,
    incarnation: u16,
    shards: usize,
    nodes: Vec<Address<'a>>,
    /// Where a client of this machine finds certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    certs: Option<&'a Path>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = NodeAddress)]
struct Address<'a> {
    #[schema(value_type = shapes::NodeId)]
    id: NodeId,
    quic: &'a str,
    #[schema(required)]
    http: Option<&'a str>,
    #[schema(required)]
    domain: Option<&'a str>,
}

impl<'a> Address<'a> {
    fn new(id: NodeId, node: &'a wardlock_placement::Node) -> Address<'a> {
        Address { id, quic: &node.quic, http: node.http.as_deref(), domain: node.domain.as_deref() }
    }
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Nodes<'a> {
    #[schema(value_type = shapes::Count)]
    map_version: MapVersion,
    nodes: Vec<NodeDoc<'a>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Node)]
struct NodeDoc<'a> {
    #[serde(flatten)]
    address: Address<'a>,
    reachable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    version: Option<&'a str>,
    /// How many groups it leads, the placement group among them.
    #[schema(required)]
    leads: Option<usize>,
    replicas: usize,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Shards {
    #[schema(value_type = shapes::Count)]
    map_version: MapVersion,
    #[schema(required)]
    placement: Option<ShardDoc>,
    shards: Vec<ShardDoc>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Shard)]
struct ShardDoc {
    #[schema(value_type = shapes::Count)]
    id: GroupId,
    #[schema(value_type = shapes::Count)]
    epoch: Epoch,
    #[schema(required, value_type = Option<shapes::NodeId>)]
    leader: Option<NodeId>,
    #[schema(required)]
    term: Option<u64>,
    replicas: Vec<ReplicaDoc>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Replica)]
struct ReplicaDoc {
    #[schema(value_type = shapes::NodeId)]
    node: NodeId,
    #[schema(value_type = shapes::Count)]
    replica: ReplicaId,
    reachable: bool,
    /// In log entries behind the leader, as the leader knows it.
    #[schema(required)]
    lag: Option<u64>,
    #[schema(required)]
    last_log: Option<u64>,
    #[schema(required)]
    applied: Option<u64>,
    #[schema(required)]
    snapshot: Option<u64>,
}
