//! All that a `Tick` may have to end, in the order of time.
//!
//! One ordered set for each kind of thing keeps the entries small: a hundred thousand leases are a
//! hundred thousand pairs of numbers. The sets are an index; the things themselves know their ends.

use std::collections::BTreeSet;

use crate::{ids::*, queue::Place};

/// Something whose end has come.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Due {
    /// The grant of this token ends.
    Lease(Token),
    /// The lock may be granted again.
    Delay(Key),
    /// The waiter gives up.
    Wait(Key, Place),
    /// The keyed answer is forgotten.
    Answer(SessionId, u128),
}

/// The index of ends.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Deadlines {
    leases: BTreeSet<(Stamp, Token)>,
    delays: BTreeSet<(Stamp, Key)>,
    waits: BTreeSet<(Stamp, Place, Key)>,
    answers: BTreeSet<(Stamp, SessionId, u128)>,
}

impl Deadlines {
    /// The first end, and of what. At one moment leases come before delays, and both before waits: who
    /// waited to the very end still gets what became free then.
    pub(crate) fn first(&self) -> Option<(Stamp, Due)> {
        let at = self.next()?;
        if let Some((_, token)) = self.leases.first().filter(|first| first.0 == at) {
            return Some((at, Due::Lease(*token)));
        }
        if let Some((_, key)) = self.delays.first().filter(|first| first.0 == at) {
            return Some((at, Due::Delay(key.clone())));
        }
        if let Some((_, place, key)) = self.waits.first().filter(|first| first.0 == at) {
            return Some((at, Due::Wait(key.clone(), *place)));
        }
        self.answers.first().map(|(at, session, key)| (*at, Due::Answer(*session, *key)))
    }

    /// What is waited for: the locks, each as often as it has waiters.
    pub(crate) fn waits(&self) -> impl Iterator<Item = &Key> {
        self.waits.iter().map(|(_, _, key)| key)
    }

    /// When the first end is.
    pub(crate) fn next(&self) -> Option<Stamp> {
        [
            self.leases.first().map(|first| first.0),
            self.delays.first().map(|first| first.0),
            self.waits.first().map(|first| first.0),
            self.answers.first().map(|first| first.0),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether anything runs whose length somebody relies on. Keyed answers may live longer.
    pub(crate) fn keeps_time(&self) -> bool {
        !(self.leases.is_empty() && self.delays.is_empty() && self.waits.is_empty())
    }

    pub(crate) fn add_lease(&mut self, at: Stamp, token: Token) {
        let new = self.leases.insert((at, token));
        assert!(new, "invariant 6: the lease of token {token} was indexed twice");
    }

    pub(crate) fn remove_lease(&mut self, at: Stamp, token: Token) {
        let known = self.leases.remove(&(at, token));
        assert!(known, "invariant 6: the lease of token {token} was not indexed");
    }

    pub(crate) fn add_delay(&mut self, at: Stamp, key: &Key) {
        let new = self.delays.insert((at, key.clone()));
        assert!(new, "invariant 6: the lock-delay of {} was indexed twice", key.name);
    }

    pub(crate) fn remove_delay(&mut self, at: Stamp, key: &Key) {
        let known = self.delays.remove(&(at, key.clone()));
        assert!(known, "invariant 6: the lock-delay of {} was not indexed", key.name);
    }

    pub(crate) fn add_wait(&mut self, at: Stamp, place: Place, key: &Key) {
        let new = self.waits.insert((at, place, key.clone()));
        assert!(new, "invariant 6: a waiter for {} was indexed twice", key.name);
    }

    pub(crate) fn remove_wait(&mut self, at: Stamp, place: Place, key: &Key) {
        let known = self.waits.remove(&(at, place, key.clone()));
        assert!(known, "invariant 6: a waiter for {} was not indexed", key.name);
    }

    pub(crate) fn add_answer(&mut self, at: Stamp, session: SessionId, key: u128) {
        let new = self.answers.insert((at, session, key));
        assert!(new, "invariant 6: a keyed answer of {session} was indexed twice");
    }

    pub(crate) fn remove_answer(&mut self, at: Stamp, session: SessionId, key: u128) {
        let known = self.answers.remove(&(at, session, key));
        assert!(known, "invariant 6: a keyed answer of {session} was not indexed");
    }

    /// How many keyed answers the shard keeps.
    pub(crate) fn answer_count(&self) -> usize {
        self.answers.len()
    }

    /// The oldest keyed answer.
    pub(crate) fn oldest_answer(&self) -> Option<(SessionId, u128)> {
        self.answers.first().map(|(_, session, key)| (*session, *key))
    }
}
