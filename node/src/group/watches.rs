//! Who wants to know what happens next in a shard: held questions, each answered by the apply that brings something
//! that it asks for.
//!
//! A question costs nothing while others' events pass: it is found by the names that it asks for. No read round is
//! needed: what is applied is committed, so an answer is part of the truth, however late.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::Duration,
};

use wardlock_machine::{Answer, Key, Kind, Machine, Name, NoEvents, Pattern, Query, Revision};
use wardlock_router::{link::Replier, random};
use wardlock_wire::{Refusal, Response};

/// The most questions that one leader holds.
const CAPACITY: usize = 10_000;

/// The longest that a question is held; whoever watches asks again.
const HOLD: Duration = Duration::from_secs(60);

/// All that one leader holds.
pub struct Watches {
    held: random::Map<u64, Held>,
    /// The questions for one object each.
    by_key: random::Map<Key, Vec<u64>>,
    /// Those for all objects whose names start so.
    by_prefix: BTreeMap<(Kind, String), Vec<u64>>,
    ends: BinaryHeap<Reverse<(Duration, u64)>>,
    serial: u64,
    /// Up to where the events have been looked at.
    seen: Revision,
}

struct Held {
    after: Revision,
    patterns: Vec<Pattern>,
    limit: u32,
    until: Duration,
    reply: Replier,
}

impl Watches {
    /// Of a leader that takes over from this state.
    pub fn new(machine: &Machine) -> Watches {
        Watches {
            held: random::Map::default(),
            by_key: random::Map::default(),
            by_prefix: BTreeMap::new(),
            ends: BinaryHeap::new(),
            serial: 0,
            seen: machine.revision(),
        }
    }

    /// Answers at once where there is something to tell, else holds the question until there is or for `wait`.
    pub fn ask(&mut self, machine: &Machine, query: Query, wait: Duration, now: Duration, reply: Replier) {
        let answer = machine.query(&query);
        let (Query::Events { after, patterns, limit }, Answer::Events(page)) = (query, &answer) else {
            return reply.send(Err(Refusal::Malformed("this is no question for events".to_owned())));
        };
        let after = match page {
            Ok(page) if page.events.is_empty() => page.upto,
            // A revision to come: the asker has it from a leader, and so this one will have it soon, or never.
            Err(NoEvents::Ahead { .. }) => after,
            _ => return reply.send(Ok(Response::Answer(answer))),
        };
        if wait.is_zero() {
            return reply.send(Ok(Response::Answer(answer)));
        }
        if self.held.len() >= CAPACITY {
            return reply.send(Err(Refusal::Overloaded));
        }
        let until = now + wait.min(HOLD);
        self.serial += 1;
        let id = self.serial;
        for pattern in &patterns {
            self.listeners(pattern).push(id);
        }
        // Questions that were answered early leave their ends behind.
        if self.ends.len() > 2 * self.held.len() + CAPACITY {
            self.ends = self.held.iter().map(|(id, held)| Reverse((held.until, *id))).collect();
        }
        self.ends.push(Reverse((until, id)));
        self.held.insert(id, Held { after, patterns, limit, until, reply });
    }

    fn listeners(&mut self, pattern: &Pattern) -> &mut Vec<u64> {
        match Name::new(&pattern.name) {
            Ok(name) if !pattern.prefix => self.by_key.entry(Key { kind: pattern.kind, name }).or_default(),
            _ => self.by_prefix.entry((pattern.kind, pattern.name.clone())).or_default(),
        }
    }

    fn remove(&mut self, id: u64) -> Option<Held> {
        let held = self.held.remove(&id)?;
        for pattern in &held.patterns {
            let listeners = self.listeners(pattern);
            listeners.retain(|other| *other != id);
            if !listeners.is_empty() {
                continue;
            }
            match Name::new(&pattern.name) {
                Ok(name) if !pattern.prefix => drop(self.by_key.remove(&Key { kind: pattern.kind, name })),
                _ => drop(self.by_prefix.remove(&(pattern.kind, pattern.name.clone()))),
            }
        }
        Some(held)
    }

    /// Something was applied: whoever asked for it learns it.
    pub fn applied(&mut self, machine: &Machine) {
        let before = std::mem::replace(&mut self.seen, machine.revision());
        if before == self.seen || self.held.is_empty() {
            return;
        }
        let mut woken = Vec::new();
        for event in machine.happened(before) {
            woken.extend(self.by_key.get(&event.key).into_iter().flatten());
            let fits = |(kind, prefix): &(Kind, String)| {
                event.key.kind == *kind && event.key.name.as_str().starts_with(prefix.as_str())
            };
            woken.extend(self.by_prefix.iter().filter(|(of, _)| fits(of)).flat_map(|(_, ids)| ids));
        }
        woken.sort_unstable();
        woken.dedup();
        for id in woken {
            let Some(held) = self.held.get(&id) else { continue };
            // Up to `before` there was nothing for it, however little of that is kept.
            let query =
                Query::Events { after: held.after.max(before), patterns: held.patterns.clone(), limit: held.limit };
            let answer = machine.query(&query);
            let tells = match &answer {
                Answer::Events(Ok(page)) => !page.events.is_empty(),
                Answer::Events(Err(NoEvents::Ahead { .. })) => false,
                _ => true,
            };
            if tells && let Some(held) = self.remove(id) {
                held.reply.send(Ok(Response::Answer(answer)));
            }
        }
    }

    /// Whether nobody asks.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// The leader has lost its majority: whoever asked is sent elsewhere.
    pub fn dismiss(&mut self) {
        for (_, held) in self.held.drain() {
            held.reply.send(Err(Refusal::NoQuorum));
        }
        self.by_key.clear();
        self.by_prefix.clear();
        self.ends.clear();
    }

    /// A connection ended: its questions are void.
    pub fn closed(&mut self, connection: u64) {
        let void = self.held.iter().filter(|(_, held)| held.reply.connection() == connection);
        for id in void.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.remove(id);
        }
    }

    /// When [`Self::ended`] should next be called.
    pub fn next(&self) -> Option<Duration> {
        self.ends.peek().map(|Reverse((at, _))| *at)
    }

    /// Answers the questions whose time is up: nothing has happened, up to here.
    pub fn ended(&mut self, machine: &Machine, now: Duration) {
        while let Some(Reverse((at, id))) = self.ends.peek().copied()
            && at <= now
        {
            self.ends.pop();
            let Some(held) = self.remove(id) else { continue };
            let after = held.after.max(self.seen);
            let query = Query::Events { after, patterns: held.patterns, limit: held.limit };
            held.reply.send(Ok(Response::Answer(machine.query(&query))));
        }
    }
}
