//! First come, first served: while nothing is wrong, nobody who asked clearly later is granted before one who waits.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use wardlock_machine::{Mode, SessionId};

use super::{At, Check, Verdict};
use crate::event::{Event, Op};

/// So much later is clearly later: longer than a message, its repeats and an attachment take.
const CLEARLY: Duration = Duration::from_secs(3);

struct Asked {
    client: u32,
    session: SessionId,
    mode: Mode,
    /// Since when it may have its place: that of its session's first request.
    at: At,
    /// Since when it surely has its place, and nobody may pass it: from a request without an answer on, it may have
    /// been granted in between, and have lost its place again.
    waits: Option<At>,
}

/// Requests that may have a place, and whether it is calm.
#[derive(Default)]
pub(super) struct Fairness {
    asked: BTreeMap<String, BTreeMap<Op, Asked>>,
    calm_since: Option<At>,
    cut_off: BTreeSet<u32>,
}

impl Check for Fairness {
    fn name(&self) -> &'static str {
        "first come, first served"
    }

    fn event(&mut self, at: At, event: &Event) -> Verdict {
        match event {
            Event::Fault { .. } => self.calm_since = None,
            Event::Well => self.calm_since = Some(at),
            Event::Asked { client, op, session, name, mode, waits } => {
                let asked = self.asked.entry(name.clone()).or_default();
                // A session's second request takes over the place of its first, or gives it up.
                let own = |other: &&Asked| other.session == *session && other.mode == *mode && *waits;
                let since = asked.values().filter(own).map(|other| other.at).min().unwrap_or(at);
                let surely = asked.values().filter(own).filter_map(|other| other.waits).min().unwrap_or(at);
                asked.retain(|_, other| other.session != *session);
                // What it asks now does not leave.
                let waits = (*waits && !self.cut_off.contains(client)).then_some(surely);
                asked.insert(*op, Asked { client: *client, session: *session, mode: *mode, at: since, waits });
            }
            // Its places go with its session, and it hears of that later. Until then they count for itself: heard
            // again in time, it asks anew and is where it was.
            Event::CutOff { client } => {
                self.cut_off.insert(*client);
                let asked = self.asked.values_mut().flat_map(BTreeMap::values_mut);
                asked.filter(|asked| asked.client == *client).for_each(|asked| asked.waits = None);
            }
            Event::HeardAgain { client } => {
                self.cut_off.remove(client);
            }
            Event::Refused { op, name, known, .. } => {
                let asked = self.asked.entry(name.clone()).or_default();
                // Without an answer it may have its place still.
                match asked.get_mut(op) {
                    Some(mine) if !known => mine.waits = None,
                    _ => drop(asked.remove(op)),
                }
            }
            Event::Granted { op, name, mode, .. } => {
                let asked = self.asked.entry(name.clone()).or_default();
                let (Some(mine), Some(calm)) = (asked.remove(op), self.calm_since) else { return Ok(()) };
                let passed = asked.iter().find(|(_, other)| {
                    // Several who may hold it together are granted at once, and hear of it in any order.
                    let together = other.mode == *mode && *mode != Mode::Exclusive;
                    let clearly = |since: At| since >= calm && mine.at.saturating_sub(since) > CLEARLY;
                    !together && other.waits.is_some_and(clearly)
                });
                if let Some((other, _)) = passed {
                    return Err(format!("{name} is granted to request {op} before {other}, which has waited longer"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use wardlock_machine::Token;

    use super::*;
    use crate::event::Believes;

    const NAME: &str = "n/1";

    /// Client `n` with session `n`, at this second.
    fn asks(check: &mut Fairness, second: u64, client: u32, op: Op) {
        let session = SessionId(client.into());
        let asked = Event::Asked { client, session, op, name: NAME.into(), mode: Mode::Exclusive, waits: true };
        check.event(At::from_secs(second), &asked).expect("asking breaks no promise");
    }

    fn is_granted(check: &mut Fairness, second: u64, client: u32, op: Op) -> Verdict {
        let (mode, token, believes) = (Mode::Exclusive, Token(1), Believes::new(|| true));
        let granted = Event::Granted { client, op, name: NAME.into(), mode, token, delay: 0, believes };
        check.event(At::from_secs(second), &granted)
    }

    fn calm() -> Fairness {
        Fairness { calm_since: Some(At::ZERO), ..Fairness::default() }
    }

    #[test]
    fn nobody_passes_who_asked_clearly_later() {
        let mut check = calm();
        asks(&mut check, 1, 1, 10);
        asks(&mut check, 3, 2, 20);
        asks(&mut check, 5, 3, 30);
        assert_eq!(is_granted(&mut check, 6, 2, 20), Ok(()), "a request may overtake on its way");
        let fault = is_granted(&mut check, 7, 3, 30).expect_err("the first waits still");
        assert!(fault.contains("request 30 before 10"), "{fault}");
    }

    #[test]
    fn a_client_that_is_heard_again_in_time_is_where_it_was() {
        let mut check = calm();
        asks(&mut check, 1, 1, 10);
        asks(&mut check, 2, 2, 20);
        check.event(At::from_secs(3), &Event::CutOff { client: 1 }).unwrap();
        check.event(At::from_secs(6), &Event::HeardAgain { client: 1 }).unwrap();
        asks(&mut check, 6, 1, 11);
        assert_eq!(is_granted(&mut check, 7, 1, 11), Ok(()));
    }

    #[test]
    fn a_request_without_an_answer_keeps_its_place_and_holds_nobody_up() {
        let mut check = calm();
        for (second, client, op) in [(1, 1, 10), (2, 2, 20)] {
            asks(&mut check, second, client, op);
        }
        let gave_up = Event::Refused { client: 1, op: 10, name: NAME.into(), why: String::new(), known: false };
        check.event(At::from_secs(3), &gave_up).unwrap();
        asks(&mut check, 6, 3, 30);
        asks(&mut check, 6, 1, 11);
        assert_eq!(is_granted(&mut check, 7, 1, 11), Ok(()), "the place of its first request");
        is_granted(&mut check, 7, 3, 30).expect_err("the second client waits");
        let refused = Event::Refused { client: 2, op: 20, name: NAME.into(), why: String::new(), known: true };
        check.event(At::from_secs(8), &refused).unwrap();
        asks(&mut check, 9, 3, 31);
        assert_eq!(is_granted(&mut check, 9, 3, 31), Ok(()));
    }

    #[test]
    fn a_request_without_an_answer_may_have_been_granted() {
        let mut check = calm();
        asks(&mut check, 1, 1, 10);
        let gave_up = Event::Refused { client: 1, op: 10, name: NAME.into(), why: String::new(), known: false };
        check.event(At::from_secs(2), &gave_up).unwrap();
        asks(&mut check, 5, 2, 20);
        // Its first request was granted meanwhile, and is over now.
        asks(&mut check, 6, 1, 11);
        assert_eq!(is_granted(&mut check, 7, 2, 20), Ok(()));
        asks(&mut check, 10, 3, 30);
        is_granted(&mut check, 11, 3, 30).expect_err("the first client has its place since the sixth second");
    }
}
