//! The closed loop.

use std::{
    io::IsTerminal,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use wardlock_machine::{
    Acquire, Command, Holder, Key, LockId, Metadata, Millis, Name, Outcome, Query, RequestId, SessionId,
};
use wardlock_router::Client;

use crate::report::Report;

/// How long an operation is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Outlives any run: nothing here is about expiry.
const TTL: Millis = Millis(3_600_000);

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The cluster: `http://HOST:PORT` of a gateway, or QUIC addresses of nodes, `HOST:PORT,HOST:PORT`.
    #[arg(long, env = "WARDLOCK_SERVER", value_name = "ADDRESS", default_value = "http://127.0.0.1:7400")]
    server: String,
    /// The directory with `ca.pem`, `client.pem` and `client.key`. A gateway on this machine may say where
    /// they are.
    #[arg(long, env = "WARDLOCK_CERTS", value_name = "DIR")]
    certs: Option<PathBuf>,
    /// How many clients, each with one operation at a time.
    #[arg(long, value_name = "COUNT", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    clients: u32,
    /// How many lock names.
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    names: u32,
    /// How many sessions the clients share. [default: as many as clients]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    sessions: Option<u32>,
    /// The share of reads.
    #[arg(long, value_name = "PERCENT", default_value_t = 80, value_parser = clap::value_parser!(u32).range(0..=100))]
    reads: u32,
    /// How long to measure.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = duration)]
    duration: Duration,
    /// How long to run before that.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    warmup: Duration,
    /// Write the figures to this file, too.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Seconds, fractions allowed, up to a day.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is not a number of seconds"))?;
    match (0.0..=86_400.0).contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err(format!("{text} is not from 0 to 86400 seconds")),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    seconds(text).and_then(|length| if length.is_zero() { Err("must be more than 0".to_owned()) } else { Ok(length) })
}

/// Who holds what, as the clients were told.
struct Held {
    last_token: Vec<AtomicU64>,
    holders: Vec<AtomicU64>,
}

struct Shared {
    client: Client,
    held: Held,
    measuring: AtomicBool,
    done: AtomicBool,
    answered: AtomicU64,
    errors: AtomicU64,
    contended: AtomicU64,
    violations: AtomicU64,
    read: Mutex<Histogram<u64>>,
    write: Mutex<Histogram<u64>>,
}

/// Runs it.
pub(crate) async fn run(options: &Options) -> anyhow::Result<Report> {
    let client = Client::at(&options.server, options.certs.as_deref()).await?;
    let sessions = open_sessions(&client, options.sessions.unwrap_or(options.clients) as usize).await?;
    let shared = Arc::new(Shared {
        client,
        held: Held {
            last_token: (0..options.names).map(|_| AtomicU64::new(0)).collect(),
            holders: (0..options.names).map(|_| AtomicU64::new(0)).collect(),
        },
        measuring: AtomicBool::new(false),
        done: AtomicBool::new(false),
        answered: AtomicU64::new(0),
        errors: AtomicU64::new(0),
        contended: AtomicU64::new(0),
        violations: AtomicU64::new(0),
        read: Mutex::new(histogram()?),
        write: Mutex::new(histogram()?),
    });
    let clients: Vec<_> = (0..options.clients)
        .map(|number| {
            let session = sessions[number as usize % sessions.len()].clone();
            tokio::spawn(drive(Arc::clone(&shared), session, u64::from(number) + 1, options.names, options.reads))
        })
        .collect();
    progress("warming up", options.warmup, &shared).await;
    shared.measuring.store(true, Ordering::Relaxed);
    let began = Instant::now();
    progress("measuring", options.duration, &shared).await;
    shared.measuring.store(false, Ordering::Relaxed);
    let seconds = began.elapsed().as_secs_f64();
    shared.done.store(true, Ordering::Relaxed);
    for client in clients {
        client.await?;
    }
    let take = |histogram: &Mutex<Histogram<u64>>| histogram.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let report = Report {
        clients: options.clients as usize,
        seconds,
        read: take(&shared.read),
        write: take(&shared.write),
        errors: shared.errors.load(Ordering::Relaxed),
        contended: shared.contended.load(Ordering::Relaxed),
        safety_violations: shared.violations.load(Ordering::Relaxed),
    };
    close_sessions(&shared.client, &sessions).await;
    Ok(report)
}

/// Waits for `length`, and tells a terminal each second what happens meanwhile.
async fn progress(phase: &str, length: Duration, shared: &Shared) {
    if !std::io::stderr().is_terminal() {
        return tokio::time::sleep(length).await;
    }
    let began = Instant::now();
    let (mut before, mut at) = (shared.answered.load(Ordering::Relaxed), began);
    while let Some(left) = length.checked_sub(began.elapsed()).filter(|left| !left.is_zero()) {
        tokio::time::sleep(left.min(Duration::from_secs(1))).await;
        let (answered, now) = (shared.answered.load(Ordering::Relaxed), Instant::now());
        let rate = (answered - before) as f64 / now.duration_since(at).as_secs_f64();
        (before, at) = (answered, now);
        eprintln!(
            "{phase:>10} {:>4.0} of {:.0} s  {rate:>8.0} operations/s  {} errors  {} contended",
            began.elapsed().as_secs_f64(),
            length.as_secs_f64(),
            shared.errors.load(Ordering::Relaxed),
            shared.contended.load(Ordering::Relaxed),
        );
    }
}

fn histogram() -> anyhow::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 60_000_000, 3).context("a histogram")
}

/// A session and its request numbers, shared by the clients that use it.
struct Numbered {
    session: SessionId,
    next: AtomicU64,
}

async fn open_sessions(client: &Client, count: usize) -> anyhow::Result<Vec<Arc<Numbered>>> {
    let mut sessions = Vec::with_capacity(count);
    for page in 0..count.div_ceil(500) {
        let open = (page * 500..count.min((page + 1) * 500)).map(|number| {
            let client = client.clone();
            async move {
                let session = client.new_session_id();
                let holder = Holder { client_id: format!("load-{number}"), ttl: TTL, metadata: Metadata::new() };
                let outcome = client.write(Command::OpenSession { session, holder }, PATIENCE).await?;
                match outcome {
                    Outcome::Opened { .. } => Ok(Arc::new(Numbered { session, next: AtomicU64::new(1) })),
                    other => bail!("a session was not opened: {other:?}"),
                }
            }
        });
        for session in futures_util::future::join_all(open).await {
            sessions.push(session?);
        }
    }
    Ok(sessions)
}

async fn close_sessions(client: &Client, sessions: &[Arc<Numbered>]) {
    for page in sessions.chunks(500) {
        let close =
            page.iter().map(|numbered| client.write(Command::CloseSession { session: numbered.session }, PATIENCE));
        futures_util::future::join_all(close).await;
    }
}

async fn drive(shared: Arc<Shared>, numbered: Arc<Numbered>, seed: u64, names: u32, reads: u32) {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut draw = |below: u64| {
        // xorshift64*: a spread of names, nothing more.
        random ^= random >> 12;
        random ^= random << 25;
        random ^= random >> 27;
        (random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
    };
    let mut holding: Option<(usize, LockId)> = None;
    while !shared.done.load(Ordering::Relaxed) {
        let reads_now = draw(100) < u64::from(reads);
        let index = draw(u64::from(names)) as usize;
        let began = Instant::now();
        let answered = match reads_now {
            true => shared.client.read(Query::Object { key: key(index) }, PATIENCE).await.is_ok(),
            false => write(&shared, &numbered, index, &mut holding).await,
        };
        if !answered {
            shared.errors.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        shared.answered.fetch_add(1, Ordering::Relaxed);
        if shared.measuring.load(Ordering::Relaxed) {
            let histogram = if reads_now { &shared.read } else { &shared.write };
            let mut histogram = histogram.lock().unwrap_or_else(PoisonError::into_inner);
            histogram.saturating_record(began.elapsed().as_micros() as u64);
        }
    }
    if let Some((index, lock_id)) = holding {
        let request = request(&numbered);
        shared.held.holders[index].store(0, Ordering::SeqCst);
        let _ = shared.client.write(Command::Release { request, key: key(index), lock_id }, PATIENCE).await;
    }
}

fn key(index: usize) -> Key {
    Key::lock(Name::new(&format!("load/{index}")).expect("short and not empty"))
}

fn request(numbered: &Numbered) -> RequestId {
    let seq = numbered.next.fetch_add(1, Ordering::Relaxed);
    // Every client of the session has at most one request under way: far fewer than this window.
    RequestId::Native { seq, low: seq.saturating_sub(1_000) }
}

/// Acquires where the client holds nothing, else releases. Returns whether there was an answer.
async fn write(shared: &Shared, numbered: &Numbered, index: usize, holding: &mut Option<(usize, LockId)>) -> bool {
    let request = request(numbered);
    if let Some((index, lock_id)) = holding.take() {
        shared.held.holders[index].store(0, Ordering::SeqCst);
        let release = Command::Release { request, key: key(index), lock_id };
        return shared.client.write(release, PATIENCE).await.is_ok();
    }
    let acquire = Acquire::new(numbered.session, request, key(index));
    match shared.client.write(Command::Acquire(acquire), PATIENCE).await {
        Ok(Outcome::Granted(grant)) => {
            let token = grant.lock_id.token.0;
            let last = shared.held.last_token[index].fetch_max(token, Ordering::SeqCst);
            let other = shared.held.holders[index].swap(token, Ordering::SeqCst);
            if last >= token || other != 0 {
                shared.violations.fetch_add(1, Ordering::Relaxed);
            }
            *holding = Some((index, grant.lock_id));
            true
        }
        Ok(_) => {
            shared.contended.fetch_add(1, Ordering::Relaxed);
            true
        }
        Err(_) => false,
    }
}
