//! What is done to instances: registered, taken off, reported on, and lost with their session.

use crate::{
    command::*,
    effects::Cx,
    fields,
    ids::*,
    instance::*,
    limits,
    machine::Machine,
    planted,
    query::{Event, What},
    seat::SeatAt,
    services::{Instance, Kept},
};

impl Machine {
    fn answered(&mut self, request: u128) -> Option<Outcome> {
        let kept = self.services.requests.recall(request, self.ledger.counters.now);
        kept.filter(|_| !planted!("late-registration-runs-again")).map(Outcome::from)
    }

    fn keep(&mut self, request: u128, kept: Kept) -> Outcome {
        self.services.requests.keep(request, self.ledger.counters.now, kept);
        kept.into()
    }

    /// Something happened to an instance.
    fn tell(&mut self, key: &Key, what: What, cx: &Cx<'_>) -> Revision {
        let ledger = &mut self.ledger;
        ledger.counters.revision.0 += 1;
        let revision = ledger.counters.revision;
        ledger.events.push(Event { revision, at: cx.wall, key: key.clone(), what });
        revision
    }

    /// Registers an instance, or replaces what is registered under its id. That the session is not attached is not
    /// kept: a repeat tries anew, and one of a session that has ended is told so.
    pub(crate) fn register(&mut self, ask: Register, cx: &Cx<'_>) -> Outcome {
        if !fields::register(&ask) {
            return Outcome::Limit(Limit::Field);
        }
        let Some(seat) = self.ledger.guest(ask.session) else { return Outcome::NotAttached };
        if let Some(outcome) = self.answered(ask.request) {
            return outcome;
        }
        let request = ask.request;
        let kept = self.enter(ask, seat, cx);
        self.keep(request, kept)
    }

    fn enter(&mut self, ask: Register, seat: SeatAt, cx: &Cx<'_>) -> Kept {
        let Register { key, instance: id, session, private, spec, health, .. } = ask;
        let present = self.services.get(&key.name, &id);
        let own = present.filter(|present| present.session == session);
        if let Some(own) = own.filter(|own| own.spec == spec && own.private == private) {
            // What it says of itself is known; how it fares may be new.
            let registered = own.registered;
            let revision = self.report(&key, &id, health, cx);
            return Kept::Registered(Registered { revision, registered, replaced: None });
        }
        if own.is_none() && self.ledger.seats[seat].is_at_limit() {
            return Kept::Limit(Limit::GrantsPerSession);
        }
        let before = present.map_or(0, |present| present.spec.bytes(&key.name, &id));
        if self.services.bytes - before + spec.bytes(&key.name, &id) > limits::INSTANCE_BYTES {
            return Kept::Limit(Limit::InstanceBytes);
        }
        if present.is_none() && self.services.tally.total() >= limits::INSTANCES as u64 {
            return Kept::Limit(Limit::Instances);
        }
        let revision = Revision(self.ledger.counters.revision.0 + 1);
        let registered = cx.wall;
        let instance = Instance { spec, session, private, health, registered, revision };
        self.tell(&key, instance.told(&id), cx);
        let replaced = self.services.put(&key.name, &id, instance);
        if let Some(replaced) = &replaced
            && !planted!("replaced-instance-stays-indexed")
        {
            let before = self.ledger.seats.find(&replaced.session);
            let before = before.expect("invariant 12: who has registered an instance is attached");
            self.ledger.seats[before].remove_instance(&key.name, &id);
        }
        self.ledger.seats[seat].add_instance(&key.name, &id);
        let replaced = replaced.and_then(|replaced| replaced.own_session()).filter(|other| *other != session);
        Kept::Registered(Registered { revision, registered, replaced })
    }

    /// Takes an instance off; where a session is named, only if it is that session's.
    pub(crate) fn deregister(
        &mut self,
        request: u128,
        key: &Key,
        id: &Name,
        session: Option<SessionId>,
        cx: &Cx<'_>,
    ) -> Outcome {
        if !fields::id(key, id) {
            return Outcome::Limit(Limit::Field);
        }
        if let Some(outcome) = self.answered(request) {
            return outcome;
        }
        let kept = match self.services.get(&key.name, id) {
            None => Kept::NoInstance,
            Some(present) if session.is_some_and(|session| session != present.session) => Kept::Foreign,
            Some(present) => {
                let (session, private) = (present.session, present.own_session());
                let seat = self.ledger.seats.find(&session);
                let seat = seat.expect("invariant 12: who has registered an instance is attached");
                self.ledger.seats[seat].remove_instance(&key.name, id);
                let revision = self.take_off(key, id, session, EndReason::Released, cx);
                Kept::Deregistered(Deregistered { revision, private })
            }
        };
        self.keep(request, kept)
    }

    /// Takes an instance of a session off, which is no longer in the session's index.
    pub(crate) fn take_off(
        &mut self,
        key: &Key,
        id: &Name,
        session: SessionId,
        reason: EndReason,
        cx: &Cx<'_>,
    ) -> Revision {
        let instance = self.services.remove(&key.name, id).expect("invariant 6: an indexed instance is registered");
        assert!(instance.session == session, "invariant 6: {id} of {} is indexed as another session's", key.name);
        self.tell(key, What::Deregistered { instance: id.clone(), reason }, cx)
    }

    /// Takes note of how an instance fares, as its session says.
    pub(crate) fn report_health(
        &mut self,
        request: u128,
        key: &Key,
        id: &Name,
        session: SessionId,
        health: Health,
        cx: &Cx<'_>,
    ) -> Outcome {
        if !fields::id(key, id) {
            return Outcome::Limit(Limit::Field);
        }
        if let Some(outcome) = self.answered(request) {
            return outcome;
        }
        let kept = match self.services.get(&key.name, id) {
            None => Kept::NoInstance,
            Some(present) if present.session != session && !planted!("strangers-report-health") => Kept::Foreign,
            Some(_) => Kept::Reported { revision: self.report(key, id, health, cx) },
        };
        self.keep(request, kept)
    }

    /// The revision at which an instance became what it is, after this report.
    fn report(&mut self, key: &Key, id: &Name, health: Health, cx: &Cx<'_>) -> Revision {
        let present = self.services.get(&key.name, id).expect("it was just found");
        if present.health == health && !planted!("equal-health-is-an-event") {
            return present.revision;
        }
        let revision = self.tell(key, What::Health { instance: id.clone(), health }, cx);
        self.services.fare(&key.name, id, health, revision);
        revision
    }
}
