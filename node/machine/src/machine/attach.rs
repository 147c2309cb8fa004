//! How a session comes into a shard that it uses, and how it is put out.

use crate::{command::*, effects::Cx, fields, ids::*, ledger::settle, limits, machine::Machine, seat::Seat};

impl Machine {
    /// Remembers that the session's home is being asked.
    pub(crate) fn pend(&mut self, session: SessionId) -> Outcome {
        let ledger = &mut self.ledger;
        if let Some(seat) = ledger.seats.get(&session) {
            return if seat.dropping { Outcome::Ended } else { Outcome::Done };
        }
        if let Some(nonce) = ledger.pending.get(&session) {
            return Outcome::Pending { nonce: *nonce };
        }
        if ledger.seats.len() + ledger.pending.len() >= limits::ATTACHMENTS {
            return Outcome::Limit(Limit::Sessions);
        }
        ledger.counters.nonce.0 += 1;
        let nonce = ledger.counters.nonce;
        ledger.pending.insert(session, nonce);
        Outcome::Pending { nonce }
    }

    /// The home said yes to an attempt. A yes that comes after the session was dropped finds no attempt
    /// and changes nothing, so it cannot leave an orphan.
    pub(crate) fn confirm(&mut self, session: SessionId, nonce: Nonce, holder: Holder) -> Outcome {
        if !fields::holder(&holder) {
            return Outcome::Limit(Limit::Field);
        }
        let ledger = &mut self.ledger;
        if let Some(seat) = ledger.guest(session) {
            return if seat.nonce == nonce { Outcome::Done } else { Outcome::NotAttached };
        }
        if ledger.pending.get(&session) != Some(&nonce) {
            return Outcome::NotAttached;
        }
        ledger.pending.remove(&session);
        let other = ledger.seats.insert(session, Box::new(Seat::new(nonce, holder)));
        assert!(other.is_none(), "session {session} was pending and attached at once");
        Outcome::Done
    }

    /// The home said no to an attempt.
    pub(crate) fn unpend(&mut self, session: SessionId, nonce: Nonce) -> Outcome {
        if self.ledger.pending.get(&session) == Some(&nonce) {
            self.ledger.pending.remove(&session);
        }
        Outcome::Done
    }

    /// Drops all that the session has here, a page at a time: first its places in queues, then its grants,
    /// last its seat. From the first page on it gets nothing new by its own requests.
    pub(crate) fn drop_session(&mut self, session: SessionId, reason: EndReason, cx: &mut Cx<'_>) -> Outcome {
        self.ledger.pending.remove(&session);
        for _ in 0..limits::PAGE {
            let Some(seat) = self.ledger.seats.get_mut(&session) else { return Outcome::Dropped { more: false } };
            seat.dropping = true;
            if let Some((key, place)) = seat.waits.first_key_value().map(|(key, place)| (key.clone(), *place)) {
                self.with_lock(&key, |ledger, lock| {
                    let waiter = ledger.leave(&key, lock, place);
                    settle(session, waiter.ask.request, &key, Outcome::Ended, cx);
                    ledger.advance(&key, lock, cx);
                });
            } else if let Some((key, token)) = seat.held.first_key_value().map(|(key, token)| (key.clone(), *token)) {
                self.with_lock(&key, |ledger, lock| {
                    ledger.end(&key, lock, token, reason, cx);
                    ledger.advance(&key, lock, cx);
                });
            } else {
                let seat = self.ledger.seats.remove(&session).expect("it was just looked at");
                for answer in seat.answers.keyed() {
                    self.ledger.deadlines.remove_answer(answer.until, session, answer.key);
                }
                return Outcome::Dropped { more: false };
            }
        }
        Outcome::Dropped { more: self.ledger.seats.contains_key(&session) }
    }
}
