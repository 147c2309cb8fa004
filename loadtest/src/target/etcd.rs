//! etcd, by its own recipe for locks.
//!
//! | here | there |
//! |---|---|
//! | session | a lease, kept alive over a few streams a connection |
//! | lock | the keys under `load/<number>/`, one for each holder or waiter; who was created first holds it |
//! | acquire, no wait | one transaction: where no such key exists, put one |
//! | acquire, wait | put one in any case; then watch the key created before it until that is deleted, look again |
//! | a lock's own lease | one more lease: an acquire begins with a grant of it, a release is its revocation |
//! | token | the revision of the transaction that put the key |
//! | release | deletion of the key |
//! | read | a linearizable range |
//!
//! Sessions and reads are spread over the connections to the members. Most of the members' work is forwarded to
//! their leader, as it is for any client that does not look for it. Nothing moves: while a member is down, what
//! is spread to it fails.
//!
//! # Promises
//! 1. A waiter that has come first looks for its own key again: a session that ended in the queue is not
//!    granted.
//! 2. There is no shared mode: the recipe has none, and a shared acquire fails rather than being exclusive.
//! 3. etcd counts leases in whole seconds, 2 at least: lengths are rounded up.

mod link;
mod wire;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use self::{
    link::{Error, Link},
    wire::{
        ASCENDING, Answer, BY_CREATION, CREATION, Compare, DESCENDING, Delete, Deleted, Done, Lease, LeaseGrant,
        LeaseGranted, Op, Operation, Put, Range, Ranged, Txn, TxnDone,
    },
};
use super::{
    About, Acquired, Failure, Grant, How, PREFIX, Place,
    slots::{Slots, addresses},
};
use crate::proc;

const TXN: &str = "/etcdserverpb.KV/Txn";
const RANGE: &str = "/etcdserverpb.KV/Range";
const DELETE: &str = "/etcdserverpb.KV/DeleteRange";
const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const REVOKE: &str = "/etcdserverpb.Lease/LeaseRevoke";

/// To every member, unless told: the more calls share one, the more of them go in one packet.
const CONNECTIONS: u32 = 1;

/// See the [module](self).
pub(crate) struct Etcd {
    links: Vec<Link>,
    addresses: Vec<String>,
    connections: u32,
    sessions: Slots,
    attempts: AtomicU64,
}

impl Etcd {
    /// Connects to every member.
    pub(crate) async fn connect(place: &Place, sessions: u32) -> anyhow::Result<Self> {
        let addresses = addresses("etcd", &place.target)?;
        let connections = place.connections.unwrap_or(CONNECTIONS);
        let mut links = Vec::new();
        for _ in 0..connections {
            for address in &addresses {
                links.push(Link::connect(address).await?);
            }
        }
        Ok(Self { links, addresses, connections, sessions: Slots::new(sessions), attempts: AtomicU64::new(0) })
    }

    pub(crate) async fn open(&self, session: u32, ttl: Duration) -> Result<(), Failure> {
        let lease = grant(self.link(session.into()), ttl).await?;
        self.sessions.set(session, lease).map(drop)
    }

    pub(crate) async fn close(&self, session: u32) -> Result<(), Failure> {
        let id = self.sessions.set(session, 0)?;
        match id {
            0 => Ok(()),
            id => revoke(self.link(session.into()), id).await.map(drop),
        }
    }

    pub(crate) async fn keep_alive(&self, session: u32) -> Result<bool, Failure> {
        self.link(session.into()).keep_alive(self.sessions.of(session)?).await
    }

    pub(crate) async fn acquire(&self, session: u32, name: u64, how: How) -> Result<Acquired, Failure> {
        if how.shared {
            return Err(Failure::new("no shared mode"));
        }
        let link = self.link(session.into());
        let of_session = self.sessions.of(session)?;
        let lease = match how.lease {
            None => of_session,
            Some(length) => grant(link, length).await?,
        };
        let ticket = Ticket { name, lease, attempt: self.attempts.fetch_add(1, Ordering::Relaxed) };
        let acquired = ticket.take(link, session, how.wait).await;
        let nothing_left = match acquired {
            Ok(Acquired::Granted { .. }) => true,
            Ok(Acquired::Held) => lease == of_session,
            Ok(Acquired::TimedOut) | Err(_) => false,
        };
        if !nothing_left {
            let link = link.clone();
            // Whatever fails here ends with the lease.
            tokio::spawn(async move { ticket.give_back(&link, of_session).await.map(drop) });
        }
        acquired
    }

    pub(crate) async fn renew(&self, session: u32, name: u64, grant: Grant, _: Duration) -> Result<bool, Failure> {
        // A lease is granted its length for good: a renewal begins it anew.
        self.link(session.into()).keep_alive(Ticket::of(name, grant).lease).await
    }

    pub(crate) async fn release(&self, session: u32, name: u64, grant: Grant) -> Result<bool, Failure> {
        Ticket::of(name, grant).give_back(self.link(session.into()), self.sessions.of(session)?).await
    }

    pub(crate) async fn read(&self, name: u64) -> Result<Option<u64>, Failure> {
        let ranged: Ranged = self.link(name).call(RANGE, first_of(name)).await?;
        Ok(ranged.kvs.first().map(|kv| token(kv.create_revision)))
    }

    pub(crate) fn shard_of(&self, _: u64) -> Option<(u32, Option<u32>)> {
        None
    }

    pub(crate) fn server_pids(&self) -> Vec<u32> {
        proc::listeners(proc::Transport::Tcp, self.addresses.iter().map(String::as_str))
    }

    pub(crate) fn about(&self) -> About {
        About {
            system: "etcd".to_owned(),
            protocol: "grpc".to_owned(),
            nodes: u32::try_from(self.addresses.len()).unwrap_or(u32::MAX),
            shards: 1,
            connections: self.connections,
            consistency: "linearizable".to_owned(),
        }
    }

    fn link(&self, number: u64) -> &Link {
        &self.links[(number % self.links.len() as u64) as usize]
    }
}

/// One attempt to hold a lock: its key is its own.
#[derive(Clone, Copy)]
struct Ticket {
    name: u64,
    lease: i64,
    attempt: u64,
}

impl Ticket {
    fn of(name: u64, grant: Grant) -> Self {
        Self { name, lease: (grant.id >> 64) as i64, attempt: grant.id as u64 }
    }

    fn grant(self, revision: i64) -> Grant {
        Grant { token: token(revision), id: u128::from(self.lease as u64) << 64 | u128::from(self.attempt) }
    }

    fn key(self) -> String {
        format!("{PREFIX}{}/{:x}-{:x}", self.name, self.lease, self.attempt)
    }

    async fn take(self, link: &Link, session: u32, wait: Duration) -> Result<Acquired, Failure> {
        let put = Op::Put(Put { key: self.key(), value: format!("load-{session}"), lease: self.lease });
        let (compare, success) = match wait.is_zero() {
            true => (vec![nobody_at(self.name)], vec![operation(put)]),
            false => (Vec::new(), vec![operation(put), operation(Op::Range(first_of(self.name)))]),
        };
        let done: TxnDone = link.call(TXN, Txn { compare, success }).await?;
        let revision = revision(&done)?;
        if !done.succeeded {
            return Ok(Acquired::Held);
        }
        let grant = self.grant(revision);
        if wait.is_zero() || created(done.answers.get(1)) == Some(revision) {
            return Ok(Acquired::Granted { grant, queued: false });
        }
        match tokio::time::timeout(wait, self.queue(link, revision)).await {
            Ok(come) => come.map(|()| Acquired::Granted { grant, queued: true }),
            Err(_) => Ok(Acquired::TimedOut),
        }
    }

    /// Until no key that was created before this one's is left.
    async fn queue(self, link: &Link, own: i64) -> Result<(), Failure> {
        loop {
            let mine = Range { key: self.key(), keys_only: true, ..Range::default() };
            let before = Range { sort_order: DESCENDING, max_create_revision: own - 1, ..first_of(self.name) };
            let look = vec![operation(Op::Range(mine)), operation(Op::Range(before))];
            let done: TxnDone = link.call(TXN, Txn { compare: Vec::new(), success: look }).await?;
            if created(done.answers.first()) != Some(own) {
                return Err(Failure::new("session gone"));
            }
            let before = done.answers.get(1).and_then(|answer| answer.range.as_ref()?.kvs.first());
            match before {
                None => return Ok(()),
                Some(kv) => link.deleted(kv.key.clone(), revision(&done)? + 1).await?,
            }
        }
    }

    /// Deletes its key, by its own lease if it has one; `false` where it was gone.
    async fn give_back(self, link: &Link, of_session: i64) -> Result<bool, Failure> {
        if self.lease != of_session {
            return revoke(link, self.lease).await;
        }
        let deleted: Deleted = link.call(DELETE, Delete { key: self.key() }).await?;
        Ok(deleted.deleted > 0)
    }
}

async fn grant(link: &Link, length: Duration) -> Result<i64, Failure> {
    let ttl_s = i64::try_from(length.as_millis().div_ceil(1000)).unwrap_or(i64::MAX).max(1);
    let granted: LeaseGranted = link.call(GRANT, LeaseGrant { ttl_s }).await?;
    match granted.id {
        0 => Err(Failure::new("a lease without a number")),
        id => Ok(id),
    }
}

/// `false` where it was gone.
async fn revoke(link: &Link, id: i64) -> Result<bool, Failure> {
    match link.ask::<_, Done>(REVOKE, Lease { id }).await {
        Ok(Done {}) => Ok(true),
        Err(Error::NotFound) => Ok(false),
        Err(Error::Failed(failure)) => Err(failure),
    }
}

/// The key of a lock that was created first.
fn first_of(name: u64) -> Range {
    Range {
        key: format!("{PREFIX}{name}/"),
        range_end: end_of(name),
        limit: 1,
        sort_order: ASCENDING,
        sort_target: BY_CREATION,
        keys_only: true,
        max_create_revision: 0,
    }
}

/// A condition that holds where a lock has no key at all.
fn nobody_at(name: u64) -> Compare {
    let key = format!("{PREFIX}{name}/");
    Compare { target: CREATION, key, create_revision: Some(0), range_end: end_of(name) }
}

/// What follows every key of a lock: `0` comes after `/`.
fn end_of(name: u64) -> String {
    format!("{PREFIX}{name}0")
}

fn operation(op: Op) -> Operation {
    Operation { op: Some(op) }
}

fn revision(done: &TxnDone) -> Result<i64, Failure> {
    done.header.map(|header| header.revision).ok_or_else(|| Failure::new("an answer without a revision"))
}

/// When the one key of an answer was created.
fn created(answer: Option<&Answer>) -> Option<i64> {
    Some(answer?.range.as_ref()?.kvs.first()?.create_revision)
}

/// Revisions are never negative.
fn token(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_leads_back_to_its_key() {
        let ticket = Ticket { name: 7, lease: i64::MIN + 5, attempt: u64::MAX };
        let grant = ticket.grant(41);
        assert_eq!(grant.token, 41);
        assert_eq!(Ticket::of(7, grant).key(), ticket.key());
        assert_eq!(Ticket::of(7, grant).lease, ticket.lease);
    }

    #[test]
    fn a_locks_range_holds_its_own_keys_only() {
        let inside = |name: u64, key: &str| *key >= *first_of(name).key && *key < *end_of(name);
        let key = Ticket { name: 42, lease: 1, attempt: 2 }.key();
        assert!(inside(42, &key));
        assert!(!inside(4, &key) && !inside(420, &key) && !inside(43, &key));
    }
}
