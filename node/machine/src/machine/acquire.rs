//! Acquire: the one command by which a session comes to hold or to wait.

use crate::{
    command::*,
    effects::Cx,
    fields,
    ids::*,
    limits,
    lock::{Ask, Held, Lock},
    locks::LockAt,
    machine::{Machine, Said},
    planted,
    queue::Place,
    seat::{Recall, SeatAt, Stored},
};

impl Machine {
    /// Grants, queues or refuses. A request that waits already keeps its place; one that was answered is
    /// told the same again; what the session holds by another request is told as that.
    ///
    /// Refusals that changed nothing (a bound, no attachment, too old) are not kept: a retry tries anew.
    pub(crate) fn acquire(&mut self, acquire: Acquire, cx: &mut Cx<'_>) -> Said {
        if !fields::acquire(&acquire) {
            return Outcome::Limit(Limit::Field).into();
        }
        let (session, request) = (acquire.session, acquire.request);
        let Some(seat_at) = self.ledger.guest(session) else { return Outcome::NotAttached.into() };
        let seat = &mut self.ledger.seats[seat_at];
        let recall = seat.answers.recall(request);
        if let Recall::Answered(stored) = recall {
            return self.retell(stored, &acquire.key);
        }
        let at = self.locks.find(&acquire.key);
        let held = at.and_then(|at| Some((at, seat.held.get(at)?)));
        let waits = at.and_then(|at| Some((at, seat.waits.get(at)?)));

        // Before its age: many later answers can raise the floor above a request that still waits.
        if let Some(position) = waits.and_then(|(at, place)| self.position(at, place, request)) {
            return Outcome::Queued { position }.into();
        }
        if let Some((at, token)) = held {
            return self.already_held(at, token, seat_at, recall, &acquire);
        }
        if recall == Recall::TooOld {
            return Outcome::TooOld.into();
        }
        match waits {
            Some((at, place)) => self.replace_waiter(at, place, acquire, seat_at, cx),
            None => self.acquire_new(at, acquire, seat_at, cx),
        }
    }

    /// Where a request waits, if this is the request that waits there.
    fn position(&self, at: LockAt, place: Place, request: RequestId) -> Option<u32> {
        let (position, waiter) =
            self.locks.entry(at).1.queue.find(place).expect("invariant 6: an indexed waiter waits");
        waiter.ask.request.is_same(&request).then_some(position)
    }

    /// There is no re-entrance: the session is told which grant it has.
    fn already_held(&mut self, at: LockAt, token: Token, seat: SeatAt, recall: Recall, acquire: &Acquire) -> Said {
        let held = self.locks.entry(at).1.holder(token).expect("invariant 6: an indexed grant is held");
        // Its own answer was forgotten, however many came since; the grant was not.
        if held.ask.request.is_same(&acquire.request) {
            return Said::Grant(Stored::Granted(token), at, token);
        }
        if recall == Recall::TooOld {
            return Outcome::TooOld.into();
        }
        let stored = Stored::AlreadyHeld(token);
        self.ledger.record(seat, acquire.request, stored);
        Said::Grant(stored, at, token)
    }

    /// The session waits for the key by another request: a client that has lost track of its first. The
    /// first is settled as cancelled. The new one takes over its place where it asks for the same mode at
    /// the same priority and wants to wait; otherwise it comes anew.
    fn replace_waiter(&mut self, at: LockAt, place: Place, acquire: Acquire, seat: SeatAt, cx: &mut Cx<'_>) -> Said {
        let key = acquire.key.clone();
        let session = acquire.session;
        let now = self.now();
        let lock = self.locks.entry_mut(at).1;
        let (position, waiter) = lock.queue.find_mut(place).expect("invariant 6: an indexed waiter waits");
        let old = waiter.ask.request;
        let takes_over =
            acquire.wait > Millis(0) && waiter.ask.mode == acquire.mode && place.priority == acquire.priority;
        if takes_over {
            let until = now.after(acquire.wait);
            self.ledger.deadlines.remove_wait(waiter.until, place, &key);
            self.ledger.deadlines.add_wait(until, place, &key);
            waiter.until = until;
            // Its client reckons its lease from when *this* request was sent, plus what it waited.
            waiter.since = if planted!("place-keeps-its-age") { waiter.since } else { now };
            let before = std::mem::replace(&mut waiter.ask, Ask::new(acquire, seat));
            if before.value() != waiter.ask.value() {
                self.ledger.enrolled(&key, &waiter.ask, place.priority, cx);
            }
            self.cancelled(seat, session, old, &key, cx);
            return Outcome::Queued { position }.into();
        }
        self.with_lock(at, |ledger, spot| {
            ledger.leave(spot, place);
            ledger.advance(spot, cx);
        });
        self.cancelled(seat, session, old, &key, cx);
        // The lock may have gone with its last waiter, and its place too.
        let at = self.locks.find(&key);
        self.acquire_new(at, acquire, seat, cx)
    }

    fn cancelled(&mut self, seat: SeatAt, session: SessionId, request: RequestId, key: &Key, cx: &mut Cx<'_>) {
        self.ledger.record(seat, request, Stored::Cancelled);
        cx.settle(session, request, key, || Outcome::Cancelled);
    }

    /// A request that neither holds nor waits.
    fn acquire_new(&mut self, at: Option<LockAt>, acquire: Acquire, seat: SeatAt, cx: &mut Cx<'_>) -> Said {
        let at = at.unwrap_or_else(|| self.locks.enter(acquire.key.clone(), Lock::default()));
        self.with_lock(at, |ledger, spot| {
            // A lock-delay that has run out ends here too; those who waited for it come first.
            ledger.advance(spot, cx);
            let request = acquire.request;
            if let Some(mode) = spot.lock.mismatch(acquire.mode) {
                ledger.record(seat, request, Stored::Mismatch(mode));
                return Outcome::Mismatch { mode }.into();
            }
            let fresh = |held: &Held| held.from == ledger.counters.now && held.from_wall == cx.wall;
            let admitted = spot.lock.admits(acquire.mode, acquire.priority)
                || planted!("two-grants-in-one-batch") && spot.lock.holders().all(fresh);
            let wants_room = admitted || acquire.wait > Millis(0);
            if wants_room && ledger.seats[seat].is_at_limit() {
                return Outcome::Limit(Limit::GrantsPerSession).into();
            }
            if admitted && ledger.can_grant() {
                let token = ledger.grant(spot, Ask::new(acquire, seat), None, cx);
                return Said::Grant(Stored::Granted(token), at, token);
            }
            if admitted {
                return Outcome::Limit(Limit::Tokens).into();
            }
            if acquire.wait > Millis(0) {
                if spot.lock.queue.len() >= limits::WAITERS {
                    return Outcome::Limit(Limit::Waiters).into();
                }
                let (priority, wait) = (acquire.priority, acquire.wait);
                let position = ledger.enqueue(spot, Ask::new(acquire, seat), priority, wait, cx);
                return Outcome::Queued { position }.into();
            }
            if acquire.mode == Mode::Shared && spot.lock.is_full() && spot.lock.queue.is_empty() {
                return Outcome::Limit(Limit::Holders).into();
            }
            ledger.record(seat, request, Stored::Held);
            Said::Blocked { waited: false, at: Some(at) }
        })
    }
}
