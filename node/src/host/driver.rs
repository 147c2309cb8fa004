//! Acts on the planner's steps, where this node leads the placement group.
//!
//! The driver remembers nothing that matters: it founds the cluster where that has not happened, asks the
//! planner what is next by what the nodes report, and asks again. Whoever leads the placement group next
//! carries on.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use openraft::{async_runtime::watch::WatchReceiver, impls::ProgressResponder};
use wardlock_placement::{Change, HashKey, Observed, PLACEMENT, Step, plan};
use wardlock_wire::{Body, Lane};

use super::{Host, report::FRESH};
use crate::{
    group::Group,
    raft::types::{Applied, Proposal},
};

/// How often the planner is asked, beside each time that something is reported.
const PERIOD: Duration = Duration::from_millis(500);
/// How long the nodes of the static list are waited for before the shards are created without them.
const BOOTSTRAP_PATIENCE: Duration = Duration::from_secs(20);
/// How long after a new leader's begin no leaderships are moved: all nodes are to be heard first.
const SETTLING: Duration = Duration::from_secs(2);

/// Drives until stopped.
pub(super) async fn run(host: Arc<Host>) {
    let Some(group) = host.groups.get(&PLACEMENT).map(|group| group.clone()) else { return };
    let mut led_since: Option<(u64, Duration)> = None;
    let mut timer = tokio::time::interval(PERIOD);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let now = host.parts.clock.now();
        if !leads(&group) {
            led_since = None;
            continue;
        }
        let term = group.replica.applied_term();
        let (_, since) = *match &mut led_since {
            Some(led) if led.0 == term => led,
            other => other.insert((term, now)),
        };
        let Some(map) = group.replica.map() else { return };
        if !map.is_founded() {
            let placement = host.parts.nodes.iter().copied().collect();
            let hash_key = HashKey(wardlock_router::random::any());
            change(&group, Change::Found { hash_key, incarnation: 1, placement }).await;
            continue;
        }
        let observed = host.observe(now.saturating_sub(since) > BOOTSTRAP_PATIENCE);
        for step in plan(&map, &host.parts.goal, &observed) {
            match step {
                Step::Log(step) => change(&group, step).await,
                Step::Transfer { .. } if now.saturating_sub(since) < SETTLING => {}
                Step::Transfer { group, from, to } => {
                    tracing::info!("leadership of shard {group} goes from node {from} to node {to}");
                    // Where it fails, the next plan asks again.
                    let asked = host.parts.transport.call(from, Lane::Urgent, Body::Transfer { group, to });
                    let _ = tokio::time::timeout(PERIOD, asked).await;
                }
            }
        }
    }
}

/// Whether this replica leads and has applied its term's first entry: then its map is the newest.
fn leads(group: &Group) -> bool {
    let server = group.raft.server_metrics();
    let server = server.borrow_watched();
    group.raft.is_leader() && server.vote.committed && group.replica.applied_term() == server.vote.leader_id.term
}

async fn change(group: &Group, change: Change) {
    let (responder, answer) = ProgressResponder::complete_only();
    let sent = group.raft.write(Proposal(Bytes::from(change.encode()))).responder(responder).await;
    if sent.is_err() {
        return;
    }
    // Lost leadership or a slow quorum: the next plan asks again.
    let Ok(Ok(Ok(written))) = tokio::time::timeout(Duration::from_secs(5), answer).await else { return };
    match written.data {
        Applied::Placement(Err(why)) => tracing::warn!("a change of placement was refused: {why}"),
        _ => tracing::info!("placement: {}", summary(&change)),
    }
}

fn summary(change: &Change) -> String {
    match change {
        Change::Found { .. } => "the cluster is founded".to_owned(),
        Change::Register { node, info } => format!("node {node} is reached at {}", info.quic),
        Change::CreateShards { assignments } => format!("{} shards are created", assignments.len()),
    }
}

impl Host {
    fn observe(&self, patience_over: bool) -> Observed {
        let now = self.parts.clock.now();
        let reports = self.reports.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut observed = Observed { patience_over, ..Observed::default() };
        for (node, (report, at)) in reports.iter() {
            if now.saturating_sub(*at) >= FRESH {
                continue;
            }
            observed.alive.insert(*node);
            observed.infos.insert(*node, report.addresses.clone());
            observed.leaders.extend(report.leads.iter().map(|group| (*group, *node)));
        }
        observed
    }
}
