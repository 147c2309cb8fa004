//! Replicas are equal: those of a group have applied the same entries and are in the same state.

use super::{At, Check, End, Verdict};
use crate::event::Event;

/// Needs no memory.
#[derive(Default)]
pub(super) struct Replicas;

impl Check for Replicas {
    fn name(&self) -> &'static str {
        "replicas are equal"
    }

    fn event(&mut self, _: At, _: &Event) -> Verdict {
        Ok(())
    }

    fn end(&mut self, end: &End) -> Verdict {
        for (group, replicas) in &end.replicas {
            let mut states = replicas.values();
            let first = states.next();
            if states.any(|state| Some(state) != first) {
                return Err(format!("the replicas of group {group} differ: {replicas:?}"));
            }
        }
        Ok(())
    }
}
