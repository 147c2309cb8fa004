//! All of a shard but the locks themselves: the counters, the seats of the attached sessions, and the
//! indexes that keep every command at O(log n).
//!
//! A command takes one lock out of the table and hands it to the ledger's verbs together with its key:
//! [`Ledger::grant`], [`Ledger::end`], [`Ledger::enqueue`], [`Ledger::leave`], [`Ledger::advance`].
//! Nothing else adds or removes holders and waiters, so the indexes cannot be forgotten.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    command::*,
    deadlines::Deadlines,
    effects::Cx,
    ids::*,
    limits,
    lock::{Ask, Closed, Held, Lock},
    query::Counts,
    queue::{Place, Waiter},
    seat::{Keyed, Seat, Stored},
};

/// The numbers of a shard.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counters {
    pub(crate) now: Stamp,
    pub(crate) range: Option<(u64, u64)>,
    pub(crate) epoch: RangeEpoch,
    pub(crate) incarnation: Incarnation,
    pub(crate) revision: Revision,
    /// The highest revision that an object had when it vanished.
    pub(crate) vanished: Revision,
    /// The last token granted.
    pub(crate) token: Token,
    /// The last nonce drawn.
    pub(crate) nonce: Nonce,
    /// The last waiter's number.
    pub(crate) arrival: u64,
    pub(crate) grants_total: u64,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ledger {
    pub(crate) counters: Counters,
    pub(crate) pending: BTreeMap<SessionId, Nonce>,
    pub(crate) seats: BTreeMap<SessionId, Box<Seat>>,
    /// Index: which key each grant is of.
    pub(crate) grants: BTreeMap<Token, Key>,
    pub(crate) deadlines: Deadlines,
    pub(crate) counts: Counts,
}

impl Ledger {
    /// The seat of a session that may ask for things here.
    pub(crate) fn guest(&mut self, session: SessionId) -> Option<&mut Seat> {
        self.seats.get_mut(&session).map(Box::as_mut).filter(|seat| !seat.dropping)
    }

    fn seat(&self, session: SessionId) -> &Seat {
        self.seats.get(&session).expect("invariant 5: whoever holds or waits is attached")
    }

    fn seat_mut(&mut self, session: SessionId) -> &mut Seat {
        self.seats.get_mut(&session).expect("invariant 5: whoever holds or waits is attached")
    }

    /// A grant as it is answered.
    pub(crate) fn show(&self, held: &Held) -> Grant {
        held.grant(&self.seat(held.ask.session).holder)
    }

    /// Who holds a waiter's session.
    pub(crate) fn holder(&self, session: SessionId) -> &Holder {
        &self.seat(session).holder
    }

    /// Who is in the way at a lock.
    pub(crate) fn blocked(&self, lock: &Lock) -> Blocked {
        Blocked {
            holders: lock.holders().take(limits::SHOWN).map(|held| self.show(held)).collect(),
            holder_count: lock.holder_count() as u32,
            waiters: lock.queue.len() as u32,
            lock_delay_until: lock.closed.map(|closed| closed.until_wall),
        }
    }

    /// Whether tokens are left.
    pub(crate) fn can_grant(&self) -> bool {
        self.counters.token.0 + 1 < limits::TOKEN_END
    }

    fn touch(&mut self, key: &Key, lock: &mut Lock, cx: &mut Cx<'_>) {
        self.counters.revision.0 += 1;
        lock.revision = self.counters.revision;
        cx.changed(key, lock.revision);
    }

    /// Grants a lock that fits. `waited` is how long the request queued, if it did.
    pub(crate) fn grant(
        &mut self,
        key: &Key,
        lock: &mut Lock,
        ask: Ask,
        waited: Option<Millis>,
        cx: &mut Cx<'_>,
    ) -> Grant {
        assert!(self.can_grant(), "invariant 2: the tokens below 2⁵³ are used up");
        assert!(lock.closed.is_none(), "a lock was granted during its lock-delay");
        self.counters.token.0 += 1;
        self.counters.grants_total += 1;
        let token = self.counters.token;
        self.touch(key, lock, cx);
        let held = Held {
            tag: KeyTag::of(key),
            token,
            ask,
            waited: waited.unwrap_or_default(),
            unfetched: waited.is_some(),
            acquired: cx.wall,
            from: self.counters.now,
            from_wall: cx.wall,
            revision: lock.revision,
        };
        self.index_grant(key, &held);
        let grant = self.show(&held);
        self.record(held.ask.session, held.ask.request, Stored::Granted(token));
        lock.add(held);
        grant
    }

    /// Enters a grant into the indexes; also when a snapshot is restored.
    pub(crate) fn index_grant(&mut self, key: &Key, held: &Held) {
        if let Some(deadline) = held.deadline() {
            self.deadlines.add_lease(deadline, held.token);
        }
        let other = self.grants.insert(held.token, key.clone());
        assert!(other.is_none(), "invariant 2: token {} was granted twice", held.token);
        let other = self.seat_mut(held.ask.session).held.insert(key.clone(), held.token);
        assert!(other.is_none(), "invariant 6: a session holds {} twice", key.name);
        *self.counts.of_mode(held.ask.mode) += 1;
    }

    /// Takes a grant from its holder. Only a loss starts a lock-delay.
    pub(crate) fn end(&mut self, key: &Key, lock: &mut Lock, token: Token, reason: EndReason, cx: &mut Cx<'_>) {
        let held = lock.remove(token).expect("invariant 6: an indexed grant is held");
        let now = self.counters.now;
        if let Some(deadline) = held.deadline() {
            self.deadlines.remove_lease(deadline, token);
        }
        self.grants.remove(&token);
        *self.counts.of_mode(held.ask.mode) -= 1;
        let seat = self.seat_mut(held.ask.session);
        seat.held.remove(key);
        if reason == EndReason::Released {
            seat.remember_release(token);
        } else {
            cx.effects.lost.push(reason);
        }
        let lost = matches!(reason, EndReason::LeaseExpired | EndReason::SessionExpired);
        if lost && held.ask.lock_delay > Millis(0) {
            let until = now.after(held.ask.lock_delay);
            if lock.closed.is_none_or(|closed| closed.until < until) {
                self.open(key, lock);
                lock.closed = Some(Closed { until, until_wall: cx.wall.after(held.ask.lock_delay) });
                self.deadlines.add_delay(until, key);
            }
        }
        self.touch(key, lock, cx);
    }

    /// Ends the lock-delay, if one runs.
    pub(crate) fn open(&mut self, key: &Key, lock: &mut Lock) {
        if let Some(closed) = lock.closed.take() {
            self.deadlines.remove_delay(closed.until, key);
        }
    }

    /// Lines a request up and answers its position.
    pub(crate) fn enqueue(
        &mut self,
        key: &Key,
        lock: &mut Lock,
        ask: Ask,
        priority: i32,
        wait: Millis,
        cx: &mut Cx<'_>,
    ) -> u32 {
        self.counters.arrival += 1;
        let now = self.counters.now;
        let waiter = Waiter {
            place: Place { priority, arrival: self.counters.arrival },
            ask,
            since: now,
            since_wall: cx.wall,
            until: now.after(wait),
        };
        self.index_wait(key, &waiter);
        lock.queue.push(waiter)
    }

    /// Enters a waiter into the indexes; also when a snapshot is restored.
    pub(crate) fn index_wait(&mut self, key: &Key, waiter: &Waiter) {
        self.deadlines.add_wait(waiter.until, waiter.place, key);
        let other = self.seat_mut(waiter.ask.session).waits.insert(key.clone(), waiter.place);
        assert!(other.is_none(), "invariant 6: a session waits for {} twice", key.name);
        self.counts.waiters += 1;
    }

    /// Takes a waiter out of the queue.
    pub(crate) fn leave(&mut self, key: &Key, lock: &mut Lock, place: Place) -> Box<Waiter> {
        let waiter = lock.queue.remove(place).expect("invariant 6: an indexed waiter waits");
        self.deadlines.remove_wait(waiter.until, place, key);
        self.seat_mut(waiter.ask.session).waits.remove(key);
        self.counts.waiters -= 1;
        waiter
    }

    /// Gives the lock to whoever is next in line, as far as it goes (invariant 4). Every verb that frees
    /// something or shortens the queue ends here, so a release and the next grant are one apply.
    pub(crate) fn advance(&mut self, key: &Key, lock: &mut Lock, cx: &mut Cx<'_>) {
        if lock.closed.is_some_and(|closed| closed.until <= self.counters.now) {
            self.open(key, lock);
        }
        while let Some(first) = lock.queue.front() {
            let (session, request, place) = (first.ask.session, first.ask.request, first.place);
            // Between two pages of its end, a session is not given what it would lose at once.
            if self.seat(session).dropping {
                self.leave(key, lock, place);
                settle(session, request, key, Outcome::Ended, cx);
                continue;
            }
            if lock.closed.is_some() || !lock.fits(first.ask.mode) || !self.can_grant() {
                return;
            }
            let waiter = self.leave(key, lock, place);
            let waited = self.counters.now.since(waiter.since);
            let grant = self.grant(key, lock, waiter.ask, Some(waited), cx);
            settle(session, request, key, Outcome::Granted(grant), cx);
        }
    }

    /// Keeps a final answer for retries (invariant 9).
    pub(crate) fn record(&mut self, session: SessionId, request: RequestId, stored: Stored) {
        let until = self.counters.now.after(limits::KEY_LIFE);
        let Some(seat) = self.seats.get_mut(&session) else { return };
        match request {
            RequestId::Native { seq, .. } => seat.answers.keep_native(seq, stored),
            RequestId::Keyed { key } => {
                if seat.answers.change_keyed(key, stored) {
                    return;
                }
                let out = seat.answers.keep_keyed(Keyed { key, until, stored });
                self.deadlines.add_answer(until, session, key);
                if let Some(out) = out {
                    self.deadlines.remove_answer(out.until, session, out.key);
                }
                if self.deadlines.answer_count() > limits::KEYS_PER_SHARD
                    && let Some((session, key)) = self.deadlines.oldest_answer()
                {
                    self.forget_answer(session, key);
                }
            }
        }
    }

    /// Forgets a keyed answer.
    pub(crate) fn forget_answer(&mut self, session: SessionId, key: u128) {
        let seat = self.seats.get_mut(&session).expect("invariant 6: an indexed answer has a seat");
        let answer = seat.answers.forget_keyed(key).expect("invariant 6: an indexed answer is kept");
        self.deadlines.remove_answer(answer.until, session, key);
    }

    /// Takes note of an object that nobody holds, waits for or must wait out.
    pub(crate) fn vanish(&mut self, lock: &Lock) {
        assert!(lock.is_idle(), "invariant 8: only what is idle vanishes");
        self.counters.vanished = self.counters.vanished.max(lock.revision);
    }
}

/// Answers a request that had queued.
pub(crate) fn settle(session: SessionId, request: RequestId, key: &Key, outcome: Outcome, cx: &mut Cx<'_>) {
    cx.effects.settled.push(Settled { session, request, key: key.clone(), outcome });
}
