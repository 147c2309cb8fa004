//! All of a shard but the locks themselves: the counters, the seats of the attached sessions, and the
//! indexes that keep every command cheap.
//!
//! A command looks its seat and its lock up once and hands the ledger's verbs their places, a [`Spot`] and a
//! [`SeatAt`]:
//! [`Ledger::grant`], [`Ledger::end`], [`Ledger::enqueue`], [`Ledger::leave`], [`Ledger::advance`].
//! Nothing else adds or removes holders and waiters, so the indexes cannot be forgotten.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    command::*,
    deadlines::Deadlines,
    effects::Cx,
    events::Events,
    ids::*,
    limits,
    lock::{Ask, Closed, Held, Lock},
    locks::LockAt,
    planted,
    query::{Counts, Event, What},
    queue::{Place, Waiter},
    seat::{Keyed, Seat, SeatAt, Stored},
    table::Table,
    waits::is_serial,
};

/// The numbers of a shard.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counters {
    pub(crate) now: Stamp,
    pub(crate) range: Option<(u64, u64)>,
    pub(crate) epoch: RangeEpoch,
    pub(crate) incarnation: Incarnation,
    pub(crate) revision: Revision,
    /// The highest revision that an object had when it vanished. Nothing is decided by it; it is part of the form.
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
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) counters: Counters,
    pub(crate) pending: BTreeMap<SessionId, Nonce>,
    pub(crate) seats: Table<SessionId, Box<Seat>>,
    /// Index: which lock each grant is of.
    pub(crate) grants: Table<Token, LockAt>,
    pub(crate) events: Events,
    pub(crate) deadlines: Deadlines,
    pub(crate) counts: Counts,
}

/// The lock that a command works on.
pub(crate) struct Spot<'a> {
    pub(crate) at: LockAt,
    pub(crate) key: &'a Key,
    pub(crate) lock: &'a mut Lock,
}

impl Ledger {
    /// The seat of a session that may ask for things here.
    pub(crate) fn guest(&self, session: SessionId) -> Option<SeatAt> {
        self.seats.find(&session).filter(|at| !self.seats[*at].dropping)
    }

    /// A grant as it is answered.
    pub(crate) fn show(&self, held: &Held) -> Grant {
        held.grant(self.holder(&held.ask))
    }

    /// Whose request it is.
    pub(crate) fn holder(&self, ask: &Ask) -> &Holder {
        &self.seats[ask.seat].holder
    }

    /// Whether it is a session's that does one thing at a time.
    pub(crate) fn is_serial(&self, ask: &Ask) -> bool {
        is_serial(&self.holder(ask).metadata)
    }

    /// Who is in the way at a lock.
    pub(crate) fn blocked(&self, lock: &Lock) -> Blocked {
        Blocked {
            holders: lock.holders().take(limits::SHOWN).map(|held| self.show(held)).collect(),
            holder_count: lock.holder_count() as u32,
            waiters: lock.queue.len() as u32,
            lock_delay_until: lock.closed.as_ref().map(|closed| closed.until_wall),
        }
    }

    /// Whether tokens are left.
    pub(crate) fn can_grant(&self) -> bool {
        self.counters.token.0 + 1 < limits::TOKEN_END
    }

    /// One more revision, and what it is (invariant 11).
    fn happened(&mut self, key: &Key, what: What, cx: &Cx<'_>) -> Revision {
        self.counters.revision.0 += 1;
        let revision = self.counters.revision;
        self.events.push(Event { revision, at: cx.wall, key: key.clone(), what });
        revision
    }

    /// Something about the lock's holders has changed.
    fn touch(&mut self, spot: &mut Spot<'_>, what: What, cx: &Cx<'_>) {
        let handoff = spot.lock.revision > Revision(0);
        let untold = match what {
            What::Granted { .. } => handoff && planted!("handoffs-are-no-events"),
            What::Proclaimed { .. } => planted!("proclamations-are-no-events"),
            _ => false,
        };
        spot.lock.revision = if untold {
            self.counters.revision.0 += 1;
            self.counters.revision
        } else {
            self.happened(spot.key, what, cx)
        };
    }

    /// Grants a lock that fits. `waited` is how long the request queued, if it did.
    pub(crate) fn grant(&mut self, spot: &mut Spot<'_>, ask: Ask, waited: Option<Millis>, cx: &mut Cx<'_>) -> Token {
        assert!(self.can_grant(), "invariant 2: the tokens below 2⁵³ are used up");
        assert!(spot.lock.closed.is_none(), "a lock was granted during its lock-delay");
        self.counters.token.0 += 1;
        self.counters.grants_total += 1;
        let token = self.counters.token;
        let tag = KeyTag::of(spot.key);
        let what = What::Granted {
            lock_id: LockId { session: ask.session, token, tag },
            mode: ask.mode,
            holder: self.holder(&ask).client_id.clone(),
            value: ask.value().cloned(),
        };
        self.touch(spot, what, cx);
        let held = Held {
            tag,
            token,
            ask,
            waited: waited.unwrap_or_default(),
            unfetched: waited.is_some(),
            acquired: cx.wall,
            // As if the lease of who waited had run since it asked.
            from: match waited.filter(|_| planted!("lease-counts-from-the-request")) {
                Some(waited) => Stamp(self.counters.now.0 - waited.0),
                None => self.counters.now,
            },
            from_wall: cx.wall,
            revision: spot.lock.revision,
        };
        self.index_grant(spot.at, spot.key, &held);
        self.record(held.ask.seat, held.ask.request, Stored::Granted(token));
        spot.lock.add(held);
        token
    }

    /// Enters a grant into the indexes; also when a snapshot is restored.
    pub(crate) fn index_grant(&mut self, at: LockAt, key: &Key, held: &Held) {
        if let Some(deadline) = held.deadline() {
            self.deadlines.add_lease(deadline, held.token);
        }
        self.grants.insert(held.token, at);
        let new = self.seats[held.ask.seat].held.add(at, held.token);
        assert!(new, "invariant 6: a session holds {} twice", key.name);
        *self.counts.of_mode(held.ask.mode) += 1;
    }

    /// Takes a grant from its holder. Only a loss starts a lock-delay.
    pub(crate) fn end(&mut self, spot: &mut Spot<'_>, token: Token, reason: EndReason, cx: &mut Cx<'_>) {
        let held = spot.lock.holders.remove(token).expect("invariant 6: an indexed grant is held");
        let now = self.counters.now;
        if let Some(deadline) = held.deadline() {
            self.deadlines.remove_lease(deadline, token);
        }
        let grant = self.grants.find(&token).expect("invariant 6: a grant that is held is indexed");
        self.grants.remove(grant);
        *self.counts.of_mode(held.ask.mode) -= 1;
        let seat = &mut self.seats[held.ask.seat];
        seat.held.remove(spot.at);
        if reason == EndReason::Released {
            seat.remember_release(token);
        } else {
            cx.note(|effects| effects.lost.push(reason));
        }
        let lost = matches!(reason, EndReason::LeaseExpired | EndReason::SessionExpired)
            && !planted!("lock-delay-ignored")
            || planted!("lock-delay-after-release");
        let delay = held.ask.lock_delay.millis();
        if lost && delay > Millis(0) {
            let until = now.after(delay);
            if spot.lock.closed.as_ref().is_none_or(|closed| closed.until < until) {
                self.open(spot);
                let until_wall = cx.wall.after(delay);
                spot.lock.closed = Some(Box::new(Closed { until, until_wall }));
                self.deadlines.add_delay(until, spot.key);
            }
        }
        self.touch(spot, What::Ended { lock_id: held.lock_id(), reason }, cx);
    }

    /// Gives an election another value, under the same grant.
    pub(crate) fn proclaim(&mut self, spot: &mut Spot<'_>, token: Token, value: String, cx: &mut Cx<'_>) {
        let held = spot.lock.holders.find_mut(token).expect("invariant 6: an indexed grant is held");
        held.ask.extra.get_or_insert_default().value = Some(value.clone());
        // Who proclaims knows the lock id: the grant was fetched.
        held.unfetched = false;
        let (lock_id, acquired) = (held.lock_id(), held.acquired);
        let holder = self.seats[held.ask.seat].holder.client_id.clone();
        self.touch(spot, What::Proclaimed { lock_id, holder, value, acquired }, cx);
    }

    /// Tells of a candidate that waits for its turn (invariant 12). Locks have no audience for that.
    pub(crate) fn enrolled(&mut self, key: &Key, ask: &Ask, priority: i32, cx: &Cx<'_>) {
        if key.kind != Kind::Election || planted!("candidates-enroll-unheard") {
            return;
        }
        let holder = self.holder(ask).client_id.clone();
        let value = ask.value().cloned().unwrap_or_default();
        self.happened(key, What::Enrolled { session: ask.session, holder, value, priority }, cx);
    }

    /// Ends the lock-delay, if one runs.
    pub(crate) fn open(&mut self, spot: &mut Spot<'_>) {
        if let Some(closed) = spot.lock.closed.take() {
            self.deadlines.remove_delay(closed.until, spot.key);
        }
    }

    /// Lines a request up and answers its position.
    pub(crate) fn enqueue(
        &mut self,
        spot: &mut Spot<'_>,
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
        self.index_wait(spot.at, spot.key, &waiter);
        self.enrolled(spot.key, &waiter.ask, priority, cx);
        spot.lock.queue.push(waiter)
    }

    /// Enters a waiter into the indexes; also when a snapshot is restored.
    pub(crate) fn index_wait(&mut self, at: LockAt, key: &Key, waiter: &Waiter) {
        self.deadlines.add_wait(waiter.until, waiter.place, key);
        let new = self.seats[waiter.ask.seat].waits.add(at, waiter.place);
        assert!(new, "invariant 6: a session waits for {} twice", key.name);
        self.counts.waiters += 1;
        self.counts.serial_waiters += u64::from(self.is_serial(&waiter.ask));
    }

    /// Takes a waiter out of the queue.
    pub(crate) fn leave(&mut self, spot: &mut Spot<'_>, place: Place) -> Box<Waiter> {
        let waiter = spot.lock.queue.remove(place).expect("invariant 6: an indexed waiter waits");
        self.deadlines.remove_wait(waiter.until, place, spot.key);
        self.seats[waiter.ask.seat].waits.remove(spot.at);
        self.counts.waiters -= 1;
        self.counts.serial_waiters -= u64::from(self.is_serial(&waiter.ask));
        waiter
    }

    /// Gives the lock to whoever is next in line, as far as it goes (invariant 4). Every verb that frees
    /// something or shortens the queue ends here, so a release and the next grant are one apply.
    pub(crate) fn advance(&mut self, spot: &mut Spot<'_>, cx: &mut Cx<'_>) {
        if spot.lock.closed.as_ref().is_some_and(|closed| closed.until <= self.counters.now) {
            self.open(spot);
        }
        while let Some(first) = spot.lock.queue.front() {
            let (session, request, place) = (first.ask.session, first.ask.request, first.place);
            // Between two pages of its end, a session is not given what it would lose at once.
            if self.seats[first.ask.seat].dropping {
                self.leave(spot, place);
                cx.settle(session, request, spot.key, || Outcome::Ended);
                continue;
            }
            if spot.lock.closed.is_some() || !spot.lock.fits(first.ask.mode) || !self.can_grant() {
                return;
            }
            let waiter = self.leave(spot, place);
            let waited = self.counters.now.since(waiter.since);
            let token = self.grant(spot, waiter.ask, Some(waited), cx);
            cx.settle(session, request, spot.key, || {
                Outcome::Granted(self.show(spot.lock.holder(token).expect("it was just granted")))
            });
        }
    }

    /// Keeps a final answer for retries (invariant 9).
    pub(crate) fn record(&mut self, at: SeatAt, request: RequestId, stored: Stored) {
        let until = self.counters.now.after(limits::KEY_LIFE);
        let (session, seat) = self.seats.entry_mut(at);
        match request {
            RequestId::Native { seq, .. } => seat.answers.keep_native(seq, stored),
            RequestId::Keyed { key } => {
                if seat.answers.change_keyed(key, stored) {
                    return;
                }
                let out = seat.answers.keep_keyed(Keyed { key, until, stored });
                self.deadlines.add_answer(until, *session, key);
                if let Some(out) = out {
                    self.deadlines.remove_answer(out.until, *session, out.key);
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
        let at = self.seats.find(&session).expect("invariant 6: an indexed answer has a seat");
        let answer = self.seats[at].answers.forget_keyed(key).expect("invariant 6: an indexed answer is kept");
        self.deadlines.remove_answer(answer.until, session, key);
    }

    /// Takes note of an object that nobody holds, waits for or must wait out.
    pub(crate) fn vanish(&mut self, lock: &Lock) {
        assert!(lock.is_idle(), "invariant 8: only what is idle vanishes");
        self.counters.vanished = self.counters.vanished.max(lock.revision);
    }
}
