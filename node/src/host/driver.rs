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
/// How long a transfer may take until the new leader reports it.
const TRANSFER: Duration = Duration::from_millis(500);

/// When leaderships may be moved.
#[derive(Default)]
struct Pace {
    /// The term in which this node leads, and since when.
    led: Option<(u64, Duration)>,
    /// When leaderships were last moved in that term.
    moved: Option<Duration>,
}

impl Pace {
    /// This node leads in `term` now; answers since when.
    fn leads(&mut self, term: u64, now: Duration) -> Duration {
        match self.led {
            Some((known, since)) if known == term => since,
            _ => {
                *self = Pace { led: Some((term, now)), moved: None };
                now
            }
        }
    }

    /// Whether what is known of the leaders is as it is, where the oldest report is of `oldest`: all nodes were
    /// heard, and since the last moves. A plan made of older reports undoes those moves, and the next plan undoes
    /// that, for as long as it happens to go on.
    fn may_move(&self, now: Duration, oldest: Option<Duration>) -> bool {
        let settled = self.led.is_some_and(|(_, since)| now.saturating_sub(since) >= SETTLING);
        let heard = |moved: Duration| oldest.is_some_and(|oldest| oldest >= moved + TRANSFER);
        settled && self.moved.is_none_or(heard)
    }
}

/// Drives until stopped.
pub(super) async fn run(host: Arc<Host>) {
    let Some(group) = host.groups.get(&PLACEMENT).map(|group| group.clone()) else { return };
    let mut pace = Pace::default();
    let mut timer = tokio::time::interval(PERIOD);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let now = host.parts.clock.now();
        if !leads(&group) {
            pace = Pace::default();
            continue;
        }
        let since = pace.leads(group.replica.applied_term(), now);
        let Some(map) = group.replica.map() else { return };
        if !map.is_founded() {
            let placement = host.parts.nodes.iter().copied().collect();
            let hash_key = HashKey(wardlock_router::random::any());
            change(&group, Change::Found { hash_key, incarnation: 1, placement }).await;
            continue;
        }
        let (observed, oldest) = host.observe(now.saturating_sub(since) > BOOTSTRAP_PATIENCE);
        let may_move = pace.may_move(now, oldest);
        for step in plan(&map, &host.parts.goal, &observed) {
            match step {
                Step::Log(step) => change(&group, step).await,
                Step::Transfer { .. } if !may_move => {}
                Step::Transfer { group, from, to } => {
                    tracing::info!("leadership of shard {group} goes from node {from} to node {to}");
                    // Where it fails, the next plan asks again.
                    let asked = host.parts.transport.call(from, Lane::Urgent, Body::Transfer { group, to });
                    let _ = tokio::time::timeout(PERIOD, asked).await;
                    pace.moved = Some(host.parts.clock.now());
                }
            }
        }
    }
}

/// Whether this replica leads and has applied its term's first entry: then its map is the newest.
pub(super) fn leads(group: &Group) -> bool {
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
    /// What is reported, and when the oldest report came that counts.
    fn observe(&self, patience_over: bool) -> (Observed, Option<Duration>) {
        let now = self.parts.clock.now();
        let reports = self.reports.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut observed = Observed { patience_over, ..Observed::default() };
        let mut oldest = None;
        for (node, (report, at)) in reports.iter() {
            if now.saturating_sub(*at) >= FRESH {
                continue;
            }
            oldest = oldest.into_iter().chain([*at]).min();
            observed.alive.insert(*node);
            observed.infos.insert(*node, report.addresses.clone());
            observed.leaders.extend(report.leads.iter().map(|group| (*group, *node)));
        }
        (observed, oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn leaderships_are_moved_by_reports_that_are_younger_than_the_last_moves() {
        let mut pace = Pace::default();
        assert_eq!(pace.leads(3, ms(1_000)), ms(1_000));
        assert!(!pace.may_move(ms(2_999), Some(ms(2_900))), "not all nodes were heard yet");
        assert!(pace.may_move(ms(3_000), Some(ms(2_600))));
        pace.moved = Some(ms(3_010));
        assert!(!pace.may_move(ms(3_500), Some(ms(3_100))), "some reports may be of before");
        assert!(!pace.may_move(ms(4_000), Some(ms(3_509))));
        assert!(pace.may_move(ms(4_000), Some(ms(3_510))));
        assert!(!pace.may_move(ms(9_000), None), "nobody is heard");
        // Who leads in another term was elected meanwhile and knows of no moves.
        assert_eq!(pace.leads(4, ms(5_000)), ms(5_000));
        assert!(!pace.may_move(ms(6_900), Some(ms(6_800))));
        assert!(pace.may_move(ms(7_000), Some(ms(6_800))));
        assert_eq!(pace.leads(4, ms(8_000)), ms(5_000));
    }
}
