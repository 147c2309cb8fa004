//! The passing of time. Nothing ends by itself: a leader proposes a tick, and what is due *when it is
//! applied* ends, by the clock of the log (invariant 3).

use crate::{command::*, deadlines::Due, effects::Cx, ledger::settle, limits, machine::Machine, seat::Stored};

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
                let key = self.ledger.grants.get(&token).cloned().expect("invariant 6: an indexed lease is a grant's");
                self.with_lock(&key, |ledger, lock| {
                    ledger.end(&key, lock, token, EndReason::LeaseExpired, cx);
                    ledger.advance(&key, lock, cx);
                });
            }
            Due::Delay(key) => {
                self.with_lock(&key, |ledger, lock| ledger.advance(&key, lock, cx));
            }
            Due::Wait(key, place) => {
                self.with_lock(&key, |ledger, lock| {
                    let waiter = ledger.leave(&key, lock, place);
                    let (session, request) = (waiter.ask.session, waiter.ask.request);
                    ledger.record(session, request, Stored::WaitTimeout);
                    let blocked = ledger.blocked(lock);
                    settle(session, request, &key, Outcome::WaitTimeout(blocked), cx);
                    ledger.advance(&key, lock, cx);
                });
            }
            Due::Answer(session, key) => self.ledger.forget_answer(session, key),
        }
    }
}
