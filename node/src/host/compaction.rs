//! Takes snapshots, so that the log can be cut: one group at a time, the one with the most log first.

use std::{sync::Arc, time::Duration};

use super::Host;

/// How often the groups are looked over.
const PERIOD: Duration = Duration::from_millis(500);
/// A group with more entries than this since its last snapshot gets one.
const ENTRIES: u64 = 10_000;
/// A group with more bytes of log than this gets one.
const BYTES: u64 = 8 << 20;
/// How long one snapshot may take before the next group has its turn all the same.
const PATIENCE: Duration = Duration::from_secs(30);

/// Compacts until stopped.
pub(super) async fn run(host: Arc<Host>) {
    let mut timer = tokio::time::interval(PERIOD);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let fullest = host
            .groups
            .iter()
            .map(|group| {
                let log = host.parts.log.group(group.id);
                (log.bytes() / BYTES.max(1) + log.entries() / ENTRIES, log.bytes(), group.clone())
            })
            .filter(|(load, ..)| *load > 0)
            .max_by_key(|(load, bytes, _)| (*load, *bytes));
        let Some((_, _, group)) = fullest else { continue };
        let applied = group.replica.applied_index();
        if group.raft.trigger().snapshot().await.is_err() {
            continue;
        }
        let wait = group.raft.wait(Some(PATIENCE));
        let done =
            wait.metrics(|metrics| metrics.snapshot.is_some_and(|log_id| log_id.index >= applied), "the snapshot");
        if let Err(error) = done.await {
            tracing::warn!("the snapshot of group {} takes long: {error}", group.id);
        }
    }
}
