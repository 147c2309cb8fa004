//! `watch-through`: is a watch told everything, whatever happens to the cluster and to its own connection?
//!
//! A cluster of this machine takes changes of many paths, over all its shards, as fast as it can. Meanwhile the node that
//! leads the most shards is killed (SIGKILL) again and again, and started again; and whoever watches all the paths leaves
//! now and then and comes back by a new connection, with the token that it had as text.
//!
//! Each path is changed by one client, one change after another, each repeated with its own id until its outcome is
//! known: so its versions must be 1, 2, 3 and so on, whatever was repeated. The watch must be told each of them once, in
//! this order, with the value that was put ([`Ledger`]).
//!
//! # A run fails
//! 1. where a version is missing, comes twice, out of order or with another value, or a change was made twice;
//! 2. where the watch is told of a gap;
//! 3. where fewer failovers or reconnects happened than were asked for, or all of them while nothing was changed: no
//!    change begins in one part of the run before the failover of the part before it is over, and each failover begins
//!    in the midst of changes.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    path::PathBuf,
    process::ExitCode,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use hdrhistogram::Histogram;
use serde_json::json;
use tokio::{
    sync::Semaphore,
    task::LocalSet,
    time::{sleep, timeout},
};
use wardlock_machine::{Blob, Change, Command, Configure, Content, Key, Kind, Name, Outcome, What};
use wardlock_router::{Client, Error, Watch, WatchToken, Watched};

use crate::{
    bench::quantile_ms,
    cluster::{Cluster, health, interrupt::interruptible},
    faults::Spread,
    progress::Progress,
    run::some_length,
    trial::{Trial, Verdict},
};

/// What all paths start with.
const PREFIX: &str = "through/";
/// How long one attempt of a change may take, and how long it is repeated.
const ATTEMPT: Duration = Duration::from_secs(3);
const PERSISTENCE: Duration = Duration::from_secs(60);
/// How long the cluster may take to be well again, and the watch to come back.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the last change may take to be told.
const LAST: Duration = Duration::from_secs(30);

const EXAMPLES: &str = "\
Examples:
  wardlock-loadtest watch-through --changes 100000 --failovers 10 --reconnects 3
  wardlock-loadtest watch-through --changes 5000 --failovers 1 --reconnects 1 --shards 4 --json through.json";

/// Shows that a watch over all shards is told every change once and in order, through failovers and reconnects.
///
/// Starts a cluster on this machine. Exit status: 0, or 1 where anything was told wrongly or not at all, or too little
/// happened.
#[derive(Args, Clone, Debug)]
#[group(id = "watch-through")]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// How many changes are made.
    #[arg(long, value_name = "COUNT", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    changes: u32,
    /// How often the node that leads the most shards is killed, and started again.
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(..=1_000))]
    failovers: u32,
    /// How often the watch is dropped, and resumed by its token over a new connection.
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(..=1_000))]
    reconnects: u32,
    /// How many paths are changed; each by a client of its own.
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    paths: u32,
    /// How long a killed node stays down.
    #[arg(long, value_name = "LENGTH", default_value = "2s", value_parser = some_length)]
    down: Duration,
    #[command(flatten)]
    trial: Trial,
}

/// The command.
pub(crate) async fn command(options: &Options) -> anyhow::Result<ExitCode> {
    let mut cluster = options.trial.cluster().await?;
    let verdict = LocalSet::new().run_until(interruptible(run(options, &mut cluster))).await;
    let logs = verdict.as_ref().map_or(true, |verdict| !verdict.failures.is_empty()).then(|| cluster.keep_data());
    cluster.end().await;
    if let Some(logs) = logs {
        eprintln!("the nodes' logs are in {logs}");
    }
    options.trial.tell(&verdict?)
}

/// What was done, and what was told of it.
struct Ledger {
    /// Of each path, how many changes were acknowledged, and how many were told.
    paths: BTreeMap<String, (u64, u64)>,
    acknowledged: u64,
    told: u64,
    /// Told without their values, which were no longer kept.
    bare: u64,
    /// By shard.
    shards: BTreeMap<u32, u64>,
    /// From sending to being told, microseconds.
    latency: Histogram<u64>,
    /// The watch is open.
    is_open: bool,
    resumed: u32,
    wrong: Vec<String>,
    failed: Option<String>,
}

impl Ledger {
    fn new() -> anyhow::Result<Ledger> {
        Ok(Ledger {
            paths: BTreeMap::new(),
            acknowledged: 0,
            told: 0,
            bare: 0,
            shards: BTreeMap::new(),
            latency: Histogram::new_with_bounds(1, 600_000_000, 3).context("the bounds are in order")?,
            is_open: false,
            resumed: 0,
            wrong: Vec::new(),
            failed: None,
        })
    }

    fn wrong(&mut self, why: String) {
        if self.wrong.len() < 5 {
            self.wrong.push(why);
        }
    }

    /// A client was told that its change had made this version.
    fn acknowledged(&mut self, path: &str, version: u64) {
        let entry = self.paths.entry(path.to_owned()).or_default();
        let due = entry.0 + 1;
        *entry = (version, entry.1);
        self.acknowledged += 1;
        if version != due {
            self.wrong(format!("change {due} of {path} made version {version}"));
        }
    }

    /// The watch was told of a version, with this value, at this time.
    fn told(&mut self, (shard, now): (u32, Duration), path: &str, version: u64, value: Option<&[u8]>) {
        let entry = self.paths.entry(path.to_owned()).or_default();
        let due = entry.1 + 1;
        *entry = (entry.0, version.max(entry.1));
        self.told += 1;
        *self.shards.entry(shard).or_default() += 1;
        if version != due {
            self.wrong(format!("version {version} of {path} was told, and {due} was due"));
        }
        let Some(value) = value else {
            self.bare += 1;
            return;
        };
        match read(value) {
            Some((change, sent)) if change == version => {
                let micros = u64::try_from(now.saturating_sub(sent).as_micros()).unwrap_or(u64::MAX);
                self.latency.saturating_record(micros.max(1));
            }
            _ => self.wrong(format!("version {version} of {path} was told with another value")),
        }
    }

    /// Why not everything is as it must be at the end.
    fn missing(&self) -> Vec<String> {
        let mut missing = self.wrong.clone();
        let short: Vec<_> = self.paths.iter().filter(|(_, (made, told))| made != told).collect();
        if let Some((path, (made, told))) = short.first() {
            missing.push(format!("{} paths: of {path}, {told} of {made} changes were told", short.len()));
        }
        missing
    }
}

/// A value: which change of its path it is, and when it was sent.
fn value(change: u64, sent: Duration) -> [u8; 16] {
    (u128::from(change) << 64 | u128::from(sent.as_nanos() as u64)).to_be_bytes()
}

fn read(value: &[u8]) -> Option<(u64, Duration)> {
    let both = u128::from_be_bytes(value.try_into().ok()?);
    Some(((both >> 64) as u64, Duration::from_nanos(both as u64)))
}

async fn run(options: &Options, cluster: &mut Cluster) -> anyhow::Result<Verdict> {
    let client = cluster.client().await?;
    health::well(&client, PATIENCE).await?;
    let ledger = Rc::new(RefCell::new(Ledger::new()?));
    let began = Instant::now();
    // Part n of the changes begins when failover n - 1 is over; the first two at once.
    let part = options.changes.div_ceil(options.failovers + 1);
    let may = Rc::new(Semaphore::new((2 * part).min(options.changes) as usize));
    let listening = listen(options.clone(), cluster.server().to_owned(), cluster.certs(), ledger.clone(), began);
    let watching = tokio::task::spawn_local(listening);
    let open = async {
        while !ledger.borrow().is_open && ledger.borrow().failed.is_none() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, open).await.context("the watch cannot be opened")?;
    for path in 0..options.paths {
        let share = options.changes / options.paths + u32::from(path < options.changes % options.paths);
        tokio::task::spawn_local(change(client.clone(), path, share, may.clone(), ledger.clone(), began));
    }
    let mut progress = Progress::new("changes told", options.changes.into());
    let mut outages = Vec::new();
    for failover in 1..=options.failovers {
        reach(&ledger, u64::from(part) * u64::from(failover), &mut progress).await?;
        let view = health::well(&client, PATIENCE).await?;
        let node = view.busiest().context("no node leads a shard")?;
        let (at, led) = (Instant::now(), view.led_by(node).len());
        cluster.kill(node).await?;
        sleep(options.down).await;
        cluster.restart(node)?;
        health::well(&client, PATIENCE).await?;
        outages.push(at.elapsed().as_secs_f64());
        progress.say(&format!(
            "{:>6.1} s  failover {failover} of {}: node {node}, which led {led} shards, was killed and is well again after {:.1} s",
            began.elapsed().as_secs_f64(),
            options.failovers,
            at.elapsed().as_secs_f64(),
        ));
        may.add_permits(part as usize);
    }
    reach(&ledger, options.changes.into(), &mut progress).await?;
    let wrote = began.elapsed();
    let all = async {
        while ledger.borrow().told < u64::from(options.changes) && ledger.borrow().failed.is_none() {
            progress.at(ledger.borrow().told);
            sleep(Duration::from_millis(20)).await;
        }
        // What is told too often comes after.
        sleep(Duration::from_millis(500)).await;
    };
    let in_time = timeout(LAST, all).await.is_ok();
    progress.at(ledger.borrow().told);
    progress.end();
    watching.abort();
    let ledger = ledger.borrow();
    let mut failures = ledger.missing();
    failures.extend(ledger.failed.clone());
    if !in_time {
        failures.push(format!("not everything was told {} s after the last change", LAST.as_secs()));
    }
    if ledger.resumed < options.reconnects {
        failures.push(format!("only {} of {} reconnects", ledger.resumed, options.reconnects));
    }
    Ok(verdict(options, &ledger, wrote, outages, failures))
}

fn verdict(options: &Options, ledger: &Ledger, wrote: Duration, outages: Vec<f64>, failures: Vec<String>) -> Verdict {
    let quantile = |q: f64| quantile_ms(&ledger.latency, q).unwrap_or_default();
    let well = Spread::of(outages);
    let mut text = format!(
        "{} changes of {} paths in {} shards in {:.1} s, {:.0} a second, through {} failovers and {} reconnects: {} told\n",
        options.changes,
        options.paths,
        ledger.shards.len(),
        wrote.as_secs_f64(),
        f64::from(options.changes) / wrote.as_secs_f64(),
        options.failovers,
        options.reconnects,
        ledger.told,
    );
    text += &format!(
        "from sending a change to its being told: p50 {:.1} ms, p99 {:.0} ms, worst {:.0} ms\n",
        quantile(0.5),
        quantile(0.99),
        quantile(1.0)
    );
    if failures.is_empty() {
        text += "each was told once and in order\n";
    }
    let figures = json!({
        "changes": options.changes, "paths": options.paths, "shards": ledger.shards, "told": ledger.told,
        "withoutValue": ledger.bare, "failovers": options.failovers, "reconnects": ledger.resumed, "seconds": wrote.as_secs_f64(),
        "p50Ms": quantile(0.5), "p99Ms": quantile(0.99), "worstMs": quantile(1.0),
        "wellAfterS": well, "failures": failures,
    });
    Verdict { text, figures: figures.to_string(), failures }
}

/// Waits until so many changes are acknowledged.
async fn reach(ledger: &Rc<RefCell<Ledger>>, count: u64, progress: &mut Progress) -> anyhow::Result<()> {
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let (acknowledged, told) = (ledger.borrow().acknowledged, ledger.borrow().told);
        if let Some(failed) = &ledger.borrow().failed {
            bail!("{failed}");
        }
        progress.at(told);
        if acknowledged >= count {
            return Ok(());
        }
        if acknowledged > last {
            (last, since) = (acknowledged, Instant::now());
        }
        ensure!(since.elapsed() < PERSISTENCE, "no change was made for {} s", PERSISTENCE.as_secs());
        sleep(Duration::from_millis(5)).await;
    }
}

/// Changes a path so often, one change after another.
async fn change(
    client: Client,
    path: u32,
    count: u32,
    may: Rc<Semaphore>,
    ledger: Rc<RefCell<Ledger>>,
    began: Instant,
) {
    let path = format!("{PREFIX}{path}");
    for change in 1..=u64::from(count) {
        let Ok(permit) = may.acquire().await else { return };
        permit.forget();
        match put(&client, &path, &value(change, began.elapsed())).await {
            Ok(version) => ledger.borrow_mut().acknowledged(&path, version),
            Err(error) => {
                ledger.borrow_mut().failed.get_or_insert(format!("change {change} of {path}: {error:#}"));
                return;
            }
        }
    }
}

/// Puts a value, and repeats it with the same id until its outcome is known. The version that it made.
pub(crate) async fn put(client: &Client, path: &str, value: &[u8]) -> anyhow::Result<u64> {
    let content = Content { content_type: "application/octet-stream".to_owned(), value: Blob::new(value) };
    let key = Key { kind: Kind::Config, name: Name::new(path)? };
    let ask = Configure { request: wardlock_router::random::any(), key, change: Change::Put(content), expected: None };
    let until = Instant::now() + PERSISTENCE;
    loop {
        match client.write(Command::Configure(ask.clone()), ATTEMPT).await {
            Ok(Outcome::Configured(done)) => return Ok(done.version.0),
            Ok(other) => bail!("it came to {other:?}"),
            Err(Error::Malformed(why)) => bail!("{why}"),
            Err(error) if Instant::now() >= until => return Err(error.into()),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Watches all paths, and leaves and comes back so often.
async fn listen(options: Options, server: String, certs: PathBuf, ledger: Rc<RefCell<Ledger>>, began: Instant) {
    let failed = match follow(&options, &server, &certs, &ledger, began).await {
        Ok(never) => match never {},
        Err(error) => format!("{error:#}"),
    };
    ledger.borrow_mut().failed.get_or_insert(failed);
}

async fn follow(
    options: &Options,
    server: &str,
    certs: &std::path::Path,
    ledger: &Rc<RefCell<Ledger>>,
    began: Instant,
) -> anyhow::Result<std::convert::Infallible> {
    let part = u64::from(options.changes.div_ceil(options.reconnects + 1));
    let mut watch = open(server, certs, None).await?;
    ledger.borrow_mut().is_open = true;
    for leave in (1..=options.reconnects).map(|nth| part * u64::from(nth)) {
        while ledger.borrow().told < leave {
            tell(&watch.next().await.context("the watch")?, ledger, began);
        }
        let token = watch.token().to_string();
        drop(watch);
        // Whatever happens now is to be told later.
        sleep(Duration::from_millis(500)).await;
        watch = open(server, certs, Some(token.parse()?)).await?;
        ledger.borrow_mut().resumed += 1;
        eprintln!("{:>6.1} s  came back with a token of {} bytes", began.elapsed().as_secs_f64(), token.len());
    }
    loop {
        tell(&watch.next().await.context("the watch")?, ledger, began);
    }
}

/// A watch over a connection of its own.
async fn open(server: &str, certs: &std::path::Path, since: Option<WatchToken>) -> anyhow::Result<Watch> {
    let until = Instant::now() + PATIENCE;
    loop {
        let opening = async {
            let client = Client::at(server, Some(certs)).await?;
            let watch = client.watch().prefix(Kind::Config, PREFIX);
            let watch = since.iter().fold(watch, |watch, token| watch.since(token.clone()));
            watch.open().await.map_err(anyhow::Error::from)
        };
        match opening.await {
            Ok(watch) => return Ok(watch),
            // A gap is no matter of patience.
            Err(error) if Instant::now() >= until || error.to_string().contains("no longer kept") => return Err(error),
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}

fn tell(told: &Watched, ledger: &Rc<RefCell<Ledger>>, began: Instant) {
    let event = &told.event;
    let What::Configured { version, value, .. } = &event.what else { return };
    let (at, path) = ((told.shard.0, began.elapsed()), event.key.name.as_str());
    ledger.borrow_mut().told(at, path, version.0, value.as_ref().map(|value| &value[..]));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two changes of a path, told so.
    fn after(told: &[(u64, u64)]) -> Vec<String> {
        let mut ledger = Ledger::new().unwrap();
        (1..=2).for_each(|version| ledger.acknowledged("a", version));
        for (version, change) in told {
            ledger.told((1, Duration::ZERO), "a", *version, Some(&value(*change, Duration::ZERO)));
        }
        ledger.missing()
    }

    #[test]
    fn only_each_once_in_order_and_with_its_value_is_right() {
        assert!(after(&[(1, 1), (2, 2)]).is_empty());
        for wrong in [
            &[(1, 1)][..],
            &[(2, 2)],
            &[(1, 1), (1, 1), (2, 2)],
            &[(2, 2), (1, 1)],
            &[(1, 1), (2, 1)],
            &[(1, 1), (2, 2), (3, 3)],
        ] {
            assert!(!after(wrong).is_empty(), "{wrong:?}");
        }
        let mut twice = Ledger::new().unwrap();
        twice.acknowledged("a", 2);
        assert!(!twice.missing().is_empty(), "a change was made twice");
    }
}
