//! The journal: rows on their way into the database, ahead of it in the same file.
//!
//! A commit of the database writes half a dozen pages all over the file, and each costs the disk a request of
//! its own: 300 µs of processor time a commit on the machine where it was measured, most of it in the kernel.
//! A row alone is one run of pages behind the last one: 110 µs. So a commit that has nothing but
//! a row goes here, and now and then, or when something else has to be written, all rows since move into the
//! database at once, and the journal begins anew.
//!
//! The file: a page with the header, the journal's pages, and then the database.
//!
//! - Header: `magic [u8; 8] · version u32 · pages u32 · salt u64 · crc32c u32`, the rest zeros.
//! - A record begins on a page: `salt u64 · round u64 · row u64 · length u32 · row's bytes`, zeros up to the next
//!   page. The round counts how often the database was written: a record stands on that state of it.
//!   No page that holds an earlier record is ever written again before the journal begins anew, so a
//!   write that is torn damages nothing that was confirmed.
//!
//! # Why a restart finds all that was confirmed, and nothing that was not written
//! 1. A record counts if its row's own checksum, which covers the row's number, is right. Records stand in
//!    order from the first page on, their rows numbered without a gap; the first that does not follow ends
//!    them.
//! 2. The journal begins anew only after the database has, durably, every row up to the last. What an
//!    earlier round left behind the end has lower numbers, so it does not follow.
//! 3. A commit is synced before the next is begun: of the records only the last can be torn, and it was not
//!    confirmed. So if a whole record with a higher number stands anywhere behind the end, one before
//!    it was damaged, and the log refuses to open.
//! 4. A record of a later round than the database's says that the database has lost its last commit: a vote may
//!    have gone with it, and the log refuses to open.
//! 5. The salt, chosen with the file and told to nobody, keeps a page of a client's bytes from passing for a
//!    record.

use std::{io, ops::Bound, sync::Arc};

use redb::{BackendError, StorageBackend};
use wardlock_machine::planted;

use super::row::{Fault, read_row};

const MAGIC: [u8; 8] = *b"wardlog\n";
const VERSION: u32 = 1;
const PAGE: usize = 4096;
/// Before a record's row.
const HEAD: usize = 28;
/// The header's bytes ahead of its checksum.
const HEADER: usize = 24;
/// No journal is larger: its length comes from the disk.
const MAX_PAGES: u32 = 1 << 16;

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk refuses.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The file does not begin as a log does.
    #[error("its header cannot be used: {0}")]
    Header(Fault),
    /// The database is older than what the journal stands on.
    #[error("its database has lost commit {expected}: commit {found} is the last")]
    DatabaseBehind {
        /// The commit that the journal stands on.
        expected: u64,
        /// The last that is there.
        found: u64,
    },
    /// A record that was confirmed is damaged: a later one is whole.
    #[error("a row ahead of row {later} is damaged or missing in its journal")]
    Damaged {
        /// The row that is there.
        later: u64,
    },
}

/// The first pages of the log's file.
#[derive(Debug)]
pub(super) struct Journal {
    storage: Arc<dyn StorageBackend>,
    salt: u64,
    pages: u64,
    /// Pages in use.
    used: u64,
    buf: Vec<u8>,
}

/// A row as it stands in the journal.
struct Record<'a> {
    round: u64,
    row: u64,
    value: &'a [u8],
}

/// What lies behind the journal: the database's part of the file.
#[derive(Debug)]
pub(super) struct Behind {
    storage: Arc<dyn StorageBackend>,
    offset: u64,
}

/// Lays a journal of so many pages out at the beginning of an empty file, durably. The database follows.
pub(super) fn lay_out(storage: &dyn StorageBackend, pages: u32, salt: u64) -> io::Result<()> {
    let pages = pages.clamp(1, MAX_PAGES);
    let mut header = Vec::with_capacity(PAGE);
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&VERSION.to_le_bytes());
    header.extend_from_slice(&pages.to_le_bytes());
    header.extend_from_slice(&salt.to_le_bytes());
    header.extend_from_slice(&crc32c::crc32c(&header).to_le_bytes());
    header.resize(PAGE, 0);
    storage.set_len(PAGE as u64 * (1 + u64::from(pages)))?;
    // Written, not only reserved: a page's first write would cost a commit of the file system's own later.
    let zeros = vec![0; PAGE * 16];
    for page in (0..u64::from(pages)).step_by(16) {
        let count = (u64::from(pages) - page).min(16) as usize;
        storage.write(PAGE as u64 * (1 + page), &zeros[..count * PAGE])?;
    }
    storage.write(0, &header)?;
    storage.sync_data()
}

impl Journal {
    /// Opens the file: its journal, and where the database is.
    pub(super) fn open(storage: Arc<dyn StorageBackend>) -> Result<(Journal, Behind), JournalError> {
        let mut header = [0; HEADER + 4];
        storage.read(0, &mut header)?;
        let number = |at: usize| header[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        if header[..8] != MAGIC {
            return Err(JournalError::Header(Fault::Malformed("it is not a log's".to_owned())));
        }
        if crc32c::crc32c(&header[..HEADER]) != number(HEADER) {
            return Err(JournalError::Header(Fault::Checksum));
        }
        let (version, pages) = (number(8), number(12));
        if version != VERSION || pages == 0 || pages > MAX_PAGES {
            return Err(JournalError::Header(Fault::Malformed(format!("version {version}, {pages} pages"))));
        }
        let salt = header[16..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let behind = Behind { storage: Arc::clone(&storage), offset: PAGE as u64 * (1 + u64::from(pages)) };
        Ok((Journal { storage, salt, pages: u64::from(pages), used: 0, buf: Vec::new() }, behind))
    }

    /// The rows that the journal holds, in order. Those up to `known` are in the database, too, which was
    /// written `round` times.
    pub(super) fn rows(&self, known: u64, round: u64) -> Result<Vec<(u64, Vec<u8>)>, JournalError> {
        let mut bytes = vec![0; self.pages as usize * PAGE];
        self.storage.read(PAGE as u64, &mut bytes)?;
        let mut rows: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut at = 0;
        while let Some(record) = self.record(&bytes[at..])
            && rows.last().is_none_or(|(last, _)| last.checked_add(1) == Some(record.row))
        {
            rows.push((record.row, record.value.to_vec()));
            at += span(record.value.len());
        }
        let last = rows.last().map_or(known, |(last, _)| known.max(*last));
        for page in (0..bytes.len()).step_by(PAGE) {
            let Some(record) = self.record(&bytes[page..]) else { continue };
            if record.round > round && !planted!("round-unchecked") {
                return Err(JournalError::DatabaseBehind { expected: record.round, found: round });
            }
            if page >= at && record.row > last && !planted!("journal-damage-ignored") {
                return Err(JournalError::Damaged { later: record.row });
            }
        }
        Ok(rows)
    }

    /// The record at the beginning of these bytes, if a whole one is there.
    fn record<'a>(&self, bytes: &'a [u8]) -> Option<Record<'a>> {
        let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
        let number = |at: usize| head[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let (salt, round, row) = (number(0), number(8), number(16));
        let length = u32::from_le_bytes(*head.last_chunk()?) as usize;
        let value = rest.get(..length)?;
        (salt == self.salt && read_row(row, value).is_ok()).then_some(Record { round, row, value })
    }

    /// Whether a row of this size finds room.
    pub(super) fn has_room(&self, length: usize) -> bool {
        self.used + (span(length) / PAGE) as u64 <= self.pages
    }

    /// Writes a row behind the last, durably. The database was written `round` times.
    pub(super) fn append(&mut self, round: u64, row: u64, value: &[u8]) -> io::Result<()> {
        assert!(self.has_room(value.len()), "row {row} of {} bytes does not fit the journal", value.len());
        let length = u32::try_from(value.len()).map_err(io::Error::other)?;
        self.buf.clear();
        self.buf.extend_from_slice(&self.salt.to_le_bytes());
        self.buf.extend_from_slice(&round.to_le_bytes());
        self.buf.extend_from_slice(&row.to_le_bytes());
        self.buf.extend_from_slice(&length.to_le_bytes());
        self.buf.extend_from_slice(value);
        self.buf.resize(span(value.len()), 0);
        if planted!("ack-before-sync") {
            self.storage.sync_data()?;
        }
        self.storage.write(PAGE as u64 * (1 + self.used), &self.buf)?;
        if !(planted!("skip-fsync") || planted!("ack-before-sync")) {
            self.storage.sync_data()?;
        }
        self.used += (self.buf.len() / PAGE) as u64;
        Ok(())
    }

    /// Begins anew: the database has every row.
    pub(super) fn clear(&mut self) {
        self.used = 0;
    }
}

/// What a record of a row of this size takes, in whole pages.
fn span(length: usize) -> usize {
    (HEAD + length).next_multiple_of(PAGE)
}

impl StorageBackend for Behind {
    fn len(&self) -> io::Result<u64> {
        Ok(self.storage.len()?.saturating_sub(self.offset))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.storage.read(self.offset + offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.storage.set_len(self.offset + len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.storage.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.storage.write(self.offset + offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.storage.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.storage.try_lock_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.storage.unlock_range(start, end)
    }
}
