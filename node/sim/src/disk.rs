//! A disk in memory that fails as disks do, for the log, the snapshots and whole simulated nodes.
//!
//! [`Disk`] is a redb [`StorageBackend`]. Clones share it, as handles share a file. It keeps two images: what a
//! process reads back, and what was synced. [`Disk::power_off`] answers a new disk with what survives; every
//! later call to the old one fails, so a node that died cannot write on.
//!
//! # Promises
//! 1. A write survives a power cut if a later sync succeeded. Of the others any part may survive: none, all, or
//!    some sectors of some of them, in any order ([`Survivors`]).
//! 2. A sync that failed is not made good by a later one that succeeds: its writes may be lost although they can
//!    still be read, as on Linux.
//! 3. The same calls and seeds leave the same bytes.
//!
//! Not modelled: sectors that tear within themselves, and a directory of more than one file.

use std::{
    fmt, io,
    ops::{Bound, Range},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use redb::{BackendError, StorageBackend};

mod image;
mod layers;
mod random;

pub(crate) use self::layers::Layers;
pub use self::{
    image::{Image, PAGE},
    layers::{SECTOR, Survivors},
    random::Random,
};

/// A call to the disk, in bytes from the beginning of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// So many bytes are read from here.
    Read(u64, usize),
    /// These bytes are written here.
    Write(u64, Bytes),
    /// The file is made this long.
    Len(u64),
    /// All that was written is to become durable.
    Sync,
}

/// Which calls fail. Reads are counted for themselves, all other calls together, both from zero on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// These mutations fail with `EIO`.
    Io(Range<u64>),
    /// Of these mutations, those that write or lengthen fail with `ENOSPC`; half of a write is carried out.
    Full(Range<u64>),
    /// These reads fail with `EIO`.
    Read(Range<u64>),
}

/// Sees each call before it is carried out. It may take its time, cut the power, or call into the log; the disk
/// is not locked meanwhile.
pub type Watch = Arc<dyn Fn(&Call) + Send + Sync>;

#[derive(Default)]
struct Inner {
    layers: Layers,
    mutations: u64,
    reads: u64,
    failures: Vec<Failure>,
    max_bytes: Option<u64>,
    is_off: bool,
    watch: Option<Watch>,
}

/// A disk that holds one file. Clones share it.
#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<Inner>>);

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let disk = self.locked();
        f.debug_struct("Disk")
            .field("bytes", &disk.layers.now().len())
            .field("mutations", &disk.mutations)
            .field("is_off", &disk.is_off)
            .finish_non_exhaustive()
    }
}

impl From<Image> for Disk {
    /// A disk with these contents, durably.
    fn from(image: Image) -> Disk {
        Disk(Arc::new(Mutex::new(Inner { layers: Layers::new(image), ..Inner::default() })))
    }
}

impl Disk {
    /// A disk with these contents, durably.
    pub fn with(bytes: Vec<u8>) -> Disk {
        Disk::from(Image::from(bytes.as_slice()))
    }

    /// What a process reads, synced or not.
    pub fn image(&self) -> Image {
        self.locked().layers.now().clone()
    }

    /// The same as bytes.
    pub fn bytes(&self) -> Vec<u8> {
        self.image().to_bytes()
    }

    /// The file's length in bytes.
    pub fn size(&self) -> usize {
        self.locked().layers.now().len()
    }

    /// The mutations that were asked for so far: writes, lengths, syncs.
    pub fn count(&self) -> u64 {
        self.locked().mutations
    }

    /// The reads so far.
    pub fn reads(&self) -> u64 {
        self.locked().reads
    }

    /// Lets calls fail, beside those that fail already.
    pub fn fail(&self, failure: Failure) {
        self.locked().failures.push(failure);
    }

    /// Lets every mutation after this many fail.
    pub fn fail_after(&self, count: u64) {
        self.fail(Failure::Io(count..u64::MAX));
    }

    /// Ends all failures: somebody has seen to it.
    pub fn mend(&self) {
        self.locked().failures.clear();
    }

    /// Bounds the file: what would lengthen it further fails with `ENOSPC`. None: no bound.
    pub fn bound(&self, max_bytes: Option<u64>) {
        self.locked().max_bytes = max_bytes;
    }

    /// Shows each call to this function from now on, in place of the one before.
    pub fn watch(&self, watch: Watch) {
        self.locked().watch = Some(watch);
    }

    /// Puts bytes there durably, behind the back of whoever uses the disk.
    pub fn put(&self, at: u64, bytes: &[u8]) {
        self.locked().layers.put(at, bytes);
    }

    /// Flips one bit durably, counted from the beginning of the file.
    pub fn flip(&self, bit: u64) {
        self.locked().layers.flip(bit);
    }

    /// Cuts the power. Every later call here fails; the answer is the disk as the next start finds it.
    pub fn power_off(&self, survivors: Survivors) -> Disk {
        let mut disk = self.locked();
        disk.is_off = true;
        disk.watch = None;
        let max_bytes = disk.max_bytes;
        let layers = Layers::new(disk.layers.survive(survivors));
        drop(disk);
        Disk(Arc::new(Mutex::new(Inner { layers, max_bytes, ..Inner::default() })))
    }

    /// Ends the process that uses the disk. Every later call here fails; the answer is the disk as the next
    /// process finds it: what was written is there, and as far from durable as it was.
    pub fn kill(&self) -> Disk {
        let mut disk = self.locked();
        disk.is_off = true;
        disk.watch = None;
        let (layers, max_bytes) = (disk.layers.clone(), disk.max_bytes);
        drop(disk);
        Disk(Arc::new(Mutex::new(Inner { layers, max_bytes, ..Inner::default() })))
    }

    /// What a power cut would leave, without one.
    pub fn survive(&self, survivors: Survivors) -> Image {
        self.locked().layers.survive(survivors)
    }

    fn locked(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, call: &Call) {
        let watch = self.locked().watch.clone();
        if let Some(watch) = watch {
            watch(call);
        }
    }

    fn mutate(&self, call: Call) -> io::Result<()> {
        self.show(&call);
        let mut disk = self.locked();
        disk.check_on()?;
        let number = disk.mutations;
        disk.mutations += 1;
        match disk.refusal(&call, number) {
            None => {
                disk.layers.apply(&call);
                Ok(())
            }
            Some(refusal) => {
                disk.layers.fail(&call);
                Err(refusal)
            }
        }
    }
}

impl Inner {
    fn check_on(&self) -> io::Result<()> {
        if self.is_off { Err(io::Error::other("the disk has no power")) } else { Ok(()) }
    }

    fn refusal(&self, call: &Call, number: u64) -> Option<io::Error> {
        let (end, grows) = match call {
            Call::Write(at, data) => (at + data.len() as u64, true),
            Call::Len(len) => (*len, *len > self.layers.now().len() as u64),
            Call::Read(..) | Call::Sync => (0, false),
        };
        let is_beyond = self.max_bytes.is_some_and(|max| end > max && end > self.layers.now().len() as u64);
        let is_full = |failure: &Failure| matches!(failure, Failure::Full(calls) if grows && calls.contains(&number));
        let is_broken = |failure: &Failure| match failure {
            Failure::Io(calls) => !matches!(call, Call::Read(..)) && calls.contains(&number),
            Failure::Read(calls) => matches!(call, Call::Read(..)) && calls.contains(&number),
            Failure::Full(_) => false,
        };
        if self.failures.iter().any(is_broken) {
            Some(io::Error::from_raw_os_error(EIO))
        } else if is_beyond || self.failures.iter().any(is_full) {
            Some(io::Error::from_raw_os_error(ENOSPC))
        } else {
            None
        }
    }
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        let disk = self.locked();
        disk.check_on()?;
        Ok(disk.layers.now().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let call = Call::Read(offset, out.len());
        self.show(&call);
        let mut disk = self.locked();
        disk.check_on()?;
        let number = disk.reads;
        disk.reads += 1;
        match disk.refusal(&call, number) {
            Some(refusal) => Err(refusal),
            None if disk.layers.now().read(offset, out) => Ok(()),
            None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a read beyond the end")),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.mutate(Call::Len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.mutate(Call::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.mutate(Call::Write(offset, Bytes::copy_from_slice(data)))
    }

    // One process has a simulated disk; there is nobody to keep out.
    fn try_lock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn unlock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
