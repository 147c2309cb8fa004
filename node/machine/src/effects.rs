//! What a command sees of its batch, and where it leaves its effects.

use crate::{command::*, ids::*};

/// The surroundings of one apply.
pub(crate) struct Cx<'a> {
    /// The entry's own log term.
    pub(crate) term: Term,
    /// The batch's wall time, for fields that people read.
    pub(crate) wall: WallMs,
    /// `None` where nobody asks for them. The state never depends on it.
    pub(crate) effects: Option<&'a mut Effects>,
}

impl Cx<'_> {
    /// Answers a request that had queued.
    pub(crate) fn settle(
        &mut self,
        session: SessionId,
        request: RequestId,
        key: &Key,
        outcome: impl FnOnce() -> Outcome,
    ) {
        self.note(|effects| effects.settled.push(Settled { session, request, key: key.clone(), outcome: outcome() }));
    }

    /// Notes any other effect.
    pub(crate) fn note(&mut self, note: impl FnOnce(&mut Effects)) {
        if let Some(effects) = &mut self.effects {
            note(effects);
        }
    }
}
