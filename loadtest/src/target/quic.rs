//! Wardlock over native QUIC, by the client library's own low-level calls.
//!
//! Each of the connections is a client with a UDP socket of its own, and thus a connection to every node.
//! A session always speaks over the same one; reads take turns by name.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use wardlock_machine::{Acquire, Answer, Command, Holder, LockId, Metadata, Millis, Mode, Outcome, Query};
use wardlock_placement::{Routes, ShardMap, hash_name};
use wardlock_router::{Client, Error};
use wardlock_wire::KeptAlive;

use super::{
    About, Acquired, Failure, Grant, How, PATIENCE, Place,
    keys::{NAME_BYTES, held, key, name_of},
    seats::Seats,
};
use crate::proc;

/// How long a node may take to say what it leads.
const STATUS_PATIENCE: Duration = Duration::from_secs(1);

/// See the [module](self).
pub(crate) struct Quic {
    clients: Vec<Client>,
    seats: Seats,
    shards: Mutex<Shards>,
}

/// The newest map, made ready, and who leads.
#[derive(Default)]
struct Shards {
    map: Arc<ShardMap>,
    routes: Routes,
    leaders: BTreeMap<u32, u32>,
}

impl Quic {
    /// Connects to the nodes that `place` names or leads to.
    pub(crate) async fn connect(place: &Place, sessions: u32) -> anyhow::Result<Quic> {
        let mut clients = Vec::new();
        for _ in 0..place.connections.unwrap_or(1) {
            clients.push(Client::at(&place.target, place.certs.as_deref()).await?);
        }
        let target = Quic { clients, seats: Seats::new(sessions), shards: Mutex::default() };
        target.learn_leaders().await;
        Ok(target)
    }

    pub(crate) async fn open(&self, session: u32, ttl: Duration) -> Result<(), Failure> {
        let client = self.of_session(session);
        let id = client.new_session_id();
        let holder = Holder { client_id: format!("load-{session}"), ttl: millis(ttl), metadata: Metadata::new() };
        match client.write(Command::OpenSession { session: id, holder }, PATIENCE).await.map_err(failure)? {
            Outcome::Opened { .. } => self.seats.set(session, id),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn close(&self, session: u32) -> Result<(), Failure> {
        let id = self.seats.id(session)?;
        let closed = self.of_session(session).write(Command::CloseSession { session: id }, PATIENCE).await;
        match closed.map_err(failure)? {
            Outcome::Closing | Outcome::Done | Outcome::Ended => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn keep_alive(&self, session: u32) -> Result<bool, Failure> {
        let id = self.seats.id(session)?;
        let kept = self.of_session(session).keep_alive(id, PATIENCE).await.map_err(failure)?;
        Ok(kept == KeptAlive::Alive)
    }

    pub(crate) async fn acquire(&self, session: u32, name: u64, how: How) -> Result<Acquired, Failure> {
        let client = self.of_session(session);
        let request = self.seats.begin(session)?;
        let acquire = || Acquire {
            mode: if how.shared { Mode::Shared } else { Mode::Exclusive },
            lease: how.lease.map(millis),
            wait: millis(how.wait),
            ..Acquire::new(request.session, request.id(), key(name))
        };
        match client.write(Command::Acquire(acquire()), PATIENCE.saturating_add(how.wait)).await {
            Ok(Outcome::Granted(grant)) => {
                let LockId { session, token, .. } = grant.lock_id;
                // The queue's clock counts whole milliseconds.
                let queued = grant.waited > Millis(0);
                Ok(Acquired::Granted { grant: Grant { token: token.0, id: session.0 }, queued })
            }
            // Another client of the same session has it.
            Ok(Outcome::Held(_) | Outcome::AlreadyHeld(_)) => Ok(Acquired::Held),
            Ok(Outcome::WaitTimeout(_)) => Ok(Acquired::TimedOut),
            Ok(other) => Err(unexpected(&other)),
            Err(error) => {
                if error == Error::OutcomeUnknown {
                    client.withdraw(acquire());
                }
                Err(failure(error))
            }
        }
    }

    pub(crate) async fn renew(&self, session: u32, name: u64, grant: Grant, lease: Duration) -> Result<bool, Failure> {
        let request = self.seats.begin(session)?;
        let (key, lock_id) = held(name, grant);
        let command = Command::Renew { request: request.id(), key, lock_id, lease: Some(millis(lease)) };
        match self.of_session(session).write(command, PATIENCE).await.map_err(failure)? {
            Outcome::Renewed(_) => Ok(true),
            other => lost(&other),
        }
    }

    pub(crate) async fn release(&self, session: u32, name: u64, grant: Grant) -> Result<bool, Failure> {
        let request = self.seats.begin(session)?;
        let (key, lock_id) = held(name, grant);
        let command = Command::Release { request: request.id(), key, lock_id };
        match self.of_session(session).write(command, PATIENCE).await.map_err(failure)? {
            Outcome::Released => Ok(true),
            other => lost(&other),
        }
    }

    pub(crate) async fn read(&self, name: u64) -> Result<Option<u64>, Failure> {
        let client = &self.clients[(name % self.clients.len() as u64) as usize];
        match client.read(Query::Object { key: key(name) }, PATIENCE).await.map_err(failure)? {
            Answer::Object(object) => Ok(object.and_then(|o| Some(o.holders.first()?.lock_id.token.0))),
            _ => Err(Failure::new("an answer to another question")),
        }
    }

    pub(crate) fn shard_of(&self, name: u64) -> Option<(u32, Option<u32>)> {
        let mut text = [0; NAME_BYTES];
        let shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        let shard = shards.routes.owner(hash_name(&shards.map.hash_key, name_of(name, &mut text)))?.0;
        Some((shard, shards.leaders.get(&shard).copied()))
    }

    pub(crate) fn server_pids(&self) -> Vec<u32> {
        let map = self.clients[0].map();
        proc::listeners(proc::Transport::Udp, map.nodes.values().map(|node| node.quic.as_str()))
    }

    pub(crate) async fn learn_leaders(&self) {
        let client = &self.clients[0];
        let map = client.map();
        let asked = map.nodes.keys().map(|node| client.status(*node, STATUS_PATIENCE));
        let mut leaders = BTreeMap::new();
        for status in futures_util::future::join_all(asked).await.into_iter().flatten() {
            let led = status.groups.iter().filter(|group| group.leader == Some(status.node));
            leaders.extend(led.map(|group| (group.group.0, status.node.0)));
        }
        let routes = Routes::new(&map);
        *self.shards.lock().unwrap_or_else(PoisonError::into_inner) = Shards { map, routes, leaders };
    }

    pub(crate) fn about(&self) -> About {
        let map = self.clients[0].map();
        About {
            system: "wardlock".to_owned(),
            protocol: "quic".to_owned(),
            nodes: u32::try_from(map.nodes.len()).unwrap_or(u32::MAX),
            shards: u32::try_from(map.shards().count()).unwrap_or(u32::MAX),
            connections: u32::try_from(self.clients.len()).unwrap_or(u32::MAX),
            consistency: "linearizable".to_owned(),
        }
    }

    fn of_session(&self, session: u32) -> &Client {
        &self.clients[session as usize % self.clients.len()]
    }
}

fn millis(duration: Duration) -> Millis {
    Millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// What a renewal or a release is answered where the grant is no more.
fn lost(outcome: &Outcome) -> Result<bool, Failure> {
    match outcome {
        Outcome::Expired | Outcome::Ended | Outcome::UnknownSession => Ok(false),
        other => Err(unexpected(other)),
    }
}

/// An outcome that is a refusal here, by its kind.
fn unexpected(outcome: &Outcome) -> Failure {
    Failure::new(match outcome {
        Outcome::Expired => "granted and lost before the answer",
        Outcome::Ended | Outcome::Closing | Outcome::UnknownSession | Outcome::NotAttached => "session gone",
        Outcome::Cancelled => "cancelled by another request of the session",
        Outcome::Queued { .. } => "still queued",
        Outcome::TooOld => "request too old",
        Outcome::Mismatch { .. } => "mode mismatch",
        Outcome::Limit(_) => "limit reached",
        Outcome::IdTaken => "session id taken",
        _ => "an answer to another question",
    })
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Unavailable { why, .. } => Failure(why),
        Error::Unreachable { .. } => Failure::new("no node answers"),
        Error::OutcomeUnknown => Failure::new("outcome unknown"),
        Error::DiskFull => Failure::new("disk full"),
        Error::Overloaded => Failure::new("overloaded"),
        Error::NotAllowed(_) => Failure::new("not allowed"),
        Error::Malformed(_) => Failure::new("malformed"),
        other => Failure(other.to_string()),
    }
}
