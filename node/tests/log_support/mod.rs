//! What the log's tests share: a disk in memory that can be cut, entries, and a small randomness.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::{
    io,
    sync::{Arc, Mutex},
};

use openraft::{EntryPayload, storage::RaftLogStorage, type_config::TypeConfigExt};
use redb::StorageBackend;
use wardlock::{
    disk::{
        OnFatal,
        log::{GroupLog, LogWriter, OpenError, Options, SharedLog},
    },
    raft::types::{Entry, LogId, Proposal, Types, Vote, pos_from_wire, vote_from_wire},
};
use wardlock_placement::ReplicaId;
use wardlock_wire::raft as wire;

/// A mutation that reached the disk, or tried to.
#[derive(Clone, Debug)]
pub enum Call {
    Write(u64, Vec<u8>),
    Len(u64),
    Sync,
}

#[derive(Debug, Default)]
struct Disk {
    bytes: Vec<u8>,
    calls: Vec<Call>,
    recording: bool,
    count: u64,
    fail_after: Option<u64>,
}

/// A disk in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemDisk(Arc<Mutex<Disk>>);

impl MemDisk {
    pub fn with(bytes: Vec<u8>) -> MemDisk {
        MemDisk(Arc::new(Mutex::new(Disk { bytes, ..Disk::default() })))
    }

    /// Records every call from now on.
    pub fn record(self) -> MemDisk {
        self.0.lock().unwrap().recording = true;
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap().bytes.clone()
    }

    pub fn size(&self) -> usize {
        self.0.lock().unwrap().bytes.len()
    }

    pub fn calls(&self) -> Vec<Call> {
        self.0.lock().unwrap().calls.clone()
    }

    /// The number of mutations so far.
    pub fn count(&self) -> u64 {
        self.0.lock().unwrap().count
    }

    /// Every mutation after this many fails.
    pub fn fail_after(&self, count: u64) {
        self.0.lock().unwrap().fail_after = Some(count);
    }

    fn mutate(&self, call: Call) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        if disk.fail_after.is_some_and(|limit| disk.count >= limit) {
            return Err(io::Error::other("the disk is broken"));
        }
        disk.count += 1;
        apply(&mut disk.bytes, &call);
        if disk.recording {
            disk.calls.push(call);
        }
        Ok(())
    }
}

/// Carries a call out on an image.
pub fn apply(bytes: &mut Vec<u8>, call: &Call) {
    match call {
        Call::Write(at, data) => {
            let at = *at as usize;
            if bytes.len() < at + data.len() {
                bytes.resize(at + data.len(), 0);
            }
            bytes[at..at + data.len()].copy_from_slice(data);
        }
        Call::Len(len) => bytes.resize(*len as usize, 0),
        Call::Sync => {}
    }
}

impl StorageBackend for MemDisk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.size() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let disk = self.0.lock().unwrap();
        let at = offset as usize;
        let found = disk.bytes.get(at..at + out.len()).ok_or_else(|| io::Error::other("beyond the end"))?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.mutate(Call::Len(len))
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.mutate(Call::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.mutate(Call::Write(offset, data.to_vec()))
    }
}

/// A small generator: the same seed, the same run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }
}

pub fn id(term: u64, index: u64) -> LogId {
    pos_from_wire(wire::LogPos { term, index })
}

pub fn entry(term: u64, index: u64, len: usize) -> Entry {
    let byte = (term * 31 + index) as u8;
    Entry { log_id: id(term, index), payload: EntryPayload::Normal(Proposal(vec![byte; len].into())) }
}

pub fn vote(term: u64) -> Vote {
    vote_from_wire(wire::Vote { term, replica: ReplicaId(1), committed: false })
}

/// Fails the test if the disk is said to have failed.
pub fn never() -> OnFatal {
    Arc::new(|why| panic!("{why}"))
}

pub fn small() -> Options {
    Options { cache_bytes: 1 << 20, ..Options::default() }
}

/// Runs a test body on one thread whose clock stands still unless everybody waits.
pub fn paused<T>(body: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(body)
}

/// A log whose writer runs as a task beside the test.
pub fn start(disk: &MemDisk, options: Options) -> SharedLog {
    let (log, writer) = open(disk, options).unwrap();
    tokio::spawn(writer.run());
    log
}

pub fn open(disk: &MemDisk, options: Options) -> Result<(SharedLog, LogWriter), OpenError> {
    SharedLog::open(disk.clone(), options, never())
}

/// Appends and waits until it is durable.
pub async fn append(log: &mut GroupLog, entries: Vec<Entry>) -> io::Result<()> {
    let (done, durable) = Types::oneshot();
    log.append(entries, openraft::storage::IOFlushed::signal(done)).await?;
    durable.await.map_err(io::Error::other)?
}
