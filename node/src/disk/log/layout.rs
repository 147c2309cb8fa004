//! Which rows hold whose entries: decides what may be deleted and what must move.
//!
//! Pure bookkeeping, fed with the same records in the same order when rows are written and when they
//! are read back.
//!
//! # Invariants
//! 1. Rows are deleted oldest first, so that a truncation or a removal outlives every entry it undoes.
//! 2. A row is deleted only when no group has a live entry in it.
//! 3. A reset moves all live entries of its group to the newest row.
//! 4. A group's runs follow each other without a gap: a purge past the end drops all before it. While rows are
//!    read back this holds from the purge point on, and the entries below it are dropped in the end.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

use wardlock_placement::GroupId;

/// Consecutive live entries of one group in one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) row: u64,
    pub(super) first: u64,
    pub(super) last: u64,
    bytes: u64,
}

impl Run {
    /// Cuts the run to these indices and answers the bytes that it lost.
    fn cut(&mut self, first: u64, last: u64) -> u64 {
        let (kept, had) = (last - first + 1, self.last - self.first + 1);
        let bytes = (u128::from(self.bytes) * u128::from(kept) / u128::from(had)) as u64;
        let lost = self.bytes - bytes;
        *self = Run { row: self.row, first, last, bytes };
        lost
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Row {
    bytes: u64,
    live_runs: u32,
}

/// The rows on disk and the runs in them.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// Key of the oldest row.
    oldest: u64,
    rows: VecDeque<Row>,
    groups: BTreeMap<GroupId, VecDeque<Run>>,
    disk_bytes: u64,
    live_bytes: u64,
}

impl Layout {
    /// An empty layout whose first row will have this key.
    pub(super) fn starting_at(row: u64) -> Layout {
        Layout { oldest: row, ..Layout::default() }
    }

    /// The key of the next row.
    pub(super) fn next_row(&self) -> u64 {
        self.oldest + self.rows.len() as u64
    }

    pub(super) fn row_count(&self) -> usize {
        self.rows.len()
    }

    /// Bytes of all rows, the dead in them too.
    pub(super) fn disk_bytes(&self) -> u64 {
        self.disk_bytes
    }

    /// Bytes of live entries, roughly: a run that is cut shares its bytes evenly.
    pub(super) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// The last live index of a group.
    pub(super) fn last(&self, group: GroupId) -> Option<u64> {
        self.groups.get(&group)?.back().map(|run| run.last)
    }

    /// The group's runs, oldest first.
    pub(super) fn runs(&self, group: GroupId) -> impl Iterator<Item = Run> + '_ {
        self.groups.get(&group).into_iter().flatten().copied()
    }

    /// Whether the group's live entries have no more than so many bytes.
    pub(super) fn is_within(&self, group: GroupId, bytes: u64) -> bool {
        self.runs(group).try_fold(bytes, |left, run| left.checked_sub(run.bytes)).is_some()
    }

    /// Adds the row that the following records belong to.
    pub(super) fn push_row(&mut self) {
        self.rows.push_back(Row::default());
    }

    /// The size of the newest row, known once it is sealed.
    pub(super) fn seal_row(&mut self, bytes: u64) {
        self.newest().bytes = bytes;
        self.disk_bytes += bytes;
    }

    /// Entries in the newest row.
    pub(super) fn append(&mut self, group: GroupId, first: u64, count: u64, bytes: u64) {
        if count == 0 {
            return;
        }
        let (row, last) = (self.next_row() - 1, first + count - 1);
        self.live_bytes += bytes;
        let runs = self.groups.entry(group).or_default();
        match runs.back_mut() {
            Some(run) if run.row == row && run.last + 1 == first => {
                run.last = last;
                run.bytes += bytes;
            }
            _ => {
                runs.push_back(Run { row, first, last, bytes });
                self.newest().live_runs += 1;
            }
        }
    }

    /// Drops the group's entries from this index on.
    pub(super) fn truncate(&mut self, group: GroupId, from: u64) {
        while let Some(run) = self.groups.get_mut(&group).and_then(VecDeque::back_mut) {
            if run.last < from {
                return;
            }
            if run.first < from {
                self.live_bytes -= run.cut(run.first, from - 1);
                return;
            }
            let dead = *run;
            self.groups.get_mut(&group).and_then(VecDeque::pop_back);
            self.release(dead);
        }
    }

    /// Drops the group's entries below this index.
    pub(super) fn purge(&mut self, group: GroupId, floor: u64) {
        while let Some(run) = self.groups.get_mut(&group).and_then(VecDeque::front_mut) {
            if run.first >= floor {
                return;
            }
            if run.last >= floor {
                self.live_bytes -= run.cut(floor, run.last);
                return;
            }
            let dead = *run;
            self.groups.get_mut(&group).and_then(VecDeque::pop_front);
            self.release(dead);
        }
    }

    /// Drops all that the group has.
    pub(super) fn forget(&mut self, group: GroupId) {
        for run in self.groups.remove(&group).into_iter().flatten() {
            self.release(run);
        }
    }

    /// The groups that hold the oldest row back.
    pub(super) fn holders_of_oldest(&self) -> Vec<GroupId> {
        let holds = |runs: &VecDeque<Run>| runs.front().is_some_and(|run| run.row == self.oldest);
        self.groups.iter().filter(|(_, runs)| holds(runs)).map(|(group, _)| *group).collect()
    }

    /// Forgets the oldest rows that no group needs, so many at the most, and answers their keys (invariants 1
    /// and 2). The newest row stays, so that keys go on rising after a restart.
    pub(super) fn take_dead(&mut self, most: usize) -> Range<u64> {
        let start = self.oldest;
        let fewest = self.rows.len().saturating_sub(most).max(1);
        while self.rows.len() > fewest
            && let Some(row) = self.rows.front()
            && row.live_runs == 0
        {
            self.disk_bytes -= row.bytes;
            self.rows.pop_front();
            self.oldest += 1;
        }
        start..self.oldest
    }

    fn release(&mut self, run: Run) {
        self.live_bytes -= run.bytes;
        let row = &mut self.rows[(run.row - self.oldest) as usize];
        assert!(row.live_runs > 0, "invariant 2: row {} lost more runs than it had", run.row);
        row.live_runs -= 1;
    }

    fn newest(&mut self) -> &mut Row {
        self.rows.back_mut().expect("a row is pushed before its records")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: GroupId = GroupId(1);
    const B: GroupId = GroupId(2);

    fn row(layout: &mut Layout, records: &[(GroupId, u64, u64)]) {
        layout.push_row();
        for (group, first, count) in records {
            layout.append(*group, *first, *count, count * 10);
        }
        layout.seal_row(100);
    }

    #[test]
    fn a_row_goes_only_when_no_group_needs_it_and_no_older_row_is_left() {
        let mut layout = Layout::starting_at(1);
        row(&mut layout, &[(A, 0, 2), (B, 0, 1)]);
        row(&mut layout, &[(A, 2, 2)]);
        row(&mut layout, &[(A, 4, 1)]);
        layout.purge(A, 4);
        assert_eq!(layout.take_dead(9), 1..1, "group 2 holds row 1, and row 2 must not go before it");
        assert_eq!(layout.holders_of_oldest(), [B]);
        layout.purge(B, 1);
        assert_eq!(layout.take_dead(1), 1..2);
        assert_eq!(layout.take_dead(9), 2..3);
        assert_eq!((layout.next_row(), layout.row_count()), (4, 1));
        assert_eq!((layout.disk_bytes(), layout.live_bytes()), (100, 10));
    }

    #[test]
    fn truncation_cuts_a_run_and_forgetting_frees_all() {
        let mut layout = Layout::starting_at(1);
        row(&mut layout, &[(A, 0, 4)]);
        row(&mut layout, &[(A, 4, 4)]);
        layout.truncate(A, 2);
        assert_eq!(layout.last(A), Some(1));
        assert_eq!(layout.live_bytes(), 20);
        row(&mut layout, &[(A, 2, 1)]);
        layout.truncate(A, 2);
        layout.push_row();
        layout.append(A, 2, 1, 10);
        assert_eq!(
            layout.runs(A).map(|run| (run.row, run.first, run.last)).collect::<Vec<_>>(),
            [(1, 0, 1), (4, 2, 2)]
        );
        layout.forget(A);
        assert_eq!(layout.live_bytes(), 0);
        assert_eq!(layout.take_dead(9), 1..4);
    }

    #[test]
    fn the_newest_row_stays() {
        let mut layout = Layout::starting_at(7);
        row(&mut layout, &[]);
        assert_eq!(layout.take_dead(9), 7..7);
        assert_eq!(layout.next_row(), 8);
    }
}
