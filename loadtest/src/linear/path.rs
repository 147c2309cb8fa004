//! The path of the configuration that a history is compared with: a register each of whose changes has a version.
//!
//! A change makes the version after the last. A deletion is one, too; a rollback gives the path again what it had at a
//! version, as a new one. A change may be made from an expected version only, 0 where there must be no value. No two
//! values of a history are the same.
//!
//! The first version of a path need not be 1: whoever was forgotten altogether counts on. It is taken to be such that
//! the lowest version that anybody was told fits behind it and changes that nobody was told of.
//!
//! A watch that tells a version is an operation as well, of no length: at that moment the version had been made, and
//! had this content ([`What::Told`]).

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::{At, History, Object, Op, Step};

/// A version of a path.
pub(crate) type Version = u64;
/// A value, by the number that it is.
pub(crate) type Value = u64;

/// So many versions back a rollback must find what it asks for. Beyond that it may.
const KEPT: u64 = 31;

/// What changes a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// It has this value then.
    Put(Value),
    /// It has none then.
    Delete,
    /// It has then what it had at this version.
    Rollback(Version),
}

/// What a path is asked, and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A change that was made; of unknown outcome where it did not return.
    Made {
        /// What it was.
        change: Change,
        /// From which version.
        expected: Option<Version>,
        /// The version that it made.
        version: Version,
    },
    /// A change that nobody knows about.
    Asked {
        /// What it was.
        change: Change,
        /// From which version.
        expected: Option<Version>,
    },
    /// A change that was refused, since the path was at another version.
    Mismatch {
        /// From which.
        expected: Version,
        /// At this; 0 without a value.
        current: Version,
    },
    /// A deletion or a rollback that found nothing to delete or to go back to.
    Missing {
        /// What it was.
        change: Change,
        /// From which version.
        expected: Option<Version>,
    },
    /// A look at the path.
    Read {
        /// Its version and value, if it had one.
        found: Option<(Version, Value)>,
    },
    /// A watch told of a version.
    Told {
        /// Which.
        version: Version,
        /// Its value; `None`: a deletion.
        value: Option<Value>,
    },
}

/// The state of the path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// Its first version is above this.
    base: Version,
    last: Version,
    /// What changes have made of which nobody was told.
    silent: Vec<(Version, Option<Value>)>,
}

/// What the whole history says of versions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// Changes that were made for sure.
    made: BTreeMap<Version, Change>,
    /// What somebody saw a version to be.
    seen: BTreeMap<Version, Option<Value>>,
    /// The first version that somebody saw a value as: it was put then or before.
    values: BTreeMap<Value, Version>,
    /// The highest version that anybody was told of.
    highest: Version,
    /// How many changes nobody knows the outcome of.
    asked: u64,
}

impl Known {
    /// The lowest version that anybody was told.
    fn lowest(&self) -> Option<Version> {
        let made = self.made.first_key_value().map(|(version, _)| *version);
        let seen = self.seen.first_key_value().map(|(version, _)| *version);
        made.into_iter().chain(seen).min()
    }
}

impl Object for What {
    const KIND: &'static str = "path";
    type State = State;
    type Known = Known;

    fn know(history: &History<What>) -> Known {
        let mut known = Known::default();
        for op in &history.ops {
            match op.what {
                What::Made { change, version, .. } if op.is_certain() => drop(known.made.insert(version, change)),
                What::Read { found: Some((version, value)) } if op.is_certain() => {
                    known.seen.insert(version, Some(value));
                }
                What::Told { version, value } if op.is_certain() => drop(known.seen.insert(version, value)),
                What::Made { .. } | What::Asked { .. } => known.asked += 1,
                _ => {}
            }
            if op.is_certain() {
                known.highest = known.highest.max(op.what.about().unwrap_or(0));
            }
        }
        for (version, value) in &known.seen {
            if let Some(value) = value {
                known.values.entry(*value).or_insert(*version);
            }
        }
        known
    }

    fn first(known: &Known) -> Vec<State> {
        let below = known.lowest().unwrap_or(1).saturating_sub(1);
        let silent = known.asked.min(below);
        (0..=silent)
            .rev()
            .map(|unseen| below - unseen)
            .map(|base| State { base, last: base, silent: Vec::new() })
            .collect()
    }

    fn is_told(&self) -> bool {
        !matches!(self, What::Asked { .. })
    }

    fn may_change(&self) -> bool {
        matches!(self, What::Made { .. } | What::Asked { .. })
    }

    fn rank(&self) -> Option<Version> {
        match *self {
            What::Made { version, .. } => Some(version),
            _ => None,
        }
    }

    fn last(state: &State) -> Version {
        state.last
    }

    fn about(&self) -> Option<Version> {
        match *self {
            What::Made { version, .. } | What::Told { version, .. } => Some(version),
            What::Mismatch { current, .. } => Some(current),
            What::Read { found } => found.map(|(version, _)| version),
            What::Asked { .. } | What::Missing { .. } => None,
        }
    }

    fn matters(_: &Op<What>, _: &[&Op<What>], _: &[Version]) -> Option<usize> {
        Some(usize::MAX)
    }

    fn step(state: &State, op: &Op<What>, known: &Known, _: At) -> Step<State> {
        let observed = |is: bool| if is { Step::Observed } else { Step::Impossible };
        match op.what {
            What::Made { change, expected, version } => match state.changed(change, expected, known) {
                Some(next) if next.last == version => Step::To(next),
                _ => Step::Impossible,
            },
            // Who makes a version that somebody was told to have made is known.
            What::Asked { .. } if known.made.contains_key(&(state.last + 1)) => Step::Impossible,
            What::Asked { change, expected } => match state.changed(change, expected, known) {
                Some(next) if next.fits(change, known) => Step::To(next),
                _ => Step::Impossible,
            },
            What::Mismatch { expected, current } => observed(state.version(known) == current && expected != current),
            What::Missing { change, expected } => observed(
                expected.is_none_or(|expected| expected == state.version(known)) && state.may_be_missing(change, known),
            ),
            What::Read { found } => observed(state.current(known) == found),
            What::Told { version, value } => {
                observed(state.base < version && version <= state.last && state.at(version, known) == value)
            }
        }
    }

    fn is_past(state: &State, op: &Op<What>, known: &Known) -> bool {
        match op.what {
            What::Made { version, .. } => version <= state.last,
            What::Asked { change: Change::Put(value), .. } => {
                known.values.get(&value).is_some_and(|version| *version <= state.last)
            }
            _ => false,
        }
    }

    fn words(&self, known: bool) -> String {
        let perhaps = if known { "" } else { " (perhaps)" };
        let from = |expected: Option<Version>| expected.map_or_else(String::new, |version| format!(" from {version}"));
        let say = |change: Change| match change {
            Change::Put(value) => format!("put {value}"),
            Change::Delete => "delete".to_owned(),
            Change::Rollback(to) => format!("roll back to {to}"),
        };
        match *self {
            What::Made { change, expected, version } => {
                format!("{}{}: version {version}{perhaps}", say(change), from(expected))
            }
            What::Asked { change, expected } => format!("{}{}: outcome unknown", say(change), from(expected)),
            What::Mismatch { expected, current } => format!("change from {expected}: refused, it is at {current}"),
            What::Missing { change, expected } => format!("{}{}: there is nothing", say(change), from(expected)),
            What::Read { found: Some((version, value)) } => format!("read: version {version} is {value}"),
            What::Read { found: None } => "read: no value".to_owned(),
            What::Told { version, value: Some(value) } => format!("a watch told: version {version} is {value}"),
            What::Told { version, value: None } => format!("a watch told: version {version} is a deletion"),
        }
    }
}

impl State {
    /// What a version is, which has been made.
    fn at(&self, mut version: Version, known: &Known) -> Option<Value> {
        loop {
            if let Some((_, value)) = self.silent.iter().find(|(silent, _)| *silent == version) {
                return *value;
            }
            match known.made.get(&version)? {
                Change::Put(value) => return Some(*value),
                Change::Delete => return None,
                // Further back each time.
                Change::Rollback(to) if *to < version => version = *to,
                Change::Rollback(_) => return None,
            }
        }
    }

    fn current(&self, known: &Known) -> Option<(Version, Value)> {
        Some((self.last, self.at(self.last, known).filter(|_| self.last > self.base)?))
    }

    /// What changes are compared with.
    fn version(&self, known: &Known) -> Version {
        self.current(known).map_or(0, |(version, _)| version)
    }

    /// What a rollback finds.
    fn back(&self, to: Version, known: &Known) -> Option<Value> {
        self.at(to, known).filter(|_| self.base < to && to <= self.last)
    }

    fn may_be_missing(&self, change: Change, known: &Known) -> bool {
        match change {
            Change::Put(_) => false,
            Change::Delete => self.current(known).is_none(),
            Change::Rollback(to) => self.back(to, known).is_none() || self.last - to > KEPT,
        }
    }

    /// The state after a change, if it can be made.
    fn changed(&self, change: Change, expected: Option<Version>, known: &Known) -> Option<State> {
        if expected.is_some_and(|expected| expected != self.version(known)) {
            return None;
        }
        let value = match change {
            Change::Put(value) => Some(value),
            Change::Delete => {
                self.current(known)?;
                None
            }
            Change::Rollback(to) => Some(self.back(to, known)?),
        };
        let mut next = State { last: self.last + 1, ..self.clone() };
        if next.last > known.highest {
            // Nobody has seen it but by whether there was a value: that makes one state of many.
            next.silent.retain(|(version, _)| *version <= known.highest);
            next.silent.push((next.last, value.and(Some(0))));
        } else if known.made.get(&next.last) != Some(&change) {
            next.silent.push((next.last, value));
        }
        Some(next)
    }

    /// Whether the version that a change of unknown outcome has made last can be what was seen of it.
    fn fits(&self, change: Change, known: &Known) -> bool {
        let value = self.at(self.last, known);
        let as_seen = known.seen.get(&self.last).is_none_or(|seen| *seen == value);
        let once = match change {
            Change::Put(value) => known.values.get(&value).is_none_or(|version| self.last <= *version),
            _ => true,
        };
        as_seen && once
    }
}
