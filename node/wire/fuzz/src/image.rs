//! A disk in memory, and small logs on it to begin with.

use std::{
    io,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use openraft::{
    EntryPayload, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
    type_config::TypeConfigExt,
};
use redb::StorageBackend;
use wardlock::{
    disk::log::{
        GroupLog, LogWriter, OpenError, Options, SharedLog,
        inspect::{Said, write},
    },
    raft::types::{Entry, Proposal, Types, Vote, pos_from_wire, vote_from_wire},
};
use wardlock_placement::{GroupId, ReplicaId};
use wardlock_wire::raft as wire;

/// The pages of a test log's journal.
pub const JOURNAL_PAGES: u32 = 4;
/// The bytes of a page.
pub const PAGE: usize = 4096;

/// A disk in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemDisk(Arc<Mutex<Vec<u8>>>);

impl MemDisk {
    /// A disk with these bytes on it.
    pub fn with(bytes: Vec<u8>) -> MemDisk {
        MemDisk(Arc::new(Mutex::new(bytes)))
    }

    /// What is on it.
    pub fn bytes(&self) -> Vec<u8> {
        self.with_bytes(|bytes| bytes.clone())
    }

    fn with_bytes<T>(&self, work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The largest file that a test may make: what claims more is refused, as a full disk does.
const LARGEST: u64 = 64 << 20;

impl StorageBackend for MemDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.with_bytes(|bytes| bytes.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with_bytes(|bytes| {
            let found = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)?.get(..out.len()));
            out.copy_from_slice(found.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?);
            Ok(())
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if len > LARGEST {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.with_bytes(|bytes| bytes.resize(len as usize, 0));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset.saturating_add(data.len() as u64);
        if end > LARGEST {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.with_bytes(|bytes| {
            if bytes.len() < end as usize {
                bytes.resize(end as usize, 0);
            }
            bytes[offset as usize..end as usize].copy_from_slice(data);
        });
        Ok(())
    }
}

/// A log that settles every commit and moves idle groups as soon as there are two rows.
pub fn options() -> Options {
    Options {
        cache_bytes: 1 << 20,
        settle_every: 1,
        journal_pages: JOURNAL_PAGES,
        linger: Duration::ZERO,
        max_rows: 2,
        ..Options::default()
    }
}

/// Opens a log. Once it is open, its disk does not fail.
pub fn open(disk: &MemDisk, options: Options) -> Result<(SharedLog, LogWriter), OpenError> {
    SharedLog::open(disk.clone(), options, Arc::new(|why| panic!("an open log failed by itself: {why}")))
}

/// Runs to its end on one thread whose clock never waits.
pub fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime of one thread").block_on(work)
}

/// An entry with so many bytes.
pub fn entry(term: u64, index: u64, length: usize) -> Entry {
    let log_id = pos_from_wire(wire::LogPos { term, index });
    Entry { log_id, payload: EntryPayload::Normal(Proposal(vec![7; length].into())) }
}

/// The bytes of an entry.
pub fn encoded(term: u64, index: u64, length: usize) -> Vec<u8> {
    let pos = wire::LogPos { term, index };
    let entry = wire::Entry { pos, payload: wire::Payload::Data(vec![7; length].into()) };
    postcard::to_stdvec(&entry).expect("plain data encodes")
}

/// Appends and waits for the disk.
pub async fn append(log: &mut GroupLog, entries: Vec<Entry>) -> io::Result<()> {
    let (done, durable) = Types::oneshot();
    log.append(entries, IOFlushed::signal(done)).await?;
    durable.await.map_err(io::Error::other)?
}

/// What a group's log shows.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Its vote.
    pub vote: Option<Vote>,
    /// Its purge point.
    pub purged: Option<wardlock::raft::types::LogId>,
    /// Its entries.
    pub entries: Vec<Entry>,
}

/// Looks at a group's log, which must hang together.
pub async fn view(log: &mut GroupLog) -> View {
    let entries = log.try_get_log_entries(..).await.expect("memory does not fail");
    let state = log.get_log_state().await.expect("memory does not fail");
    for pair in entries.windows(2) {
        assert_eq!(pair[0].log_id.index.checked_add(1), Some(pair[1].log_id.index), "a hole in an open log");
    }
    if let (Some(purged), Some(first)) = (state.last_purged_log_id, entries.first()) {
        assert_eq!(purged.index.checked_add(1), Some(first.log_id.index), "a hole behind the purge point");
    }
    View { vote: log.read_vote().await.expect("memory does not fail"), purged: state.last_purged_log_id, entries }
}

/// A file to begin with, the salt of its journal, and the row that comes next.
pub struct Base {
    /// The file.
    pub bytes: Vec<u8>,
    /// What its journal's records begin with.
    pub salt: [u8; 8],
    /// The number of the next row.
    pub next_row: u64,
}

impl Base {
    fn of(bytes: Vec<u8>) -> Base {
        let salt = *bytes[16..].first_chunk().expect("a header");
        let mut base = Base { bytes, salt, next_row: 0 };
        // The next row is the one whose entries are found.
        let group = GroupId(0xffff);
        let is_next = |row: &u64| {
            let said = [Said::Entries { group, first: 0, entries: vec![encoded(1, 0, 1)] }];
            let disk = MemDisk::with(base.with_rows(*row, &[write(*row, &said).expect("a small row")]));
            let opened = open(&disk, options());
            opened.is_ok_and(|(log, _)| log.groups().contains(&group))
        };
        base.next_row = (1..1000).find(is_next).expect("some row is the next");
        base
    }

    /// The file with these rows in its journal, the first of this number, as far as there is room.
    pub fn with_rows(&self, first: u64, rows: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let mut at = PAGE;
        for (row, value) in (first..).zip(rows) {
            let length = (28 + value.len()).next_multiple_of(PAGE);
            if at + length > PAGE * (1 + JOURNAL_PAGES as usize) {
                break;
            }
            let mut record = self.salt.to_vec();
            record.extend_from_slice(&0u64.to_le_bytes());
            record.extend_from_slice(&row.to_le_bytes());
            record.extend_from_slice(&(value.len() as u32).to_le_bytes());
            record.extend_from_slice(value);
            record.resize(length, 0);
            bytes[at..at + length].copy_from_slice(&record);
            at += length;
        }
        bytes
    }
}

/// A new log's file.
pub static EMPTY: LazyLock<Base> = LazyLock::new(|| {
    let disk = MemDisk::default();
    drop(open(&disk, options()).expect("an empty disk opens"));
    Base::of(disk.bytes())
});

/// A file with three groups: one purged up to entry 4, one cut off and gone on, one with nothing but a vote.
pub static USED: LazyLock<Base> = LazyLock::new(|| {
    let disk = MemDisk::default();
    run(async {
        let (log, writer) = open(&disk, Options { max_rows: 100, ..options() }).expect("an empty disk opens");
        let writing = tokio::spawn(writer.run());
        let [mut a, mut b, mut c] = [1, 2, 3].map(|id| log.group(GroupId(id)));
        let id = |term, index| pos_from_wire(wire::LogPos { term, index });
        let vote = |term| vote_from_wire(wire::Vote { term, replica: ReplicaId(1), committed: true });
        let works = "a new log takes what it is given";
        a.save_vote(&vote(1)).await.expect(works);
        append(&mut a, (0..8).map(|index| entry(1, index, 30)).collect()).await.expect(works);
        append(&mut b, (0..5).map(|index| entry(1, index, 30)).collect()).await.expect(works);
        b.truncate_after(Some(id(1, 2))).await.expect(works);
        append(&mut b, (3..6).map(|index| entry(2, index, 30)).collect()).await.expect(works);
        a.save_committed(Some(id(1, 6))).await.expect(works);
        a.purge(id(1, 4)).await.expect(works);
        c.save_vote(&vote(3)).await.expect(works);
        drop((a, b, c));
        log.close();
        writing.await.expect("the writer ends");
    });
    Base::of(disk.bytes())
});
