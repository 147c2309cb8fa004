//! Faults, done to a real cluster one after the other, each undone before the next.

use std::{io::IsTerminal, time::Duration};

use anyhow::Context;
use serde::Serialize;
use tokio::time::{Instant, sleep, sleep_until};
use wardlock_router::Client;

use crate::cluster::{
    Cluster, health,
    net::{End, Way},
};

/// How long the load runs undisturbed before the first fault.
pub(super) const LEAD_IN: Duration = Duration::from_secs(2);
/// How long a killed node stays down: long enough for the others to elect new leaders without it.
const DOWN: Duration = Duration::from_secs(3);
/// How long the cluster may take to be well again.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is done to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// Killed without warning, and started again after [`DOWN`].
    Kill,
    /// Stopped where it stands for a while, and let go on.
    Pause,
    /// Not heard by the other nodes for a while, though it hears them and its clients reach it.
    Cut,
    /// Asked to drain and end, and started again at once.
    Restart,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill",
            Kind::Pause => "pause",
            Kind::Cut => "cut",
            Kind::Restart => "restart",
        }
    }
}

/// One fault to come; without a node it strikes the one that leads the most shards then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) kind: Kind,
    pub(super) node: Option<u32>,
}

/// All that was asked for, in order: kills, pauses, cuts, and rounds in which each node is restarted.
pub(super) fn plan(kills: u32, pauses: u32, cuts: u32, rolling: u32, nodes: &[u32]) -> Vec<Planned> {
    let busiest = |kind, count| (0..count).map(move |_| Planned { kind, node: None });
    let rounds = (0..rolling).flat_map(|_| nodes.iter().map(|node| Planned { kind: Kind::Restart, node: Some(*node) }));
    busiest(Kind::Kill, kills)
        .chain(busiest(Kind::Pause, pauses))
        .chain(busiest(Kind::Cut, cuts))
        .chain(rounds)
        .collect()
}

/// A fault that was done and undone.
#[derive(Clone, Debug)]
pub(super) struct Injected {
    pub(super) kind: Kind,
    pub(super) node: u32,
    /// Since the load's beginning.
    pub(super) at: Duration,
    /// The shards that the node led just before.
    pub(super) led: Vec<u32>,
    /// From the fault until every node answered, led or followed again.
    pub(super) well_after: Duration,
}

/// Does things to a cluster.
pub(super) struct Injector<'a> {
    pub(super) cluster: &'a mut Cluster,
    pub(super) client: Client,
    pub(super) nodes: u32,
    pub(super) pause: Duration,
    pub(super) every: Duration,
    /// When the load began, and how long after that the first fault comes.
    pub(super) began: Instant,
    pub(super) first: Duration,
}

impl Injector<'_> {
    /// Injects all of them, no two closer than `every`, each only when the cluster is well; tells stderr of each.
    ///
    /// # Errors
    /// Where one cannot be done or undone, or the cluster does not recover. Those in `done` count.
    pub(super) async fn inject(&mut self, planned: &[Planned], done: &mut Vec<Injected>) -> anyhow::Result<()> {
        let mut next = self.began + self.first;
        for (n, fault) in planned.iter().enumerate() {
            sleep_until(next).await;
            let view = health::well(&self.client, PATIENCE).await?;
            let node = fault.node.or(view.busiest()).context("no node leads a shard")?;
            let led = view.led_by(node);
            // Over the line of progress, where there is one.
            let clear = if std::io::stderr().is_terminal() { "\r\x1b[K" } else { "" };
            eprintln!(
                "{clear}{:>6.1} s  fault {} of {}: {} node {node}, which leads {} shards",
                self.began.elapsed().as_secs_f64(),
                n + 1,
                planned.len(),
                fault.kind.name(),
                led.len()
            );
            let at = Instant::now();
            next = at + self.every;
            self.strike(fault.kind, node).await?;
            health::well(&self.client, PATIENCE).await?;
            let since = |instant: Instant| instant.duration_since(self.began);
            done.push(Injected { kind: fault.kind, node, at: since(at), led, well_after: at.elapsed() });
        }
        Ok(())
    }

    /// Does it and undoes it.
    async fn strike(&mut self, kind: Kind, node: u32) -> anyhow::Result<()> {
        match kind {
            Kind::Kill => {
                self.cluster.kill(node).await?;
                sleep(DOWN).await;
                self.cluster.restart(node)
            }
            Kind::Pause => {
                self.cluster.pause(node)?;
                sleep(self.pause).await;
                self.cluster.resume(node)
            }
            Kind::Cut => {
                let others = || (1..=self.nodes).filter(|other| *other != node).map(End::Node);
                let net = self.cluster.net()?;
                others().for_each(|other| net.set(End::Node(node), other, Way { cut: true, ..Way::default() }));
                sleep(self.pause).await;
                others().for_each(|other| net.clear(End::Node(node), other));
                Ok(())
            }
            Kind::Restart => {
                self.cluster.drain(node).await?;
                self.cluster.restart(node)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rolling_restart_takes_each_node_in_turn() {
        let all = plan(2, 1, 1, 2, &[1, 2, 3]);
        let named: Vec<(Kind, Option<u32>)> = all.iter().map(|fault| (fault.kind, fault.node)).collect();
        assert_eq!(named[..4], [(Kind::Kill, None), (Kind::Kill, None), (Kind::Pause, None), (Kind::Cut, None)]);
        let nodes: Vec<Option<u32>> = named[4..].iter().map(|(_, node)| *node).collect();
        assert_eq!(nodes, [Some(1), Some(2), Some(3), Some(1), Some(2), Some(3)]);
        assert!(plan(0, 0, 0, 0, &[1]).is_empty());
    }
}
