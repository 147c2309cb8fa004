//! The passing of time. Nothing ends by itself: a leader proposes a tick, and what is due *when it is
//! applied* ends, by the clock of the log (invariant 3).

use crate::{
    command::*, deadlines::Due, effects::Cx, ids::*, limits, locks::LockAt, machine::Machine, planted, seat::Stored,
};

impl Machine {
    /// Ends what is due, in the order of time, a page at the most.
    pub(crate) fn tick(&mut self, cx: &mut Cx<'_>) -> Outcome {
        let now = self.now();
        for _ in 0..limits::PAGE {
            let Some((at, due)) = self.ledger.deadlines.first().filter(|(at, _)| *at <= now) else { break };
            assert!(at <= now, "invariant 3: something due at {at} was ended at {now}");
            self.end_due(due, cx);
        }
        Outcome::Done
    }

    fn end_due(&mut self, due: Due, cx: &mut Cx<'_>) {
        match due {
            Due::Lease(token) => {
                let at = *self.ledger.grants.get(&token).expect("invariant 6: an indexed lease is a grant's");
                self.with_lock(at, |ledger, spot| {
                    ledger.end(spot, token, EndReason::LeaseExpired, cx);
                    ledger.advance(spot, cx);
                });
            }
            Due::Delay(key) => {
                let at = self.due_lock(&key);
                self.with_lock(at, |ledger, spot| ledger.advance(spot, cx));
            }
            Due::Wait(key, place) => {
                let at = self.due_lock(&key);
                self.with_lock(at, |ledger, spot| {
                    let waiter = ledger.leave(spot, place);
                    let (session, request) = (waiter.ask.session, waiter.ask.request);
                    if cx.effects.is_some() || !planted!("followers-keep-no-answer") {
                        ledger.record(waiter.ask.seat, request, Stored::WaitTimeout);
                    }
                    if planted!("timed-out-waiter-stays") {
                        ledger.enqueue(spot, waiter.ask.clone(), place.priority, limits::LEASE_MAX, cx);
                    }
                    cx.settle(session, request, spot.key, || Outcome::WaitTimeout(ledger.blocked(spot.lock)));
                    ledger.advance(spot, cx);
                });
            }
            Due::Answer(session, key) => self.ledger.forget_answer(session, key),
        }
    }

    fn due_lock(&self, key: &Key) -> LockAt {
        self.locks.find(key).expect("invariant 6: an indexed end is a lock's")
    }
}
