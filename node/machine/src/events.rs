//! What happened in a shard, in the order in which it happened, for those who watch.
//!
//! Each revision of a shard is one event: a grant, the end of one, a change of the configuration or of an instance.
//! The newest events are kept in the state, so a watch goes on where it was when the leader changes or a node
//! restarts. Locks change much more often than all else, so they have a ring of their own and push nothing else out.
//!
//! What was pushed out is known by its last revision (invariant 11): whoever asks for events after an earlier one is
//! told that some are gone, and never is given what is left as if it were all.

use std::{cmp::Ordering, collections::VecDeque};

use serde::{Deserialize, Serialize};

use crate::{config::Configs, fields, ids::*, limits, query::*};

/// The newest events of one class.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Ring {
    events: VecDeque<Event>,
    /// The last revision that was pushed out.
    gone: Revision,
    /// Index: what the events count for.
    #[serde(skip)]
    bytes: usize,
}

/// What a tag takes in memory beside its text.
const EVENT_TAG: usize = 24;

/// How much one ring keeps.
#[derive(Clone, Copy)]
struct Bound {
    events: usize,
    bytes: usize,
}

const LOCKS: Bound = Bound { events: limits::LOCK_EVENTS, bytes: limits::LOCK_EVENT_BYTES };
const OTHERS: Bound = Bound { events: limits::EVENTS, bytes: limits::EVENT_BYTES };

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Events {
    locks: Ring,
    others: Ring,
}

impl Event {
    /// What it counts for, where bytes are bounded.
    fn bytes(&self) -> usize {
        let texts = match &self.what {
            What::Granted { holder, value, .. } => holder.len() + value.as_ref().map_or(0, String::len),
            What::Ended { .. } => 0,
            What::Configured { content_type, .. } => content_type.len(),
            What::Registered { instance, address, tags, .. } => {
                instance.as_str().len() + address.len() + tags.iter().map(|tag| tag.len() + EVENT_TAG).sum::<usize>()
            }
            What::Deregistered { instance, .. } | What::Health { instance, .. } => instance.as_str().len(),
        };
        limits::EVENT_FIXED_BYTES + self.key.name.as_str().len() + texts
    }

    /// Whether the parts go together; asked of bytes from outside.
    fn is_sound(&self) -> bool {
        match (&self.what, self.key.kind) {
            (What::Granted { lock_id, holder, value, .. }, Kind::Lock | Kind::Election) => {
                lock_id.tag == KeyTag::of(&self.key)
                    && holder.len() <= limits::LABEL_BYTES
                    && value.as_ref().is_none_or(|value| value.len() <= limits::LABEL_BYTES)
            }
            (What::Ended { lock_id, .. }, Kind::Lock | Kind::Election) => lock_id.tag == KeyTag::of(&self.key),
            (What::Configured { content_type, value, .. }, Kind::Config) => {
                content_type.len() <= limits::LABEL_BYTES && value.is_none()
            }
            (What::Registered { instance, address, port, tags, .. }, Kind::Service) => {
                fields::told(instance, address, *port, tags)
            }
            (What::Deregistered { instance, .. } | What::Health { instance, .. }, Kind::Service) => {
                fields::label(instance.as_str())
            }
            _ => false,
        }
    }
}

impl Ring {
    fn push(&mut self, event: Event, bound: Bound) {
        let last = self.events.back().map_or(self.gone, |last| last.revision);
        assert!(event.revision > last, "invariant 11: event {} does not come after {last}", event.revision);
        self.bytes += event.bytes();
        self.events.push_back(event);
        while self.events.len() > bound.events || self.bytes > bound.bytes {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= oldest.bytes();
            self.gone = oldest.revision;
        }
    }

    /// The events after a revision.
    fn after(&self, after: Revision) -> impl Iterator<Item = &Event> {
        self.events.range(self.events.partition_point(|event| event.revision <= after)..)
    }

    fn restore(&mut self, revision: Revision, bound: Bound) -> bool {
        self.bytes = self.events.iter().map(Event::bytes).sum();
        let revisions = self.events.iter().map(|event| event.revision);
        let rising = self.events.iter().zip(self.events.iter().skip(1)).all(|(a, b)| a.revision < b.revision);
        rising
            && revisions.clone().all(|at| at > self.gone && at <= revision)
            && self.gone <= revision
            && self.events.iter().all(Event::is_sound)
            && self.events.len() <= bound.events
            && self.bytes <= bound.bytes
    }
}

impl Pattern {
    /// Whether it is about this object.
    pub fn fits(&self, key: &Key) -> bool {
        let name = key.name.as_str();
        key.kind == self.kind && if self.prefix { name.starts_with(&self.name) } else { name == self.name }
    }
}

impl Events {
    /// Those of a shard of which nothing was kept up to now.
    pub(crate) fn unknown(revision: Revision) -> Events {
        let ring = || Ring { gone: revision, ..Ring::default() };
        Events { locks: ring(), others: ring() }
    }

    pub(crate) fn push(&mut self, event: Event) {
        match event.key.kind {
            Kind::Lock => self.locks.push(event, LOCKS),
            Kind::Election | Kind::Config | Kind::Service => self.others.push(event, OTHERS),
        }
    }

    /// Builds the indexes; whether the state could have come about, by the last revision. Asked of bytes from
    /// outside.
    pub(crate) fn restore(&mut self, revision: Revision) -> bool {
        let locks = |event: &Event| event.key.kind == Kind::Lock;
        self.locks.restore(revision, LOCKS)
            && self.others.restore(revision, OTHERS)
            && self.locks.events.iter().all(locks)
            && !self.others.events.iter().any(locks)
    }

    /// What happened after a revision and is kept still, class by class.
    pub(crate) fn happened(&self, after: Revision) -> impl Iterator<Item = &Event> {
        self.locks.after(after).chain(self.others.after(after))
    }

    /// A page of the events that some pattern fits, after a revision. `now` is the shard's last.
    pub(crate) fn page(
        &self,
        patterns: &[Pattern],
        after: Revision,
        limit: usize,
        now: Revision,
        configs: &Configs,
    ) -> Result<EventPage, NoEvents> {
        if after > now {
            return Err(NoEvents::Ahead { now });
        }
        let wants = |locks: bool| patterns.iter().any(|pattern| (pattern.kind == Kind::Lock) == locks);
        let rings = [(&self.locks, wants(true)), (&self.others, wants(false))];
        let gone = rings.iter().filter(|(_, wanted)| *wanted).map(|(ring, _)| ring.gone).max().unwrap_or_default();
        if after < gone {
            return Err(NoEvents::Compacted { gone, now });
        }
        let [mut locks, mut others] = rings.map(|(ring, wanted)| {
            let skip = if wanted { after } else { now };
            ring.after(skip).filter(|event| patterns.iter().any(|pattern| pattern.fits(&event.key))).peekable()
        });
        let (mut events, mut left) = (Vec::new(), limits::ANSWER_BYTES);
        loop {
            let next = match (locks.peek(), others.peek()) {
                (Some(a), Some(b)) => match a.revision.cmp(&b.revision) {
                    Ordering::Less => locks.next(),
                    _ => others.next(),
                },
                (Some(_), None) => locks.next(),
                (None, _) => others.next(),
            };
            let Some(event) = next else { return Ok(EventPage { events, upto: now }) };
            if events.len() >= limit || event.bytes() > left {
                let upto = events.last().map_or(after, |last: &Event| last.revision);
                return Ok(EventPage { events, upto });
            }
            left -= event.bytes();
            let mut event = event.clone();
            if let What::Configured { version, value, .. } = &mut event.what {
                let kept = configs.version(&event.key.name, *version).filter(|kept| kept.revision == event.revision);
                let content = kept.and_then(|kept| kept.content.as_ref());
                *value = content
                    .map(|content| content.value.clone())
                    .filter(|value| value.len() <= limits::EVENT_VALUE_BYTES.min(left));
                left -= value.as_ref().map_or(0, |value| value.len());
            }
            events.push(event);
        }
    }
}
