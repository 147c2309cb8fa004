//! One heartbeat timer for all groups.
//!
//! The consensus core would send each group's heartbeats at that group's own moment; sent at the same
//! moment they share one frame, one packet and one wake-up for each peer.

use std::sync::Arc;

use super::Host;

/// Beats until stopped.
pub(super) async fn run(host: Arc<Host>) {
    let mut timer = tokio::time::interval(host.parts.timing.heartbeat);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        timer.tick().await;
        let leading: Vec<_> =
            host.groups.iter().filter(|group| group.raft.is_leader()).map(|group| group.raft.clone()).collect();
        for raft in leading {
            // A group that stops says so elsewhere.
            let _ = raft.trigger().heartbeat().await;
        }
    }
}
