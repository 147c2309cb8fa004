//! The consensus library's own storage suite against our log. It runs on one thread with a paused
//! clock and the writer as a task, which is how a simulated cluster hosts it.

mod log_support;

use std::{
    io,
    sync::{Arc, Mutex},
};

use futures_util::{Stream, TryStreamExt};
use log_support::{MemDisk, paused, small, start};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder, StorageError,
    storage::{EntryResponder, RaftStateMachine},
    testing::log::{StoreBuilder, Suite},
};
use wardlock::{
    disk::log::GroupLog,
    raft::types::{LogId, SnapshotMeta, StoredMembership, Types},
};
use wardlock_placement::GroupId;

type Snapshot = openraft::alias::SnapshotOf<Types, ()>;

#[derive(Clone, Default)]
struct Machine(Arc<Mutex<Applied>>);

#[derive(Clone, Default)]
struct Applied {
    last: Option<LogId>,
    members: StoredMembership,
    snapshot: Option<SnapshotMeta>,
}

impl RaftSnapshotBuilder<Types> for Machine {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let mut applied = self.0.lock().unwrap();
        let meta = SnapshotMeta { last_log_id: applied.last, last_membership: applied.members.clone() };
        applied.snapshot = Some(meta.clone());
        Ok(Snapshot { meta, snapshot: () })
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = ();
    type SnapshotBuilder = Machine;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let applied = self.0.lock().unwrap();
        Ok((applied.last, applied.members.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, _)) = entries.try_next().await? {
            let mut applied = self.0.lock().unwrap();
            applied.last = Some(entry.log_id);
            if let EntryPayload::Membership(members) = entry.payload {
                applied.members = StoredMembership::new(Some(entry.log_id), members);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, (): ()) -> Result<(), io::Error> {
        *self.0.lock().unwrap() =
            Applied { last: meta.last_log_id, members: meta.last_membership.clone(), snapshot: Some(meta.clone()) };
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self.0.lock().unwrap().snapshot.clone().map(|meta| Snapshot { meta, snapshot: () }))
    }
}

struct Builder;

impl StoreBuilder<Types, GroupLog, Machine> for Builder {
    async fn build(&self) -> Result<((), GroupLog, Machine), StorageError<Types>> {
        Ok(((), start(&MemDisk::default(), small()).group(GroupId(1)), Machine::default()))
    }
}

#[test]
fn the_log_passes_the_consensus_librarys_storage_suite() {
    paused(Suite::test_all(Builder)).unwrap();
}
