//! `watch`: how soon those who watch are told, how many can be, and whether each is told everything once and in order.
//!
//! Watches share connections as those of a gateway do. Every so often a path of the configuration is changed; the
//! change carries its number, by which whoever is told knows when it was sent. A watch counts the versions of each
//! path that it is told: one that is missing, comes twice or out of order fails the run, and so does a gap.

use std::{
    cell::RefCell,
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
    task::LocalSet,
    time::{MissedTickBehavior, interval, timeout},
};
use wardlock_machine::{Kind, What};
use wardlock_router::{Client, Watch};

use crate::{
    bench::quantile_ms,
    run::{length, writable, write},
    target::{PATIENCE, Place, Protocol},
};

/// How long the last change may take to reach everybody.
const LAST: Duration = Duration::from_secs(10);
/// How many watches are opened at once.
const OPENING: usize = 64;

/// Measures watches: how soon they are told, and whether they are told everything.
#[derive(Args, Debug)]
#[command(after_help = "\
Example, beside `wardlock dev --processes`:
  wardlock-loadtest watch --watchers 1000 --rate 200 --duration 10s
  wardlock-loadtest watch --watchers 1000 --whole --rate 20")]
pub(crate) struct Options {
    #[command(flatten)]
    place: Place,
    /// How many watch.
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    watchers: u32,
    /// How many paths are changed, in turn.
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    paths: u32,
    /// Every watcher watches all paths, rather than one of them.
    #[arg(long)]
    whole: bool,
    /// Changes a second.
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// For how long changes are made.
    #[arg(long, value_name = "LENGTH", default_value = "10s", value_parser = length)]
    duration: Duration,
    /// Writes the figures as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What all watches are told.
struct Heard {
    /// When each change was sent, by its number.
    sent: Vec<Instant>,
    latency: Histogram<u64>,
    told: u64,
    wrong: Option<String>,
}

/// The command.
pub(crate) async fn command(options: &Options) -> anyhow::Result<ExitCode> {
    if options.place.protocol == Protocol::Http {
        bail!("watches are measured over QUIC: leave --protocol out");
    }
    if let Some(file) = &options.json {
        writable(file)?;
    }
    LocalSet::new().run_until(measure(options)).await
}

async fn measure(options: &Options) -> anyhow::Result<ExitCode> {
    let mut clients = Vec::new();
    for _ in 0..options.place.connections.unwrap_or(2) {
        clients.push(Client::at(&options.place.target, options.place.certs.as_deref()).await?);
    }
    // Of this run alone, whatever was there before.
    let prefix = format!("load/watch/{}/", clients[0].new_session_id());
    let latency = Histogram::new_with_bounds(1, 60_000_000, 3).context("the bounds are in order")?;
    let heard = Rc::new(RefCell::new(Heard { sent: Vec::new(), latency, told: 0, wrong: None }));
    let path = |number: u32| format!("{prefix}{number}");

    let began = Instant::now();
    let mut watches: Vec<Watch> = Vec::new();
    let numbers: Vec<u32> = (0..options.watchers).collect();
    for some in numbers.chunks(OPENING) {
        let opening = some.iter().map(|number| {
            let watch = clients[*number as usize % clients.len()].watch().patience(PATIENCE);
            match options.whole {
                true => watch.prefix(Kind::Config, prefix.as_str()),
                false => watch.name(Kind::Config, path(number % options.paths)),
            }
            .open()
        });
        watches.extend(futures_util::future::try_join_all(opening).await?);
        eprint!("\r{} of {} watches", watches.len(), options.watchers);
    }
    let opened = began.elapsed();
    eprintln!(" opened in {:.1} s", opened.as_secs_f64());
    let watching: Vec<_> =
        watches.into_iter().map(|watch| tokio::task::spawn_local(listen(watch, Rc::clone(&heard)))).collect();

    let changes = (f64::from(options.rate) * options.duration.as_secs_f64()) as u32;
    let mut timer = interval(Duration::from_secs(1) / options.rate);
    timer.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let began = Instant::now();
    let mut writing = Vec::new();
    for number in 0..changes {
        timer.tick().await;
        let (client, path) = (clients[number as usize % clients.len()].clone(), path(number % options.paths));
        heard.borrow_mut().sent.push(Instant::now());
        let put = async move { client.config(&path).patience(PATIENCE).put("text/plain", &number.to_be_bytes()).await };
        writing.push(tokio::task::spawn_local(put));
    }
    let mut failed = 0_u64;
    for put in writing {
        failed += u64::from(put.await?.is_err());
    }
    let wrote = began.elapsed();
    ensure!(failed == 0, "{failed} of {changes} changes failed: what must be told is not known");

    // Each path was changed so often; each watcher of it is told of each change.
    let of = |path: u32| u64::from(changes / options.paths + u32::from(path < changes % options.paths));
    let expected: u64 = match options.whole {
        true => u64::from(options.watchers) * u64::from(changes),
        false => (0..options.watchers).map(|number| of(number % options.paths)).sum(),
    };
    let whole = async {
        while heard.borrow().told < expected && heard.borrow().wrong.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let _ = timeout(LAST, whole).await;
    let took = began.elapsed();
    watching.iter().for_each(|watch| watch.abort());
    let heard = heard.borrow();
    let quantile = |q: f64| quantile_ms(&heard.latency, q).unwrap_or_default();
    let rate = heard.told as f64 / took.as_secs_f64();
    println!(
        "{} watches, {changes} changes in {:.1} s: {} of {expected} told, {rate:.0} a second",
        options.watchers,
        wrote.as_secs_f64(),
        heard.told,
    );
    println!(
        "from sending a change to its being told: p50 {:.2} ms, p99 {:.2} ms, worst {:.2} ms",
        quantile(0.5),
        quantile(0.99),
        quantile(1.0),
    );
    if let Some(file) = &options.json {
        let figures = json!({
            "watchers": options.watchers, "whole": options.whole, "paths": options.paths, "changes": changes,
            "expected": expected, "told": heard.told, "perSecond": rate, "openedSeconds": opened.as_secs_f64(),
            "p50Ms": quantile(0.5), "p99Ms": quantile(0.99), "worstMs": quantile(1.0),
        });
        write(file, &figures.to_string())?;
    }
    match &heard.wrong {
        Some(wrong) => bail!("a watch is wrong: {wrong}"),
        None => ensure!(heard.told == expected, "{} of {expected} events were told", heard.told),
    }
    Ok(ExitCode::SUCCESS)
}

async fn listen(mut watch: Watch, heard: Rc<RefCell<Heard>>) {
    let mut versions = std::collections::HashMap::new();
    loop {
        let told = watch.next().await;
        let now = Instant::now();
        let mut heard = heard.borrow_mut();
        let event = match told {
            Ok(told) => told.event,
            Err(error) => {
                heard.wrong.get_or_insert(error.to_string());
                return;
            }
        };
        let What::Configured { version, value: Some(value), .. } = &event.what else { continue };
        let last = versions.insert(event.key.name.clone(), version.0);
        if last.unwrap_or_default() + 1 != version.0 {
            let name = &event.key.name;
            heard
                .wrong
                .get_or_insert(format!("version {version} of {name} was told after {}", last.unwrap_or_default()));
        }
        heard.told += 1;
        let number = <[u8; 4]>::try_from(&value[..]).ok().map(u32::from_be_bytes);
        if let Some(sent) = number.and_then(|number| heard.sent.get(number as usize)).copied() {
            let micros = u64::try_from((now - sent).as_micros()).unwrap_or(u64::MAX);
            heard.latency.saturating_record(micros.max(1));
        }
    }
}
