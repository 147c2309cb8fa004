//! Opens the file, checks every row and mark, and replays the rows into each group's state.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, WriteTransaction};
use wardlock_placement::GroupId;
use wardlock_wire::raft as wire;

use super::{
    Options,
    journal::{Journal, JournalError, lay_out},
    layout::Layout,
    marks::Marks,
    row::{Fault, RawEntries, Record, read_row},
    state::State,
};
use crate::raft::types::{self, Entry};

/// One row for each commit, keyed by a sequence without holes.
pub(super) const ROWS: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("rows");
/// The marks of each group.
pub(super) const MARKS: TableDefinition<'static, u32, &'static [u8]> = TableDefinition::new("marks");
/// The version, and how often the database was written.
const FORMAT: TableDefinition<'static, &'static str, u64> = TableDefinition::new("format");
const ROUND: &str = "round";
const FORMAT_VERSION: u64 = 1;

/// Why the log does not open. None of these may be answered by starting without it: a replica that
/// forgets its vote or an acknowledged entry breaks the promises of the whole group.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The storage engine refuses the file.
    #[error("{file} cannot be opened as a database: {0}", file = super::FILE)]
    Database(#[source] Box<redb::Error>),
    /// What lies ahead of the database cannot be used.
    #[error("{file} cannot be used: {0}", file = super::FILE)]
    Journal(#[from] JournalError),
    /// The file is of another version.
    #[error("{file} has format version {found}, this program reads version {FORMAT_VERSION}", file = super::FILE)]
    Format {
        /// Its version.
        found: u64,
    },
    /// A row is damaged.
    #[error("row {row} of {file} cannot be used: {fault}", file = super::FILE)]
    Row {
        /// The row's key.
        row: u64,
        /// What is wrong with it.
        fault: Fault,
    },
    /// A group's marks are damaged.
    #[error("the marks of group {group} in {file} cannot be used: {fault}", file = super::FILE)]
    Marks {
        /// Whose they are.
        group: GroupId,
        /// What is wrong with them.
        fault: Fault,
    },
    /// A row is missing.
    #[error("row {expected} of {file} is missing: row {found} comes next", file = super::FILE)]
    MissingRow {
        /// The key that should have come.
        expected: u64,
        /// The key that came.
        found: u64,
    },
    /// A group's log does not begin where its purge point says.
    #[error("the log of group {group} in {file} should begin at entry {expected}, it begins at {found}", file = super::FILE)]
    Hole {
        /// Whose log it is.
        group: GroupId,
        /// The entry after the purge point.
        expected: u64,
        /// The first entry found.
        found: u64,
    },
}

impl<E: Into<redb::Error>> From<E> for OpenError {
    fn from(error: E) -> OpenError {
        OpenError::Database(Box::new(error.into()))
    }
}

/// Counts a write of the database, as part of it.
pub(super) fn next_round(txn: &WriteTransaction) -> Result<u64, redb::Error> {
    let mut format = txn.open_table(FORMAT)?;
    let round = format.get(ROUND)?.map_or(0, |round| round.value()) + 1;
    format.insert(ROUND, round)?;
    Ok(round)
}

/// What was found.
pub(super) struct Recovered {
    /// How often the database was written.
    pub(super) round: u64,
    pub(super) layout: Layout,
    pub(super) marks: BTreeMap<GroupId, Marks>,
    pub(super) states: BTreeMap<GroupId, State>,
}

/// An empty file is laid out first. Rows that only the journal has move into the database.
pub(super) fn open(
    storage: Arc<dyn StorageBackend>,
    options: &Options,
) -> Result<(Database, Journal, Recovered), OpenError> {
    let is_empty = storage.len().map_err(JournalError::Io)? == 0;
    if is_empty {
        lay_out(&*storage, options.journal_pages, wardlock_router::random::any()).map_err(JournalError::Io)?;
    }
    let (journal, behind) = Journal::open(storage)?;
    // Where the database was cut off, an empty one must not take its place.
    if !is_empty && behind.len().map_err(JournalError::Io)? == 0 {
        return Err(JournalError::Header(Fault::Short).into());
    }
    let db = Database::builder()
        .set_cache_size(options.cache_bytes)
        .set_check_integrity_on_open(true)
        .create_with_backend(behind)?;
    let mut txn = db.begin_write()?;
    txn.set_two_phase_commit(options.two_phase);
    {
        let is_new = txn.list_tables()?.next().is_none();
        let mut format = txn.open_table(FORMAT)?;
        let found = format.get("log")?.map_or(0, |version| version.value());
        match (is_new, found) {
            (true, _) => drop(format.insert("log", FORMAT_VERSION)?),
            (false, FORMAT_VERSION) => {}
            (false, found) => return Err(OpenError::Format { found }),
        }
        txn.open_table(MARKS)?;
        let mut rows = txn.open_table(ROWS)?;
        let known = rows.last()?.map_or(0, |(row, _)| row.value());
        let round = format.get(ROUND)?.map_or(0, |round| round.value());
        for (expected, (row, value)) in
            (known + 1..).zip(journal.rows(known, round)?.iter().filter(|(row, _)| *row > known))
        {
            if *row != expected {
                return Err(OpenError::MissingRow { expected, found: *row });
            }
            rows.insert(row, value.as_slice())?;
        }
    }
    let round = next_round(&txn)?;
    txn.commit()?;
    let recovered = read(&db, round)?;
    Ok((db, journal, recovered))
}

fn read(db: &Database, round: u64) -> Result<Recovered, OpenError> {
    let txn = db.begin_read()?;
    let mut marks = BTreeMap::new();
    for item in txn.open_table(MARKS)?.iter()? {
        let (group, value) = item?;
        let group = GroupId(group.value());
        let found = Marks::decode(group, value.value()).map_err(|fault| OpenError::Marks { group, fault })?;
        marks.insert(group, found);
    }

    let rows = txn.open_table(ROWS)?;
    let oldest = rows.first()?.map_or(1, |(row, _)| row.value());
    let mut layout = Layout::starting_at(oldest);
    let mut tails: BTreeMap<GroupId, Tail<Entry>> = BTreeMap::new();
    for item in rows.iter()? {
        let (row, value) = item?;
        let (row, value) = (row.value(), value.value());
        if row != layout.next_row() {
            return Err(OpenError::MissingRow { expected: layout.next_row(), found: row });
        }
        layout.push_row();
        replay(row, value, &marks, &mut layout, &mut tails).map_err(|fault| OpenError::Row { row, fault })?;
        layout.seal_row(value.len() as u64);
    }

    let mut states: BTreeMap<GroupId, State> = BTreeMap::new();
    for (&group, marks) in &marks {
        layout.purge(group, marks.floor());
        let state = states.entry(group).or_default();
        state.vote = marks.vote.map(types::vote_from_wire);
        state.committed = marks.committed.map(types::pos_from_wire);
        state.purged = marks.purged.map(types::pos_from_wire);
    }
    for (group, tail) in tails {
        let expected = marks.get(&group).map_or(0, Marks::floor);
        if !tail.entries.is_empty() && tail.first != expected {
            return Err(OpenError::Hole { group, expected, found: tail.first });
        }
        if !tail.entries.is_empty() {
            states.entry(group).or_default().append(tail.entries);
        }
    }
    Ok(Recovered { round, layout, marks, states })
}

fn replay(
    row: u64,
    value: &[u8],
    marks: &BTreeMap<GroupId, Marks>,
    layout: &mut Layout,
    tails: &mut BTreeMap<GroupId, Tail<Entry>>,
) -> Result<(), Fault> {
    for record in read_row(row, value)? {
        let record = record?;
        let group = record.group();
        let floor = marks.get(&group).map_or(0, Marks::floor);
        // What was purged since counts here too: the layout takes records in the order of their entries.
        if let Record::Entries(_, raw) = record
            && raw.count > 0
            && let Some(last) = layout.last(group).filter(|last| raw.first <= *last)
        {
            return Err(Fault::Malformed(format!(
                "entry {} comes again, after {last}, before a truncation",
                raw.first
            )));
        }
        let tail = tails.entry(group).or_default();
        match record {
            Record::Entries(_, raw) => {
                tail.append(raw.first, decode(raw)?, floor)?;
                layout.append(group, raw.first, u64::from(raw.count), raw.size());
            }
            Record::Truncate(_, from) => {
                tail.truncate(from);
                layout.truncate(group, from);
            }
            Record::Reset(_, raw) => {
                *tail = Tail::default();
                tail.append(raw.first, decode(raw)?, floor)?;
                layout.forget(group);
                layout.append(group, raw.first, u64::from(raw.count), raw.size());
            }
        }
    }
    Ok(())
}

fn decode(raw: RawEntries<'_>) -> Result<Vec<Entry>, Fault> {
    let decode = |(at, bytes)| {
        let entry: wire::Entry = postcard::from_bytes(bytes).map_err(|e| Fault::Malformed(e.to_string()))?;
        if entry.pos.index != raw.first + at {
            return Err(Fault::Malformed(format!("entry {} stands in place of {}", entry.pos.index, raw.first + at)));
        }
        types::entry_from_wire(entry).map_err(Fault::Malformed)
    };
    (0..).zip(raw.iter()).map(decode).collect()
}

/// What a sequence of records leaves of one group's entries.
#[derive(Debug)]
pub(super) struct Tail<E> {
    pub(super) first: u64,
    pub(super) entries: VecDeque<E>,
}

impl<E> Default for Tail<E> {
    fn default() -> Tail<E> {
        Tail { first: 0, entries: VecDeque::new() }
    }
}

impl<E> Tail<E> {
    /// Appends entries; those below the floor were purged since and are left out.
    ///
    /// A purge that reaches past the end leaves a gap, and raises the floor to where entries go on. So no gap
    /// lies above the floor: what says otherwise lacks entries.
    pub(super) fn append(&mut self, first: u64, entries: impl IntoIterator<Item = E>, floor: u64) -> Result<(), Fault> {
        // In this order: an index behind the last is never counted, for there may be none.
        for (entry, index) in entries.into_iter().zip(first..).filter(|(_, index)| *index >= floor) {
            match self.first + self.entries.len() as u64 {
                _ if self.entries.is_empty() => self.first = index,
                end if index < end => {
                    return Err(Fault::Malformed(format!("entry {index} comes again before a truncation")));
                }
                end if index > end => return Err(Fault::Malformed(format!("entry {index} comes where {end} should"))),
                _ => {}
            }
            self.entries.push_back(entry);
        }
        Ok(())
    }

    /// Drops entries from this index on.
    pub(super) fn truncate(&mut self, from: u64) {
        let kept = usize::try_from(from.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.entries.truncate(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_may_reach_the_end_of_all_indices() {
        let mut tail = Tail::default();
        tail.append(u64::MAX - 2, ["one", "two"], 0).unwrap();
        assert_eq!((tail.first, tail.entries.len()), (u64::MAX - 2, 2));
    }

    /// Were it taken, the layout would go on holding the entries before the gap, of which the state knows nothing,
    /// and a reset would bring them back.
    #[test]
    fn a_gap_is_a_purge_past_the_end_or_a_fault() {
        let mut tail = Tail::default();
        tail.append(5, ["purged"], 8).unwrap();
        tail.append(8, ["eight"], 8).unwrap();
        assert_eq!((tail.first, tail.entries.len()), (8, 1));
        let fault = tail.append(10, ["ten"], 8).unwrap_err();
        assert_eq!(fault, Fault::Malformed("entry 10 comes where 9 should".into()));
    }
}
