//! Whose data directory this is, and who uses it now.
//!
//! A plain file outside the databases names the cluster and the node. A node that started on another's
//! directory, or on an emptied one under its old name, would forget its votes and acknowledged
//! entries; here it refuses to start instead.
//!
//! # Promises
//! 1. A directory that belongs to a cluster and a node is never used for another.
//! 2. Once the log was created, a start without it is refused.
//! 3. Two processes never use one directory at once.
//! 4. A directory that is made here can be read by its own user only.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use wardlock_placement::NodeId;

use super::{log, snapshots, sync_dir};

const IDENTITY: &str = "identity";
const LOCK: &str = "lock";
const FORMAT: u32 = 1;
/// An identity is a few names; whatever is longer is something else.
const MAX_BYTES: u64 = 64 << 10;

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The file system refuses.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it.
    #[error("{} is in use by another process: stop it first", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It belongs to somebody else.
    #[error(
        "{} belongs to node {found_node} of cluster {found_cluster:?}, not to node {node} of cluster {cluster:?}",
        path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// The cluster that it belongs to.
        found_cluster: String,
        /// The node that it belongs to.
        found_node: NodeId,
        /// The cluster that asked.
        cluster: String,
        /// The node that asked.
        node: NodeId,
    },
    /// It holds data but no identity.
    #[error("{} holds {name} but no identity file: it is not a fresh directory", path.display())]
    Unclaimed {
        /// The directory.
        path: PathBuf,
        /// What was found.
        name: String,
    },
    /// The log that was there is gone.
    #[error(
        "{} was used by node {node} of cluster {cluster:?}, but its log is missing or empty: the node must not start \
         without its votes. Restore the directory, or give the machine a new node id on a new directory",
        path.display()
    )]
    LogMissing {
        /// The directory.
        path: PathBuf,
        /// Its cluster.
        cluster: String,
        /// Its node.
        node: NodeId,
    },
    /// The identity file is damaged or of another version.
    #[error("{} cannot be read: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    format: u32,
    cluster: String,
    node: NodeId,
    /// The log was created.
    used: bool,
}

/// A claimed data directory. No other process can claim it while this lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    record: Record,
    /// Held, not read.
    lock: File,
}

impl DataDir {
    /// Locks the directory, creating it if need be, and checks that it belongs to this node or to
    /// nobody yet.
    pub fn claim(path: &Path, cluster: &str, node: NodeId) -> Result<DataDir, ClaimError> {
        // For nobody else to read: the log and the snapshots hold the secrets of webhooks.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed(path))?;
        let lock = lock(path)?;
        let record = match read(path)? {
            Some(found) => {
                check(path, &found, cluster, node)?;
                found
            }
            None => {
                for name in [log::FILE, snapshots::FILE] {
                    if path.join(name).exists() {
                        return Err(ClaimError::Unclaimed { path: path.into(), name: name.into() });
                    }
                }
                let fresh = Record { format: FORMAT, cluster: cluster.into(), node, used: false };
                write(path, &fresh)?;
                fresh
            }
        };
        Ok(DataDir { path: path.into(), record, lock })
    }

    /// To be called once the log is open: from now on the directory is refused without it.
    pub fn mark_used(&mut self) -> Result<(), ClaimError> {
        if self.record.used {
            return Ok(());
        }
        let used = Record { used: true, ..self.record.clone() };
        write(&self.path, &used)?;
        self.record = used;
        Ok(())
    }

    /// Whether the log was created in an earlier life or in this one.
    pub fn is_used(&self) -> bool {
        self.record.used
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn check(path: &Path, found: &Record, cluster: &str, node: NodeId) -> Result<(), ClaimError> {
    if found.cluster != cluster || found.node != node {
        return Err(ClaimError::Foreign {
            path: path.into(),
            found_cluster: found.cluster.clone(),
            found_node: found.node,
            cluster: cluster.into(),
            node,
        });
    }
    let has_log = fs::metadata(path.join(log::FILE)).is_ok_and(|file| file.len() > 0);
    if found.used && !has_log {
        return Err(ClaimError::LogMissing { path: path.into(), cluster: cluster.into(), node });
    }
    Ok(())
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // Closing it is not enough at once: a process that is being forked meanwhile has the open file too, until it
        // runs its own program. Failing to unlock, the lock goes with the last of them.
        let _ = self.lock.unlock();
    }
}

fn lock(dir: &Path) -> Result<File, ClaimError> {
    let path = dir.join(LOCK);
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(failed(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ClaimError::InUse { path: dir.into() }),
        Err(TryLockError::Error(source)) => Err(ClaimError::Io { path, source }),
    }
}

fn read(dir: &Path) -> Result<Option<Record>, ClaimError> {
    let path = dir.join(IDENTITY);
    let unreadable = |why: String| ClaimError::Unreadable { path: path.clone(), why };
    match fs::metadata(&path) {
        Ok(file) if file.len() > MAX_BYTES => return Err(unreadable(format!("{} bytes are too many", file.len()))),
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(&path)(e)),
    }
    let text = fs::read(&path).map_err(failed(&path))?;
    let record: Record = serde_json::from_slice(&text).map_err(|e| unreadable(e.to_string()))?;
    if record.format != FORMAT {
        return Err(unreadable(format!("it has format version {}, this program reads {FORMAT}", record.format)));
    }
    Ok(Some(record))
}

/// Replaces the file as a whole: written aside, synced, renamed, and the name synced.
fn write(dir: &Path, record: &Record) -> Result<(), ClaimError> {
    let path = dir.join(IDENTITY);
    let aside = dir.join("identity.new");
    let replace = || {
        let mut text = serde_json::to_vec_pretty(record)?;
        text.push(b'\n');
        let mut file = File::create(&aside)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&aside, &path)?;
        sync_dir(dir)
    };
    replace().map_err(failed(&path))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> ClaimError + use<> {
    let path = path.to_owned();
    move |source| ClaimError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(dir: &Path) -> Result<DataDir, ClaimError> {
        DataDir::claim(dir, "prod", NodeId(2))
    }

    #[test]
    fn a_directory_belongs_to_one_node_of_one_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/data");
        drop(claim(&path).unwrap());
        drop(claim(&path).unwrap());
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o700, "nobody else reads it");
        for (cluster, node) in [("prod", NodeId(3)), ("test", NodeId(2))] {
            let error = DataDir::claim(&path, cluster, node).unwrap_err();
            assert!(matches!(error, ClaimError::Foreign { .. }));
            let text = error.to_string();
            assert!(text.contains("node 2 of cluster \"prod\""), "{text}");
            assert!(text.contains(&format!("node {node} of cluster \"{cluster}\"")), "{text}");
        }
    }

    #[test]
    fn a_second_process_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = claim(dir.path()).unwrap();
        assert!(matches!(claim(dir.path()), Err(ClaimError::InUse { .. })));
        drop(first);
        assert!(claim(dir.path()).is_ok());
    }

    #[test]
    fn a_used_directory_without_its_log_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join(log::FILE);
        let mut claimed = claim(dir.path()).unwrap();
        fs::write(&log, b"a log").unwrap();
        drop(claimed);
        claimed = claim(dir.path()).unwrap();
        assert!(!claimed.is_used(), "a start that was cut short before the mark goes on");
        claimed.mark_used().unwrap();
        drop(claimed);
        assert!(claim(dir.path()).unwrap().is_used());
        fs::write(&log, b"").unwrap();
        assert!(matches!(claim(dir.path()), Err(ClaimError::LogMissing { .. })));
        fs::remove_file(&log).unwrap();
        assert!(matches!(claim(dir.path()), Err(ClaimError::LogMissing { .. })));
    }

    #[test]
    fn data_without_an_identity_and_a_damaged_identity_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (log, identity) = (dir.path().join(log::FILE), dir.path().join(IDENTITY));
        fs::write(&log, b"somebody's log").unwrap();
        assert!(matches!(claim(dir.path()), Err(ClaimError::Unclaimed { .. })));
        fs::remove_file(&log).unwrap();
        drop(claim(dir.path()).unwrap());
        for text in [&b""[..], b"{", br#"{"format":9,"cluster":"prod","node":2,"used":true}"#, &[b' '; 70_000]] {
            fs::write(&identity, text).unwrap();
            assert!(matches!(claim(dir.path()), Err(ClaimError::Unreadable { .. })));
        }
    }
}
