//! Leaders are balanced: when all is well, no node leads two shards more than another.

use super::{At, Check, End, Verdict};
use crate::event::Event;

/// Needs no memory.
#[derive(Default)]
pub(super) struct Leaders;

impl Check for Leaders {
    fn name(&self) -> &'static str {
        "leaders are balanced"
    }

    fn event(&mut self, _: At, _: &Event) -> Verdict {
        Ok(())
    }

    fn end(&mut self, end: &End) -> Verdict {
        let (most, least) = (end.leads.values().max(), end.leads.values().min());
        match (most, least) {
            (Some(most), Some(least)) if most - least <= 1 => Ok(()),
            _ => Err(format!("shards led by each node: {:?}", end.leads)),
        }
    }
}
