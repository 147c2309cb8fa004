//! How a session comes into a shard that it uses, and how it is put out.

use crate::{
    command::*, effects::Cx, fields, ids::*, limits, locks::LockAt, machine::Machine, planted, queue::Place, seat::Seat,
};

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
            return if ledger.seats[seat].nonce == nonce { Outcome::Done } else { Outcome::NotAttached };
        }
        if ledger.pending.get(&session) != Some(&nonce) {
            return Outcome::NotAttached;
        }
        ledger.pending.remove(&session);
        // It asserts that the session is not there: pending and attached at once.
        ledger.seats.insert(session, Box::new(Seat::new(nonce, holder)));
        Outcome::Done
    }

    /// The home said no to an attempt.
    pub(crate) fn unpend(&mut self, session: SessionId, nonce: Nonce) -> Outcome {
        if self.ledger.pending.get(&session) == Some(&nonce) {
            self.ledger.pending.remove(&session);
        }
        Outcome::Done
    }

    /// Drops all that the session has here, a page at a time: first its places in queues, then its grants, then its
    /// instances, last its seat. From the first page on it gets nothing new by its own requests.
    pub(crate) fn drop_session(&mut self, session: SessionId, reason: EndReason, cx: &mut Cx<'_>) -> Outcome {
        if !planted!("drop-leaves-the-attempt") {
            self.ledger.pending.remove(&session);
        }
        let Some(seat_at) = self.ledger.seats.find(&session) else { return Outcome::Dropped { more: false } };
        let seat = &mut self.ledger.seats[seat_at];
        seat.dropping = true;
        let seat = &self.ledger.seats[seat_at];
        let mut waits: Vec<(LockAt, Place)> = seat.waits.iter().collect();
        let mut held: Vec<(LockAt, Token)> = seat.held.iter().collect();
        waits.sort_unstable_by_key(|(at, _)| self.locks.entry(*at).0);
        held.sort_unstable_by_key(|(at, _)| self.locks.entry(*at).0);
        let instances: Vec<(Name, Name)> = match planted!("instance-outlives-its-session") {
            false => seat.instances.iter().take(limits::PAGE).cloned().collect(),
            true => Vec::new(),
        };
        let mut left = limits::PAGE;
        let all = waits.len() + held.len() + instances.len();
        for (at, place) in waits.iter().take(left) {
            left -= 1;
            self.with_lock(*at, |ledger, spot| {
                let waiter = ledger.leave(spot, *place);
                cx.settle(session, waiter.ask.request, spot.key, || Outcome::Ended);
                ledger.advance(spot, cx);
            });
        }
        for (at, token) in held.iter().take(left) {
            left -= 1;
            self.with_lock(*at, |ledger, spot| {
                ledger.end(spot, *token, reason, cx);
                ledger.advance(spot, cx);
            });
        }
        for (service, id) in instances.iter().take(left) {
            self.ledger.seats[seat_at].remove_instance(service, id);
            self.take_off(&Key::service(service.clone()), id, session, reason, cx);
        }
        if all >= limits::PAGE {
            return Outcome::Dropped { more: true };
        }
        if planted!("drop-leaves-the-seat") {
            self.ledger.seats[seat_at].dropping = false;
            return Outcome::Dropped { more: false };
        }
        let (_, seat) = self.ledger.seats.remove(seat_at);
        let gone = seat.instances.is_empty() || planted!("instance-outlives-its-session");
        assert!(gone, "invariant 12: session {session} left an instance behind");
        for answer in seat.answers.keyed() {
            self.ledger.deadlines.remove_answer(answer.until, session, answer.key);
        }
        Outcome::Dropped { more: false }
    }
}
