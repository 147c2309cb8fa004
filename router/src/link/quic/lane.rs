//! One direction of one lane: a queue of encoded frames, and the task that writes it to its stream.
//!
//! Messages are encoded straight into the queue, under its lock. The writer wakes, yields once so that
//! whoever else is ready can add to the batch, and takes the whole queue in one write.
//!
//! # Promises
//! 1. What is queued and not yet taken by QUIC is bounded in bytes. Calls beyond the bound are refused, and large
//!    replies are replaced by a refusal: a peer may ask for many at once. Other replies have a larger bound, and
//!    exceeding that ends the connection: its peer asks but does not read.
//! 2. Frames leave in the order in which they were queued.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;
use wardlock_wire::{Body, Lane, Message, Refusal, Response, frame};

use super::{
    super::ReplySink,
    code::{self, Code},
};

/// A buffer larger than this is given back once it is written.
const KEEP_BYTES: usize = 256 << 10;

/// A reply beyond this is large.
const LARGE_BYTES: usize = 64 << 10;

/// How much one lane queues of calls. A single frame always fits an empty queue.
const fn calls_bound(lane: Lane) -> usize {
    match lane {
        Lane::Urgent => 4 << 20,
        Lane::Append => 64 << 20,
        Lane::Client => 16 << 20,
        Lane::Bulk => 64 << 20,
    }
}

/// How much one lane queues of calls and replies together, for a reply of this length.
const fn replies_bound(lane: Lane, length: usize) -> usize {
    if length > LARGE_BYTES { calls_bound(lane) } else { 2 * calls_bound(lane) }
}

/// Earlier lanes go first wherever the network is the bottleneck.
pub(super) const fn priority(lane: Lane) -> i32 {
    -(lane as i32)
}

/// The queue.
pub(super) struct Outgoing {
    lane: Lane,
    /// The longest call that the peer takes.
    call_bytes: usize,
    connection: quinn::Connection,
    queue: Mutex<Queue>,
    wake: Notify,
}

struct Queue {
    bytes: BytesMut,
    /// Taken by the writer, not yet by QUIC.
    writing: usize,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// What is queued is still written, then the stream ends.
    Finishing,
    Closed,
}

/// Why a message was not queued.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unqueued {
    #[error("the queue to this node is full")]
    Full,
    #[error("the connection is closing")]
    Closed,
    #[error(transparent)]
    Frame(#[from] frame::FrameError),
}

impl Outgoing {
    /// An empty queue. A stream whose lane its reader does not know yet starts with the lane's number.
    pub(super) fn new(lane: Lane, call_bytes: usize, connection: quinn::Connection, announced: bool) -> Outgoing {
        let mut bytes = BytesMut::new();
        if !announced {
            bytes.extend_from_slice(&[lane as u8]);
        }
        let queue = Mutex::new(Queue { bytes, writing: 0, state: State::Open });
        let wake = Notify::new();
        wake.notify_one();
        Outgoing { lane, call_bytes, connection, queue, wake }
    }

    /// Queues a call.
    pub(super) fn call(&self, id: u64, body: &Body) -> Result<(), Unqueued> {
        self.push(|buffer| frame::encode_call(id, body, self.call_bytes, buffer), |_| calls_bound(self.lane))
    }

    /// No more messages; what is queued still leaves.
    pub(super) fn finish(&self) {
        let mut queue = self.lock();
        if queue.state == State::Open {
            queue.state = State::Finishing;
        }
        drop(queue);
        self.wake.notify_one();
    }

    /// Forgets what is queued. The connection has ended.
    pub(super) fn close(&self) {
        let mut queue = self.lock();
        queue.state = State::Closed;
        queue.bytes = BytesMut::new();
        drop(queue);
        self.wake.notify_one();
    }

    fn push(
        &self,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), frame::FrameError>,
        bound: impl Fn(usize) -> usize,
    ) -> Result<(), Unqueued> {
        let mut queue = self.lock();
        if queue.state != State::Open {
            return Err(Unqueued::Closed);
        }
        let before = queue.bytes.len();
        let held = before + queue.writing;
        if held >= bound(0) {
            return Err(Unqueued::Full);
        }
        encode(&mut queue.bytes)?;
        let length = queue.bytes.len() - before;
        if held > 0 && held + length > bound(length) {
            queue.bytes.truncate(before);
            return Err(Unqueued::Full);
        }
        drop(queue);
        // Keeps one permit at the most: the writer wakes once for the whole batch.
        self.wake.notify_one();
        Ok(())
    }

    /// The whole queue, and whether the stream ends after it.
    fn take(&self) -> Result<Bytes, State> {
        let mut queue = self.lock();
        queue.writing = queue.bytes.len();
        if queue.bytes.is_empty() {
            return Err(queue.state);
        }
        let batch = if queue.bytes.len() > KEEP_BYTES { std::mem::take(&mut queue.bytes) } else { queue.bytes.split() };
        Ok(batch.freeze())
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReplySink for Outgoing {
    fn reply(&self, id: u64, result: Result<Response, Refusal>) {
        let limit = self.lane.frame_bytes();
        let reply = |result| {
            self.push(
                |buffer| frame::encode(&Message::Reply { id, result }, limit, buffer),
                |length| replies_bound(self.lane, length),
            )
        };
        // What was read can be read again; of a change that was made this cannot be said.
        let instead = match result {
            Ok(Response::Outcome(_)) => Some(Refusal::OutcomeUnknown),
            Ok(_) => Some(Refusal::Overloaded),
            Err(_) => None,
        };
        let mut queued = reply(result);
        if let Err(Unqueued::Frame(error)) = &queued {
            tracing::error!(%error, "a reply does not fit its lane");
            queued = reply(Err(Refusal::OutcomeUnknown));
        }
        if let (Err(Unqueued::Full), Some(instead)) = (&queued, instead) {
            queued = reply(Err(instead));
        }
        if let Err(Unqueued::Full) = queued {
            code::close(&self.connection, Code::Overflow, "replies are not being read");
        }
    }
}

/// Writes the queue until the connection ends or the queue is finished and the peer has it all.
pub(super) async fn write(outgoing: Arc<Outgoing>, mut stream: quinn::SendStream) {
    loop {
        outgoing.wake.notified().await;
        tokio::task::yield_now().await;
        loop {
            match outgoing.take() {
                Ok(batch) => {
                    if stream.write_chunk(batch).await.is_err() {
                        return;
                    }
                }
                Err(State::Open) => break,
                Err(State::Finishing) => {
                    if stream.finish().is_ok() {
                        let _ = stream.stopped().await;
                    }
                    return;
                }
                Err(State::Closed) => return,
            }
        }
    }
}
