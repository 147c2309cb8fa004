//! Tokens rise: a grant's token exceeds every token of its name that anybody had when it was asked for.

use std::collections::BTreeMap;

use wardlock_machine::Token;

use super::{At, Check, Verdict};
use crate::event::{Event, Op};

/// The highest token known of each name, and what was known when each request began.
#[derive(Default)]
pub(super) struct Tokens {
    highest: BTreeMap<String, Token>,
    asked: BTreeMap<Op, Option<Token>>,
}

impl Check for Tokens {
    fn name(&self) -> &'static str {
        "rising tokens"
    }

    fn event(&mut self, _: At, event: &Event) -> Verdict {
        match event {
            Event::Asked { op, name, .. } => {
                self.asked.insert(*op, self.highest.get(name).copied());
            }
            Event::Refused { op, .. } => {
                self.asked.remove(op);
            }
            Event::Granted { op, name, token, .. } => {
                let floor = self.asked.remove(op).flatten();
                let highest = self.highest.entry(name.clone()).or_insert(*token);
                *highest = (*highest).max(*token);
                if floor.is_some_and(|floor| *token <= floor) {
                    return Err(format!("{name} is granted with token {token}, and {floor:?} was known before"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
