//! One group's log in memory: what readers see, as soon as it was queued for the disk.

use std::{
    collections::VecDeque,
    io,
    ops::{Bound, RangeBounds},
};

use openraft::EntryPayload;

use crate::raft::types::{Entry, LogId, Vote};

/// What an entry is reckoned to cost in memory beside its payload.
const ENTRY_BYTES: u64 = 96;
/// What a member costs in a membership entry.
const MEMBER_BYTES: u64 = 64;

/// The bytes that an entry counts for, in memory and in the queue.
pub(super) fn weight(entry: &Entry) -> u64 {
    let payload = match &entry.payload {
        EntryPayload::Blank => 0,
        EntryPayload::Normal(proposal) => proposal.0.len() as u64,
        EntryPayload::Membership(members) => members.nodes().count() as u64 * MEMBER_BYTES,
    };
    ENTRY_BYTES + payload
}

/// The live entries and marks of one group.
#[derive(Debug, Default)]
pub(super) struct State {
    entries: VecDeque<Entry>,
    bytes: u64,
    /// The last vote that is durable; a vote on its way to the disk is not seen by anybody.
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    pub(super) purged: Option<LogId>,
    /// A commit marker for this group is in the queue.
    pub(super) commit_queued: bool,
    /// Truncations in the queue: while there are any, the disk may have another entry where memory has one.
    pub(super) truncating: u32,
}

impl State {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn last(&self) -> Option<LogId> {
        self.entries.back().map(|entry| entry.log_id).or(self.purged)
    }

    /// Refuses entries that would leave a hole or overwrite what was not truncated first.
    pub(super) fn check_append(&self, entries: &[Entry]) -> io::Result<()> {
        let mut expected = self.last().map(|last| last.index + 1);
        for entry in entries {
            let index = entry.log_id.index;
            if expected.is_some_and(|expected| expected != index) {
                let text = format!("entry {index} does not follow the log, which ends before {expected:?}");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
            expected = Some(index + 1);
        }
        Ok(())
    }

    /// Takes entries that were checked.
    pub(super) fn append(&mut self, entries: impl IntoIterator<Item = Entry>) {
        for entry in entries {
            self.bytes += weight(&entry);
            self.entries.push_back(entry);
        }
    }

    /// Drops entries from this index on.
    pub(super) fn truncate(&mut self, from: u64) {
        let kept = self.position(from);
        let dropped: u64 = self.entries.drain(kept..).map(|entry| weight(&entry)).sum();
        self.bytes -= dropped;
    }

    /// Drops entries up to this one. The purge point only rises.
    pub(super) fn purge(&mut self, upto: LogId) {
        if self.purged.is_some_and(|purged| purged.index >= upto.index) {
            return;
        }
        let end = self.position(upto.index + 1);
        let dropped: u64 = self.entries.drain(..end).map(|entry| weight(&entry)).sum();
        self.bytes -= dropped;
        self.purged = Some(upto);
        // A burst must not pin its memory for good.
        if self.entries.capacity() > 1024 && self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
    }

    /// The entries in the range, as far as they exist.
    pub(super) fn read(&self, range: impl RangeBounds<u64>) -> Vec<Entry> {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&end) => end.saturating_add(1),
            Bound::Excluded(&end) => end,
            Bound::Unbounded => u64::MAX,
        };
        let (start, end) = (self.position(start), self.position(end));
        if start >= end { Vec::new() } else { self.entries.range(start..end).cloned().collect() }
    }

    /// The first entries from `start` on that fit `max_bytes`, at least one; none if `start` itself is
    /// gone, for what follows a purged entry is not what was asked for.
    pub(super) fn read_some(&self, start: u64, end: u64, max_bytes: u64) -> Vec<Entry> {
        if self.entries.front().is_none_or(|first| start < first.log_id.index) {
            return Vec::new();
        }
        let (from, to) = (self.position(start), self.position(end));
        let mut size = 0;
        let fits = |entry: &&Entry| {
            let first = size == 0;
            size += weight(entry);
            first || size <= max_bytes
        };
        self.entries.range(from..to.max(from)).take_while(fits).cloned().collect()
    }

    /// What the entries after `after` up to `upto` weigh.
    pub(super) fn bytes_between(&self, after: u64, upto: u64) -> u64 {
        let (from, to) = (self.position(after + 1), self.position(upto + 1));
        self.entries.range(from..to.max(from)).map(weight).sum()
    }

    /// The last entry that may go, where of those up to `upto` so many entries and so many bytes are to
    /// be kept at the most.
    pub(super) fn surplus(&self, upto: u64, max_entries: usize, max_bytes: u64) -> Option<u64> {
        let mut size = 0;
        let fits = |entry: &&Entry| {
            size += weight(entry);
            size <= max_bytes
        };
        let to = self.position(upto + 1);
        let kept = self.entries.range(..to).rev().take(max_entries).take_while(fits).count();
        Some(self.entries.get((to - kept).checked_sub(1)?)?.log_id.index)
    }

    /// Where the first entry at or after this index stands in the deque.
    fn position(&self, index: u64) -> usize {
        let first = self.entries.front().map_or(0, |entry| entry.log_id.index);
        usize::try_from(index.saturating_sub(first)).map_or(self.entries.len(), |at| at.min(self.entries.len()))
    }
}

#[cfg(test)]
mod tests {
    use wardlock_wire::raft::LogPos;

    use super::*;
    use crate::raft::types::{Proposal, pos_from_wire};

    fn entry(index: u64, len: usize) -> Entry {
        let payload = EntryPayload::Normal(Proposal(vec![0; len].into()));
        Entry { log_id: pos_from_wire(LogPos { term: 1, index }), payload }
    }

    fn indices(entries: &[Entry]) -> Vec<u64> {
        entries.iter().map(|entry| entry.log_id.index).collect()
    }

    fn filled() -> State {
        let mut state = State::default();
        state.append((5..10).map(|index| entry(index, 100)));
        state
    }

    #[test]
    fn holes_and_overwrites_are_refused() {
        let mut state = filled();
        assert!(state.check_append(&[entry(10, 1), entry(11, 1)]).is_ok());
        assert!(state.check_append(&[entry(11, 1)]).is_err());
        assert!(state.check_append(&[entry(9, 1)]).is_err());
        assert!(state.check_append(&[entry(10, 1), entry(12, 1)]).is_err());
        state.purge(pos_from_wire(LogPos { term: 1, index: 20 }));
        assert!(state.check_append(&[entry(10, 1)]).is_err());
        assert!(state.check_append(&[entry(21, 1)]).is_ok());
    }

    #[test]
    fn reads_are_bounded_in_bytes_but_never_empty() {
        let state = filled();
        let two = 2 * weight(&entry(0, 100));
        assert_eq!(indices(&state.read_some(6, 100, two)), [6, 7]);
        assert_eq!(indices(&state.read_some(6, 7, two)), [6]);
        assert_eq!(indices(&state.read_some(6, 100, 1)), [6]);
        assert!(state.read_some(4, 100, two).is_empty(), "what was asked for is gone");
        assert!(state.read_some(10, 100, two).is_empty());
        assert_eq!(indices(&state.read(0..=6)), [5, 6]);
        assert_eq!(indices(&state.read(8..)), [8, 9]);
        assert!(state.read(8..8).is_empty());
    }

    #[test]
    fn bytes_return_to_zero() {
        let mut state = filled();
        state.truncate(8);
        state.truncate(8);
        assert_eq!(state.entries.len(), 3);
        state.purge(pos_from_wire(LogPos { term: 1, index: 7 }));
        state.purge(pos_from_wire(LogPos { term: 1, index: 6 }));
        assert_eq!((state.bytes(), state.entries.len()), (0, 0));
        assert_eq!(state.last().map(|last| last.index), Some(7));
    }

    #[test]
    fn what_is_to_be_kept_is_bounded_in_entries_and_in_bytes() {
        let entry = |index| Entry {
            log_id: pos_from_wire(LogPos { term: 1, index }),
            payload: EntryPayload::Normal(Proposal(vec![0; 100].into())),
        };
        let each = ENTRY_BYTES + 100;
        let mut state = State::default();
        assert_eq!((state.surplus(9, 4, each), state.bytes_between(0, 9)), (None, 0), "nothing is there");
        state.append((11..=20).map(entry));
        assert_eq!(state.surplus(18, 4, u64::MAX), Some(14), "15 to 18 stay, and what follows");
        assert_eq!(state.surplus(18, 4, each * 2), Some(16), "17 and 18 stay");
        assert_eq!(state.surplus(18, 4, 0), Some(18));
        assert_eq!(state.surplus(40, 4, u64::MAX), Some(16));
        assert_eq!(state.surplus(18, 8, u64::MAX), None, "none is too many");
        assert_eq!(state.surplus(10, 0, 0), None, "what the snapshot covers is gone already");
        assert_eq!(state.bytes_between(15, 18), each * 3);
        assert_eq!(state.bytes_between(0, 40), each * 10);
        assert_eq!(state.bytes_between(18, 15), 0);
    }
}
