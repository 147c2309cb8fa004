//! The events of one shard, asked for once for all who watch here.
//!
//! A feed is a row of long polls of the shard's leader, each from where the last one ended, for all that anybody
//! here watches. What comes is handed to each watch that it fits, under one lock, before the feed's position moves
//! on: whoever is live from a position on is handed all of its events after that, each once, in order.
//!
//! A watch becomes live when a poll that asks for it begins, or at once where the poll that runs does already. What
//! lies between its own position and the feed's it reads by itself, so a feed never goes back, and a slow or old
//! watch never holds it up.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;
use wardlock_machine::{Answer, Event, EventPage, Key, Kind, Name, NoEvents, Pattern, Query, Revision, limits};
use wardlock_placement::GroupId;
use wardlock_wire::{Op, Response};

use super::{
    super::{
        call::{GIVE_UP, Work, millis},
        core::Core,
    },
    queue::{Link, Queue},
};
use crate::random;

/// How long a poll is held where nothing happens.
const POLL: Duration = Duration::from_secs(30);
/// The pause after a poll that failed.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// After so many hand-overs in a row others of the process get their turn.
const HANDED: usize = 2_000;

/// All feeds of a client.
#[derive(Default)]
pub(crate) struct Feeds(Mutex<BTreeMap<GroupId, Arc<Feed>>>);

/// See the module.
pub(super) struct Feed {
    group: GroupId,
    state: Mutex<State>,
    /// Somebody came whom the poll that runs does not ask for, or the last one has gone.
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// A task polls.
    running: bool,
    /// Up to here everything has been handed out.
    position: Revision,
    /// What the poll that runs asks for.
    asked: Vec<Pattern>,
    watches: random::Map<u64, Entry>,
    by_key: random::Map<Key, Vec<u64>>,
    by_prefix: BTreeMap<Kind, Prefixes>,
    serial: u64,
}

/// Who watches what starts so.
#[derive(Default)]
struct Prefixes {
    watches: random::Map<Box<str>, Vec<u64>>,
    /// How many prefixes have this length.
    lengths: BTreeMap<usize, usize>,
}

struct Entry {
    queue: Arc<Queue>,
    part: usize,
    patterns: Arc<[Pattern]>,
    /// The last event that it was handed: two of its patterns may fit one.
    last: Revision,
    live: bool,
}

impl Feeds {
    /// The feed of a shard.
    pub(super) fn of(&self, group: GroupId) -> Arc<Feed> {
        let mut feeds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Feed { group, state: Mutex::default(), changed: Notify::new() });
        Arc::clone(feeds.entry(group).or_insert_with(new))
    }
}

impl Feed {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a part of a watch served, which has been told everything up to `from`. Answers its number here.
    pub(super) fn attach(
        self: &Arc<Feed>,
        core: &Arc<Core>,
        queue: &Arc<Queue>,
        part: usize,
        patterns: &Arc<[Pattern]>,
        from: Revision,
    ) -> u64 {
        let mut state = self.lock();
        state.serial += 1;
        let id = state.serial;
        for pattern in patterns.iter() {
            state.enter(pattern, id);
        }
        let live = state.running && patterns.iter().all(|pattern| covers(&state.asked, pattern));
        let entry = Entry { queue: Arc::clone(queue), part, patterns: Arc::clone(patterns), last: Revision(0), live };
        state.watches.insert(id, entry);
        queue.link(part, if live { Link::Live } else { Link::Pending }, state.position);
        if !state.running {
            (state.running, state.position) = (true, from);
            tokio::spawn(Arc::clone(self).run(Arc::clone(core)));
        } else if !live {
            self.changed.notify_one();
        }
        id
    }

    /// Ends what [`Feed::attach`] began.
    pub(super) fn detach(&self, id: u64) {
        let mut state = self.lock();
        state.remove(id);
        if state.watches.is_empty() {
            self.changed.notify_one();
        }
    }

    /// Up to where a part has been told everything that has itself seen to what is before `own`, if nothing is on its
    /// way to it.
    pub(super) fn position(&self, id: u64, own: Revision) -> Option<Revision> {
        let state = self.lock();
        let entry = state.watches.get(&id)?;
        match entry.queue.lock().state(entry.part) {
            (Link::Live, true, from) if from <= own => Some(state.position),
            _ => None,
        }
    }

    async fn run(self: Arc<Feed>, core: Arc<Core>) {
        let mut pause = PAUSE.0;
        loop {
            let Some(query) = self.lock().question() else { return };
            let work = Work::op_for(self.group, Op::Watch { query, wait_ms: millis(POLL) });
            let replied = tokio::select! {
                biased;
                replied = core.run(work, POLL + GIVE_UP) => replied,
                () = self.changed.notified() => continue,
            };
            match replied.map(|replied| replied.response) {
                Ok(Response::Answer(Answer::Events(Ok(page)))) => {
                    self.hand_out(page).await;
                    pause = PAUSE.0;
                }
                // Each finds out by itself what that means to it: it knows its own position.
                Ok(Response::Answer(Answer::Events(Err(
                    NoEvents::Compacted { now, .. } | NoEvents::Ahead { now },
                )))) => self.lock().cut_all(now),
                _ => {
                    tokio::time::sleep(random::within(pause / 2..=pause)).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
        }
    }

    async fn hand_out(&self, page: EventPage) {
        let mut handed = 0;
        for event in page.events {
            handed += self.lock().hand_out(&Arc::new(event));
            if handed >= HANDED {
                handed = 0;
                tokio::task::yield_now().await;
            }
        }
        let mut state = self.lock();
        state.position = state.position.max(page.upto);
    }
}

impl State {
    fn enter(&mut self, pattern: &Pattern, id: u64) {
        match Name::new(&pattern.name) {
            Ok(name) if !pattern.prefix => {
                self.by_key.entry(Key { kind: pattern.kind, name }).or_default().push(id);
            }
            _ => {
                let Prefixes { watches, lengths } = self.by_prefix.entry(pattern.kind).or_default();
                let known = watches.entry(pattern.name.as_str().into()).or_insert_with(|| {
                    *lengths.entry(pattern.name.len()).or_default() += 1;
                    Vec::new()
                });
                known.push(id);
            }
        }
    }

    fn leave(&mut self, pattern: &Pattern, id: u64) {
        match Name::new(&pattern.name) {
            Ok(name) if !pattern.prefix => {
                let key = Key { kind: pattern.kind, name };
                if let Some(known) = self.by_key.get_mut(&key) {
                    known.retain(|other| *other != id);
                    if known.is_empty() {
                        self.by_key.remove(&key);
                    }
                }
            }
            _ => {
                let Some(Prefixes { watches, lengths }) = self.by_prefix.get_mut(&pattern.kind) else { return };
                let Some(known) = watches.get_mut(pattern.name.as_str()) else { return };
                known.retain(|other| *other != id);
                if known.is_empty() {
                    watches.remove(pattern.name.as_str());
                    let length = pattern.name.len();
                    let count = lengths.get(&length).copied().unwrap_or_default();
                    if count > 1 {
                        lengths.insert(length, count - 1)
                    } else {
                        lengths.remove(&length)
                    };
                }
            }
        }
    }

    fn remove(&mut self, id: u64) {
        if let Some(entry) = self.watches.remove(&id) {
            entry.patterns.iter().for_each(|pattern| self.leave(pattern, id));
        }
    }

    /// What to ask next, for everybody; they are live from here on. `None` where nobody is left.
    fn question(&mut self) -> Option<Query> {
        if self.watches.is_empty() {
            (self.running, self.asked) = (false, Vec::new());
            return None;
        }
        self.asked = self.wanted();
        let position = self.position;
        for entry in self.watches.values_mut().filter(|entry| !entry.live) {
            entry.live = true;
            entry.queue.link(entry.part, Link::Live, position);
        }
        Some(Query::Events { after: position, patterns: self.asked.clone(), limit: limits::PAGE as u32 })
    }

    /// All that is watched; where that is more than one question may ask, all of its kinds.
    fn wanted(&self) -> Vec<Pattern> {
        let whole = |kind| Pattern { kind, name: String::new(), prefix: true };
        let prefixes = self.by_prefix.iter().flat_map(|(kind, prefixes)| {
            let named = move |name: &str| Pattern { kind: *kind, name: name.to_owned(), prefix: true };
            prefixes.watches.keys().map(move |name| named(name))
        });
        let keys =
            self.by_key.keys().map(|key| Pattern { kind: key.kind, name: key.name.as_str().to_owned(), prefix: false });
        if self.by_key.len() + self.by_prefix.values().map(|of| of.watches.len()).sum::<usize>() <= limits::PATTERNS {
            let mut wanted: Vec<Pattern> = prefixes.chain(keys).collect();
            wanted.sort_unstable();
            return wanted;
        }
        let mut kinds: Vec<Kind> = self.by_key.keys().map(|key| key.kind).collect();
        kinds.extend(self.by_prefix.iter().filter(|(_, of)| !of.watches.is_empty()).map(|(kind, _)| *kind));
        kinds.sort_unstable();
        kinds.dedup();
        kinds.into_iter().map(whole).collect()
    }

    /// Hands an event to all whom it fits; answers to how many.
    fn hand_out(&mut self, event: &Arc<Event>) -> usize {
        let name = event.key.name.as_str();
        let mut ids: Vec<u64> = self.by_key.get(&event.key).cloned().unwrap_or_default();
        if let Some(prefixes) = self.by_prefix.get(&event.key.kind) {
            for length in prefixes.lengths.range(..=name.len()).map(|(length, _)| *length) {
                let of = name.get(..length).and_then(|prefix| prefixes.watches.get(prefix));
                ids.extend(of.into_iter().flatten());
            }
        }
        for id in &ids {
            let Some(entry) = self.watches.get_mut(id).filter(|entry| entry.live) else { continue };
            if entry.last >= event.revision {
                continue;
            }
            entry.last = event.revision;
            if !entry.queue.push(entry.part, event) {
                self.remove(*id);
            }
        }
        self.position = self.position.max(event.revision);
        ids.len()
    }

    /// Cuts everybody off; whoever comes back does so from `now` on.
    fn cut_all(&mut self, now: Revision) {
        (self.position, self.asked) = (now, Vec::new());
        for (_, entry) in std::mem::take(&mut self.watches) {
            entry.queue.link(entry.part, Link::Cut, now);
        }
        self.by_key.clear();
        self.by_prefix.clear();
    }
}

/// Whether one of these asks for all that another does.
fn covers(asked: &[Pattern], pattern: &Pattern) -> bool {
    asked.iter().any(|of| of == pattern || of.kind == pattern.kind && of.prefix && pattern.name.starts_with(&of.name))
}
