//! Does faults to a real cluster, undoes them, and waits until it is well.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, bail};
use tokio::time::{Instant, sleep};
use wardlock_router::Client;

use super::{
    fault::{Kind, Planned},
    probe::Probes,
};
use crate::{
    cluster::{
        Cluster, health,
        net::{End, Way},
    },
    faults::outages,
    workload::Dice,
};

/// Does things to a cluster.
pub(super) struct Striker<'a> {
    pub(super) cluster: &'a mut Cluster,
    pub(super) client: Client,
    pub(super) probes: &'a Probes,
    pub(super) nodes: u32,
    /// How long the cluster may take to be well again.
    pub(super) heal: Duration,
    pub(super) dice: Dice,
}

/// Faults that were done together, and undone.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct Struck {
    /// What, and to which node.
    pub(super) faults: Vec<(Kind, u32)>,
    /// Since the probes began, seconds.
    pub(super) at_s: f64,
    pub(super) length_s: f64,
    /// From the end of the fault until every node answered and had caught up, and every shard wrote.
    pub(super) well_after_s: f64,
    /// From the fault until every shard wrote again, as clients saw it.
    pub(super) outage_s: f64,
    /// The shards that took no writes for longer than half a second.
    pub(super) shards_out: usize,
}

impl Striker<'_> {
    /// Does them at once, each to a node of its own, and undoes them.
    ///
    /// # Errors
    /// Where one cannot be done or undone, a node ends by itself, or the cluster does not get well in time.
    pub(super) async fn strike(&mut self, planned: &[Planned]) -> anyhow::Result<Struck> {
        let faults = self.choose(planned).await?;
        let from = self.probes.now();
        let began = Instant::now();
        let length = planned.iter().map(|planned| planned.length).max().unwrap_or_default();
        for (kind, node) in &faults {
            self.begin(*kind, *node).await.with_context(|| format!("{} of node {node}", kind.name()))?;
        }
        match faults.iter().find(|(kind, _)| *kind == Kind::SlowDisk) {
            Some((_, node)) => self.cluster.slow_disk(*node, length, &mut self.dice).await?,
            None => sleep(length).await,
        }
        for (kind, node) in &faults {
            self.end(*kind, *node).with_context(|| format!("the end of {} of node {node}", kind.name()))?;
        }
        let lasted = began.elapsed();
        let healing = Instant::now();
        let left = |healing: Instant| self.heal.saturating_sub(healing.elapsed());
        if let Err(error) = health::well(&self.client, left(healing)).await {
            let ailing = self.cluster.ailing().map_or_else(String::new, |ailing| format!("; {ailing}"));
            bail!("not well {:.0} s after the fault: {error}{ailing}", self.heal.as_secs_f64());
        }
        self.probes.all_write(left(healing).max(Duration::from_secs(1))).await?;
        if let Some(ailing) = self.cluster.ailing() {
            bail!("{ailing}");
        }
        let outages = outages(&self.probes.since(from), &[], from, self.probes.now());
        Ok(Struck {
            faults,
            at_s: from.as_secs_f64(),
            length_s: lasted.as_secs_f64(),
            well_after_s: healing.elapsed().as_secs_f64(),
            outage_s: outages.iter().map(|outage| outage.seconds).fold(0.0, f64::max),
            shards_out: outages.iter().filter(|outage| outage.seconds > 0.5).count(),
        })
    }

    /// A node for each.
    async fn choose(&mut self, planned: &[Planned]) -> anyhow::Result<Vec<(Kind, u32)>> {
        let view = health::well(&self.client, self.heal).await.context("before the fault")?;
        let mut free: Vec<u32> = (1..=self.nodes).collect();
        let mut chosen = Vec::new();
        for planned in planned {
            let busiest = view.busiest().filter(|node| planned.busiest && free.contains(node));
            let any = free.get(self.dice.below(free.len() as u64) as usize).copied();
            let node = busiest.or(any).context("there are not so many nodes")?;
            free.retain(|other| *other != node);
            chosen.push((planned.kind, node));
        }
        Ok(chosen)
    }

    async fn begin(&mut self, kind: Kind, node: u32) -> anyhow::Result<()> {
        match kind {
            Kind::Kill | Kind::Clock => self.cluster.kill(node).await?,
            Kind::Pause => self.cluster.pause(node)?,
            Kind::Restart => self.cluster.drain(node).await?,
            Kind::KillAll | Kind::PowerCut => {
                for node in 1..=self.nodes {
                    self.cluster.kill(node).await?;
                }
                if kind == Kind::PowerCut {
                    (1..=self.nodes).try_for_each(|node| self.cluster.cut_power(node))?;
                }
            }
            Kind::SlowDisk => {}
            Kind::FullDisk => self.cluster.fill_disk(node)?,
            _ => {
                for ((from, to), way) in self.ways(kind, node) {
                    self.cluster.net()?.set(from, to, way);
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, kind: Kind, node: u32) -> anyhow::Result<()> {
        match kind {
            Kind::Kill | Kind::Restart => self.cluster.restart(node)?,
            Kind::Pause => self.cluster.resume(node)?,
            Kind::KillAll | Kind::PowerCut => (1..=self.nodes).try_for_each(|node| self.cluster.restart(node))?,
            Kind::Clock => {
                self.cluster.change_clock(node, &mut self.dice)?;
                self.cluster.restart(node)?;
            }
            Kind::SlowDisk => {}
            Kind::FullDisk => self.cluster.empty_disk(node)?,
            _ => {
                for other in (1..=self.nodes).map(End::Node).chain([End::Client]) {
                    // What two faults have done at once is undone at once.
                    self.cluster.net()?.clear(End::Node(node), other);
                    self.cluster.net()?.clear(other, End::Node(node));
                }
            }
        }
        Ok(())
    }

    /// What a fault of the network does to which directions.
    fn ways(&mut self, kind: Kind, node: u32) -> BTreeMap<(End, End), Way> {
        let me = End::Node(node);
        let others: Vec<End> = (1..=self.nodes).filter(|other| *other != node).map(End::Node).collect();
        let out = |way: Way| others.iter().map(move |other| ((me, *other), way)).collect::<BTreeMap<_, _>>();
        let back = |way: Way| others.iter().map(move |other| ((*other, me), way)).collect::<BTreeMap<_, _>>();
        let both = |way: Way| -> BTreeMap<(End, End), Way> { out(way).into_iter().chain(back(way)).collect() };
        let cut = Way { cut: true, ..Way::default() };
        let ms = |least: u64, spread: u64, dice: &mut Dice| Duration::from_millis(least + dice.below(spread));
        match kind {
            Kind::Cut => both(cut),
            Kind::OneWay if self.dice.percent(50.0) => out(cut),
            Kind::OneWay => back(cut),
            Kind::Mute => [((me, End::Client), cut)].into(),
            Kind::Delay => {
                both(Way { delay: ms(10, 150, &mut self.dice), jitter: ms(0, 20, &mut self.dice), ..Way::default() })
            }
            Kind::Loss => {
                let loss = 2.0 + 25.0 * self.dice.unit();
                both(Way { loss, twice: 5.0, ..Way::default() })
            }
            Kind::Reorder => both(Way { jitter: ms(3, 40, &mut self.dice), ..Way::default() }),
            _ => BTreeMap::new(),
        }
    }
}
