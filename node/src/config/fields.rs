//! The schema: one struct for the file, the environment and the flags.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::peers::Peers;

/// A node's settings as people write them; each may be absent. In the file and in messages a field is
/// called as here, as a flag `--data-dir`, in the environment `WARDLOCK_DATA_DIR`.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fields {
    /// The cluster's name. Nodes of another name refuse to talk, and a data directory remembers its
    /// cluster. Give each cluster its own, so that a wrong address cannot join two.
    /// [default: wardlock]
    #[arg(long, env = "WARDLOCK_CLUSTER", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,

    /// This node's number, from 1, as it stands in `peers`. It belongs to the data directory for good: a
    /// machine that lost its disk comes back under a new number. Required.
    #[arg(long, env = "WARDLOCK_NODE", value_name = "NUMBER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<u32>,

    /// Where the log, the snapshots and the identity file live. Every commit waits for an fsync here: a
    /// disk of its own gives the lowest latency. Required.
    #[arg(long, env = "WARDLOCK_DATA_DIR", value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,

    /// The address to listen on (UDP) for nodes, routers and clients, always with mutual TLS.
    /// [default: 127.0.0.1:7401]
    #[arg(long, env = "WARDLOCK_LISTEN_QUIC", value_name = "IP:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen_quic: Option<SocketAddr>,

    /// How others reach `listen_quic`. [default: what `peers` says of this node]
    #[arg(long, env = "WARDLOCK_ADVERTISE_QUIC", value_name = "HOST:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise_quic: Option<String>,

    /// The address of the HTTP gateway in this node. Beyond loopback it asks for client certificates. A
    /// separate `wardlock router` keeps HTTP's work off the node's processor; one process less is simpler.
    /// [default: no gateway]
    #[arg(long, env = "WARDLOCK_LISTEN_HTTP", value_name = "IP:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen_http: Option<SocketAddr>,

    /// How others reach `listen_http`. [default: `listen_http`, where it is not a wildcard address]
    #[arg(long, env = "WARDLOCK_ADVERTISE_HTTP", value_name = "HOST:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise_http: Option<String>,

    /// Every node of the cluster with its QUIC address, this one included; the same on each node. In the
    /// file a table: `[peers]`, then `1 = "host:port"`. Required.
    #[arg(long, env = "WARDLOCK_PEERS", value_name = "1=HOST:PORT,2=…")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<Peers>,

    /// How many shards the cluster is founded with; read at its first start only, and the same on each
    /// node. More shards spread over more nodes and cores, but batch less and cost more while idle: 16 to
    /// 64 suit most. [default: 16]
    #[arg(long, env = "WARDLOCK_SHARDS", value_name = "COUNT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shards: Option<u32>,

    /// How many nodes keep each shard; read at the first start only. 3 survive the loss of one, 5 of
    /// two; each more is one more disk that may be waited for. [default: 3, or all peers where they are
    /// fewer]
    #[arg(long, env = "WARDLOCK_REPLICAS", value_name = "COUNT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u8>,

    /// The directory with the authority's certificate and this node's certificate and key, as
    /// `wardlock certs` writes them. Required.
    #[arg(long, env = "WARDLOCK_CERTS", value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certs: Option<PathBuf>,

    /// This node's failure domain: its rack, zone or host. A shard's replicas spread over distinct ones
    /// where they can. [default: none]
    #[arg(long, env = "WARDLOCK_DOMAIN", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,

    /// How often a leader is heard, in milliseconds. Shorter finds a dead leader sooner and costs more
    /// while idle. Must leave room: heartbeat × 2.5 < election_min + election_max. [default: 150]
    #[arg(long, env = "WARDLOCK_HEARTBEAT_MS", value_name = "MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat_ms: Option<u64>,

    /// The shortest silence after which a follower campaigns, in milliseconds. Well above the slowest
    /// fsync and round trip, or a healthy leader is deposed. [default: 170]
    #[arg(long, env = "WARDLOCK_ELECTION_MIN_MS", value_name = "MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub election_min_ms: Option<u64>,

    /// The longest such silence, in milliseconds; also how long followers stay bound to a leader that
    /// they heard. A failover takes up to twice this. A wide span above the minimum makes split votes
    /// rare. The defaults suit nodes within one region; across regions raise all three alike.
    /// [default: 300]
    #[arg(long, env = "WARDLOCK_ELECTION_MAX_MS", value_name = "MS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub election_max_ms: Option<u64>,

    /// Below so much free space on the data disk, in MiB, new locks and sessions are refused while
    /// releases go on. Higher refuses sooner and leaves more room to recover. [default: 512]
    #[arg(long, env = "WARDLOCK_DISK_LOW_MARK_MIB", value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_low_mark_mib: Option<u64>,

    /// How much of the data disk is preallocated, in MiB, to recover from a full disk with; less than
    /// the low mark. [default: 64]
    #[arg(long, env = "WARDLOCK_DISK_RESERVE_MIB", value_name = "MIB")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_reserve_mib: Option<u64>,

    /// A directory of client certificates on this machine that `GET /api/v1/cluster` tells to callers
    /// on loopback, so that the command line finds it by itself. Its path is all that is told.
    /// [default: none]
    #[arg(long, env = "WARDLOCK_CERTS_HINT", value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certs_hint: Option<PathBuf>,

    /// The address of a DNS listener (UDP and TCP) in this node, by which services are found:
    /// `dig @IP -p PORT SRV NAME.service.wardlock`. [default: none]
    #[arg(long, env = "WARDLOCK_DNS_LISTEN", value_name = "IP:PORT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_listen: Option<SocketAddr>,

    /// The zone that it answers for, and no other. [default: wardlock]
    #[arg(long, env = "WARDLOCK_DNS_ZONE", value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_zone: Option<String>,

    /// How many seconds others may remember its answers: 0 or 1. With 1 an instance that died is found for a
    /// second longer, and resolvers ask less. [default: 0]
    #[arg(long, env = "WARDLOCK_DNS_TTL", value_name = "SECONDS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_ttl: Option<u32>,

    /// Whether `dns_listen` may be an address beyond loopback. DNS knows no certificates: whoever reaches it
    /// learns where services are. [default: false]
    #[arg(
        long,
        env = "WARDLOCK_DNS_BEYOND_LOOPBACK",
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_beyond_loopback: Option<bool>,
}

impl Fields {
    /// The defaults that stand by themselves; those that depend on another field are filled in by
    /// [`Fields::effective`].
    pub fn defaults() -> Fields {
        Fields {
            cluster: Some("wardlock".to_owned()),
            listen_quic: Some(SocketAddr::from(([127, 0, 0, 1], 7401))),
            shards: Some(16),
            heartbeat_ms: Some(150),
            election_min_ms: Some(170),
            election_max_ms: Some(300),
            disk_low_mark_mib: Some(512),
            disk_reserve_mib: Some(64),
            dns_zone: Some(crate::dns::ZONE.to_owned()),
            dns_ttl: Some(0),
            dns_beyond_loopback: Some(false),
            ..Fields::default()
        }
    }

    /// With the defaults filled in that follow from other fields.
    #[must_use]
    pub fn effective(mut self) -> Fields {
        if let Some(Peers(peers)) = &self.peers {
            self.replicas = self.replicas.or_else(|| u8::try_from(peers.len().clamp(1, 3)).ok());
            let own = self.node.and_then(|node| peers.get(&wardlock_placement::NodeId(node)));
            self.advertise_quic = self.advertise_quic.or_else(|| own.cloned());
        }
        if self.advertise_http.is_none() {
            let reachable = self.listen_http.filter(|at| !at.ip().is_unspecified() && at.port() != 0);
            self.advertise_http = reachable.map(|at| at.to_string());
        }
        self
    }

    /// As the file that says the same.
    pub fn to_toml(&self) -> String {
        // JSON's strings and numbers are TOML's as well; tables are what differs, and the one control character
        // that JSON leaves as it is.
        let plain = |value: &serde_json::Value| value.to_string().replace('\u{7f}', "\\u007F");
        let mut lines = String::new();
        let mut tables = String::new();
        let all = serde_json::to_value(self).unwrap_or_default();
        for (field, value) in all.as_object().into_iter().flatten() {
            match value {
                serde_json::Value::Object(table) => {
                    tables.push_str(&format!("\n[{field}]\n"));
                    for (key, value) in table {
                        tables.push_str(&format!("{key} = {}\n", plain(value)));
                    }
                }
                value => lines.push_str(&format!("{field} = {}\n", plain(value))),
            }
        }
        lines + &tables
    }
}
