//! `services`: how soon an instance that has died is gone, and whether those that live stay.
//!
//! Processes of their own ([`instances`]) register instances of many services, over all shards, each bound to one of
//! their sessions. Some of them are killed (SIGKILL), all at once: nothing is heard of their sessions any more. From then
//! on the lists of all services are read again and again, as anybody reads them, and beside that each instance that was
//! killed is asked for by its own name over DNS, with as many of those that live.
//!
//! # A run fails
//! 1. where an instance of a killed process is listed, or its name answered, later than its TTL and [`GRACE`] after
//!    the kill;
//! 2. where one of a process that lives is missing from any list, or its name not answered;
//! 3. where not all were listed before, and found by name.

pub(crate) mod instances;
mod names;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
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
    cluster::{Cluster, health, interrupt::interruptible},
    faults::Spread,
    progress::Progress,
    run::some_length,
    trial::{Trial, Verdict},
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
    #[command(flatten)]
    trial: Trial,
}

/// The service that an instance is of, and its id.
fn called(instance: u32, services: u32) -> (String, String) {
    (format!("payments-{}", instance % services), format!("i-{instance}"))
}

/// The command.
pub(crate) async fn command(options: &Options) -> anyhow::Result<ExitCode> {
    ensure!(options.kill < options.instances, "some must live: --kill is less than --instances");
    let mut cluster = options.trial.cluster().await?;
    let seen = interruptible(run(options, &mut cluster)).await;
    cluster.end().await;
    let Seen { registered, mut ways } = seen?;
    let mut text = format!(
        "{} instances of {} services registered in {:.1} s; {} killed, with a TTL of {:?}\n",
        options.instances,
        options.services,
        registered.as_secs_f64(),
        options.kill,
        options.ttl
    );
    let mut failures = Vec::new();
    let mut figures = serde_json::Map::new();
    for way in &mut ways {
        failures.append(&mut judge(way, options.kill as usize, options.ttl + GRACE));
        let gone = Spread::of(way.gone.values().map(Duration::as_secs_f64).collect());
        let s = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.2}"));
        let (name, median, p99, worst) = (way.name, s(gone.median), s(gone.p99), s(gone.max));
        text +=
            &format!("gone from {name} after p50 {median} s, p99 {p99} s, worst {worst} s, by {} looks\n", way.looks);
        figures.insert(way.field.to_owned(), json!({"goneAfterS": gone, "looks": way.looks}));
    }
    if failures.is_empty() {
        text += "each that was killed was gone in time, and none that lives was missing\n";
    }
    let figures = json!({
        "instances": options.instances, "services": options.services, "killed": options.kill,
        "ttlS": options.ttl.as_secs_f64(), "registeredS": registered.as_secs_f64(), "ways": figures,
        "failures": failures,
    });
    options.trial.tell(&Verdict { text, figures: figures.to_string(), failures })
}

/// What was seen.
struct Seen {
    registered: Duration,
    ways: [Way; 2],
}

/// What was seen on one of the ways to find an instance.
struct Way {
    name: &'static str,
    /// Its field in the figures.
    field: &'static str,
    /// For each of those that were killed, the end of the first look that did not find it, since the kill.
    gone: BTreeMap<u32, Duration>,
    looks: u32,
    wrong: Vec<String>,
}

/// Why a run is a failed one.
fn judge(way: &mut Way, killed: usize, most: Duration) -> Vec<String> {
    let (name, gone, mut wrong) = (way.name, &way.gone, std::mem::take(&mut way.wrong));
    let late: Vec<_> = gone.iter().filter(|(_, at)| **at > most).collect();
    if let Some((instance, at)) = late.iter().max_by_key(|(_, at)| **at) {
        let late = late.len();
        wrong.push(format!(
            "{late} were gone from {name} later than {most:?} after the kill, i-{instance} after {at:.2?}"
        ));
    }
    if gone.len() < killed {
        wrong.push(format!("{} of {killed} that were killed are still in {name}", killed - gone.len()));
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
    let all: Vec<u32> = (0..options.instances).collect();
    let lists = async |_: &[u32]| look(&client, options.services).await;
    let resolver = names::Resolver::new(cluster.dns()?, options.services);
    let by_name = async |asked: &[u32]| resolver.found(asked).await;
    for (name, listed) in [("listed", lists(&all).await?), ("found by name", by_name(&all).await?)] {
        let missing = all.len() - listed.len();
        ensure!(missing == 0, "{missing} of {} instances are not {name} once they are registered", all.len());
    }

    for child in &mut doomed {
        child.start_kill().context("a process cannot be killed")?;
    }
    let killed = Instant::now();
    let give_up = killed + options.ttl * 3 + GRACE * 10;
    let mut progress = Progress::new("instances gone from the lists", options.kill.into());
    let listed = follow(options, ("the lists", "lists"), killed, give_up, lists, |gone| progress.at(gone));
    let named = follow(options, ("DNS", "dns"), killed, give_up, by_name, |_| {});
    let (listed, named) = tokio::try_join!(listed, named)?;
    progress.end();
    Ok(Seen { registered, ways: [listed, named] })
}

/// Looks again and again, until all who were killed are gone and for [`AFTER`] more, or until it gives up. `look` is
/// told whom it must look for, and says whom it found of them.
async fn follow(
    options: &Options,
    (name, field): (&'static str, &'static str),
    killed: Instant,
    give_up: Instant,
    look: impl AsyncFn(&[u32]) -> anyhow::Result<BTreeSet<u32>>,
    mut tell: impl FnMut(u64),
) -> anyhow::Result<Way> {
    let mut way = Way { name, field, gone: BTreeMap::new(), looks: 0, wrong: Vec::new() };
    let mut quiet: Option<Instant> = None;
    while quiet.is_none_or(|since| since.elapsed() < AFTER) && Instant::now() < give_up {
        // Of those that live as many again, others each time.
        let living = options.instances - options.kill;
        let must: BTreeSet<u32> = (0..living.min(options.kill))
            .map(|at| {
                options.kill
                    + ((u64::from(way.looks) * u64::from(options.kill) + u64::from(at)) % u64::from(living)) as u32
            })
            .collect();
        let left: Vec<u32> = (0..options.kill).filter(|id| !way.gone.contains_key(id)).collect();
        let asked: Vec<u32> = left.iter().chain(&must).copied().collect();
        let found = look(&asked).await?;
        let at = killed.elapsed();
        way.looks += 1;
        let missing: Vec<&u32> = must.iter().filter(|id| !found.contains(id)).collect();
        if let (Some(one), true) = (missing.first(), way.wrong.len() < 5) {
            let missing = missing.len();
            way.wrong.push(format!(
                "{missing} that live are missing from {name} {at:.2?} after the kill, i-{one} among them"
            ));
        }
        way.gone.extend(left.iter().filter(|id| !found.contains(id)).map(|id| (*id, at)));
        if way.gone.len() == options.kill as usize && quiet.is_none() {
            quiet = Some(Instant::now());
        }
        tell(way.gone.len() as u64);
        sleep(Duration::from_millis(20)).await;
    }
    Ok(way)
}

/// Who is healthy, of all services.
async fn look(client: &Client, services: u32) -> anyhow::Result<BTreeSet<u32>> {
    let lists = (0..services).map(|service| async move {
        let (service, _) = called(service, services);
        client.service(service).healthy().patience(PATIENCE).list().await
    });
    let lists = try_join_all(lists).await?;
    let number = |id: &str| id.strip_prefix("i-").and_then(|number| number.parse().ok());
    lists
        .into_iter()
        .flatten()
        .map(|found| {
            number(found.instance.as_str()).with_context(|| format!("{} is not ours", found.instance.as_str()))
        })
        .collect()
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
        let failures = |seconds: &[u64], wrong: &[&str]| {
            let gone = (0..).zip(seconds.iter().copied().map(Duration::from_secs)).collect();
            let wrong = wrong.iter().copied().map(str::to_owned).collect();
            judge(&mut Way { name: "lists", field: "lists", gone, looks: 1, wrong }, 2, Duration::from_secs(6)).len()
        };
        assert_eq!(failures(&[5, 6], &[]), 0);
        assert_eq!(failures(&[5, 7], &[]), 1);
        assert_eq!(failures(&[5], &[]), 1);
        assert_eq!(failures(&[5, 6], &["one is missing"]), 1);
    }
}
