//! `chaos`: does a cluster of real processes keep its promises, whatever happens to it?
//!
//! A cluster of this machine, each node behind a network of our own, bears clients that behave as clients do, and
//! faults in an order that a seed decides: nodes killed, paused, restarted, cut off, with slow networks, with slow,
//! full and forgetful disks, with boot clocks that are far off after a restart. Everything that the clients are told is
//! recorded, lock by lock, and each lock's whole history is checked: is there an order in which one correct lock would
//! have answered so ([`linear`](crate::linear))?
//!
//! # A run fails
//! 1. where a history is not linearizable, or its verdict could not be decided;
//! 2. where the online check saw a broken promise: two holders, a token that falls, an early end, a stale read;
//! 3. where the cluster is not well in time after a fault, or a lock of a dead client is not free in time;
//! 4. where a node ends by itself;
//! 5. where too few operations were answered while nothing was wrong, or a kind of fault came too seldom: a run
//!    that proves nothing is not a good one.
//!
//! What cannot be had on the machine at hand is said; where it was asked for by name the run fails. Disks and
//! clocks of the nodes' own take root.
//!
//! # What it does not do
//! Wall clocks do not jump: a process cannot be given one of its own, and nothing is decided by it. Shards do not
//! move or split: the client whose map is frozen is told the truth by refusals, as any client is.
//!
//! # A mistake on purpose
//! Beside a `wardlock` of a build with planted mistakes, `WARDLOCK_PLANT=NAME` makes all nodes make that one, and
//! the run must fail. A run that sees a broken promise ends with the fault under way.

mod book;
mod client;
mod fault;
mod outcome;
mod pool;
mod probe;
mod strike;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use self::{
    book::{Book, Checked, Checker, Name},
    client::{Actor, World},
    fault::{Kind, Schedule},
    outcome::Outcome,
    pool::Pool,
    probe::Probes,
    strike::{Striker, Struck},
};
use crate::{
    cluster::{Cluster, Local, Own, Without, interrupt::interruptible},
    run,
    workload::Dice,
};

/// How many clients of the library the load comes by; the last one's map is frozen.
const WAYS: usize = 6;
/// The run is undisturbed for so long before the first fault.
const LEAD_IN: Duration = Duration::from_secs(3);
/// And for at least and at most so long between two.
const CALM: (f64, f64) = (0.8, 2.0);
/// So many percent of faults come two at a time.
const OVERLAP: f64 = 25.0;
/// How often names that nobody uses any more are closed, and how many at once.
const CLOSE: (Duration, usize) = (Duration::from_millis(200), 64);
/// Where a kind of fault has not come often enough by then, faults go on for up to so many times the duration.
const LONGER: u32 = 3;
/// How long clients may take to finish what they are at.
const FINISH: Duration = Duration::from_secs(40);

const EXAMPLES: &str = "\
Examples:
  wardlock-loadtest chaos --duration 60s
  wardlock-loadtest chaos --nodes 5 --duration 3h --seed 7 --json chaos.json
  wardlock-loadtest chaos --faults kill,pause,one-way --duration 2m --least 5";

/// Does everything to a cluster that happens to clusters, and checks each lock's history.
///
/// Starts a cluster on this machine, behind a network that can be cut. Clients acquire, wait, renew, release and
/// read; some are silent past their TTL, some die, some lose answers and repeat. Faults come one after the other
/// and sometimes two at once, each undone before the next; then every shard must serve again.
///
/// Exit status: 0, or 1 where a history is not linearizable or undecided, a promise was broken, the cluster did
/// not recover, or too little happened.
#[derive(Args, Clone, Debug)]
#[group(id = "chaos")]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// How long faults come; longer, up to three times, until each kind has come often enough.
    #[arg(long, value_name = "LENGTH", default_value = "60s", value_parser = run::some_length, help_heading = "Faults")]
    duration: Duration,
    /// The kinds of faults.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND,…", help_heading = "Faults")]
    faults: Vec<Kind>,
    /// Decides the order of the faults and what the clients do. [default: another one each time]
    #[arg(long, value_name = "NUMBER", help_heading = "Faults")]
    seed: Option<u64>,
    /// How often each kind must have come.
    #[arg(long, value_name = "COUNT", default_value_t = 1, help_heading = "Faults")]
    least: u32,
    /// How long the cluster may take to be well again after a fault.
    #[arg(long, value_name = "LENGTH", default_value = "30s", value_parser = run::some_length, help_heading = "Faults")]
    heal: Duration,

    /// The cluster's nodes.
    #[arg(long, value_name = "COUNT", default_value_t = 3, help_heading = "Cluster", value_parser = clap::value_parser!(u32).range(3..=9))]
    nodes: u32,
    /// Its shards.
    #[arg(long, value_name = "COUNT", default_value_t = 8, help_heading = "Cluster", value_parser = clap::value_parser!(u32).range(1..=64))]
    shards: u32,
    #[command(flatten, next_help_heading = "Cluster")]
    local: Local,

    /// How many clients, of one session each.
    #[arg(long, value_name = "COUNT", default_value_t = 150, help_heading = "Load", value_parser = clap::value_parser!(u32).range(2..=10_000))]
    clients: u32,
    /// About how many operations they begin each second.
    #[arg(long, value_name = "OPS", default_value_t = 1_500.0, value_parser = run::positive, help_heading = "Load")]
    rate: f64,
    /// Fewer answered each second, while nothing is wrong, fail the run.
    #[arg(long, value_name = "OPS", default_value_t = 100.0, value_parser = run::positive, help_heading = "Load")]
    floor: f64,
    /// How many lock names are in use at once.
    #[arg(long, value_name = "COUNT", default_value_t = 24, help_heading = "Load", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    names: u32,
    /// The sessions' TTL.
    #[arg(long, value_name = "LENGTH", default_value = "3s", value_parser = ttl, help_heading = "Load")]
    ttl: Duration,

    /// Write the figures to this file, too.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    json: Option<PathBuf>,
}

/// A session's TTL.
fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = run::length(text)?;
    if ttl < Duration::from_secs(1) { Err("a session lives for a second at least".to_owned()) } else { Ok(ttl) }
}

/// The command.
pub(crate) async fn command(options: &Options) -> anyhow::Result<ExitCode> {
    if let Some(file) = &options.json {
        run::writable(file)?;
    }
    let seed = options.seed.unwrap_or_else(rand::random);
    let asked = if options.faults.is_empty() { fault::ALL.to_vec() } else { options.faults.clone() };
    let any = |needs: fn(Kind) -> bool| asked.iter().any(|kind| needs(*kind));
    let own = Own { disks: any(Kind::needs_disk), clocks: any(Kind::needs_clock) };
    eprintln!("seed {seed}");
    let started = Cluster::start_apart(&options.local, options.nodes, options.shards, own, seed);
    let (mut cluster, without) = interruptible(started).await?;
    let unavailable = unavailable(&asked, &without);
    for (kind, why) in &unavailable {
        eprintln!("not to be had on this machine: {kind}: {why}");
    }
    let kinds: Vec<Kind> = asked.iter().copied().filter(|kind| !unavailable.contains_key(kind.name())).collect();
    let outcome = interruptible(chaos(options, &kinds, unavailable, &mut cluster, seed)).await;
    let failed = outcome.as_ref().map_or(true, |outcome| !outcome.failures.is_empty());
    let logs = failed.then(|| cluster.keep_data());
    cluster.end().await;
    if let Some(logs) = logs {
        eprintln!("the nodes' logs are in {logs}");
    }
    let outcome = outcome?;
    print!("{}", outcome::text(&outcome));
    if let Some(file) = &options.json {
        run::write(file, &serde_json::to_string(&outcome)?)?;
    }
    Ok(if outcome.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The kinds that cannot be had on this machine, and why.
fn unavailable(asked: &[Kind], without: &Without) -> BTreeMap<String, String> {
    let why = |kind: &Kind| match kind {
        kind if kind.needs_disk() => without.disks.clone(),
        kind if kind.needs_clock() => without.clocks.clone(),
        _ => None,
    };
    asked.iter().filter_map(|kind| Some((kind.name().to_owned(), why(kind)?))).collect()
}

async fn chaos(
    options: &Options,
    kinds: &[Kind],
    unavailable: BTreeMap<String, String>,
    cluster: &mut Cluster,
    seed: u64,
) -> anyhow::Result<Outcome> {
    let began = Instant::now();
    let pool = Pool::connect(cluster.server(), &cluster.certs(), WAYS, options.shards).await?;
    let book = Book::new(options.names as usize, options.clients, seed);
    let think = Duration::from_secs_f64(f64::from(options.clients) / options.rate);
    let world = Arc::new(World::new(pool, book, options.ttl, think));
    let checker = Checker::start()?;
    let probes = Probes::new(&world)?;
    let mut looks = JoinSet::new();
    let mut actors = JoinSet::new();
    for number in 0..options.clients {
        actors.spawn(Actor::new(number, Arc::clone(&world), seed).live());
    }
    let client = cluster.client().await?;
    let dice = Dice::new(!seed);
    let (heal, nodes) = (options.heal, options.nodes);
    let mut done = Done::default();
    let stopped = {
        let mut striker = Striker { cluster: &mut *cluster, client, probes: &probes, nodes, heal, dice };
        let striking = strike_on(options, kinds, seed, (&world, &checker), &mut striker, &mut done);
        tokio::select! {
            struck = striking => struck.err(),
            probed = probes.run(&world) => Some(probed.err().context("the probes have ended")?),
            () = close_names(&world, &checker, &mut looks, false) => None,
        }
    };
    world.stop.store(true, Ordering::Relaxed);
    let mut failures = Vec::new();
    failures.extend(stopped.map(|error| format!("{error:#}")));
    let finish = async { while actors.join_next().await.is_some() {} };
    if timeout(FINISH, finish).await.is_err() {
        failures.push(format!("clients have waited for answers for {} s", FINISH.as_secs()));
        actors.shutdown().await;
    }
    if failures.is_empty() {
        failures.extend(all_free(&world, seed, options.ttl).await);
    }
    world.book().retire_all();
    if timeout(FINISH, close_names(&world, &checker, &mut looks, true)).await.is_err() {
        failures.push("not every lock could be looked at in the end".to_owned());
    }
    let checked = checker.end();
    let (operations, violations, examples) = {
        let book = world.book();
        (book.counts, book.safety.violations(), book.safety.examples().to_vec())
    };
    let calm_ops_per_s = done.calm_operations as f64 / done.calm.as_secs_f64().max(1e-3);
    failures.extend(judge(&checked, violations, calm_ops_per_s, options.floor));
    let missing = fault::missing(kinds, &outcome::by_kind(&done.struck), options.least);
    // A run that found something ended early.
    if !missing.is_empty() && !checked.is_bad() && violations == 0 {
        failures.push(format!("too few faults: {}; try a longer --duration", missing.join(", ")));
    }
    if kinds.len() < options.faults.len() {
        let names: Vec<&str> = unavailable.keys().map(String::as_str).collect();
        failures.push(format!("not to be had on this machine: {}", names.join(", ")));
    }
    Ok(Outcome {
        schema: outcome::SCHEMA,
        seed,
        nodes: options.nodes,
        shards: options.shards,
        seconds: began.elapsed().as_secs_f64(),
        calm_s: done.calm.as_secs_f64(),
        calm_ops_per_s,
        operations,
        checked,
        safety_violations: violations,
        safety_examples: examples,
        network: cluster.net()?.carried(),
        sums: outcome::sums(&done.struck),
        faults: done.struck,
        unavailable,
        failures,
    })
}

/// What happened until the load stopped.
#[derive(Default)]
struct Done {
    struck: Vec<Struck>,
    calm: Duration,
    calm_operations: u64,
}

impl Done {
    /// Nothing is done for a while.
    async fn calm(&mut self, world: &World, length: Duration) {
        let (from, before) = (Instant::now(), world.book().counts.answered);
        sleep(length).await;
        self.calm += from.elapsed();
        self.calm_operations += world.book().counts.answered - before;
    }
}

/// One fault after the other, until the time is over or something is wrong.
async fn strike_on(
    options: &Options,
    kinds: &[Kind],
    seed: u64,
    (world, checker): (&World, &Checker),
    striker: &mut Striker<'_>,
    done: &mut Done,
) -> anyhow::Result<()> {
    let mut schedule = Schedule::new(kinds, seed, OVERLAP);
    // Sessions are opened in the first second.
    sleep(Duration::from_secs(1)).await;
    done.calm(world, LEAD_IN).await;
    let (until, at_most) = (Instant::now() + options.duration, Instant::now() + options.duration * LONGER);
    let missing = |done: &Done| !fault::missing(kinds, &outcome::by_kind(&done.struck), options.least).is_empty();
    while (Instant::now() < until || Instant::now() < at_most && missing(done)) && !kinds.is_empty() {
        if checker.found().is_bad() || world.book().safety.violations() > 0 {
            eprintln!("{:>7.1} s  a promise was broken", striker.probes.now().as_secs_f64());
            return Ok(());
        }
        let next = schedule.next();
        let struck = striker.strike(&next).await.with_context(|| format!("after {}", names(&next)))?;
        let what: Vec<String> =
            struck.faults.iter().map(|(kind, node)| format!("{} of node {node}", kind.name())).collect();
        eprintln!(
            "{:>7.1} s  {:<36} for {:.1} s: all shards wrote again after {:.2} s, well {:.1} s after its end",
            struck.at_s,
            what.join(" and "),
            struck.length_s,
            struck.outage_s,
            struck.well_after_s
        );
        done.struck.push(struck);
        let calm = CALM.0 + (CALM.1 - CALM.0) * striker.dice.unit();
        done.calm(world, Duration::from_secs_f64(calm)).await;
    }
    Ok(())
}

fn names(planned: &[fault::Planned]) -> String {
    planned.iter().map(|planned| planned.kind.name()).collect::<Vec<_>>().join(" and ")
}

/// Closes names that nobody uses any more, with a last look; in the end until there are none. Looks under way
/// outlive this.
async fn close_names(world: &Arc<World>, checker: &Checker, looks: &mut JoinSet<Name>, to_the_end: bool) {
    while !to_the_end || world.book().open_names() > 0 {
        let closing = world.book().closing(CLOSE.1);
        for name in closing {
            let world = Arc::clone(world);
            looks.spawn(async move {
                let mut dice = Dice::new(name);
                // A look that fails in a fault is no less a reason to look again.
                while world.look(name, 0, &mut dice).await.is_none() {
                    sleep(CLOSE.0).await;
                }
                name
            });
        }
        while let Some(looked) = looks.join_next().await {
            if let Ok(name) = looked {
                let history = world.book().close(name);
                checker.take(history);
            }
        }
        sleep(CLOSE.0).await;
    }
}

/// Every lease of a dead client ends: what is still held long after the last one went, in words.
async fn all_free(world: &Arc<World>, seed: u64, ttl: Duration) -> Vec<String> {
    let mut held: Vec<Name> = world.book().in_use();
    let until = Instant::now() + ttl * 4 + Duration::from_secs(10);
    let mut dice = Dice::new(seed);
    while Instant::now() < until {
        let mut still = Vec::new();
        for name in held {
            if !matches!(world.look(name, 0, &mut dice).await, Some(None)) {
                still.push(name);
            }
        }
        held = still;
        if held.is_empty() {
            return Vec::new();
        }
        sleep(Duration::from_millis(200)).await;
    }
    let book = world.book();
    let names: Vec<String> = held.iter().map(|name| book.called(*name)).collect();
    vec![format!("held long after their clients died: {}", names.join(", "))]
}

/// Why a run is a failed one, by what its clients were told.
fn judge(checked: &Checked, violations: u64, calm_ops_per_s: f64, floor: f64) -> Vec<String> {
    let mut failures = Vec::new();
    if checked.violations > 0 {
        failures.push(format!("{} histories are not linearizable", checked.violations));
    }
    if checked.undecided > 0 {
        failures.push(format!("{} histories could not be decided", checked.undecided));
    }
    if violations > 0 {
        failures.push(format!("{violations} promises were broken"));
    }
    if calm_ops_per_s < floor {
        failures.push(format!("only {calm_ops_per_s:.0} of {floor:.0} operations/s while nothing was wrong"));
    }
    if checked.operations == 0 {
        failures.push("no operation was checked".to_owned());
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_undecided_or_too_little_fails_a_run() {
        let right = Checked { histories: 9, operations: 900, ..Checked::default() };
        assert!(judge(&right, 0, 500.0, 100.0).is_empty());
        for wrong in [
            judge(&Checked { violations: 1, ..right.clone() }, 0, 500.0, 100.0),
            judge(&Checked { undecided: 1, ..right.clone() }, 0, 500.0, 100.0),
            judge(&Checked { operations: 0, ..right.clone() }, 0, 500.0, 100.0),
            judge(&right, 1, 500.0, 100.0),
            judge(&right, 0, 99.0, 100.0),
        ] {
            assert_eq!(wrong.len(), 1, "{wrong:?}");
        }
    }

    #[test]
    fn a_session_lives_for_a_second_at_least() {
        assert!(ttl("999ms").is_err());
        assert_eq!(ttl("3s"), Ok(Duration::from_secs(3)));
    }
}
