//! Who waits on which connection for a queued request.
//!
//! The queue itself is replicated; this is the leader's memory of where each answer goes. A waiter whose
//! connection ended, or whose client never came to a new leader, is an *orphan*: it keeps its place for a
//! grace, so that a repeat with the same request id meets it, and is then cancelled. A grant that an
//! orphan got meanwhile is given back with it.
//!
//! Not done: a grant that an orphan got just before a failover is not given back by the next leader, which
//! cannot know whether it was fetched. It ends with its lease or its session.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use wardlock_machine::{Command, Key, Outcome, RequestId, SessionId, Settled};
use wardlock_router::{link::Replier, random};
use wardlock_wire::Refusal;
use wardlock_wire::Response;

use super::leader::respond;

/// How long an orphan keeps its place.
pub const GRACE: Duration = Duration::from_secs(5);

type Id = (SessionId, RequestId);

/// One id for all repeats of a request: a native one carries another low-water mark each time.
fn same(session: SessionId, request: RequestId) -> Id {
    match request {
        RequestId::Native { seq, .. } => (session, RequestId::Native { seq, low: 0 }),
        keyed => (session, keyed),
    }
}

/// All of one leader's waiters.
#[derive(Default)]
pub struct Waiters {
    waiting: random::Map<Id, Waiter>,
    by_connection: random::Map<u64, random::Set<Id>>,
    orphans: BinaryHeap<Reverse<(Duration, Id)>>,
}

struct Waiter {
    key: Key,
    /// `None` for an orphan.
    reply: Option<Replier>,
    orphaned_until: Option<Duration>,
}

impl Waiters {
    /// A request that may queue is about to be proposed. A repeat takes the place of the first.
    pub fn register(&mut self, session: SessionId, request: RequestId, key: Key, reply: Replier) {
        let id = same(session, request);
        let connection = reply.connection();
        let waiter = Waiter { key, reply: Some(reply), orphaned_until: None };
        if let Some(Waiter { reply: Some(old), .. }) = self.waiting.insert(id, waiter) {
            self.forget(old.connection(), id);
        }
        self.by_connection.entry(connection).or_default().insert(id);
    }

    /// A waiter found in the machine's state by a new leader: an orphan unless its client repeats itself.
    pub fn inherit(&mut self, session: SessionId, request: RequestId, key: Key, now: Duration) {
        let id = same(session, request);
        self.waiting.entry(id).or_insert(Waiter { key, reply: None, orphaned_until: Some(now + GRACE) });
        self.orphans.push(Reverse((now + GRACE, id)));
    }

    /// The proposal of a request that might have queued has this outcome.
    pub fn answered(&mut self, session: SessionId, request: RequestId, outcome: Outcome) {
        if matches!(outcome, Outcome::Queued { .. }) {
            return;
        }
        if let Some(reply) = self.remove(same(session, request)) {
            reply.send(respond(outcome));
        }
    }

    /// A queued request is answered. An orphan that was granted stays until its grace ends.
    pub fn settled(&mut self, settled: Settled) {
        let id = same(settled.session, settled.request);
        let orphan = self.waiting.get(&id).is_some_and(|waiter| waiter.reply.is_none());
        if orphan && matches!(settled.outcome, Outcome::Granted(_)) {
            return;
        }
        if let Some(reply) = self.remove(id) {
            reply.send(Ok(Response::Outcome(settled.outcome)));
        }
    }

    /// A connection ended: its waiters are orphans from now on.
    pub fn closed(&mut self, connection: u64, now: Duration) {
        for id in self.by_connection.remove(&connection).unwrap_or_default() {
            if let Some(waiter) = self.waiting.get_mut(&id) {
                waiter.reply = None;
                waiter.orphaned_until = Some(now + GRACE);
                self.orphans.push(Reverse((now + GRACE, id)));
            }
        }
    }

    /// The leader has lost its majority: nobody may wait here in vain. The places in the queue are kept for
    /// a grace, as when a connection ends; a new leader inherits them.
    pub fn dismiss(&mut self, now: Duration) {
        self.by_connection.clear();
        for (id, waiter) in &mut self.waiting {
            // The dropped replier says that the outcome is unknown: the client repeats itself elsewhere.
            if waiter.reply.take().is_some() {
                waiter.orphaned_until = Some(now + GRACE);
                self.orphans.push(Reverse((now + GRACE, *id)));
            }
        }
    }

    /// The majority is back: whoever was dismissed has a whole grace to come again.
    pub fn rearm(&mut self, now: Duration) {
        for (id, waiter) in &mut self.waiting {
            if waiter.reply.is_none() {
                waiter.orphaned_until = Some(now + GRACE);
                self.orphans.push(Reverse((now + GRACE, *id)));
            }
        }
    }

    /// Whether anybody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The request was never proposed.
    pub fn refuse(&mut self, session: SessionId, request: RequestId, refusal: &Refusal) {
        if let Some(reply) = self.remove(same(session, request)) {
            reply.send(Err(refusal.clone()));
        }
    }

    /// When [`Self::due`] should next be asked.
    pub fn next(&self) -> Option<Duration> {
        self.orphans.peek().map(|Reverse((at, _))| *at)
    }

    /// The cancellations of orphans whose grace has ended.
    pub fn due(&mut self, now: Duration) -> Vec<Command> {
        let mut cancel = Vec::new();
        while let Some(Reverse((at, id))) = self.orphans.peek().copied() {
            if at > now {
                break;
            }
            self.orphans.pop();
            let due = self.waiting.get(&id).and_then(|waiter| waiter.orphaned_until).is_some_and(|until| until <= now);
            if due && let Some(waiter) = self.waiting.remove(&id) {
                cancel.push(Command::Cancel { session: id.0, request: id.1, key: waiter.key });
            }
        }
        cancel
    }

    fn remove(&mut self, id: Id) -> Option<Replier> {
        let reply = self.waiting.remove(&id)?.reply?;
        self.forget(reply.connection(), id);
        Some(reply)
    }

    fn forget(&mut self, connection: u64, id: Id) {
        if let Some(ids) = self.by_connection.get_mut(&connection) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_connection.remove(&connection);
            }
        }
    }
}
