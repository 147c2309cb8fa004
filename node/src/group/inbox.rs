//! A bounded queue from many connections to one runner, drained whole.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;
use wardlock_wire::Refusal;

use super::{Ask, weight};

/// The most requests that wait for one group's runner. Beyond, the group answers that it is overloaded.
const CAPACITY: usize = 16_384;
/// The most bytes of them, as they are [weighed](weight): half a kilobyte for each is much for a request.
const CAPACITY_BYTES: usize = 8 << 20;

/// The queue.
#[derive(Default)]
pub struct Inbox {
    queue: Mutex<Arrived>,
    arrived: Notify,
}

/// What has arrived since the last drain.
#[derive(Default)]
pub struct Arrived {
    /// Requests, oldest first.
    pub asks: Vec<Ask>,
    /// Connections that have ended. At most one entry for each, so they need no bound of their own; their
    /// last requests are among `asks` of this drain or of an earlier one.
    pub closed: Vec<u64>,
    /// What the requests weigh.
    bytes: usize,
}

impl Arrived {
    fn is_empty(&self) -> bool {
        self.asks.is_empty() && self.closed.is_empty()
    }
}

impl Inbox {
    /// Adds a request, or refuses it where there is no room.
    pub fn ask(&self, ask: Ask) {
        let bytes = weight::op(&ask.op);
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.asks.len() >= CAPACITY || queue.bytes + bytes > CAPACITY_BYTES {
            drop(queue);
            return ask.reply.send(Err(Refusal::Overloaded));
        }
        queue.bytes += bytes;
        let first = queue.is_empty();
        queue.asks.push(ask);
        drop(queue);
        if first {
            self.arrived.notify_one();
        }
    }

    /// A connection has ended: waiters that came by it are orphans.
    pub fn closed(&self, connection: u64) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).closed.push(connection);
        self.arrived.notify_one();
    }

    /// Swaps the queue's content into `into`, which must be empty; its allocations serve the queue next.
    pub fn drain(&self, into: &mut Arrived) {
        assert!(into.is_empty(), "what is left over from the last drain would be lost");
        into.bytes = 0;
        std::mem::swap(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner), into);
    }

    /// Resolves when something has arrived since the last drain.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }
}
