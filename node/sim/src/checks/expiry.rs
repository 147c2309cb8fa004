//! Every lease of a dead client ends: when all have been silent for long, nothing is held, queued or open.

use super::{At, Check, End, Verdict};
use crate::event::Event;

/// Needs no memory.
#[derive(Default)]
pub(super) struct Expiry;

impl Check for Expiry {
    fn name(&self) -> &'static str {
        "expiry happens"
    }

    fn event(&mut self, _: At, _: &Event) -> Verdict {
        Ok(())
    }

    fn end(&mut self, end: &End) -> Verdict {
        match end.left.iter().find(|(_, left)| **left != [0; 3]) {
            Some((group, [grants, waiters, sessions])) => Err(format!(
                "shard {group} still has {grants} grants, {waiters} waiters and {sessions} sessions of silent clients"
            )),
            None => Ok(()),
        }
    }
}
