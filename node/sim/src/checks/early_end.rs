//! No lease ends early: no grant and no session is gone before its holder had to reckon with it.

use super::{At, Check, Verdict};
use crate::event::Event;

/// Needs no memory: each end says how early it came.
#[derive(Default)]
pub(super) struct EarlyEnd;

impl Check for EarlyEnd {
    fn name(&self) -> &'static str {
        "no early end"
    }

    fn event(&mut self, _: At, event: &Event) -> Verdict {
        match event {
            Event::Lost { early: 1.., .. } | Event::SessionLost { early: 1.., .. } => {
                Err(format!("it ended early, in ms of its holder's clock: {event:?}"))
            }
            _ => Ok(()),
        }
    }
}
