//! The one writer: drains the queue, writes one row, commits once, tells everybody.
//!
//! A commit goes to the journal where a row is all that it has and there is room, and to the database
//! otherwise, with all rows that the journal holds.
//!
//! It has no thread, sleep or clock of its own but tokio's, so that the same loop runs on a thread in
//! production and as a task beside a simulated cluster. The commit itself blocks.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
};

use redb::{Database, Durability, ReadOnlyTable, ReadableDatabase};
use tokio::time::Instant;
use wardlock_machine::planted;
use wardlock_placement::GroupId;

use super::{
    Counters, Options,
    journal::Journal,
    layout::Layout,
    marks::Marks,
    queue::{Group, Op, Queue, Queued},
    recover::{MARKS, ROWS, Tail, next_round},
    row::{Fault, Record, RowBuilder, read_row},
};
use crate::{
    disk::{OnFatal, locked},
    raft::types,
};

/// A commit moves groups until this much was moved, at least one: a stall that nobody notices. A group that
/// has more is busy or was lately, and its next snapshot frees its rows for nothing; moving twenty megabytes
/// held everybody up for half a second.
const RESET_BYTES: u64 = 1 << 20;

/// So many times what moves the small groups moves any.
const LATE: u64 = 8;

/// The most rows that one commit takes out: a snapshot can leave thousands at once, and everybody would wait
/// for as long as that takes, some 20 µs a row. Twice as many as come in between two settlings.
const DEAD_ROWS: usize = 128;

/// From so many appends a commit on, others are on their way and worth waiting for.
const COMPANY: f64 = 3.0;

/// Why a commit failed. There is no retry.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("{0}")]
    Database(Box<redb::Error>),
    #[error("{0}")]
    Journal(io::Error),
    #[error("an entry cannot be encoded: {0}")]
    Encode(#[from] Fault),
    #[error("row {row} cannot be read back: {fault}")]
    ReadBack { row: u64, fault: Fault },
}

impl<E: Into<redb::Error>> From<E> for WriteError {
    fn from(error: E) -> WriteError {
        WriteError::Database(Box::new(error.into()))
    }
}

/// The log's writer. Nothing becomes durable until it runs.
pub struct LogWriter {
    db: Database,
    journal: Journal,
    /// The rows that the journal holds and the database does not, oldest first.
    journaled: VecDeque<(u64, Vec<u8>)>,
    /// How often the database was written.
    round: u64,
    layout: Layout,
    marks: BTreeMap<GroupId, Marks>,
    /// Groups whose committed position is ahead of what they have on disk: written once it is not.
    owed: BTreeMap<GroupId, Arc<Group>>,
    /// Commits since the database was last written.
    owing: u32,
    row: RowBuilder,
    queue: Arc<Queue>,
    counters: Arc<Counters>,
    options: Options,
    on_fatal: OnFatal,
}

impl LogWriter {
    pub(super) fn new(
        db: Database,
        journal: Journal,
        (round, layout, marks): (u64, Layout, BTreeMap<GroupId, Marks>),
        queue: Arc<Queue>,
        counters: Arc<Counters>,
        options: Options,
        on_fatal: OnFatal,
    ) -> LogWriter {
        LogWriter {
            db,
            journal,
            journaled: VecDeque::new(),
            round,
            layout,
            marks,
            owed: BTreeMap::new(),
            owing: 0,
            row: RowBuilder::default(),
            queue,
            counters,
            options,
            on_fatal,
        }
    }

    /// Runs the writer on a thread of its own. It ends when the log is closed.
    pub fn spawn_thread(self) -> io::Result<thread::JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        thread::Builder::new().name("wardlock-log".into()).spawn(move || runtime.block_on(self.run()))
    }

    /// Writes until the log is closed or the disk fails.
    pub async fn run(mut self) {
        let fsync = metrics::histogram!("wardlock_log_fsync_duration_seconds");
        let batch_entries = metrics::histogram!("wardlock_log_batch_entries");
        let live_bytes = metrics::gauge!("wardlock_log_bytes");
        self.count_rows();
        let mut batch = Vec::new();
        // Appends a commit, a moving average. A group that catches up appends many entries at once.
        let mut company = 0.0;
        while self.queue.drain(&mut batch).await {
            // Whoever is about to append gets the turn: on a shared thread the batch grows by a round.
            tokio::task::yield_now().await;
            if company >= COMPANY && !self.options.linger.is_zero() {
                tokio::time::sleep(self.options.linger).await;
            }
            self.queue.drain_now(&mut batch);
            let appends = batch.iter().filter(|queued| needs_row(&queued.op)).count();
            let started = Instant::now();
            match self.commit(&batch) {
                Ok(entries) => {
                    let took = started.elapsed();
                    company = (3.0 * company + appends as f64) / 4.0;
                    fsync.record(took.as_secs_f64());
                    batch_entries.record(entries as f64);
                    live_bytes.set(self.queue.live_bytes.load(Relaxed) as f64);
                    self.counters.commits.fetch_add(1, Relaxed);
                    self.counters.entries.fetch_add(entries, Relaxed);
                    self.count_rows();
                    self.confirm(&mut batch);
                }
                Err(error) => return self.fail(batch, &error),
            }
        }
        self.owing = self.options.settle_every;
        if !(self.owed.is_empty() && self.journaled.is_empty())
            && let Err(error) = self.commit(&[])
        {
            self.fail(batch, &error);
        }
    }

    /// Everything in the batch, in order, in one transaction. Answers the number of new entries.
    fn commit(&mut self, batch: &[Queued]) -> Result<u64, WriteError> {
        let mut entries_written = 0;
        let mut touched = BTreeSet::new();
        let row = self.layout.next_row();
        self.row.start();
        if batch.iter().any(|queued| needs_row(&queued.op)) {
            self.layout.push_row();
            self.move_idle_groups()?;
        }
        for Queued { group, op, .. } in batch {
            let id = group.id;
            match op {
                Op::Append { entries, .. } => {
                    let Some(first) = entries.first() else { continue };
                    let bytes = self.row.entries(id, entries)?;
                    self.layout.append(id, first.log_id.index, entries.len() as u64, bytes);
                    entries_written += entries.len() as u64;
                }
                Op::Truncate { from } => {
                    locked(&group.state).truncating -= 1;
                    self.row.truncate(id, *from);
                    self.layout.truncate(id, *from);
                }
                Op::Purge { upto } => {
                    self.marks.entry(id).or_default().purged = Some(types::pos_to_wire(*upto));
                    self.layout.purge(id, upto.index + 1);
                    touched.insert(id);
                }
                Op::Vote { vote, .. } => {
                    self.marks.entry(id).or_default().vote = Some(types::vote_to_wire(vote));
                    touched.insert(id);
                }
                Op::Committed => {
                    self.owed.insert(id, Arc::clone(group));
                }
            }
        }
        self.owing = self.owing.saturating_add(1);
        self.write(row, touched)?;
        Ok(entries_written)
    }

    /// Moves groups off the oldest row, by a reset each, while there are too many rows or dead bytes.
    /// The resets come before the batch's own records and say what was on disk before it.
    fn move_idle_groups(&mut self) -> Result<(), WriteError> {
        let dead_bytes = self.layout.disk_bytes().saturating_sub(self.layout.live_bytes());
        let is_over = |times: u64| {
            self.layout.row_count() as u64 > times * self.options.max_rows
                || dead_bytes > self.layout.live_bytes() + times * self.options.slack_bytes
        };
        if !is_over(1) {
            return Ok(());
        }
        let mut holders = self.layout.holders_of_oldest();
        if !is_over(LATE) {
            holders.retain(|group| self.layout.is_within(*group, RESET_BYTES));
        }
        if holders.is_empty() {
            return Ok(());
        }
        // Moving frees the oldest row, and settling takes it out: one row for each commit.
        self.owing = self.options.settle_every;
        let txn = self.db.begin_read()?;
        let rows = Rows { settled: txn.open_table(ROWS)?, journaled: &self.journaled };
        let mut moved = 0;
        for group in holders {
            if moved >= RESET_BYTES {
                break;
            }
            let (first, mut live) = live_entries(&self.layout, &rows, group)?;
            if planted!("reset-without-tail") {
                live.truncate(self.layout.runs(group).next().map_or(0, |run| (run.last - run.first + 1) as usize));
            }
            let bytes = self.row.reset(group, first, &live)?;
            self.layout.forget(group);
            self.layout.append(group, first, live.len() as u64, bytes);
            self.counters.resets.fetch_add(1, Relaxed);
            moved += bytes;
        }
        Ok(())
    }

    /// Takes over the committed positions that the entries on disk reach: a restart applies up to
    /// them, so none may point past the log, nor at an entry of which a truncation in the queue says that it
    /// is another by now.
    fn settle_committed(&mut self, touched: &mut BTreeSet<GroupId>) {
        let (layout, marks) = (&self.layout, &mut self.marks);
        self.owed.retain(|&id, group| {
            let mut state = locked(&group.state);
            if state.truncating > 0 && !planted!("committed-over-truncated") {
                return true;
            }
            state.commit_queued = false;
            let committed = state.committed.map(types::pos_to_wire);
            drop(state);
            let marks = marks.entry(id).or_default();
            let end = layout.last(id).map_or(marks.floor(), |last| marks.floor().max(last + 1));
            if committed.is_some_and(|committed| committed.index >= end) {
                return true;
            }
            marks.committed = committed;
            touched.insert(id);
            false
        });
    }

    /// Makes the row and the marks durable.
    fn write(&mut self, row: u64, mut touched: BTreeSet<GroupId>) -> Result<(), WriteError> {
        let has_row = !self.row.is_empty();
        assert_eq!(
            has_row,
            self.layout.next_row() > row,
            "row {row} must be on the disk and in the layout, or in neither"
        );
        if has_row {
            let sealed = self.row.finish(row);
            self.layout.seal_row(sealed.len() as u64);
            self.counters.bytes_written.fetch_add(sealed.len() as u64, Relaxed);
            self.journaled.push_back((row, sealed.to_vec()));
        }
        let settles = self.owing >= self.options.settle_every || !touched.is_empty();
        if !settles && !has_row {
            return Ok(());
        }
        match self.journaled.back() {
            Some((_, sealed)) if !settles && self.journal.has_room(sealed.len()) => {
                self.journal.append(self.round, row, sealed).map_err(WriteError::Journal)
            }
            _ => {
                self.owing = 0;
                self.settle_committed(&mut touched);
                self.settle(&touched)
            }
        }
    }

    /// Moves the journal's rows into the database, with the marks of these groups, and takes out the rows that
    /// nobody needs.
    fn settle(&mut self, touched: &BTreeSet<GroupId>) -> Result<(), WriteError> {
        let dead = self.layout.take_dead(DEAD_ROWS);
        let mut txn = self.db.begin_write()?;
        txn.set_durability(if planted!("journal-cleared-early") { Durability::None } else { Durability::Immediate })?;
        txn.set_two_phase_commit(self.options.two_phase);
        {
            let mut rows = txn.open_table(ROWS)?;
            // Those that died on the way never get there.
            for (row, sealed) in self.journaled.iter().filter(|(row, _)| *row >= dead.end) {
                rows.insert(row, sealed.as_slice())?;
            }
            for row in dead.clone() {
                rows.remove(row)?;
            }
        }
        if planted!("vote-with-row") && !dead.is_empty() {
            let mut table = txn.open_table(MARKS)?;
            for (id, marks) in self.marks.iter().filter(|(id, _)| self.layout.last(**id).is_none()) {
                table.insert(id.0, Marks { vote: None, ..*marks }.encode(*id)?.as_slice())?;
            }
        }
        if !touched.is_empty() {
            let mut table = txn.open_table(MARKS)?;
            for &id in touched {
                let marks = self.marks.entry(id).or_default();
                table.insert(id.0, marks.encode(id)?.as_slice())?;
            }
        }
        let round = next_round(&txn)?;
        txn.commit()?;
        self.round = round;
        self.journaled.clear();
        self.journal.clear();
        Ok(())
    }

    /// Tells everybody, in the order in which they asked.
    fn confirm(&self, batch: &mut Vec<Queued>) {
        let mut space = 0;
        for queued in batch.drain(..) {
            space += queued.space;
            match queued.op {
                Op::Append { done, .. } => done.io_completed(Ok(())),
                Op::Vote { vote, done } => {
                    locked(&queued.group.state).vote = Some(vote);
                    // Whoever asked may have gone; the vote stands.
                    let _ = done.send(Ok(()));
                }
                Op::Truncate { .. } | Op::Purge { .. } | Op::Committed => {}
            }
        }
        self.queue.release(space);
    }

    /// The disk failed: the reason first, then a refusal for all who wait.
    fn fail(&self, batch: Vec<Queued>, error: &WriteError) {
        let why = format!("the log cannot be written: {error}");
        self.queue.close();
        (self.on_fatal)(&why);
        refuse(batch, &why);
    }

    fn count_rows(&self) {
        self.counters.rows.store(self.layout.row_count() as u64, Relaxed);
        self.counters.row_bytes.store(self.layout.disk_bytes(), Relaxed);
    }
}

impl Drop for LogWriter {
    /// Nobody waits for a writer that is gone.
    fn drop(&mut self) {
        self.queue.close();
        let mut left = Vec::new();
        self.queue.drain_now(&mut left);
        refuse(left, "the log's writer has ended");
    }
}

fn refuse(batch: Vec<Queued>, why: &str) {
    for queued in batch {
        let failed = Err(io::Error::other(why.to_owned()));
        match queued.op {
            Op::Append { done, .. } => done.io_completed(failed),
            Op::Vote { done, .. } => {
                let _ = done.send(failed);
            }
            Op::Truncate { .. } | Op::Purge { .. } | Op::Committed => {}
        }
    }
}

/// Whether the operation stands in a row; the others stand in the marks alone.
fn needs_row(op: &Op) -> bool {
    match op {
        Op::Append { entries, .. } => !entries.is_empty(),
        Op::Truncate { .. } => true,
        Op::Vote { .. } | Op::Purge { .. } | Op::Committed => false,
    }
}

/// All rows on the disk.
struct Rows<'a> {
    settled: ReadOnlyTable<u64, &'static [u8]>,
    journaled: &'a VecDeque<(u64, Vec<u8>)>,
}

impl Rows<'_> {
    /// Reads a row, if it is there.
    fn read<T>(&self, row: u64, read: impl FnOnce(&[u8]) -> T) -> Result<Option<T>, WriteError> {
        // Their numbers have no gaps.
        let at = self.journaled.front().and_then(|(first, _)| usize::try_from(row.checked_sub(*first)?).ok());
        match at.and_then(|at| self.journaled.get(at)) {
            Some((_, value)) => Ok(Some(read(value))),
            None => Ok(self.settled.get(row)?.map(|value| read(value.value()))),
        }
    }
}

/// The live entries of a group as its rows hold them, all of them. They are read from the disk, not
/// from memory: memory is ahead by what is still queued.
fn live_entries(layout: &Layout, rows: &Rows<'_>, group: GroupId) -> Result<(u64, Vec<Vec<u8>>), WriteError> {
    let mut live = Vec::new();
    for run in layout.runs(group) {
        let read_back = |fault| WriteError::ReadBack { row: run.row, fault };
        let tail = rows.read(run.row, |value| entries_in_row(run.row, value, group, run.first))?;
        let tail = tail.ok_or(Fault::Short).flatten().map_err(read_back)?;
        if tail.first != run.first {
            return Err(read_back(Fault::Short));
        }
        let count = run.last - run.first + 1;
        live.extend(tail.entries.into_iter().take(count as usize));
    }
    let first = layout.runs(group).next().map_or(0, |run| run.first);
    let expected = layout.last(group).map_or(0, |last| last - first + 1);
    assert_eq!(
        live.len() as u64,
        expected,
        "invariant 4: a reset of group {group} holds all from its first to its last"
    );
    Ok((first, live))
}

/// What one row alone leaves of a group's entries, from this index on.
fn entries_in_row(row: u64, value: &[u8], group: GroupId, floor: u64) -> Result<Tail<Vec<u8>>, Fault> {
    let mut tail = Tail::default();
    for record in read_row(row, value)? {
        match record? {
            record if record.group() != group => {}
            Record::Entries(_, raw) => tail.append(raw.first, raw.iter().map(<[u8]>::to_vec), floor)?,
            Record::Truncate(_, from) => tail.truncate(from),
            Record::Reset(_, raw) => {
                tail = Tail::default();
                tail.append(raw.first, raw.iter().map(<[u8]>::to_vec), floor)?;
            }
        }
    }
    Ok(tail)
}

#[cfg(test)]
mod tests {
    use openraft::storage::{IOFlushed, RaftLogStorage};
    use wardlock_wire::raft::LogPos;

    use super::*;
    use crate::{
        disk::log::SharedLog,
        raft::types::{Entry, LogId, Proposal, pos_from_wire},
    };

    fn id(term: u64, index: u64) -> LogId {
        pos_from_wire(LogPos { term, index })
    }

    fn entry(term: u64, index: u64) -> Entry {
        Entry { log_id: id(term, index), payload: openraft::EntryPayload::Normal(Proposal(vec![1].into())) }
    }

    /// The disk has entry 1 of term 1, memory has that of term 2: a mark over the older one would make a restart
    /// apply it.
    #[tokio::test]
    async fn no_committed_position_stands_over_an_entry_that_is_to_be_truncated() {
        let options = Options { settle_every: 1, journal_pages: 4, ..Options::default() };
        let backend = redb::backends::InMemoryBackend::new();
        let (log, mut writer) = SharedLog::open(backend, options, Arc::new(|_| ())).expect("it opens");
        let mut group = log.group(GroupId(1));
        group.append(vec![entry(1, 0), entry(1, 1)], IOFlushed::noop()).await.expect("room");
        group.save_committed(Some(id(1, 0))).await.expect("open");
        let mut batch = Vec::new();
        writer.queue.drain_now(&mut batch);
        group.truncate_after(Some(id(1, 0))).await.expect("open");
        group.append(vec![entry(2, 1)], IOFlushed::noop()).await.expect("room");
        group.save_committed(Some(id(2, 1))).await.expect("open");
        let committed = |writer: &LogWriter| writer.marks.get(&GroupId(1)).and_then(|marks| marks.committed);
        writer.commit(&batch).expect("a commit");
        assert_eq!(committed(&writer), None);
        batch.clear();
        writer.queue.drain_now(&mut batch);
        writer.commit(&batch).expect("a commit");
        assert_eq!(committed(&writer), Some(LogPos { term: 2, index: 1 }));
    }
}
