//! What those commands share that put a cluster of their own to the test: which cluster it is, and what becomes of what
//! was found.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use crate::{
    cluster::{Cluster, Local, interrupt::interruptible},
    run::{writable, write},
};

/// The cluster, and where the figures go.
#[derive(Args, Clone, Debug)]
pub(crate) struct Trial {
    /// The cluster's nodes.
    #[arg(long, value_name = "COUNT", default_value_t = 3, help_heading = "Cluster", value_parser = clap::value_parser!(u32).range(3..=9))]
    pub(crate) nodes: u32,
    /// Its shards.
    #[arg(long, value_name = "COUNT", default_value_t = 16, help_heading = "Cluster", value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) shards: u32,
    #[command(flatten, next_help_heading = "Cluster")]
    local: Local,
    /// Writes the figures as JSON.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    json: Option<PathBuf>,
}

/// What it came to.
pub(crate) struct Verdict {
    /// For people, in whole lines.
    pub(crate) text: String,
    /// For programs, in JSON.
    pub(crate) figures: String,
    /// Why the run is a failed one; empty where it is not.
    pub(crate) failures: Vec<String>,
}

impl Trial {
    /// Starts the cluster, once it is known that the figures can be written. It is the caller's to end.
    pub(crate) async fn cluster(&self) -> anyhow::Result<Cluster> {
        if let Some(file) = &self.json {
            writable(file)?;
        }
        interruptible(Cluster::start(&self.local, self.nodes, self.shards)).await
    }

    /// Tells what was found.
    pub(crate) fn tell(&self, Verdict { text, figures, failures }: &Verdict) -> anyhow::Result<ExitCode> {
        print!("{text}");
        for failure in failures {
            println!("FAILED: {failure}");
        }
        if let Some(file) = &self.json {
            write(file, figures)?;
        }
        Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
