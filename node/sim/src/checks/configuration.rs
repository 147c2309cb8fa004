//! The configuration is linearizable: a path's versions each have one value, reads and changes see what was
//! acknowledged before they began, a change from a version follows just that version, and none is made twice.

use std::collections::BTreeMap;

use super::{At, Check, Verdict};
use crate::event::{Event, Op};

/// A change.
#[derive(Clone, Copy, Debug)]
struct Change {
    deletes: bool,
    expected: Option<u64>,
    /// The highest version that was acknowledged before it began.
    known: u64,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// It is under way, or nobody knows what came of it.
    Open,
    /// It changed nothing.
    Nothing,
    /// It made this version.
    Made(u64),
}

/// One path.
#[derive(Default)]
struct Path {
    changes: BTreeMap<Op, Change>,
    /// What each version is, as far as anybody was told: a value, or a deletion.
    versions: BTreeMap<u64, Option<String>>,
    /// At which version each value was seen.
    values: BTreeMap<String, u64>,
    /// The highest version that was acknowledged or read.
    known: u64,
}

impl Path {
    /// Somebody was told what a version is.
    fn learn(&mut self, version: u64, value: Option<&String>) -> Verdict {
        if let Some(before) = self.versions.insert(version, value.cloned())
            && before.as_ref() != value
        {
            return Err(format!("version {version} is {value:?} and was {before:?}"));
        }
        if let Some(value) = value
            && let Some(before) = self.values.insert(value.clone(), version)
            && before != version
        {
            return Err(format!("{value} was put once, and is version {before} and {version}"));
        }
        self.known = self.known.max(version);
        Ok(())
    }

    /// Whether the path may have had no value at some moment since `known` was its version.
    fn may_be_empty(&self, known: u64) -> bool {
        let gone = |change: &Change| match change.fate {
            Fate::Open => change.deletes,
            Fate::Nothing => false,
            Fate::Made(version) => change.deletes && version >= known,
        };
        known == 0 || self.changes.values().any(gone)
    }
}

/// All paths, and the reads under way with what was known when each began.
#[derive(Default)]
pub(super) struct Configuration {
    paths: BTreeMap<String, Path>,
    reads: BTreeMap<Op, u64>,
}

impl Configuration {
    fn path(&mut self, path: &str) -> &mut Path {
        self.paths.entry(path.to_owned()).or_default()
    }

    fn read(&mut self, op: Op, path: &str, version: u64, value: Option<&String>) -> Verdict {
        let Some(known) = self.reads.remove(&op) else { return Ok(()) };
        let state = self.path(path);
        match version {
            0 if state.may_be_empty(known) => Ok(()),
            0 => Err(format!("a read saw no value, and version {known} was acknowledged before it began")),
            _ if version < known => Err(format!("a read saw version {version} after {known} had been acknowledged")),
            _ => state.learn(version, value),
        }
    }

    fn made(&mut self, op: Op, path: &str, version: u64, value: Option<&String>) -> Verdict {
        let state = self.path(path);
        let Some(change) = state.changes.get_mut(&op) else { return Ok(()) };
        change.fate = Fate::Made(version);
        let Change { expected, known, .. } = *change;
        if version <= known {
            return Err(format!("a change made version {version} after {known} had been acknowledged"));
        }
        if let Some(expected) = expected.filter(|expected| *expected > 0)
            && version != expected + 1
        {
            return Err(format!("a change from version {expected} made version {version}"));
        }
        state.learn(version, value)
    }
}

impl Check for Configuration {
    fn name(&self) -> &'static str {
        "linearizable configuration"
    }

    fn event(&mut self, _: At, event: &Event) -> Verdict {
        let verdict = match event {
            Event::PathAsked { op, path, expected, deletes, .. } => {
                let state = self.path(path);
                let (deletes, expected, known) = (*deletes, *expected, state.known);
                state.changes.insert(*op, Change { deletes, expected, known, fate: Fate::Open });
                Ok(())
            }
            Event::PathChanged { op, path, version, value } => self.made(*op, path, *version, value.as_ref()),
            Event::PathMismatch { op, path, current } => {
                let state = self.path(path);
                let Some(change) = state.changes.get_mut(op) else { return Ok(()) };
                change.fate = Fate::Nothing;
                let Change { expected, known, .. } = *change;
                match *current {
                    current if expected == Some(current) => Err(format!("version {current} was refused and is there")),
                    0 if !state.may_be_empty(known) => Err(format!("no value was found, and {known} was acknowledged")),
                    1.. if *current < known => {
                        Err(format!("version {current} was found, and {known} was acknowledged"))
                    }
                    _ => Ok(()),
                }
            }
            Event::PathRefused { op, path, known: true, .. } => {
                if let Some(change) = self.path(path).changes.get_mut(op) {
                    change.fate = Fate::Nothing;
                }
                Ok(())
            }
            Event::PathReadBegan { op, path } => {
                let known = self.path(path).known;
                self.reads.insert(*op, known);
                Ok(())
            }
            Event::PathReadFailed { op, .. } => {
                self.reads.remove(op);
                Ok(())
            }
            Event::PathRead { op, path, version, value } => self.read(*op, path, *version, value.as_ref()),
            _ => Ok(()),
        };
        let path = match event {
            Event::PathChanged { path, .. } | Event::PathMismatch { path, .. } | Event::PathRead { path, .. } => path,
            _ => "",
        };
        verdict.map_err(|wrong| format!("{path}: {wrong}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(events: &[Event]) -> Verdict {
        let mut check = Configuration::default();
        events.iter().try_for_each(|event| check.event(At::ZERO, event))
    }

    fn asked(op: Op, expected: Option<u64>, deletes: bool) -> Event {
        Event::PathAsked { client: 1, op, path: "p".into(), expected, deletes }
    }

    fn changed(op: Op, version: u64, value: Option<&str>) -> Event {
        Event::PathChanged { op, path: "p".into(), version, value: value.map(str::to_owned) }
    }

    fn began(op: Op) -> Event {
        Event::PathReadBegan { op, path: "p".into() }
    }

    fn read(op: Op, version: u64, value: Option<&str>) -> Event {
        Event::PathRead { op, path: "p".into(), version, value: value.map(str::to_owned) }
    }

    #[test]
    fn what_may_happen_is_no_alarm() {
        let all = [
            began(1),
            read(1, 0, None),
            asked(2, Some(0), false),
            began(3),
            changed(2, 1, Some("2")),
            read(3, 0, None),
            began(4),
            read(4, 1, Some("2")),
            // Its answer is lost: a read sees it, or not yet.
            asked(5, None, false),
            Event::PathRefused { op: 5, path: "p".into(), why: String::new(), known: false },
            began(6),
            read(6, 1, Some("2")),
            began(7),
            read(7, 2, Some("5")),
            asked(8, None, true),
            began(9),
            changed(8, 3, None),
            read(9, 2, Some("5")),
            began(10),
            read(10, 0, None),
        ];
        assert_eq!(run(&all), Ok(()));
    }

    #[test]
    fn what_must_not_happen_is_seen() {
        let put = |op, version| [asked(op, None, false), changed(op, version, Some(&op.to_string()))];
        let with = |events: &[Event]| run(&[&put(1, 1)[..], events].concat());
        assert!(with(&[began(2), read(2, 0, None)]).is_err(), "an acknowledged change is lost");
        assert!(with(&[began(2), read(2, 1, Some("9"))]).is_err(), "a version is two values");
        assert!(with(&[began(2), read(2, 2, Some("1"))]).is_err(), "a change was made twice");
        assert!(with(&put(2, 1)).is_err(), "a version was made twice");
        assert!(with(&[asked(2, Some(1), false), changed(2, 3, Some("2"))]).is_err(), "a change came between");
        assert!(
            with(&[asked(2, Some(1), false), Event::PathMismatch { op: 2, path: "p".into(), current: 1 }]).is_err()
        );
        assert!(
            run(&[&put(1, 1)[..], &put(2, 2), &[began(3), read(3, 1, Some("1"))]].concat()).is_err(),
            "a read that began later saw an earlier version"
        );
    }
}
