//! Room on the disk: a watch that says when it runs out, and a reserve for the worst day.
//!
//! Below a mark of free space the node refuses what would grow its state while releases, expiries and
//! purges go on. The reserve is a file of real blocks. Where a start finds less room than it, the
//! file is given up first: a full disk must leave room to open the log, purge and recover.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::sync_dir;

const RESERVE: &str = "reserve";

/// When space counts as low.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Below this many free bytes it is low. It stays low until half as much again is free, so that
    /// the answer does not flap.
    pub low_bytes: u64,
    /// The size of the reserve file.
    pub reserve_bytes: u64,
}

impl Default for Thresholds {
    fn default() -> Thresholds {
        Thresholds { low_bytes: 256 << 20, reserve_bytes: 32 << 20 }
    }
}

/// How much room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Enough.
    Ok,
    /// Take nothing new.
    Low,
}

/// Watches the file system of a data directory. Clones share the answer.
#[derive(Clone, Debug)]
pub struct SpaceWatch(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    thresholds: Thresholds,
    low: AtomicBool,
}

impl SpaceWatch {
    /// Gives up the reserve if the disk is too full to open the databases, then looks for the first
    /// time. To be called before they are opened.
    pub fn start(dir: &Path, thresholds: Thresholds) -> io::Result<SpaceWatch> {
        if free_bytes(dir)? < thresholds.reserve_bytes {
            match fs::remove_file(dir.join(RESERVE)) {
                Ok(()) => {
                    sync_dir(dir)?;
                    tracing::warn!("the disk of {} is full: gave up the reserve to start", dir.display());
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        let watch = SpaceWatch(Arc::new(Inner { dir: dir.into(), thresholds, low: AtomicBool::new(false) }));
        watch.check()?;
        Ok(watch)
    }

    /// Looks, remembers the answer, and sets the reserve up again once there is room. Blocks for a
    /// moment; every few seconds is often enough.
    pub fn check(&self) -> io::Result<Space> {
        let Inner { dir, thresholds, low } = &*self.0;
        let free = free_bytes(dir)?;
        metrics::gauge!("wardlock_disk_free_bytes").set(free as f64);
        let is_low = judge(free, thresholds.low_bytes, low.load(Relaxed));
        if low.swap(is_low, Relaxed) != is_low {
            tracing::warn!("{free} bytes are free in {}: {}", dir.display(), if is_low { "low" } else { "enough" });
        }
        if !is_low && free - thresholds.low_bytes > thresholds.reserve_bytes {
            keep_reserve(dir, thresholds.reserve_bytes)?;
        }
        Ok(if is_low { Space::Low } else { Space::Ok })
    }

    /// The last answer; costs one load.
    pub fn is_low(&self) -> bool {
        self.0.low.load(Relaxed)
    }
}

fn judge(free: u64, low: u64, was_low: bool) -> bool {
    free < low || (was_low && free < low.saturating_add(low / 2))
}

fn free_bytes(dir: &Path) -> io::Result<u64> {
    let stat = statvfs(dir)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Creates the reserve where it is missing or has another size.
fn keep_reserve(dir: &Path, bytes: u64) -> io::Result<()> {
    let path = dir.join(RESERVE);
    if fs::metadata(&path).is_ok_and(|file| file.len() == bytes) {
        return Ok(());
    }
    let mut file = File::create(&path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => {}
        Err(rustix::io::Errno::OPNOTSUPP) => write_zeros(&mut file, bytes)?,
        Err(e) => return Err(e.into()),
    }
    file.sync_all()?;
    sync_dir(dir)
}

/// For file systems that cannot set blocks aside without writing them.
fn write_zeros(file: &mut File, bytes: u64) -> io::Result<()> {
    let zeros = [0; 64 << 10];
    let mut left = bytes;
    while left > 0 {
        let len = left.min(zeros.len() as u64);
        file.write_all(&zeros[..len as usize])?;
        left -= len;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn low_is_left_only_with_room_to_spare() {
        assert!(!judge(100, 100, false));
        assert!(judge(99, 100, false));
        assert!(judge(149, 100, true));
        assert!(!judge(150, 100, true));
    }

    #[test]
    fn the_reserve_is_set_up_and_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = dir.path().join(RESERVE);
        let roomy = Thresholds { low_bytes: 0, reserve_bytes: 1 << 20 };
        let watch = SpaceWatch::start(dir.path(), roomy).unwrap();
        assert!(!watch.is_low());
        let file = fs::metadata(&reserve).unwrap();
        assert_eq!(file.len(), 1 << 20);
        assert!(file.blocks() * 512 >= 1 << 20, "the reserve is a hole, not blocks");

        let full = Thresholds { low_bytes: u64::MAX, reserve_bytes: u64::MAX };
        let watch = SpaceWatch::start(dir.path(), full).unwrap();
        assert!(watch.is_low());
        assert_eq!(watch.check().unwrap(), Space::Low);
        assert!(!reserve.exists(), "a full disk's start gives the reserve up");

        let watch = SpaceWatch::start(dir.path(), roomy).unwrap();
        assert_eq!(watch.check().unwrap(), Space::Ok);
        assert!(reserve.exists());
    }

    #[test]
    fn zeros_fill_the_reserve_where_blocks_cannot_be_set_aside() {
        let mut file = tempfile::tempfile().unwrap();
        write_zeros(&mut file, (64 << 10) + 1).unwrap();
        assert_eq!(file.metadata().unwrap().len(), (64 << 10) + 1);
    }
}
