//! Configuration: values by path, each with its last versions.
//!
//! Each change of a path (a value put, a deletion, a rollback) is a version of its own, one above the version
//! before it. A deletion is a version too, so a path that comes back goes on counting while its deletion is
//! remembered. What was replaced or deleted is history: bounded by number for each path and by bytes for the shard,
//! the oldest of the shard going first.
//!
//! A version never comes back (invariant 10): where a path is forgotten altogether, every path that is new from
//! then on starts above its last version. So whoever compares versions before it changes a path cannot mistake
//! another value for the one that it has seen.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::{
    command::*,
    events::Events,
    fields,
    ids::*,
    limits, planted,
    query::{ConfigView, Event, What},
    requests::Requests,
};

/// One version of a path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) version: Version,
    /// The shard's revision when it was made.
    pub(crate) revision: Revision,
    /// When it was made, by wall time.
    pub(crate) updated: WallMs,
    /// `None`: it was deleted.
    pub(crate) content: Option<Content>,
}

impl Entry {
    /// What it counts for, where bytes are bounded.
    fn bytes(&self, path: &Name) -> usize {
        let content = self.content.as_ref().map_or(0, |content| content.value.len() + content.content_type.len());
        limits::CONFIG_ENTRY_BYTES + path.as_str().len() + content
    }

    pub(crate) fn view(&self, path: &Name, with_value: bool) -> ConfigView {
        let content = self.content.as_ref();
        ConfigView {
            path: path.clone(),
            version: self.version,
            revision: self.revision,
            updated: self.updated,
            deleted: content.is_none(),
            content_type: content.map(|content| content.content_type.clone()).unwrap_or_default(),
            size: content.map_or(0, |content| content.value.len() as u32),
            value: content.filter(|_| with_value).map(|content| content.value.clone()),
        }
    }
}

/// The versions of a path that are kept, rising by one from the oldest to the last; never empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Versions(VecDeque<Entry>);

impl Versions {
    fn last(&self) -> &Entry {
        self.0.back().expect("invariant 8: a path without versions is not stored")
    }

    /// Its value now, if it has one.
    fn current(&self) -> Option<&Entry> {
        Some(self.last()).filter(|last| last.content.is_some())
    }

    fn find(&self, version: Version) -> Option<&Entry> {
        let first = self.0.front()?.version;
        self.0.get(usize::try_from(version.0.checked_sub(first.0)?).ok()?)
    }

    /// What is history: all but a value that is current.
    fn old(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter().take(self.0.len() - usize::from(self.current().is_some()))
    }
}

/// What a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Kept {
    Configured(Configured),
    Mismatch { current: Version },
    NoConfig,
    Limit(Limit),
}

impl From<Kept> for Outcome {
    fn from(kept: Kept) -> Outcome {
        match kept {
            Kept::Configured(done) => Outcome::Configured(done),
            Kept::Mismatch { current } => Outcome::VersionMismatch { current },
            Kept::NoConfig => Outcome::NoConfig,
            Kept::Limit(limit) => Outcome::Limit(limit),
        }
    }
}

/// The paths of a shard.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Configs {
    paths: BTreeMap<Name, Versions>,
    /// The highest version that a forgotten path had.
    floor: Version,
    requests: Requests<Kept>,
    /// Index: what is history, by the revision at which it was made.
    #[serde(skip)]
    old: BTreeMap<Revision, Name>,
    /// Index: how many paths have a value.
    #[serde(skip)]
    live: usize,
    /// Index: the bytes of the current values.
    #[serde(skip)]
    live_bytes: usize,
    /// Index: the bytes of what is history.
    #[serde(skip)]
    old_bytes: usize,
}

impl Configs {
    /// How many paths have a value.
    pub(crate) fn live(&self) -> usize {
        self.live
    }

    /// The bytes of the current values and of what is history.
    pub(crate) fn bytes(&self) -> (usize, usize) {
        (self.live_bytes, self.old_bytes)
    }

    /// A path's value now, if it has one.
    pub(crate) fn current(&self, path: &Name) -> Option<&Entry> {
        self.paths.get(path)?.current()
    }

    /// A version of a path, while it is kept.
    pub(crate) fn version(&self, path: &Name, version: Version) -> Option<&Entry> {
        self.paths.get(path)?.find(version)
    }

    /// The versions of a path that are kept, newest first.
    pub(crate) fn versions(&self, path: &Name) -> impl Iterator<Item = &Entry> {
        self.paths.get(path).into_iter().flat_map(|versions| versions.0.iter().rev())
    }

    /// The paths that have a value, start with `prefix` and come after `after`, in order.
    pub(crate) fn named<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&str>,
    ) -> impl Iterator<Item = (&'a Name, &'a Entry)> {
        use std::ops::Bound;
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(Name::bound(after)),
            _ => Bound::Included(Name::bound(prefix)),
        };
        let starting = self.paths.range((from, Bound::Unbounded));
        let starting = starting.take_while(move |(name, _)| name.as_str().starts_with(prefix));
        starting.filter_map(|(name, versions)| Some((name, versions.current()?)))
    }

    /// Makes the next version of a path.
    fn push(&mut self, path: &Name, revision: Revision, updated: WallMs, content: Option<Content>) -> Version {
        let floor = self.floor;
        let mut versions = self.paths.remove(path).unwrap_or_default();
        let before = versions.0.back().map_or(floor, |last| last.version);
        let restart = planted!("config-versions-restart") && versions.0.back().is_some_and(|l| l.content.is_none());
        if restart {
            self.forget(path, &mut versions);
        }
        let version = Version(if restart { 1 } else { before.0 + 1 });
        assert!(version > before || restart, "invariant 10: a version came back");
        if let Some(replaced) = versions.0.back().filter(|last| last.content.is_some()) {
            let bytes = replaced.bytes(path);
            self.live -= 1;
            self.live_bytes -= bytes;
            self.old_bytes += bytes;
            self.old.insert(replaced.revision, path.clone());
        }
        let entry = Entry { version, revision, updated, content };
        self.index(path, &entry, true);
        versions.0.push_back(entry);
        while versions.old().count() > limits::CONFIG_OLD {
            let oldest = versions.0.pop_front();
            oldest.iter().for_each(|oldest| self.unindex(path, oldest));
        }
        self.paths.insert(path.clone(), versions);
        self.trim();
        version
    }

    /// Forgets the shard's oldest history beyond its bound of bytes.
    fn trim(&mut self) {
        while self.old_bytes > limits::CONFIG_OLD_BYTES
            && let Some((_, path)) = self.old.first_key_value()
        {
            let path = path.clone();
            let mut versions = self.paths.remove(&path).expect("invariant 6: indexed history is a path's");
            let oldest = versions.0.pop_front().expect("invariant 8: a path without versions is not stored");
            self.unindex(&path, &oldest);
            if versions.0.is_empty() {
                self.floor = self.floor.max(oldest.version);
            } else {
                self.paths.insert(path, versions);
            }
        }
    }

    /// Enters a version into the indexes.
    fn index(&mut self, path: &Name, entry: &Entry, is_last: bool) {
        let bytes = entry.bytes(path);
        if is_last && entry.content.is_some() {
            self.live += 1;
            self.live_bytes += bytes;
        } else {
            self.old_bytes += bytes;
            self.old.insert(entry.revision, path.clone());
        }
    }

    /// Takes history out of the indexes.
    fn unindex(&mut self, path: &Name, entry: &Entry) {
        let known = self.old.remove(&entry.revision);
        assert!(known.is_some(), "invariant 6: what is forgotten of a path was in the index of history");
        self.old_bytes -= entry.bytes(path);
    }

    /// Forgets all versions of a path whose value is gone.
    fn forget(&mut self, path: &Name, versions: &mut Versions) {
        for entry in std::mem::take(&mut versions.0) {
            self.unindex(path, &entry);
        }
    }

    /// Builds the indexes; whether the state could have come about, by the last revision and the clock. Asked of
    /// bytes from outside.
    pub(crate) fn restore(&mut self, revision: Revision, now: Stamp) -> bool {
        let paths = std::mem::take(&mut self.paths);
        let mut sound = self.floor.0 < 1 << 62;
        for (path, versions) in &paths {
            let Some(last) = versions.0.back() else { return false };
            let in_a_row =
                |(a, b): (&Entry, &Entry)| a.version.0.checked_add(1) == Some(b.version.0) && a.revision < b.revision;
            sound &= versions.0.iter().zip(versions.0.iter().skip(1)).all(in_a_row)
                && versions.0.iter().all(|entry| {
                    entry.version > Version(0)
                        && entry.revision <= revision
                        && entry.content.as_ref().is_none_or(fields::content)
                })
                && last.version.0 < 1 << 62
                && versions.old().count() <= limits::CONFIG_OLD;
            for entry in &versions.0 {
                sound &= !self.old.contains_key(&entry.revision);
                self.index(path, entry, entry.version == last.version);
            }
        }
        self.paths = paths;
        sound
            && self.old_bytes <= limits::CONFIG_OLD_BYTES
            && self.live <= limits::CONFIGS
            && self.live_bytes <= limits::CONFIG_BYTES
            && self.requests.is_sound(now)
    }
}

/// The form before refusals were kept.
#[derive(Deserialize)]
pub(crate) struct ConfigsBefore {
    paths: BTreeMap<Name, Versions>,
    floor: Version,
    requests: Requests<Configured>,
}

impl From<ConfigsBefore> for Configs {
    fn from(before: ConfigsBefore) -> Configs {
        let ConfigsBefore { paths, floor, requests } = before;
        Configs { paths, floor, requests: requests.map(Kept::Configured), ..Configs::default() }
    }
}

/// When a change is made.
pub(crate) struct Now {
    pub(crate) stamp: Stamp,
    pub(crate) wall: WallMs,
}

impl Configs {
    /// Changes a path. `revision` is the shard's last; it rises where something is changed.
    pub(crate) fn configure(
        &mut self,
        ask: Configure,
        at: &Now,
        revision: &mut Revision,
        events: &mut Events,
    ) -> Outcome {
        if !fields::configure(&ask) {
            return Outcome::Limit(Limit::Field);
        }
        let answered = self.requests.recall(ask.request, at.stamp).filter(|_| !planted!("config-no-dedup"));
        if let Some(answer) = answered {
            return answer.into();
        }
        let request = ask.request;
        let answer = self.decide(ask, at, revision, events);
        if !(planted!("config-refusals-forgotten") && !matches!(answer, Kept::Configured(_))) {
            self.requests.keep(request, at.stamp, answer);
        }
        answer.into()
    }

    fn decide(&mut self, ask: Configure, at: &Now, revision: &mut Revision, events: &mut Events) -> Kept {
        let path = &ask.key.name;
        let current = self.current(path);
        let version = current.map_or(Version(0), |current| current.version);
        if ask.expected.is_some_and(|expected| expected != version) && !planted!("config-expected-ignored") {
            return Kept::Mismatch { current: version };
        }
        let replaced = current.map_or(0, |current| current.bytes(path));
        let content = match ask.change {
            Change::Put(content) => Some(content),
            Change::Delete if current.is_none() => return Kept::NoConfig,
            Change::Delete => None,
            Change::Rollback { to } => match self.version(path, to).and_then(|entry| entry.content.clone()) {
                Some(content) => Some(content),
                None => return Kept::NoConfig,
            },
        };
        if let Some(content) = &content {
            let bytes =
                limits::CONFIG_ENTRY_BYTES + path.as_str().len() + content.value.len() + content.content_type.len();
            if self.live_bytes - replaced + bytes > limits::CONFIG_BYTES {
                return Kept::Limit(Limit::ConfigBytes);
            }
            if version == Version(0) && self.live >= limits::CONFIGS {
                return Kept::Limit(Limit::Configs);
            }
        }
        revision.0 += 1;
        let (deleted, size) = (content.is_none(), content.as_ref().map_or(0, |content| content.value.len() as u32));
        let content_type = content.as_ref().map(|content| content.content_type.clone()).unwrap_or_default();
        let version = self.push(path, *revision, at.wall, content);
        let what = What::Configured { version, deleted, content_type, size, value: None };
        events.push(Event { revision: *revision, at: at.wall, key: ask.key, what });
        Kept::Configured(Configured { version, revision: *revision, updated: at.wall })
    }
}
