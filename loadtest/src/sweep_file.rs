//! What a sweep came to: a [`Report`] for each combination, in one document.
//!
//! # Promises
//! 1. Writing replaces the file at once or not at all: whoever reads it finds whole cells.
//! 2. A document of another [`SCHEMA`] is refused with both numbers, as are reports within of another than theirs.

use std::{fs, io::Write, path::Path};

use anyhow::{anyhow, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::report::{self, Report};

/// The version of this document's form.
pub(crate) const SCHEMA: u32 = 1;

/// All that was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SweepFile {
    /// [`SCHEMA`].
    pub(crate) schema: u32,
    /// In the order in which they were measured; no two of one combination.
    pub(crate) cells: Vec<Cell>,
}

/// One combination.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Cell {
    /// Nodes of the cluster.
    pub(crate) nodes: u32,
    /// Its shards.
    pub(crate) shards: u32,
    /// Clients of the load.
    pub(crate) clients: u32,
    /// Percent of operations that read.
    pub(crate) reads: f64,
    /// What was measured; of repeated runs the one of median throughput.
    pub(crate) report: Report,
}

/// Only what tells whether the rest may be understood.
#[derive(Deserialize)]
struct Form {
    schema: Option<u32>,
    cells: Vec<FormOfCell>,
}

#[derive(Deserialize)]
struct FormOfCell {
    report: FormOfReport,
}

#[derive(Deserialize)]
struct FormOfReport {
    schema: u32,
}

impl SweepFile {
    /// A document without cells.
    pub(crate) fn new() -> SweepFile {
        SweepFile { schema: SCHEMA, cells: Vec::new() }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// Where it cannot be read or is something else, with what.
    pub(crate) fn read(path: &Path) -> anyhow::Result<SweepFile> {
        let named = |why: String| anyhow!("{}: {why}", path.display());
        let text = fs::read_to_string(path).map_err(|e| named(e.to_string()))?;
        SweepFile::parse(&text).map_err(|e| named(e.to_string()))
    }

    /// Reads the text of a document.
    pub(crate) fn parse(text: &str) -> anyhow::Result<SweepFile> {
        let form: Form = serde_json::from_str(text)
            .map_err(|e| anyhow!("it is not what `wardlock-loadtest sweep --json` writes: {e}"))?;
        match form.schema {
            Some(SCHEMA) => {}
            Some(other) => bail!("its form is {other}, and this program reads {SCHEMA}"),
            None => bail!("it has no `schema`"),
        }
        if let Some(cell) = form.cells.iter().find(|cell| cell.report.schema != report::SCHEMA) {
            bail!("the form of its reports is {}, and this program reads {}", cell.report.schema, report::SCHEMA);
        }
        Ok(serde_json::from_str(text)?)
    }

    /// Writes the file, replacing what was there.
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
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
            new.as_file().set_permissions(mode)?;
            new.persist(path)?;
            Ok(())
        };
        replace().map_err(|e| anyhow!("{} cannot be written: {e}", path.display()))
    }

    /// The cell of a combination.
    pub(crate) fn cell(&self, nodes: u32, shards: u32, clients: u32, reads: f64) -> Option<&Cell> {
        let same =
            |cell: &&Cell| (cell.nodes, cell.shards, cell.clients) == (nodes, shards, clients) && cell.reads == reads;
        self.cells.iter().find(same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_the_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sweep.json");
        let mut sweep = SweepFile::new();
        for shards in [4, 16] {
            let report = crate::ramp::sample(1_000.0 * f64::from(shards), 5.0);
            sweep.cells.push(Cell { nodes: 3, shards, clients: 64, reads: 80.0, report });
            sweep.write(&path).unwrap();
        }
        let read = SweepFile::read(&path).unwrap();
        assert_eq!(read.cells.len(), 2);
        assert_eq!(read.cell(3, 16, 64, 80.0).unwrap().report.throughput_ops_per_s, 16_000.0);
        assert!(read.cell(3, 16, 64, 0.0).is_none());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn what_is_something_else_is_said() {
        for (text, said) in [
            (r#"{"cells": []}"#, "no `schema`"),
            (r#"{"schema": 1}"#, "not what `wardlock-loadtest sweep --json` writes"),
            (r#"{"schema": 7, "cells": []}"#, "its form is 7, and this program reads 1"),
            (r#"{"schema": 1, "cells": [{"report": {"schema": 1}}]}"#, "reports is 1, and this program reads 2"),
            ("[]", "not what `wardlock-loadtest sweep --json` writes"),
        ] {
            let error = SweepFile::parse(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
