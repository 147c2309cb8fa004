//! One task for each pair and direction: it delivers each message when it is due, in order unless it may overtake.

use std::{collections::BTreeMap, sync::Arc};

use bytes::BytesMut;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use wardlock_wire::{Lane, Message, frame::Decoder};

use super::{Hub, Party, UNDER_WAY, WayBack};
use crate::link::{CallError, Peer, Replier, pending::Pending};

/// A message under way.
#[derive(Clone)]
pub(super) struct Parcel {
    pub(super) due: Instant,
    /// Whether it may overtake those before it.
    pub(super) reorders: bool,
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
        let mut under_way: BTreeMap<(Instant, u64), Parcel> = BTreeMap::new();
        let (mut count, mut latest) = (0, Instant::now());
        loop {
            let next = under_way.first_key_value().map(|((due, _), _)| *due);
            let parcel = tokio::select! {
                biased;
                () = sleep_until(next.unwrap_or(latest)), if next.is_some() => under_way.pop_first(),
                parcel = parcels.recv() => {
                    let Some(parcel) = parcel else { return };
                    let due = if parcel.reorders { parcel.due } else { parcel.due.max(latest) };
                    (count, latest) = (count + 1, latest.max(due));
                    under_way.insert((due, count), parcel);
                    continue;
                }
            };
            let (Some(hub), Some((_, parcel))) = (weak.upgrade().map(Hub), parcel) else { return };
            while let Some(mut released) = hub.held(from, to) {
                // It fails when the hub is gone, and so are all who wait.
                if released.changed().await.is_err() {
                    return;
                }
            }
            match hub.copies(from, to) {
                0 => lose(&hub, parcel.call),
                1 => deliver(&hub, from, to, parcel),
                _ => {
                    deliver(&hub, from, to, parcel.clone());
                    deliver(&hub, from, to, parcel);
                }
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
