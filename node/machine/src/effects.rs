//! What a command sees of its batch, and where it leaves its effects.

use crate::{command::Effects, ids::*};

/// The surroundings of one apply.
pub(crate) struct Cx<'a> {
    /// The entry's own log term.
    pub(crate) term: Term,
    /// The batch's wall time, for fields that people read.
    pub(crate) wall: WallMs,
    pub(crate) effects: &'a mut Effects,
}

impl Cx<'_> {
    /// Notes a change of holders. Changes of one key in a row are told once, with the last revision.
    pub(crate) fn changed(&mut self, key: &Key, revision: Revision) {
        match self.effects.changed.last_mut() {
            Some(last) if last.0 == *key => last.1 = revision,
            _ => self.effects.changed.push((key.clone(), revision)),
        }
    }
}
