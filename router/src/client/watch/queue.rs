//! What one watch has been handed and has not taken yet: bounded, and a part for each shard.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;
use wardlock_machine::{Event, Revision};

/// The most events that wait to be taken. Who lets more gather is no longer handed any, and reads the rest from the
/// shards when it comes to that.
const EVENTS: usize = 512;

/// See the module.
#[derive(Debug)]
pub(super) struct Queue {
    parts: Mutex<Parts>,
    pub(super) wake: Notify,
}

#[derive(Debug)]
pub(super) struct Parts {
    count: usize,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    events: VecDeque<Arc<Event>>,
    link: Link,
    /// What waits came after this revision, all of it.
    from: Revision,
}

/// How a part stands to the feed of its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// It is handed nothing.
    Cut,
    /// The feed has not asked for it yet.
    Pending,
    /// It is handed everything from now on.
    Live,
}

impl Queue {
    pub(super) fn new(parts: usize) -> Queue {
        let part = || Part { events: VecDeque::new(), link: Link::Cut, from: Revision(0) };
        let parts = Parts { count: 0, parts: (0..parts).map(|_| part()).collect() };
        Queue { parts: Mutex::new(parts), wake: Notify::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands an event over; false where there is no room: then the part is cut.
    pub(super) fn push(&self, part: usize, event: &Arc<Event>) -> bool {
        let mut parts = self.lock();
        let fits = parts.count < EVENTS;
        if fits {
            parts.count += 1;
            parts.parts[part].events.push_back(Arc::clone(event));
        } else {
            parts.parts[part].link = Link::Cut;
        }
        drop(parts);
        self.wake.notify_one();
        fits
    }

    /// Says how a part stands from now on: where it is live, after which revision.
    pub(super) fn link(&self, part: usize, link: Link, from: Revision) {
        let mut parts = self.lock();
        let part = &mut parts.parts[part];
        part.link = link;
        if link == Link::Live {
            assert!(part.events.is_empty(), "only what is empty is linked anew");
            part.from = from;
        }
        drop(parts);
        self.wake.notify_one();
    }
}

impl Parts {
    /// How a part stands, whether nothing of it waits, and after which revision everything was handed to it.
    pub(super) fn state(&self, part: usize) -> (Link, bool, Revision) {
        let Part { events, link, from } = &self.parts[part];
        (*link, events.is_empty(), *from)
    }

    pub(super) fn pop(&mut self, part: usize) -> Option<Arc<Event>> {
        let event = self.parts[part].events.pop_front()?;
        self.count -= 1;
        Some(event)
    }
}
