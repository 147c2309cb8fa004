//! A node's calls to itself: no network, the same duty to answer.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;
use wardlock_placement::NodeId;
use wardlock_wire::{Body, Refusal, Response};

use super::{Answered, Peer, PendingReply, Replier, ReplySink, Service};

/// The connection that every call of a process to itself comes by.
const CONNECTION: u64 = 0;

/// Calls the service as the node `me`.
pub(super) fn call(service: &dyn Service, me: NodeId, body: Body) -> PendingReply {
    let (sender, receiver) = oneshot::channel();
    let sink = Arc::new(Slot(Mutex::new(Some(sender))));
    let peer = Peer { node: Some(me), connection: CONNECTION };
    service.call(&peer, body, Replier::new(sink, 0, CONNECTION));
    PendingReply::sent(receiver)
}

struct Slot(Mutex<Option<oneshot::Sender<Answered>>>);

impl ReplySink for Slot {
    fn reply(&self, _: u64, result: Result<Response, Refusal>) {
        let waiter = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waiter) = waiter {
            let _ = waiter.send(result.map_err(Into::into));
        }
    }
}
