//! First come, first served: while nothing is wrong, nobody who asked clearly later is granted before one who waits.

use std::{collections::BTreeMap, time::Duration};

use wardlock_machine::Mode;

use super::{At, Check, Verdict};
use crate::event::{Event, Op};

/// So much later is clearly later: longer than a message, its repeats and an attachment take.
const CLEARLY: Duration = Duration::from_secs(3);

struct Asked {
    at: At,
    waits: bool,
}

/// Requests under way, and whether it is calm.
#[derive(Default)]
pub(super) struct Fairness {
    asked: BTreeMap<String, BTreeMap<Op, Asked>>,
    calm_since: Option<At>,
}

impl Check for Fairness {
    fn name(&self) -> &'static str {
        "first come, first served"
    }

    fn event(&mut self, at: At, event: &Event) -> Verdict {
        match event {
            Event::Fault { .. } => self.calm_since = None,
            Event::Well => self.calm_since = Some(at),
            Event::Asked { op, name, waits, .. } => {
                self.asked.entry(name.clone()).or_default().insert(*op, Asked { at, waits: *waits });
            }
            Event::Refused { op, name, .. } => {
                self.asked.entry(name.clone()).or_default().remove(op);
            }
            Event::Granted { op, name, mode, .. } => {
                let asked = self.asked.entry(name.clone()).or_default();
                let (Some(mine), Some(calm)) = (asked.remove(op), self.calm_since) else { return Ok(()) };
                // Several who may hold it together are granted at once, and hear of it in any order.
                if *mode != Mode::Exclusive {
                    return Ok(());
                }
                let passed = asked
                    .iter()
                    .find(|(_, other)| other.waits && other.at >= calm && mine.at.saturating_sub(other.at) > CLEARLY);
                if let Some((other, _)) = passed {
                    return Err(format!("{name} is granted to request {op} before {other}, which has waited longer"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
