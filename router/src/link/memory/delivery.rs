//! One task for each pair and direction: it delivers in order, each message when it is due.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::{sync::mpsc, time::Instant};
use wardlock_wire::{Lane, Message, frame::Decoder};

use super::{Hub, Party, UNDER_WAY, WayBack};
use crate::link::{CallError, Peer, Replier, pending::Pending};

/// A message under way.
pub(super) struct Parcel {
    pub(super) due: Instant,
    pub(super) lane: Lane,
    pub(super) bytes: BytesMut,
    pub(super) call: Call,
}

/// The call that a message is part of: where its caller waits, and its id there.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) pending: Arc<Pending>,
    pub(super) id: u64,
}

/// Starts delivering; ends when the sender is dropped.
pub(super) fn start(hub: &Hub, from: Party, to: Party) -> mpsc::Sender<Parcel> {
    let (sender, mut parcels) = mpsc::channel::<Parcel>(UNDER_WAY);
    // Holds the hub only while it delivers: the hub holds the sender.
    let weak = Arc::downgrade(&hub.0);
    tokio::spawn(async move {
        while let Some(parcel) = parcels.recv().await {
            tokio::time::sleep_until(parcel.due).await;
            let Some(hub) = weak.upgrade().map(Hub) else { return };
            if hub.loses(from, to) {
                lose(&hub, parcel.call);
            } else {
                deliver(&hub, from, to, parcel);
            }
        }
    });
    sender
}

/// The caller hears of it after a while.
pub(super) fn lose(hub: &Hub, call: Call) {
    let lost_after = hub.lock().lost_after;
    tokio::spawn(async move {
        tokio::time::sleep(lost_after).await;
        call.pending.complete(call.id, Err(CallError::Lost));
    });
}

fn deliver(hub: &Hub, from: Party, to: Party, mut parcel: Parcel) {
    let lane = parcel.lane;
    let decoded = Decoder::new(lane.frame_bytes()).next(&mut parcel.bytes);
    assert!(parcel.bytes.is_empty(), "a parcel is one frame");
    let pending = parcel.call.pending;
    if !pending.is_open() {
        // One of the two has ended since, and whoever waited has heard.
        return;
    }
    match decoded {
        Ok(Some(Message::Call { id, body })) => {
            let (Some(sender), Some(receiver)) = (hub.attached(from), hub.attached(to)) else { return };
            let node = match from {
                Party::Node(node) => Some(node),
                Party::Client(_) => None,
            };
            let peer = Peer { node, connection: sender.connection };
            let sink = Arc::new(WayBack { hub: hub.clone(), from: to, to: from, lane, pending });
            if let Some(service) = receiver.service {
                service.call(&peer, body, Replier::new(sink, id, sender.connection));
            }
        }
        Ok(Some(Message::Reply { id, result })) => pending.complete(id, result.map_err(Into::into)),
        decoded => panic!("the codec does not read what it wrote: {decoded:?}"),
    }
}
