//! Queries: what can be read, as it is answered. Nothing here changes anything.

use std::ops::Bound;

use crate::{
    command::{DeadLetter, Grant, Metadata},
    ids::*,
    ledger::Ledger,
    limits,
    lock::{Held, Lock},
    machine::Machine,
    query::*,
};

/// What is left of an answer's [`limits::ANSWER_BYTES`].
pub(crate) struct Room(usize);

impl Default for Room {
    fn default() -> Room {
        Room(limits::ANSWER_BYTES)
    }
}

impl Room {
    /// Takes so many bytes; false: they are no longer there, and nothing is from now on.
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        let left = self.0.checked_sub(bytes);
        self.0 = left.unwrap_or(0);
        left.is_some()
    }
}

/// What any grant, waiter or session takes beside its texts, at the most.
const FIXED: usize = 192;

fn metadata(metadata: &Metadata) -> usize {
    metadata.iter().map(|(key, value)| key.len() + value.len() + 4).sum()
}

impl Grant {
    fn size(&self) -> usize {
        FIXED + self.holder.len() + self.value.as_ref().map_or(0, String::len) + metadata(&self.metadata)
    }
}

impl Waiting {
    fn size(&self) -> usize {
        FIXED + self.holder.len() + self.value.as_ref().map_or(0, String::len) + metadata(&self.metadata)
    }
}

impl SessionView {
    fn size(&self) -> usize {
        FIXED + self.client_id.len() + 5 * self.shards.len() + metadata(&self.metadata)
    }
}

impl HookView {
    fn size(&self) -> usize {
        let patterns: usize = self.patterns.iter().map(|pattern| pattern.name.len() + 8).sum();
        let texts = self.name.as_str().len() + self.url.len() + self.error.as_ref().map_or(0, String::len);
        FIXED + texts + patterns + 16 * self.cursor.positions.len()
    }
}

impl DeadLetter {
    fn size(&self) -> usize {
        FIXED + self.weight()
    }
}

impl Ledger {
    /// Grants as they are answered, as many as there is room for; the first in any case, without metadata where
    /// there is none left.
    pub(crate) fn show_all<'a>(&self, held: impl Iterator<Item = &'a Held>, room: &mut Room) -> Vec<Grant> {
        let mut shown = Vec::new();
        for mut grant in held.map(|held| self.show(held)) {
            if !room.take(grant.size()) {
                if !shown.is_empty() {
                    break;
                }
                grant.metadata.clear();
            }
            shown.push(grant);
        }
        shown
    }
}

impl Machine {
    /// Answers a query from the state as it is.
    pub fn query(&self, query: &Query) -> Answer {
        match query {
            Query::Object { key } => {
                let shown = |lock| self.object(key, lock, limits::PAGE, &mut Room::default());
                Answer::Object(self.locks.get(key).map(shown))
            }
            Query::List { kind, prefix, held, session, after, limit } => {
                let wanted = |lock: &Lock| match held {
                    None => true,
                    Some(true) => lock.holder_count() > 0,
                    Some(false) => lock.holder_count() == 0 && !lock.queue.is_empty(),
                };
                let page = page(*limit);
                let mut room = Room::default();
                let shown = |(key, lock): (&Key, &Lock)| self.object(key, lock, limits::SHOWN, &mut room);
                let list = match session {
                    None => self
                        .named(*kind, prefix, after.as_deref())
                        .filter(|(_, lock)| wanted(lock))
                        .take(page)
                        .map(shown)
                        .collect(),
                    Some(session) => self
                        .of_session(*session, *kind, prefix, after.as_deref())
                        .into_iter()
                        .filter(|(_, lock)| wanted(lock))
                        .take(page)
                        .map(shown)
                        .collect(),
                };
                Answer::List(list)
            }
            Query::Session { session } => Answer::Session(match self.home.get(*session) {
                Some(known) => Ok(known.view(*session)),
                None if self.is_ended(*session) => Err(SessionGone::Ended),
                None => Err(SessionGone::Unknown),
            }),
            Query::Sessions { after, limit } => {
                let mut room = Room::default();
                let views = self.home.after(*after).take(page(*limit)).map(|(id, session)| {
                    let mut view = session.view(id);
                    if !room.take(view.size()) {
                        view.metadata.clear();
                    }
                    view
                });
                Answer::Sessions(views.collect())
            }
            Query::Fence { checks } => {
                let holds = |(key, token): &(Key, Token)| {
                    self.ledger.grants.get(token).is_some_and(|at| self.locks.entry(*at).0 == key)
                };
                Answer::Fence(checks.iter().map(holds).collect())
            }
            Query::Config { key, version } => {
                let entry = match version {
                    None => self.configs.current(&key.name),
                    Some(version) => self.configs.version(&key.name, *version),
                };
                Answer::Config(entry.filter(|_| key.kind == Kind::Config).map(|entry| entry.view(&key.name, true)))
            }
            Query::Versions { key } => {
                let versions = self.configs.versions(&key.name).filter(|_| key.kind == Kind::Config);
                Answer::Versions(versions.map(|entry| entry.view(&key.name, false)).collect())
            }
            Query::Events { after, patterns, limit } => {
                let (limit, now) = (page(*limit), self.revision());
                Answer::Events(self.ledger.events.page(patterns, *after, limit, now, &self.configs))
            }
            Query::Hook { key } => Answer::Hook(self.hooks.view(&key.name).filter(|_| key.kind == Kind::Hook)),
            Query::Hooks { after, limit } => {
                let mut room = Room::default();
                let views = self.hooks.views(after.as_deref()).take(page(*limit).min(limits::HOOK_PAGE));
                let views = views.map(|mut view| {
                    if !room.take(view.size()) {
                        view.patterns.clear();
                        view.cursor.positions.clear();
                    }
                    view
                });
                Answer::Hooks(views.collect())
            }
            Query::DeadLetters { key } => {
                let letters = self.hooks.letters(&key.name).filter(|_| key.kind == Kind::Hook);
                let mut room = Room::default();
                Answer::DeadLetters(
                    letters.map(|letters| letters.take_while(|letter| room.take(letter.size())).cloned().collect()),
                )
            }
            Query::Configs { prefix, after, limit } => {
                let named = self.configs.named(prefix, after.as_deref()).take(page(*limit));
                Answer::Configs(named.map(|(path, entry)| entry.view(path, false)).collect())
            }
            Query::Service { key, healthy, tag, after, limit } => {
                Answer::Service(self.service_page(key, *healthy, tag.as_deref(), after.as_deref(), page(*limit)))
            }
            Query::Instance { key, instance } => Answer::Instance(self.instance(key, instance)),
            Query::Services { prefix, after, limit } => {
                Answer::Services(self.service_list(prefix, after.as_deref(), page(*limit)))
            }
            Query::Waits { after } => self.waits(after.as_ref()),
            Query::Sample { key, count, seed } => Answer::Sample(self.sample(key, *count, *seed)),
        }
    }

    /// The objects of a kind whose names start with `prefix` and come after `after`.
    fn named<'a>(
        &'a self,
        kind: Kind,
        prefix: &'a str,
        after: Option<&str>,
    ) -> impl Iterator<Item = (&'a Key, &'a Lock)> {
        let ours = move |(key, _): &(&Key, &Lock)| key.kind == kind && key.name.as_str().starts_with(prefix);
        self.locks.range(from(kind, prefix, after)).take_while(ours)
    }

    /// The same, of those that a session holds or waits for: all of its links, sorted.
    fn of_session<'a>(
        &'a self,
        session: SessionId,
        kind: Kind,
        prefix: &str,
        after: Option<&str>,
    ) -> Vec<(&'a Key, &'a Lock)> {
        let Some(seat) = self.ledger.seats.get(&session) else { return Vec::new() };
        let ours = |(key, _): &(&Key, &Lock)| {
            let name = key.name.as_str();
            key.kind == kind && name.starts_with(prefix) && after.is_none_or(|after| name > after)
        };
        let places = seat.held.iter().map(|(at, _)| at).chain(seat.waits.iter().map(|(at, _)| at));
        let mut all: Vec<(&Key, &Lock)> = places.map(|at| self.locks.entry(at)).filter(ours).collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all
    }

    fn object(&self, key: &Key, lock: &Lock, shown: usize, room: &mut Room) -> Object {
        let holders = self.ledger.show_all(lock.holders().take(shown), room);
        let queue = lock.queue.iter().take(shown).map(|waiter| {
            let holder = self.ledger.holder(&waiter.ask);
            Waiting {
                session: waiter.ask.session,
                holder: holder.client_id.clone(),
                mode: waiter.ask.mode,
                priority: waiter.place.priority,
                since: waiter.since_wall,
                metadata: waiter.ask.metadata(holder),
                value: waiter.ask.value().cloned(),
            }
        });
        Object {
            key: key.clone(),
            holders,
            holder_count: lock.holder_count() as u32,
            queue: queue.take_while(|waiting| room.take(waiting.size())).collect(),
            queue_count: lock.queue.len() as u32,
            lock_delay_until: lock.closed.as_ref().map(|closed| closed.until_wall),
            revision: lock.revision,
        }
    }
}

fn page(limit: u32) -> usize {
    (limit as usize).min(limits::PAGE)
}

/// Where a range of names starts.
fn from(kind: Kind, prefix: &str, after: Option<&str>) -> Bound<Key> {
    match after.filter(|after| *after >= prefix) {
        Some(after) => Bound::Excluded(Key { kind, name: Name::bound(after) }),
        None => Bound::Included(Key { kind, name: Name::bound(prefix) }),
    }
}
