//! The way from the groups to the writer: one queue, drained whole.
//!
//! Appends wait for space, in bytes; votes, truncations and purges never do. Their number is bounded
//! by what causes them: a group awaits its vote before it does anything else, truncates only what it
//! appended, purges once for each snapshot, and has at most one commit marker in the queue.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use openraft::storage::IOFlushed;
use tokio::sync::{Notify, Semaphore, oneshot};
use wardlock_placement::GroupId;

use super::state::State;
use crate::{
    disk::locked,
    raft::types::{Entry, LogId, Types, Vote},
};

/// One group, as its handles and the writer share it.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) id: GroupId,
    pub(super) state: Mutex<State>,
}

/// Told when a change is durable, or that it never will be.
pub(super) type Done = oneshot::Sender<io::Result<()>>;

/// What a group wants written.
pub(super) enum Op {
    Append {
        entries: Vec<Entry>,
        done: IOFlushed<Types>,
    },
    Vote {
        vote: Vote,
        done: Done,
    },
    Truncate {
        from: u64,
    },
    Purge {
        upto: LogId,
    },
    /// Write the group's committed position, whatever it is by then.
    Committed,
}

/// An operation in its place in the queue.
pub(super) struct Queued {
    pub(super) group: Arc<Group>,
    pub(super) op: Op,
    /// Space to give back once it is durable.
    pub(super) space: u32,
}

#[derive(Default)]
struct Inner {
    ops: Vec<Queued>,
    /// Something in the queue is worth a commit of its own.
    urgent: bool,
    closed: bool,
}

/// The queue and what its users count together.
pub(super) struct Queue {
    inner: Mutex<Inner>,
    work: Notify,
    space: Semaphore,
    capacity: u32,
    /// Live entries of all groups, in bytes of memory.
    pub(super) live_bytes: AtomicU64,
}

impl Queue {
    pub(super) fn new(capacity: u32) -> Queue {
        let capacity = capacity.max(1);
        Queue {
            inner: Mutex::default(),
            work: Notify::new(),
            space: Semaphore::new(capacity as usize),
            capacity,
            live_bytes: AtomicU64::new(0),
        }
    }

    /// Waits until this many bytes fit. What is larger than the whole queue waits for all of it.
    pub(super) async fn reserve(&self, bytes: u64) -> io::Result<u32> {
        let space = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.capacity);
        self.space.acquire_many(space).await.map_err(|_| closed())?.forget();
        Ok(space)
    }

    /// Gives space back.
    pub(super) fn release(&self, space: u32) {
        self.space.add_permits(space as usize);
    }

    /// Queues an operation. Fails once the log is closed.
    pub(super) fn push(&self, queued: Queued) -> io::Result<()> {
        let urgent = !matches!(queued.op, Op::Committed);
        let mut inner = locked(&self.inner);
        if inner.closed {
            return Err(closed());
        }
        inner.ops.push(queued);
        let wake = urgent && !inner.urgent;
        inner.urgent |= urgent;
        drop(inner);
        if wake {
            self.work.notify_one();
        }
        Ok(())
    }

    /// Waits for work and takes all there is. False: the log is closed and everything was taken.
    pub(super) async fn drain(&self, batch: &mut Vec<Queued>) -> bool {
        loop {
            {
                let inner = locked(&self.inner);
                if inner.urgent || inner.closed {
                    break;
                }
            }
            self.work.notified().await;
        }
        self.drain_now(batch)
    }

    /// Takes all there is; false if there was nothing.
    pub(super) fn drain_now(&self, batch: &mut Vec<Queued>) -> bool {
        let mut inner = locked(&self.inner);
        inner.urgent = false;
        if batch.is_empty() {
            std::mem::swap(&mut inner.ops, batch);
        } else {
            batch.append(&mut inner.ops);
        }
        !batch.is_empty()
    }

    /// Takes no more; what is queued is still written.
    pub(super) fn close(&self) {
        locked(&self.inner).closed = true;
        self.space.close();
        self.work.notify_one();
    }

    pub(super) fn add_live(&self, bytes: u64) {
        self.live_bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn sub_live(&self, bytes: u64) {
        self.live_bytes.fetch_sub(bytes, Relaxed);
    }
}

/// What a group hears from a log that is closed or has failed.
pub(super) fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the log is closed")
}
