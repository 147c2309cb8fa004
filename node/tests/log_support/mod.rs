//! What the log's tests share: a disk in memory that can be cut, entries, and a small randomness.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use openraft::{EntryPayload, RaftLogReader, storage::RaftLogStorage, type_config::TypeConfigExt};
use redb::StorageBackend;
use wardlock::{
    disk::{
        OnFatal,
        log::{GroupLog, LogWriter, OpenError, Options, SharedLog},
    },
    raft::types::{Entry, LogId, Proposal, Types, Vote, pos_from_wire, vote_from_wire},
};
use wardlock_placement::ReplicaId;
use wardlock_wire::raft as wire;

/// A mutation that reached the disk, or tried to.
#[derive(Clone, Debug)]
pub enum Call {
    Write(u64, Vec<u8>),
    Len(u64),
    Sync,
}

#[derive(Debug, Default)]
struct Disk {
    bytes: Vec<u8>,
    calls: Vec<(Call, Vec<u64>)>,
    recording: bool,
    note: Vec<u64>,
    count: u64,
    fail_after: Option<u64>,
}

/// A disk in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemDisk(Arc<Mutex<Disk>>);

impl MemDisk {
    pub fn with(bytes: Vec<u8>) -> MemDisk {
        MemDisk(Arc::new(Mutex::new(Disk { bytes, ..Disk::default() })))
    }

    /// Records every call from now on, each with the note of its time.
    pub fn record(self) -> MemDisk {
        self.0.lock().unwrap().recording = true;
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().bytes.clone()
    }

    pub fn size(&self) -> usize {
        self.0.lock().unwrap().bytes.len()
    }

    pub fn note(&self, note: Vec<u64>) {
        self.0.lock().unwrap().note = note;
    }

    pub fn take_calls(&self) -> Vec<(Call, Vec<u64>)> {
        std::mem::take(&mut self.0.lock().unwrap().calls)
    }

    /// Puts bytes there, as nobody but a test does.
    pub fn put(&self, at: u64, bytes: Vec<u8>) {
        apply(&mut self.0.lock().unwrap().bytes, &Call::Write(at, bytes));
    }

    /// The number of mutations so far.
    pub fn count(&self) -> u64 {
        self.0.lock().unwrap().count
    }

    /// Every mutation after this many fails.
    pub fn fail_after(&self, count: u64) {
        self.0.lock().unwrap().fail_after = Some(count);
    }

    fn mutate(&self, call: Call) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        if disk.fail_after.is_some_and(|limit| disk.count >= limit) {
            return Err(io::Error::other("the disk is broken"));
        }
        disk.count += 1;
        apply(&mut disk.bytes, &call);
        if disk.recording {
            let note = disk.note.clone();
            disk.calls.push((call, note));
        }
        Ok(())
    }
}

/// Carries a call out on an image.
pub fn apply(bytes: &mut Vec<u8>, call: &Call) {
    match call {
        Call::Write(at, data) => {
            let at = *at as usize;
            if bytes.len() < at + data.len() {
                bytes.resize(at + data.len(), 0);
            }
            bytes[at..at + data.len()].copy_from_slice(data);
        }
        Call::Len(len) => bytes.resize(*len as usize, 0),
        Call::Sync => {}
    }
}

/// What may lie on a disk that lost its power after these calls: everything synced, and of what was
/// not synced nothing, all, or a random part in torn sectors.
pub struct Wreckage {
    synced: Vec<u8>,
    pending: Vec<Call>,
}

impl Wreckage {
    pub fn new(synced: Vec<u8>) -> Wreckage {
        Wreckage { synced, pending: Vec::new() }
    }

    pub fn push(&mut self, call: Call) {
        match call {
            Call::Sync => {
                for call in self.pending.drain(..) {
                    apply(&mut self.synced, &call);
                }
            }
            call => self.pending.push(call),
        }
    }

    /// `None`: nothing unsynced survived.
    pub fn image(&self, survivors: Option<&mut Random>) -> Vec<u8> {
        const SECTOR: usize = 512;
        let mut image = self.synced.clone();
        let Some(random) = survivors else { return image };
        let odds = random.below(5);
        for call in &self.pending {
            match call {
                Call::Write(at, data) => {
                    for (sector, data) in data.chunks(SECTOR).enumerate() {
                        if random.below(4) < odds {
                            apply(&mut image, &Call::Write(at + (sector * SECTOR) as u64, data.to_vec()));
                        }
                    }
                }
                call if random.below(4) < odds => apply(&mut image, call),
                _ => {}
            }
        }
        image
    }
}

impl StorageBackend for MemDisk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.size() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let disk = self.0.lock().unwrap();
        let at = offset as usize;
        let found = disk.bytes.get(at..at + out.len()).ok_or_else(|| io::Error::other("beyond the end"))?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.mutate(Call::Len(len))
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.mutate(Call::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.mutate(Call::Write(offset, data.to_vec()))
    }
}

/// What a new log's file holds before it takes its name.
pub fn empty_log() -> Vec<u8> {
    let disk = MemDisk::default();
    drop(open(&disk, small()).unwrap());
    disk.bytes()
}

/// What another new file holds before it takes its name.
pub fn empty_database() -> Vec<u8> {
    let disk = MemDisk::default();
    redb::Database::builder().create_with_backend(disk.clone()).unwrap().close().unwrap();
    disk.bytes()
}

/// A small generator: the same seed, the same run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

pub fn id(term: u64, index: u64) -> LogId {
    pos_from_wire(wire::LogPos { term, index })
}

pub fn entry(term: u64, index: u64, len: usize) -> Entry {
    let byte = (term * 31 + index) as u8;
    Entry { log_id: id(term, index), payload: EntryPayload::Normal(Proposal(vec![byte; len].into())) }
}

pub fn vote(term: u64) -> Vote {
    vote_from_wire(wire::Vote { term, replica: ReplicaId(1), committed: false })
}

/// Fails the test if the disk is said to have failed.
pub fn never() -> OnFatal {
    Arc::new(|why| panic!("{why}"))
}

/// How many pages of the journal a test's log has.
pub const JOURNAL_PAGES: u32 = 16;

/// Every commit goes to the database.
pub fn small() -> Options {
    Options {
        cache_bytes: 1 << 20,
        settle_every: 1,
        journal_pages: JOURNAL_PAGES,
        linger: Duration::ZERO,
        ..Options::default()
    }
}

/// Rows stay in the journal until it is full or the log is closed.
pub fn journaled() -> Options {
    Options { settle_every: u32::MAX, ..small() }
}

/// Runs a test body on one thread whose clock stands still unless everybody waits.
pub fn paused<T>(body: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(body)
}

/// A log whose writer runs as a task beside the test.
pub fn start(disk: &MemDisk, options: Options) -> SharedLog {
    let (log, writer) = open(disk, options).unwrap();
    tokio::spawn(writer.run());
    log
}

pub fn open(disk: &MemDisk, options: Options) -> Result<(SharedLog, LogWriter), OpenError> {
    SharedLog::open(disk.clone(), options, never())
}

/// Appends and waits until it is durable.
pub async fn append(log: &mut GroupLog, entries: Vec<Entry>) -> io::Result<()> {
    let (done, durable) = Types::oneshot();
    log.append(entries, openraft::storage::IOFlushed::signal(done)).await?;
    durable.await.map_err(io::Error::other)?
}

/// What a group's log shows, without its committed position.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    pub vote: Option<Vote>,
    pub purged: Option<LogId>,
    pub entries: Vec<Entry>,
}

pub async fn view(log: &mut GroupLog) -> View {
    let entries = log.try_get_log_entries(..).await.unwrap();
    let state = log.get_log_state().await.unwrap();
    assert_eq!(state.last_log_id, entries.last().map(|entry| entry.log_id).or(state.last_purged_log_id));
    View { vote: log.read_vote().await.unwrap(), purged: state.last_purged_log_id, entries }
}

pub fn indices(view: &View) -> Vec<u64> {
    view.entries.iter().map(|entry| entry.log_id.index).collect()
}
