//! The current snapshot of each group, in a file of its own so that it never holds up the log.
//!
//! A snapshot is cut into chunks, each under its own checksum; the meta row, written in the same
//! transaction, says how many there are. [`Snapshots::save`] returns when the snapshot is on disk,
//! and the log may be purged up to it only then.
//!
//! # Promises
//! 1. A group's snapshot is replaced as a whole or not at all, and never by one that reaches less far: one
//!    that was built here may be late, when another has been installed meanwhile.
//! 2. A damaged snapshot is an error that names the group, never a shorter or an older snapshot.
//!
//! All calls block; the caller keeps them off its runtime. A failed save is a disk error: the process
//! must stop.

use std::path::Path;

use bytes::Bytes;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};
use serde::{Deserialize, Serialize};
use wardlock_machine::planted;
use wardlock_placement::GroupId;
use wardlock_wire::raft::SnapshotMeta;

pub use super::log::Fault;
use super::log::{
    SharedLog,
    row::{checksum, unseal},
};

/// The snapshots' file in the data directory.
pub const FILE: &str = "snapshots.redb";

/// Data of one chunk.
const CHUNK_BYTES: usize = 256 << 10;
const VERSION: u8 = 1;

const METAS: TableDefinition<'static, u32, &'static [u8]> = TableDefinition::new("metas");
const CHUNKS: TableDefinition<'static, (u32, u32), &'static [u8]> = TableDefinition::new("chunks");

/// Why a snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The storage engine failed.
    #[error("{FILE}: {0}")]
    Database(#[source] Box<redb::Error>),
    /// A snapshot is damaged.
    #[error("the snapshot of group {group} in {FILE} cannot be used, {part}: {fault}")]
    Damaged {
        /// Whose snapshot it is.
        group: GroupId,
        /// Which part of it.
        part: String,
        /// What is wrong with it.
        fault: Fault,
    },
    /// The log was purged further than the snapshot reaches: what lies between is gone.
    #[error("the log of group {group} was purged up to entry {purged}, but its snapshot in {FILE} ends at {found:?}")]
    TooOld {
        /// Whose snapshot it is.
        group: GroupId,
        /// The log's purge point.
        purged: u64,
        /// The last entry in the snapshot; none if there is no snapshot.
        found: Option<u64>,
    },
}

impl<E: Into<redb::Error>> From<E> for SnapshotError {
    fn from(error: E) -> SnapshotError {
        SnapshotError::Database(Box::new(error.into()))
    }
}

/// What stands beside the chunks.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    meta: SnapshotMeta,
    chunks: u32,
    bytes: u64,
    /// Of the whole data: chunks of two snapshots cannot pass for one.
    crc: u32,
}

/// The node's snapshots.
#[derive(Debug)]
pub struct Snapshots {
    db: Database,
}

impl Snapshots {
    /// Opens or creates the snapshots on any storage and checks the file's structure.
    pub fn open(backend: impl StorageBackend, cache_bytes: usize) -> Result<Snapshots, SnapshotError> {
        let db = Database::builder()
            .set_cache_size(cache_bytes)
            .set_check_integrity_on_open(true)
            .create_with_backend(backend)?;
        let txn = db.begin_write()?;
        txn.open_table(METAS)?;
        txn.open_table(CHUNKS)?;
        txn.commit()?;
        Ok(Snapshots { db })
    }

    /// Opens or creates the snapshots in a data directory.
    pub fn open_dir(dir: &Path, cache_bytes: usize) -> Result<Snapshots, SnapshotError> {
        let file = super::open_file(dir, FILE, |new| {
            let new = redb::backends::FileBackend::new(new)?;
            redb::Database::builder().create_with_backend(new)?.close().map_err(SnapshotError::from)
        })?;
        Snapshots::open(redb::backends::FileBackend::new(file)?, cache_bytes)
    }

    /// Replaces the group's snapshot, unless the one there reaches as far; what stays is on disk when this
    /// returns.
    pub fn save(&self, group: GroupId, meta: &SnapshotMeta, data: &[u8]) -> Result<(), SnapshotError> {
        let chunks = data.chunks(CHUNK_BYTES);
        let too_large = |fault| SnapshotError::Damaged { group, part: "its size".into(), fault };
        let count = u32::try_from(chunks.len()).map_err(|e| too_large(Fault::Malformed(e.to_string())))?;
        let record = Record { meta: meta.clone(), chunks: count, bytes: data.len() as u64, crc: crc32c::crc32c(data) };
        let mut sealed =
            postcard::to_extend(&record, vec![VERSION]).map_err(|e| too_large(Fault::Malformed(e.to_string())))?;
        seal(u64::from(group.0), &mut sealed);

        let mut txn = self.db.begin_write()?;
        txn.set_durability(if planted!("snapshot-not-durable") { Durability::None } else { Durability::Immediate })?;
        {
            let mut metas = txn.open_table(METAS)?;
            let stored = metas.get(group.0)?.map(|value| read_record(group, value.value())).transpose()?;
            if stored.is_some_and(|stored| reach(&stored.meta) >= reach(meta)) {
                // Dropping the transaction leaves all as it was.
                return Ok(());
            }
            let mut table = txn.open_table(CHUNKS)?;
            let mut value = Vec::with_capacity(CHUNK_BYTES.min(data.len()) + 4);
            for (at, chunk) in (0..).zip(chunks) {
                value.clear();
                value.extend_from_slice(chunk);
                seal(chunk_key(group, at), &mut value);
                table.insert((group.0, at), value.as_slice())?;
            }
            table.retain_in((group.0, count)..=(group.0, u32::MAX), |_, _| false)?;
            metas.insert(group.0, sealed.as_slice())?;
        }
        txn.commit()?;
        Ok(())
    }

    /// What the group's snapshot covers.
    pub fn load_meta(&self, group: GroupId) -> Result<Option<SnapshotMeta>, SnapshotError> {
        let metas = self.db.begin_read()?.open_table(METAS)?;
        let Some(value) = metas.get(group.0)? else { return Ok(None) };
        Ok(Some(read_record(group, value.value())?.meta))
    }

    /// The group's snapshot.
    pub fn load(&self, group: GroupId) -> Result<Option<(SnapshotMeta, Bytes)>, SnapshotError> {
        let txn = self.db.begin_read()?;
        let metas = txn.open_table(METAS)?;
        let Some(value) = metas.get(group.0)? else { return Ok(None) };
        let record = read_record(group, value.value())?;
        let chunks = txn.open_table(CHUNKS)?;
        let mut data = Vec::new();
        for at in 0..record.chunks {
            let damaged = |fault| SnapshotError::Damaged { group, part: format!("chunk {at}"), fault };
            let value = chunks.get((group.0, at))?.ok_or_else(|| damaged(Fault::Short))?;
            data.extend_from_slice(unseal(chunk_key(group, at), value.value()).map_err(damaged)?);
        }
        let damaged = |fault| SnapshotError::Damaged { group, part: "as a whole".into(), fault };
        if data.len() as u64 != record.bytes {
            return Err(damaged(Fault::Short));
        }
        if crc32c::crc32c(&data) != record.crc {
            return Err(damaged(Fault::Checksum));
        }
        Ok(Some((record.meta, data.into())))
    }

    /// Checks that every group's snapshot covers what its log has purged. To be called at the start: a
    /// group that fails has lost state, and its node must not serve.
    pub fn check_cover(&self, log: &SharedLog) -> Result<(), SnapshotError> {
        for group in log.groups() {
            let Some(purged) = log.group(group).purged() else { continue };
            let found = self.load_meta(group)?.and_then(|meta| meta.last).map(|last| last.index);
            if found.is_none_or(|found| found < purged.index) {
                return Err(SnapshotError::TooOld { group, purged: purged.index, found });
            }
        }
        Ok(())
    }
}

/// What a group's sealed description says, for whoever looks into a file from outside: what the snapshot covers,
/// in how many chunks, and how many bytes it has.
pub fn inspect(group: GroupId, value: &[u8]) -> Result<(SnapshotMeta, u32, u64), SnapshotError> {
    let record = read_record(group, value)?;
    Ok((record.meta, record.chunks, record.bytes))
}

/// How far a snapshot reaches: committed entries are the same everywhere, so the last one says it all.
fn reach(meta: &SnapshotMeta) -> Option<(u64, u64)> {
    meta.last.map(|last| (last.term, last.index))
}

fn read_record(group: GroupId, value: &[u8]) -> Result<Record, SnapshotError> {
    let read = || match unseal(u64::from(group.0), value)?.split_first() {
        Some((&VERSION, body)) => postcard::from_bytes(body).map_err(|e| Fault::Malformed(e.to_string())),
        Some((&version, _)) => Err(Fault::Version(version)),
        None => Err(Fault::Short),
    };
    read().map_err(|fault| SnapshotError::Damaged { group, part: "its description".into(), fault })
}

fn chunk_key(group: GroupId, at: u32) -> u64 {
    u64::from(group.0) << 32 | u64::from(at)
}

fn seal(key: u64, value: &mut Vec<u8>) {
    let crc = checksum(key, value);
    value.extend_from_slice(&crc.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;
    use wardlock_wire::raft::{LogPos, Members};

    use super::*;

    const G: GroupId = GroupId(7);

    fn meta(index: u64) -> SnapshotMeta {
        SnapshotMeta { last: Some(LogPos { term: 2, index }), members_at: None, members: Members::default() }
    }

    fn data(seed: u8, len: usize) -> Vec<u8> {
        (0..len).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect()
    }

    fn opened() -> Snapshots {
        Snapshots::open(InMemoryBackend::new(), 1 << 20).unwrap()
    }

    #[test]
    fn a_snapshot_replaces_the_one_before_whatever_their_sizes() {
        let snapshots = opened();
        assert_eq!(snapshots.load(G).unwrap(), None);
        snapshots.save(GroupId(8), &meta(1), b"another group's").unwrap();
        for (index, len) in [(10, CHUNK_BYTES * 3 + 5), (20, 10), (30, 0), (40, CHUNK_BYTES * 2)] {
            let data = data(index as u8, len);
            snapshots.save(G, &meta(index), &data).unwrap();
            assert_eq!(snapshots.load(G).unwrap(), Some((meta(index), data.into())));
            assert_eq!(snapshots.load_meta(G).unwrap(), Some(meta(index)));
            let chunks = snapshots.db.begin_read().unwrap().open_table(CHUNKS).unwrap();
            assert_eq!(chunks.range((7, 0)..(8, 0)).unwrap().count(), len.div_ceil(CHUNK_BYTES), "stale chunks");
        }
        assert_eq!(snapshots.load(GroupId(8)).unwrap().unwrap().1, "another group's");
    }

    /// A build that is late must not undo what was installed meanwhile: the log is purged up to that.
    #[test]
    fn a_snapshot_that_reaches_less_far_does_not_replace_the_one_there() {
        let at = |term, index| SnapshotMeta { last: Some(LogPos { term, index }), ..meta(0) };
        let snapshots = opened();
        let installed = data(1, CHUNK_BYTES * 2 + 5);
        snapshots.save(G, &at(2, 50), &installed).unwrap();
        for late in [at(2, 40), at(2, 50), at(1, 60), SnapshotMeta { last: None, ..meta(0) }] {
            snapshots.save(G, &late, b"late").unwrap();
            assert_eq!(snapshots.load(G).unwrap(), Some((at(2, 50), installed.clone().into())), "{late:?}");
        }
        snapshots.save(G, &at(3, 51), b"newer").unwrap();
        assert_eq!(snapshots.load(G).unwrap(), Some((at(3, 51), "newer".into())));
    }

    /// Changes stored bytes behind the module's back.
    fn tamper(snapshots: &Snapshots, change: impl FnOnce(&redb::WriteTransaction)) {
        let txn = snapshots.db.begin_write().unwrap();
        change(&txn);
        txn.commit().unwrap();
    }

    #[test]
    fn damage_is_an_error_that_names_group_and_part() {
        let snapshots = opened();
        let mut index = 0;
        let mut save = || {
            index += 1;
            snapshots.save(G, &meta(index), &data(1, CHUNK_BYTES + 100)).unwrap();
        };
        let error = || snapshots.load(G).unwrap_err().to_string();

        save();
        tamper(&snapshots, |txn| {
            let mut chunks = txn.open_table(CHUNKS).unwrap();
            let mut value = chunks.get((7, 1)).unwrap().unwrap().value().to_vec();
            value[50] ^= 1;
            chunks.insert((7, 1), value.as_slice()).unwrap();
        });
        assert!(error().contains("group 7") && error().contains("chunk 1"), "{}", error());

        save();
        tamper(&snapshots, |txn| drop(txn.open_table(CHUNKS).unwrap().remove((7, 0)).unwrap()));
        assert!(error().contains("chunk 0"), "{}", error());

        save();
        tamper(&snapshots, |txn| {
            let mut metas = txn.open_table(METAS).unwrap();
            let mut value = metas.get(7).unwrap().unwrap().value().to_vec();
            value[3] ^= 1;
            metas.insert(7, value.as_slice()).unwrap();
        });
        assert!(error().contains("its description"), "{}", error());
        assert!(snapshots.load_meta(G).is_err());
    }
}
