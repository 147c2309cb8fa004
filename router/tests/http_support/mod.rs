//! A cluster that answers what a test tells it to, and remembers what it was asked.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    collections::{BTreeMap, VecDeque},
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::response::Response;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use wardlock_machine::*;
use wardlock_placement::{
    Epoch, Group, GroupId, HashKey, MapVersion, Node, NodeId, Range, Replica, ReplicaId, ShardMap,
};
use wardlock_router::{
    Error, WatchError, WatchToken, Watched,
    deadlock::{Deadlock, Seen, find},
    http::{Backend, Gateway, GatewayInfo, watch::Events},
};
use wardlock_wire::{GroupStatus, KeptAlive, Status};

pub(crate) const SESSION: SessionId = SessionId(0x0001_0000_0000_0000_0000_0000_0000_9f3c);

/// Two sessions that wait for each other.
pub(crate) fn ring() -> Seen {
    let mut seen = Seen::default();
    for (arrival, name, holder) in [(1, "a", "ann"), (2, "b", "bob")] {
        let session = |number: u64| SessionId(SESSION.0 + u128::from(number));
        seen.add(
            ShardId(1),
            vec![Wait {
                key: Key::lock(Name::new(name).expect("a name")),
                session: session(arrival),
                holder: holder.to_owned(),
                serial: true,
                arrival,
                priority: 0,
                since: WallMs(1_765_792_800_000 + arrival),
                blockers: Blockers::All(vec![(session(3 - arrival), Token(arrival))]),
            }],
        );
    }
    seen
}

/// The token of every list.
pub(crate) const TOKEN: &str = "AQEBAQU0k7EF";

/// What a look at a session finds.
pub(crate) type Look = Result<(Answer, Option<WallMs>), Error>;

#[derive(Clone)]
pub(crate) struct Fake(Arc<State>);

pub(crate) struct State {
    pub(crate) outcomes: Mutex<VecDeque<Result<Outcome, Error>>>,
    pub(crate) answers: Mutex<VecDeque<Result<Answer, Error>>>,
    pub(crate) commands: Mutex<Vec<(Command, Duration)>>,
    pub(crate) queries: Mutex<Vec<Query>>,
    pub(crate) views: Mutex<VecDeque<Look>>,
    pub(crate) kept: Mutex<Result<KeptAlive, Error>>,
    pub(crate) fence: Mutex<Result<Vec<bool>, Error>>,
    pub(crate) withdrawn: Mutex<Vec<(SessionId, RequestId, Key)>>,
    pub(crate) transfers: Mutex<Vec<(GroupId, NodeId)>>,
    pub(crate) watched: Mutex<Vec<(Vec<Pattern>, Option<WatchToken>)>>,
    pub(crate) watches: Mutex<VecDeque<Result<Told, WatchError>>>,
    /// The bounds of stale reads, and the ages that they are told.
    pub(crate) bounds: Mutex<Vec<Option<Duration>>>,
    pub(crate) ages: Mutex<VecDeque<Option<Duration>>>,
}

impl std::ops::Deref for Fake {
    type Target = State;
    fn deref(&self) -> &State {
        &self.0
    }
}

impl Fake {
    pub(crate) fn new() -> Fake {
        Fake(Arc::new(State {
            outcomes: Mutex::default(),
            answers: Mutex::default(),
            commands: Mutex::default(),
            queries: Mutex::default(),
            views: Mutex::default(),
            kept: Mutex::new(Ok(KeptAlive::Alive)),
            fence: Mutex::new(Ok(vec![true])),
            withdrawn: Mutex::default(),
            transfers: Mutex::default(),
            watched: Mutex::default(),
            watches: Mutex::default(),
            bounds: Mutex::default(),
            ages: Mutex::default(),
        }))
    }

    pub(crate) fn will(&self, outcome: Outcome) -> &Fake {
        self.outcomes.lock().unwrap().push_back(Ok(outcome));
        self
    }

    pub(crate) fn fails(&self, error: Error) -> &Fake {
        self.outcomes.lock().unwrap().push_back(Err(error));
        self
    }

    pub(crate) fn answers(&self, answer: Answer) -> &Fake {
        self.answers.lock().unwrap().push_back(Ok(answer));
        self
    }

    pub(crate) fn asked(&self) -> Vec<Command> {
        self.commands.lock().unwrap().iter().map(|(c, _)| c.clone()).collect()
    }

    pub(crate) fn gateway(&self) -> Gateway<Fake> {
        let info = GatewayInfo {
            cluster: "test".into(),
            certs_hint: None,
            ready: Arc::new(|| Ok(())),
            metrics: Arc::new(|| "wardlock_up 1\n".into()),
        };
        Gateway::new(self.clone(), info)
    }
}

/// What is told to a watch that a test opens.
pub(crate) struct Told {
    pub(crate) events: tokio::sync::mpsc::UnboundedReceiver<Result<Watched, WatchError>>,
    pub(crate) token: WatchToken,
}

impl Events for Told {
    async fn next(&mut self) -> Result<Watched, WatchError> {
        match self.events.recv().await {
            Some(next) => next,
            None => pending().await,
        }
    }

    fn token(&mut self) -> WatchToken {
        self.token.clone()
    }
}

impl Backend for Fake {
    type Watch = Told;

    async fn watch(&self, patterns: Vec<Pattern>, since: Option<WatchToken>, _: Duration) -> Result<Told, WatchError> {
        self.watched.lock().unwrap().push((patterns, since));
        self.watches.lock().unwrap().pop_front().expect("a watch that the test did not expect")
    }

    async fn write(&self, command: Command, patience: Duration) -> Result<Outcome, Error> {
        self.commands.lock().unwrap().push((command, patience));
        let next = self.outcomes.lock().unwrap().pop_front();
        match next {
            Some(outcome) => outcome,
            None => pending().await,
        }
    }

    fn withdraw(&self, acquire: Acquire) {
        self.withdrawn.lock().unwrap().push((acquire.session, acquire.request, acquire.key));
    }

    async fn read(&self, query: Query, _: Duration) -> Result<Answer, Error> {
        self.queries.lock().unwrap().push(query);
        self.answers.lock().unwrap().pop_front().expect("a read that the test did not expect")
    }

    async fn read_stale(
        &self,
        query: Query,
        max_age: Option<Duration>,
        _: Duration,
    ) -> Result<(Answer, Option<Duration>), Error> {
        self.bounds.lock().unwrap().push(max_age);
        self.queries.lock().unwrap().push(query);
        let answer = self.answers.lock().unwrap().pop_front().expect("a read that the test did not expect")?;
        Ok((answer, self.ages.lock().unwrap().pop_front().expect("an age")))
    }

    async fn list(&self, query: Query, _: Duration) -> Result<(Answer, WatchToken), Error> {
        self.queries.lock().unwrap().push(query);
        let page = self.answers.lock().unwrap().pop_front().expect("a list that the test did not expect")?;
        Ok((page, TOKEN.parse().unwrap()))
    }

    async fn fence(&self, _: Vec<(Name, Token)>, _: Duration) -> Result<Vec<bool>, Error> {
        self.fence.lock().unwrap().clone()
    }

    async fn session_view(&self, _: SessionId, _: Duration) -> Result<(Answer, Option<WallMs>), Error> {
        let mut views = self.views.lock().unwrap();
        if views.len() > 1 { views.pop_front().unwrap() } else { views.front().expect("a view").clone() }
    }

    async fn keep_alive(&self, _: SessionId, _: Duration) -> Result<KeptAlive, Error> {
        self.kept.lock().unwrap().clone()
    }

    async fn deadlocks(&self, _: Duration) -> Result<(Vec<Deadlock>, Seen), Error> {
        let seen = ring();
        Ok((find(&seen), seen))
    }

    fn map(&self) -> Arc<ShardMap> {
        let node = |n: u32| Node { quic: format!("127.0.0.1:740{n}"), http: None, domain: None };
        let replicas = |first: u64| {
            (0..3).map(|i| Replica { id: ReplicaId(first + i), node: NodeId(i as u32 + 1) }).collect::<Vec<_>>()
        };
        let all = Range { first: 0, last: u64::MAX };
        Arc::new(ShardMap {
            version: MapVersion(7),
            incarnation: 1,
            hash_key: HashKey(*b"0123456789abcdef"),
            nodes: BTreeMap::from([1, 2, 3].map(|n| (NodeId(n), node(n)))),
            groups: BTreeMap::from([
                (GroupId(0), Group { range: None, epoch: Epoch(0), replicas: replicas(1) }),
                (GroupId(1), Group { range: Some(all), epoch: Epoch(1), replicas: replicas(4) }),
            ]),
            next_replica: ReplicaId(7),
        })
    }

    async fn status(&self, node: NodeId, _: Duration) -> Result<Status, Error> {
        if node == NodeId(3) {
            return Err(Error::Unavailable { retry_after: Duration::from_secs(1), why: "no connection".into() });
        }
        let group = |group, replica| GroupStatus {
            group: GroupId(group),
            replica: ReplicaId(replica),
            term: 4,
            leader: Some(NodeId(1)),
            last_log: Some(100),
            applied: Some(99),
            snapshot: None,
            matched: match node {
                NodeId(1) => vec![(NodeId(1), Some(100)), (NodeId(2), Some(98)), (NodeId(3), Some(40))],
                _ => Vec::new(),
            },
        };
        let first = u64::from(node.0);
        Ok(Status { node, version: "0.1.0".into(), groups: vec![group(0, first), group(1, first + 3)] })
    }

    async fn transfer(&self, group: GroupId, to: NodeId, _: Duration) -> Result<(), Error> {
        self.transfers.lock().unwrap().push((group, to));
        Ok(())
    }

    fn new_session_id(&self) -> SessionId {
        SESSION
    }

    fn random_key(&self) -> u128 {
        42
    }
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn lock_id(token: u64) -> LockId {
    LockId { session: SESSION, token: Token(token), tag: KeyTag(7) }
}

pub(crate) fn grant(token: u64) -> Grant {
    Grant {
        lock_id: lock_id(token),
        holder: "worker-7".into(),
        mode: Mode::Exclusive,
        lease: Some(Millis(30_000)),
        session_ttl: Millis(10_000),
        acquired: WallMs(1_765_792_800_000),
        expires: Some(WallMs(1_765_792_830_000)),
        waited: Millis(12),
        value: None,
        metadata: Metadata::new(),
        revision: Revision(5),
    }
}

pub(crate) fn led(token: u64, candidate: &str) -> Grant {
    Grant { value: Some(candidate.into()), expires: None, lease: None, ..grant(token) }
}

pub(crate) fn object(key: Key, grant: Grant, revision: u64) -> Object {
    Object {
        key,
        holders: vec![grant],
        holder_count: 1,
        queue: Vec::new(),
        queue_count: 0,
        lock_delay_until: None,
        revision: Revision(revision),
    }
}

pub(crate) fn blocked() -> Blocked {
    Blocked { holders: vec![grant(9)], holder_count: 1, waiters: 2, lock_delay_until: None }
}

pub(crate) fn request(method: &str, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::builder().method(method).uri(path).body(Full::new(body.into())).unwrap()
}

pub(crate) async fn send(gateway: &Gateway<Fake>, method: &str, path: &str, body: impl Into<Bytes>) -> (u16, Value) {
    document(gateway.handle(request(method, path, body)).await).await
}

pub(crate) async fn document(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_else(|e| panic!("{e}: {body:?}")))
}
