//! What happens to a grant after it was given: release, renewal, proclamation, an operator's break, cancellation.

use crate::{
    command::*,
    effects::Cx,
    fields,
    ids::*,
    limits,
    lock::{Held, Short},
    locks::LockAt,
    machine::{Machine, Said},
    planted,
    seat::{Recall, SeatAt, Stored},
    view::Room,
};

/// How a lock id relates to a key.
enum Claim {
    /// It is held now, by that session, on that key.
    Holds(LockAt),
    /// Its session gave it back not long ago.
    Released,
    /// It was a grant of this shard's, and is no longer.
    Gone,
    /// It is held by another session or on another key, or was never granted here.
    Foreign,
}

impl Machine {
    fn claim(&self, key: &Key, lock_id: LockId, seat: Option<SeatAt>) -> Claim {
        if let Some(at) = self.ledger.grants.get(&lock_id.token) {
            let (of, lock) = self.locks.entry(*at);
            let is_own = |held: &Held| held.lock_id() == lock_id || planted!("strangers-release");
            let own = lock.holder(lock_id.token).is_some_and(is_own);
            return if of == key && own { Claim::Holds(*at) } else { Claim::Foreign };
        }
        let granted = lock_id.token <= self.ledger.counters.token && lock_id.token != Token(0);
        if !granted || lock_id.tag != KeyTag::of(key) {
            return Claim::Foreign;
        }
        match seat {
            Some(at) if !planted!("dedup-off") && self.ledger.seats[at].has_released(lock_id.token) => Claim::Released,
            _ => Claim::Gone,
        }
    }

    /// The session's seat, if it has one, and what is known of its request.
    fn recall(&mut self, session: SessionId, request: RequestId) -> (Option<SeatAt>, Recall) {
        let seat = self.ledger.seats.find(&session);
        (seat, seat.map_or(Recall::New, |at| self.ledger.seats[at].answers.recall(request)))
    }

    /// Keeps the answer, if there is a seat to keep it in, and tells it.
    fn answer(&mut self, seat: Option<SeatAt>, request: RequestId, stored: Stored, key: &Key) -> Said {
        if let Some(at) = seat {
            self.ledger.record(at, request, stored);
        }
        self.retell(stored, key)
    }

    /// Gives a grant back; the next in line has it in the same apply.
    pub(crate) fn release(&mut self, request: RequestId, key: Key, lock_id: LockId, cx: &mut Cx<'_>) -> Said {
        let (seat, recall) = self.recall(lock_id.session, request);
        if let Recall::Answered(stored) = recall {
            return self.retell(stored, &key);
        }
        let stored = match self.claim(&key, lock_id, seat) {
            // The lock id itself proves that this was done, however old the request is.
            Claim::Released => Stored::Released,
            _ if recall == Recall::TooOld => return Outcome::TooOld.into(),
            Claim::Holds(at) => {
                self.with_lock(at, |ledger, spot| {
                    ledger.end(spot, lock_id.token, EndReason::Released, cx);
                    if !planted!("release-without-handoff") {
                        ledger.advance(spot, cx);
                    }
                });
                Stored::Released
            }
            Claim::Gone => Stored::Expired,
            Claim::Foreign => Stored::Foreign,
        };
        self.answer(seat, request, stored, &key)
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
    ) -> Said {
        if !fields::lease(lease) {
            return Outcome::Limit(Limit::Field).into();
        }
        let (seat, recall) = self.recall(lock_id.session, request);
        match recall {
            Recall::Answered(stored) => return self.retell(stored, &key),
            Recall::TooOld => return Outcome::TooOld.into(),
            Recall::New => {}
        }
        let token = lock_id.token;
        let stored = match self.claim(&key, lock_id, seat) {
            Claim::Holds(at) => {
                let held = self.locks.entry_mut(at).1.holders.find_mut(token);
                let held = held.expect("invariant 6: an indexed grant is held");
                let before = held.deadline();
                held.ask.lease = lease.map(Short::new).or(held.ask.lease);
                if !planted!("renewal-counts-from-the-grant") {
                    held.from = self.ledger.counters.now;
                }
                held.from_wall = cx.wall;
                // Who renews knows the lock id: the grant was fetched.
                held.unfetched = false;
                let after = held.deadline();
                if before != after {
                    before.inspect(|deadline| self.ledger.deadlines.remove_lease(*deadline, token));
                    after.inspect(|deadline| self.ledger.deadlines.add_lease(*deadline, token));
                }
                Stored::Renewed(token)
            }
            Claim::Released | Claim::Gone => Stored::Expired,
            Claim::Foreign => Stored::Foreign,
        };
        self.answer(seat, request, stored, &key)
    }

    /// Gives an election another value while its leader leads; the rules for repeats are those of renewals. Where an
    /// earlier proclamation is repeated after a later one, the later one stays.
    pub(crate) fn proclaim(
        &mut self,
        request: RequestId,
        key: Key,
        lock_id: LockId,
        value: String,
        cx: &mut Cx<'_>,
    ) -> Said {
        if !fields::proclaim(&key, &value) {
            return Outcome::Limit(Limit::Field).into();
        }
        let (seat, recall) = self.recall(lock_id.session, request);
        match recall {
            Recall::Answered(Stored::Renewed(_)) if planted!("late-proclamation-repeats") => {}
            Recall::Answered(stored) => return self.retell(stored, &key),
            Recall::TooOld => return Outcome::TooOld.into(),
            Recall::New => {}
        }
        let stored = match self.claim(&key, lock_id, seat) {
            Claim::Holds(at) => {
                self.with_lock(at, |ledger, spot| ledger.proclaim(spot, lock_id.token, value, cx));
                Stored::Renewed(lock_id.token)
            }
            Claim::Released | Claim::Gone => Stored::Expired,
            Claim::Foreign => Stored::Foreign,
        };
        self.answer(seat, request, stored, &key)
    }

    /// Throws every holder out and opens the lock, out of a lock-delay too: the operator's word is that
    /// it may be had. Of very many holders the answer names a page.
    pub(crate) fn break_open(&mut self, key: Key, reason: String, cx: &mut Cx<'_>) -> Outcome {
        if !fields::label(&reason) {
            return Outcome::Limit(Limit::Field);
        }
        let Some(at) = self.locks.find(&key) else { return Outcome::Broken(Vec::new()) };
        let broken = self.with_lock(at, |ledger, spot| {
            let grants = ledger.show_all(spot.lock.holders().take(limits::PAGE), &mut Room::default());
            while let Some(token) = spot.lock.last_token() {
                ledger.end(spot, token, EndReason::Broken, cx);
            }
            ledger.open(spot);
            ledger.advance(spot, cx);
            grants
        });
        Outcome::Broken(broken)
    }

    /// Takes a request back: out of the queue, or, where the queue has granted it meanwhile, out of the
    /// lock. A retry of the request is told that it was cancelled.
    pub(crate) fn cancel(&mut self, session: SessionId, request: RequestId, key: Key, cx: &mut Cx<'_>) -> Outcome {
        let Some(seat_at) = self.ledger.seats.find(&session) else { return Outcome::Done };
        let Some(at) = self.locks.find(&key) else { return Outcome::Done };
        let seat = &self.ledger.seats[seat_at];
        let place = seat.waits.get(at);
        let token = seat.held.get(at);
        let cancelled = self.with_lock(at, |ledger, spot| {
            let waits = place.and_then(|place| spot.lock.queue.find(place));
            let held = token.and_then(|token| spot.lock.holder(token));
            if let Some((_, waiter)) = waits.filter(|(_, waiter)| waiter.ask.request.is_same(&request)) {
                let place = waiter.place;
                let waiter = ledger.leave(spot, place);
                cx.settle(session, waiter.ask.request, spot.key, || Outcome::Cancelled);
            } else if let Some(held) = held.filter(|held| held.unfetched && held.ask.request.is_same(&request)) {
                let token = held.token;
                ledger.end(spot, token, EndReason::Unfetched, cx);
            } else {
                return false;
            }
            ledger.advance(spot, cx);
            true
        });
        if cancelled {
            self.ledger.record(seat_at, request, Stored::Cancelled);
        }
        Outcome::Done
    }
}
