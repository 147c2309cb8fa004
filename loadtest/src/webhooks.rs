//! `webhooks`: how many deliveries a second a webhook makes, how soon, and whether each event comes once or more and in
//! order per key.
//!
//! The target is this program's own, on loopback, and takes everything. Paths of the configuration are changed as fast
//! as a number of writers can; each change carries its number, by which its arrival is known.

use std::{
    cell::RefCell,
    collections::HashMap,
    convert::Infallible,
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use clap::Args;
use hdrhistogram::Histogram;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::LocalSet, time::timeout};
use wardlock_machine::{Command, Cursor, Key, Kind, Name, Outcome, Pattern, Secret, SetHook};
use wardlock_router::{Client, random, webhook};

use crate::{
    bench::quantile_ms,
    run::{writable, write},
    target::{PATIENCE, Place, Protocol},
};

/// How long nothing may arrive before what is missing is missed.
const SILENCE: Duration = Duration::from_secs(15);

/// Measures webhooks: deliveries a second, and how soon they come.
#[derive(Args, Debug)]
#[command(after_help = "\
Example, beside `wardlock dev --processes --webhook-target http://127.0.0.1:7990`:
  wardlock-loadtest webhooks --events 20000")]
pub(crate) struct Options {
    #[command(flatten)]
    place: Place,
    /// Where the target listens: the nodes must allow it.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:7990")]
    listen: SocketAddr,
    /// How many changes are made and delivered.
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    events: u32,
    /// How many paths are changed, in turn.
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    paths: u32,
    /// How many changes are under way at a time.
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    writers: u32,
    /// Writes the figures as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What has arrived.
struct Arrived {
    sent: HashMap<u32, Instant>,
    latency: Histogram<u64>,
    /// The last version of each path.
    versions: HashMap<String, u64>,
    events: u64,
    repeats: u64,
    first: Option<Instant>,
    last: Instant,
    wrong: Option<String>,
}

impl Arrived {
    fn take(&mut self, body: &[u8]) {
        let now = Instant::now();
        let Ok(body) = serde_json::from_slice::<Value>(body) else {
            self.wrong.get_or_insert("a body is no JSON".to_owned());
            return;
        };
        let (Some(name), Some(version)) = (body["name"].as_str(), body["version"].as_u64()) else {
            self.wrong.get_or_insert(format!("not an event of the configuration: {body}"));
            return;
        };
        let last = self.versions.entry(name.to_owned()).or_default();
        match version.checked_sub(*last) {
            Some(1) => {
                *last = version;
                self.events += 1;
            }
            Some(0) | None => {
                self.repeats += 1;
                return;
            }
            Some(_) => {
                let last = *last;
                self.wrong.get_or_insert(format!("version {version} of {name} came after {last}"));
            }
        }
        self.first.get_or_insert(now);
        self.last = now;
        let number = body["value"].as_str().and_then(|value| value.parse().ok());
        if let Some(sent) = number.and_then(|number| self.sent.remove(&number)) {
            let micros = u64::try_from((now - sent).as_micros()).unwrap_or(u64::MAX);
            self.latency.saturating_record(micros.max(1));
        }
    }
}

/// The command.
pub(crate) async fn command(options: &Options) -> anyhow::Result<ExitCode> {
    if options.place.protocol == Protocol::Http {
        bail!("webhooks are measured over QUIC: leave --protocol out");
    }
    if let Some(file) = &options.json {
        writable(file)?;
    }
    LocalSet::new().run_until(measure(options)).await
}

async fn measure(options: &Options) -> anyhow::Result<ExitCode> {
    let client = Client::at(&options.place.target, options.place.certs.as_deref()).await?;
    let latency = Histogram::new_with_bounds(1, 600_000_000, 3).context("the bounds are in order")?;
    let arrived = Rc::new(RefCell::new(Arrived {
        sent: HashMap::new(),
        latency,
        versions: HashMap::new(),
        events: 0,
        repeats: 0,
        first: None,
        last: Instant::now(),
        wrong: None,
    }));
    let listener = TcpListener::bind(options.listen).await.context("the target cannot listen")?;
    let receiving = tokio::task::spawn_local(receive(listener, Rc::clone(&arrived)));

    // Of this run alone, whatever was there before.
    let prefix = format!("load/webhooks/{}/", client.new_session_id());
    let key = make(&client, &format!("http://{}/", options.listen), &prefix).await?;
    let began = Instant::now();
    let next = Rc::new(RefCell::new(0_u32));
    let writers: Vec<_> = (0..options.writers.min(options.paths))
        .map(|_| {
            let (client, next, arrived) = (client.clone(), Rc::clone(&next), Rc::clone(&arrived));
            let (prefix, events, paths) = (prefix.clone(), options.events, options.paths);
            tokio::task::spawn_local(async move {
                loop {
                    let number = *next.borrow();
                    if number >= events {
                        return Ok::<(), anyhow::Error>(());
                    }
                    *next.borrow_mut() += 1;
                    arrived.borrow_mut().sent.insert(number, Instant::now());
                    let path = format!("{prefix}{}", number % paths);
                    client.config(&path).patience(PATIENCE).put("text/plain", number.to_string().as_bytes()).await?;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await??;
    }
    let wrote = began.elapsed();
    loop {
        let (events, last, wrong) = {
            let arrived = arrived.borrow();
            (arrived.events, arrived.last, arrived.wrong.is_some())
        };
        if events >= u64::from(options.events) || wrong || last.elapsed() > SILENCE {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let drop = Command::DropHook { request: random::any(), key };
    client.write(drop, PATIENCE).await?;
    receiving.abort();

    let arrived = arrived.borrow();
    let quantile = |q: f64| quantile_ms(&arrived.latency, q).unwrap_or_default();
    let took = arrived.first.map_or(Duration::ZERO, |_| arrived.last.duration_since(began));
    let rate = arrived.events as f64 / took.as_secs_f64().max(f64::EPSILON);
    println!(
        "{} changes in {:.1} s: {} delivered in {:.1} s, {rate:.0} a second, {} twice",
        options.events,
        wrote.as_secs_f64(),
        arrived.events,
        took.as_secs_f64(),
        arrived.repeats,
    );
    println!(
        "from sending a change to its delivery: p50 {:.2} ms, p99 {:.2} ms, worst {:.2} ms",
        quantile(0.5),
        quantile(0.99),
        quantile(1.0),
    );
    if let Some(file) = &options.json {
        let figures = json!({
            "events": options.events, "paths": options.paths, "writers": options.writers,
            "delivered": arrived.events, "repeats": arrived.repeats, "perSecond": rate,
            "writeSeconds": wrote.as_secs_f64(),
            "p50Ms": quantile(0.5), "p99Ms": quantile(0.99), "worstMs": quantile(1.0),
        });
        write(file, &figures.to_string())?;
    }
    match &arrived.wrong {
        Some(wrong) => bail!("a delivery is wrong: {wrong}"),
        None => {
            let events = options.events;
            ensure!(arrived.events == u64::from(events), "{} of {events} events arrived", arrived.events);
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn make(client: &Client, url: &str, prefix: &str) -> anyhow::Result<Key> {
    let pattern = Pattern { kind: Kind::Config, name: prefix.to_owned(), prefix: true };
    let mut watch = client.watch().patience(PATIENCE).pattern(pattern.clone()).open().await?;
    let cursor = Cursor::from(&watch.token());
    let key = Key::hook(Name::new(&webhook::new_id())?);
    let secret = Secret::new(webhook::new_secret());
    let ask = SetHook {
        request: random::any(),
        key: key.clone(),
        url: url.to_owned(),
        patterns: vec![pattern],
        secret,
        cursor,
    };
    match timeout(PATIENCE, client.write(Command::SetHook(ask), PATIENCE)).await?? {
        Outcome::HookChanged { .. } => Ok(key),
        other => bail!("the webhook was not made: {other:?}"),
    }
}

async fn receive(listener: TcpListener, arrived: Rc<RefCell<Arrived>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let arrived = Rc::clone(&arrived);
        tokio::task::spawn_local(async move {
            let answer = service_fn(move |request: Request<Incoming>| {
                let arrived = Rc::clone(&arrived);
                async move {
                    if let Ok(body) = request.into_body().collect().await {
                        arrived.borrow_mut().take(&body.to_bytes());
                    }
                    Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
                }
            });
            // Whoever delivers opens another.
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await);
        });
    }
}
