//! `deadlocks`: rings of sessions that wait for each other are ended, each by one victim, soon.
//!
//! Sessions that do one thing at a time hold a lock each, over all shards of a cluster of this machine, and then wait for
//! the next one's. Many rings are closed one after the other, beside sessions that wait in long chains and never in a
//! circle. Whoever is told of a deadlock gives its own lock back, and so do the others once they were granted what they
//! wanted: so a ring ends whole.
//!
//! # A run fails
//! 1. where a ring has another number of victims than one, or the victim's answer does not name the whole ring;
//! 2. where it is told later than [`SOON`] after the last of its ring began to wait;
//! 3. where anybody else of it is not granted what it waits for, or anybody in a chain is told of a deadlock.

use std::{
    collections::BTreeMap,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Args;
use futures_util::future::{join_all, try_join_all};
use serde_json::json;
use tokio::time::sleep;
use wardlock_machine::limits;
use wardlock_router::{Client, Guard, LockError, Session};

use crate::{
    cluster::{Cluster, health, interrupt::interruptible},
    faults::Spread,
    progress::Progress,
    trial::{Trial, Verdict},
};

/// How soon a victim is to be told.
const SOON: Duration = Duration::from_secs(2);
/// How long everybody waits at the most, and how long everything else may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long after the others the last of a ring begins to wait: then it is the youngest by any leader's clock.
const LAST: Duration = Duration::from_millis(100);
/// Longer than any run.
const FOREVER: Duration = Duration::from_millis(limits::LEASE_MAX.0);
/// How many sessions wait in one chain.
const CHAIN: usize = 10;

const EXAMPLES: &str = "\
Examples:
  wardlock-loadtest deadlocks --rings 2,5,50 --rounds 20
  wardlock-loadtest deadlocks --rings 3 --rounds 5 --chains 0 --shards 4 --json deadlocks.json";

/// Shows that deadlocks over many shards are ended soon, each by one victim.
///
/// Starts a cluster on this machine. Exit status: 0, or 1 where a ring had no victim or more than one, it was told late,
/// or somebody else was refused.
#[derive(Args, Clone, Debug)]
#[group(id = "deadlock-rings")]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// How many sessions wait in a ring; several numbers, each for rings of its own.
    #[arg(long, value_name = "COUNT,…", value_delimiter = ',', default_value = "2,5,50", value_parser = clap::value_parser!(u32).range(2..=1_000))]
    rings: Vec<u32>,
    /// How many rings of each there are, one after the other.
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// How many chains of ten wait beside.
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(..=1_000))]
    chains: u32,
    #[command(flatten)]
    trial: Trial,
}

/// How long the victims of rings of one length waited, and what went wrong.
type Seen = (BTreeMap<u32, Vec<f64>>, Vec<String>);

/// The command.
pub(crate) async fn command(options: &Options) -> anyhow::Result<ExitCode> {
    let cluster = options.trial.cluster().await?;
    let seen = interruptible(run(options, &cluster)).await;
    cluster.end().await;
    let (told, failures) = seen?;
    let mut text = String::new();
    let mut figures = BTreeMap::new();
    for (length, after) in told {
        let told = Spread::of(after);
        let s = |seconds: Option<f64>| seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.2}"));
        let (median, worst) = (s(told.median), s(told.max));
        text += &format!(
            "{} rings of {length:>3}: the victim was told after p50 {median} s, worst {worst} s\n",
            options.rounds
        );
        figures.insert(length, told);
    }
    if failures.is_empty() {
        text += "each ring had one victim, and everybody else got what it waited for\n";
    }
    let figures = json!({"rounds": options.rounds, "toldAfterS": figures, "failures": failures});
    options.trial.tell(&Verdict { text, figures: figures.to_string(), failures })
}

async fn run(options: &Options, cluster: &Cluster) -> anyhow::Result<Seen> {
    let client = cluster.client().await?;
    health::well(&client, PATIENCE).await?;
    let mut chains = Vec::new();
    let mut workers = Vec::new();
    for chain in 0..options.chains {
        let name = format!("chain-{chain}");
        let mut holders = hold(&client, &name, CHAIN).await?;
        workers.extend(holders.pop());
        for (at, (session, own)) in holders.into_iter().enumerate() {
            let wanted = format!("{name}/{}", at + 1);
            chains.push(tokio::spawn(async move {
                // As long as the run lasts; only a deadlock would end it before.
                let ended = session.lock(&wanted).wait(FOREVER).acquire().await;
                drop(own);
                ended.map(drop)
            }));
        }
    }
    let (mut told, mut failures) = (BTreeMap::<u32, Vec<f64>>::new(), Vec::new());
    let mut progress = Progress::new("rings", u64::from(options.rounds) * options.rings.len() as u64);
    let mut done = 0;
    for round in 0..options.rounds {
        for length in &options.rings {
            let name = format!("ring-{length}-{round}");
            match ring(&client, &name, *length as usize).await? {
                Ok(after) => told.entry(*length).or_default().push(after.as_secs_f64()),
                Err(why) if failures.len() < 5 => failures.push(format!("{name}: {why}")),
                Err(_) => {}
            }
            done += 1;
            progress.at(done);
        }
    }
    progress.end();
    drop(workers);
    for chain in chains {
        match chain.await? {
            Ok(()) => {}
            Err(error) => failures.push(format!("a chain, which is no circle: {error}")),
        }
    }
    Ok((told, failures))
}

/// Sessions of which each holds a lock of its own: `{name}/0` and so on.
async fn hold(client: &Client, name: &str, count: usize) -> anyhow::Result<Vec<(Session, Guard)>> {
    let holders = (0..count).map(|at| async move {
        let session = client.session(format!("{name}-{at}")).serial().open().await.context("no session")?;
        let guard = session.lock(&format!("{name}/{at}")).acquire().await.context("it is not free")?;
        anyhow::Ok((session, guard))
    });
    try_join_all(holders).await
}

/// Closes a ring and waits until it has ended. How long after that its victim was told, or what went wrong.
async fn ring(client: &Client, name: &str, length: usize) -> anyhow::Result<Result<Duration, String>> {
    let waits = hold(client, name, length).await?.into_iter().enumerate().map(|(at, (session, own))| async move {
        let wanted = format!("{name}/{}", (at + 1) % length);
        if at + 1 == length {
            sleep(LAST).await;
        }
        let began = Instant::now();
        let got = session.lock(&wanted).wait(PATIENCE).acquire().await;
        let after = began.elapsed();
        // Whoever has what it wanted, or is told that it will not get it, gives its own back.
        drop(own);
        (got.map(drop), after)
    });
    let (mut victims, mut wrong) = (Vec::new(), None);
    for (at, (how, after)) in join_all(waits).await.into_iter().enumerate() {
        match how {
            Ok(()) => {}
            Err(LockError::Deadlock(circle)) => {
                if circle.length as usize != length {
                    wrong = Some(format!("{at} was told of a circle of {}: {circle}", circle.length));
                }
                victims.push(after);
            }
            Err(LockError::Call(error)) => bail!("{name}/{at}: {error}"),
            Err(error) => wrong = Some(format!("{at} was refused: {error}")),
        }
    }
    Ok(match (victims.as_slice(), wrong) {
        (_, Some(wrong)) => Err(wrong),
        ([after], None) if *after <= SOON => Ok(*after),
        ([after], None) => Err(format!("the victim was told after {after:.2?}")),
        (victims, None) => Err(format!("it had {} victims", victims.len())),
    })
}
