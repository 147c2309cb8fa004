//! Nobody holds what he did not ask for: each grant that a read shows has been told to its session's client, or
//! belongs to a request of that session which has no certain answer.

use std::collections::{BTreeMap, BTreeSet};

use wardlock_machine::{LockId, SessionId, Token};

use super::{At, Check, Verdict};
use crate::event::{Event, Op};

/// Requests without a certain answer, and what was granted.
#[derive(Default)]
pub(super) struct AskedFor {
    open: BTreeMap<Op, SessionId>,
    /// How many requests of a session for a name may have been granted without its client knowing.
    unknown: BTreeMap<(SessionId, String), BTreeSet<Op>>,
    told: BTreeSet<(String, Token)>,
    /// Reads under way: whose requests were open as they began.
    reads: BTreeMap<Op, BTreeSet<SessionId>>,
}

impl AskedFor {
    fn settle(&mut self, op: Op, name: &str, known: bool) {
        if let Some(session) = self.open.remove(&op)
            && known
            && let Some(unknown) = self.unknown.get_mut(&(session, name.to_owned()))
        {
            unknown.remove(&op);
        }
    }

    fn is_explained(&self, name: &str, held: &LockId, began: &BTreeSet<SessionId>) -> bool {
        let unknown = self.unknown.get(&(held.session, name.to_owned()));
        self.told.contains(&(name.to_owned(), held.token))
            || unknown.is_some_and(|unknown| !unknown.is_empty())
            || began.contains(&held.session)
    }
}

impl Check for AskedFor {
    fn name(&self) -> &'static str {
        "no grant that nobody asked for"
    }

    fn event(&mut self, _: At, event: &Event) -> Verdict {
        match event {
            Event::Asked { session, op, name, .. } => {
                self.open.insert(*op, *session);
                self.unknown.entry((*session, name.clone())).or_default().insert(*op);
            }
            Event::Granted { op, name, token, .. } => {
                self.told.insert((name.clone(), *token));
                self.settle(*op, name, true);
            }
            Event::Refused { op, name, known, .. } => self.settle(*op, name, *known),
            Event::ReadBegan { op, name } => {
                let of_name = |((session, of), ops): (&(SessionId, String), &BTreeSet<Op>)| {
                    (of == name && !ops.is_empty()).then_some(*session)
                };
                self.reads.insert(*op, self.unknown.iter().filter_map(of_name).collect());
            }
            Event::ReadFailed { op, .. } => {
                self.reads.remove(op);
            }
            Event::Read { op, name, holders } => {
                let began = self.reads.remove(op).unwrap_or_default();
                if let Some(held) = holders.iter().find(|held| !self.is_explained(name, held, &began)) {
                    return Err(format!(
                        "{name} is held by session {} with token {}, unasked",
                        held.session, held.token
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
