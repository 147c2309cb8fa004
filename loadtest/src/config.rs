//! `config`: how fast the configuration is read and changed, and what much of it costs.
//!
//! A cluster of this machine is read and changed in a closed loop. With `--fill`, that many paths are then given large
//! values, several times each, so that their history is kept too, as far as its bounds go; each node's memory and files
//! are told, and how long a node takes that is killed and started again. At the end that node is made the leader of
//! every shard, and every value and every history is read from it: what it recovered must be right ([`fill`]).

mod fill;

use std::{
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::task::JoinSet;
use wardlock_router::Client;

use crate::{
    bench::quantile_ms,
    cluster::{Cluster, health, interrupt::interruptible},
    run::some_length,
    target::PATIENCE,
    trial::{Trial, Verdict},
    workload::Dice,
};

const EXAMPLES: &str = "\
Examples:
  wardlock-loadtest config --clients 64 --size 200
  wardlock-loadtest config --fill 10000 --fill-size 10000 --versions 8 --json config.json";

/// Measures the configuration: reads and writes a second, and what much of it costs.
///
/// Starts a cluster on this machine. Exit status: 0, or 1 where a value or a history was not what it must be.
#[derive(Args, Clone, Debug)]
#[group(id = "config")]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// How many clients, each with one operation at a time.
    #[arg(long, value_name = "COUNT", default_value_t = 64, help_heading = "Rates", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    clients: u32,
    /// How many paths they read and change.
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, help_heading = "Rates", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    paths: u32,
    /// How large their values are, bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 200, help_heading = "Rates", value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    size: u32,
    /// How long to write, and how long to read.
    #[arg(long, value_name = "LENGTH", default_value = "10s", help_heading = "Rates", value_parser = some_length)]
    duration: Duration,

    /// How many paths are filled. [default: none]
    #[arg(long, value_name = "COUNT", default_value_t = 0, help_heading = "Filling", value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    fill: u32,
    /// How large their values are, bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 10_000, help_heading = "Filling", value_parser = clap::value_parser!(u32).range(16..=1_048_576))]
    fill_size: u32,
    /// How many versions each is given.
    #[arg(long, value_name = "COUNT", default_value_t = 8, help_heading = "Filling", value_parser = clap::value_parser!(u32).range(1..=100))]
    versions: u32,

    #[command(flatten)]
    trial: Trial,
}

/// All figures.
#[derive(Debug, Serialize)]
struct Outcome {
    clients: u32,
    paths: u32,
    size: u32,
    shards: u32,
    writes: Rate,
    reads: Rate,
    filled: Option<fill::Filled>,
    failures: Vec<String>,
}

/// How fast something went.
#[derive(Clone, Copy, Debug, Serialize)]
struct Rate {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    failed: u64,
}

/// The command.
pub(crate) async fn command(options: &Options) -> anyhow::Result<ExitCode> {
    let mut cluster = options.trial.cluster().await?;
    let outcome = interruptible(measure(options, &mut cluster)).await;
    cluster.end().await;
    let outcome = outcome?;
    let (text, figures) = (text(&outcome), serde_json::to_string(&outcome)?);
    options.trial.tell(&Verdict { text, figures, failures: outcome.failures })
}

async fn measure(options: &Options, cluster: &mut Cluster) -> anyhow::Result<Outcome> {
    let clients = vec![cluster.client().await?, cluster.client().await?];
    health::well(&clients[0], PATIENCE).await?;
    // Every path has a value before any is read.
    fill::put_all(&clients, options.paths, 64, |path| (rate_path(path), vec![b'0'; options.size as usize])).await?;
    let writes = rate(options, &clients, Sort::Write).await?;
    let reads = rate(options, &clients, Sort::Read).await?;
    let (filled, failures) = match options.fill {
        0 => (None, Vec::new()),
        _ => fill::fill(options, cluster, &clients).await.map(|(filled, failures)| (Some(filled), failures))?,
    };
    let Options { clients, paths, size, trial: Trial { shards, .. }, .. } = *options;
    Ok(Outcome { clients, paths, size, shards, writes, reads, filled, failures })
}

#[derive(Clone, Copy)]
enum Sort {
    Read,
    Write,
}

fn rate_path(number: u32) -> String {
    format!("rate/{number}")
}

/// Reads or writes in a closed loop.
async fn rate(options: &Options, clients: &[Client], sort: Sort) -> anyhow::Result<Rate> {
    let end = Instant::now() + options.duration;
    let began = Instant::now();
    let value: Arc<[u8]> = vec![b'1'; options.size as usize].into();
    let mut running = JoinSet::new();
    for number in 0..options.clients {
        let client = clients[number as usize % clients.len()].clone();
        let (paths, value, mut dice) = (options.paths, Arc::clone(&value), Dice::new(number.into()));
        running.spawn(async move {
            let (mut took, mut failed) = (Vec::new(), 0_u64);
            while Instant::now() < end {
                let path = rate_path(dice.below(paths.into()) as u32);
                let config = client.config(path).patience(PATIENCE);
                let sent = Instant::now();
                let done = match sort {
                    Sort::Read => config.get().await.is_ok_and(|found| found.is_some()),
                    Sort::Write => config.put("text/plain", &value).await.is_ok(),
                };
                match done {
                    true => took.push(sent.elapsed().as_micros() as u64),
                    false => failed += 1,
                }
            }
            (took, failed)
        });
    }
    let mut latency = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).context("the bounds are in order")?;
    let mut failures = 0;
    while let Some(done) = running.join_next().await {
        let (took, failed) = done?;
        took.into_iter().for_each(|micros| latency.saturating_record(micros.max(1)));
        failures += failed;
    }
    let quantile = |q: f64| quantile_ms(&latency, q).unwrap_or_default();
    let per_second = latency.len() as f64 / began.elapsed().as_secs_f64();
    Ok(Rate { per_second, p50_ms: quantile(0.5), p99_ms: quantile(0.99), failed: failures })
}

fn text(outcome: &Outcome) -> String {
    let Outcome { clients, paths, size, shards, .. } = outcome;
    let mut text = format!("{clients} clients, {paths} paths of {size} bytes, {shards} shards\n");
    for (what, Rate { per_second, p50_ms, p99_ms, failed }) in [("writes", &outcome.writes), ("reads", &outcome.reads)]
    {
        text += &format!("{what:>7} {per_second:>8.0}/s  p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms, {failed} failed\n");
    }
    if let Some(filled) = &outcome.filled {
        text += &fill::text(filled);
    }
    text
}
