//! Queries: what can be read, as it is answered. Nothing here changes anything.

use std::ops::Bound;

use crate::{ids::*, limits, lock::Lock, machine::Machine, query::*};

impl Machine {
    /// Answers a query from the state as it is.
    pub fn query(&self, query: &Query) -> Answer {
        match query {
            Query::Object { key } => {
                Answer::Object(self.locks.get(key).map(|lock| self.object(key, lock, limits::PAGE)))
            }
            Query::List { kind, prefix, held, session, after, limit } => {
                let wanted = |lock: &Lock| match held {
                    None => true,
                    Some(true) => lock.holder_count() > 0,
                    Some(false) => lock.holder_count() == 0 && !lock.queue.is_empty(),
                };
                let page = page(*limit);
                let shown = |(key, lock): (&Key, &Lock)| self.object(key, lock, limits::SHOWN);
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
                let views = self.home.after(*after).take(page(*limit)).map(|(id, session)| session.view(id));
                Answer::Sessions(views.collect())
            }
            Query::Fence { checks } => {
                let holds = |(key, token): &(Key, Token)| {
                    self.ledger.grants.get(token).is_some_and(|at| self.locks.entry(*at).0 == key)
                };
                Answer::Fence(checks.iter().map(holds).collect())
            }
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

    fn object(&self, key: &Key, lock: &Lock, shown: usize) -> Object {
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
            holders: lock.holders().take(shown).map(|held| self.ledger.show(held)).collect(),
            holder_count: lock.holder_count() as u32,
            queue: queue.collect(),
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
