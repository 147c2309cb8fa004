//! What one session has at some locks: an index of pairs, ordered by the locks' places.
//!
//! A session has few things in one shard, so this is a row searched by bisection. At the limit of ten
//! thousand a change moves 160 KB at the most, a few microseconds.

use crate::locks::LockAt;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Links<T>(Vec<(LockAt, T)>);

impl<T> Default for Links<T> {
    fn default() -> Links<T> {
        Links(Vec::new())
    }
}

impl<T: Copy> Links<T> {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn index(&self, at: LockAt) -> Result<usize, usize> {
        self.0.binary_search_by_key(&at, |link| link.0)
    }

    pub(crate) fn get(&self, at: LockAt) -> Option<T> {
        self.index(at).ok().map(|index| self.0[index].1)
    }

    /// Adds a link, unless there is one to the same lock.
    pub(crate) fn add(&mut self, at: LockAt, link: T) -> bool {
        let Err(index) = self.index(at) else { return false };
        if self.0.is_empty() {
            // Mostly there is one: the usual first capacity of four would be mostly air.
            self.0.reserve_exact(1);
        }
        self.0.insert(index, (at, link));
        true
    }

    pub(crate) fn remove(&mut self, at: LockAt) -> Option<T> {
        self.index(at).ok().map(|index| self.0.remove(index).1)
    }

    /// In no order that means anything: the places of equal replicas differ.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (LockAt, T)> {
        self.0.iter().copied()
    }
}
