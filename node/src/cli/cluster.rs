//! `wardlock cluster`: nodes, shards and leaders.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use clap::{Args, Subcommand};
use futures_util::future::join_all;
use serde_json::{Value, json};
use wardlock_placement::{GroupId, NodeId, PLACEMENT, ShardMap};
use wardlock_router::Client;
use wardlock_wire::{GroupStatus, Status};

use super::{
    connect::{PATIENCE, Server},
    failure::Failure,
    output::{Format, Table},
    remote,
};

/// How long a node may take to tell of itself before it counts as silent.
const STATUS: Duration = Duration::from_secs(2);

/// Show the cluster, and move leaders.
#[derive(Args, Debug)]
pub(super) struct ClusterArgs {
    #[command(flatten)]
    server: Server,

    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Subcommand, Debug)]
enum ClusterCommand {
    /// Show the cluster in a few lines.
    #[command(after_help = "Example:\n  wardlock cluster show")]
    Show,
    /// List the nodes and what each leads.
    #[command(after_help = "Example:\n  wardlock cluster nodes -o json")]
    Nodes,
    /// List the shards, their leaders and how far their replicas are.
    #[command(after_help = "Shard 0 is the placement group.\n\nExample:\n  wardlock cluster shards")]
    Shards,
    Transfer(Transfer),
}

/// Hand a shard's leadership to another node.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  wardlock cluster transfer 7 --to 2")]
struct Transfer {
    /// The shard.
    shard: GroupId,

    /// The node that shall lead it; it must have a replica.
    #[arg(long, value_name = "NODE")]
    to: NodeId,
}

/// Runs the command.
pub(super) async fn run(args: ClusterArgs) -> Result<ExitCode, Failure> {
    let client = args.server.connect().await?;
    let output = args.server.output;
    match args.command {
        ClusterCommand::Show => Cluster::ask(&client).await.show(output),
        ClusterCommand::Nodes => Cluster::ask(&client).await.nodes(output),
        ClusterCommand::Shards => Cluster::ask(&client).await.shards(output),
        ClusterCommand::Transfer(Transfer { shard, to }) => {
            let map = client.map();
            let group = map.groups.get(&shard).ok_or_else(|| Failure::error(format!("there is no shard {shard}")))?;
            let replicas: Vec<NodeId> = group.replicas.iter().map(|replica| replica.node).collect();
            if !replicas.contains(&to) {
                let on = replicas.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ");
                return Err(Failure::error(format!("node {to} has no replica of shard {shard}; they are on {on}")));
            }
            client.transfer(shard, to, PATIENCE).await.map_err(Failure::error)?;
            remote::say(output, &json!({ "success": true }), &format!("node {to} is asked to lead shard {shard}"))
        }
    }
}

/// What the map says and what each node says of itself.
pub struct Cluster {
    map: std::sync::Arc<ShardMap>,
    said: BTreeMap<NodeId, Status>,
}

impl Cluster {
    /// Asks every node at once.
    pub async fn ask(client: &Client) -> Cluster {
        let map = client.map();
        let ask = |node: NodeId| async move { (node, client.status(node, STATUS).await) };
        let said = join_all(map.nodes.keys().copied().map(ask)).await;
        let said = said.into_iter().filter_map(|(node, status)| Some((node, status.ok()?))).collect();
        Cluster { map, said }
    }

    /// How many shards there are, and how many of them have a leader that knows that it leads.
    pub fn led(&self) -> (usize, usize) {
        let shards = self.map.groups.keys().filter(|group| **group != PLACEMENT);
        shards.fold((0, 0), |(all, led), group| (all + 1, led + usize::from(self.leader(*group).is_some())))
    }

    /// The replica that says that it leads, of the highest term where two do.
    fn leader(&self, group: GroupId) -> Option<(NodeId, &GroupStatus)> {
        self.replicas(group).filter(|(node, status)| status.leader == Some(*node)).max_by_key(|(_, status)| status.term)
    }

    fn replicas(&self, group: GroupId) -> impl Iterator<Item = (NodeId, &GroupStatus)> {
        let own = move |status: &'_ Status| status.groups.iter().position(|status| status.group == group);
        self.said.iter().filter_map(move |(node, status)| Some((*node, &status.groups[own(status)?])))
    }

    fn leads(&self, node: NodeId) -> usize {
        self.map.groups.keys().filter(|group| self.leader(**group).is_some_and(|(leader, _)| leader == node)).count()
    }

    fn show(&self, output: Format) -> Result<ExitCode, Failure> {
        let (shards, led) = self.led();
        let said = json!({
            "mapVersion": self.map.version.0,
            "incarnation": self.map.incarnation,
            "nodes": self.map.nodes.len(),
            "nodesAnswering": self.said.len(),
            "shards": shards,
            "shardsWithLeader": led,
        });
        let text = format!(
            "nodes   {} of {} answer\nshards  {led} of {shards} have a leader\nmap     version {}",
            self.said.len(),
            self.map.nodes.len(),
            self.map.version
        );
        remote::say(output, &said, &text)
    }

    fn nodes(&self, output: Format) -> Result<ExitCode, Failure> {
        let mut table = Table::new(["NODE", "STATE", "QUIC", "HTTP", "DOMAIN", "REPLICAS", "LEADS", "VERSION"]);
        let mut all: Vec<Value> = Vec::new();
        for (id, node) in &self.map.nodes {
            let status = self.said.get(id);
            let replicas = status.map(|status| status.groups.len());
            let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
            table.row([
                id.to_string(),
                if status.is_some() { "answers" } else { "silent" }.to_owned(),
                node.quic.clone(),
                or_dash(node.http.clone()),
                or_dash(node.domain.clone()),
                or_dash(replicas.map(|count| count.to_string())),
                self.leads(*id).to_string(),
                or_dash(status.map(|status| status.version.clone())),
            ]);
            all.push(json!({
                "id": id.0, "reachable": status.is_some(), "quic": node.quic, "http": node.http,
                "domain": node.domain, "replicas": replicas, "leads": self.leads(*id),
                "version": status.map(|status| &status.version),
            }));
        }
        remote::say(output, &json!({ "nodes": all }), table.lines().trim_end())
    }

    fn shards(&self, output: Format) -> Result<ExitCode, Failure> {
        let mut table = Table::new(["SHARD", "LEADER", "TERM", "REPLICAS", "APPLIED", "LAG"]);
        let mut all: Vec<Value> = Vec::new();
        for (id, group) in &self.map.groups {
            let leader = self.leader(*id);
            let applied = leader.and_then(|(_, status)| status.applied);
            let lags: Vec<(NodeId, Option<u64>)> =
                group.replicas.iter().map(|replica| (replica.node, lag(leader, replica.node))).collect();
            let nodes = lags.iter().map(|(node, _)| node.to_string()).collect::<Vec<_>>().join(",");
            let worst = lags.iter().filter_map(|(_, lag)| *lag).max();
            let or_dash = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
            table.row([
                id.to_string(),
                leader.map_or_else(|| "none".to_owned(), |(node, _)| node.to_string()),
                or_dash(leader.map(|(_, status)| status.term)),
                nodes,
                or_dash(applied),
                or_dash(worst),
            ]);
            let replicas: Vec<Value> = lags.iter().map(|(node, lag)| json!({ "node": node.0, "lag": lag })).collect();
            all.push(json!({
                "id": id.0, "leader": leader.map(|(node, _)| node.0),
                "term": leader.map(|(_, status)| status.term), "applied": applied, "replicas": replicas,
            }));
        }
        remote::say(output, &json!({ "shards": all }), table.lines().trim_end())
    }
}

/// How many entries a replica is behind its leader, as the leader knows it.
fn lag(leader: Option<(NodeId, &GroupStatus)>, node: NodeId) -> Option<u64> {
    let (leading, status) = leader?;
    if node == leading {
        return Some(0);
    }
    let (_, upto) = status.matched.iter().find(|(member, _)| *member == node)?;
    Some(status.last_log?.saturating_sub(upto.unwrap_or(0)))
}
