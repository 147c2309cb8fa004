//! No lease ends early: no grant and no session is gone before its holder had to reckon with it.
//!
//! Counted are those that lived through a fault of their time: a failover may be what ends a lease too soon.

use std::collections::BTreeMap;

use wardlock_machine::{SessionId, Token};

use super::{At, Check, Verdict};
use crate::event::Event;

/// After how many faults each lease began.
#[derive(Default)]
pub(super) struct EarlyEnd {
    faults: u64,
    grants: BTreeMap<(String, Token), u64>,
    sessions: BTreeMap<SessionId, u64>,
    through_faults: u64,
}

impl EarlyEnd {
    fn ended(&mut self, began: Option<u64>) {
        self.through_faults += u64::from(began.is_some_and(|began| began < self.faults));
    }
}

impl Check for EarlyEnd {
    fn name(&self) -> &'static str {
        "no early end"
    }

    fn event(&mut self, _: At, event: &Event) -> Verdict {
        let early = match event {
            Event::Fault { .. } => {
                self.faults += 1;
                return Ok(());
            }
            Event::Granted { name, token, .. } => {
                self.grants.insert((name.clone(), *token), self.faults);
                return Ok(());
            }
            Event::Opened { session, .. } => {
                self.sessions.insert(*session, self.faults);
                return Ok(());
            }
            Event::Lost { name, token, early, .. } => {
                let began = self.grants.remove(&(name.clone(), *token));
                self.ended(began);
                *early
            }
            Event::SessionLost { session, early, .. } => {
                let began = self.sessions.remove(session);
                self.ended(began);
                *early
            }
            _ => return Ok(()),
        };
        match early {
            0 => Ok(()),
            1.. => Err(format!("it ended early, in ms of its holder's clock: {event:?}")),
        }
    }

    fn count(&self) -> Option<(&'static str, u64)> {
        Some(("ends after faults", self.through_faults))
    }
}
