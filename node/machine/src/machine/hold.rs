//! What happens to a grant after it was given: release, renewal, an operator's break, cancellation.

use crate::{
    command::*,
    effects::Cx,
    fields,
    ids::*,
    ledger::settle,
    limits,
    machine::Machine,
    seat::{Recall, Stored},
};

/// How a lock id relates to a key.
enum Claim {
    /// It is held now, by that session, on that key.
    Holds,
    /// Its session gave it back not long ago.
    Released,
    /// It was a grant of this shard's, and is no longer.
    Gone,
    /// It is held by another session or on another key, or was never granted here.
    Foreign,
}

impl Machine {
    fn claim(&self, key: &Key, lock_id: LockId) -> Claim {
        if lock_id.tag != KeyTag::of(key) {
            return Claim::Foreign;
        }
        if let Some(of) = self.ledger.grants.get(&lock_id.token) {
            let seat = self.ledger.seats.get(&lock_id.session);
            let own = seat.is_some_and(|seat| seat.held.get(key) == Some(&lock_id.token));
            return if of == key && own { Claim::Holds } else { Claim::Foreign };
        }
        if lock_id.token > self.ledger.counters.token || lock_id.token == Token(0) {
            return Claim::Foreign;
        }
        match self.ledger.seats.get(&lock_id.session) {
            Some(seat) if seat.has_released(lock_id.token) => Claim::Released,
            _ => Claim::Gone,
        }
    }

    fn recall(&mut self, session: SessionId, request: RequestId) -> Recall {
        self.ledger.seats.get_mut(&session).map_or(Recall::New, |seat| seat.answers.recall(request))
    }

    /// Gives a grant back; the next in line has it in the same apply.
    pub(crate) fn release(&mut self, request: RequestId, key: Key, lock_id: LockId, cx: &mut Cx<'_>) -> Outcome {
        let recall = self.recall(lock_id.session, request);
        if let Recall::Answered(stored) = recall {
            return self.retell(stored, &key);
        }
        let stored = match self.claim(&key, lock_id) {
            // The lock id itself proves that this was done, however old the request is.
            Claim::Released => Stored::Released,
            _ if recall == Recall::TooOld => return Outcome::TooOld,
            Claim::Holds => {
                self.with_lock(&key, |ledger, lock| {
                    ledger.end(&key, lock, lock_id.token, EndReason::Released, cx);
                    ledger.advance(&key, lock, cx);
                });
                Stored::Released
            }
            Claim::Gone => Stored::Expired,
            Claim::Foreign => Stored::Foreign,
        };
        self.ledger.record(lock_id.session, request, stored);
        self.retell(stored, &key)
    }

    /// Sets the grant's lease to `lease` from now, be that longer or shorter than what was left. `None`
    /// repeats the present length; a grant without a lease stays without one.
    pub(crate) fn renew(
        &mut self,
        request: RequestId,
        key: Key,
        lock_id: LockId,
        lease: Option<Millis>,
        cx: &mut Cx<'_>,
    ) -> Outcome {
        if !fields::lease(lease) {
            return Outcome::Limit(Limit::Field);
        }
        match self.recall(lock_id.session, request) {
            Recall::Answered(stored) => return self.retell(stored, &key),
            Recall::TooOld => return Outcome::TooOld,
            Recall::New => {}
        }
        let token = lock_id.token;
        let stored = match self.claim(&key, lock_id) {
            Claim::Holds => {
                let held = self.locks.get_mut(&key).and_then(|lock| lock.holder_mut(token));
                let held = held.expect("invariant 6: an indexed grant is held");
                if let Some(deadline) = held.deadline() {
                    self.ledger.deadlines.remove_lease(deadline, token);
                }
                held.ask.lease = lease.or(held.ask.lease);
                held.from = self.ledger.counters.now;
                held.from_wall = cx.wall;
                // Who renews knows the lock id: the grant was fetched.
                held.unfetched = false;
                if let Some(deadline) = held.deadline() {
                    self.ledger.deadlines.add_lease(deadline, token);
                }
                Stored::Renewed(token)
            }
            Claim::Released | Claim::Gone => Stored::Expired,
            Claim::Foreign => Stored::Foreign,
        };
        self.ledger.record(lock_id.session, request, stored);
        self.retell(stored, &key)
    }

    /// Throws every holder out and opens the lock, out of a lock-delay too: the operator's word is that
    /// it may be had. Of very many holders the answer names a page.
    pub(crate) fn break_open(&mut self, key: Key, reason: String, cx: &mut Cx<'_>) -> Outcome {
        if !fields::label(&reason) {
            return Outcome::Limit(Limit::Field);
        }
        let broken = self.with_lock(&key, |ledger, lock| {
            let grants: Vec<Grant> = lock.holders().take(limits::PAGE).map(|held| ledger.show(held)).collect();
            while let Some(token) = lock.last_token() {
                ledger.end(&key, lock, token, EndReason::Broken, cx);
            }
            ledger.open(&key, lock);
            ledger.advance(&key, lock, cx);
            grants
        });
        Outcome::Broken(broken.unwrap_or_default())
    }

    /// Takes a request back: out of the queue, or, where the queue has granted it meanwhile, out of the
    /// lock. A retry of the request is told that it was cancelled.
    pub(crate) fn cancel(&mut self, session: SessionId, request: RequestId, key: Key, cx: &mut Cx<'_>) -> Outcome {
        let Some(seat) = self.ledger.seats.get(&session) else { return Outcome::Done };
        let place = seat.waits.get(&key).copied();
        let token = seat.held.get(&key).copied();
        let cancelled = self.with_lock(&key, |ledger, lock| {
            let waits = place.and_then(|place| lock.queue.find(place));
            let held = token.and_then(|token| lock.holder(token));
            if let Some((_, waiter)) = waits.filter(|(_, waiter)| waiter.ask.request.is_same(&request)) {
                let place = waiter.place;
                ledger.leave(&key, lock, place);
                settle(session, request, &key, Outcome::Cancelled, cx);
            } else if let Some(held) = held.filter(|held| held.unfetched && held.ask.request.is_same(&request)) {
                let token = held.token;
                ledger.end(&key, lock, token, EndReason::Unfetched, cx);
            } else {
                return false;
            }
            ledger.advance(&key, lock, cx);
            true
        });
        if cancelled == Some(true) {
            self.ledger.record(session, request, Stored::Cancelled);
        }
        Outcome::Done
    }
}
