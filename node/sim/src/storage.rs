//! A node's disk: in memory, losing what was not synced when the power goes, and failing when it is told to.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rand::{RngExt, rngs::StdRng};
use redb::StorageBackend;

const SECTOR: usize = 512;

/// What a disk answers to whoever writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It works.
    #[default]
    Well,
    /// No space is left.
    Full,
    /// It fails.
    Broken,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    /// What the bytes were at the last sync, where they have changed since: `None` for all that was added.
    unsynced: Vec<(u64, Vec<u8>)>,
    /// The length at the last sync.
    synced: usize,
    health: Health,
}

/// A disk. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<State>>);

impl Disk {
    /// How it answers from now on.
    pub fn set_health(&self, health: Health) {
        self.lock().health = health;
    }

    /// The process that used it is gone: what it wrote so far is on the disk that is returned, and nothing that
    /// it writes later.
    pub fn cut(&self) -> Disk {
        let mut state = self.lock();
        state.health = Health::Broken;
        Disk::with(state.bytes.clone())
    }

    /// The power is gone: of what was not synced any part may be on the disk that is returned, by sectors.
    pub fn power_off(&self, random: &mut StdRng) -> Disk {
        let mut state = self.lock();
        state.health = Health::Broken;
        let mut bytes = state.bytes.clone();
        let odds = random.random_range(0..=4);
        // The latest change first, so that what is undone ends as it was at the sync.
        for (at, before) in state.unsynced.iter().rev() {
            for (sector, before) in before.chunks(SECTOR).enumerate() {
                let at = *at as usize + sector * SECTOR;
                if random.random_range(0..4) >= odds && at + before.len() <= bytes.len() {
                    bytes[at..at + before.len()].copy_from_slice(before);
                }
            }
        }
        if state.synced < bytes.len() && random.random_range(0..4) >= odds {
            bytes.truncate(state.synced.max(1));
        }
        Disk::with(bytes)
    }

    fn with(bytes: Vec<u8>) -> Disk {
        let synced = bytes.len();
        Disk(Arc::new(Mutex::new(State { bytes, synced, ..State::default() })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check(&self) -> io::Result<()> {
        match self.health {
            Health::Well => Ok(()),
            Health::Full => Err(io::ErrorKind::StorageFull.into()),
            Health::Broken => Err(io::Error::other("the disk is broken")),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.lock();
        let at = offset as usize;
        let found = state.bytes.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.lock();
        state.check()?;
        state.bytes.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.lock();
        if state.health == Health::Broken {
            return state.check();
        }
        state.unsynced.clear();
        state.synced = state.bytes.len();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        state.check()?;
        let at = offset as usize;
        if state.bytes.len() < at + data.len() {
            state.bytes.resize(at + data.len(), 0);
        }
        let before = state.bytes[at..at + data.len()].to_vec();
        state.unsynced.push((offset, before));
        state.bytes[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
}
