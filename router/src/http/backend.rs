//! What the gateway needs of a cluster.
//!
//! The gateway keeps nothing between two requests: everything it answers comes through this trait.
//! In a process it is the native client; tests put their own cluster behind it.
//!
//! # What an implementation promises
//! 1. A call ends within its patience, or soon after.
//! 2. A write is retried only with its own request id; where its fate cannot be known, it says so.

use std::{future::Future, sync::Arc, time::Duration};

use wardlock_machine::{Acquire, Answer, Command, Name, Outcome, Pattern, Query, SessionId, Token, WallMs};
use wardlock_placement::{GroupId, NodeId, ShardMap};
use wardlock_wire::{KeptAlive, Status};

use super::watch::Events;
use crate::{
    Client, Error,
    client::{Watch, WatchError, WatchToken},
    deadlock::{Deadlock, Seen},
};

/// A cluster, as the gateway uses it.
pub trait Backend: Send + Sync + 'static {
    /// What [`Backend::watch`] opens.
    type Watch: Events;

    /// Logs a command on the shard that it belongs to. A queued acquire is answered when it is settled.
    fn write(&self, command: Command, patience: Duration) -> impl Future<Output = Result<Outcome, Error>> + Send;

    /// Takes an acquire out of its queue, or gives back what it got, in the background: its caller has gone.
    fn withdraw(&self, acquire: Acquire);

    /// Reads linearizably. A page of sessions is merged over all shards, cut to its limit.
    fn read(&self, query: Query, patience: Duration) -> impl Future<Output = Result<Answer, Error>> + Send;

    /// Reads from any replica, no older than `max_age`, and answers how old it may be.
    fn read_stale(
        &self,
        query: Query,
        max_age: Option<Duration>,
        patience: Duration,
    ) -> impl Future<Output = Result<(Answer, Option<Duration>), Error>> + Send;

    /// A page of a list ([`Query::is_list`]), merged over all shards, by name, cut to its limit; and the token
    /// from which a watch tells what happens behind it.
    fn list(
        &self,
        query: Query,
        patience: Duration,
    ) -> impl Future<Output = Result<(Answer, WatchToken), Error>> + Send;

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

    /// A watch of what these patterns fit, since a token or from now on.
    fn watch(
        &self,
        patterns: Vec<Pattern>,
        since: Option<WatchToken>,
        patience: Duration,
    ) -> impl Future<Output = Result<Self::Watch, WatchError>> + Send;

    /// The deadlocks that stand now.
    fn deadlocks(&self, patience: Duration) -> impl Future<Output = Result<(Vec<Deadlock>, Seen), Error>> + Send;

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

    /// The key of a request that was never used.
    fn random_key(&self) -> u128;
}

impl Backend for Client {
    type Watch = Watch;

    async fn write(&self, command: Command, patience: Duration) -> Result<Outcome, Error> {
        Client::write(self, command, patience).await
    }

    fn withdraw(&self, acquire: Acquire) {
        Client::withdraw(self, acquire);
    }

    async fn read(&self, query: Query, patience: Duration) -> Result<Answer, Error> {
        Client::read(self, query, patience).await
    }

    async fn read_stale(
        &self,
        query: Query,
        max_age: Option<Duration>,
        patience: Duration,
    ) -> Result<(Answer, Option<Duration>), Error> {
        Client::read_stale(self, query, max_age, patience).await
    }

    async fn list(&self, query: Query, patience: Duration) -> Result<(Answer, WatchToken), Error> {
        Client::page_with_token(self, query, patience).await
    }

    async fn fence(&self, checks: Vec<(Name, Token)>, patience: Duration) -> Result<Vec<bool>, Error> {
        Client::fence(self, checks, patience).await
    }

    async fn session_view(&self, session: SessionId, patience: Duration) -> Result<(Answer, Option<WallMs>), Error> {
        Client::session_view(self, session, patience).await
    }

    async fn keep_alive(&self, session: SessionId, patience: Duration) -> Result<KeptAlive, Error> {
        Client::keep_alive(self, session, patience).await
    }

    async fn watch(
        &self,
        patterns: Vec<Pattern>,
        since: Option<WatchToken>,
        patience: Duration,
    ) -> Result<Watch, WatchError> {
        let builder = patterns.into_iter().fold(Client::watch(self), |builder, pattern| builder.pattern(pattern));
        let builder = builder.patience(patience);
        match since {
            Some(token) => builder.since(token).open().await,
            None => builder.open().await,
        }
    }

    async fn deadlocks(&self, patience: Duration) -> Result<(Vec<Deadlock>, Seen), Error> {
        Client::deadlocks(self, patience).await
    }

    fn map(&self) -> Arc<ShardMap> {
        Client::map(self)
    }

    async fn status(&self, node: NodeId, patience: Duration) -> Result<Status, Error> {
        Client::status(self, node, patience).await
    }

    async fn transfer(&self, group: GroupId, to: NodeId, patience: Duration) -> Result<(), Error> {
        Client::transfer(self, group, to, patience).await
    }

    fn new_session_id(&self) -> SessionId {
        Client::new_session_id(self)
    }

    fn random_key(&self) -> u128 {
        crate::random::any()
    }
}
