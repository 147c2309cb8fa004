//! No stale read is older than it says: what was acknowledged more than its age before it began is in it, and none is
//! older than was asked for. One that says nothing of its age may be of any time, but of no other history.

use std::{collections::BTreeMap, time::Duration};

use super::{At, Check, Verdict};
use crate::event::{Event, Op};

/// One path.
#[derive(Default)]
struct Path {
    /// Which version was known to have been made, since when; each higher than the one before.
    known: Vec<(At, u64)>,
    /// Deletions whose outcome nobody knows, yet or for ever.
    deleting: BTreeMap<Op, ()>,
    /// Versions that are deletions.
    deleted: Vec<u64>,
    /// What each version is, as far as anybody was told.
    values: BTreeMap<u64, Option<String>>,
}

impl Path {
    fn learn(&mut self, at: At, version: u64) {
        if self.known.last().is_none_or(|(_, known)| *known < version) {
            self.known.push((at, version));
        }
    }

    /// The highest version that was known to have been made at some time.
    fn known_at(&self, at: At) -> u64 {
        let after = self.known.partition_point(|(since, _)| *since <= at);
        after.checked_sub(1).map_or(0, |last| self.known[last].1)
    }

    /// Whether it may have had no value at some moment since `known` was its version.
    fn may_be_empty(&self, known: u64) -> bool {
        known == 0 || !self.deleting.is_empty() || self.deleted.iter().any(|version| *version >= known)
    }
}

/// All paths, and the reads under way with when they began and the age that they allow.
#[derive(Default)]
pub(super) struct Stale {
    paths: BTreeMap<String, Path>,
    reads: BTreeMap<Op, (At, Option<u64>)>,
    /// Reads that did not see the latest: without any the check shows nothing.
    old: u64,
}

impl Stale {
    fn path(&mut self, path: &str) -> &mut Path {
        self.paths.entry(path.to_owned()).or_default()
    }

    fn read(&mut self, op: Op, path: &str, version: u64, value: Option<&String>, age: Option<u64>) -> Verdict {
        let Some((began, max_age)) = self.reads.remove(&op) else { return Ok(()) };
        let state = self.path(path);
        if version > 0
            && let Some(made) = state.values.get(&version)
            && made.as_ref() != value
        {
            return Err(format!("{path}: version {version} is {made:?}, and a stale read saw {value:?}"));
        }
        let latest = state.known.last().map_or(0, |(_, version)| *version);
        let Some(age) = age else {
            return match max_age {
                Some(most) => Err(format!("{path}: {most} ms were allowed, and the age is not known")),
                None => Ok(()),
            };
        };
        if let Some(most) = max_age.filter(|most| age > *most) {
            return Err(format!("{path}: {most} ms were allowed, and the answer is {age} ms old"));
        }
        // The age is told in whole milliseconds, rounded up.
        let since = began.saturating_sub(Duration::from_millis(age));
        let known = state.known_at(since);
        match version {
            0 if !state.may_be_empty(known) => {
                Err(format!("{path}: a read of {age} ms saw no value, and version {known} had been made at {since:?}"))
            }
            1.. if version < known => {
                Err(format!("{path}: a read of {age} ms saw version {version}, and {known} had been made at {since:?}"))
            }
            _ => {
                self.old += u64::from(version > 0 && version < latest);
                Ok(())
            }
        }
    }
}

impl Check for Stale {
    fn name(&self) -> &'static str {
        "stale reads say their age"
    }

    fn event(&mut self, at: At, event: &Event) -> Verdict {
        match event {
            Event::PathAsked { op, path, deletes: true, .. } => {
                self.path(path).deleting.insert(*op, ());
            }
            Event::PathChanged { op, path, version, value } => {
                let state = self.path(path);
                state.deleting.remove(op);
                if value.is_none() {
                    state.deleted.push(*version);
                }
                state.values.insert(*version, value.clone());
                state.learn(at, *version);
            }
            Event::PathMismatch { op, path, .. } | Event::PathRefused { op, path, known: true, .. } => {
                self.path(path).deleting.remove(op);
            }
            Event::PathRead { path, version, value, .. } if *version > 0 => {
                let state = self.path(path);
                state.values.insert(*version, value.clone());
                state.learn(at, *version);
            }
            Event::StaleBegan { op, max_age, .. } => {
                self.reads.insert(*op, (at, *max_age));
            }
            Event::StaleFailed { op, .. } => {
                self.reads.remove(op);
            }
            Event::StaleRead { op, path, version, value, age } => {
                return self.read(*op, path, *version, value.as_ref(), *age);
            }
            _ => {}
        }
        Ok(())
    }

    fn count(&self) -> Option<(&'static str, u64)> {
        Some(("stale reads that saw an older version", self.old))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two versions, made at one and at three seconds, and a read that begins at four.
    fn read(version: u64, value: Option<&str>, age: Option<u64>, max_age: Option<u64>) -> Verdict {
        let mut check = Stale::default();
        let path = || String::from("p");
        let put = |op| Event::PathAsked { client: 1, op, path: path(), expected: None, deletes: false };
        let made = |op, version| Event::PathChanged { op, path: path(), version, value: Some(version.to_string()) };
        let events = [(0, put(1)), (1, made(1, 1)), (2, put(2)), (3, made(2, 2))];
        for (at, event) in events {
            check.event(At::from_secs(at), &event)?;
        }
        check.event(At::from_secs(4), &Event::StaleBegan { op: 3, path: path(), max_age })?;
        let value = value.map(str::to_owned);
        check.event(At::from_secs(5), &Event::StaleRead { op: 3, path: path(), version, value, age })
    }

    #[test]
    fn what_may_happen_is_no_alarm() {
        assert_eq!(read(2, Some("2"), Some(0), Some(0)), Ok(()));
        assert_eq!(read(1, Some("1"), Some(1_001), None), Ok(()));
        assert_eq!(read(0, None, Some(3_001), None), Ok(()));
        assert_eq!(read(0, None, None, None), Ok(()));
        assert_eq!(read(9, Some("9"), Some(0), None), Ok(()), "made, and not acknowledged yet");
    }

    #[test]
    fn what_must_not_happen_is_seen() {
        assert!(read(1, Some("1"), Some(999), None).is_err(), "it is older than it says");
        assert!(read(0, None, Some(2_999), None).is_err(), "it is older than it says");
        assert!(read(2, Some("2"), Some(11), Some(10)).is_err(), "it is older than was allowed");
        assert!(read(2, Some("2"), None, Some(10)).is_err(), "it does not say what was asked for");
        assert!(read(1, Some("x"), None, None).is_err(), "it never was so");
    }
}
