//! A node's configuration once it is known to be valid.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use wardlock_placement::NodeId;
use wardlock_router::tls::Identity;

/// All that a node needs to know to start. Built by [`Fields::check`](super::Fields::check) only.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster that the node belongs to. A data directory of another cluster is refused.
    pub cluster: String,
    /// The node's own number.
    pub node: NodeId,
    /// Where its log, its snapshots and its identity file live.
    pub data_dir: PathBuf,
    /// Where it listens for nodes, routers and clients.
    pub listen_quic: SocketAddr,
    /// `host:port` by which others reach that listener.
    pub advertise_quic: String,
    /// Where its HTTP gateway listens, if it has one.
    pub listen_http: Option<SocketAddr>,
    /// `host:port` by which others reach the gateway.
    pub advertise_http: Option<String>,
    /// Every node of the cluster with its `host:port` for QUIC; this node among them.
    pub peers: BTreeMap<NodeId, String>,
    /// How many shards the cluster is founded with.
    pub shards: u32,
    /// How many replicas each shard has.
    pub replicas: u8,
    /// The node's certificate and key, and the authority that it trusts.
    pub identity: Identity,
    /// The gateway's; `None` on loopback, where it speaks plain HTTP.
    pub http_identity: Option<Identity>,
    /// The node's failure domain.
    pub domain: Option<String>,
    /// Raft's timing.
    pub timing: Timing,
    /// When the disk counts as nearly full.
    pub disk: Disk,
    /// A directory of client certificates that `/cluster` tells callers on loopback about.
    pub certs_hint: Option<PathBuf>,
    /// What its DNS listener serves, if it has one.
    pub dns: Option<crate::dns::Settings>,
}

/// Raft's timing. Always `heartbeat × 2.5 < election_min + election_max` and
/// `heartbeat < election_min < election_max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often a leader is heard.
    pub heartbeat: Duration,
    /// The least silence after which a follower campaigns.
    pub election_min: Duration,
    /// The most.
    pub election_max: Duration,
}

/// When the disk counts as nearly full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Below so much free space, what makes the state larger is refused.
    pub low_mark_bytes: u64,
    /// So much is preallocated, to recover from a full disk with.
    pub reserve_bytes: u64,
}
