//! One group's view of the log, as the consensus library wants it.

use std::{fmt::Debug, io, ops::RangeBounds, sync::Arc};

use openraft::{
    LogState, OptionalSend, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
};
use tokio::sync::oneshot;
use wardlock_machine::planted;
use wardlock_placement::GroupId;

use super::{
    Handle,
    queue::{Group, Op, Queued, closed},
    state::{State, weight},
};
use crate::{
    disk::locked,
    raft::types::{Entry, LogId, Types, Vote},
};

/// What one read for replication may answer, in bytes.
const READ_BYTES: u64 = 1 << 20;

/// A group's log: cheap to clone, readable by all clones at once. Writes are one caller's, in order,
/// as the consensus library makes them.
#[derive(Clone)]
pub struct GroupLog {
    pub(super) handle: Arc<Handle>,
    pub(super) group: Arc<Group>,
}

impl GroupLog {
    /// Whose log it is.
    pub fn id(&self) -> GroupId {
        self.group.id
    }

    /// Live entries, in bytes of memory.
    pub fn bytes(&self) -> u64 {
        locked(&self.group.state).bytes()
    }

    /// What the live entries after `after` up to `upto` weigh. Looks at each of them.
    pub fn bytes_between(&self, after: u64, upto: u64) -> u64 {
        locked(&self.group.state).bytes_between(after, upto)
    }

    /// The last entry that may be purged, where of those up to `upto` so many entries and so many bytes
    /// are to be kept at the most; none if there are no more than that. Looks at those that stay.
    pub fn surplus(&self, upto: u64, max_entries: usize, max_bytes: u64) -> Option<u64> {
        locked(&self.group.state).surplus(upto, max_entries, max_bytes)
    }

    /// The last vote that is durable, for callers that cannot wait.
    pub fn vote(&self) -> Option<Vote> {
        locked(&self.group.state).vote
    }

    /// Everything up to here is gone; the group's snapshot must cover it.
    pub fn purged(&self) -> Option<LogId> {
        locked(&self.group.state).purged
    }

    /// Queues an operation and changes the memory with it, or neither.
    fn change(&self, space: u32, op: Op, change: impl FnOnce(&mut State)) -> io::Result<()> {
        let mut state = locked(&self.group.state);
        if let Op::Append { entries, .. } = &op {
            state.check_append(entries)?;
        }
        self.handle.queue.push(Queued { group: Arc::clone(&self.group), op, space })?;
        let before = state.bytes();
        change(&mut state);
        let after = state.bytes();
        self.handle.queue.add_live(after.saturating_sub(before));
        self.handle.queue.sub_live(before.saturating_sub(after));
        Ok(())
    }
}

impl RaftLogReader<Types> for GroupLog {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(locked(&self.group.state).read(range))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.vote())
    }

    /// At most 1 MiB, at least one entry. A range whose start is purged or not there yet
    /// answers nothing, which the caller takes for a heartbeat.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        Ok(locked(&self.group.state).read_some(start, end, READ_BYTES))
    }
}

impl RaftLogStorage<Types> for GroupLog {
    type LogReader = GroupLog;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let state = locked(&self.group.state);
        Ok(LogState { last_purged_log_id: state.purged, last_log_id: state.last() })
    }

    async fn get_log_reader(&mut self) -> GroupLog {
        self.clone()
    }

    /// Waits for the disk. Readers see the vote from then on: the writer shows it before it wakes the
    /// caller, also if the caller has gone.
    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (done, durable) = oneshot::channel();
        if planted!("vote-not-durable") {
            return self.change(0, Op::Vote { vote: *vote, done }, |state| state.vote = Some(*vote));
        }
        self.change(0, Op::Vote { vote: *vote, done }, |_| ())?;
        durable.await.map_err(|_| closed())?
    }

    /// Needs no commit of its own: it goes with one of the next ([`super::Options::settle_every`]) or with
    /// the log's end, and until then a restart finds an older position, which is as true.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        {
            let mut state = locked(&self.group.state);
            if state.commit_queued {
                state.committed = committed;
                return Ok(());
            }
        }
        self.change(0, Op::Committed, |state| {
            state.committed = committed;
            state.commit_queued = true;
        })
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(locked(&self.group.state).committed)
    }

    /// Waits for room in the queue, not for the disk.
    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let space = self.handle.queue.reserve(entries.iter().map(weight).sum()).await?;
        let readable = entries.clone();
        let checked = locked(&self.group.state).check_append(&readable);
        let appended = checked
            .and_then(|()| self.change(space, Op::Append { entries, done: callback }, |state| state.append(readable)));
        if appended.is_err() {
            self.handle.queue.release(space);
        }
        appended
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |last| last.index + 1);
        self.change(0, Op::Truncate { from }, |state| {
            state.truncate(from);
            state.truncating += 1;
        })
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        if locked(&self.group.state).purged.is_some_and(|purged| purged.index >= upto.index) {
            return Ok(());
        }
        self.change(0, Op::Purge { upto }, |state| state.purge(upto))
    }
}
