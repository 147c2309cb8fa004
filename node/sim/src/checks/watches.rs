//! Watches are ordered: an observer of an election sees its leaders in the order of their tokens, each at most once.

use std::collections::BTreeMap;

use wardlock_machine::Token;

use super::{At, Check, Verdict};
use crate::event::Event;

/// What each observer has seen last.
#[derive(Default)]
pub(super) struct Watches(BTreeMap<(u32, String), Token>);

impl Check for Watches {
    fn name(&self) -> &'static str {
        "ordered watches"
    }

    fn event(&mut self, _: At, event: &Event) -> Verdict {
        if let Event::LeaderSeen { watch, name, token: Some(token) } = event
            && let Some(last) = self.0.insert((*watch, name.clone()), *token)
            && last > *token
        {
            return Err(format!("observer {watch} of {name} saw token {token} after {last}"));
        }
        Ok(())
    }
}
