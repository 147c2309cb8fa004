//! A bounded queue from many connections to one runner, drained whole.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use super::Request;

/// The most requests that wait for one group's runner. Beyond, the group answers that it is overloaded.
const CAPACITY: usize = 16_384;

/// The queue.
#[derive(Default)]
pub struct Inbox {
    queue: Mutex<Vec<Request>>,
    arrived: Notify,
}

impl Inbox {
    /// Adds a request, or gives it back where there is no room. News of a closed connection always has
    /// room: there is at most one for each connection.
    pub fn push(&self, request: Request) -> Result<(), Request> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() >= CAPACITY && matches!(request, Request::Ask { .. }) {
            return Err(request);
        }
        queue.push(request);
        let first = queue.len() == 1;
        drop(queue);
        if first {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Swaps the queue's content into `into`, which must be empty; its allocation serves the queue next.
    pub fn drain(&self, into: &mut Vec<Request>) {
        assert!(into.is_empty(), "requests left over from the last drain would be lost");
        std::mem::swap(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner), into);
    }

    /// Resolves when something has arrived since the last drain.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }
}
