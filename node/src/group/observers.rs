//! Who wants to know of an object's next change: held questions, woken by the apply that changes it.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use wardlock_machine::{Answer, Key, Machine, Query, Revision};
use wardlock_router::{link::Replier, random};
use wardlock_wire::{Refusal, Response};

/// The most questions that one leader holds.
const CAPACITY: usize = 10_000;

/// The longest that a question is held; the observer asks again.
const HOLD: Duration = Duration::from_secs(60);

/// All of one leader's observers.
#[derive(Default)]
pub struct Observers {
    by_key: random::Map<Key, Vec<Observer>>,
    ends: BinaryHeap<Reverse<(Duration, Key)>>,
    count: usize,
}

struct Observer {
    reply: Replier,
    until: Duration,
}

impl Observers {
    /// Answers at once where the object has changed since, else holds the question until it does or
    /// for `wait`.
    pub fn ask(&mut self, machine: &Machine, key: Key, since: Revision, wait: Duration, now: Duration, reply: Replier) {
        if machine.object_revision(&key) > since {
            return answer(machine, &key, reply);
        }
        if self.count >= CAPACITY {
            return reply.send(Err(Refusal::Overloaded));
        }
        let until = now + wait.min(HOLD);
        self.count += 1;
        // Questions that were answered early leave their ends behind.
        if self.ends.len() > 2 * self.count + CAPACITY {
            let held = self.by_key.iter().flat_map(|(key, all)| all.iter().map(move |one| (one.until, key.clone())));
            self.ends = held.map(Reverse).collect();
        }
        self.ends.push(Reverse((until, key.clone())));
        self.by_key.entry(key).or_default().push(Observer { reply, until });
    }

    /// The object has changed: everybody who asked learns it.
    pub fn changed(&mut self, machine: &Machine, key: &Key) {
        let observers = self.by_key.remove(key).unwrap_or_default();
        self.count -= observers.len();
        for observer in observers {
            answer(machine, key, observer.reply);
        }
    }

    /// Whether anybody asks.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The leader has lost its majority: whoever asked is sent elsewhere.
    pub fn dismiss(&mut self) {
        *self = Observers::default();
    }

    /// A connection ended: its questions are void.
    pub fn closed(&mut self, connection: u64) {
        let mut gone = 0;
        self.by_key.retain(|_, observers| {
            let before = observers.len();
            observers.retain(|observer| observer.reply.connection() != connection);
            gone += before - observers.len();
            !observers.is_empty()
        });
        self.count -= gone;
    }

    /// When [`Self::ended`] should next be called.
    pub fn next(&self) -> Option<Duration> {
        self.ends.peek().map(|Reverse((at, _))| *at)
    }

    /// Answers the questions whose time is up with things as they are.
    pub fn ended(&mut self, machine: &Machine, now: Duration) {
        while let Some(Reverse((at, _))) = self.ends.peek() {
            if *at > now {
                break;
            }
            let Some(Reverse((_, key))) = self.ends.pop() else { break };
            let Some(observers) = self.by_key.get_mut(&key) else { continue };
            let (over, rest): (Vec<_>, Vec<_>) =
                std::mem::take(observers).into_iter().partition(|observer| observer.until <= now);
            self.count -= over.len();
            match rest.is_empty() {
                true => drop(self.by_key.remove(&key)),
                false => *observers = rest,
            }
            for observer in over {
                answer(machine, &key, observer.reply);
            }
        }
    }
}

fn answer(machine: &Machine, key: &Key, reply: Replier) {
    let object = match machine.query(&Query::Object { key: key.clone() }) {
        Answer::Object(object) => object,
        _ => None,
    };
    reply.send(Ok(Response::Observed { object, revision: machine.revision() }));
}
