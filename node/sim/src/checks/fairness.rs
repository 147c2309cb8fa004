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
    at: At,
    mode: Mode,
    /// Whether it surely has its place, and nobody may pass it.
    waits: bool,
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
                let at = asked.values().filter(own).map(|other| other.at).min().unwrap_or(at);
                asked.retain(|_, other| other.session != *session);
                // What it asks now does not leave.
                let waits = &(*waits && !self.cut_off.contains(client));
                asked.insert(*op, Asked { client: *client, session: *session, at, mode: *mode, waits: *waits });
            }
            // Its places go with its session, and it hears of that later. Until then they count for itself: heard
            // again in time, it asks anew and is where it was.
            Event::CutOff { client } => {
                self.cut_off.insert(*client);
                let asked = self.asked.values_mut().flat_map(BTreeMap::values_mut);
                asked.filter(|asked| asked.client == *client).for_each(|asked| asked.waits = false);
            }
            Event::HeardAgain { client } => {
                self.cut_off.remove(client);
            }
            Event::Refused { op, name, known, .. } => {
                let asked = self.asked.entry(name.clone()).or_default();
                // Without an answer it may have its place still.
                match asked.get_mut(op) {
                    Some(mine) if !known => mine.waits = false,
                    _ => drop(asked.remove(op)),
                }
            }
            Event::Granted { op, name, mode, .. } => {
                let asked = self.asked.entry(name.clone()).or_default();
                let (Some(mine), Some(calm)) = (asked.remove(op), self.calm_since) else { return Ok(()) };
                let passed = asked.iter().find(|(_, other)| {
                    // Several who may hold it together are granted at once, and hear of it in any order.
                    let together = other.mode == *mode && *mode != Mode::Exclusive;
                    other.waits && other.at >= calm && !together && mine.at.saturating_sub(other.at) > CLEARLY
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
