//! The bytes of a row: all that one commit writes, for all groups, in write order.
//!
//! `version u8 · record* · crc32c u32`, where the checksum covers the row's key too, so that a row
//! cannot stand in for another. A record is `group u32 · kind u8` and then
//!
//! - *entries*, *reset*: `first index u64 · count u32 · (length u32 · entry)*`, an entry being a
//!   [`wire::Entry`](wardlock_wire::raft::Entry) in postcard;
//! - *truncate*: `from u64`, the first index that is dropped.
//!
//! Integers are little-endian. Entries carry their length so that a reset can move them as bytes.

use wardlock_machine::planted;
use wardlock_placement::GroupId;

use crate::raft::types::{self, Entry};

const VERSION: u8 = 1;
const ENTRIES: u8 = 1;
const TRUNCATE: u8 = 2;
const RESET: u8 = 3;

/// Why bytes from the disk are not what this program wrote.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// They end too early.
    #[error("it ends too early")]
    Short,
    /// They were damaged.
    #[error("its checksum is wrong: the disk or something else has damaged it")]
    Checksum,
    /// They were written by another version of this program.
    #[error("it has format version {0}, this program reads version {VERSION}")]
    Version(u8),
    /// The checksum is right but the content is impossible.
    #[error("it is malformed: {0}")]
    Malformed(String),
}

/// What a row says about one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    /// Appended entries.
    Entries(GroupId, RawEntries<'a>),
    /// Everything from this index on was dropped.
    Truncate(GroupId, u64),
    /// All live entries of the group; what older rows say about it no longer counts.
    Reset(GroupId, RawEntries<'a>),
}

impl Record<'_> {
    pub(super) fn group(&self) -> GroupId {
        match *self {
            Record::Entries(group, _) | Record::Truncate(group, _) | Record::Reset(group, _) => group,
        }
    }
}

/// Consecutive entries, still encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RawEntries<'a> {
    pub(super) first: u64,
    pub(super) count: u32,
    bytes: &'a [u8],
}

impl<'a> RawEntries<'a> {
    /// The entries' bytes, one by one. The lengths were checked when the record was read.
    pub(super) fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut input = Input(self.bytes);
        std::iter::from_fn(move || input.framed().ok())
    }

    /// Their size, lengths included.
    pub(super) fn size(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// Builds one row; kept between commits for its buffer.
#[derive(Debug, Default)]
pub(super) struct RowBuilder {
    buf: Vec<u8>,
}

impl RowBuilder {
    pub(super) fn start(&mut self) {
        // A burst must not pin its memory for good.
        if self.buf.capacity() > 4 << 20 {
            self.buf = Vec::new();
        }
        self.buf.clear();
        self.buf.push(VERSION);
    }

    /// Whether the row says nothing yet.
    pub(super) fn is_empty(&self) -> bool {
        self.buf.len() <= 1
    }

    fn head(&mut self, group: GroupId, kind: u8) {
        self.buf.extend_from_slice(&group.0.to_le_bytes());
        self.buf.push(kind);
    }

    /// Appended entries; answers their size in the row.
    pub(super) fn entries(&mut self, group: GroupId, entries: &[Entry]) -> Result<u64, Fault> {
        let first = entries.first().map_or(0, |entry| entry.log_id.index);
        self.head(group, ENTRIES);
        self.buf.extend_from_slice(&first.to_le_bytes());
        self.buf.extend_from_slice(&length(entries.len())?);
        let start = self.buf.len();
        for entry in entries {
            let at = self.buf.len();
            self.buf.extend_from_slice(&[0; 4]);
            self.buf = postcard::to_extend(&types::entry_to_wire(entry), std::mem::take(&mut self.buf))
                .map_err(|e| Fault::Malformed(e.to_string()))?;
            let len = length(self.buf.len() - at - 4)?;
            self.buf[at..at + 4].copy_from_slice(&len);
        }
        Ok((self.buf.len() - start) as u64)
    }

    /// A truncation.
    pub(super) fn truncate(&mut self, group: GroupId, from: u64) {
        self.head(group, TRUNCATE);
        self.buf.extend_from_slice(&from.to_le_bytes());
    }

    /// A reset to these encoded entries; answers their size in the row.
    pub(super) fn reset(&mut self, group: GroupId, first: u64, entries: &[Vec<u8>]) -> Result<u64, Fault> {
        self.raw(RESET, group, first, entries)
    }

    /// Appended entries that are encoded already; answers their size in the row.
    pub(super) fn encoded(&mut self, group: GroupId, first: u64, entries: &[Vec<u8>]) -> Result<u64, Fault> {
        self.raw(ENTRIES, group, first, entries)
    }

    fn raw(&mut self, kind: u8, group: GroupId, first: u64, entries: &[Vec<u8>]) -> Result<u64, Fault> {
        self.head(group, kind);
        self.buf.extend_from_slice(&first.to_le_bytes());
        self.buf.extend_from_slice(&length(entries.len())?);
        let start = self.buf.len();
        for entry in entries {
            self.buf.extend_from_slice(&length(entry.len())?);
            self.buf.extend_from_slice(entry);
        }
        Ok((self.buf.len() - start) as u64)
    }

    /// Seals the row under its key.
    pub(super) fn finish(&mut self, row: u64) -> &[u8] {
        let crc = checksum(row, &self.buf);
        self.buf.extend_from_slice(&crc.to_le_bytes());
        &self.buf
    }
}

/// Checks a row's seal and answers its records.
pub(super) fn read_row(row: u64, value: &[u8]) -> Result<Records<'_>, Fault> {
    let mut input = Input(unseal(row, value)?);
    match input.u8()? {
        VERSION => Ok(Records { input }),
        other => Err(Fault::Version(other)),
    }
}

/// The records of a row, in write order.
pub(super) struct Records<'a> {
    input: Input<'a>,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.input.0.is_empty() {
            return None;
        }
        let record = self.input.record();
        if record.is_err() {
            self.input.0 = &[];
        }
        Some(record)
    }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn record(&mut self) -> Result<Record<'a>, Fault> {
        let group = GroupId(self.u32()?);
        match self.u8()? {
            ENTRIES => Ok(Record::Entries(group, self.raw_entries()?)),
            TRUNCATE => Ok(Record::Truncate(group, self.u64()?)),
            RESET => Ok(Record::Reset(group, self.raw_entries()?)),
            kind => Err(Fault::Malformed(format!("unknown record kind {kind}"))),
        }
    }

    fn raw_entries(&mut self) -> Result<RawEntries<'a>, Fault> {
        let first = self.u64()?;
        let count = self.u32()?;
        // Behind the last of all numbers there is no next entry, and nobody has counted that far.
        if first.checked_add(count.into()).is_none() {
            return Err(Fault::Malformed(format!("{count} entries from {first} on")));
        }
        if planted!("entry-count-trusted") {
            drop(std::hint::black_box(Vec::<u64>::with_capacity(count as usize)));
        }
        let start = self.0;
        for _ in 0..count {
            self.framed()?;
        }
        Ok(RawEntries { first, count, bytes: &start[..start.len() - self.0.len()] })
    }

    fn framed(&mut self) -> Result<&'a [u8], Fault> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Fault::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Fault::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, Fault> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Fault> {
        self.array().map(u64::from_le_bytes)
    }
}

/// The checksum of a value under its key.
pub(in crate::disk) fn checksum(key: u64, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&key.to_le_bytes()), body)
}

/// Splits the checksum off a value and verifies it.
pub(in crate::disk) fn unseal(key: u64, value: &[u8]) -> Result<&[u8], Fault> {
    let (body, crc) = value.split_last_chunk::<4>().ok_or(Fault::Short)?;
    if checksum(key, body) != u32::from_le_bytes(*crc) && !planted!("row-checksum-ignored") {
        return Err(Fault::Checksum);
    }
    Ok(body)
}

fn length(len: usize) -> Result<[u8; 4], Fault> {
    u32::try_from(len).map(u32::to_le_bytes).map_err(|_| Fault::Malformed(format!("{len} does not fit a row")))
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;

    use super::*;
    use crate::raft::types::{Proposal, pos_from_wire};

    fn entry(term: u64, index: u64, data: &'static [u8]) -> Entry {
        let pos = wardlock_wire::raft::LogPos { term, index };
        Entry { log_id: pos_from_wire(pos), payload: EntryPayload::Normal(Proposal(data.into())) }
    }

    fn sample() -> RowBuilder {
        let mut row = RowBuilder::default();
        row.start();
        row.entries(GroupId(3), &[entry(1, 7, b"abc"), entry(1, 8, b"")]).unwrap();
        row.truncate(GroupId(3), 8);
        row.reset(GroupId(9), 5, &[b"raw".to_vec()]).unwrap();
        row
    }

    #[test]
    fn a_row_reads_back_in_write_order() {
        let mut row = sample();
        let value = row.finish(42).to_vec();
        let records: Vec<Record<'_>> = read_row(42, &value).unwrap().map(Result::unwrap).collect();
        let [Record::Entries(g3, entries), Record::Truncate(GroupId(3), 8), Record::Reset(g9, raw)] =
            records.as_slice()
        else {
            panic!("{records:?}")
        };
        assert_eq!((*g3, *g9), (GroupId(3), GroupId(9)));
        assert_eq!((entries.first, entries.count), (7, 2));
        let first: wardlock_wire::raft::Entry = postcard::from_bytes(entries.iter().next().unwrap()).unwrap();
        assert_eq!(types::entry_from_wire(first).unwrap(), entry(1, 7, b"abc"));
        assert_eq!(raw.iter().collect::<Vec<_>>(), vec![b"raw"]);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let mut row = sample();
        let value = row.finish(42).to_vec();
        assert!(matches!(read_row(43, &value), Err(Fault::Checksum)), "a row under another key");
        for bit in 0..value.len() * 8 {
            let mut bad = value.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(read_row(42, &bad).is_err(), "bit {bit}");
        }
        for len in 0..value.len() {
            assert!(read_row(42, &value[..len]).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn lengths_that_lie_are_refused_without_allocation() {
        let mut body = vec![VERSION];
        body.extend_from_slice(&1u32.to_le_bytes());
        body.push(ENTRIES);
        body.extend_from_slice(&0u64.to_le_bytes());
        body.extend_from_slice(&u32::MAX.to_le_bytes());
        let crc = checksum(1, &body);
        body.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(read_row(1, &body).unwrap().next(), Some(Err(Fault::Short)));
    }
}
