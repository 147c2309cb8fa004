//! What all handles of one client share, and its newest shard map.
//!
//! One task per client keeps the map fresh: it holds a question for a newer map open at some node. Calls
//! that are refused for an old map wake it, and it asks again at once; however many calls wait for a
//! newer map, it asks once. No call fetches a map of its own.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, ready},
    stream::FuturesUnordered,
};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use wardlock_placement::{MapVersion, NodeId, ShardMap};
use wardlock_wire::{Body, Lane, Response};

use super::{call::SILENCE, clock::Clock};
use crate::{
    Error,
    link::{CallError, PendingReply, Transport},
    random,
    routes::Routes,
};

/// How long a node may hold the question for a newer map.
const MAP_POLL: Duration = Duration::from_secs(30);
/// The pauses between fetches of the map that fail.
const MAP_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How many seeds are dialed at once.
const SEEDS_AT_ONCE: usize = 4;

/// A [`Transport`] that can be told where nodes are.
pub trait Dialer: Transport {
    /// Node `node` is at `address` from now on.
    fn set_peer(&self, node: NodeId, address: String);

    /// Connects to an address and learns from its certificate which node answers there. Calls to that node
    /// work at least for a moment from then on; [`Dialer::set_peer`] is what makes them work for long.
    fn connect_seed<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<NodeId, CallError>>;
}

/// A transport that finds nodes by their numbers alone: within a process, or where somebody else keeps it
/// connected. Its seeds are node numbers.
pub struct Connected(pub Arc<dyn Transport>);

impl Transport for Connected {
    fn call(&self, to: NodeId, lane: Lane, body: Body) -> PendingReply {
        self.0.call(to, lane, body)
    }
}

impl Dialer for Connected {
    fn set_peer(&self, _: NodeId, _: String) {}

    fn connect_seed<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<NodeId, CallError>> {
        let node = address.parse().map_err(|_| CallError::NotSent(format!("{address:?} is no node's number")));
        ready(node).boxed()
    }
}

/// What all handles of one client share.
pub(crate) struct Core {
    pub(crate) dialer: Arc<dyn Dialer>,
    pub(crate) clock: Arc<dyn Clock>,
    routes: RwLock<Arc<Routes>>,
    /// The address last told to the dialer, by node.
    peers: Mutex<BTreeMap<NodeId, String>>,
    seeds: Vec<String>,
    /// The node to ask for the map next; 0 where there is none.
    pub(crate) map_source: AtomicU32,
    /// How many fetches of the map were asked for.
    asked: AtomicU64,
    wake: Notify,
    /// Up to which of the fetches asked for are done, and how the last one went.
    served: watch::Sender<(u64, Result<(), Error>)>,
}

impl Core {
    pub(crate) fn new(dialer: Arc<dyn Dialer>, clock: Arc<dyn Clock>, seeds: Vec<String>) -> Core {
        Core {
            dialer,
            clock,
            routes: RwLock::new(Arc::new(Routes::new(Arc::default(), None))),
            peers: Mutex::default(),
            seeds,
            map_source: AtomicU32::new(0),
            asked: AtomicU64::new(0),
            wake: Notify::new(),
            served: watch::Sender::new((0, Ok(()))),
        }
    }

    /// The newest route table.
    pub(crate) fn routes(&self) -> Arc<Routes> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a map, unless the present one is as new.
    pub(crate) fn learn(&self, map: Arc<ShardMap>) {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        let known = routes.map();
        if (map.incarnation, map.version) <= (known.incarnation, known.version) {
            return;
        }
        {
            let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
            for (id, node) in &map.nodes {
                if peers.get(id) != Some(&node.quic) {
                    peers.insert(*id, node.quic.clone());
                    self.dialer.set_peer(*id, node.quic.clone());
                }
            }
        }
        let next = Arc::new(Routes::new(map, Some(&routes)));
        *routes = next;
    }

    /// Fetches the map by a question that is asked after this call begins.
    pub(crate) async fn refresh(&self) -> Result<(), Error> {
        self.fetched(|| false).await
    }

    /// Returns once the map is newer than `known`, or once it was fetched and is not.
    pub(crate) async fn newer_than(&self, known: MapVersion) -> Result<(), Error> {
        let newer = || self.routes().map().version > known;
        if newer() { Ok(()) } else { self.fetched(newer).await }
    }

    /// Waits for a fetch of the map that begins after this, or for `enough` after an earlier one.
    async fn fetched(&self, enough: impl Fn() -> bool) -> Result<(), Error> {
        let mine = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        self.wake.notify_one();
        let mut served = self.served.subscribe();
        let done = served.wait_for(|(upto, _)| *upto >= mine || enough()).await;
        done.map_or_else(|_| Err(Error::unavailable("the client is closing")), |served| served.1.clone())
    }

    /// Keeps the map fresh for as long as it is polled.
    pub(crate) async fn keep_map(&self) {
        let mut pause = MAP_PAUSE.0;
        loop {
            let asked = self.asked.load(Ordering::Acquire);
            let urgent = asked > self.served.borrow().0;
            let wait = if urgent || self.routes().map().version == MapVersion(0) { Duration::ZERO } else { MAP_POLL };
            let fetched = tokio::select! {
                biased;
                fetched = self.fetch_map(wait) => fetched,
                // The long poll is abandoned for a question that is answered at once.
                () = self.wake.notified(), if !urgent => continue,
            };
            let failed = fetched.is_err();
            self.served.send_modify(|served| *served = (asked.max(served.0), fetched));
            if failed || (wait.is_zero() && !urgent) {
                tokio::time::sleep(random::within(pause / 2..=pause)).await;
                pause = (pause * 2).min(MAP_PAUSE.1);
            } else {
                pause = MAP_PAUSE.0;
            }
        }
    }

    /// Asks one node for a newer map: the one that is said to have it, else one of the map's, else a seed.
    async fn fetch_map(&self, wait: Duration) -> Result<(), Error> {
        let known = self.routes().map().version;
        let source = match NodeId(self.map_source.load(Ordering::Relaxed)) {
            NodeId(0) => self.find_source().await?,
            node => node,
        };
        let body = Body::Map { known, wait_ms: super::call::millis(wait) };
        let answered = timeout(wait + SILENCE, self.dialer.call(source, Lane::Client, body)).await;
        let failed = match answered {
            Ok(Ok(Response::Map(map))) => {
                self.map_source.store(source.0, Ordering::Relaxed);
                if let Some(map) = map {
                    self.learn(Arc::new(map));
                }
                return Ok(());
            }
            Ok(Ok(_)) => Error::Malformed(format!("node {source} answers a question for the map with something else")),
            Ok(Err(error)) => Error::Unreachable { why: format!("node {source}: {error}") },
            Err(_) => Error::Unreachable { why: format!("node {source} stays silent") },
        };
        self.map_source.store(0, Ordering::Relaxed);
        Err(failed)
    }

    /// Some node to ask: any of the map's, and now and then a seed, in case all of those have moved.
    async fn find_source(&self) -> Result<NodeId, Error> {
        let map = self.routes().map().clone();
        let known = map.nodes.len();
        let pick = random::within(0..=known);
        if let Some(node) = map.nodes.keys().nth(pick).copied() {
            return Ok(node);
        }
        let mut last = "no seed was given".to_owned();
        let first = random::within(0..self.seeds.len().max(1));
        let mut seeds = self.seeds.iter().cycle().skip(first).take(self.seeds.len());
        // Several at once, so that a dead one costs no time.
        let mut dialed = FuturesUnordered::new();
        loop {
            while dialed.len() < SEEDS_AT_ONCE
                && let Some(seed) = seeds.next()
            {
                dialed.push(self.dial(seed));
            }
            match dialed.next().await {
                Some(Ok(node)) => return Ok(node),
                Some(Err(why)) => last = why,
                None => break,
            }
        }
        map.nodes.keys().next().copied().ok_or(Error::Unreachable { why: last })
    }

    async fn dial(&self, seed: &str) -> Result<NodeId, String> {
        match timeout(SILENCE * 2, self.dialer.connect_seed(seed)).await {
            Ok(Ok(node)) => Ok(node),
            Ok(Err(error)) => Err(format!("{seed}: {error}")),
            Err(_) => Err(format!("{seed} stays silent")),
        }
    }
}
