//! Tells the placement group's nodes what this node leads and how it is reached.

use std::{sync::Arc, time::Duration};

use wardlock_placement::PLACEMENT;
use wardlock_wire::{Body, Lane, Report};

use super::Host;

/// How often a node reports.
const PERIOD: Duration = Duration::from_millis(500);
/// How long a report counts: after that the node is not alive to the planner.
pub(super) const FRESH: Duration = Duration::from_millis(2_500);

/// Reports until stopped.
pub(super) async fn run(host: Arc<Host>) {
    let mut timer = tokio::time::interval(PERIOD);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let led = host.groups.iter().filter(|group| group.raft.is_leader());
        let (mut leads, mut waits) = (Vec::new(), Vec::new());
        for group in led {
            leads.push(group.id);
            let may_lock_up = group.replica.machine(|machine| machine.counts().serial_waiters > 0);
            waits.extend(Some(group.id).filter(|_| may_lock_up == Some(true)));
        }
        let report = Report { node: host.parts.node, addresses: host.parts.addresses.clone(), leads, waits };
        for place in host.placement_places() {
            // The next report makes up for one that is lost.
            drop(host.parts.transport.call(place.node, Lane::Urgent, Body::Report(report.clone())));
        }
    }
}

impl Host {
    /// Where the placement group's replicas live.
    pub(super) fn placement_places(&self) -> Vec<wardlock_placement::Replica> {
        match self.map().groups.get(&PLACEMENT) {
            Some(group) => group.replicas.clone(),
            None => {
                let nodes: Vec<_> = self.parts.nodes.iter().copied().collect();
                wardlock_placement::founding_replicas(&nodes)
            }
        }
    }

    /// Takes a node's report in.
    pub(super) fn take_report(&self, report: Report) {
        let now = self.parts.clock.now();
        let mut reports = self.reports.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        reports.insert(report.node, (report, now));
    }
}
