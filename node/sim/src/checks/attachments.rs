//! Attachments are consistent over shards: wherever a session is attached, its home is open and knows of it, so
//! that its end is told there.

use super::{At, Check, End, Verdict};
use crate::event::Event;

/// Needs no memory.
#[derive(Default)]
pub(super) struct Attachments;

impl Check for Attachments {
    fn name(&self) -> &'static str {
        "attachments are consistent"
    }

    fn event(&mut self, _: At, _: &Event) -> Verdict {
        Ok(())
    }

    fn end(&mut self, end: &End) -> Verdict {
        for (session, shards) in &end.seats {
            let known = end.homes.get(session).map(|home| &home.shards);
            if let Some(shard) = shards.iter().find(|shard| !known.is_some_and(|known| known.contains(shard))) {
                return Err(format!("session {session} is attached to shard {shard}, and its home knows {known:?}"));
            }
        }
        Ok(())
    }
}
