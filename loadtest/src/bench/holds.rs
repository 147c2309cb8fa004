//! The locks that are held, and what is to be done about them when.
//!
//! Locks with a hold time are released in the order in which their times end, by whichever client has a write
//! to do next. Locks that are held until the client's next write are kept by their client, as an [`Id`].
//! Locks with a lease are renewed when half of it has passed, wherever they are kept.
//!
//! An [`Id`] stands for one holding; once that is taken out, nothing finds it any more.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
    time::Instant,
};

use crate::target::Grant;

/// A lock that is held.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Holding {
    pub(crate) session: u32,
    pub(crate) name: u64,
    pub(crate) grant: Grant,
}

/// The name of a holding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id {
    slot: u32,
    turn: u32,
}

#[derive(Debug, Default)]
struct Slot {
    turn: u32,
    holding: Option<Holding>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Holds {
    slots: Vec<Slot>,
    free: Vec<u32>,
    releases: BTreeSet<(Instant, Id)>,
    renewals: BinaryHeap<Reverse<(Instant, Id)>>,
}

impl Holds {
    /// Keeps a holding, until `until` where that is known.
    pub(crate) fn add(&mut self, holding: Holding, until: Option<Instant>) -> Id {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            (self.slots.len() - 1) as u32
        });
        let entry = &mut self.slots[slot as usize];
        entry.holding = Some(holding);
        let id = Id { slot, turn: entry.turn };
        if let Some(until) = until {
            self.releases.insert((until, id));
        }
        id
    }

    /// Takes a holding out, if it is still there.
    pub(crate) fn take(&mut self, id: Id) -> Option<Holding> {
        let entry = self.slots.get_mut(id.slot as usize).filter(|entry| entry.turn == id.turn)?;
        let holding = entry.holding.take()?;
        entry.turn = entry.turn.wrapping_add(1);
        self.free.push(id.slot);
        Some(holding)
    }

    /// Takes out the holding whose time ended first, if it did by `now`.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Holding> {
        loop {
            let first = *self.releases.first().filter(|(until, _)| *until <= now)?;
            self.releases.remove(&first);
            if let Some(holding) = self.take(first.1) {
                return Some(holding);
            }
        }
    }

    /// A holding is to be renewed at `at`.
    pub(crate) fn renew_at(&mut self, id: Id, at: Instant) {
        self.renewals.push(Reverse((at, id)));
        // Most holdings end long before.
        if self.renewals.len() > 1_024 + 4 * (self.slots.len() - self.free.len()) {
            let slots = &self.slots;
            let lives = |id: Id| slots.get(id.slot as usize).is_some_and(|entry| entry.turn == id.turn);
            self.renewals.retain(|Reverse((_, id))| lives(*id));
        }
    }

    /// A holding that is to be renewed by `now`.
    pub(crate) fn next_renewal(&mut self, now: Instant) -> Option<(Id, Holding)> {
        while let Some(Reverse((at, id))) = self.renewals.peek().copied()
            && at <= now
        {
            self.renewals.pop();
            let entry = self.slots.get(id.slot as usize).filter(|entry| entry.turn == id.turn);
            if let Some(holding) = entry.and_then(|entry| entry.holding) {
                return Some((id, holding));
            }
        }
        None
    }

    /// Takes out everything.
    pub(crate) fn take_all(&mut self) -> Vec<Holding> {
        self.releases.clear();
        self.renewals.clear();
        let ids: Vec<Id> = (0..).zip(&self.slots).map(|(slot, entry)| Id { slot, turn: entry.turn }).collect();
        ids.into_iter().filter_map(|id| self.take(id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn holding(name: u64) -> Holding {
        Holding { session: 0, name, grant: Grant::default() }
    }

    #[test]
    fn holdings_are_released_in_the_order_of_their_times_and_once() {
        let mut holds = Holds::default();
        let now = Instant::now();
        let later = |ms| now + Duration::from_millis(ms);
        holds.add(holding(1), Some(later(20)));
        let gone = holds.add(holding(2), Some(later(5)));
        holds.add(holding(3), Some(later(10)));
        let kept = holds.add(holding(4), None);
        assert_eq!(holds.take_due(now), None);
        assert_eq!(holds.take(gone), Some(holding(2)));
        assert_eq!(holds.take(gone), None);
        // The slot has another holding now, which the old id does not find.
        holds.add(holding(5), Some(later(40)));
        assert_eq!(holds.take(gone), None);
        assert_eq!(holds.take_due(later(30)), Some(holding(3)));
        assert_eq!(holds.take_due(later(30)), Some(holding(1)));
        assert_eq!(holds.take_due(later(30)), None);
        assert_eq!(holds.take(kept), Some(holding(4)));
        assert_eq!(holds.take_all(), [holding(5)]);
    }

    #[test]
    fn only_what_is_held_is_renewed() {
        let mut holds = Holds::default();
        let now = Instant::now();
        let (first, second) = (holds.add(holding(1), None), holds.add(holding(2), None));
        holds.renew_at(first, now);
        holds.renew_at(second, now);
        holds.take(first);
        assert_eq!(holds.next_renewal(now), Some((second, holding(2))));
        assert_eq!(holds.next_renewal(now), None);
    }

    #[test]
    fn renewals_of_what_is_gone_do_not_pile_up() {
        let mut holds = Holds::default();
        let later = Instant::now() + Duration::from_secs(3_600);
        for name in 0..100_000 {
            let id = holds.add(holding(name), None);
            holds.renew_at(id, later);
            holds.take(id);
        }
        assert!(holds.renewals.len() < 2_000, "{}", holds.renewals.len());
    }
}
