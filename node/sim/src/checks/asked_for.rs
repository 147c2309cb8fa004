//! Nobody holds what he did not ask for: each grant that a read shows has been told to its session's client, or
//! belongs to a request of that session which has no certain answer.
//!
//! Where messages come twice, which no connection of the product's does, a request that a replica has refused before it
//! was proposed may come to it again when it leads: until the cluster is well, such a refusal is no certain answer.

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
    /// Messages may come twice.
    copies: bool,
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
            Event::Refused { op, name, known, why, .. } => {
                self.settle(*op, name, *known && !(self.copies && is_unproposed(why)));
            }
            Event::Fault { what } => self.copies |= what.starts_with("Twice"),
            Event::Well => self.copies = false,
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

/// Whether a request was refused without an outcome: by replicas that did not propose it.
fn is_unproposed(why: &str) -> bool {
    ["unavailable", "overloaded", "no node answers", "the disk is nearly full"].iter().any(|one| why.starts_with(one))
}

#[cfg(test)]
mod tests {
    use wardlock_machine::{Key, Mode, Name};

    use super::*;

    /// Whether a read may show a grant to a session whose only request was refused so.
    fn may_hold(copies: bool, why: &str) -> bool {
        let (mut check, at) = (AskedFor::default(), At::default());
        let (session, name) = (SessionId(1), "n/0".to_owned());
        let key = Key::lock(Name::new(&name).expect("a name"));
        if copies {
            check.event(at, &Event::Fault { what: "Twice 1 1".into() }).expect("nothing is shown yet");
        }
        let asked = Event::Asked { client: 1, session, op: 1, name: name.clone(), mode: Mode::Exclusive, waits: true };
        check.event(at, &asked).expect("nothing is shown yet");
        let refused = Event::Refused { client: 1, op: 1, name: name.clone(), why: why.into(), known: true };
        check.event(at, &refused).expect("nothing is shown yet");
        check.event(at, &Event::ReadBegan { op: 2, name: name.clone() }).expect("nothing is shown yet");
        check.event(at, &Event::Read { op: 2, name, holders: vec![LockId::new(session, Token(7), &key)] }).is_ok()
    }

    #[test]
    fn a_refused_request_is_granted_only_where_its_copy_may_have_come() {
        assert!(!may_hold(false, "unavailable: the shard's leader moves"));
        assert!(may_hold(true, "unavailable: the shard's leader moves"));
        assert!(!may_hold(true, "somebody else holds it"), "an outcome is certain");
    }
}
