//! A whole cluster on one thread, for the tests that need one: hosts over an in-memory transport, logs on
//! in-memory disks, tokio's clock paused.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use wardlock::{
    clock::Clock,
    config::Timing,
    disk::{
        log::{Options, SharedLog},
        snapshots::Snapshots,
    },
    host::{Door, Host, Parts},
};
use wardlock_machine::{
    Acquire, Answer, Command, Holder, Key, Metadata, Millis, Name, Outcome, Query, SessionId, WallMs,
};
use wardlock_placement::{Goal, NodeId, ShardMap};
use wardlock_router::{
    Client, Connected,
    client::Boot,
    link::{
        PendingReply, Transport,
        memory::{Hub, Weather},
    },
};
use wardlock_wire::{Body, Lane, raft::RaftRequest};

use crate::log_support::{self, MemDisk};

pub const PATIENCE: Duration = Duration::from_secs(10);
pub const SHARDS: u32 = 4;

/// Tokio's clock, which the tests pause.
#[derive(Debug)]
pub struct Paused(pub Instant);

impl Clock for Paused {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn wall(&self) -> WallMs {
        WallMs(1_700_000_000_000 + self.0.elapsed().as_millis() as u64)
    }
}

impl wardlock_router::Clock for Paused {
    fn now(&self) -> Boot {
        Boot(self.0.elapsed())
    }
}

/// Counts of calls from node to node.
#[derive(Default)]
pub struct Said {
    /// Raft's appends, with entries.
    pub appends: AtomicU64,
    /// Raft's appends without.
    pub empty_appends: AtomicU64,
    /// Questions of the read barrier.
    pub confirms: AtomicU64,
}

struct Counting {
    node: NodeId,
    inner: Arc<dyn Transport>,
    said: Arc<Said>,
}

impl Transport for Counting {
    fn call(&self, to: NodeId, lane: Lane, body: Body) -> PendingReply {
        let count = match &body {
            _ if to == self.node => None,
            Body::Raft { request: RaftRequest::Append { entries, .. }, .. } if entries.is_empty() => {
                Some(&self.said.empty_appends)
            }
            Body::Raft { request: RaftRequest::Append { .. }, .. } => Some(&self.said.appends),
            Body::Confirm(_) => Some(&self.said.confirms),
            _ => None,
        };
        if let Some(count) = count {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.inner.call(to, lane, body)
    }
}

pub struct Cluster {
    pub nodes: u32,
    pub hub: Hub,
    pub clock: Arc<Paused>,
    pub disks: BTreeMap<NodeId, (MemDisk, MemDisk)>,
    /// What the nodes have said to one another.
    pub said: Arc<Said>,
    pub hosts: BTreeMap<NodeId, (Arc<Host>, SharedLog)>,
}

impl Cluster {
    pub async fn start() -> Cluster {
        Cluster::of(3).await
    }

    pub fn unstarted(nodes: u32) -> Cluster {
        Cluster {
            nodes,
            hub: Hub::new(),
            clock: Arc::new(Paused(Instant::now())),
            disks: (1..=nodes).map(|n| (NodeId(n), Default::default())).collect(),
            said: Arc::default(),
            hosts: BTreeMap::new(),
        }
    }

    pub async fn of(nodes: u32) -> Cluster {
        let mut cluster = Cluster::unstarted(nodes);
        cluster.hub.set_weather(Weather { delay: Duration::from_millis(1), ..Weather::default() });
        cluster.hub.set_lost_after(Duration::from_millis(500));
        for node in 1..=nodes {
            cluster.start_node(NodeId(node)).await;
        }
        for (host, _) in cluster.hosts.values() {
            host.ready().await;
        }
        cluster
    }

    pub async fn start_node(&mut self, node: NodeId) {
        let (log_disk, snapshot_disk) = &self.disks[&node];
        let fatal = Arc::new(|why: &str| panic!("{why}"));
        let (log, writer) = SharedLog::open(log_disk.clone(), Options::default(), fatal).expect("the log opens");
        tokio::spawn(writer.run());
        let door = Arc::new(Door::default());
        let inner = self.hub.attach(node, Arc::clone(&door) as _);
        let transport: Arc<dyn Transport> = Arc::new(Counting { node, inner, said: Arc::clone(&self.said) });
        let seeds = (1..=3).map(|n: u32| n.to_string());
        let client =
            Client::with_clock(Arc::new(Connected(Arc::clone(&transport))), seeds, Arc::clone(&self.clock) as _);
        let nodes: BTreeSet<NodeId> = (1..=self.nodes).map(NodeId).collect();
        let host = Host::start(Parts {
            node,
            goal: Goal::new(SHARDS, 3.min(self.nodes as u8), nodes.clone()).expect("a goal"),
            nodes,
            addresses: wardlock_placement::Node { quic: format!("node-{node}:1"), http: None, domain: None },
            timing: Timing {
                heartbeat: Duration::from_millis(200),
                election_min: Duration::from_millis(400),
                election_max: Duration::from_millis(600),
            },
            clock: Arc::clone(&self.clock) as _,
            transport,
            client,
            log: log.clone(),
            snapshots: Arc::new(Snapshots::open(snapshot_disk.clone(), 1 << 20).expect("the snapshots open")),
            disk_low: Arc::new(|| false),
            on_fatal: log_support::never(),
            maps: watch::Sender::new(Arc::new(ShardMap::default())),
            webhooks: wardlock::hooks::Settings::default(),
        })
        .await
        .expect("the host starts");
        door.open(Arc::clone(&host));
        self.hosts.insert(node, (host, log));
    }

    /// The node's process ends: nothing that is not on its disk remains.
    pub async fn stop_node(&mut self, node: NodeId) {
        let (host, log) = self.hosts.remove(&node).expect("it runs");
        self.hub.detach(node);
        host.halt().await;
        log.close();
    }

    pub async fn client(&self) -> Client {
        let transport = self.hub.attach_client(1_000 + self.hosts.len() as u64);
        let seeds = (1..=3).map(|n: u32| n.to_string());
        let client = Client::with_clock(Arc::new(Connected(transport)), seeds, Arc::clone(&self.clock) as _);
        client.ready(PATIENCE).await.expect("a map");
        client
    }

    pub fn leaders(&self) -> BTreeMap<NodeId, usize> {
        let counts = self.hosts.iter().map(|(node, (host, _))| {
            let status = host.status();
            let leads = status.groups.iter().filter(|g| g.group.0 != 0 && g.leader == Some(*node)).count();
            (*node, leads)
        });
        counts.collect()
    }
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime")
}

pub fn paused<T>(body: impl Future<Output = T>) -> T {
    runtime().block_on(body)
}

pub async fn open(client: &Client, ttl: u64) -> SessionId {
    let session = client.new_session_id();
    let holder = Holder { client_id: "tester".into(), ttl: Millis(ttl), metadata: Metadata::new() };
    let outcome = client.write(Command::OpenSession { session, holder }, PATIENCE).await;
    assert!(matches!(outcome, Ok(Outcome::Opened { .. })), "{outcome:?}");
    session
}

pub fn acquire(client: &Client, session: SessionId, name: &str, wait: u64) -> Command {
    Command::Acquire(ask(client, session, name, wait))
}

pub fn ask(client: &Client, session: SessionId, name: &str, wait: u64) -> Acquire {
    Acquire { wait: Millis(wait), ..Acquire::new(session, client.random_request(), key(name)) }
}

pub fn key(name: &str) -> Key {
    Key::lock(Name::new(name).expect("a name"))
}

pub async fn holders(client: &Client, name: &str) -> usize {
    match client.read(Query::Object { key: key(name) }, PATIENCE).await {
        Ok(Answer::Object(object)) => object.map_or(0, |object| object.holders.len()),
        other => panic!("{other:?}"),
    }
}
