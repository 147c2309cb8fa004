//! A sweep: runs of the same workload over a grid of cluster sizes and loads, in one file.
//!
//! # Promises
//! 1. A document of another [`SCHEMA`] is refused with both numbers, as a report is.

use serde::{Deserialize, Serialize};

use crate::report::Report;

/// The version of this document's form.
pub(crate) const SCHEMA: u32 = 1;

/// What `sweep` writes, and `plan` and `report` read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sweep {
    /// [`SCHEMA`].
    pub(crate) schema: u32,
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
    pub(crate) report: Report,
}
