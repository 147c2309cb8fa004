//! What goes wrong: each run draws a mix of kinds, and then one after the other from that mix. Rare combinations
//! come up because most runs do not do everything at once.

use std::{collections::BTreeMap, time::Duration};

use rand::{RngExt, rngs::StdRng, seq::IndexedRandom};
use wardlock_placement::{GroupId, NodeId};
use wardlock_router::link::memory::Weather;

use crate::{
    cluster::{Cluster, Stop},
    disk::Failure,
    event::Event,
    world::World,
};

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Kind {
    Drain,
    Kill,
    PowerOff,
    PowerOffAll,
    Cut,
    CutOneWay,
    Isolate,
    Ring,
    Hold,
    Loss,
    Twice,
    Reorder,
    Slow,
    WallClock,
    DiskFull,
    DiskBroken,
    Transfer,
    Compact,
}

/// All of them.
pub const ALL: [Kind; 18] = [
    Kind::Drain,
    Kind::Kill,
    Kind::PowerOff,
    Kind::PowerOffAll,
    Kind::Cut,
    Kind::CutOneWay,
    Kind::Isolate,
    Kind::Ring,
    Kind::Hold,
    Kind::Loss,
    Kind::Twice,
    Kind::Reorder,
    Kind::Slow,
    Kind::WallClock,
    Kind::DiskFull,
    Kind::DiskBroken,
    Kind::Transfer,
    Kind::Compact,
];

impl Kind {
    /// What it is counted as.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Drain => "fault: drain",
            Kind::Kill => "fault: kill",
            Kind::PowerOff => "fault: power off",
            Kind::PowerOffAll => "fault: power off all",
            Kind::Cut => "fault: cut",
            Kind::CutOneWay => "fault: one-way cut",
            Kind::Isolate => "fault: isolate",
            Kind::Ring => "fault: ring",
            Kind::Hold => "fault: hold",
            Kind::Loss => "fault: loss",
            Kind::Twice => "fault: twice",
            Kind::Reorder => "fault: reorder",
            Kind::Slow => "fault: slow",
            Kind::WallClock => "fault: wall clock",
            Kind::DiskFull => "fault: disk full",
            Kind::DiskBroken => "fault: disk broken",
            Kind::Transfer => "fault: transfer",
            Kind::Compact => "fault: compact",
        }
    }
}

/// The mix of one run: its kinds, and how long between two faults.
#[derive(Clone, Debug)]
pub struct Mix {
    /// At least one.
    pub kinds: Vec<Kind>,
    /// The mean pause between two faults.
    pub pause: Duration,
}

impl Mix {
    /// Each kind is in with the same odds, which are drawn first.
    pub fn draw(random: &mut StdRng) -> Mix {
        let odds = random.random_range(1..=6);
        let mut kinds: Vec<Kind> = ALL.into_iter().filter(|_| random.random_range(0..8) < odds).collect();
        if kinds.is_empty() {
            kinds.push(*ALL.choose(random).expect("there are kinds"));
        }
        Mix { kinds, pause: Duration::from_millis(random.random_range(300..4_000)) }
    }
}

/// What undoes faults, by when.
pub struct Injector {
    weather: Weather,
    /// Nodes that are down, until when.
    down: BTreeMap<NodeId, Duration>,
}

/// A calm network.
pub const CALM: Weather = Weather {
    delay: Duration::from_millis(1),
    jitter: Duration::from_millis(1),
    lost_ppm: 0,
    twice_ppm: 0,
    reorders: false,
};

impl Injector {
    /// Nothing is wrong yet.
    pub fn new(cluster: &Cluster) -> Injector {
        cluster.hub.set_weather(CALM);
        Injector { weather: CALM, down: BTreeMap::new() }
    }

    /// Starts what has been down for long enough, and what has failed.
    pub async fn tend(&mut self, cluster: &mut Cluster, world: &World, random: &mut StdRng) {
        while let Some(node) = cluster.failed() {
            cluster.stop(node, Stop::Kill, random).await;
            self.down.insert(node, world.at() + Duration::from_millis(random.random_range(100..2_000)));
        }
        let back: Vec<NodeId> = self.down.iter().filter(|(_, until)| **until <= world.at()).map(|(n, _)| *n).collect();
        for node in back {
            self.down.remove(&node);
            self.start(cluster, world, node).await;
        }
    }

    async fn start(&mut self, cluster: &mut Cluster, world: &World, node: NodeId) {
        world.note(&format!("node {node} starts"));
        // Whoever starts it has seen to its disk.
        for disk in &cluster.machines[&node].disks {
            disk.mend();
        }
        cluster.start(node).await;
    }

    /// Does one fault.
    pub async fn strike(&mut self, kind: Kind, cluster: &mut Cluster, world: &World, random: &mut StdRng) {
        let nodes: Vec<NodeId> = cluster.machines.keys().copied().collect();
        let node = *nodes.choose(random).expect("there are nodes");
        let other = *nodes.choose(random).expect("there are nodes");
        world.count(kind.name(), 1);
        world.tell(Event::Fault { what: format!("{kind:?} {node} {other}") });
        match kind {
            Kind::Drain | Kind::Kill | Kind::PowerOff => {
                let how = match kind {
                    Kind::Drain => Stop::Drain,
                    Kind::Kill => Stop::Kill,
                    _ => Stop::PowerOff,
                };
                self.stop(node, how, cluster, world, random).await;
            }
            Kind::PowerOffAll => {
                for node in nodes {
                    self.stop(node, Stop::PowerOff, cluster, world, random).await;
                }
            }
            Kind::Cut => cluster.hub.cut(node, other),
            Kind::CutOneWay => cluster.hub.cut_one_way(node, other),
            Kind::Isolate => {
                for other in nodes.into_iter().filter(|other| *other != node) {
                    cluster.hub.cut(node, other);
                }
            }
            // Everybody hears the next one only.
            Kind::Ring => {
                for (at, from) in nodes.iter().enumerate() {
                    for (to_at, to) in nodes.iter().enumerate() {
                        if to_at != at && to_at != (at + 1) % nodes.len() {
                            cluster.hub.cut_one_way(*from, *to);
                        }
                    }
                }
            }
            Kind::Hold => cluster.hub.hold(node),
            Kind::Loss => self.weather.lost_ppm = random.random_range(1_000..200_000),
            Kind::Twice => self.weather.twice_ppm = random.random_range(1_000..300_000),
            Kind::Reorder => self.weather.reorders = true,
            Kind::Slow => self.weather.jitter = Duration::from_millis(random.random_range(5..250)),
            Kind::WallClock => cluster.machines[&node].clock.set_wall(random.random_range(-3_600_000..3_600_000)),
            Kind::DiskFull | Kind::DiskBroken => {
                let disk = &cluster.machines[&node].disks[random.random_range(0..2)];
                let from = disk.count();
                disk.fail(match kind {
                    Kind::DiskFull => Failure::Full(from..u64::MAX),
                    _ => Failure::Io(from..u64::MAX),
                });
            }
            Kind::Transfer => {
                let shard = GroupId(random.random_range(1..=cluster.shape.shards));
                cluster.transfer(shard, node);
            }
            Kind::Compact => cluster.compact(node),
        }
        cluster.hub.set_weather(self.weather);
    }

    /// Ends every fault but those of nodes that are down.
    pub fn calm(&mut self, cluster: &Cluster) {
        cluster.hub.heal();
        self.weather = CALM;
        cluster.hub.set_weather(CALM);
    }

    /// Ends every fault and starts all that is down.
    pub async fn heal(&mut self, cluster: &mut Cluster, world: &World, random: &mut StdRng) {
        self.calm(cluster);
        self.tend(cluster, world, random).await;
        for machine in cluster.machines.values() {
            for disk in &machine.disks {
                disk.mend();
            }
        }
        let down: Vec<NodeId> = cluster.machines.keys().copied().filter(|node| !cluster.runs(*node)).collect();
        self.down.clear();
        for node in down {
            self.start(cluster, world, node).await;
        }
    }

    async fn stop(&mut self, node: NodeId, how: Stop, cluster: &mut Cluster, world: &World, random: &mut StdRng) {
        cluster.stop(node, how, random).await;
        self.down.insert(node, world.at() + Duration::from_millis(random.random_range(50..6_000)));
    }
}
