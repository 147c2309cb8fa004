//! Deadlocks: nobody is a victim who was in no circle, and while all is well no circle stands for long.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use wardlock_machine::SessionId;

use super::{At, Check, Verdict};
use crate::event::{Dines, Event};

/// How long news may be on its way: a message, its repeats, a victim's answer over changes of leaders.
const NEWS: Duration = Duration::from_secs(8);
/// How long a circle may stand while all is well.
const SOON: Duration = Duration::from_secs(4);

#[derive(Default)]
struct Diner {
    /// What it waits for, and since when.
    wants: Option<(String, At)>,
    /// What it waited for before, and when it was told that it waits no more. Where it was not told, it may wait still.
    wanted: Vec<(String, Option<At>)>,
    /// What it has, or has let go without being told that it is gone; and when that was.
    has: BTreeMap<String, Option<At>>,
    has_left: bool,
}

impl Diner {
    fn may_wait_for(&self, name: &str, at: At) -> bool {
        let before =
            |(wanted, until): &(String, Option<At>)| wanted == name && until.is_none_or(|until| at < until + NEWS);
        self.wants.as_ref().is_some_and(|(wants, _)| wants == name) || self.wanted.iter().any(before)
    }

    fn may_have(&self, name: &str, at: At) -> bool {
        self.has.get(name).is_some_and(|until| until.is_none_or(|until| at < until + NEWS))
    }
}

/// Who waits for what, and who has it.
#[derive(Default)]
pub(super) struct Deadlocks {
    diners: BTreeMap<SessionId, Diner>,
    calm_since: Option<At>,
    victims: u64,
}

impl Deadlocks {
    /// A circle that is no deadlock, as far as those know who are in it.
    fn refuted(&self, at: At, circle: &[(SessionId, String)]) -> Option<String> {
        if circle.len() < 2 {
            return Some(format!("a circle of {}", circle.len()));
        }
        let next = circle.iter().cycle().skip(1);
        for ((session, name), (next, _)) in circle.iter().zip(next) {
            let (Some(diner), Some(next)) = (self.diners.get(session), self.diners.get(next)) else {
                return Some(format!("{session} or {next} is no diner"));
            };
            if !diner.may_wait_for(name, at) {
                return Some(format!("{session} did not wait for {name}"));
            }
            // It may as well stand before it in the queue.
            if !next.may_have(name, at) && !next.may_wait_for(name, at) {
                return Some(format!("the next neither had {name} nor waited for it"));
            }
        }
        None
    }

    /// A circle that should have been broken: each has waited for long for what the next has for certain.
    fn overdue(&self, at: At) -> Option<String> {
        let calm = self.calm_since?;
        let holder = |name: &String| {
            let has = |(_, diner): &(&SessionId, &Diner)| diner.has.get(name) == Some(&None) && !diner.has_left;
            self.diners.iter().find(has).map(|(session, _)| *session)
        };
        let waits = |session: &SessionId| {
            let (name, since) = self.diners[session].wants.as_ref()?;
            (at > (*since).max(calm) + SOON).then_some(name)
        };
        for begin in self.diners.keys() {
            let (mut session, mut seen) = (*begin, BTreeSet::new());
            while let Some(next) = waits(&session).and_then(holder) {
                if next == *begin {
                    return Some(format!("{begin} waits in a circle of {} since {SOON:?}", seen.len() + 1));
                }
                if !seen.insert(next) {
                    break;
                }
                session = next;
            }
        }
        None
    }
}

impl Check for Deadlocks {
    fn name(&self) -> &'static str {
        "deadlocks have one victim, soon, and nothing else has"
    }

    fn count(&self) -> Option<(&'static str, u64)> {
        Some(("victims", self.victims))
    }

    fn event(&mut self, at: At, event: &Event) -> Verdict {
        match event {
            Event::Fault { .. } => self.calm_since = None,
            Event::Well => self.calm_since = Some(at),
            Event::Dines { session, what, .. } => {
                let mut circle = None;
                let diner = self.diners.entry(*session).or_default();
                match what {
                    Dines::Wants(name) => diner.wants = Some((name.clone(), at)),
                    Dines::Has(name) => {
                        diner.wants = None;
                        diner.wanted.push((name.clone(), Some(at)));
                        diner.has.insert(name.clone(), None);
                    }
                    Dines::Unwanted(name, known) => {
                        diner.wants = None;
                        diner.wanted.push((name.clone(), known.then_some(at)));
                        if !known {
                            // It may have got it, and keeps it until its session ends.
                            diner.has.insert(name.clone(), Some(At::MAX / 2));
                        }
                    }
                    Dines::Victim(name, steps) => {
                        diner.wants = None;
                        diner.wanted.push((name.clone(), Some(at)));
                        circle = Some(steps);
                    }
                    Dines::Lets(name) => drop(diner.has.insert(name.clone(), Some(At::MAX / 2))),
                    Dines::Let(name, done) if *done => drop(diner.has.insert(name.clone(), Some(at))),
                    Dines::Let(..) => {}
                    Dines::Leaves => diner.has_left = true,
                }
                if let Some(steps) = circle {
                    self.victims += 1;
                    // A repeat of the question is answered without the circle.
                    if let Some(why) = self.refuted(at, steps).filter(|_| !steps.is_empty()) {
                        return Err(format!("{session} is told of a deadlock {steps:?}: {why}"));
                    }
                }
            }
            _ => {}
        }
        match self.overdue(at) {
            Some(why) => Err(why),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(number: u32) -> SessionId {
        SessionId(number.into())
    }

    fn fork(number: u32) -> String {
        format!("fork/{number}")
    }

    fn dines(check: &mut Deadlocks, second: u64, client: u32, what: Dines) -> Verdict {
        check.event(At::from_secs(second), &Event::Dines { client, session: session(client), what })
    }

    /// 1 has fork 1 and wants fork 2, and the other way round.
    fn circle() -> Deadlocks {
        let mut check = Deadlocks { calm_since: Some(At::ZERO), ..Deadlocks::default() };
        for client in [1, 2] {
            dines(&mut check, 1, client, Dines::Wants(fork(client))).unwrap();
            dines(&mut check, 1, client, Dines::Has(fork(client))).unwrap();
            dines(&mut check, 2, client, Dines::Wants(fork(3 - client))).unwrap();
        }
        check
    }

    fn victim() -> Dines {
        Dines::Victim(fork(2), vec![(session(1), fork(2)), (session(2), fork(1))])
    }

    #[test]
    fn a_victim_in_a_circle_is_right_and_a_circle_that_stands_is_wrong() {
        let mut check = circle();
        assert_eq!(dines(&mut check, 4, 1, victim()), Ok(()));
        assert_eq!(dines(&mut check, 30, 1, Dines::Lets(fork(1))), Ok(()), "it was broken");
        let mut check = circle();
        assert_eq!(dines(&mut check, 6, 3, Dines::Wants(fork(3))), Ok(()));
        dines(&mut check, 12, 3, Dines::Has(fork(3))).expect_err("nobody broke it");
    }

    #[test]
    fn a_victim_that_waited_for_somebody_who_could_go_on_is_wrong() {
        let mut check = circle();
        dines(&mut check, 3, 2, Dines::Has(fork(1))).unwrap();
        dines(&mut check, 13, 1, victim()).expect_err("the other has waited for nothing for long");
        let mut check = circle();
        dines(&mut check, 3, 2, Dines::Victim(fork(1), vec![(session(2), fork(1)), (session(1), fork(2))])).unwrap();
        dines(&mut check, 3, 2, Dines::Lets(fork(2))).unwrap();
        dines(&mut check, 3, 2, Dines::Let(fork(2), true)).unwrap();
        dines(&mut check, 12, 1, victim()).expect_err("it was broken long ago");
    }
}
