//! What a node keeps on its disk, and in which order it becomes durable.
//!
//! A data directory holds four things, each behind one module:
//!
//! - `log.db`, one log for all groups with one writer ([`log`]);
//! - `snapshots.redb`, one current snapshot for each group ([`snapshots`]);
//! - `identity` and `lock`, which say whose directory it is and keep a second process out ([`identity`]);
//! - `reserve`, bytes set aside for a start on a full disk ([`space`]).
//!
//! # Promises
//! 1. What was acknowledged as durable is found again after a crash at any instant.
//! 2. A row, a mark or a chunk that fails its checksum stops the start with an error that names it; it
//!    is never skipped.
//! 3. An error from the disk is fatal. Nothing is retried and nothing is acknowledged after it: a
//!    page that failed to sync may be lost although the next sync succeeds.
//!
//! Not done here: deciding when to take a snapshot or to purge. A snapshot must be saved before the
//! purge that it allows; the caller keeps that order.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub mod identity;
pub mod log;
pub mod snapshots;
pub mod space;

/// Told why the process must stop. It is called once, and nothing is acknowledged after it.
pub type OnFatal = Arc<dyn Fn(&str) + Send + Sync>;

/// Logs the reason and aborts the process: what production does after a disk error.
pub fn abort_process() -> OnFatal {
    Arc::new(|why| {
        tracing::error!("stopping: {why}");
        std::process::abort();
    })
}

/// Opens a database's file. A new one is made aside, by `make`, and takes its name when it is whole: a start
/// that loses its power must not leave half a file that no later start can read.
fn open_file<E: From<redb::Error>>(
    dir: &Path,
    name: &str,
    make: impl FnOnce(File) -> Result<(), E>,
) -> Result<File, E> {
    let failed = |error: io::Error| E::from(redb::Error::from(error));
    let path = dir.join(name);
    let open = |path: &Path, new: bool| OpenOptions::new().read(true).write(true).create_new(new).open(path);
    if fs::metadata(&path).is_ok_and(|file| file.len() > 0) {
        return open(&path, false).map_err(failed);
    }
    let aside = dir.join(format!("{name}.new"));
    match fs::remove_file(&aside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    make(open(&aside, true).map_err(failed)?)?;
    let file = open(&aside, false).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs::rename(&aside, &path).map_err(failed)?;
    sync_dir(dir).map_err(failed)?;
    Ok(file)
}

/// Makes the names in a directory durable.
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Locks, also after a panic elsewhere: no guarded section here leaves its data half-changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
