//! The locks of a shard: by name, by place, and in the order of their names.
//!
//! A lock that nobody uses is no part of the state (invariant 8). Its place rests for a while all the same:
//! a name that was used is likely to be used again, and entering a name into the order of names costs more
//! than all else in a grant. What rests is shown nowhere, is not in the snapshot, and is bounded.

use std::{
    collections::{BTreeSet, VecDeque},
    ops::Bound,
};

use crate::{
    ids::*,
    lock::Lock,
    table::{At, Table},
};

/// The most places that rest.
const RESTING: usize = 512;

/// Where a lock lies.
pub(crate) type LockAt = At<Key>;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Locks {
    table: Table<Key, Lock>,
    /// The names in the table, those of resting places too.
    names: BTreeSet<Key>,
    /// Places that were idle, longest ago first, each once; some may be in use again.
    resting: VecDeque<LockAt>,
}

impl Locks {
    /// The place of a name, though it may be at rest.
    pub(crate) fn find(&self, key: &Key) -> Option<LockAt> {
        self.table.find(key)
    }

    /// The lock of a name, if it is in use.
    pub(crate) fn get(&self, key: &Key) -> Option<&Lock> {
        self.table.get(key).filter(|lock| !lock.is_idle())
    }

    /// The lock at a place, with its name.
    pub(crate) fn entry(&self, at: LockAt) -> (&Key, &Lock) {
        self.table.entry(at)
    }

    /// The same, to change it.
    pub(crate) fn entry_mut(&mut self, at: LockAt) -> (&Key, &mut Lock) {
        self.table.entry_mut(at)
    }

    /// A place for a name that has none.
    pub(crate) fn enter(&mut self, key: Key, lock: Lock) -> LockAt {
        self.names.insert(key.clone());
        self.table.insert(key, lock)
    }

    /// Lets an idle lock's place rest, and gives up the one that rests longest where there are too many.
    pub(crate) fn rest(&mut self, at: LockAt) {
        let lock = self.table.entry_mut(at).1;
        assert!(lock.is_idle(), "invariant 8: only what is idle rests");
        let queued = std::mem::replace(lock, Lock { queued: true, ..Lock::default() }).queued;
        if queued {
            return;
        }
        self.resting.push_back(at);
        if self.resting.len() > RESTING
            && let Some(oldest) = self.resting.pop_front()
        {
            let lock = self.table.entry_mut(oldest).1;
            lock.queued = false;
            if lock.is_idle() {
                let (key, _) = self.table.remove(oldest);
                self.names.remove(&key);
            }
        }
    }

    /// The locks in use from a bound on, in the order of their names.
    pub(crate) fn range(&self, from: Bound<Key>) -> impl Iterator<Item = (&Key, &Lock)> {
        self.names.range((from, Bound::Unbounded)).filter_map(|key| Some((key, self.get(key)?)))
    }

    /// All locks in use, in the order of their names.
    pub(crate) fn sorted(&self) -> Vec<(&Key, &Lock)> {
        self.names.iter().filter_map(|key| Some((key, self.get(key)?))).collect()
    }
}
