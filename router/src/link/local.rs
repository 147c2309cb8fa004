//! A node's calls to itself: no network, the same duty to answer.

use std::sync::Arc;

use wardlock_placement::NodeId;
use wardlock_wire::{Body, Refusal, Response};

use super::{Peer, PendingReply, Replier, ReplySink, Service, pending::Pending};

/// The connection that every call of a process to itself comes by.
const CONNECTION: u64 = 0;

/// Calls the service as the node `me`, whose calls to itself wait in `own`.
pub(super) fn call(service: &dyn Service, own: &Arc<Pending>, me: NodeId, body: Body) -> PendingReply {
    let waiting = match own.enter() {
        Ok(waiting) => waiting,
        Err(error) => return PendingReply::failed(error),
    };
    let peer = Peer { node: Some(me), connection: CONNECTION };
    service.call(&peer, body, Replier::new(own.clone(), waiting.id(), CONNECTION));
    PendingReply::sent(waiting)
}

impl ReplySink for Pending {
    fn reply(&self, id: u64, result: Result<Response, Refusal>) {
        self.complete(id, result.map_err(Into::into));
    }
}
