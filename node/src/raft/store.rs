//! What the consensus library applies entries to: the machine of a shard, or the placement group's.
//!
//! The machine lives in memory behind a lock of its own group, held for one batch or one query at a
//! time. Durable are the log and the snapshots.
//!
//! Encoding a state and reading one back take as long as the state is large, so they run beside the
//! runtime, which serves the other groups meanwhile. While its state is encoded a group applies nothing
//! and answers reads: for 10,000 sessions and 100,000 locks (10 MB) some 50 ms. A clone to encode at
//! leisure would take twice that, and on the runtime; reading the state back takes 150 ms and freeing it 100.
//!
//! Outcomes go back to whoever proposed; side effects go to the group's runner, and only while it leads:
//! a follower's are dropped, for its next leader reads the same facts from the machine's state.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    storage::{EntryResponder, RaftStateMachine, Snapshot},
};
use tokio::sync::{Notify, watch};
use wardlock_machine::{Batch, Effects, Machine, Term};
use wardlock_placement::{Change, GroupId, Placement, ShardMap};

use super::types::*;
use crate::disk::{OnFatal, snapshots::Snapshots};

/// What a group replicates.
pub enum Core {
    /// A shard's locks and sessions.
    Shard(Box<Machine>),
    /// The node table and the shard map.
    Placement(Box<Placement>),
}

impl Core {
    fn empty(group: GroupId) -> Core {
        match group == wardlock_placement::PLACEMENT {
            true => Core::Placement(Box::default()),
            false => Core::Shard(Box::new(Machine::new())),
        }
    }

    fn encode(&self) -> Vec<u8> {
        match self {
            Core::Shard(machine) => machine.snapshot(),
            Core::Placement(placement) => placement.snapshot(),
        }
    }

    fn restore(group: GroupId, data: &[u8]) -> io::Result<Core> {
        match group == wardlock_placement::PLACEMENT {
            true => {
                Placement::restore(data).map(|placement| Core::Placement(Box::new(placement))).map_err(io::Error::other)
            }
            false => Machine::restore(data).map(|machine| Core::Shard(Box::new(machine))).map_err(io::Error::other),
        }
    }
}

/// The part of a replica that apply writes and the group's runner reads.
pub struct Replica {
    group: GroupId,
    /// Only the library's worker writes: while a snapshot is encoded, which it waits for, nobody who reads
    /// is held up.
    core: RwLock<Core>,
    effects: Mutex<Effects>,
    leading: AtomicBool,
    applied_term: AtomicU64,
    applied_index: AtomicU64,
    /// Wakes the runner: something was applied while it led, or it waits for its term's first entry.
    pub applied: Notify,
    /// Wakes all who wait for an index to be applied.
    pub progressed: Notify,
}

impl Replica {
    /// An empty replica of `group`.
    pub fn new(group: GroupId, core: Core) -> Arc<Replica> {
        Arc::new(Replica {
            group,
            core: RwLock::new(core),
            effects: Mutex::default(),
            leading: AtomicBool::new(false),
            applied_term: AtomicU64::new(0),
            applied_index: AtomicU64::new(0),
            applied: Notify::new(),
            progressed: Notify::new(),
        })
    }

    /// Reads a shard's machine. `None` on the placement group.
    pub fn machine<T>(&self, read: impl FnOnce(&Machine) -> T) -> Option<T> {
        match &*shared(&self.core) {
            Core::Shard(machine) => Some(read(machine)),
            Core::Placement(_) => None,
        }
    }

    /// The shard map, on the placement group.
    pub fn map(&self) -> Option<Arc<ShardMap>> {
        match &*shared(&self.core) {
            Core::Placement(placement) => Some(Arc::new(placement.map().clone())),
            Core::Shard(_) => None,
        }
    }

    /// Whether effects are to be kept for the runner. Set before it reads the machine's state as a new
    /// leader, so that none falls in between.
    pub fn set_leading(&self, leading: bool) {
        self.leading.store(leading, Ordering::SeqCst);
        if !leading {
            *lock(&self.effects) = Effects::default();
        }
    }

    /// What was applied since the last call, in order.
    pub fn take_effects(&self) -> Effects {
        std::mem::take(&mut *lock(&self.effects))
    }

    /// The term of the last applied entry.
    pub fn applied_term(&self) -> u64 {
        self.applied_term.load(Ordering::SeqCst)
    }

    /// The index of the last applied entry.
    pub fn applied_index(&self) -> u64 {
        self.applied_index.load(Ordering::SeqCst)
    }
}

/// A poisoned lock means that an assertion failed in the machine: its state is not to be trusted.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn shared<T>(state: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    state.read().unwrap_or_else(PoisonError::into_inner)
}

fn exclusive<T>(state: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    state.write().unwrap_or_else(PoisonError::into_inner)
}

/// The library's handle on a [`Replica`].
pub struct Store {
    replica: Arc<Replica>,
    snapshots: Arc<Snapshots>,
    applied: Option<LogId>,
    members: StoredMembership,
    maps: watch::Sender<Arc<ShardMap>>,
    on_fatal: OnFatal,
}

impl Store {
    /// Restores the group's replica from its last snapshot, or starts it empty.
    pub async fn open(
        group: GroupId,
        snapshots: Arc<Snapshots>,
        maps: watch::Sender<Arc<ShardMap>>,
        on_fatal: OnFatal,
    ) -> io::Result<(Store, Arc<Replica>)> {
        let replica = Replica::new(group, Core::empty(group));
        let mut store = Store {
            replica: Arc::clone(&replica),
            snapshots,
            applied: None,
            members: StoredMembership::default(),
            maps,
            on_fatal,
        };
        if let Some((meta, data)) = store.load().await? {
            store.adopt(&meta, data).await?;
        }
        Ok((store, replica))
    }

    async fn load(&self) -> io::Result<Option<(SnapshotMeta, Bytes)>> {
        let (snapshots, group) = (Arc::clone(&self.snapshots), self.replica.group);
        let loaded = aside(move || snapshots.load(group)).await?.map_err(io::Error::other)?;
        loaded.map(|(meta, data)| Ok((snapshot_from_wire(meta).map_err(io::Error::other)?, data))).transpose()
    }

    async fn adopt(&mut self, meta: &SnapshotMeta, data: Bytes) -> io::Result<()> {
        let group = self.replica.group;
        let restored = aside(move || Core::restore(group, &data)).await??;
        let before = std::mem::replace(&mut *exclusive(&self.replica.core), restored);
        // Freeing a large state takes long, too.
        tokio::task::spawn_blocking(move || drop(before));
        self.members = meta.last_membership.clone();
        self.advance(meta.last_log_id);
        self.publish();
        Ok(())
    }

    fn advance(&mut self, to: Option<LogId>) {
        self.applied = to;
        if let Some(log_id) = to {
            self.replica.applied_index.store(log_id.index, Ordering::SeqCst);
            self.replica.applied_term.store(*log_id.leader_id, Ordering::SeqCst);
        }
    }

    fn publish(&self) {
        if let Some(map) = self.replica.map() {
            self.maps.send_if_modified(|known| {
                let newer = map.version > known.version;
                if newer {
                    *known = map;
                }
                newer
            });
        }
    }

    /// `asked` says whether somebody waits for the outcomes.
    fn apply_one(&mut self, log_id: LogId, proposal: &Proposal, asked: bool) -> io::Result<Applied> {
        let mut core = exclusive(&self.replica.core);
        match &mut *core {
            Core::Shard(machine) => {
                let batch: Batch = decode(&proposal.0, "a batch", log_id)?;
                // Read under the core's lock: a new leader says that it leads before it reads the state.
                if !asked && !self.replica.leading.load(Ordering::SeqCst) {
                    machine.follow(Term(*log_id.leader_id), batch);
                    return Ok(Applied::Nothing);
                }
                let mut outcomes = Vec::with_capacity(batch.commands.len());
                let mut effects = Effects::default();
                machine.apply(Term(*log_id.leader_id), batch, &mut outcomes, &mut effects);
                drop(core);
                if self.replica.leading.load(Ordering::SeqCst) {
                    append(&mut lock(&self.replica.effects), effects);
                }
                Ok(Applied::Outcomes(outcomes))
            }
            Core::Placement(placement) => {
                let verdict = match Change::decode(&proposal.0) {
                    Ok(change) => placement.apply(change).map_err(|refused| refused.to_string()),
                    Err(malformed) => Err(malformed.to_string()),
                };
                drop(core);
                if verdict.is_ok() {
                    self.publish();
                }
                Ok(Applied::Placement(verdict))
            }
        }
    }
}

/// A committed entry that does not decode was written by other software, or the log is damaged in a way
/// that its checksum did not see: the replica stops.
fn decode<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8], what: &str, log_id: LogId) -> io::Result<T> {
    postcard::from_bytes(bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("entry {log_id} is not {what}: {error}")))
}

fn append(all: &mut Effects, more: Effects) {
    // Named one by one: a field that is added must not be forgotten here.
    let Effects { settled, lost, opened, closing, ended, hooks } = more;
    all.settled.extend(settled);
    all.lost.extend(lost);
    all.opened.extend(opened);
    all.closing.extend(closing);
    all.ended.extend(ended);
    all.hooks |= hooks;
}

impl RaftStateMachine<Types> for Store {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.members.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            let answer = match &entry.payload {
                EntryPayload::Blank => Applied::Nothing,
                EntryPayload::Normal(proposal) => self.apply_one(entry.log_id, proposal, responder.is_some())?,
                EntryPayload::Membership(members) => {
                    self.members = StoredMembership::new(Some(entry.log_id), members.clone());
                    Applied::Nothing
                }
            };
            self.advance(Some(entry.log_id));
            if let Some(responder) = responder {
                responder.send(answer);
            }
        }
        self.replica.applied.notify_one();
        self.replica.progressed.notify_waiters();
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let replica = Arc::clone(&self.replica);
        Builder {
            group: self.replica.group,
            snapshots: Arc::clone(&self.snapshots),
            on_fatal: Arc::clone(&self.on_fatal),
            meta: SnapshotMeta { last_log_id: self.applied, last_membership: self.members.clone() },
            data: aside(move || Bytes::from(shared(&replica.core).encode())).await,
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, data: Bytes) -> io::Result<()> {
        self.adopt(meta, data.clone()).await?;
        save(&self.snapshots, &self.on_fatal, self.replica.group, meta, data).await?;
        self.replica.applied.notify_one();
        self.replica.progressed.notify_waiters();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<openraft::alias::SnapshotOf<Types, Bytes>>> {
        Ok(self.load().await?.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}

/// A snapshot being written: the state was encoded when this was made, the disk is written when it is built.
pub struct Builder {
    group: GroupId,
    snapshots: Arc<Snapshots>,
    on_fatal: OnFatal,
    meta: SnapshotMeta,
    data: io::Result<Bytes>,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> io::Result<openraft::alias::SnapshotOf<Types, Bytes>> {
        let data = std::mem::replace(&mut self.data, Err(io::Error::other("a snapshot is built once")))?;
        save(&self.snapshots, &self.on_fatal, self.group, &self.meta, data.clone()).await?;
        Ok(Snapshot { meta: self.meta.clone(), snapshot: data })
    }
}

/// An error of the disk is never retried and never ignored.
async fn save(
    snapshots: &Arc<Snapshots>,
    on_fatal: &OnFatal,
    group: GroupId,
    meta: &SnapshotMeta,
    data: Bytes,
) -> io::Result<()> {
    let (snapshots, meta) = (Arc::clone(snapshots), snapshot_to_wire(meta));
    let saved = aside(move || snapshots.save(group, &meta, &data)).await?;
    saved.map_err(|error| {
        on_fatal(&format!("the snapshot of group {group} cannot be saved: {error}"));
        io::Error::other(error)
    })
}

/// Runs beside the runtime what is long or waits for the disk: heartbeats must go on. In a simulation nothing is
/// beside the one thread, and no time passes.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    if wardlock_router::random::is_seeded() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use futures_util::poll;
    use redb::backends::InMemoryBackend;
    use wardlock_machine::{Command, Incarnation, RangeEpoch, Stamp, WallMs};
    use wardlock_wire::raft::LogPos;

    use super::*;

    const G: GroupId = GroupId(3);

    async fn store(snapshots: &Arc<Snapshots>) -> (Store, Arc<Replica>) {
        let maps = watch::Sender::new(Arc::new(ShardMap::default()));
        Store::open(G, Arc::clone(snapshots), maps, Arc::new(|why| panic!("{why}"))).await.unwrap()
    }

    fn snapshots() -> Arc<Snapshots> {
        Arc::new(Snapshots::open(InMemoryBackend::new(), 1 << 20).unwrap())
    }

    /// A state that tells itself from an empty one, and where it stands.
    fn state(epoch: u64, index: u64) -> (SnapshotMeta, Bytes) {
        let mut machine = Machine::new();
        let range = Command::SetRange { first: 0, last: 1, epoch: RangeEpoch(epoch), incarnation: Incarnation(1) };
        let batch = Batch { at: Stamp(1), wall: WallMs(1), epoch: machine.epoch(), commands: vec![range] };
        machine.apply(Term(1), batch, &mut Vec::new(), &mut Effects::default());
        let last_log_id = Some(pos_from_wire(LogPos { term: 1, index }));
        let meta = SnapshotMeta { last_log_id, last_membership: StoredMembership::default() };
        (meta, machine.snapshot().into())
    }

    fn epoch(replica: &Replica) -> u64 {
        replica.machine(Machine::epoch).unwrap().0
    }

    #[tokio::test]
    async fn a_build_that_is_late_leaves_the_installed_snapshot() {
        let snapshots = snapshots();
        let (mut store, replica) = store(&snapshots).await;
        let (meta, data) = state(7, 10);
        store.install_snapshot(&meta, data).await.unwrap();
        let mut late = store.get_snapshot_builder().await;
        let (meta, data) = state(8, 50);
        store.install_snapshot(&meta, data.clone()).await.unwrap();
        late.build_snapshot().await.unwrap();
        assert_eq!((epoch(&replica), replica.applied_index()), (8, 50));
        let current = store.get_current_snapshot().await.unwrap().unwrap();
        assert_eq!((current.meta, current.snapshot), (meta, data));
    }

    /// With the only thread for blocking work taken, nothing that is long completes, and reads go on.
    #[test]
    fn long_work_is_done_beside_the_runtime() {
        let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
        runtime.block_on(async {
            let snapshots = snapshots();
            let (mut store, replica) = store(&snapshots).await;
            let occupy = || {
                let (release, held) = std::sync::mpsc::channel::<()>();
                tokio::task::spawn_blocking(move || held.recv());
                release
            };

            let release = occupy();
            let (meta, data) = state(7, 10);
            let mut installing = Box::pin(store.install_snapshot(&meta, data));
            assert!(poll!(&mut installing).is_pending());
            assert_eq!(epoch(&replica), 0, "readers see the state before");
            drop(release);
            installing.await.unwrap();

            let release = occupy();
            let mut encoding = Box::pin(store.get_snapshot_builder());
            assert!(poll!(&mut encoding).is_pending());
            assert_eq!(epoch(&replica), 7);
            drop(release);
            encoding.await.build_snapshot().await.unwrap();

            let release = occupy();
            let mut opening = Box::pin(self::store(&snapshots));
            assert!(poll!(&mut opening).is_pending());
            drop(release);
            assert_eq!(epoch(&opening.await.1), 7);
        });
    }
}
