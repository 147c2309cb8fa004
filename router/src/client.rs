//! The client: sessions, locks and elections over a whole cluster.
//!
//! A [`Client`] knows the shard map, sends each call to the leader of the right shard and repeats what is
//! safe to repeat. It is a handle: clone it freely. Any number of calls may be under way at once, pipelined
//! over one connection per node; a call costs no task and no timer, and allocates for what it asks and for its
//! answer. Each client runs three tasks in all, however many sessions it has: one keeps the map fresh, one keeps
//! the sessions alive, one does what dropped guards leave behind. They end with the last handle. Beside them,
//! a connection with calls under way has one that watches their deadlines.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use wardlock_router::Client;
//!
//! let client = Client::connect(["127.0.0.1:7401"]).await?;
//! let session = client.session("worker-7").ttl(Duration::from_secs(10)).open().await?;
//! let guard = session.lock("orders/42").wait(Duration::from_secs(5)).acquire().await?;
//! println!("token for the resource: {}", guard.fencing_token());
//! guard.release().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Promises
//! 1. An error says whether anything may have happened: only [`Error::OutcomeUnknown`] says that it may.
//! 2. A holder is told that it has lost its lock before a server can grant it to another, as long as no two
//!    clocks differ in speed by more than 1 % and the process is not stopped; one that was stopped learns
//!    it when it asks, and within half a second otherwise.
//! 3. A lock that a caller gave up waiting for is not left held: it is cancelled in the background.
//!
//! This file has the calls that go to shards one by one; [`session`](Client::session) opens the comfortable
//! part.

mod call;
mod clock;
mod config;
mod connect;
mod core;
mod deadlocks;
mod discover;
mod election;
mod fan;
mod guard;
mod janitor;
mod keeper;
mod lock;
mod requests;
mod service_watch;
mod services;
mod session;
mod stale;
#[cfg(test)]
mod tests;
mod vital;
mod watch;

use std::{fmt, sync::Arc, time::Duration};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Either, ready},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use wardlock_machine::*;
use wardlock_placement::{GroupId, MapVersion, NodeId, ShardMap};
use wardlock_wire::{Body, KeptAlive, Op, Response, Status};

pub(crate) use self::election::{News, Office};
use self::{
    call::{Replied, Work},
    core::Core,
    janitor::{Chore, Janitor},
    keeper::Keeper,
};
pub use self::{
    clock::{Boot, BootClock, Clock, less_drift},
    config::{Config, ConfigError},
    connect::{Builder, ConnectError},
    core::{Connected, Dialer},
    discover::ServerError,
    election::{Candidate, Election, Leader, LeaderWatch, Leadership},
    guard::Guard,
    lock::{Lock, LockError},
    service_watch::{Endpoint, ServiceWatch},
    services::{RegisterError, Registering, Registration, Service},
    session::{OpenError, Session, SessionBuilder},
    vital::SessionState,
    watch::{ParseTokenError, Watch, WatchBuilder, WatchError, WatchToken, Watched},
};
use crate::{Error, random};

/// A handle on a cluster.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    core: Arc<Core>,
    keeper: Arc<Keeper>,
    janitor: Janitor,
    feeds: watch::Feeds,
    _stop: DropGuard,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client(map {})", self.map().version)
    }
}

impl Client {
    /// A client over `dialer`, which starts to look for the map at `seeds`, each a `host:port`. Returns at
    /// once; [`Client::ready`] waits for the map. Must be called within a tokio runtime.
    pub fn over(dialer: Arc<dyn Dialer>, seeds: impl IntoIterator<Item = impl Into<String>>) -> Client {
        Client::with_clock(dialer, seeds, Arc::new(BootClock))
    }

    /// The same, with a clock of the caller's for the deadlines of sessions and locks.
    pub fn with_clock(
        dialer: Arc<dyn Dialer>,
        seeds: impl IntoIterator<Item = impl Into<String>>,
        clock: Arc<dyn Clock>,
    ) -> Client {
        let core = Arc::new(Core::new(dialer, clock, seeds.into_iter().map(Into::into).collect()));
        let stop = CancellationToken::new();
        let keeper = Arc::new(Keeper::default());
        let (stopped, mapped) = (stop.clone(), core.clone());
        tokio::spawn(async move { stopped.run_until_cancelled(mapped.keep_map()).await });
        let (stopped, kept, keeping) = (stop.clone(), core.clone(), keeper.clone());
        tokio::spawn(async move { stopped.run_until_cancelled(keeping.run(&kept)).await });
        let janitor = Janitor::start(core.clone());
        Client {
            inner: Arc::new(Inner { core, keeper, janitor, feeds: watch::Feeds::default(), _stop: stop.drop_guard() }),
        }
    }

    /// Waits until a shard map is known.
    pub async fn ready(&self, patience: Duration) -> Result<(), Error> {
        let mut last = Error::Unreachable { why: "no seed answers".into() };
        let known = async {
            while self.map().version == MapVersion(0) {
                if let Err(error) = self.refresh().await {
                    last = error;
                }
                // A cluster that is not founded yet has no map to give.
                if self.map().version == MapVersion(0) {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        };
        match tokio::time::timeout(patience, known).await {
            Ok(()) => Ok(()),
            Err(_) => Err(last),
        }
    }

    /// Takes a map that the caller has from elsewhere, unless the client's own is as new.
    pub fn learn(&self, map: Arc<ShardMap>) {
        self.core().learn(map);
    }

    /// The newest shard map known; of version 0 where none is.
    pub fn map(&self) -> Arc<ShardMap> {
        self.core().routes().map().clone()
    }

    /// Asks a node for a newer map now.
    pub async fn refresh(&self) -> Result<(), Error> {
        self.core().refresh().await
    }

    /// Has a command applied by the shard of its key, or by its session's home where it has no key. All
    /// but [`Command::Break`] is repeated until its outcome is known.
    pub fn write(
        &self,
        command: Command,
        patience: Duration,
    ) -> impl Future<Output = Result<Outcome, Error>> + Send + '_ {
        self.core().write(command, patience)
    }

    /// Has a command applied by a group: what one shard tells another. [`Outcome::StaleEpoch`] is handed to
    /// the caller.
    pub async fn write_to(&self, group: GroupId, command: Command, patience: Duration) -> Result<Outcome, Error> {
        outcome(self.core().run(Work::op_for(group, Op::Write(command)), patience).await)
    }

    /// Reads linearizably: one object, one session, fences of one shard, or a page over all shards.
    pub fn read(&self, query: Query, patience: Duration) -> impl Future<Output = Result<Answer, Error>> + Send + '_ {
        match query {
            Query::Sessions { .. }
            | Query::List { .. }
            | Query::Configs { .. }
            | Query::Services { .. }
            | Query::Hooks { .. } => Either::Right(self.read_page(query, patience)),
            Query::Fence { ref checks } if checks.is_empty() => {
                Either::Right(ready(Ok(Answer::Fence(Vec::new()))).boxed())
            }
            Query::Events { .. } => {
                let detail = "events are a shard's: they are watched, see `Client::watch`";
                Either::Right(ready(Err(Error::Malformed(detail.into()))).boxed())
            }
            query if !query.is_within_bounds() => {
                Either::Right(ready(Err(Error::Malformed("it asks for more than one question may".into()))).boxed())
            }
            query => Either::Left(self.core().read(query, patience)),
        }
    }

    /// Boxed, since every read would be as large otherwise.
    fn read_page(&self, query: Query, patience: Duration) -> BoxFuture<'_, Result<Answer, Error>> {
        self.page(query, patience).boxed()
    }

    /// A session, and when its home's leader last heard of it.
    pub async fn session_view(
        &self,
        session: SessionId,
        patience: Duration,
    ) -> Result<(Answer, Option<WallMs>), Error> {
        let work = Work::op(Op::Read(Query::Session { session }));
        match self.core().run(work, patience).await?.response {
            Response::Session { answer, last_heartbeat } => Ok((answer, last_heartbeat)),
            Response::Answer(answer) => Ok((answer, None)),
            other => Err(unexpected(&other)),
        }
    }

    /// A session's sign of life. Sessions opened by [`Client::session`] send theirs themselves.
    pub async fn keep_alive(&self, session: SessionId, patience: Duration) -> Result<KeptAlive, Error> {
        self.core().keep_alive(session, patience).await.map(|(kept, _)| kept)
    }

    /// Takes a request out of its queue, or gives back what it got, in the background: for callers of
    /// [`Client::write`] whose own caller has gone away while an acquire waits, and will not repeat it.
    pub fn withdraw(&self, acquire: Acquire) {
        self.inner.janitor.leave(Chore::Withdraw { acquire: Box::new(acquire), open: None });
    }

    /// One lock or election, if there is anything to it.
    pub async fn object(&self, key: Key, patience: Duration) -> Result<Option<Object>, Error> {
        match self.read(Query::Object { key }, patience).await? {
            Answer::Object(object) => Ok(object),
            other => Err(unexpected_answer(other)),
        }
    }

    /// What a node says of itself.
    pub async fn status(&self, node: NodeId, patience: Duration) -> Result<Status, Error> {
        match self.core().ask(node, Body::Status, patience).await? {
            Response::Status(status) => Ok(status),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks a group's leader to hand its leadership to the replica on node `to`.
    pub async fn transfer(&self, group: GroupId, to: NodeId, patience: Duration) -> Result<(), Error> {
        match self.core().run(Work::transfer(group, to), patience).await?.response {
            Response::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// An id for a new session: of the map's incarnation, and random.
    pub fn new_session_id(&self) -> SessionId {
        SessionId::new(Incarnation(self.map().incarnation), random::any())
    }

    /// A request id for a caller without a session of its own here.
    pub fn random_request(&self) -> RequestId {
        RequestId::Keyed { key: random::any() }
    }

    fn core(&self) -> &Arc<Core> {
        &self.inner.core
    }
}

/// Neither is an `async fn`: that would hold what it waits for twice.
impl Core {
    fn write(&self, command: Command, patience: Duration) -> impl Future<Output = Result<Outcome, Error>> + Send + '_ {
        self.run(Work::op(Op::Write(command)), patience).map(outcome)
    }

    fn read(&self, query: Query, patience: Duration) -> impl Future<Output = Result<Answer, Error>> + Send + '_ {
        self.run(Work::op(Op::Read(query)), patience).map(|replied| match replied?.response {
            Response::Answer(answer) | Response::Session { answer, .. } => Ok(answer),
            other => Err(unexpected(&other)),
        })
    }

    /// A session's sign of life, and when the one that was answered was sent.
    async fn keep_alive(&self, session: SessionId, patience: Duration) -> Result<(KeptAlive, Boot), Error> {
        let replied = self.run(Work::op(Op::KeepAlive { session }), patience).await?;
        match (replied.response, replied.sent) {
            (Response::KeptAlive(kept), Some(sent)) => Ok((kept, sent)),
            (other, _) => Err(unexpected(&other)),
        }
    }
}

fn outcome(replied: Result<Replied, Error>) -> Result<Outcome, Error> {
    match replied?.response {
        Response::Outcome(outcome) => Ok(outcome),
        other => Err(unexpected(&other)),
    }
}

/// A shard answered another question.
fn unexpected_answer(answer: Answer) -> Error {
    unexpected(&Response::Answer(answer))
}

/// A node answered with something that is no answer to the question.
fn unexpected(response: &Response) -> Error {
    let kind = match response {
        Response::Raft(_) => "a raft reply",
        Response::Outcome(_) => "an outcome",
        Response::Answer(_) => "an answer to a query",
        Response::Session { .. } => "a session",
        Response::KeptAlive(_) => "an answer to a keep-alive",
        Response::Map(_) => "a map",
        Response::Status(_) => "a status",
        Response::Done => "a bare confirmation",
        Response::Confirmed(_) => "words on leaderships",
        Response::Stale { .. } => "a stale answer",
        Response::ReadIndex(_) => "an index",
        Response::Marked { .. } => "a list with its mark",
    };
    Error::Malformed(format!("the node answered with {kind}"))
}
