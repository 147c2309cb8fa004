//! One holder: while somebody believes to hold a lock, nobody is granted it in a way that excludes him.

use std::collections::BTreeMap;

use wardlock_machine::{Mode, Token};

use super::{At, Check, Verdict};
use crate::event::{Believes, Event};

struct Holding {
    client: u32,
    mode: Mode,
    token: Token,
    believes: Believes,
}

/// Who believes to hold what.
#[derive(Default)]
pub(super) struct OneHolder(BTreeMap<String, Vec<Holding>>);

impl Check for OneHolder {
    fn name(&self) -> &'static str {
        "one holder"
    }

    fn event(&mut self, _: At, event: &Event) -> Verdict {
        match event {
            Event::Granted { client, name, mode, token, believes, .. } => {
                let holdings = self.0.entry(name.clone()).or_default();
                holdings.retain(|holding| holding.believes.now());
                // An answer may come when its lease is over already.
                if !believes.now() {
                    return Ok(());
                }
                let beside = holdings.iter().map(|h| (h.mode, h.client, h.token)).collect::<Vec<_>>();
                holdings.push(Holding { client: *client, mode: *mode, token: *token, believes: believes.clone() });
                let excluded = match mode {
                    Mode::Exclusive => !beside.is_empty(),
                    Mode::Shared => beside.iter().any(|(mode, ..)| *mode != Mode::Shared),
                    Mode::Semaphore { permits } => {
                        beside.len() >= *permits as usize || beside.iter().any(|(other, ..)| other != mode)
                    }
                };
                if excluded {
                    return Err(format!(
                        "{name} is granted to client {client} as {mode:?}, token {token}, beside {beside:?}"
                    ));
                }
            }
            Event::Releasing { name, token, .. } | Event::Lost { name, token, .. } => {
                if let Some(holdings) = self.0.get_mut(name) {
                    holdings.retain(|holding| holding.token != *token);
                }
            }
            _ => {}
        }
        Ok(())
    }
}
