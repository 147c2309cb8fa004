//! The client over the real links: from one seed to a lock, and through the loss of its leader.

mod link_common;

use std::{
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use link_common::*;
use wardlock_machine::*;
use wardlock_placement::{
    Epoch, Group, GroupId, HashKey, MapVersion, Node, NodeId, Range, Replica, ReplicaId, ShardMap,
};
use wardlock_router::{
    Client, Connected, SessionState,
    link::{
        Peer, Replier, Service,
        memory::Hub,
        quic::{Config, Endpoint},
    },
};
use wardlock_wire::{Body, KeptAlive, Op, Refusal, Response};

/// One shard on all nodes, as if it were replicated.
#[derive(Default)]
struct Shard {
    map: OnceLock<ShardMap>,
    leader: AtomicU32,
    written: Mutex<Vec<(NodeId, Command)>>,
}

struct Replicated {
    node: NodeId,
    shard: Arc<Shard>,
    /// Questions for a newer map, which never comes.
    held: Mutex<Vec<Replier>>,
}

impl Service for Replicated {
    fn call(&self, _: &Peer, body: Body, reply: Replier) {
        let leader = NodeId(self.shard.leader.load(Ordering::Relaxed));
        let map = self.shard.map.get().cloned();
        match body {
            Body::Map { known: MapVersion(0), .. } => reply.send(Ok(Response::Map(map))),
            Body::Map { .. } => self.held.lock().unwrap().push(reply),
            Body::Shard { .. } if leader != self.node => reply.send(Err(Refusal::NotLeader { hint: Some(leader) })),
            Body::Shard { op: Op::KeepAlive { .. }, .. } => reply.send(Ok(Response::KeptAlive(KeptAlive::Alive))),
            Body::Shard { op: Op::Write(command), .. } => {
                self.shard.written.lock().unwrap().push((self.node, command.clone()));
                reply.send(Ok(Response::Outcome(self.apply(command))));
            }
            _ => reply.send(Err(Refusal::Malformed("not in this test".into()))),
        }
    }

    fn closed(&self, _: &Peer) {}
}

impl Replicated {
    fn apply(&self, command: Command) -> Outcome {
        match command {
            Command::OpenSession { .. } => Outcome::Opened { created: WallMs(0) },
            Command::Acquire(acquire) => Outcome::Granted(Grant {
                lock_id: LockId::new(acquire.session, Token(1), &acquire.key),
                holder: "worker".into(),
                mode: acquire.mode,
                lease: acquire.lease,
                session_ttl: Millis(10_000),
                acquired: WallMs(0),
                expires: None,
                waited: Millis(0),
                value: None,
                metadata: Metadata::new(),
                revision: Revision(1),
            }),
            Command::Release { .. } => Outcome::Released,
            _ => Outcome::Closing,
        }
    }
}

fn cluster(authority: &Authority) -> (Arc<Shard>, Vec<Endpoint>) {
    let shard = Arc::new(Shard::default());
    let nodes: Vec<Endpoint> = (1..=3)
        .map(|id| {
            let node = NodeId(id);
            let service = Arc::new(Replicated { node, shard: shard.clone(), held: Mutex::default() });
            Endpoint::bind(here(), &authority.node(id), CLUSTER, node, service, Config::default()).unwrap()
        })
        .collect();
    shard.map.set(map([0, 1, 2].map(|n: usize| address(&nodes[n])))).unwrap();
    shard.leader.store(2, Ordering::Relaxed);
    (shard, nodes)
}

fn map(addresses: [String; 3]) -> ShardMap {
    let replicas = (1..=3).map(|n| Replica { id: ReplicaId(n), node: NodeId(n as u32) }).collect();
    let group = Group { range: Some(Range { first: 0, last: u64::MAX }), epoch: Epoch(1), replicas };
    let at = |quic| Node { quic, http: None, domain: None };
    ShardMap {
        version: MapVersion(1),
        incarnation: 1,
        hash_key: HashKey([1; 16]),
        nodes: (1..).map(NodeId).zip(addresses.into_iter().map(at)).collect(),
        groups: [(GroupId(1), group)].into(),
        next_replica: ReplicaId(4),
    }
}

#[tokio::test]
async fn from_one_seed_to_a_lock_and_through_the_loss_of_its_leader() {
    let authority = Authority::new();
    let (shard, mut nodes) = cluster(&authority);
    let builder = Client::builder().cluster(CLUSTER).identity(authority.client());
    let client = builder.connect([address(&nodes[0])]).await.unwrap();
    let session = client.session("worker").open().await.unwrap();
    let guard = session.lock("orders/42").acquire().await.unwrap();
    assert!(guard.is_held());

    // The leader's process ends; another replica takes over.
    drop(nodes.remove(1));
    shard.leader.store(3, Ordering::Relaxed);
    let began = Instant::now();
    guard.release().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(session.state(), SessionState::Healthy);
    session.close().await.unwrap();
    let by: Vec<u32> = shard.written.lock().unwrap().iter().map(|(node, _)| node.0).collect();
    assert_eq!(by, [2, 2, 3, 3], "open and acquire, then release and close");
}

#[tokio::test(start_paused = true)]
async fn within_a_process_nodes_are_found_by_their_numbers() {
    let hub = Hub::new();
    let shard = Arc::new(Shard::default());
    shard.map.set(map(["", "", ""].map(str::to_owned))).unwrap();
    shard.leader.store(2, Ordering::Relaxed);
    let attach = |id| {
        let service = Replicated { node: NodeId(id), shard: shard.clone(), held: Mutex::default() };
        hub.attach(NodeId(id), Arc::new(service))
    };
    let _nodes: Vec<_> = (1..=3).map(attach).collect();
    let client = Client::over(Arc::new(Connected(hub.attach_client(1))), ["3"]);
    client.ready(Duration::from_secs(1)).await.unwrap();
    let session = client.session("worker").open().await.unwrap();
    session.lock("orders/42").acquire().await.unwrap().release().await.unwrap();
    assert_eq!(shard.written.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn another_clusters_nodes_are_no_seeds() {
    let authority = Authority::new();
    let (_shard, nodes) = cluster(&authority);
    let builder = Client::builder().cluster("other").identity(authority.client()).patience(Duration::from_millis(500));
    let refused = builder.connect([address(&nodes[0])]).await.unwrap_err();
    assert!(refused.to_string().contains("no node answers"), "{refused}");
}
