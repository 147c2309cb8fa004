//! Acquire: the one command by which a session comes to hold or to wait.

use crate::{
    command::*,
    effects::Cx,
    fields,
    ids::*,
    ledger::settle,
    limits,
    lock::Ask,
    machine::Machine,
    queue::Place,
    seat::{Recall, Stored},
};

impl Machine {
    /// Grants, queues or refuses. A request that waits already keeps its place; one that was answered is
    /// told the same again; what the session holds by another request is told as that.
    ///
    /// Refusals that changed nothing (a bound, no attachment, too old) are not kept: a retry tries anew.
    pub(crate) fn acquire(&mut self, acquire: Acquire, cx: &mut Cx<'_>) -> Outcome {
        if !fields::acquire(&acquire) {
            return Outcome::Limit(Limit::Field);
        }
        let (session, request) = (acquire.session, acquire.request);
        let Some(seat) = self.ledger.guest(session) else { return Outcome::NotAttached };
        let recall = seat.answers.recall(request);
        let held = seat.held.get(&acquire.key).copied();
        let waits = seat.waits.get(&acquire.key).copied();

        if let Recall::Answered(stored) = recall {
            return self.retell(stored, &acquire.key);
        }
        // Before its age: many later answers can raise the floor above a request that still waits.
        if let Some(position) = waits.and_then(|place| self.position(&acquire.key, place, request)) {
            return Outcome::Queued { position };
        }
        if let Some(token) = held {
            return self.already_held(token, recall, &acquire);
        }
        if recall == Recall::TooOld {
            return Outcome::TooOld;
        }
        match waits {
            Some(place) => self.replace_waiter(place, acquire, cx),
            None => self.acquire_new(acquire, cx),
        }
    }

    /// Where a request waits, if this is the request that waits there.
    fn position(&self, key: &Key, place: Place, request: RequestId) -> Option<u32> {
        let lock = self.locks.get(key).expect("invariant 6: an indexed waiter's lock is stored");
        let (position, waiter) = lock.queue.find(place).expect("invariant 6: an indexed waiter waits");
        waiter.ask.request.is_same(&request).then_some(position)
    }

    /// There is no re-entrance: the session is told which grant it has.
    fn already_held(&mut self, token: Token, recall: Recall, acquire: &Acquire) -> Outcome {
        let held = self.locks.get(&acquire.key).and_then(|lock| lock.holder(token));
        let held = held.expect("invariant 6: an indexed grant is held");
        let grant = self.ledger.show(held);
        // Its own answer was forgotten, however many came since; the grant was not.
        if held.ask.request.is_same(&acquire.request) {
            return Outcome::Granted(grant);
        }
        if recall == Recall::TooOld {
            return Outcome::TooOld;
        }
        self.ledger.record(acquire.session, acquire.request, Stored::AlreadyHeld(token));
        Outcome::AlreadyHeld(grant)
    }

    /// The session waits for the key by another request: a client that has lost track of its first. The
    /// first is settled as cancelled. The new one takes over its place where it asks for the same mode at
    /// the same priority and wants to wait; otherwise it comes anew.
    fn replace_waiter(&mut self, place: Place, acquire: Acquire, cx: &mut Cx<'_>) -> Outcome {
        let key = acquire.key.clone();
        let session = acquire.session;
        let now = self.now();
        let lock = self.locks.get_mut(&key).expect("invariant 6: an indexed waiter's lock is stored");
        let (position, waiter) = lock.queue.find_mut(place).expect("invariant 6: an indexed waiter waits");
        let old = waiter.ask.request;
        let takes_over =
            acquire.wait > Millis(0) && waiter.ask.mode == acquire.mode && place.priority == acquire.priority;
        if takes_over {
            let until = now.after(acquire.wait);
            self.ledger.deadlines.remove_wait(waiter.until, place, &key);
            self.ledger.deadlines.add_wait(until, place, &key);
            waiter.until = until;
            waiter.ask = Ask::new(acquire);
            self.cancelled(session, old, &key, cx);
            return Outcome::Queued { position };
        }
        self.with_lock(&key, |ledger, lock| {
            ledger.leave(&key, lock, place);
            ledger.advance(&key, lock, cx);
        });
        self.cancelled(session, old, &key, cx);
        self.acquire_new(acquire, cx)
    }

    fn cancelled(&mut self, session: SessionId, request: RequestId, key: &Key, cx: &mut Cx<'_>) {
        self.ledger.record(session, request, Stored::Cancelled);
        settle(session, request, key, Outcome::Cancelled, cx);
    }

    /// A request that neither holds nor waits.
    fn acquire_new(&mut self, acquire: Acquire, cx: &mut Cx<'_>) -> Outcome {
        let key = acquire.key.clone();
        self.locks.entry(key.clone()).or_default();
        let outcome = self.with_lock(&key, |ledger, lock| {
            // A lock-delay that has run out ends here too; those who waited for it come first.
            ledger.advance(&key, lock, cx);
            let (session, request) = (acquire.session, acquire.request);
            if let Some(mode) = lock.mismatch(acquire.mode) {
                ledger.record(session, request, Stored::Mismatch(mode));
                return Outcome::Mismatch { mode };
            }
            let admitted = lock.admits(acquire.mode, acquire.priority);
            let wants_room = admitted || acquire.wait > Millis(0);
            if wants_room && ledger.guest(session).is_some_and(|seat| seat.is_at_limit()) {
                return Outcome::Limit(Limit::GrantsPerSession);
            }
            if admitted && ledger.can_grant() {
                return Outcome::Granted(ledger.grant(&key, lock, Ask::new(acquire), None, cx));
            }
            if admitted {
                return Outcome::Limit(Limit::Tokens);
            }
            if acquire.wait > Millis(0) {
                if lock.queue.len() >= limits::WAITERS {
                    return Outcome::Limit(Limit::Waiters);
                }
                let (priority, wait) = (acquire.priority, acquire.wait);
                return Outcome::Queued { position: ledger.enqueue(&key, lock, Ask::new(acquire), priority, wait, cx) };
            }
            if acquire.mode == Mode::Shared && lock.is_full() && lock.queue.is_empty() {
                return Outcome::Limit(Limit::Holders);
            }
            ledger.record(session, request, Stored::Held);
            Outcome::Held(ledger.blocked(lock))
        });
        outcome.expect("the lock was just stored")
    }

    /// A kept answer, told again with things as they are now. A grant that is gone is not told as held.
    pub(crate) fn retell(&self, stored: Stored, key: &Key) -> Outcome {
        let grant = stored.token().map(|token| {
            let key = self.ledger.grants.get(&token)?;
            let held = self.locks.get(key)?.holder(token)?;
            Some(self.ledger.show(held))
        });
        let blocked = || match self.locks.get(key) {
            Some(lock) => self.ledger.blocked(lock),
            None => Blocked { holders: Vec::new(), holder_count: 0, waiters: 0, lock_delay_until: None },
        };
        match (stored, grant) {
            (_, Some(None)) => Outcome::Expired,
            (Stored::Granted(_), Some(Some(grant))) => Outcome::Granted(grant),
            (Stored::AlreadyHeld(_), Some(Some(grant))) => Outcome::AlreadyHeld(grant),
            (Stored::Renewed(_), Some(Some(grant))) => Outcome::Renewed(grant),
            (Stored::Held, _) => Outcome::Held(blocked()),
            (Stored::WaitTimeout, _) => Outcome::WaitTimeout(blocked()),
            (Stored::Mismatch(mode), _) => Outcome::Mismatch { mode },
            (Stored::Cancelled, _) => Outcome::Cancelled,
            (Stored::Released, _) => Outcome::Released,
            (Stored::Foreign, _) => Outcome::Foreign,
            (Stored::Expired | Stored::Granted(_) | Stored::AlreadyHeld(_) | Stored::Renewed(_), _) => Outcome::Expired,
        }
    }
}
