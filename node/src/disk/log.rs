//! One durable log for all Raft groups of a node.
//!
//! Groups append to memory and to one queue; one [`LogWriter`] drains the whole queue, writes **one row**
//! with everything that all groups wanted, commits once, and only then tells everybody. Reads come
//! from memory; the rows serve recovery alone. A commit that has nothing but a row appends it to a
//! journal, one run of pages; every few dozen commits the rows move on into the database. Votes
//! and purge points stand in a small table beside the rows there, written in the same transaction; committed
//! positions, too.
//!
//! # Promises
//! 1. What [`IOFlushed`](openraft::storage::IOFlushed) or `save_vote` confirmed is on disk; confirmations keep the order of the calls, within a group and across groups.
//! 2. After a crash each group is found as some prefix of its calls left it, and that prefix holds
//!    everything confirmed. A vote is found whatever became of the row it came with.
//! 3. Only `save_vote` waits for the disk; `append` waits for room in the queue, the rest for nothing.
//! 4. Disk use is bounded by twice the live entries, a constant, and one queue: rows that nobody needs
//!    go, and a group that idles on an old row is moved to the newest one, whole.
//! 5. After a disk error nothing is confirmed any more, and [`OnFatal`] is told.
//!
//! redb commits in one phase, and the journal has one write for each commit. What that cannot tell apart: after
//! a *crash*, a page of the very last commit that the disk damaged looks like a commit that never finished,
//! and is rolled back. Damage anywhere else, or found after a clean stop, refuses to start.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use redb::StorageBackend;
use wardlock_placement::GroupId;

use self::queue::{Group, Queue};
use super::{OnFatal, locked};

mod group;
pub mod inspect;
mod journal;
mod layout;
mod marks;
mod queue;
mod recover;
pub(in crate::disk) mod row;
mod state;
mod writer;

pub use self::{group::GroupLog, journal::JournalError, recover::OpenError, row::Fault, writer::LogWriter};

/// The log's file in the data directory.
pub const FILE: &str = "log.db";

/// How the log uses memory and disk.
#[derive(Clone, Debug)]
pub struct Options {
    /// redb's page cache. Rows are written once and hardly ever read, so little is enough.
    pub cache_bytes: usize,
    /// Entries that may wait for the disk, all groups together; beyond it `append` waits.
    pub queue_bytes: u32,
    /// How long the writer waits for company before a commit, where commits have lately held several appends:
    /// each commit, and each entry that rides alone, costs all three replicas a round of messages and
    /// wake-ups, and the processor time that fewer and larger ones leave is worth more to everybody than the
    /// wait. One who appends alone waits for a few commits after a burst, and then no more. Zero: nobody does.
    pub linger: Duration,
    /// The journal's size in pages of 4 KiB, which a new file begins with. A row that finds no room there goes
    /// to the database at once, with all before it.
    pub journal_pages: u32,
    /// How many commits go by before the journal's rows move into the database, and with them the committed
    /// positions, which only spare a restart from waiting for a leader's word.
    pub settle_every: u32,
    /// Beyond this many rows groups with little are moved off the oldest ones, beyond eight times as many all
    /// are. Fewer rows start faster; each move writes a group's live entries once more.
    pub max_rows: u64,
    /// Dead bytes that rows may hold, beyond as many as are live, before groups are moved likewise.
    pub slack_bytes: u64,
    /// Whether the database's commits take a second sync between their pages and the byte that makes them count.
    /// It tells a damaged last commit from one that never finished, and trusts that one byte.
    pub two_phase: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            cache_bytes: 16 << 20,
            queue_bytes: 16 << 20,
            linger: Duration::from_millis(1),
            journal_pages: 1024,
            settle_every: 64,
            max_rows: 131_072,
            slack_bytes: 32 << 20,
            two_phase: false,
        }
    }
}

/// What the writer has done since the log was opened, and what lies on the disk now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Transactions committed.
    pub commits: u64,
    /// Entries written for the first time.
    pub entries: u64,
    /// Bytes of rows written.
    pub bytes_written: u64,
    /// Groups moved off an old row.
    pub resets: u64,
    /// Rows on disk.
    pub rows: u64,
    /// Bytes of these rows.
    pub row_bytes: u64,
}

#[derive(Debug, Default)]
struct Counters {
    commits: AtomicU64,
    entries: AtomicU64,
    bytes_written: AtomicU64,
    resets: AtomicU64,
    rows: AtomicU64,
    row_bytes: AtomicU64,
}

/// The node's log. Clones share it; when the last clone and the last [`GroupLog`] are gone, or after
/// [`SharedLog::close`], the writer writes what is queued and ends.
#[derive(Clone)]
pub struct SharedLog(Arc<Handle>);

struct Handle {
    queue: Arc<Queue>,
    groups: Mutex<BTreeMap<GroupId, Arc<Group>>>,
    counters: Arc<Counters>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl SharedLog {
    /// Opens or creates the log on any storage, checks every byte of it and reads every group's state.
    /// Nothing becomes durable until the writer runs.
    pub fn open(
        backend: impl StorageBackend,
        options: Options,
        on_fatal: OnFatal,
    ) -> Result<(SharedLog, LogWriter), OpenError> {
        let (db, journal, recovered) = recover::open(Arc::new(backend), &options)?;
        let queue = Arc::new(Queue::new(options.queue_bytes));
        let counters = Arc::new(Counters::default());
        let groups = recovered.states.into_iter().map(|(id, state)| {
            queue.add_live(state.bytes());
            (id, Arc::new(Group { id, state: Mutex::new(state) }))
        });
        let groups = Mutex::new(groups.collect());
        let writer = LogWriter::new(
            db,
            journal,
            (recovered.round, recovered.layout, recovered.marks),
            Arc::clone(&queue),
            Arc::clone(&counters),
            options,
            on_fatal,
        );
        Ok((SharedLog(Arc::new(Handle { queue, groups, counters })), writer))
    }

    /// Opens or creates the log in a data directory.
    pub fn open_dir(dir: &Path, options: Options, on_fatal: OnFatal) -> Result<(SharedLog, LogWriter), OpenError> {
        let file = super::open_file(dir, FILE, |new| {
            let made = redb::backends::FileBackend::new(new)?;
            SharedLog::open(made, options.clone(), Arc::clone(&on_fatal)).map(drop)
        })?;
        SharedLog::open(redb::backends::FileBackend::new(file)?, options, on_fatal)
    }

    /// A group's log; empty if the group is new here.
    pub fn group(&self, id: GroupId) -> GroupLog {
        let mut groups = locked(&self.0.groups);
        let group = groups.entry(id).or_insert_with(|| Arc::new(Group { id, state: Mutex::default() }));
        GroupLog { handle: Arc::clone(&self.0), group: Arc::clone(group) }
    }

    /// The groups that were found on the disk or asked for since, in order.
    pub fn groups(&self) -> Vec<GroupId> {
        locked(&self.0.groups).keys().copied().collect()
    }

    /// Live entries of all groups, in bytes of memory.
    pub fn bytes(&self) -> u64 {
        self.0.queue.live_bytes.load(Relaxed)
    }

    /// What the writer did so far.
    pub fn stats(&self) -> LogStats {
        let counters = &self.0.counters;
        LogStats {
            commits: counters.commits.load(Relaxed),
            entries: counters.entries.load(Relaxed),
            bytes_written: counters.bytes_written.load(Relaxed),
            resets: counters.resets.load(Relaxed),
            rows: counters.rows.load(Relaxed),
            row_bytes: counters.row_bytes.load(Relaxed),
        }
    }

    /// Takes nothing more. The writer writes what is queued, closes the file and ends.
    pub fn close(&self) {
        self.0.queue.close();
    }
}
