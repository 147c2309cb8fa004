//! What the dashboards see of this node's groups, set once a second.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use openraft::async_runtime::watch::WatchReceiver;
use wardlock_placement::GroupId;

use super::Host;
use crate::metrics::{NodeGauges, ShardGauges};

const PERIOD: Duration = Duration::from_secs(1);

/// Sets gauges until stopped.
pub(super) async fn run(host: Arc<Host>) {
    let node = NodeGauges::default();
    let mut shards: BTreeMap<GroupId, ShardGauges> = BTreeMap::new();
    let mut timer = tokio::time::interval(PERIOD);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let mut without_leader = 0_u32;
        let mut totals = wardlock_machine::Counts::default();
        for group in host.groups.iter() {
            let metrics = group.raft.metrics();
            let metrics = metrics.borrow_watched();
            let has_leader = metrics.current_leader.is_some();
            let applied = metrics.last_applied.map_or(0, |log_id| log_id.index);
            let gauges = shards.entry(group.id).or_insert_with(|| ShardGauges::new(group.id));
            gauges.set(has_leader, metrics.last_log_index.unwrap_or(0).saturating_sub(applied), applied);
            without_leader += u32::from(!has_leader);
            if let Some(counts) = group.replica.machine(|machine| machine.counts()).filter(|_| group.raft.is_leader()) {
                totals.exclusive += counts.exclusive;
                totals.shared += counts.shared;
                totals.semaphore += counts.semaphore;
                totals.waiters += counts.waiters;
                totals.sessions += counts.sessions;
                totals.configs += counts.configs;
                totals.config_bytes += counts.config_bytes;
                totals.config_old_bytes += counts.config_old_bytes;
                totals.services += counts.services;
                totals.instances.passing += counts.instances.passing;
                totals.instances.warning += counts.instances.warning;
                totals.instances.critical += counts.instances.critical;
            }
        }
        node.set(without_leader, &totals);
    }
}
