//! Elections are told in one order: an observer sees each leader once, in the order of the tokens, and each of its
//! proclamations once, in their order, without a hole; and whoever was elected or proclaimed something is seen in the
//! end.

use std::collections::{BTreeMap, BTreeSet};

use wardlock_machine::Token;

use super::{At, Check, End, Verdict};
use crate::event::{Event, Op};

/// What one observer has seen.
#[derive(Default)]
struct Observer {
    name: String,
    /// The operations that began after it was told the leader as it was at its beginning.
    asked: BTreeSet<Op>,
    seen: BTreeSet<(Token, u32)>,
}

/// All observers, and what came of those who stood.
#[derive(Default)]
pub(super) struct Watches {
    observers: BTreeMap<u32, Observer>,
    made: Vec<(Op, String, Token, u32)>,
    told: u64,
}

impl Watches {
    fn seen(&mut self, observer: u32, name: &str, leader: Option<(Token, u32)>) -> Verdict {
        let begins = !self.observers.contains_key(&observer);
        let state = self.observers.entry(observer).or_default();
        name.clone_into(&mut state.name);
        let Some((token, stage)) = leader else { return Ok(()) };
        self.told += 1;
        let last = state.seen.last().copied();
        if let Some(last) = last
            && last >= (token, stage)
        {
            return Err(format!("observer {observer} of {name} saw token {token} at stage {stage} after {last:?}"));
        }
        let next = match last.filter(|last| last.0 == token) {
            Some((_, before)) => stage == before + 1,
            None => stage == 0 || begins,
        };
        state.seen.insert((token, stage));
        match next {
            true => Ok(()),
            false => Err(format!("observer {observer} of {name} saw stage {stage} of token {token} after {last:?}")),
        }
    }
}

impl Check for Watches {
    fn name(&self) -> &'static str {
        "ordered watches"
    }

    fn event(&mut self, _: At, event: &Event) -> Verdict {
        match event {
            Event::LeaderSeen { observer, name, leader } => return self.seen(*observer, name, *leader),
            Event::Standing { op, name, .. } => {
                for observer in self.observers.values_mut().filter(|observer| observer.name == *name) {
                    observer.asked.insert(*op);
                }
            }
            Event::Elected { op, name, token, .. } => self.made.push((*op, name.clone(), *token, 0)),
            Event::Proclaimed { op, name, token, stage } => self.made.push((*op, name.clone(), *token, *stage)),
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, _: &End) -> Verdict {
        for (number, observer) in &self.observers {
            for (op, name, token, stage) in &self.made {
                let owed = observer.name == *name && observer.asked.contains(op);
                if owed && !observer.seen.contains(&(*token, *stage)) {
                    return Err(format!("observer {number} of {name} never saw stage {stage} of token {token}"));
                }
            }
        }
        Ok(())
    }

    fn count(&self) -> Option<(&'static str, u64)> {
        Some(("leaders and proclamations told", self.told))
    }
}
