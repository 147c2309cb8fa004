//! The cluster under test: real hosts, on one thread, over the link in memory, each with a faulty disk and a
//! clock of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use rand::{RngExt, rngs::StdRng};
use tokio::sync::{mpsc, watch};
use wardlock::{
    config::Timing,
    disk::{
        log::{Options, SharedLog},
        snapshots::Snapshots,
    },
    host::{Door, Host, Parts},
};
use wardlock_machine::{Answer, Query, SessionView};
use wardlock_placement::{Goal, GroupId, NodeId, PLACEMENT, ShardMap, founding_replicas};
use wardlock_router::{
    Client, Connected,
    link::{Transport, memory::Hub},
};
use wardlock_wire::{Body, Lane};

use crate::{
    checks::{End, ReplicaState},
    clock::{DRIFT_PPM, Drifting},
    disk::{Disk, Survivors},
    world::World,
};

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Its nodes.
    pub nodes: u32,
    /// Its shards.
    pub shards: u32,
    /// How soon a silent leader is missed.
    pub timing: Timing,
}

/// One node's machine, which outlives its process.
pub struct Machine {
    /// Its clock.
    pub clock: Arc<Drifting>,
    /// The log's disk and the snapshots'.
    pub disks: [Disk; 2],
    running: Option<Running>,
}

struct Running {
    host: Arc<Host>,
    log: SharedLog,
    dead: Arc<AtomicBool>,
}

/// All of it.
pub struct Cluster {
    /// What it is made of.
    pub shape: Shape,
    /// The network.
    pub hub: Hub,
    /// The nodes.
    pub machines: BTreeMap<NodeId, Machine>,
    world: Arc<World>,
    operator: Arc<dyn Transport>,
    /// Nodes whose process ended by itself, because of its disk.
    failed: (mpsc::UnboundedSender<NodeId>, mpsc::UnboundedReceiver<NodeId>),
}

/// The operator's connection; clients have lower numbers.
const OPERATOR: u64 = 1 << 20;

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It hands its leaderships over and ends in order.
    Drain,
    /// It is killed: what it wrote is there.
    Kill,
    /// Its machine loses power: what it did not sync may be there, in part.
    PowerOff,
}

impl Cluster {
    /// A cluster whose nodes have not started.
    pub fn new(shape: Shape, world: Arc<World>, random: &mut StdRng) -> Cluster {
        let hub = Hub::new();
        hub.set_lost_after(Duration::from_millis(500));
        let machine = |random: &mut StdRng| Machine {
            clock: Arc::new(Drifting::new(random.random_range(-DRIFT_PPM..=DRIFT_PPM))),
            disks: Default::default(),
            running: None,
        };
        let machines = (1..=shape.nodes).map(|node| (NodeId(node), machine(random))).collect();
        let operator = hub.attach_client(OPERATOR);
        Cluster { shape, hub, machines, world, operator, failed: mpsc::unbounded_channel() }
    }

    /// Starts a node's process.
    pub async fn start(&mut self, node: NodeId) {
        let machine = &self.machines[&node];
        let dead = Arc::new(AtomicBool::new(false));
        let (failed, gone, world) = (self.failed.0.clone(), Arc::clone(&dead), Arc::clone(&self.world));
        let on_fatal = Arc::new(move |why: &str| {
            // Nobody hears a process that is dead already.
            if !gone.swap(true, Relaxed) {
                world.note(&format!("node {node} stops: {why}"));
                // The cluster outlives its nodes.
                let _ = failed.send(node);
            }
        });
        let opened = SharedLog::open(machine.disks[0].clone(), Options::default(), on_fatal.clone());
        let (log, writer) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.world.wrong(format!("the log of node {node} does not open: {error}"));
                return;
            }
        };
        let snapshots = match Snapshots::open(machine.disks[1].clone(), 1 << 20) {
            Ok(snapshots) => snapshots,
            Err(error) => {
                self.world.wrong(format!("the snapshots of node {node} do not open: {error}"));
                return;
            }
        };
        if let Err(error) = snapshots.check_cover(&log) {
            self.world.wrong(format!("node {node}: {error}"));
            return;
        }
        tokio::spawn(writer.run());
        let door = Arc::new(Door::default());
        let transport = self.hub.attach(node, Arc::clone(&door) as _);
        let connected = Arc::new(Connected(Arc::clone(&transport)));
        let client = Client::with_clock(connected, self.seeds(), Arc::clone(&machine.clock) as _);
        let nodes: BTreeSet<NodeId> = self.machines.keys().copied().collect();
        let goal = Goal::new(self.shape.shards, 3.min(self.shape.nodes as u8), nodes.clone());
        let started = Host::start(Parts {
            node,
            goal: goal.expect("the shape makes a goal"),
            nodes,
            addresses: wardlock_placement::Node { quic: format!("node-{node}:1"), http: None, domain: None },
            timing: self.shape.timing,
            clock: Arc::clone(&machine.clock) as _,
            transport,
            client,
            log: log.clone(),
            snapshots: Arc::new(snapshots),
            disk_low: Arc::new(|| false),
            on_fatal,
            maps: watch::Sender::new(Arc::new(ShardMap::default())),
        });
        match started.await {
            Ok(host) => {
                door.open(Arc::clone(&host));
                let running = Running { host, log, dead };
                self.machine(node).running = Some(running);
            }
            // Its disk may have failed meanwhile: then it has said so.
            Err(error) if dead.load(Relaxed) => self.world.note(&format!("node {node} did not start: {error}")),
            Err(error) => self.world.wrong(format!("node {node} does not start: {error}")),
        }
    }

    /// Ends a node's process, if it runs.
    pub async fn stop(&mut self, node: NodeId, how: Stop, random: &mut StdRng) {
        let machine = self.machine(node);
        let Some(running) = machine.running.take() else { return };
        let lives = how == Stop::Drain && !running.dead.load(Relaxed);
        if lives {
            running.host.shutdown().await;
            running.log.close();
            // The writer writes what is queued.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        running.dead.store(true, Relaxed);
        let machine = self.machine(node);
        for disk in &mut machine.disks {
            *disk = match how {
                Stop::PowerOff => disk.power_off(match random.random_range(0..4) {
                    0 => Survivors::Synced,
                    1 => Survivors::All,
                    _ => Survivors::Torn(random.random()),
                }),
                Stop::Drain | Stop::Kill => disk.kill(),
            };
        }
        self.hub.detach(node);
        if !lives {
            // What is left of it runs into the void.
            running.log.close();
            tokio::spawn(async move { running.host.halt().await });
        }
    }

    /// A node whose process has ended by itself since the last call.
    pub fn failed(&mut self) -> Option<NodeId> {
        self.failed.1.try_recv().ok()
    }

    /// Whether its process runs.
    pub fn runs(&self, node: NodeId) -> bool {
        self.machines[&node].running.is_some()
    }

    /// The hosts that run.
    pub fn hosts(&self) -> impl Iterator<Item = (NodeId, &Arc<Host>)> {
        self.machines.iter().filter_map(|(node, machine)| Some((*node, &machine.running.as_ref()?.host)))
    }

    /// Where clients look for the map.
    pub fn seeds(&self) -> impl Iterator<Item = String> + use<> {
        (1..=self.shape.nodes.min(3)).map(|node| node.to_string())
    }

    /// Asks whoever leads a shard to give it to this node.
    pub fn transfer(&self, group: GroupId, to: NodeId) {
        let leads = |host: &Host, node| host.status().groups.iter().any(|g| g.group == group && g.leader == Some(node));
        if let Some((from, _)) = self.hosts().find(|(node, host)| leads(host, *node)) {
            // Done or refused: it is one more thing that may happen.
            tokio::spawn(self.operator.call(from, Lane::Urgent, Body::Transfer { group, to }));
        }
    }

    /// Has a node take snapshots of all its groups and cut its log.
    pub fn compact(&self, node: NodeId) {
        let Some(running) = &self.machines[&node].running else { return };
        let host = Arc::clone(&running.host);
        tokio::spawn(async move {
            for status in host.status().groups {
                // It fails with the node.
                let _ = host.compact(status.group).await;
            }
        });
    }

    /// How many shards each node leads.
    pub fn leads(&self) -> BTreeMap<NodeId, usize> {
        let led = |host: &Host, node| {
            host.status().groups.iter().filter(|g| g.group != PLACEMENT && g.leader == Some(node)).count()
        };
        self.hosts().map(|(node, host)| (node, led(host, node))).collect()
    }

    /// Who leads each group, and in which term, by its own word.
    pub fn led(&self) -> BTreeMap<GroupId, (NodeId, u64)> {
        let mut led = BTreeMap::new();
        for (node, host) in self.hosts() {
            for g in host.status().groups.into_iter().filter(|g| g.leader == Some(node)) {
                let latest = led.entry(g.group).or_insert((node, g.term));
                if g.term > latest.1 {
                    *latest = (node, g.term);
                }
            }
        }
        led
    }

    /// The term that a node has for each of its groups.
    pub fn terms(&self, node: NodeId) -> Vec<(GroupId, u64)> {
        let groups = self.hosts().filter(|(at, _)| *at == node).flat_map(|(_, host)| host.status().groups);
        groups.map(|g| (g.group, g.term)).collect()
    }

    /// Whether every node runs and every group has one leader whom all its replicas know; and, where it is quiet,
    /// all have applied the same entries.
    pub fn is_well(&self, quiet: bool) -> bool {
        let mut seen: BTreeMap<_, (Option<NodeId>, Option<u64>, u32)> = BTreeMap::new();
        for (_, host) in self.hosts() {
            for group in host.status().groups {
                let known = seen.entry(group.group).or_insert((group.leader, group.applied, 0));
                if group.leader.is_none() || known.0 != group.leader || quiet && known.1 != group.applied {
                    return false;
                }
                known.2 += 1;
            }
        }
        let nodes: Vec<NodeId> = self.machines.keys().copied().collect();
        let replicas = |group| match group {
            PLACEMENT => founding_replicas(&nodes).len() as u32,
            _ => 3.min(self.shape.nodes),
        };
        self.hosts().count() == self.machines.len()
            && seen.len() as u32 == self.shape.shards + 1
            && seen.iter().all(|(group, (_, _, count))| *count == replicas(*group))
    }

    /// What can be seen of the replicas, for the checks.
    pub fn look(&self, end: &mut End) {
        for (node, host) in self.hosts() {
            for status in host.status().groups.into_iter().filter(|status| status.group != PLACEMENT) {
                let Some(replica) = host.replica(status.group) else { continue };
                let hash = replica.machine(|machine| machine.hash()).unwrap_or_default();
                let state = ReplicaState { applied: replica.applied_index(), hash };
                end.replicas.entry(status.group).or_default().insert(node, state);
                if status.leader != Some(node) {
                    continue;
                }
                replica.machine(|machine| {
                    for view in sessions(machine) {
                        let shards = view.shards.iter().map(|shard| GroupId(shard.0));
                        end.homes.entry(view.session).or_default().shards.extend(shards);
                    }
                    for session in machine.attached() {
                        end.seats.entry(session).or_default().insert(status.group);
                    }
                });
            }
        }
        end.leads = self.leads();
    }

    /// Grants, waiters, sessions and instances that are left.
    pub fn left(&self, end: &mut End) {
        for (node, host) in self.hosts() {
            for status in host.status().groups.into_iter().filter(|g| g.group != PLACEMENT && g.leader == Some(node)) {
                let counts = host.replica(status.group).and_then(|replica| replica.machine(|m| m.counts()));
                let Some(counts) = counts else { continue };
                let grants = counts.exclusive + counts.shared + counts.semaphore;
                end.left.insert(status.group, [grants, counts.waiters, counts.sessions]);
                end.instances.insert(status.group, counts.instances.total());
            }
        }
    }

    fn machine(&mut self, node: NodeId) -> &mut Machine {
        self.machines.get_mut(&node).expect("the node is one of the cluster's")
    }
}

/// All sessions that are at home here.
fn sessions(machine: &wardlock_machine::Machine) -> Vec<SessionView> {
    let mut all: Vec<SessionView> = Vec::new();
    loop {
        let after = all.last().map(|view| view.session);
        match machine.query(&Query::Sessions { after, limit: u32::MAX }) {
            Answer::Sessions(page) if !page.is_empty() => all.extend(page),
            _ => return all,
        }
    }
}
