//! `report`: a page from files.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;

use crate::{load, report::Report};

const EXAMPLES: &str = "\
Examples:
  wardlock-loadtest report figures.json --html figures.html
  wardlock-loadtest report wardlock.json etcd.json zookeeper.json --html peers.html
  wardlock-loadtest report sweep.json --html sweep.html";

/// Makes one page of plots from reports: a single HTML file that needs nothing else.
///
/// Several reports are shown side by side and then one by one. The files are those of `run --json` and of
/// `sweep --json`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Reports, or a sweep's.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Where to write the page.
    #[arg(long, value_name = "OUT")]
    html: PathBuf,
}

/// Runs it.
pub(crate) fn command(options: &Options) -> anyhow::Result<ExitCode> {
    let mut reports: Vec<Report> = Vec::new();
    for file in &options.files {
        reports.extend(load::reports(file).map_err(|error| anyhow::anyhow!("{error:#}"))?);
    }
    let html = &options.html;
    std::fs::write(html, super::html(&reports)).with_context(|| format!("{} cannot be written", html.display()))?;
    eprintln!(
        "wrote {}: {}",
        html.display(),
        match reports.len() {
            1 => "one run".to_owned(),
            many => format!("{many} runs"),
        }
    );
    Ok(ExitCode::SUCCESS)
}
