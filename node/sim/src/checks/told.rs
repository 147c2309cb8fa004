//! A watch tells everything that happens, once and in order, whatever becomes of leaders and connections: what a shard
//! tells has rising revisions, a path's versions have no hole, a lock is granted when it is free and ends when it is
//! held, and what was acknowledged is told in the end.

use std::collections::{BTreeMap, BTreeSet};

use wardlock_machine::{Mode, Token};

use super::{At, Check, End, Verdict};
use crate::event::{self, Event, Op};

/// What one watcher was told.
#[derive(Default)]
struct Watcher {
    /// By shard.
    revisions: BTreeMap<u32, u64>,
    /// By path, its last version.
    versions: BTreeMap<String, u64>,
    /// By lock, who holds it.
    held: BTreeMap<String, BTreeMap<Token, Mode>>,
    /// Every grant.
    granted: BTreeSet<(String, Token)>,
    /// By service and id, whether it is registered.
    instances: BTreeMap<(String, String), bool>,
}

/// All watchers, and what they must be told.
#[derive(Default)]
pub(super) struct Told {
    watchers: BTreeMap<u32, Watcher>,
    /// What was asked for since all watchers were there.
    asked: BTreeSet<Op>,
    /// By path, the highest of the versions that came of that.
    made: BTreeMap<String, u64>,
    /// What each version was said to be, by whoever made or was told it.
    values: BTreeMap<(String, u64), Option<String>>,
    /// The grants that came of it.
    grants: BTreeSet<(String, Token)>,
    told: u64,
}

/// How many watch.
const WATCHERS: usize = 2;

impl Told {
    fn value(&mut self, path: &str, version: u64, value: Option<&String>) -> Verdict {
        match self.values.insert((path.to_owned(), version), value.cloned()) {
            Some(before) if before.as_ref() != value => {
                Err(format!("version {version} of {path} is {value:?} and was {before:?}"))
            }
            _ => Ok(()),
        }
    }

    fn told(&mut self, watcher: u32, shard: u32, revision: u64, name: &str, told: &event::Told) -> Verdict {
        self.told += 1;
        let state = self.watchers.entry(watcher).or_default();
        if let Some(last) = state.revisions.insert(shard, revision)
            && last >= revision
        {
            return Err(format!("watcher {watcher} was told revision {revision} of shard {shard} after {last}"));
        }
        match told {
            event::Told::Version { version, deleted, value } => {
                if let Some(last) = state.versions.insert(name.to_owned(), *version)
                    && last + 1 != *version
                {
                    return Err(format!("watcher {watcher} was told version {version} of {name} after {last}"));
                }
                // A value that is no longer kept is not told.
                if *deleted || value.is_some() {
                    return self.value(name, *version, value.as_ref());
                }
            }
            event::Told::Granted { token, mode } => {
                let held = state.held.entry(name.to_owned()).or_default();
                let fits = match mode {
                    Mode::Exclusive => held.is_empty(),
                    Mode::Shared => held.values().all(|held| *held == Mode::Shared),
                    Mode::Semaphore { permits } => held.len() < *permits as usize,
                };
                let rises = state.granted.iter().filter(|grant| grant.0 == name).all(|grant| grant.1 < *token);
                if !fits || !rises {
                    return Err(format!("watcher {watcher} was told of grant {token} of {name} beside {held:?}"));
                }
                held.insert(*token, *mode);
                state.granted.insert((name.to_owned(), *token));
            }
            event::Told::Ended { token } => {
                let known = state.granted.contains(&(name.to_owned(), *token));
                let held = state.held.entry(name.to_owned()).or_default().remove(token).is_some();
                // What was granted before the watch began ends once, too, but that is not known here.
                if known && !held {
                    return Err(format!("watcher {watcher} was told twice that grant {token} of {name} ended"));
                }
            }
            event::Told::Registered { instance, .. } => {
                state.instances.insert((name.to_owned(), instance.clone()), true);
            }
            // What was registered before the watch began is not known here.
            event::Told::Deregistered { instance, .. } => {
                if state.instances.insert((name.to_owned(), instance.clone()), false) == Some(false) {
                    return Err(format!("watcher {watcher} was told twice that {instance} of {name} is gone"));
                }
            }
            event::Told::Health { instance, .. } => {
                if state.instances.get(&(name.to_owned(), instance.clone())) == Some(&false) {
                    return Err(format!("watcher {watcher} was told how {instance} of {name} fares, which is gone"));
                }
            }
        }
        Ok(())
    }
}

impl Check for Told {
    fn name(&self) -> &'static str {
        "whole watches"
    }

    fn event(&mut self, _: At, event: &Event) -> Verdict {
        match event {
            Event::WatchOpened { watcher } => {
                self.watchers.entry(*watcher).or_default();
            }
            Event::Told { watcher, shard, revision, name, told } => {
                return self.told(*watcher, *shard, *revision, name, told);
            }
            Event::WatchBroken { watcher, why } => return Err(format!("watcher {watcher} has a gap: {why}")),
            Event::Asked { op, .. } | Event::PathAsked { op, .. } if self.watchers.len() == WATCHERS => {
                self.asked.insert(*op);
            }
            Event::PathChanged { op, path, version, value } => {
                if self.asked.contains(op) {
                    let known = self.made.entry(path.clone()).or_default();
                    *known = (*known).max(*version);
                }
                return self.value(path, *version, value.as_ref());
            }
            Event::Granted { op, name, token, .. } if self.asked.contains(op) => {
                self.grants.insert((name.clone(), *token));
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, _: &End) -> Verdict {
        for (number, watcher) in &self.watchers {
            for (path, made) in &self.made {
                let told = watcher.versions.get(path).copied().unwrap_or_default();
                if told < *made {
                    return Err(format!("watcher {number} was told version {told} of {path}, which is at {made}"));
                }
            }
            if let Some((name, token)) = self.grants.difference(&watcher.granted).next() {
                return Err(format!("watcher {number} was never told of grant {token} of {name}"));
            }
        }
        Ok(())
    }

    fn count(&self) -> Option<(&'static str, u64)> {
        Some(("events told", self.told))
    }
}
