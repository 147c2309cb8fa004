//! Clients who have nothing to do with it, and how they fare.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::runtime::Runtime;
use wardlock_machine::{Acquire, Command, Holder, Key, Metadata, Millis, Name, Outcome, RequestId};
use wardlock_router::Client;

use crate::support::exchange;

/// How many exchanges of each kind a phase must have: fewer say nothing of a percentile.
const LEAST: usize = 40;

/// What happened in a phase: how long each exchange took, by kind, and what failed.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    native: Vec<Duration>,
    http: Vec<Duration>,
    pub(crate) failures: Vec<String>,
}

fn percentile(all: &[Duration]) -> Duration {
    let mut all = all.to_vec();
    all.sort_unstable();
    all.get((all.len() * 99 / 100).min(all.len().saturating_sub(1))).copied().unwrap_or(Duration::MAX)
}

impl Seen {
    /// Where a percentile is more than three times another's, in words.
    pub(crate) fn worse_than(&self, quiet: &Seen, enough: Duration) -> Option<String> {
        let kinds = [("over QUIC", &self.native, &quiet.native), ("over HTTP", &self.http, &quiet.http)];
        kinds.into_iter().find_map(|(kind, now, before)| {
            if now.len() < LEAST {
                return Some(format!("{kind} there were {} exchanges in all", now.len()));
            }
            let (now, before) = (percentile(now), percentile(before));
            (now > 3 * before.max(enough))
                .then(|| format!("{kind} 99 of 100 took {now:?}, {before:?} when all was quiet"))
        })
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (native, http) = (percentile(&self.native), percentile(&self.http));
        write!(f, "{} × {native:.1?} and {} × {http:.1?}", self.native.len(), self.http.len())
    }
}

/// The clients, at work until they are stopped.
pub(crate) struct Bystanders {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Bystanders {
    /// Lets them work.
    pub(crate) fn start(runtime: &Runtime, client: Client, port: u16) -> Bystanders {
        let (seen, stop) = (Arc::<Mutex<Seen>>::default(), Arc::<AtomicBool>::default());
        let (handle, to, until) = (runtime.handle().clone(), Arc::clone(&seen), Arc::clone(&stop));
        let native = std::thread::spawn(move || handle.block_on(native(&client, &to, &until)));
        let (to, until) = (Arc::clone(&seen), Arc::clone(&stop));
        let http = std::thread::spawn(move || http(port, &to, &until));
        Bystanders { seen, stop, threads: vec![native, http] }
    }

    /// Looks on for a while.
    pub(crate) fn phase(&self, what: &str, long: Duration) -> Seen {
        *self.seen.lock().unwrap() = Seen::default();
        std::thread::sleep(long);
        let mut seen = std::mem::take(&mut *self.seen.lock().unwrap());
        seen.failures.iter_mut().for_each(|failure| *failure = format!("{what}: {failure}"));
        seen
    }

    /// Stops them.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// Takes and gives back one lock after the other, on names of all shards.
async fn native(client: &Client, seen: &Mutex<Seen>, stop: &AtomicBool) {
    let patience = Duration::from_secs(5);
    let session = client.new_session_id();
    let holder = Holder { client_id: "bystander".into(), ttl: Millis(600_000), metadata: Metadata::new() };
    client.write(Command::OpenSession { session, holder }, patience).await.unwrap();
    for number in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let key = Key::lock(Name::new(&format!("bystander/{}", number % 16)).unwrap());
        let native = |seq| RequestId::Native { seq, low: seq };
        let began = Instant::now();
        let taken =
            client.write(Command::Acquire(Acquire::new(session, native(2 * number + 1), key.clone())), patience);
        let told = match taken.await {
            Ok(Outcome::Granted(grant)) => {
                let took = began.elapsed();
                let release = Command::Release { request: native(2 * number + 2), key, lock_id: grant.lock_id };
                match client.write(release, patience).await {
                    Ok(Outcome::Released) => Ok(took),
                    other => Err(format!("a release: {other:?}")),
                }
            }
            other => Err(format!("an acquire: {other:?}")),
        };
        note(seen, told, |seen| &mut seen.native);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Asks for one lock after the other, each time over a new connection.
fn http(port: u16, seen: &Mutex<Seen>, stop: &AtomicBool) {
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let began = Instant::now();
        let told = match exchange(port, "GET", &format!("/api/v1/locks/nobody/{}", number % 16), b"", &[]) {
            Ok(answer) if answer.status == 404 => Ok(began.elapsed()),
            other => Err(format!("a look: {other:?}")),
        };
        note(seen, told, |seen| &mut seen.http);
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn note(seen: &Mutex<Seen>, told: Result<Duration, String>, kind: fn(&mut Seen) -> &mut Vec<Duration>) {
    let mut seen = seen.lock().unwrap();
    match told {
        Ok(took) => kind(&mut seen).push(took),
        Err(failure) => seen.failures.push(failure),
    }
}
