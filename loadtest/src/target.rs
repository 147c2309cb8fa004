//! What is loaded: one set of calls, whatever the system and its protocol.
//!
//! A [`Target`] numbers what the load is made of: sessions by `u32`, lock names by `u64` (a lock is called
//! `load/<number>`). How a number becomes a session id, a lease or an ephemeral node is the target's own
//! business, as is the handle by which it knows a [`Grant`] again.
//!
//! # Promises
//! 1. Every call may be under way thousands of times at once, on one thread.
//! 2. A [`Failure`] is a short and stable kind, so that failures can be counted by it.
//! 3. What a failed [`Target::acquire`] may have been granted is given back in the background where the target
//!    can, and at the latest when its session ends.

#[cfg(feature = "peers")]
mod etcd;
#[cfg(test)]
pub(crate) mod fake;
mod http;
mod keys;
mod quic;
#[cfg(feature = "peers")]
mod redis;
mod seats;
#[cfg(feature = "peers")]
mod slots;
#[cfg(feature = "peers")]
mod zookeeper;

use std::{path::PathBuf, time::Duration};

use clap::Args;

/// How long a call is repeated before it counts as failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// What lock names begin with.
pub(crate) const PREFIX: &str = "load/";

/// How an acquire asks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct How {
    /// Shared rather than exclusive.
    pub(crate) shared: bool,
    /// How long to queue; zero tries once.
    pub(crate) wait: Duration,
    /// The lock's own lease; without one it lives as long as its session.
    pub(crate) lease: Option<Duration>,
}

/// What an acquire comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acquired {
    /// The lock is held now.
    Granted {
        /// The holding.
        grant: Grant,
        /// It was not free when it was asked for.
        queued: bool,
    },
    /// Somebody else holds it, and the request did not ask to wait.
    Held,
    /// The wait ended without a grant.
    TimedOut,
}

/// One holding of a lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Rises with every grant of a name.
    pub(crate) token: u64,
    /// The target's own handle for the grant.
    pub(crate) id: u128,
}

/// Why a call has no answer: a short, stable kind, such as `no quorum`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure(pub(crate) String);

impl Failure {
    /// Of this kind.
    pub(crate) fn new(kind: impl Into<String>) -> Failure {
        Failure(kind.into())
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// How to speak to Wardlock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Protocol {
    /// Straight to the nodes, over native QUIC.
    #[default]
    Quic,
    /// JSON over HTTP, through a gateway.
    Http,
}

/// Where the load goes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Place {
    /// The cluster: `http://HOST:PORT` of a gateway, or QUIC addresses of nodes, `HOST:PORT,HOST:PORT`.
    ///
    /// From a gateway the shard map and the nodes' QUIC addresses are learnt. Built with the feature `peers`:
    /// `etcd://`, `zookeeper://` or `redis://` and addresses as well.
    #[arg(long, env = "WARDLOCK_SERVER", value_name = "ADDRESS", default_value = "http://127.0.0.1:7400")]
    pub(crate) target: String,
    /// How to speak to it.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) protocol: Protocol,
    /// How many connections: to every node over QUIC, in all over HTTP. [default: 1 over QUIC, 256 over HTTP]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) connections: Option<u32>,
    /// The directory with `ca.pem`, `client.pem` and `client.key`. A gateway on this machine may say where
    /// they are.
    #[arg(long, env = "WARDLOCK_CERTS", value_name = "DIR")]
    pub(crate) certs: Option<PathBuf>,
    /// The server processes on this machine whose CPU and memory are counted. [default: those that listen
    /// on the nodes' ports]
    #[arg(long, value_name = "PID", value_delimiter = ',')]
    pub(crate) server_pid: Vec<u32>,
}

/// What a target says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct About {
    /// `wardlock`, `etcd`, `zookeeper`, `redis`.
    pub(crate) system: String,
    /// `quic`, `http` or a peer's own protocol.
    pub(crate) protocol: String,
    /// How many nodes it has; 0 where it does not say.
    pub(crate) nodes: u32,
    /// How many shards.
    pub(crate) shards: u32,
    /// How many connections are used, to each node or in all.
    pub(crate) connections: u32,
    /// `linearizable` or `stale`: what [`Target::read`] promises.
    pub(crate) consistency: String,
}

/// A system under load.
pub(crate) enum Target {
    /// Wardlock over native QUIC.
    Quic(quic::Quic),
    /// Wardlock over HTTP and JSON.
    Http(http::Http),
    /// A lock service in memory.
    #[cfg(test)]
    Fake(fake::Fake),
    /// etcd.
    #[cfg(feature = "peers")]
    Etcd(etcd::Etcd),
    /// ZooKeeper.
    #[cfg(feature = "peers")]
    Zookeeper(zookeeper::Zookeeper),
    /// One Redis.
    #[cfg(feature = "peers")]
    Redis(redis::Redis),
}

/// Hands a call to the variant.
macro_rules! each {
    ($self:ident, $target:ident => $call:expr) => {
        match $self {
            Target::Quic($target) => $call,
            Target::Http($target) => $call,
            #[cfg(test)]
            Target::Fake($target) => $call,
            #[cfg(feature = "peers")]
            Target::Etcd($target) => $call,
            #[cfg(feature = "peers")]
            Target::Zookeeper($target) => $call,
            #[cfg(feature = "peers")]
            Target::Redis($target) => $call,
        }
    };
}

/// Hands a call that waits to the variant. Only what Wardlock's own protocol keeps for a call under way lies in
/// the caller; the others', which is larger, in a box of its own.
macro_rules! each_waits {
    ($self:ident, $target:ident => $call:expr) => {
        match $self {
            Target::Quic($target) => $call.await,
            Target::Http($target) => Box::pin($call).await,
            #[cfg(test)]
            Target::Fake($target) => Box::pin($call).await,
            #[cfg(feature = "peers")]
            Target::Etcd($target) => Box::pin($call).await,
            #[cfg(feature = "peers")]
            Target::Zookeeper($target) => Box::pin($call).await,
            #[cfg(feature = "peers")]
            Target::Redis($target) => Box::pin($call).await,
        }
    };
}

impl Target {
    /// Connects, with room for `sessions` sessions. Must be called within a tokio runtime.
    pub(crate) async fn connect(place: &Place, sessions: u32) -> anyhow::Result<Target> {
        match place.target.split_once("://").map(|(scheme, _)| scheme) {
            #[cfg(feature = "peers")]
            Some("etcd") => Ok(Target::Etcd(etcd::Etcd::connect(place, sessions).await?)),
            #[cfg(feature = "peers")]
            Some("zookeeper") => Ok(Target::Zookeeper(zookeeper::Zookeeper::connect(place, sessions).await?)),
            #[cfg(feature = "peers")]
            Some("redis") => Ok(Target::Redis(redis::Redis::connect(place, sessions).await?)),
            #[cfg(not(feature = "peers"))]
            Some(peer @ ("etcd" | "zookeeper" | "redis")) => {
                anyhow::bail!(
                    "{peer} needs a build with the feature: cargo build --release -p wardlock-loadtest --features peers"
                )
            }
            _ => Ok(match place.protocol {
                Protocol::Quic => Target::Quic(quic::Quic::connect(place, sessions).await?),
                Protocol::Http => Target::Http(http::Http::connect(place, sessions).await?),
            }),
        }
    }

    /// Opens session number `session`; one that is lost may be opened again.
    pub(crate) async fn open(&self, session: u32, ttl: Duration) -> Result<(), Failure> {
        each_waits!(self, target => target.open(session, ttl))
    }

    /// Closes it, and with it ends whatever it holds.
    pub(crate) async fn close(&self, session: u32) -> Result<(), Failure> {
        each_waits!(self, target => target.close(session))
    }

    /// A sign of life; `false` where the session is gone.
    pub(crate) async fn keep_alive(&self, session: u32) -> Result<bool, Failure> {
        each_waits!(self, target => target.keep_alive(session))
    }

    /// Asks for a lock.
    pub(crate) async fn acquire(&self, session: u32, name: u64, how: How) -> Result<Acquired, Failure> {
        each_waits!(self, target => target.acquire(session, name, how))
    }

    /// Extends a grant's lease; `false` where it is lost.
    pub(crate) async fn renew(&self, session: u32, name: u64, grant: Grant, lease: Duration) -> Result<bool, Failure> {
        each_waits!(self, target => target.renew(session, name, grant, lease))
    }

    /// Gives a grant back; `false` where it was lost before.
    pub(crate) async fn release(&self, session: u32, name: u64, grant: Grant) -> Result<bool, Failure> {
        each_waits!(self, target => target.release(session, name, grant))
    }

    /// The token of whoever holds a lock, if anybody does.
    pub(crate) async fn read(&self, name: u64) -> Result<Option<u64>, Failure> {
        each_waits!(self, target => target.read(name))
    }

    /// The shard that a name is in and the node believed to lead it, where the target can tell.
    pub(crate) fn shard_of(&self, name: u64) -> Option<(u32, Option<u32>)> {
        each!(self, target => target.shard_of(name))
    }

    /// The server processes on this machine; empty where unknown.
    pub(crate) fn server_pids(&self) -> Vec<u32> {
        each!(self, target => target.server_pids())
    }

    /// Looks again who leads which shard, for [`Target::shard_of`].
    pub(crate) async fn learn_leaders(&self) {
        if let Target::Quic(target) = self {
            target.learn_leaders().await;
        }
    }

    /// What it is.
    pub(crate) fn about(&self) -> About {
        each!(self, target => target.about())
    }
}
