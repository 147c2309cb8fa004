//! Leaving in order: what was delivered is logged, then leaderships go to nodes that take them, before the groups stop.
//!
//! A leader that has begun to transfer serves nobody until another is elected. So whoever is to take a
//! leadership is asked first: it must be there and not be stopping itself. Where nobody takes any, as when
//! the whole cluster stops, there is nothing to wait for.

use std::{collections::BTreeSet, sync::atomic::Ordering, time::Duration};

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};
use wardlock_placement::NodeId;
use wardlock_wire::{Body, Lane, Response};

use super::Host;
use crate::group::Group;

/// How long a stopping node tries to hand over.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the next leaders may take before others are tried.
const ROUND: Duration = Duration::from_millis(300);
/// How soon a node answers that takes a leadership.
const ANSWER: Duration = Duration::from_millis(200);
/// How often it is looked whether they have taken over.
const LOOK: Duration = Duration::from_millis(10);

impl Host {
    /// Whether this node is stopping.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Whether a node would take a leadership now: it answers and is not stopping.
    pub(super) async fn takes(&self, node: NodeId) -> bool {
        let asked = self.parts.transport.call(node, Lane::Urgent, Body::Status);
        matches!(timeout(ANSWER, asked).await, Ok(Ok(Response::Status(_))))
    }

    /// Ends what is delivered to webhooks and gives every leadership of this node away, as far as there are takers, and takes none any more.
    pub(super) async fn hand_over(&self) {
        self.draining.store(true, Ordering::SeqCst);
        for group in &self.groups {
            group.raft.runtime_config().elect(false);
        }
        // Only a leader can.
        self.desk.close().await;
        let until = Instant::now() + PATIENCE;
        for round in 0_usize.. {
            let leading = self.leading();
            if leading.is_empty() || Instant::now() >= until || !self.offer(&leading, round).await {
                return;
            }
            // The next leaders need a round trip and their disks; requests meanwhile are refused with a hint.
            let handed = async {
                while !self.leading().is_empty() {
                    sleep(LOOK).await;
                }
            };
            let _ = timeout(ROUND, handed).await;
        }
    }

    /// Asks each group's other nodes in turn to lead it. False: there is nobody for any of them.
    async fn offer(&self, leading: &[Group], round: usize) -> bool {
        let map = self.map();
        let others = |group: &Group| {
            let places = map.groups.get(&group.id).map(|group| group.replicas.clone()).unwrap_or_default();
            places.into_iter().filter(|place| place.node != self.parts.node)
        };
        let asked: BTreeSet<NodeId> = leading.iter().flat_map(others).map(|place| place.node).collect();
        let answers = join_all(asked.into_iter().map(|node| async move { (node, self.takes(node).await) })).await;
        let takers: BTreeSet<NodeId> = answers.into_iter().filter(|(_, takes)| *takes).map(|(node, _)| node).collect();
        let mut any = false;
        for group in leading {
            let able: Vec<_> = others(group).filter(|place| takers.contains(&place.node)).collect();
            // Not all to the same node.
            let turn = round + group.id.0 as usize;
            if let Some(next) = able.get(turn % able.len().max(1)) {
                any = true;
                // Fails only when the group has stopped.
                let _ = group.raft.trigger().transfer_leader(next.id.0).await;
            }
        }
        any
    }

    fn leading(&self) -> Vec<Group> {
        self.groups.iter().filter(|group| group.raft.is_leader()).map(|group| group.clone()).collect()
    }
}
