//! Waits as the model sees them, and what becomes of one that is part of a deadlock.

use std::collections::BTreeSet;

use proptest::prelude::*;
use wardlock_machine::*;

use crate::{answers::Kept, locks::Waiter, model::Model};

impl Model {
    /// The waiter leaves, if it is the one that was meant, and those behind it may come to be served.
    pub(crate) fn break_deadlock(&mut self, ask: &BreakDeadlock) -> Outcome {
        let meant = |waiter: &&Waiter| {
            waiter.arrival == ask.arrival && waiter.ask.session == ask.session && waiter.ask.key == ask.key
        };
        if let Some(waiter) = self.waiting.iter().find(meant).cloned() {
            self.leave(&waiter, Outcome::Deadlock(ask.circle.clone()));
            self.keep(ask.session, waiter.ask.request, Kept::Deadlock);
            self.serve(&ask.key);
        }
        Outcome::Done
    }

    pub(crate) fn is_serial(&self, session: SessionId) -> bool {
        self.guest(session).is_some_and(|guest| guest.holder.metadata.get(SERIAL).is_some_and(|says| says == "true"))
    }

    fn blockers(&self, waiter: &Waiter, before: Option<u64>) -> Blockers {
        if let Some(before) = before {
            return Blockers::Waiter(before);
        }
        let (key, mode) = (&waiter.ask.key, waiter.ask.mode);
        let grants = self.holders(key).map(|held| (held.session(), held.token()));
        match mode {
            _ if self.delay(key).is_some() => Blockers::Nobody,
            Mode::Semaphore { .. } => Blockers::Any(grants.collect()),
            _ if self.goes_with_the_holders(key, mode) => Blockers::Nobody,
            _ => Blockers::All(grants.collect()),
        }
    }

    pub(crate) fn compare_waits(&self, machine: &Machine) -> Result<(), TestCaseError> {
        let serial = self.waiting.iter().filter(|waiter| self.is_serial(waiter.ask.session));
        let names: BTreeSet<&Key> = serial.map(|waiter| &waiter.ask.key).collect();
        let mut waits = Vec::new();
        for key in &names {
            let mut before = None;
            for waiter in self.queue(key) {
                let holder = &self.guest(waiter.ask.session).expect("only who is attached waits").holder;
                waits.push(Wait {
                    key: waiter.ask.key.clone(),
                    session: waiter.ask.session,
                    holder: holder.client_id.clone(),
                    serial: self.is_serial(waiter.ask.session),
                    arrival: waiter.arrival,
                    priority: waiter.ask.priority,
                    since: waiter.since_wall,
                    blockers: self.blockers(waiter, before),
                });
                before = Some(waiter.arrival);
            }
        }
        let after = names.first().map(|key| (*key).clone());
        let behind: Vec<Wait> = waits.iter().filter(|wait| Some(&wait.key) > after.as_ref()).cloned().collect();
        prop_assert_eq!(machine.query(&Query::Waits { after: None }), Answer::Waits { waits, more: false });
        prop_assert_eq!(machine.query(&Query::Waits { after }), Answer::Waits { waits: behind, more: false });
        Ok(())
    }
}
