//! A cluster with open sessions, ready to be measured, once or many times.
//!
//! [`Bench::connect`] connects, opens the sessions and keeps them alive; [`Bench::measure`] loads the cluster
//! for a while and says how it bore it; [`Bench::close`] closes the sessions. The
//! [safety check](crate::safety) goes on over all measurements of a bench.
//!
//! # Promises
//! 1. **No coordinated omission.** In an open loop operations become due by the schedule alone. One that finds
//!    all clients busy waits, its wait counts, and what had to be dropped is counted.
//! 2. **The generator accounts for itself**: its CPU, how late it sent, and whether it was the limit.
//! 3. A measurement ends with all of its operations answered or counted as failed, and all of its locks
//!    released: the next one begins on a free cluster.

mod book;
mod client;
mod holds;
mod pace;
mod pool;
mod progress;
mod recorder;
mod sessions;
mod shards;
mod summary;
#[cfg(test)]
mod tests;
mod upkeep;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use tokio::task::{JoinHandle, JoinSet};

pub(crate) use self::recorder::quantile_ms;
use self::{
    book::{Book, Client, Work},
    client::Load,
    pace::{Dues, Lateness},
    pool::{Counts, Pool},
    recorder::{Recorder, Times},
    shards::Shards,
};
use crate::{
    proc,
    report::Report,
    run::Options,
    target::{Failure, PATIENCE, Target},
    workload::Plan,
};

/// Who is told of every operation; called on the generator's thread, so it must be quick.
pub(crate) type Observer = Arc<dyn Fn(Seen) + Send + Sync>;

/// One operation, as a client saw it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// The id of the shard that it was about.
    pub(crate) shard: u32,
    /// When it was meant to begin.
    pub(crate) due: Instant,
    /// When it was answered or given up.
    pub(crate) done: Instant,
    /// Whether it was answered.
    pub(crate) ok: bool,
}

/// Operations that are due wait for a client for so long; then they are dropped.
const BACKLOG: Duration = Duration::from_secs(1);
/// How long the last answers are waited for, and how often locks are released meanwhile.
const DRAIN: Duration = PATIENCE.saturating_add(Duration::from_secs(2));
const SWEEP: Duration = Duration::from_millis(50);
/// How many locks are released at once at the end.
const AT_ONCE: usize = 500;

/// See the [module](self).
pub(crate) struct Bench {
    load: Arc<Load>,
    options: Options,
    plan: Plan,
    shards: Arc<Shards>,
    upkeep: JoinHandle<()>,
}

/// What was measured beside the answers.
struct Account {
    seconds: f64,
    counts: Option<Counts>,
    lateness: Option<Lateness>,
    server_cpu: Option<Duration>,
    server_memory: Option<u64>,
    own_cpu: Duration,
    violations: (u64, Vec<String>),
}

impl Bench {
    /// Connects and opens the sessions. Must be called within a tokio runtime.
    pub(crate) async fn connect(options: &Options) -> anyhow::Result<Bench> {
        let sessions = Plan::of(options).sessions;
        Bench::over(Target::connect(&options.place, sessions).await?, options).await
    }

    /// The same, over a target that has room for the sessions.
    async fn over(target: Target, options: &Options) -> anyhow::Result<Bench> {
        let plan = Plan::of(options);
        let shards = Arc::new(Shards::of(&target, plan.names));
        let check_reads = target.about().consistency == "linearizable";
        let load = Arc::new(Load::new(target, Book::new(plan.clone(), shards.clone(), check_reads)));
        sessions::open(&load, plan.sessions).await?;
        let upkeep = tokio::spawn(upkeep::keep(load.clone(), plan.sessions, plan.ttl, plan.lease));
        Ok(Bench { load, options: options.clone(), plan, shards, upkeep })
    }

    /// The workload, complete.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Loads for the warm-up and then `duration`, with so many operations a second, or in a closed loop, from
    /// so many clients, so many percent of them reads.
    pub(crate) async fn measure(
        &self,
        rate: Option<f64>,
        clients: u32,
        reads: f64,
        duration: Duration,
    ) -> anyhow::Result<Report> {
        self.measure_observed(rate, clients, reads, duration, None).await
    }

    /// The same, and tells an observer of every operation, those of the warm-up too.
    pub(crate) async fn measure_observed(
        &self,
        rate: Option<f64>,
        clients: u32,
        reads: f64,
        duration: Duration,
        observer: Option<Observer>,
    ) -> anyhow::Result<Report> {
        let plan = Plan { rate, clients, reads, duration, ..self.plan.clone() };
        let start = Instant::now();
        let from = start + plan.warmup;
        let end = from + duration;
        let already = {
            let mut book = self.load.book();
            book.recorder = Recorder::new(self.shards.count(), rate.is_some());
            book.recorder.begin(from, duration);
            book.reads = reads;
            book.observer = observer;
            (book.safety.violations(), book.safety.examples().len())
        };
        let mut running = JoinSet::new();
        let pacing = rate.map(|rate| self.pace(&mut running, &plan, Dues::new(start, rate, plan.schedule), from, end));
        if rate.is_none() {
            self.load.set_ending(false);
            for number in 0..clients {
                let load = self.load.clone();
                running.spawn(async move { load.drive(Client::new(number, clients, seed())).await });
            }
        }
        if !plan.warmup.is_zero() {
            progress::wait(&self.load, "warming up", from).await;
        }
        let pids = self.server_pids();
        let before = (Instant::now(), proc::cpu(&pids), proc::own_cpu());
        progress::wait(&self.load, "measuring", end).await;
        let seconds = before.0.elapsed().as_secs_f64();
        let server_cpu = proc::cpu(&pids).zip(before.1).and_then(|(after, before)| after.checked_sub(before));
        let own_cpu = proc::own_cpu().saturating_sub(before.2);
        let server_memory = proc::memory(&pids);
        self.load.set_ending(true);
        let (counts, lateness) = match pacing {
            None => (None, None),
            Some((pool, pacing)) => {
                let lateness = pacing.await??;
                (Some(pool.close()), Some(lateness))
            }
        };
        self.drain(running, end).await;
        self.load.target.learn_leaders().await;
        let recorder = {
            let mut book = self.load.book();
            book.observer = None;
            book.recorder.end();
            std::mem::replace(&mut book.recorder, Recorder::new(0, false))
        };
        let violations = {
            let book = self.load.book();
            let examples = book.safety.examples().iter().skip(already.1).cloned().collect();
            (book.safety.violations() - already.0, examples)
        };
        let account = Account { seconds, counts, lateness, server_cpu, server_memory, own_cpu, violations };
        Ok(summary::report(&self.load.target, &self.options, &plan, &self.shards, recorder, account))
    }

    /// Closes the sessions.
    pub(crate) async fn close(self) {
        self.upkeep.abort();
        sessions::close(&self.load, self.plan.sessions).await;
    }

    /// Starts the clients and the pacing of an open loop.
    fn pace(
        &self,
        running: &mut JoinSet<()>,
        plan: &Plan,
        dues: Dues,
        from: Instant,
        end: Instant,
    ) -> (Arc<Pool>, JoinHandle<anyhow::Result<Lateness>>) {
        let room = plan.rate.unwrap_or_default() * BACKLOG.as_secs_f64();
        let pool = Arc::new(Pool::new(plan.clients, (room as usize).max(1_000), from));
        let clients = plan.clients;
        for number in 0..clients {
            let (load, pool) = (self.load.clone(), pool.clone());
            running.spawn(async move { load.serve(Client::new(number, clients, seed()), number, &pool).await });
        }
        let paced = pool.clone();
        (pool, tokio::spawn(async move { pace::pace(&paced, dues, end).await }))
    }

    /// Waits for the last answers and releases what is held: promise 3.
    async fn drain(&self, mut running: JoinSet<()>, end: Instant) {
        let deadline = Instant::now() + DRAIN;
        while !running.is_empty() {
            // Who still queues gets its turn, and its lock is released in the next round.
            self.release_all().await;
            if Instant::now() >= deadline {
                break;
            }
            let all = async { while running.join_next().await.is_some() {} };
            // A timeout means another round.
            let _ = tokio::time::timeout(SWEEP, all).await;
        }
        let unanswered = running.len();
        running.shutdown().await;
        self.release_all().await;
        let mut book = self.load.book();
        for _ in 0..unanswered {
            let times = Times { due: end - Duration::from_nanos(1), sent: end, done: Instant::now() };
            book.failed(None, &Failure::new("no answer by the end"), times);
        }
    }

    /// Releases all that is held. What fails is left to its session's end.
    async fn release_all(&self) {
        let held = self.load.book().holds.take_all();
        let release = stream::iter(held).map(|holding| async move {
            let work = self.load.book().releasing(holding, false, Instant::now());
            let released = self.load.target.release(holding.session, holding.name, holding.grant).await;
            if let (Work::Release { holder, .. }, Ok(false)) = (work, released) {
                let mut book = self.load.book();
                let now = book.at(Instant::now());
                book.safety.was_lost(holding.name, holder, now);
            }
        });
        release.buffer_unordered(AT_ONCE).collect::<()>().await;
    }

    fn server_pids(&self) -> Vec<u32> {
        match self.options.place.server_pid.as_slice() {
            [] => self.load.target.server_pids(),
            given => given.to_vec(),
        }
    }
}

/// A seed for the clients of one measurement.
fn seed() -> u64 {
    rand::random_range(0..=u64::from(u32::MAX))
}
