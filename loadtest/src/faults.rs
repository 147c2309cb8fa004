//! `faults`: what nodes that die, hang, restart or are cut off cost the clients of a cluster.
//!
//! A cluster of this machine bears a modest open loop while its nodes are killed, paused and restarted, one at a
//! time. What counts is what clients see: for each shard how long it gave no answer, and which share of the
//! operations failed or was late.
//!
//! # Promises
//! 1. The safety check of every run is on: a broken promise or a lock that was acknowledged and lost fails the run.
//! 2. A run with fewer faults than asked for is a failed run, whatever it shows.
//! 3. Each fault is undone, and the cluster well again, before the next; the cluster is ended, however the run ends.
//! 4. What is kept of operations is bounded before the first is sent ([`SEEN`]).

mod inject;
mod outage;
mod show;
mod summary;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::ensure;
use clap::Args;
use serde::Serialize;
use tokio::time::Instant;
use wardlock_router::Client;

use self::{
    inject::{Injector, LEAD_IN, Planned},
    summary::{Availability, Fault, Sum},
};
pub(crate) use self::{
    outage::{Seen, outages},
    summary::Spread,
};
use crate::{
    bench::{self, Bench},
    cluster::{Cluster, Local, Own, interrupt::interruptible},
    page,
    report::Report,
    run,
    workload::Kind,
};

/// The version of the document's form.
const SCHEMA: u32 = 1;
/// The rate, unless one is given: every shard is asked often, and no machine is short of breath.
const RATE: f64 = 2_000.0;
/// The sessions, unless a number is given. Their loss would be noticed whoever uses them.
const SESSIONS: u32 = 100;
/// Clients wait while a shard is out; there are enough of them for so many seconds of the rate, that those of the
/// other shards are not held up.
const OUT: f64 = 10.0;
/// How much longer than they should the faults may take in all, for a cluster that is slow to recover: one more
/// interval, up to this, or where there are many faults such a part of their time.
const SLACK: Duration = Duration::from_secs(15);
const SLACK_PART: u32 = 10;
/// No more operations than this are kept in mind.
const SEEN: f64 = 5_000_000.0;

const EXAMPLES: &str = "\
Examples:
  wardlock-loadtest faults --kills 5
  wardlock-loadtest faults --kills 100 --pauses 50 --cuts 50 --reads 0 --json failover.json
  wardlock-loadtest faults --kills 3 --pauses 3 --pause 5s --rolling 1 --every 15s --json faults.json
  wardlock-loadtest faults --nodes 5 --shards 64 --rate 5000 --rolling 2";

/// Kills, pauses, cuts off and restarts nodes under load and tells what clients see of it.
///
/// Starts a cluster on this machine. Kills, pauses and cuts strike the node that leads the most shards; a rolling restart
/// drains and restarts one node after the other.
///
/// Exit status: 0, or 1 where a promise was broken, an acknowledged lock was lost, or fewer faults than asked for
/// could be injected.
#[derive(Args, Clone, Debug)]
#[group(id = "faults")]
#[command(
    after_help = EXAMPLES,
    mut_arg("rate", |arg| arg.help("Operations per second, answered or not [default: 2000]")),
    mut_arg("sessions", |arg| arg.help("How many sessions the clients use [default: 100]")),
    mut_arg("clients", |arg| arg.help("The most operations under way at once [default: 10 seconds of the rate]")),
    mut_arg("duration", |arg| arg.hide(true)),
    mut_arg("closed_loop", |arg| arg.hide(true)),
    mut_arg("target", |arg| arg.hide(true)),
    mut_arg("certs", |arg| arg.hide(true)),
    mut_arg("server_pid", |arg| arg.hide(true)),
)]
pub(crate) struct Options {
    /// How many times the busiest node is killed (SIGKILL) and started again 3 s later.
    #[arg(long, value_name = "COUNT", default_value_t = 0, help_heading = "Faults", value_parser = clap::value_parser!(u32).range(..=1_000))]
    kills: u32,
    /// How many times the busiest node is paused (SIGSTOP).
    #[arg(long, value_name = "COUNT", default_value_t = 0, help_heading = "Faults", value_parser = clap::value_parser!(u32).range(..=1_000))]
    pauses: u32,
    /// How many times the busiest node is cut off one way: the other nodes do not hear it. The cluster then runs
    /// behind proxies, which every fault's figures show.
    #[arg(long, value_name = "COUNT", default_value_t = 0, help_heading = "Faults", value_parser = clap::value_parser!(u32).range(..=1_000))]
    cuts: u32,
    /// How long a pause or a cut lasts.
    #[arg(long, value_name = "LENGTH", default_value = "3s", value_parser = run::some_length, help_heading = "Faults")]
    pause: Duration,
    /// How many times every node is drained and restarted, one after the other.
    #[arg(long, value_name = "COUNT", default_value_t = 0, help_heading = "Faults", value_parser = clap::value_parser!(u32).range(..=1_000))]
    rolling: u32,
    /// The time from one fault to the next; more, where the cluster is not well by then.
    #[arg(long, value_name = "LENGTH", default_value = "10s", value_parser = run::some_length, help_heading = "Faults")]
    every: Duration,
    /// From when on an answer counts as late.
    #[arg(long, value_name = "LENGTH", default_value = "1s", value_parser = run::some_length, help_heading = "Faults")]
    late: Duration,

    /// The cluster's nodes.
    #[arg(long, value_name = "COUNT", default_value_t = 3, help_heading = "Cluster", value_parser = clap::value_parser!(u32).range(3..=9))]
    nodes: u32,
    /// Its shards.
    #[arg(long, value_name = "COUNT", default_value_t = 16, help_heading = "Cluster", value_parser = clap::value_parser!(u32).range(1..=256))]
    shards: u32,
    #[command(flatten, next_help_heading = "Cluster")]
    local: Local,

    #[command(flatten)]
    load: run::Options,
}

/// What a run with faults came to.
#[derive(Debug, Serialize)]
struct Outcome {
    schema: u32,
    /// How many faults were asked for, and how many were injected.
    asked: usize,
    injected: usize,
    /// From when on an answer counts as late, seconds.
    late_s: f64,
    /// How long passes between two operations of a shard, on average, milliseconds.
    spacing_ms: Option<f64>,
    faults: Vec<Fault>,
    /// By kind, and all.
    sums: Vec<Sum>,
    availability: Availability,
    /// Why the run is a failed one, if it is.
    failures: Vec<String>,
    report: Report,
}

/// The command.
pub(crate) async fn command(options: &Options) -> anyhow::Result<ExitCode> {
    let nodes: Vec<u32> = (1..=options.nodes).collect();
    let planned = inject::plan(options.kills, options.pauses, options.cuts, options.rolling, &nodes);
    ensure!(!planned.is_empty(), "no fault is asked for: say --kills, --pauses, --cuts or --rolling COUNT");
    ensure!(!options.load.closed_loop, "a closed loop stops to ask while nobody answers: faults need a --rate");
    let asks = matches!(options.load.workload.unwrap_or_default(), Kind::Mix | Kind::Locks);
    ensure!(asks, "faults are told by the locks of each shard: --workload is mix or locks");
    let mut load = options.load.clone();
    let rate = *load.rate.get_or_insert(RATE);
    load.sessions.get_or_insert(SESSIONS);
    load.clients.get_or_insert((rate * OUT).clamp(1_000.0, 100_000.0) as u32);
    let planned_time = options.every * u32::try_from(planned.len())?;
    load.duration = LEAD_IN + planned_time + options.every.min(SLACK).max(planned_time / SLACK_PART);
    let seen = rate * (load.duration + load.warmup).as_secs_f64();
    ensure!(
        seen <= SEEN,
        "{} faults at {rate:.0} operations/s would take {:.0} min and {seen:.0} operations, more than can be kept in mind: \
         lower --rate or ask for fewer faults",
        planned.len(),
        load.duration.as_secs_f64() / 60.0
    );
    let files = [&load.json, &load.html].into_iter().flatten();
    files.map(PathBuf::as_path).try_for_each(run::writable)?;
    let mut cluster = match options.cuts {
        0 => interruptible(Cluster::start(&options.local, options.nodes, options.shards)).await?,
        _ => {
            let apart = Cluster::start_apart(&options.local, options.nodes, options.shards, Own::default(), 0);
            interruptible(apart).await?.0
        }
    };
    cluster.aim(&mut load.place);
    let outcome = interruptible(faults(options, &load, &planned, &mut cluster)).await;
    cluster.end().await;
    let outcome = outcome?;
    print!("{}", show::text(&outcome));
    if let Some(file) = &options.load.json {
        run::write(file, &serde_json::to_string(&outcome)?)?;
    }
    if let Some(file) = &options.load.html {
        run::write(file, &page::html(std::slice::from_ref(&outcome.report)))?;
    }
    Ok(if outcome.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn faults(
    options: &Options,
    load: &run::Options,
    planned: &[Planned],
    cluster: &mut Cluster,
) -> anyhow::Result<Outcome> {
    let client = Client::at(&load.place.target, load.place.certs.as_deref()).await?;
    let bench = Bench::connect(load).await?;
    let plan = bench.plan().clone();
    let began = Instant::now();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let first = plan.warmup + LEAD_IN;
    let Options { nodes, pause, every, .. } = *options;
    let mut injector = Injector { cluster, client, nodes, pause, every, began, first };
    let mut done = Vec::new();
    let (report, injected) = tokio::join!(
        bench.measure_observed(
            plan.rate,
            plan.clients,
            plan.reads,
            plan.duration,
            Some(observer(&seen, began.into_std()))
        ),
        injector.inject(planned, &mut done),
    );
    bench.close().await;
    let report = report?;
    let end = plan.warmup + plan.duration;
    // What was done to the cluster after the load had ended, nobody saw.
    done.retain(|fault| fault.at < end);
    let seen = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
    let faults = summary::faults(&done, &seen, options.late, end);
    let spacing = 1e3 * f64::from(options.shards) * end.as_secs_f64() / seen.len() as f64;
    Ok(Outcome {
        schema: SCHEMA,
        asked: planned.len(),
        injected: done.len(),
        late_s: options.late.as_secs_f64(),
        spacing_ms: spacing.is_finite().then_some(spacing),
        sums: summary::sums(&faults),
        availability: summary::availability(&faults, &seen, options.late, options.shards, end),
        faults,
        failures: failures(planned.len(), done.len(), injected.err(), &report),
        report,
    })
}

/// Keeps what the clients see; no more than was reckoned with beforehand.
fn observer(seen: &Arc<Mutex<Vec<Seen>>>, began: std::time::Instant) -> bench::Observer {
    let seen = Arc::clone(seen);
    Arc::new(move |one| {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        if (seen.len() as f64) < 2.0 * SEEN {
            let since = |moment: std::time::Instant| moment.saturating_duration_since(began);
            seen.push(Seen { shard: one.shard, started: since(one.due), ended: since(one.done), answered: one.ok });
        }
    })
}

/// Why a run is a failed one (promises 1 and 2).
fn failures(asked: usize, done: usize, stopped: Option<anyhow::Error>, report: &Report) -> Vec<String> {
    let mut failures = Vec::new();
    if report.safety_violations > 0 {
        let examples = report.safety_examples.join("; ");
        failures.push(format!("{} promises were broken: {examples}", report.safety_violations));
    }
    if report.lost_locks > 0 {
        failures.push(format!("{} locks that were acknowledged were lost", report.lost_locks));
    }
    if done < asked {
        let why =
            stopped.map_or_else(|| "the load ended before; try a longer --every".to_owned(), |why| why.to_string());
        failures.push(format!("only {done} of {asked} faults could be injected: {why}"));
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ramp::sample;

    #[test]
    fn broken_promises_lost_locks_and_missing_faults_fail_a_run() {
        let mut report = sample(1_000.0, 5.0);
        assert!(failures(3, 3, None, &report).is_empty());
        assert_eq!(failures(3, 2, None, &report).len(), 1);
        let silent = anyhow::anyhow!("node 2 does not answer");
        assert_eq!(
            failures(3, 2, Some(silent), &report),
            ["only 2 of 3 faults could be injected: node 2 does not answer"]
        );
        (report.safety_violations, report.lost_locks) = (1, 2);
        assert_eq!(failures(3, 3, None, &report).len(), 2);
    }
}
