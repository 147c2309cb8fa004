//! The log's promises one by one: order, visibility, restarts, bounded disk use, damage, failure.

mod log_support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use log_support::*;
use openraft::{
    RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
    type_config::TypeConfigExt,
};
use redb::{Database, ReadableTable, TableDefinition};
use wardlock::{
    disk::{
        log::{JournalError, OpenError, Options, SharedLog},
        snapshots::{SnapshotError, Snapshots},
    },
    raft::types::Types,
};
use wardlock_placement::GroupId;
use wardlock_wire::raft::{LogPos, Members, SnapshotMeta};

const PAGE: usize = 4096;
const A: GroupId = GroupId(1);
const B: GroupId = GroupId(2);
const ROWS: TableDefinition<'static, u64, &'static [u8]> = TableDefinition::new("rows");
const MARKS: TableDefinition<'static, u32, &'static [u8]> = TableDefinition::new("marks");

/// Closes the log, lets its writer end, and opens it again.
async fn restart(log: SharedLog, disk: &MemDisk, options: Options) -> SharedLog {
    drop(log);
    tokio::time::sleep(Duration::from_millis(1)).await;
    start(disk, options)
}

#[test]
fn a_restart_finds_what_was_written() {
    paused(async {
        let disk = MemDisk::default();
        let log = start(&disk, small());
        let (mut a, mut b) = (log.group(A), log.group(B));
        a.save_vote(&vote(3)).await.unwrap();
        append(&mut a, (0..10).map(|index| entry(1, index, 50)).collect()).await.unwrap();
        a.truncate_after(Some(id(1, 6))).await.unwrap();
        append(&mut a, vec![entry(3, 7, 10), entry(3, 8, 0)]).await.unwrap();
        a.purge(id(1, 2)).await.unwrap();
        a.save_committed(Some(id(3, 7))).await.unwrap();
        b.purge(id(4, 100)).await.unwrap();
        append(&mut b, vec![entry(4, 101, 5)]).await.unwrap();
        let before = (view(&mut a).await, view(&mut b).await);
        assert_eq!(indices(&before.0), [3, 4, 5, 6, 7, 8]);
        assert_eq!(before.0.entries[4], entry(3, 7, 10));
        let bytes = log.bytes();
        assert_eq!(bytes, a.bytes() + b.bytes());
        drop((a, b));

        let log = restart(log, &disk, small()).await;
        let (mut a, mut b) = (log.group(A), log.group(B));
        assert_eq!((view(&mut a).await, view(&mut b).await), before);
        assert_eq!(a.read_committed().await.unwrap(), Some(id(3, 7)), "written when the log closed");
        assert_eq!(log.bytes(), bytes);
        assert_eq!(log.groups(), [A, B]);
    });
}

#[test]
fn entries_are_readable_before_they_are_durable_and_votes_only_after() {
    paused(async {
        let (log, writer) = open(&MemDisk::default(), small()).unwrap();
        let mut a = log.group(A);
        let (done, mut durable) = Types::oneshot();
        a.append(vec![entry(1, 0, 8)], IOFlushed::signal(done)).await.unwrap();
        assert_eq!(a.try_get_log_entries(0..5).await.unwrap(), [entry(1, 0, 8)]);
        let mut voter = a.clone();
        let saving = tokio::spawn(async move { voter.save_vote(&vote(2)).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!saving.is_finished() && durable.try_recv().is_err());
        assert_eq!(a.read_vote().await.unwrap(), None, "a vote that is not durable must not be seen");
        tokio::spawn(writer.run());
        saving.await.unwrap().unwrap();
        assert_eq!(a.read_vote().await.unwrap(), Some(vote(2)));
        assert!(durable.await.unwrap().is_ok());
    });
}

#[test]
fn all_groups_share_one_commit() {
    paused(async {
        let (log, writer) = open(&MemDisk::default(), small()).unwrap();
        let mut waits = Vec::new();
        for group in 0..50 {
            let (done, durable) = Types::oneshot();
            log.group(GroupId(group)).append(vec![entry(1, 0, 8)], IOFlushed::signal(done)).await.unwrap();
            waits.push(durable);
        }
        tokio::spawn(writer.run());
        for durable in waits {
            durable.await.unwrap().unwrap();
        }
        let stats = log.stats();
        assert_eq!((stats.commits, stats.entries, stats.rows), (1, 50, 1));
    });
}

#[test]
fn append_waits_for_room_and_nothing_else_does() {
    paused(async {
        let (log, writer) = open(&MemDisk::default(), Options { queue_bytes: 10_000, ..small() }).unwrap();
        let mut a = log.group(A);
        a.append(vec![entry(1, 0, 50_000)], IOFlushed::noop()).await.unwrap();
        let mut behind = log.group(B);
        let waiting = tokio::spawn(async move { append(&mut behind, vec![entry(1, 0, 10)]).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!waiting.is_finished());
        a.truncate_after(None).await.unwrap();
        a.purge(id(1, 5)).await.unwrap();
        a.save_committed(Some(id(1, 5))).await.unwrap();
        tokio::spawn(writer.run());
        waiting.await.unwrap().unwrap();
    });
}

#[test]
fn an_append_that_leaves_a_hole_is_refused_and_changes_nothing() {
    paused(async {
        let log = start(&MemDisk::default(), small());
        let mut a = log.group(A);
        append(&mut a, vec![entry(1, 0, 1)]).await.unwrap();
        assert!(append(&mut a, vec![entry(1, 2, 1)]).await.is_err());
        assert!(append(&mut a, vec![entry(1, 0, 1)]).await.is_err());
        append(&mut a, vec![entry(1, 1, 1)]).await.unwrap();
        assert_eq!(indices(&view(&mut a).await), [0, 1]);
    });
}

/// A group idles on old rows while another writes without end. Its tail lies in newer rows than its
/// head, so a move that took only the old row's part would lose or disorder it.
#[test]
fn disk_use_is_bounded_and_idle_groups_move_whole() {
    paused(async {
        let options = Options { max_rows: 16, slack_bytes: 64 << 10, ..small() };
        let disk = MemDisk::default();
        let log = start(&disk, options.clone());
        let (mut a, mut b) = (log.group(A), log.group(B));
        a.save_vote(&vote(9)).await.unwrap();
        append(&mut a, vec![entry(1, 0, 100), entry(1, 1, 100)]).await.unwrap();
        let (mut rows, mut row_bytes, mut size) = (0, 0, 0);
        for index in 0..1_500 {
            append(&mut b, vec![entry(1, index, 1_000)]).await.unwrap();
            if index >= 5 {
                b.purge(id(1, index - 5)).await.unwrap();
            }
            match index {
                3 => append(&mut a, vec![entry(2, 2, 100), entry(2, 3, 100)]).await.unwrap(),
                4 => a.truncate_after(Some(id(2, 2))).await.unwrap(),
                5 => append(&mut a, vec![entry(3, 3, 70)]).await.unwrap(),
                6 => a.purge(id(1, 0)).await.unwrap(),
                _ => {}
            }
            let stats = log.stats();
            (rows, row_bytes) = (rows.max(stats.rows), row_bytes.max(stats.row_bytes));
            size = size.max(disk.size());
        }
        assert!(log.stats().resets >= 10, "{:?}", log.stats());
        assert!(rows <= 18 && row_bytes <= 128 << 10, "{rows} rows of {row_bytes} bytes");
        assert!(size < 8 << 20, "the file grew to {size} bytes");
        let before = (view(&mut a).await, view(&mut b).await);
        assert_eq!(before.0.entries, [entry(1, 1, 100), entry(2, 2, 100), entry(3, 3, 70)]);
        drop((a, b));
        let log = restart(log, &disk, options).await;
        assert_eq!((view(&mut log.group(A)).await, view(&mut log.group(B)).await), before);
        assert_eq!(before.0.vote, Some(vote(9)), "the vote outlives every row");
    });
}

#[test]
fn dead_bytes_move_idle_groups_too() {
    paused(async {
        let options = Options { slack_bytes: 64 << 10, ..small() };
        let disk = MemDisk::default();
        let log = start(&disk, options);
        let (mut a, mut b) = (log.group(A), log.group(B));
        append(&mut a, vec![entry(1, 0, 100)]).await.unwrap();
        for index in 0..200 {
            append(&mut b, vec![entry(1, index, 10_000)]).await.unwrap();
            b.purge(id(1, index)).await.unwrap();
            assert!(log.stats().row_bytes < 100 << 10, "{:?}", log.stats());
        }
        assert_eq!(indices(&view(&mut a).await), [0]);
    });
}

/// Its next snapshot frees a busy group's rows for nothing.
#[test]
fn a_group_with_much_is_moved_only_when_it_is_late() {
    paused(async {
        let options = Options { slack_bytes: 64 << 10, ..small() };
        let disk = MemDisk::default();
        let log = start(&disk, options);
        let (mut a, mut b) = (log.group(A), log.group(B));
        for index in 0..12 {
            append(&mut a, vec![entry(1, index, 100_000)]).await.unwrap();
        }
        let live = log.stats().row_bytes;
        for index in 0..400 {
            append(&mut b, vec![entry(1, index, 10_000)]).await.unwrap();
            b.purge(id(1, index)).await.unwrap();
            let stats = log.stats();
            let dead = stats.row_bytes.saturating_sub(live);
            assert!(dead < 2 * live + ((9 * 64) << 10), "it is never moved: {stats:?}");
            assert!(stats.resets == 0 || index > 150, "at {index}: {stats:?}");
        }
        assert_eq!(log.stats().resets, 2, "one for each 1.7 MB that died");
        assert_eq!(indices(&view(&mut a).await).len(), 12);
    });
}

#[test]
fn a_committed_position_never_points_past_the_log_on_disk() {
    paused(async {
        let disk = MemDisk::default();
        let log = start(&disk, small());
        let mut a = log.group(A);
        append(&mut a, vec![entry(1, 0, 1)]).await.unwrap();
        a.save_committed(Some(id(1, 1))).await.unwrap();
        a.save_vote(&vote(1)).await.unwrap();
        let image = MemDisk::with(disk.bytes());
        assert_eq!(start(&image, small()).group(A).read_committed().await.unwrap(), None);
        append(&mut a, vec![entry(1, 1, 1)]).await.unwrap();
        let image = MemDisk::with(disk.bytes());
        assert_eq!(start(&image, small()).group(A).read_committed().await.unwrap(), Some(id(1, 1)));
    });
}

#[test]
fn a_disk_error_is_fatal_and_confirms_nothing() {
    paused(async {
        let disk = MemDisk::default();
        let told = Arc::new(Mutex::new(Vec::new()));
        let on_fatal = {
            let told = Arc::clone(&told);
            Arc::new(move |why: &str| told.lock().unwrap().push(why.to_string()))
        };
        let (log, writer) = SharedLog::open(disk.clone(), small(), on_fatal).unwrap();
        let writer = tokio::spawn(writer.run());
        let mut a = log.group(A);
        append(&mut a, vec![entry(1, 0, 1)]).await.unwrap();
        disk.fail_after(disk.count() + 1);
        let (done, durable) = Types::oneshot();
        a.append(vec![entry(1, 1, 1)], IOFlushed::signal(done)).await.unwrap();
        assert!(a.save_vote(&vote(1)).await.is_err());
        assert!(durable.await.unwrap().is_err());
        assert!(append(&mut a, vec![entry(1, 2, 1)]).await.is_err());
        assert!(a.save_vote(&vote(2)).await.is_err());
        assert_eq!(a.read_vote().await.unwrap(), None);
        writer.await.unwrap();
        let told = told.lock().unwrap();
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("Input/output error"), "{told:?}");
    });
}

#[test]
fn nobody_waits_for_a_writer_that_is_gone() {
    paused(async {
        let (log, writer) = open(&MemDisk::default(), small()).unwrap();
        let mut a = log.group(A);
        let (done, durable) = Types::oneshot();
        a.append(vec![entry(1, 0, 1)], IOFlushed::signal(done)).await.unwrap();
        drop(writer);
        assert!(durable.await.unwrap().is_err());
        assert!(a.save_vote(&vote(1)).await.is_err());
    });
}

#[test]
fn a_snapshot_must_cover_what_was_purged() {
    paused(async {
        let log = start(&MemDisk::default(), small());
        let snapshots = Snapshots::open(MemDisk::default(), 1 << 20).unwrap();
        let save = |index| {
            let last = Some(LogPos { term: 1, index });
            snapshots.save(A, &SnapshotMeta { last, members_at: None, members: Members::default() }, b"state").unwrap();
        };
        let mut a = log.group(A);
        append(&mut a, (0..10).map(|index| entry(1, index, 1)).collect()).await.unwrap();
        snapshots.check_cover(&log).unwrap();
        a.purge(id(1, 5)).await.unwrap();
        assert!(matches!(snapshots.check_cover(&log), Err(SnapshotError::TooOld { purged: 5, found: None, .. })));
        save(4);
        assert!(matches!(snapshots.check_cover(&log), Err(SnapshotError::TooOld { found: Some(4), .. })));
        save(5);
        snapshots.check_cover(&log).unwrap();
    });
}

/// Two groups, three rows, marks; closed cleanly.
async fn sample() -> MemDisk {
    let disk = MemDisk::default();
    let log = start(&disk, small());
    let (mut a, mut b) = (log.group(A), log.group(B));
    a.save_vote(&vote(3)).await.unwrap();
    append(&mut a, vec![entry(1, 0, 3_000), entry(1, 1, 3_000)]).await.unwrap();
    append(&mut b, vec![entry(1, 0, 3_000)]).await.unwrap();
    append(&mut a, vec![entry(1, 2, 3_000)]).await.unwrap();
    drop((a, b, log));
    tokio::time::sleep(Duration::from_millis(1)).await;
    disk
}

/// Changes the database, which lies behind the header and the journal.
fn tamper(disk: &MemDisk, change: impl FnOnce(&redb::WriteTransaction)) {
    let offset = (1 + JOURNAL_PAGES as usize) * PAGE;
    let behind = MemDisk::with(disk.bytes()[offset..].to_vec());
    let db = Database::builder().create_with_backend(behind.clone()).unwrap();
    let txn = db.begin_write().unwrap();
    change(&txn);
    txn.commit().unwrap();
    db.close().unwrap();
    disk.put(offset as u64, &behind.bytes());
}

fn refusal(disk: &MemDisk) -> OpenError {
    open(disk, small()).err().expect("a damaged log must not open")
}

#[test]
fn damaged_and_missing_rows_are_named() {
    let flip = |row: u64| {
        move |txn: &redb::WriteTransaction| {
            let mut rows = txn.open_table(ROWS).unwrap();
            let mut value = rows.get(row).unwrap().unwrap().value().to_vec();
            value[200] ^= 4;
            rows.insert(row, value.as_slice()).unwrap();
        }
    };
    let remove =
        |row: u64| move |txn: &redb::WriteTransaction| drop(txn.open_table(ROWS).unwrap().remove(row).unwrap());

    let disk = paused(sample());
    tamper(&disk, flip(2));
    let error = refusal(&disk);
    assert!(matches!(error, OpenError::Row { row: 2, .. }), "{error}");
    assert!(error.to_string().contains("row 2 of log.db"), "{error}");

    let disk = paused(sample());
    tamper(&disk, remove(2));
    assert!(matches!(refusal(&disk), OpenError::MissingRow { expected: 2, found: 3 }));

    let disk = paused(sample());
    tamper(&disk, remove(1));
    assert!(matches!(refusal(&disk), OpenError::Hole { group: A, expected: 0, found: 2 }));

    let disk = paused(sample());
    tamper(&disk, |txn| {
        let mut marks = txn.open_table(MARKS).unwrap();
        let mut value = marks.get(1).unwrap().unwrap().value().to_vec();
        value[1] ^= 1;
        marks.insert(1, value.as_slice()).unwrap();
    });
    assert!(matches!(refusal(&disk), OpenError::Marks { group: A, .. }));

    let disk = paused(sample());
    let format = TableDefinition::<&'static str, u64>::new("format");
    tamper(&disk, |txn| drop(txn.open_table(format).unwrap().insert("log", 2).unwrap()));
    assert!(matches!(refusal(&disk), OpenError::Format { found: 2 }));
}

#[test]
fn rows_wait_in_the_journal_and_a_crash_finds_them_there() {
    paused(async {
        let disk = MemDisk::default();
        let log = start(&disk, journaled());
        let mut a = log.group(A);
        a.save_vote(&vote(3)).await.unwrap();
        let (mut index, settled, before) = (0, disk.bytes(), disk.count());
        for _ in 0..8 {
            append(&mut a, vec![entry(1, index, 700)]).await.unwrap();
            index += 1;
        }
        let offset = (1 + JOURNAL_PAGES as usize) * PAGE;
        assert_eq!(disk.bytes()[offset..], settled[offset..], "the database is as it was");
        assert_eq!(disk.count() - before, 16, "a write and a sync for each commit");
        let crashed = MemDisk::with(disk.bytes());
        let found = start(&crashed, journaled());
        let mut recovered = found.group(A);
        assert_eq!(view(&mut recovered).await, view(&mut a).await);
        // Both go on: over the old rows, through the end of the journal, and once more.
        for (log, disk) in [(log, disk), (found, crashed)] {
            let mut group = log.group(A);
            for (next, round) in (index..).zip(0..50) {
                append(&mut group, vec![entry(2, next, round * 97)]).await.unwrap();
                let image = MemDisk::with(disk.bytes());
                let (again, _writer) = open(&image, journaled()).unwrap();
                assert_eq!(view(&mut again.group(A)).await, view(&mut group).await, "round {round}");
            }
        }
    });
}

#[test]
fn a_damaged_row_of_the_journal_is_noticed_unless_it_is_the_last() {
    let disk = paused(async {
        let disk = MemDisk::default();
        let log = start(&disk, journaled());
        let mut a = log.group(A);
        for index in 0..3 {
            append(&mut a, vec![entry(1, index, 5_000)]).await.unwrap();
        }
        MemDisk::with(disk.bytes())
    });
    // Each row takes two pages; its record begins with 28 bytes of its own.
    for (row, at) in [(1, 0), (1, 16), (1, 24), (1, 300), (2, 0), (2, 16), (2, 25), (2, PAGE + 9)] {
        let image = MemDisk::with(disk.bytes());
        let at = PAGE * (2 * row - 1) + at;
        image.put(at as u64, &[disk.bytes()[at] ^ 0x10]);
        let error = refusal(&image);
        assert!(matches!(error, OpenError::Journal(JournalError::Damaged { .. })), "row {row}, byte {at}: {error}");
        assert!(error.to_string().contains("damaged or missing in its journal"), "{error}");
    }
    let image = MemDisk::with(disk.bytes());
    image.put(PAGE as u64 * 5 + 400, &[0xff]);
    paused(async {
        let (log, _writer) = open(&image, journaled()).unwrap();
        assert_eq!(indices(&view(&mut log.group(A)).await), [0, 1], "it looks like a commit that never finished");
    });
}

#[test]
fn a_database_that_is_cut_off_or_older_than_its_journal_is_refused() {
    let (older, whole) = paused(async {
        let disk = MemDisk::default();
        let log = start(&disk, journaled());
        let mut a = log.group(A);
        let older = disk.bytes();
        a.save_vote(&vote(3)).await.unwrap();
        append(&mut a, vec![entry(1, 0, 10)]).await.unwrap();
        (older, disk.bytes())
    });
    let offset = (1 + JOURNAL_PAGES as usize) * PAGE;
    let cut = MemDisk::with(whole[..offset].to_vec());
    assert!(matches!(refusal(&cut), OpenError::Journal(JournalError::Header(_))));
    // The journal's row stands on a vote that the database has lost.
    let behind = MemDisk::with(older);
    behind.put(0, &whole[..offset]);
    assert!(matches!(refusal(&behind), OpenError::Journal(JournalError::DatabaseBehind { .. })));
}

#[test]
fn a_file_that_is_no_log_is_refused() {
    let refused = |bytes: Vec<u8>, why: &str| {
        let error = refusal(&MemDisk::with(bytes)).to_string();
        assert!(error.contains(why) && error.contains("log.db"), "{error}");
    };
    let database = MemDisk::default();
    Database::builder().create_with_backend(database.clone()).unwrap().close().unwrap();
    refused(database.bytes(), "it is not a log's");
    refused(vec![7; 10], "beyond the end");
    let whole = empty_log();
    for at in 8..24 {
        let mut header = whole.clone();
        header[at] ^= 1;
        refused(header, "its checksum is wrong");
    }
}

#[test]
fn the_writer_runs_on_a_thread_over_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let (log, writer) = SharedLog::open_dir(dir.path(), small(), never()).unwrap();
    let thread = writer.spawn_thread().unwrap();
    assert!(SharedLog::open_dir(dir.path(), small(), never()).is_err(), "the file is locked");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let writers = (0..8).map(|group| {
            let mut log = log.group(GroupId(group));
            tokio::spawn(async move {
                log.save_vote(&vote(1)).await.unwrap();
                for index in 0..20 {
                    append(&mut log, vec![entry(1, index, 200)]).await.unwrap();
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
    });
    let stats = log.stats();
    assert!(stats.entries == 160 && stats.commits < 168, "{stats:?}");
    log.close();
    thread.join().unwrap();
    let (log, _writer) = SharedLog::open_dir(dir.path(), small(), never()).unwrap();
    for group in 0..8 {
        assert_eq!(paused(view(&mut log.group(GroupId(group)))).entries.len(), 20);
        assert_eq!(log.group(GroupId(group)).vote(), Some(vote(1)));
    }
}
