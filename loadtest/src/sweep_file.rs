//! A sweep: runs of the same workload over a grid of cluster sizes and loads, in one file.
//!
//! # Promises
//! 1. A document of another [`SCHEMA`] is refused with both numbers, as a report is.
//! 2. Writing replaces the file at once or not at all: whoever reads it finds whole cells.

use std::{fs, io::Write, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{anyhow, ensure};
use serde::{Deserialize, Serialize};

use crate::report::Report;

/// The version of this document's form.
pub(crate) const SCHEMA: u32 = 1;

/// What `sweep` writes, and `plan` and `report` read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sweep {
    /// [`SCHEMA`].
    pub(crate) schema: u32,
    /// In the order in which they were measured; no two of one combination.
    pub(crate) cells: Vec<Cell>,
}

/// One run of it, with what was varied.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) nodes: u32,
    pub(crate) shards: u32,
    pub(crate) clients: u32,
    /// Percent of operations that read.
    pub(crate) reads: f64,
    /// Of repeated runs the one of median throughput.
    pub(crate) report: Report,
}

impl Sweep {
    /// One without cells.
    pub(crate) fn new() -> Sweep {
        Sweep { schema: SCHEMA, cells: Vec::new() }
    }

    /// The cell of a combination.
    pub(crate) fn cell(&self, nodes: u32, shards: u32, clients: u32, reads: f64) -> Option<&Cell> {
        let same =
            |cell: &&Cell| (cell.nodes, cell.shards, cell.clients) == (nodes, shards, clients) && cell.reads == reads;
        self.cells.iter().find(same)
    }

    /// Writes the file, replacing what was there (promise 2).
    ///
    /// # Errors
    /// Where it cannot be written; what was there stands then.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        ensure!(dir.is_dir(), "{} cannot be written: there is no directory {}", path.display(), dir.display());
        let replace = || -> anyhow::Result<()> {
            let mut new = tempfile::NamedTempFile::new_in(dir)?;
            serde_json::to_writer(&mut new, self)?;
            new.write_all(b"\n")?;
            // Temporary files are for their owner alone.
            new.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
            new.persist(path)?;
            Ok(())
        };
        replace().map_err(|e| anyhow!("{} cannot be written: {e}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load;

    #[test]
    fn what_is_written_is_read_and_the_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sweep.json");
        let mut sweep = Sweep::new();
        for shards in [4, 16] {
            let report = crate::ramp::sample(1_000.0 * f64::from(shards), 5.0);
            sweep.cells.push(Cell { nodes: 3, shards, clients: 64, reads: 80.0, report });
            sweep.write(&path).unwrap();
        }
        let read = load::sweep(&path).unwrap();
        assert_eq!(read.cells.len(), 2);
        assert_eq!(read.cell(3, 16, 64, 80.0).unwrap().report.throughput_ops_per_s, 16_000.0);
        assert!(read.cell(3, 16, 64, 0.0).is_none());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        let error = sweep.write(&dir.path().join("nowhere/sweep.json")).unwrap_err().to_string();
        assert!(error.contains("there is no directory"), "{error}");
    }
}
