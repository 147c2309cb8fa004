//! Takes snapshots and cuts the log up to them: one group at a time, the one with the most to gain first.
//!
//! # Promises
//! 1. A group whose log has not grown gets no snapshot.
//! 2. The groups share what their logs may hold in memory: a group's share is half full when its snapshot
//!    is taken, and what stays below the snapshot, for followers that lag, is no more than a quarter of it.
//!    What a snapshot cannot cover yet is not bounded here.
//! 3. A group whose snapshot fails or takes long loses its turns for a while; the others have theirs.
//! 4. While none is overdue there is one snapshot a period: groups under the same load are due at the same time.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::Instant;
use wardlock_placement::GroupId;

use super::Host;
use crate::{disk::log::GroupLog, group::Group};

/// How often the groups are looked over.
const PERIOD: Duration = Duration::from_millis(500);
/// What the logs of all groups may hold in memory.
const NODE_BYTES: u64 = 256 << 20;
/// The least that a group may hold, be there ever so many groups: a snapshot costs more than its log
/// otherwise.
const SHARE_MIN: u64 = 1 << 20;
/// The most that a group may hold, be it alone: all of it is read and applied when the node starts.
const SHARE_MAX: u64 = 32 << 20;
/// A group with so many entries since its last snapshot gets one, for the same reason.
const ENTRIES: u64 = 10_000;
/// What makes a snapshot overdue, in thousandths of what is worth one: the log must not outgrow its share.
const OVERDUE: u64 = 1_500;
/// Entries that are kept below a snapshot.
const KEPT: usize = 256;
/// How long one snapshot may hold up the next.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a group whose snapshot took longer has no turn.
const ASIDE: Duration = Duration::from_secs(30);

/// Compacts until stopped.
pub(super) async fn run(host: Arc<Host>) {
    let mut timer = tokio::time::interval(PERIOD);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut aside = BTreeMap::new();
    loop {
        timer.tick().await;
        loop {
            let groups: Vec<Group> = host.groups.iter().map(|group| group.clone()).collect();
            let share = share(groups.len());
            let looked = groups.iter().map(|group| (group.id, look(group, &host.parts.log.group(group.id), share)));
            aside.retain(|_, until| *until > Instant::now());
            let next = choose(looked, share, &aside);
            for group in &groups {
                purge(group, &host.parts.log.group(group.id), share).await;
            }
            let Some((next, worth)) = next else { break };
            let Some(group) = groups.into_iter().find(|group| group.id == next) else { break };
            if !snapshot(&group).await {
                aside.insert(group.id, Instant::now() + ASIDE);
            }
            if worth < OVERDUE {
                break;
            }
        }
    }
}

impl Host {
    /// Takes a snapshot of a group's replica here and cuts the log up to it, whether that is worth it or not: what
    /// lags is sent the snapshot. False: there is no such replica, or it failed.
    pub async fn compact(&self, group: GroupId) -> bool {
        let Some(group) = self.groups.get(&group).map(|group| group.clone()) else { return false };
        snapshot(&group).await && group.raft.trigger().purge_log(covered(&group)).await.is_ok()
    }
}

/// What a group's log may hold in memory.
fn share(groups: usize) -> u64 {
    (NODE_BYTES / groups.max(1) as u64).clamp(SHARE_MIN, SHARE_MAX)
}

/// What a snapshot would cover that the last one does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gain {
    entries: u64,
    bytes: u64,
}

impl Gain {
    /// In thousandths of what is worth a snapshot.
    fn worth(self, share: u64) -> u64 {
        (self.entries * 1000 / ENTRIES).max(self.bytes * 1000 / (share / 2))
    }
}

fn look(group: &Group, log: &GroupLog, share: u64) -> Gain {
    let (covered, applied) = (covered(group), group.replica.applied_index());
    // The entries are weighed one by one only where it can matter.
    let bytes = if log.bytes() < share / 2 { 0 } else { log.bytes_between(covered, applied) };
    Gain { entries: applied.saturating_sub(covered), bytes }
}

/// The last entry in the group's snapshot.
fn covered(group: &Group) -> u64 {
    group.raft.metrics().borrow_watched().snapshot.map_or(0, |log_id| log_id.index)
}

/// The group that gains most, if a snapshot is worth it for any, and its worth.
fn choose(
    looked: impl Iterator<Item = (GroupId, Gain)>,
    share: u64,
    aside: &BTreeMap<GroupId, Instant>,
) -> Option<(GroupId, u64)> {
    looked
        .map(|(id, gain)| (id, gain.worth(share)))
        .filter(|(id, worth)| *worth >= 1000 && !aside.contains_key(id))
        .max_by_key(|(_, worth)| *worth)
}

/// Takes a snapshot. False: it failed, or is still under way.
async fn snapshot(group: &Group) -> bool {
    let applied = group.replica.applied_index();
    if group.raft.trigger().snapshot().await.is_err() {
        return false;
    }
    let wait = group.raft.wait(Some(PATIENCE));
    let done = wait.metrics(|metrics| metrics.snapshot.is_some_and(|log_id| log_id.index >= applied), "the snapshot");
    match done.await {
        Ok(_) => true,
        Err(error) => {
            tracing::warn!("the snapshot of group {} takes long: {error}", group.id);
            false
        }
    }
}

/// Purges what the snapshot covers, except for what followers that lag may still ask for.
async fn purge(group: &Group, log: &GroupLog, share: u64) {
    if let Some(upto) = log.surplus(covered(group), KEPT, share / 4) {
        // A group that stops says so elsewhere.
        let _ = group.raft.trigger().purge_log(upto).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: u64 = 1 << 20;

    fn chosen(gains: &[(u64, u64)], aside: &[u32]) -> Option<u32> {
        let looked =
            (1..).zip(gains).map(|(id, (entries, bytes))| (GroupId(id), Gain { entries: *entries, bytes: *bytes }));
        let aside = aside.iter().map(|id| (GroupId(*id), Instant::now())).collect();
        choose(looked, SHARE, &aside).map(|(id, _)| id.0)
    }

    #[test]
    fn only_a_group_that_gains_by_it_gets_a_snapshot() {
        assert_eq!(chosen(&[(0, 0), (ENTRIES - 1, SHARE / 2 - 1000)], &[]), None);
        assert_eq!(chosen(&[(0, 0), (ENTRIES, 0)], &[]), Some(2));
        assert_eq!(chosen(&[(0, 0), (1, SHARE / 2)], &[]), Some(2));
        assert_eq!(chosen(&[(ENTRIES, 0), (ENTRIES, SHARE), (ENTRIES + 1, 0)], &[]), Some(2), "the most to gain");
    }

    #[test]
    fn a_group_set_aside_leaves_the_turn_to_others() {
        assert_eq!(chosen(&[(ENTRIES * 5, 0), (ENTRIES, 0)], &[1]), Some(2));
        assert_eq!(chosen(&[(ENTRIES * 5, 0)], &[1]), None);
    }

    #[test]
    fn the_shares_of_many_groups_stay_within_the_node() {
        assert_eq!(share(0), SHARE_MAX);
        assert_eq!(share(4), SHARE_MAX);
        for groups in [8, 17, 100, 256] {
            assert!(share(groups) * groups as u64 <= NODE_BYTES, "{groups}");
        }
        assert_eq!(share(100_000), SHARE_MIN);
    }
}
