//! A cluster that answers as each test tells it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::time::Instant;
use wardlock_machine::*;
use wardlock_placement::{
    Epoch, Group, GroupId, HashKey, MapVersion, Node, NodeId, Range, Replica, ReplicaId, ShardMap,
};
use wardlock_wire::{Body, Lane, Op, Refusal, Response};

use crate::{
    client::{Boot, Client, Clock, Dialer},
    link::{Answered, CallError, PendingReply, Transport, pending::Pending},
};

/// What becomes of a call.
pub(super) enum Reply {
    Now(Answered),
    After(Duration, Answered),
    Never,
}

pub(super) type Handler = dyn Fn(NodeId, GroupId, &Op) -> Reply + Send + Sync;

pub(super) struct Fake {
    pub(super) map: Mutex<ShardMap>,
    handler: Box<Handler>,
    /// Every operation, to whom and when.
    pub(super) calls: Mutex<Vec<(Instant, NodeId, Op)>>,
    pub(super) map_fetches: AtomicU32,
    pending: Arc<Pending>,
}

impl Fake {
    pub(super) fn new(
        map: ShardMap,
        handler: impl Fn(NodeId, GroupId, &Op) -> Reply + Send + Sync + 'static,
    ) -> Arc<Fake> {
        Arc::new(Fake {
            map: Mutex::new(map),
            handler: Box::new(handler),
            calls: Mutex::default(),
            map_fetches: AtomicU32::new(0),
            pending: Pending::new(),
        })
    }

    /// A client of this cluster that knows its map.
    pub(super) async fn client(self: &Arc<Fake>) -> Client {
        let client = Client::with_clock(self.clone(), ["seed:1"], Arc::new(RuntimeClock(Instant::now())));
        client.ready(Duration::from_secs(1)).await.expect("the map is there");
        client
    }

    pub(super) fn ops(&self) -> Vec<(NodeId, Op)> {
        self.calls.lock().expect("calls").iter().map(|(_, node, op)| (*node, op.clone())).collect()
    }

    pub(super) fn writes(&self) -> Vec<Command> {
        let written = |(_, op)| if let Op::Write(command) = op { Some(command) } else { None };
        self.ops().into_iter().filter_map(written).collect()
    }
}

impl Transport for Fake {
    fn call(&self, to: NodeId, _: Lane, body: Body) -> PendingReply {
        let waiting = match self.pending.enter() {
            Ok(waiting) => waiting,
            Err(error) => return PendingReply::failed(error),
        };
        let (pending, id) = (self.pending.clone(), waiting.id());
        let reply = match body {
            Body::Map { known, wait_ms } => {
                let map = self.map.lock().expect("map").clone();
                if wait_ms == 0 {
                    self.map_fetches.fetch_add(1, Ordering::Relaxed);
                }
                match map.version > known {
                    true => Reply::After(Duration::from_millis(5), Ok(Response::Map(Some(map)))),
                    false if wait_ms == 0 => Reply::Now(Ok(Response::Map(None))),
                    false => Reply::Never,
                }
            }
            Body::Shard { group, op, .. } => {
                let reply = (self.handler)(to, group, &op);
                self.calls.lock().expect("calls").push((Instant::now(), to, op));
                reply
            }
            other => panic!("no test asks this: {other:?}"),
        };
        match reply {
            Reply::Now(answered) => pending.complete(id, answered),
            Reply::After(delay, answered) => drop(tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                pending.complete(id, answered);
            })),
            Reply::Never => {}
        }
        PendingReply::sent(waiting)
    }
}

impl Dialer for Fake {
    fn set_peer(&self, _: NodeId, _: String) {}

    fn connect_seed<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<NodeId, CallError>> {
        Box::pin(async { Ok(NodeId(1)) })
    }
}

/// A clock that the paused runtime moves.
#[derive(Debug)]
pub(super) struct RuntimeClock(pub(super) Instant);

/// The same, and it can leap: the machine was suspended.
#[derive(Debug)]
pub(super) struct LeapingClock(pub(super) RuntimeClock, pub(super) AtomicU32);

impl Clock for LeapingClock {
    fn now(&self) -> Boot {
        self.0.now() + Duration::from_secs(u64::from(self.1.load(Ordering::Relaxed)))
    }
}

impl Clock for RuntimeClock {
    fn now(&self) -> Boot {
        Boot(self.0.elapsed() + Duration::from_secs(1_000))
    }
}

/// `shards` shards, each with replicas on the nodes 1 to 3.
pub(super) fn map(version: u64, shards: u32) -> ShardMap {
    let step = u64::MAX / u64::from(shards);
    let group = |number: u32| {
        let first = u64::from(number - 1) * step + u64::from(number > 1);
        let last = if number == shards { u64::MAX } else { u64::from(number) * step };
        let replicas =
            (1..=3).map(|n| Replica { id: ReplicaId(u64::from(number) * 10 + u64::from(n)), node: NodeId(n) });
        Group { range: Some(Range { first, last }), epoch: Epoch(version), replicas: replicas.collect() }
    };
    let node = |n: u32| Node { quic: format!("node-{n}:1"), http: None, domain: None };
    ShardMap {
        version: MapVersion(version),
        incarnation: 7,
        hash_key: HashKey([9; 16]),
        nodes: (1..=3).map(|n| (NodeId(n), node(n))).collect::<BTreeMap<_, _>>(),
        groups: (1..=shards).map(|n| (GroupId(n), group(n))).collect(),
        next_replica: ReplicaId(1_000),
    }
}

pub(super) fn refuse(refusal: Refusal) -> Reply {
    Reply::Now(Err(CallError::Refused(refusal)))
}

pub(super) fn outcome(outcome: Outcome) -> Reply {
    Reply::Now(Ok(Response::Outcome(outcome)))
}

pub(super) fn key(name: &str) -> Key {
    Key::lock(Name::new(name).expect("a short name"))
}

/// The grant that answers `acquire`.
pub(super) fn grant(acquire: &Acquire, token: u64, waited: Millis) -> Grant {
    Grant {
        lock_id: LockId::new(acquire.session, Token(token), &acquire.key),
        holder: "worker".into(),
        mode: acquire.mode,
        lease: acquire.lease,
        session_ttl: Millis(10_000),
        acquired: WallMs(0),
        expires: None,
        waited,
        value: acquire.value.clone(),
        metadata: Metadata::new(),
        revision: Revision(token),
    }
}

/// What a cluster without trouble answers to writes and signs of life.
pub(super) fn well(op: &Op) -> Reply {
    match op {
        Op::KeepAlive { .. } => Reply::Now(Ok(Response::KeptAlive(wardlock_wire::KeptAlive::Alive))),
        Op::Write(Command::OpenSession { .. }) => outcome(Outcome::Opened { created: WallMs(0) }),
        Op::Write(Command::CloseSession { .. }) => outcome(Outcome::Closing),
        Op::Write(Command::Acquire(acquire)) => outcome(Outcome::Granted(grant(acquire, 1, Millis(0)))),
        Op::Write(Command::Release { .. }) => outcome(Outcome::Released),
        Op::Write(Command::Cancel { .. }) => outcome(Outcome::Cancelled),
        other => panic!("no test asks this: {other:?}"),
    }
}
