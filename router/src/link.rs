//! How two processes talk: calls and replies over long-lived framed streams.
//!
//! Everything above this module speaks through [`Transport`] (to ask a node) and [`Service`] (to be
//! asked). The QUIC library stands behind it, in [`quic`]; tests and the simulator put a transport of
//! their own in its place.
//!
//! A call costs its caller one slot in a table, in which its deadline has its place too; an answer costs the
//! answering side nothing but a message in the connection's outgoing queue. Neither starts a task or a timer.

mod local;
pub mod memory;
pub(crate) mod pending;
pub mod quic;

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::time::Instant;
use wardlock_placement::NodeId;
use wardlock_wire::{Body, Lane, Refusal, Response};

/// What a call comes to.
pub type Answered = Result<Response, CallError>;

/// Why a call has no response. What the caller may do next is in the variant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It never left: no connection to that node now, or its outgoing queue is full. Repeat it anywhere.
    #[error("not sent: {0}")]
    NotSent(String),
    /// It left, and the connection ended before the answer: a write may or may not have happened.
    #[error("the connection ended before the answer")]
    Lost,
    /// The node declined.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// Asks nodes.
pub trait Transport: Send + Sync + 'static {
    /// Sends a call to a node. Returns at once; the answer comes by the returned future. Dropping the
    /// future forgets the call.
    fn call(&self, to: NodeId, lane: Lane, body: Body) -> PendingReply;

    /// The same for a body that the caller keeps, to repeat the call perhaps. A transport that only writes it
    /// down need not copy it.
    fn ask(&self, to: NodeId, lane: Lane, body: &Body) -> PendingReply {
        self.call(to, lane, body.clone())
    }
}

/// The other end of a connection, as its certificate names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The node that the certificate is for; `None` for clients and routers.
    pub node: Option<NodeId>,
    /// Identifies the connection among those of this process.
    pub connection: u64,
}

/// Answers calls. Must not block: it answers at once or hands the [`Replier`] on.
pub trait Service: Send + Sync + 'static {
    /// A call has arrived.
    fn call(&self, peer: &Peer, body: Body, reply: Replier);

    /// A connection has ended; calls that came by it can no longer be answered.
    fn closed(&self, peer: &Peer);
}

/// Where outgoing replies go: a connection's queue, or a test's.
pub trait ReplySink: Send + Sync + 'static {
    /// Queues the reply to the call `id`. Never blocks.
    fn reply(&self, id: u64, result: Result<Response, Refusal>);
}

/// The duty to answer one call. Dropped unanswered, it answers [`Refusal::OutcomeUnknown`], which is
/// always true.
pub struct Replier {
    sink: Option<Arc<dyn ReplySink>>,
    id: u64,
    connection: u64,
}

impl Replier {
    /// The duty to answer the call `id` of `connection` into `sink`.
    pub fn new(sink: Arc<dyn ReplySink>, id: u64, connection: u64) -> Replier {
        Replier { sink: Some(sink), id, connection }
    }

    /// By which connection the call came.
    pub fn connection(&self) -> u64 {
        self.connection
    }

    /// Answers.
    pub fn send(mut self, result: Result<Response, Refusal>) {
        if let Some(sink) = self.sink.take() {
            sink.reply(self.id, result);
        }
    }
}

impl Drop for Replier {
    fn drop(&mut self) {
        if let Some(sink) = self.sink.take() {
            sink.reply(self.id, Err(Refusal::OutcomeUnknown));
        }
    }
}

impl fmt::Debug for Replier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Replier({} of connection {})", self.id, self.connection)
    }
}

/// A reply to come.
pub struct PendingReply(Coming);

enum Coming {
    Failed(Option<CallError>),
    Reply(pending::Waiting),
}

impl PendingReply {
    /// A call that failed at once.
    pub fn failed(error: CallError) -> PendingReply {
        PendingReply(Coming::Failed(Some(error)))
    }

    /// A call that was sent.
    pub(crate) fn sent(waiting: pending::Waiting) -> PendingReply {
        PendingReply(Coming::Reply(waiting))
    }

    /// The answer, or `None` where it has not come by the deadline; that is told at most a hundredth of a
    /// second late. Much cheaper than a timer of the runtime's. Must be awaited within a tokio runtime.
    pub fn by(mut self, deadline: Instant) -> impl Future<Output = Option<Answered>> + Send + Unpin {
        poll_fn(move |context| self.poll_by(context, Some(deadline)))
    }

    /// See [`PendingReply::by`]. The deadline may move from one poll to the next.
    pub(crate) fn poll_by(&mut self, context: &Context<'_>, deadline: Option<Instant>) -> Poll<Option<Answered>> {
        match &mut self.0 {
            Coming::Failed(error) => Poll::Ready(Some(Err(error.take().unwrap_or(CallError::Lost)))),
            Coming::Reply(waiting) => waiting.poll(context, deadline),
        }
    }
}

impl Future for PendingReply {
    type Output = Answered;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answered> {
        self.poll_by(context, None).map(|answered| answered.unwrap_or(Err(CallError::Lost)))
    }
}
