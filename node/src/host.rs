//! The groups of one node, and what keeps them going.
//!
//! A [`Host`] is made of parts: a clock, a transport, an opened log, opened snapshots. It opens no socket
//! and starts no thread; its tasks run on whatever runtime it was started on. A process wires real parts
//! into it ([`crate::node`]); a test wires three of them together on one thread with a paused clock.
//!
//! What runs beside the groups' own runners: [`beat`] sends the heartbeats of all groups at once,
//! [`compaction`] takes snapshots, one at a time, and cuts the logs, [`report`] tells the placement group what this node
//! leads, [`driver`] acts on the planner's steps and [`deadlocks`] ends deadlocks where this node leads the placement group. [`drain`]
//! hands the leaderships over before the groups stop.

mod beat;
mod compaction;
mod deadlocks;
mod dispatch;
mod drain;
mod driver;
mod follow;
mod gauges;
mod inbound;
mod report;
mod stale;
mod status;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Duration,
};

use dashmap::DashMap;
use futures_util::future::join_all;
use openraft::RaftNetworkFactory;
use tokio::sync::{Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use wardlock_machine::planted;
use wardlock_placement::{Goal, GroupId, NodeId, PLACEMENT, Replica as Place, ShardMap, founding_replicas};
use wardlock_router::{Client, link::Transport, random};
use wardlock_wire::Report;

pub use self::dispatch::Door;
use crate::{
    barrier::Barrier,
    clock::Clock,
    config::Timing,
    disk::{OnFatal, log::SharedLog, snapshots::Snapshots},
    group::{Group, Inbox, runner::Runner},
    hooks,
    metrics::{ShardMetrics, StaleMetrics},
    raft::{Raft, network::Network, store::Store, types::Home},
};

/// How many groups of a node may hold a turn to propose. An entry costs some 300 µs of processor time on
/// three nodes, whatever it holds. While a group waits for its turn its next entry grows, and those whose
/// turns come together share commits and frames; where few groups have work, none waits.
const TURNS: usize = 4;
/// How long a replica that is not its group's first waits for the first to initialize the group.
const INITIALIZE_PATIENCE: Duration = Duration::from_secs(2);

/// What a host is made of.
pub struct Parts {
    /// Its own number.
    pub node: NodeId,
    /// The static list.
    pub nodes: BTreeSet<NodeId>,
    /// How others reach this node.
    pub addresses: wardlock_placement::Node,
    /// What the placement leader aims at.
    pub goal: Goal,
    /// Raft's timing.
    pub timing: Timing,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Reaches the other nodes and this one.
    pub transport: Arc<dyn Transport>,
    /// Asks other shards.
    pub client: Client,
    /// The log of all groups.
    pub log: SharedLog,
    /// Their snapshots.
    pub snapshots: Arc<Snapshots>,
    /// Whether the disk is nearly full.
    pub disk_low: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Told why this node must stop: a fault of its disk, or a group that ended by itself.
    pub on_fatal: OnFatal,
    /// The newest shard map known here. The placement group's replica writes it, where there is one;
    /// otherwise whoever follows the map.
    pub maps: watch::Sender<Arc<ShardMap>>,
    /// Where webhooks may go.
    pub webhooks: hooks::Settings,
}

/// The groups of one node.
pub struct Host {
    parts: Parts,
    config: Arc<openraft::Config>,
    groups: DashMap<GroupId, Group, random::Hashing>,
    barrier: Arc<Barrier>,
    /// Who may propose now. See [`TURNS`].
    turns: Arc<Semaphore>,
    /// Delivers webhooks.
    desk: Arc<hooks::Desk>,
    reports: Mutex<BTreeMap<NodeId, (Report, Duration)>>,
    /// Told whenever a group was added to `groups`.
    opened: watch::Sender<()>,
    /// This node is stopping and takes no leadership any more.
    draining: AtomicBool,
    /// Map questions held open, bounded.
    held_maps: Arc<tokio::sync::Semaphore>,
    stale_metrics: StaleMetrics,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Why a host cannot start or take a group in.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The timing makes no sense to the consensus core.
    #[error("the timing is refused: {0}")]
    Timing(String),
    /// A group's state cannot be recovered.
    #[error("group {group} cannot be recovered: {why}")]
    Group {
        /// Which.
        group: GroupId,
        /// The consensus core's or the disk's word.
        why: String,
    },
}

impl Host {
    /// Starts the placement group's replica, if this node has one, and every group that the map gives it.
    pub async fn start(parts: Parts) -> Result<Arc<Host>, HostError> {
        let config = raft_config(&parts.timing)?;
        let host = Arc::new(Host {
            config: Arc::new(config),
            groups: DashMap::default(),
            barrier: Arc::new(Barrier::new(Arc::clone(&parts.transport), parts.timing.election_max)),
            turns: Arc::new(Semaphore::new(TURNS)),
            desk: hooks::Desk::new(parts.webhooks.clone(), parts.client.clone(), Arc::clone(&parts.clock)),
            reports: Mutex::default(),
            opened: watch::Sender::new(()),
            draining: AtomicBool::new(false),
            held_maps: Arc::new(tokio::sync::Semaphore::new(1024)),
            stale_metrics: StaleMetrics::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            parts,
        });
        let founders = founding_replicas(&host.parts.nodes.iter().copied().collect::<Vec<_>>());
        if founders.iter().any(|place| place.node == host.parts.node) {
            host.open_group(PLACEMENT, &founders).await?;
        }
        host.spawn(Arc::clone(&host).follow_map());
        host.spawn(Arc::clone(&host.barrier).run());
        host.spawn(beat::run(Arc::clone(&host)));
        host.spawn(compaction::run(Arc::clone(&host)));
        host.spawn(report::run(Arc::clone(&host)));
        host.spawn(gauges::run(Arc::clone(&host)));
        match host.groups.contains_key(&PLACEMENT) {
            true => {
                host.spawn(driver::run(Arc::clone(&host)));
                host.spawn(deadlocks::run(Arc::clone(&host)));
            }
            false => host.spawn(follow::run(Arc::clone(&host))),
        }
        Ok(host)
    }

    /// The newest shard map known here.
    pub fn map(&self) -> Arc<ShardMap> {
        Arc::clone(&self.parts.maps.borrow())
    }

    /// Resolves when the shards exist and every group of this node knows a leader.
    pub async fn ready(&self) {
        let mut maps = self.parts.maps.subscribe();
        let founded = maps.wait_for(|map| map.shards().next().is_some()).await;
        let Ok(map) = founded.map(|map| Arc::clone(&map)) else { return };
        let mine = |place: &Place| place.node == self.parts.node;
        let mut opened = self.opened.subscribe();
        for (id, _) in map.groups.iter().filter(|(_, group)| group.replicas.iter().any(mine)) {
            let open = opened.wait_for(|()| self.groups.contains_key(id)).await.is_ok();
            if let Some(group) = self.groups.get(id).map(|group| group.clone()).filter(|_| open) {
                // Fails only when the group stops.
                let _ = group.raft.wait(None).metrics(|m| m.current_leader.is_some(), "a leader").await;
            }
        }
    }

    /// Why this node is not ready, if it is not: for probes.
    pub fn not_ready(&self) -> Option<String> {
        let map = self.map();
        if map.shards().next().is_none() {
            return Some("the cluster has no shards yet".to_owned());
        }
        use openraft::async_runtime::watch::WatchReceiver;
        let without = self
            .groups
            .iter()
            .filter(|group| group.raft.server_metrics().borrow_watched().current_leader.is_none())
            .count();
        (without > 0).then(|| format!("{without} groups of this node have no leader"))
    }

    /// Hands every leadership to another node, then stops the groups.
    pub async fn shutdown(&self) {
        self.hand_over().await;
        self.halt().await;
    }

    /// Stops the groups as they are.
    pub async fn halt(&self) {
        self.stop.cancel();
        self.tasks.close();
        let _ = tokio::time::timeout(Duration::from_secs(5), self.tasks.wait()).await;
        let groups: Vec<Group> = self.groups.iter().map(|group| group.clone()).collect();
        let stops = groups.iter().map(|group| async {
            if let Err(error) = group.raft.shutdown().await {
                tracing::warn!("group {} did not stop cleanly: {error}", group.id);
            }
        });
        join_all(stops).await;
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }

    async fn follow_map(self: Arc<Self>) {
        let mut maps = self.parts.maps.subscribe();
        loop {
            let map = Arc::clone(&maps.borrow_and_update());
            // Its own calls to other shards need no node to ask, least of all where there is no other.
            self.parts.client.learn(Arc::clone(&map));
            for (id, group) in &map.groups {
                let mine = group.replicas.iter().any(|place| place.node == self.parts.node);
                if mine && !self.groups.contains_key(id) {
                    // A group that cannot be recovered must not look like an empty one: the process stops.
                    if let Err(error) = self.open_group(*id, &group.replicas).await {
                        (self.parts.on_fatal)(&error.to_string());
                    }
                }
            }
            if maps.changed().await.is_err() {
                return;
            }
        }
    }

    async fn open_group(&self, id: GroupId, places: &[Place]) -> Result<(), HostError> {
        let failed = |why: String| HostError::Group { group: id, why };
        let own = places
            .iter()
            .find(|place| place.node == self.parts.node)
            .ok_or_else(|| failed("the map gives this node no replica".to_owned()))?;
        let (store, replica) = Store::open(
            id,
            Arc::clone(&self.parts.snapshots),
            self.parts.maps.clone(),
            Arc::clone(&self.parts.on_fatal),
        )
        .await
        .map_err(|error| failed(error.to_string()))?;
        let mut network = Network { transport: Arc::clone(&self.parts.transport), group: id, from: own.id };
        for place in places {
            let _ = network.new_client(place.id.0, &Home(place.node)).await;
        }
        let log = self.parts.log.group(id);
        let raft = Raft::new(own.id.0, Arc::clone(&self.config), network, log.clone(), store)
            .await
            .map_err(|error| failed(error.to_string()))?;
        let group = Group {
            id,
            replica_id: own.id,
            raft: raft.clone(),
            replica,
            log,
            inbox: Arc::new(Inbox::default()),
            freshness: Arc::default(),
        };
        if id != PLACEMENT {
            let (leads, led) = watch::channel(None);
            self.spawn(hooks::run(Arc::clone(&self.desk), group.clone(), led));
            let runner = Runner {
                group: group.clone(),
                clock: Arc::clone(&self.parts.clock),
                barrier: Arc::clone(&self.barrier),
                turns: Arc::clone(&self.turns),
                client: self.parts.client.clone(),
                disk_low: Arc::clone(&self.parts.disk_low),
                maps: self.parts.maps.subscribe(),
                // The consensus core's own leader lease: beyond it, it refuses proposals.
                quorum_patience: self.parts.timing.election_max,
                metrics: ShardMetrics::new(id),
                on_fatal: Arc::clone(&self.parts.on_fatal),
                stop: self.stop.clone(),
                hooks: leads,
            };
            self.tasks.spawn(runner.run());
        }
        self.groups.insert(id, group);
        self.opened.send_replace(());
        let first = places.first().is_some_and(|place| place.node == self.parts.node);
        let members: BTreeMap<u64, Home> = places.iter().map(|place| (place.id.0, Home(place.node))).collect();
        self.spawn(initialize(raft, members, first));
        Ok(())
    }
}

/// Gives a new group its first membership. Every replica proposes the same one, so it does not matter
/// which comes first; the group's first replica starts at once, that it may be the first leader, and the
/// others only where it does not.
async fn initialize(raft: Raft, members: BTreeMap<u64, Home>, first: bool) {
    if !first {
        tokio::time::sleep(INITIALIZE_PATIENCE).await;
    }
    match raft.is_initialized().await {
        Ok(true) => {}
        Ok(false) => {
            if let Err(error) = raft.initialize(members).await {
                // Another replica was quicker.
                tracing::debug!("not initialized here: {error}");
            }
        }
        Err(error) => tracing::error!("a group stopped: {error}"),
    }
}

fn raft_config(timing: &Timing) -> Result<openraft::Config, HostError> {
    let ms = |time: Duration| time.as_millis() as u64;
    openraft::Config {
        cluster_name: "wardlock".to_owned(),
        heartbeat_interval: ms(timing.heartbeat),
        election_timeout_min: ms(timing.election_min),
        election_timeout_max: ms(timing.election_max),
        // The node's own timer beats for all groups at once.
        enable_heartbeat: false,
        // Without it, a node cut off and returning ends a healthy leadership.
        enable_pre_vote: Some(!planted!("no-pre-vote")),
        // A leader that restarts has lost what it did not log: sessions' deadlines, the clock.
        enable_leader_restore: Some(false),
        // Ours is staggered over the groups.
        snapshot_policy: openraft::SnapshotPolicy::Never,
        // And so is purging: this would count entries, not bytes.
        max_in_snapshot_log_to_keep: u64::MAX,
        install_snapshot_timeout: 120_000,
        backoff: "20ms 40ms 80ms ...500ms".to_owned(),
        ..openraft::Config::default()
    }
    .validate()
    .map_err(|error| HostError::Timing(error.to_string()))
}
