//! A service's list is linearizable and exactly what the watches tell of it, and its instances live as long as their
//! sessions: a list is not older than what was acknowledged before it was asked for; at its revision just those are in
//! it that were registered and not gone by then; and no instance is lost with a session that its client rightly
//! believes in.

use std::collections::{BTreeMap, btree_map::Entry};

use wardlock_machine::{EndReason, SessionId};

use super::{At, Check, End, Verdict};
use crate::event::{self, Believes, Event, Op};

/// A service and an id.
type Id = (String, String);

/// What is known of all services.
#[derive(Default)]
pub(super) struct Registry {
    /// By service, the highest revision that anybody was told.
    known: BTreeMap<String, u64>,
    /// The lists under way, with what was known when each began.
    reads: BTreeMap<Op, u64>,
    /// What happened to each id, by revision: whether it is registered from then on.
    told: BTreeMap<Id, BTreeMap<u64, bool>>,
    /// What each list had, by its revision.
    lists: Vec<(String, u64, BTreeMap<String, u64>)>,
    /// Registrations that were acknowledged, and whether their clients believe in them.
    believed: BTreeMap<(Id, SessionId), Believes>,
    /// By id, whose it is as the watches tell.
    owners: BTreeMap<Id, SessionId>,
    compared: u64,
}

impl Registry {
    fn learn(&mut self, service: &str, revision: u64) {
        let known = self.known.entry(service.to_owned()).or_default();
        *known = (*known).max(revision);
    }

    /// Whether it is the first that is told of this revision, and whether all that are told of it agree.
    fn note(&mut self, id: &Id, revision: u64, is_there: bool) -> Result<bool, String> {
        match self.told.entry(id.clone()).or_default().entry(revision) {
            Entry::Occupied(before) if *before.get() != is_there => {
                Err(format!("at revision {revision} {id:?} is registered to one watcher and gone to the other"))
            }
            Entry::Occupied(_) => Ok(false),
            Entry::Vacant(new) => {
                new.insert(is_there);
                Ok(true)
            }
        }
    }

    fn told(&mut self, service: &str, revision: u64, told: &event::Told) -> Verdict {
        let id = |instance: &String| (service.to_owned(), instance.clone());
        match told {
            event::Told::Registered { instance, session } => {
                let id = id(instance);
                if self.note(&id, revision, true)? {
                    self.owners.insert(id, *session);
                }
            }
            event::Told::Health { instance, .. } => {
                self.note(&id(instance), revision, true)?;
            }
            event::Told::Deregistered { instance, reason } => {
                let id = id(instance);
                if !self.note(&id, revision, false)? {
                    return Ok(());
                }
                let Some(session) = self.owners.remove(&id) else { return Ok(()) };
                let lost = matches!(reason, EndReason::SessionExpired | EndReason::SessionClosed);
                let believed = self.believed.remove(&(id.clone(), session));
                if lost && believed.is_some_and(|believes| believes.now()) {
                    return Err(format!("{id:?} went with session {session}, in which its client believes"));
                }
            }
            event::Told::Granted { .. } | event::Told::Ended { .. } | event::Told::Version { .. } => {}
        }
        Ok(())
    }
}

impl Check for Registry {
    fn name(&self) -> &'static str {
        "services and sessions"
    }

    fn event(&mut self, _: At, event: &Event) -> Verdict {
        match event {
            Event::Registered { service, instance, session, revision, believes, .. } => {
                self.learn(service, *revision);
                self.believed.insert(((service.clone(), instance.clone()), *session), believes.clone());
            }
            Event::InstancesReadBegan { op, service } => {
                let known = self.known.get(service).copied().unwrap_or_default();
                self.reads.insert(*op, known);
            }
            Event::InstancesReadFailed { op, .. } => drop(self.reads.remove(op)),
            Event::InstancesRead { op, service, revision, ids } => {
                let known = self.reads.remove(op).unwrap_or_default();
                if *revision < known {
                    return Err(format!("{service} was listed at revision {revision}, and {known} was acknowledged"));
                }
                if let Some((id, at)) = ids.iter().find(|(_, at)| at > revision) {
                    return Err(format!("{service} was listed at revision {revision}, with {id} of {at}"));
                }
                self.learn(service, *revision);
                self.lists.push((service.clone(), *revision, ids.iter().cloned().collect()));
            }
            Event::Told { name, revision, told, .. } => return self.told(name, *revision, told),
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, end: &End) -> Verdict {
        if let Some((group, left)) = end.instances.iter().find(|(_, left)| **left > 0) {
            return Err(format!("shard {group} still has {left} instances of silent clients"));
        }
        for (service, revision, ids) in &self.lists {
            for ((_, id), told) in self.told.iter().filter(|((of, _), _)| of == service) {
                // Of what happened before the watches were there nothing is known.
                let Some((at, is_there)) = told.range(..=*revision).next_back() else { continue };
                match ids.get(id) {
                    None if !is_there => {}
                    Some(listed) if *is_there && listed == at => {}
                    listed => {
                        return Err(format!(
                            "{service} was listed at revision {revision} with {id} of {listed:?}, which had been told \
                             there: {is_there} at {at}"
                        ));
                    }
                }
                self.compared += 1;
            }
        }
        Ok(())
    }

    fn count(&self) -> Option<(&'static str, u64)> {
        Some(("instances compared", self.compared))
    }
}

#[cfg(test)]
mod tests {
    use wardlock_machine::Incarnation;

    use super::*;

    fn session(number: u128) -> SessionId {
        SessionId::new(Incarnation(1), number)
    }

    fn run(events: &[Event]) -> Verdict {
        let mut check = Registry::default();
        events.iter().try_for_each(|event| check.event(At::ZERO, event))?;
        check.end(&End::default())
    }

    fn registered(revision: u64, believed: bool) -> Event {
        let (service, instance) = ("s".to_owned(), "i".to_owned());
        let believes = Believes::new(move || believed);
        Event::Registered { client: 1, op: revision, service, instance, session: session(1), revision, believes }
    }

    fn told(revision: u64, told: event::Told) -> Event {
        Event::Told { watcher: 1, shard: 1, revision, name: "s".into(), told }
    }

    fn comes(revision: u64) -> Event {
        told(revision, event::Told::Registered { instance: "i".into(), session: session(1) })
    }

    fn goes(revision: u64, reason: EndReason) -> Event {
        told(revision, event::Told::Deregistered { instance: "i".into(), reason })
    }

    fn began(op: Op) -> Event {
        Event::InstancesReadBegan { op, service: "s".into() }
    }

    fn listed(op: Op, revision: u64, ids: &[(&str, u64)]) -> Event {
        let ids = ids.iter().map(|(id, at)| ((*id).to_owned(), *at)).collect();
        Event::InstancesRead { op, service: "s".into(), revision, ids }
    }

    #[test]
    fn what_may_happen_is_no_alarm() {
        let all = [
            began(1),
            registered(5, true),
            listed(1, 4, &[]),
            comes(5),
            began(2),
            listed(2, 7, &[("i", 5)]),
            goes(8, EndReason::Released),
            began(3),
            listed(3, 8, &[]),
            registered(9, false),
            comes(9),
            goes(10, EndReason::SessionExpired),
        ];
        assert_eq!(run(&all), Ok(()));
    }

    #[test]
    fn what_must_not_happen_is_seen() {
        assert!(run(&[registered(5, true), began(1), listed(1, 4, &[])]).is_err(), "an old list");
        assert!(run(&[comes(5), began(1), listed(1, 6, &[])]).is_err(), "it is not in the list");
        assert!(run(&[comes(5), began(1), listed(1, 6, &[("i", 4)])]).is_err(), "it is in it as it was");
        let outlives = [comes(5), goes(6, EndReason::SessionClosed), began(1), listed(1, 7, &[("i", 5)])];
        assert!(run(&outlives).is_err(), "it is in it still");
        assert!(run(&[registered(5, true), comes(5), goes(6, EndReason::SessionExpired)]).is_err(), "it went too soon");
        let mut end = End::default();
        end.instances.insert(wardlock_placement::GroupId(1), 1);
        assert!(Registry::default().end(&end).is_err(), "it outlives all sessions");
    }
}
