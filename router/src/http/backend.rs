//! What the gateway needs of a cluster.
//!
//! The gateway keeps nothing between two requests: everything it answers comes through this trait.
//! In a process it is the native client; tests put their own cluster behind it.
//!
//! # What an implementation promises
//! 1. A call ends within its patience, or soon after.
//! 2. A write is retried only with its own request id; where its fate cannot be known, it says so.

use std::{future::Future, sync::Arc, time::Duration};

use wardlock_machine::{
    Answer, Command, Key, Name, Object, Outcome, Query, RequestId, Revision, SessionId, Token, WallMs,
};
use wardlock_placement::{GroupId, NodeId, ShardMap};
use wardlock_wire::{KeptAlive, Status};

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing happened: the shard had no leader that could take the call in time.
    #[error("unavailable: {why}")]
    Unavailable {
        /// When to try again.
        retry_after: Duration,
        /// What stood in the way.
        why: String,
    },
    /// Nothing happened: no node could be reached at all.
    #[error("no node answers: {why}")]
    Unreachable {
        /// What the last attempt failed with.
        why: String,
    },
    /// The write was proposed and its answer is lost.
    #[error("the write was proposed, and its answer is lost")]
    OutcomeUnknown,
    /// The disk is nearly full; what makes the state larger waits.
    #[error("the disk of a majority is nearly full")]
    DiskFull,
    /// A queue on the way is full. Nothing happened.
    #[error("a queue on the way is full")]
    Overloaded,
    /// The cluster does not let this process do that.
    #[error("not allowed: {0}")]
    NotAllowed(String),
    /// The request makes no sense to the cluster.
    #[error("malformed: {0}")]
    Malformed(String),
}

/// A cluster, as the gateway uses it.
pub trait Backend: Send + Sync + 'static {
    /// Logs a command on the shard that it belongs to. A queued acquire is answered when it is settled.
    fn write(&self, command: Command, patience: Duration) -> impl Future<Output = Result<Outcome, Error>> + Send;

    /// Takes an acquire out of its queue, or gives back what it got, in the background: its caller has gone.
    fn withdraw(&self, session: SessionId, request: RequestId, key: Key);

    /// Reads linearizably. A page of sessions is merged over all shards, by id, cut to its limit.
    fn read(&self, query: Query, patience: Duration) -> impl Future<Output = Result<Answer, Error>> + Send;

    /// A page of objects, merged over all shards, by name, cut to its limit.
    fn list(&self, query: Query, patience: Duration) -> impl Future<Output = Result<Vec<Object>, Error>> + Send;

    /// Whether each token belongs to a grant of its lock that is held now.
    fn fence(
        &self,
        checks: Vec<(Name, Token)>,
        patience: Duration,
    ) -> impl Future<Output = Result<Vec<bool>, Error>> + Send;

    /// A session as its home has it, and when it was last heard of.
    fn session_view(
        &self,
        session: SessionId,
        patience: Duration,
    ) -> impl Future<Output = Result<(Answer, Option<WallMs>), Error>> + Send;

    /// A session's sign of life.
    fn keep_alive(
        &self,
        session: SessionId,
        patience: Duration,
    ) -> impl Future<Output = Result<KeptAlive, Error>> + Send;

    /// The object as soon as its revision exceeds `since`, or as it is after `wait`; and up to where the
    /// answer goes.
    fn observe(
        &self,
        key: Key,
        since: Revision,
        wait: Duration,
    ) -> impl Future<Output = Result<(Option<Object>, Revision), Error>> + Send;

    /// The shard map, as it is known here.
    fn map(&self) -> Arc<ShardMap>;

    /// A node's view of itself.
    fn status(&self, node: NodeId, patience: Duration) -> impl Future<Output = Result<Status, Error>> + Send;

    /// Hands the leadership of a group to a node.
    fn transfer(
        &self,
        group: GroupId,
        to: NodeId,
        patience: Duration,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// A session id that was never used.
    fn new_session_id(&self) -> SessionId;

    /// A request id that was never used.
    fn random_request(&self) -> RequestId;
}
