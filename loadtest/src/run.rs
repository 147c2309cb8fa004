//! `run`: one measurement, as a table, as JSON, as a page of plots.

mod options;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;

pub(crate) use self::options::{Options, length, percent, positive, some_length};
use crate::{bench::Bench, page, report::Report, table, workload::Plan};

/// Measures once.
pub(crate) async fn run(options: &Options) -> anyhow::Result<Report> {
    let bench = Bench::connect(options).await?;
    let plan = bench.plan();
    let measured = bench.measure(plan.rate, plan.clients, plan.reads, plan.duration).await;
    bench.close().await;
    measured
}

/// The command: measures, prints and writes what was asked for. Fails where a promise was broken.
pub(crate) async fn command(options: &Options) -> anyhow::Result<ExitCode> {
    let plan = Plan::of(options);
    if let Some(profile) = options.profile {
        eprint!("{}", profile.explanation(&plan));
    }
    if let (Some(rate), None, None) = (plan.rate, options.rate, options.profile) {
        eprintln!("an open loop at {rate:.0} operations/s; say --rate OPS, or --closed-loop for as many as can be had");
    }
    let files = [&options.json, &options.html].into_iter().flatten();
    files.map(PathBuf::as_path).try_for_each(writable)?;
    let report = run(options).await?;
    print!("{}", table::write(&report));
    if let Some(file) = &options.json {
        write(file, &report.json())?;
    }
    if let Some(file) = &options.html {
        write(file, &page::html(std::slice::from_ref(&report)))?;
    }
    Ok(match report.safety_violations {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Whether a file can be written, before there is anything to lose.
pub(crate) fn writable(file: &Path) -> anyhow::Result<()> {
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(file);
    opened.map(|_| ()).with_context(|| format!("{} cannot be written", file.display()))
}

/// Writes a file.
pub(crate) fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| format!("{} cannot be written", file.display()))
}

#[cfg(test)]
pub(crate) use options::tests;
