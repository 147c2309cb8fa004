//! `chaos`: does a cluster of real processes keep its promises, whatever happens to it?
//!
//! A cluster of this machine, each node behind a network of our own, bears clients that behave as clients do, and
//! faults in an order that a seed decides: nodes killed, paused, restarted, cut off, with slow networks, with slow,
//! full and forgetful disks, with boot clocks that are far off after a restart. Everything that the clients are told is
//! recorded, by lock, election and path of the configuration, and each one's whole history is checked: is there an order
//! in which one correct lock or path would have answered so ([`linear`](crate::linear))? Watches over all shards, some of
//! which are dropped and resumed elsewhere all the time, must tell all of it once and in order ([`told`](crate::told)).
//!
//! # A run fails
//! 1. where a history is not linearizable, or its verdict could not be decided;
//! 2. where the online check saw a broken promise: two holders, a token that falls, an early end, a stale read; where a
//!    watch broke a law, or was told of gaps in most of what it watched;
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
mod shelf;
mod strike;
mod watchers;

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
    book::{Book, Checker, Counts, Found, Name, Whole},
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
    told::Sum,
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
/// Of the least operations a second, paths make up at least such a part, elections such a part, and each watch is told
/// at least so many events for each of them.
const PATHS_SHARE: f64 = 0.1;
const ELECTED_SHARE: f64 = 0.005;
const TOLD_SHARE: f64 = 0.1;
/// How long clients may take to finish what they are at, and watches to be told the last of it.
const FINISH: Duration = Duration::from_secs(40);

const EXAMPLES: &str = "\
Examples:
  wardlock-loadtest chaos --duration 60s
  wardlock-loadtest chaos --nodes 5 --duration 3h --seed 7 --json chaos.json
  wardlock-loadtest chaos --faults kill,pause,one-way --duration 2m --least 5";

/// Does everything to a cluster that happens to clusters, and checks the history of each lock, election and path.
///
/// Starts a cluster on this machine, behind a network that can be cut. Clients acquire, campaign, wait, renew, release
/// and read, and change the configuration; some are silent past their TTL, some die, some lose answers and repeat. Some
/// watch all of it, some of these here and there in turn. Faults come one after the other
/// and sometimes two at once, each undone before the next; then every shard must serve again.
///
/// Exit status: 0, or 1 where a history is not linearizable or undecided, a watch was not told everything once and in
/// order, a promise was broken, the cluster did not recover, or too little happened.
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
    /// How many names of locks and elections are in use at once, and how many paths.
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
    let book = Book::new(options.names as usize, options.clients, watchers::WATCHES, seed);
    let think = Duration::from_secs_f64(f64::from(options.clients) / options.rate);
    let world = Arc::new(World::new(pool, book, options.ttl, think));
    let checker = Checker::start()?;
    let probes = Probes::new(&world)?;
    let mut looks = JoinSet::new();
    let watching = watchers::watch(&world, seed).await.context("the watches cannot be opened")?;
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
    let all_told = async {
        while !world.book().told.settle().is_empty() {
            sleep(CLOSE.0).await;
        }
    };
    // What is missing then is told by `end`.
    let _ = timeout(FINISH, all_told).await;
    drop(watching);
    let checked = checker.end();
    let (operations, watched, violations, examples) = {
        let mut book = world.book();
        book.told.end();
        (book.counts, book.told.sum().clone(), book.safety.violations(), book.safety.examples().to_vec())
    };
    let calm_ops_per_s = done.calm_operations as f64 / done.calm.as_secs_f64().max(1e-3);
    failures.extend(judge(&checked, violations, calm_ops_per_s, options.floor));
    failures.extend(judge_watches(&watched));
    let least = options.floor * began.elapsed().as_secs_f64();
    failures.extend(too_little(&operations, &watched, least));
    let missing = fault::missing(kinds, &outcome::by_kind(&done.struck), options.least);
    // A run that found something ended early.
    if !missing.is_empty() && !checked.is_bad() && violations + watched.broken == 0 {
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
        checked: checked.locks,
        checked_paths: checked.paths,
        watched,
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
        if checker.found().is_bad() || is_broken(world) {
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

/// Whether a promise was broken, as far as is known.
fn is_broken(world: &World) -> bool {
    let book = world.book();
    book.safety.violations() > 0 || book.told.sum().broken > 0
}

fn names(planned: &[fault::Planned]) -> String {
    planned.iter().map(|planned| planned.kind.name()).collect::<Vec<_>>().join(" and ")
}

/// A name that nobody uses any more.
#[derive(Clone, Copy)]
enum Closing {
    Lock(Name),
    Path(Name),
}

impl Closing {
    /// Takes a last look. One that fails in a fault is no less a reason to look again.
    async fn look(self, world: &Arc<World>) {
        loop {
            let seen = match self {
                Closing::Lock(name) => world.look(name, 0, &mut Dice::new(name)).await.is_some(),
                Closing::Path(name) => world.look_at_path(name, 0, &mut Dice::new(name)).await.is_some(),
            };
            if seen {
                return;
            }
            sleep(CLOSE.0).await;
        }
    }
}

/// Closes names that nobody uses any more, with a last look; in the end until there are none. Looks under way
/// outlive this.
async fn close_names(world: &Arc<World>, checker: &Checker, looks: &mut JoinSet<Closing>, to_the_end: bool) {
    while !to_the_end || world.book().open_names() > 0 {
        let closing: Vec<Closing> = {
            let mut book = world.book();
            let locks = book.locks.closing(CLOSE.1).into_iter().map(Closing::Lock);
            locks.chain(book.paths.closing(CLOSE.1).into_iter().map(Closing::Path)).collect()
        };
        for name in closing {
            let world = Arc::clone(world);
            looks.spawn(async move {
                name.look(&world).await;
                name
            });
        }
        while let Some(looked) = looks.join_next().await {
            let Ok(looked) = looked else { continue };
            let mut book = world.book();
            let whole = match looked {
                Closing::Lock(name) => Whole::Lock(book.close(name)),
                Closing::Path(name) => Whole::Path(book.close_path(name)),
            };
            drop(book);
            checker.take(whole);
        }
        // What every watch was told is forgotten.
        let _ = world.book().told.settle();
        sleep(CLOSE.0).await;
    }
}

/// Every lease of a dead client ends: what is still held long after the last one went, in words.
async fn all_free(world: &Arc<World>, seed: u64, ttl: Duration) -> Vec<String> {
    let mut held: Vec<Name> = world.book().locks.in_use().to_vec();
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
fn judge(found: &Found, violations: u64, calm_ops_per_s: f64, floor: f64) -> Vec<String> {
    let mut failures = Vec::new();
    for (of, checked) in [("locks", &found.locks), ("paths", &found.paths)] {
        if checked.violations > 0 {
            failures.push(format!("{} histories of {of} are not linearizable", checked.violations));
        }
        if checked.undecided > 0 {
            failures.push(format!("{} histories of {of} could not be decided", checked.undecided));
        }
        if checked.operations == 0 {
            failures.push(format!("no operation of {of} was checked"));
        }
    }
    if violations > 0 {
        failures.push(format!("{violations} promises were broken"));
    }
    if calm_ops_per_s < floor {
        failures.push(format!("only {calm_ops_per_s:.0} of {floor:.0} operations/s while nothing was wrong"));
    }
    failures
}

/// Why a run is a failed one, by what its watches were told.
fn judge_watches(watched: &Sum) -> Vec<String> {
    let mut failures = Vec::new();
    if watched.broken > 0 {
        failures.push(format!("{} laws of watches were broken", watched.broken));
    }
    if watched.with_gaps >= watched.whole {
        let Sum { with_gaps, whole, .. } = watched;
        failures
            .push(format!("{with_gaps} histories were told with gaps, and only {whole} whole: most cannot be judged"));
    }
    if watched.resumed == 0 {
        failures.push("no watch was resumed".to_owned());
    }
    failures
}

/// What came too seldom, where so many operations would have been the least.
fn too_little(counts: &Counts, watched: &Sum, least: f64) -> Vec<String> {
    let paths = counts.path_reads + counts.changed + counts.mismatched;
    let told = watched.events as f64 / watched.watches.max(1) as f64;
    let parts = [
        ("operations on paths", paths as f64, PATHS_SHARE),
        ("changes of paths", counts.changed as f64, PATHS_SHARE / 10.0),
        ("leaders elected", counts.elected as f64, ELECTED_SHARE),
        ("events told to each watch", told, TOLD_SHARE),
    ];
    let few = parts.into_iter().filter(|(_, count, share)| *count < least * share);
    few.map(|(what, count, share)| format!("too few {what}: {count:.0} of {:.0}", least * share)).collect()
}

#[cfg(test)]
mod tests {
    use super::{book::Checked, *};

    #[test]
    fn what_is_wrong_undecided_or_too_little_fails_a_run() {
        let checked = Checked { histories: 9, operations: 900, ..Checked::default() };
        let right = Found { locks: checked.clone(), paths: checked.clone() };
        assert!(judge(&right, 0, 500.0, 100.0).is_empty());
        let locks = |locks| Found { locks, ..right.clone() };
        for wrong in [
            judge(&locks(Checked { violations: 1, ..checked.clone() }), 0, 500.0, 100.0),
            judge(&locks(Checked { undecided: 1, ..checked.clone() }), 0, 500.0, 100.0),
            judge(&locks(Checked { operations: 0, ..checked.clone() }), 0, 500.0, 100.0),
            judge(&Found { paths: Checked { violations: 1, ..checked.clone() }, ..right.clone() }, 0, 500.0, 100.0),
            judge(&right, 1, 500.0, 100.0),
            judge(&right, 0, 99.0, 100.0),
        ] {
            assert_eq!(wrong.len(), 1, "{wrong:?}");
        }
    }

    #[test]
    fn watches_that_broke_a_law_had_gaps_or_did_too_little_fail_a_run() {
        let right = Sum { watches: 2, events: 2_000, resumed: 1, whole: 10, ..Sum::default() };
        assert!(judge_watches(&right).is_empty());
        for wrong in [
            Sum { broken: 1, ..right.clone() },
            Sum { with_gaps: 10, ..right.clone() },
            Sum { resumed: 0, ..right.clone() },
        ] {
            assert_eq!(judge_watches(&wrong).len(), 1, "{wrong:?}");
        }
        let counts = Counts { path_reads: 500, changed: 500, elected: 50, ..Counts::default() };
        assert!(too_little(&counts, &right, 5_000.0).is_empty());
        assert_eq!(too_little(&Counts { elected: 0, ..counts }, &right, 5_000.0).len(), 1);
        assert_eq!(too_little(&Counts { changed: 0, ..counts }, &right, 5_000.0).len(), 1);
        assert_eq!(too_little(&counts, &Sum { events: 100, ..right }, 5_000.0).len(), 1);
        assert_eq!(too_little(&Counts::default(), &Sum::default(), 5_000.0).len(), 4);
    }

    #[test]
    fn a_session_lives_for_a_second_at_least() {
        assert!(ttl("999ms").is_err());
        assert_eq!(ttl("3s"), Ok(Duration::from_secs(3)));
    }
}
