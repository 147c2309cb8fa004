//! `services`: how soon an instance that has died is gone, and whether those that live stay.
//!
//! Processes of their own ([`instances`]) register instances of many services, over all shards, each bound to one of
//! their sessions. Some of them are killed (SIGKILL), all at once: nothing is heard of their sessions any more. From then
//! on the lists of all services are read again and again, as anybody reads them.
//!
//! # A run fails
//! 1. where an instance of a killed process is listed later than its TTL and [`GRACE`] after the kill;
//! 2. where one of a process that lives is missing from any list;
//! 3. where not all were listed before.

pub(crate) mod instances;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail, ensure};
use clap::Args;
use futures_util::future::try_join_all;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{sleep, timeout},
};
use wardlock_router::Client;

use crate::{
    cluster::{Cluster, Local, health, interrupt::interruptible},
    faults::Spread,
    progress::Progress,
    run::{some_length, writable, write},
};

/// How much later than its TTL an instance may be gone.
const GRACE: Duration = Duration::from_secs(1);
/// How long everything may take to be registered, and one list to be read.
const REGISTERED: Duration = Duration::from_secs(180);
const PATIENCE: Duration = Duration::from_secs(10);
/// In how many processes those are that are killed, and in how many the others.
const PROCESSES: u32 = 10;
/// How long the lists are read after everything is gone: nobody else may go.
const AFTER: Duration = Duration::from_secs(3);

const EXAMPLES: &str = "\
Examples:
  wardlock-loadtest services --instances 10000 --kill 1000
  wardlock-loadtest services --instances 400 --kill 40 --services 4 --shards 4 --ttl 3s --json services.json";

/// Shows how soon instances that have died are gone, and that those that live are not.
///
/// Starts a cluster on this machine. Exit status: 0, or 1 where one was gone too late, or one that lives was missing.
#[derive(Args, Clone, Debug)]
#[group(id = "discovery")]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// How many instances are registered.
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(20..=1_000_000))]
    instances: u32,
    /// How many of them are killed.
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    kill: u32,
    /// Of how many services they are.
    #[arg(long, value_name = "COUNT", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    services: u32,
    /// The sessions' TTL.
    #[arg(long, value_name = "LENGTH", default_value = "5s", value_parser = some_length)]
    ttl: Duration,
    /// The cluster's nodes.
    #[arg(long, value_name = "COUNT", default_value_t = 3, help_heading = "Cluster", value_parser = clap::value_parser!(u32).range(3..=9))]
    nodes: u32,
    /// Its shards.
    #[arg(long, value_name = "COUNT", default_value_t = 16, help_heading = "Cluster", value_parser = clap::value_parser!(u32).range(1..=256))]
    shards: u32,
    #[command(flatten, next_help_heading = "Cluster")]
    local: Local,
    /// Writes the figures as JSON.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    json: Option<PathBuf>,
}

/// The service that an instance is of, and its id.
fn called(instance: u32, services: u32) -> (String, String) {
    (format!("payments-{}", instance % services), format!("i-{instance}"))
}

/// The command.
pub(crate) async fn command(options: &Options) -> anyhow::Result<ExitCode> {
    ensure!(options.kill < options.instances, "some must live: --kill is less than --instances");
    if let Some(file) = &options.json {
        writable(file)?;
    }
    let mut cluster = interruptible(Cluster::start(&options.local, options.nodes, options.shards)).await?;
    let seen = interruptible(run(options, &mut cluster)).await;
    cluster.end().await;
    let Seen { registered, gone, looks, wrong } = seen?;
    let failures = judge(&gone, options.kill as usize, options.ttl + GRACE, wrong);
    let gone = Spread::of(gone.into_values().map(|at| at.as_secs_f64()).collect());
    let s = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.2}"));
    println!(
        "{} instances of {} services registered in {:.1} s; {} killed, with a TTL of {:?}",
        options.instances,
        options.services,
        registered.as_secs_f64(),
        options.kill,
        options.ttl
    );
    println!(
        "gone from the lists after p50 {} s, p99 {} s, worst {} s, by {looks} looks at all lists",
        s(gone.median),
        s(gone.p99),
        s(gone.max)
    );
    for failure in &failures {
        println!("FAILED: {failure}");
    }
    if failures.is_empty() {
        println!("each that was killed was gone in time, and none that lives was missing");
    }
    if let Some(file) = &options.json {
        let figures = json!({
            "instances": options.instances, "services": options.services, "killed": options.kill,
            "ttlS": options.ttl.as_secs_f64(), "registeredS": registered.as_secs_f64(), "goneAfterS": gone,
            "looks": looks, "failures": failures,
        });
        write(file, &figures.to_string())?;
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What was seen.
struct Seen {
    registered: Duration,
    /// For each of those that were killed, the end of the first look that did not find it, since the kill.
    gone: BTreeMap<String, Duration>,
    looks: u32,
    wrong: Vec<String>,
}

/// Why a run is a failed one.
fn judge(gone: &BTreeMap<String, Duration>, killed: usize, most: Duration, mut wrong: Vec<String>) -> Vec<String> {
    let late: Vec<_> = gone.iter().filter(|(_, at)| **at > most).collect();
    if let Some((instance, at)) = late.iter().max_by_key(|(_, at)| **at) {
        wrong.push(format!("{} were gone later than {most:?} after the kill, {instance} after {at:.2?}", late.len()));
    }
    if gone.len() < killed {
        wrong.push(format!("{} of {killed} that were killed are still listed", killed - gone.len()));
    }
    wrong
}

/// A process with instances.
async fn start(options: &Options, server: &str, certs: &Path, of: std::ops::Range<u32>) -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe().context("this program's own path")?);
    command.arg("instances").arg("--server").arg(server).arg("--certs").arg(certs);
    command
        .arg("--ttl")
        .arg(format!("{}ms", options.ttl.as_millis()))
        .arg("--services")
        .arg(options.services.to_string());
    command.arg("--from").arg(of.start.to_string()).arg("--to").arg(of.end.to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| anyhow!("a process cannot be started: {error}"))?;
    let mut lines = BufReader::new(child.stdout.take().context("it has no stdout")?).lines();
    let said = timeout(REGISTERED, lines.next_line()).await.context("instances are not registered in time")??;
    match said.as_deref() {
        Some("registered") => Ok(child),
        said => bail!("a process with instances said {said:?}"),
    }
}

/// So many, in as many equal parts as there are processes.
fn parts(from: u32, to: u32) -> impl Iterator<Item = std::ops::Range<u32>> {
    let at = move |part: u32| from + ((u64::from(to - from) * u64::from(part)) / u64::from(PROCESSES)) as u32;
    (0..PROCESSES).map(move |part| at(part)..at(part + 1))
}

async fn run(options: &Options, cluster: &mut Cluster) -> anyhow::Result<Seen> {
    let client = cluster.client().await?;
    health::well(&client, PATIENCE).await?;
    let (server, certs) = (cluster.server().to_owned(), cluster.certs());
    let began = Instant::now();
    let start = |of| start(options, &server, &certs, of);
    let (mut doomed, mut living) = (Vec::new(), Vec::new());
    let mut progress = Progress::new("processes with instances", 2 * u64::from(PROCESSES));
    for (doomed_of, living_of) in parts(0, options.kill).zip(parts(options.kill, options.instances)) {
        doomed.push(start(doomed_of).await?);
        living.push(start(living_of).await?);
        progress.at((doomed.len() + living.len()) as u64);
    }
    progress.end();
    let registered = began.elapsed();
    let mut seen = Seen { registered, gone: BTreeMap::new(), looks: 0, wrong: Vec::new() };
    let id = |instance| called(instance, options.services).1;
    let must: BTreeSet<String> = (options.kill..options.instances).map(id).collect();
    let mut left: BTreeSet<String> = (0..options.kill).map(id).collect();
    let listed = look(&client, options.services).await?;
    let missing = must.iter().chain(&left).filter(|id| !listed.contains(*id)).count();
    ensure!(missing == 0, "{missing} of {} instances are not listed once they are registered", options.instances);

    for child in &mut doomed {
        child.start_kill().context("a process cannot be killed")?;
    }
    let killed = Instant::now();
    let mut progress = Progress::new("instances gone", options.kill.into());
    let give_up = options.ttl * 3 + GRACE * 10;
    let mut quiet = None;
    while quiet.is_none_or(|since: Instant| since.elapsed() < AFTER) && killed.elapsed() < give_up {
        let listed = look(&client, options.services).await?;
        let at = killed.elapsed();
        seen.looks += 1;
        let missing: Vec<&String> = must.iter().filter(|id| !listed.contains(*id)).collect();
        if let (Some(one), true) = (missing.first(), seen.wrong.len() < 5) {
            seen.wrong
                .push(format!("{} that live are missing {at:.2?} after the kill, {one} among them", missing.len()));
        }
        let (still, gone): (BTreeSet<String>, BTreeSet<String>) = left.into_iter().partition(|id| listed.contains(id));
        left = still;
        seen.gone.extend(gone.into_iter().map(|id| (id, at)));
        if left.is_empty() && quiet.is_none() {
            quiet = Some(Instant::now());
        }
        progress.at(seen.gone.len() as u64);
        sleep(Duration::from_millis(20)).await;
    }
    progress.end();
    Ok(seen)
}

/// Who is healthy, of all services.
async fn look(client: &Client, services: u32) -> anyhow::Result<BTreeSet<String>> {
    let lists = (0..services).map(|service| async move {
        let (service, _) = called(service, services);
        client.service(service).healthy().patience(PATIENCE).list().await
    });
    let lists = try_join_all(lists).await?;
    Ok(lists.into_iter().flatten().map(|instance| instance.instance.as_str().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_together_are_everything_once() {
        let all: Vec<u32> = parts(7, 1_003).flatten().collect();
        assert_eq!(all, (7..1_003).collect::<Vec<_>>());
    }

    #[test]
    fn an_instance_that_goes_late_or_not_at_all_fails_a_run() {
        let most = Duration::from_secs(6);
        let gone = |seconds: &[u64]| -> BTreeMap<String, Duration> {
            seconds.iter().map(|seconds| (seconds.to_string(), Duration::from_secs(*seconds))).collect()
        };
        assert!(judge(&gone(&[5, 6]), 2, most, Vec::new()).is_empty());
        assert_eq!(judge(&gone(&[5, 7]), 2, most, Vec::new()).len(), 1);
        assert_eq!(judge(&gone(&[5]), 2, most, Vec::new()).len(), 1);
        assert_eq!(judge(&gone(&[5, 6]), 2, most, vec!["one is missing".to_owned()]).len(), 1);
    }
}
