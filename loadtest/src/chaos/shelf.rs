//! The names in use, and what was asked about each until it is closed.
//!
//! A name is used for some seconds, by many, and then retired: nobody asks about it anew, and when the last who does has
//! been answered, a last look is taken at it and its whole history goes to the checker. So the memory of a run does not
//! grow with its length, and each verdict is about a history from its very beginning.

use std::{collections::BTreeMap, time::Duration};

use super::book::Name;
use crate::{
    linear::{At, Op},
    workload::Dice,
};

/// A name is used for at least and at most so long.
const LIFE: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(16));
/// Or until so many operations were about it.
const OPERATIONS: usize = 4_000;

/// Objects of one sort.
#[derive(Debug)]
pub(super) struct Shelf<W> {
    /// The names in use.
    current: Vec<Name>,
    names: BTreeMap<Name, Known<W>>,
    next: Name,
}

#[derive(Debug)]
struct Known<W> {
    ops: Vec<Op<W>>,
    /// Who is about to ask, waits for an answer or holds it.
    users: u32,
    retired: bool,
    until: At,
}

impl<W> Shelf<W> {
    /// With so many names in use.
    pub(super) fn new(count: usize, now: At, dice: &mut Dice) -> Shelf<W> {
        let mut shelf = Shelf { current: vec![0; count], names: BTreeMap::new(), next: 0 };
        (0..count).for_each(|slot| shelf.renew_slot(slot, now, dice));
        shelf
    }

    fn renew_slot(&mut self, slot: usize, now: At, dice: &mut Dice) {
        let name = self.next;
        self.next += 1;
        let until = now + LIFE.0 + (LIFE.1 - LIFE.0).mul_f64(dice.unit());
        self.names.insert(name, Known { ops: Vec::new(), users: 0, retired: false, until });
        self.current[slot] = name;
    }

    /// Some name in use, to ask about, and whether it is a new one. [`Shelf::leave`] ends the use.
    pub(super) fn any(&mut self, now: At, dice: &mut Dice) -> (Name, bool) {
        let slot = dice.below(self.current.len() as u64) as usize;
        let known = self.names.get_mut(&self.current[slot]);
        let over = known.filter(|known| known.until <= now || known.ops.len() >= OPERATIONS);
        let renewed = over.map(|known| known.retired = true).is_some();
        if renewed {
            self.renew_slot(slot, now, dice);
        }
        let name = self.current[slot];
        if let Some(known) = self.names.get_mut(&name) {
            known.users += 1;
        }
        (name, renewed)
    }

    /// The names in use.
    pub(super) fn in_use(&self) -> &[Name] {
        &self.current
    }

    /// Retires every name.
    pub(super) fn retire_all(&mut self) {
        self.names.values_mut().for_each(|known| known.retired = true);
    }

    pub(super) fn leave(&mut self, name: Name) {
        if let Some(known) = self.names.get_mut(&name) {
            known.users -= 1;
        }
    }

    pub(super) fn record(&mut self, name: Name, op: Op<W>) {
        if let Some(known) = self.names.get_mut(&name) {
            known.ops.push(op);
        }
    }

    /// Retired names that nobody uses, at most so many: each is to be looked at once more and then closed.
    pub(super) fn closing(&mut self, most: usize) -> Vec<Name> {
        let idle = self.names.iter_mut().filter(|(_, known)| known.retired && known.users == 0).take(most);
        idle.map(|(name, known)| {
            known.users += 1;
            *name
        })
        .collect()
    }

    /// The whole history of a name, which is then forgotten.
    pub(super) fn close(&mut self, name: Name) -> Vec<Op<W>> {
        self.names.remove(&name).map(|known| known.ops).unwrap_or_default()
    }

    /// How many names are not checked yet.
    pub(super) fn open_names(&self) -> usize {
        self.names.len()
    }
}
