//! Reads are linearizable: whoever certainly held a lock all through a read is in its answer, and nobody whose
//! release was acknowledged before it began.

use std::collections::{BTreeMap, BTreeSet};

use wardlock_machine::Token;

use super::{At, Check, Verdict};
use crate::event::{Believes, Event, Op};

/// A read under way: what it must show if it is still held then, and must not show.
type Open = (Vec<(Token, Believes)>, BTreeSet<Token>);

/// Holders and reads under way.
#[derive(Default)]
pub(super) struct Reads {
    held: BTreeMap<String, BTreeMap<Token, Believes>>,
    gone: BTreeMap<String, BTreeSet<Token>>,
    open: BTreeMap<Op, Open>,
}

impl Check for Reads {
    fn name(&self) -> &'static str {
        "linearizable reads"
    }

    fn event(&mut self, _: At, event: &Event) -> Verdict {
        match event {
            Event::Granted { name, token, believes, .. } => {
                self.held.entry(name.clone()).or_default().insert(*token, believes.clone());
            }
            Event::Releasing { name, token, .. } | Event::Lost { name, token, .. } => {
                if let Some(held) = self.held.get_mut(name) {
                    held.remove(token);
                }
            }
            Event::Released { name, token, done: true, .. } => {
                self.gone.entry(name.clone()).or_default().insert(*token);
            }
            Event::ReadBegan { op, name } => {
                let held = self.held.get(name).into_iter().flatten().map(|(token, b)| (*token, b.clone()));
                let held = held.filter(|(_, believes)| believes.now()).collect();
                self.open.insert(*op, (held, self.gone.get(name).cloned().unwrap_or_default()));
            }
            Event::ReadFailed { op, .. } => {
                self.open.remove(op);
            }
            Event::Read { op, name, holders } => {
                let Some((held, gone)) = self.open.remove(op) else { return Ok(()) };
                let still = self.held.get(name);
                for (token, believes) in held {
                    let all_through = believes.now() && still.is_some_and(|still| still.contains_key(&token));
                    if all_through && !holders.contains(&token) {
                        return Err(format!(
                            "{name} was held with token {token} all through a read that saw {holders:?}"
                        ));
                    }
                }
                if let Some(token) = holders.iter().find(|token| gone.contains(token)) {
                    return Err(format!("a read of {name} saw token {token}, which had been released before it began"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
