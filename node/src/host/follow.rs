//! Keeps the shard map fresh on a node that has no replica of the placement group.

use std::{sync::Arc, time::Duration};

use wardlock_wire::{Body, Lane, Response};

use super::Host;

/// How long another node may hold the question for a newer map.
const HOLD: Duration = Duration::from_secs(30);
/// How much longer its answer may take.
const GRACE: Duration = Duration::from_secs(5);
/// The shortest time from one question to the next.
const PAUSE: Duration = Duration::from_millis(200);

/// Follows until stopped, one node of the placement group after another. Whatever a node answers, or
/// none does, the next question comes no sooner than [`PAUSE`] after the one before.
pub(super) async fn run(host: Arc<Host>) {
    for turn in 0_usize.. {
        let again = tokio::time::Instant::now() + PAUSE;
        let places = host.placement_places();
        let Some(place) = places.get(turn % places.len().max(1)) else { return };
        let question = Body::Map { known: host.map().version, wait_ms: HOLD.as_millis() as u32 };
        let asked = host.parts.transport.call(place.node, Lane::Client, question);
        if let Ok(Ok(Response::Map(Some(newer)))) = tokio::time::timeout(HOLD + GRACE, asked).await {
            match newer.check() {
                Ok(()) => host.learn(Arc::new(newer)),
                Err(error) => tracing::warn!("node {} sent a map that cannot be: {error}", place.node),
            }
        }
        tokio::time::sleep_until(again).await;
    }
}

impl Host {
    fn learn(&self, map: Arc<wardlock_placement::ShardMap>) {
        self.parts.maps.send_if_modified(|known| {
            let newer = map.version > known.version;
            if newer {
                *known = map;
            }
            newer
        });
    }
}
