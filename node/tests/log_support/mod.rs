//! What the log's tests share: disks in memory, entries, and logs that run beside the test.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::{io, sync::Arc, time::Duration};

use openraft::{EntryPayload, RaftLogReader, storage::RaftLogStorage, type_config::TypeConfigExt};
use wardlock::{
    disk::{
        OnFatal,
        log::{GroupLog, LogWriter, OpenError, Options, SharedLog},
    },
    raft::types::{Entry, LogId, Proposal, Types, Vote, pos_from_wire, vote_from_wire},
};
use wardlock_placement::ReplicaId;
pub use wardlock_sim::disk::Disk as MemDisk;
use wardlock_wire::raft as wire;

/// What a new log's file holds before it takes its name.
pub fn empty_log() -> Vec<u8> {
    let disk = MemDisk::default();
    drop(open(&disk, small()).unwrap());
    disk.bytes()
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
