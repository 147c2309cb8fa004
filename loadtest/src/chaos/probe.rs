//! How long each shard takes no writes, as clients see it.
//!
//! For every shard a small write begins every [`EVERY`], whether the ones before are answered or not, each by
//! another client of the pool. An outage is no finer than that.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use wardlock_machine::{Acquire, Command, Holder, Key, Metadata, Millis, Outcome, RequestId, SessionId};
use wardlock_placement::{Routes, hash_name};

use super::client::{World, key};
use crate::faults::Seen;

/// The time from one write to the next.
pub(super) const EVERY: Duration = Duration::from_millis(25);
/// How long a write may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The probes' session must outlive every outage.
const TTL: Millis = Millis(3_600_000);
/// So many writes after the last, it shows that it lives.
const SIGN_OF_LIFE: u64 = 2_400;
/// How many names are tried until every shard has one.
const NAMES: u32 = 100_000;

/// See the [module](self).
pub(super) struct Probes {
    /// A name in each shard.
    shards: BTreeMap<u32, Key>,
    began: Instant,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Probes {
    /// Finds a name in each shard.
    pub(super) fn new(world: &World) -> anyhow::Result<Probes> {
        let map = world.pool.nth(0).map();
        let routes = Routes::new(&map);
        let wanted = map.shards().count();
        let mut shards = BTreeMap::new();
        for n in 0..NAMES {
            let name = format!("probe/{n}");
            if let Some(shard) = routes.owner(hash_name(&map.hash_key, &name)) {
                shards.entry(shard.0).or_insert_with(|| key(&name));
            }
            if shards.len() == wanted {
                return Ok(Probes { shards, began: Instant::now(), seen: Arc::default() });
            }
        }
        bail!("no name was found for some of the {wanted} shards")
    }

    /// Since the probes began.
    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Writes until dropped.
    pub(super) async fn run(&self, world: &Arc<World>) -> anyhow::Result<()> {
        let session = world.pool.nth(0).new_session_id();
        let holder = Holder { client_id: "chaos-probe".to_owned(), ttl: TTL, metadata: Metadata::new() };
        let open = Command::OpenSession { session, holder };
        let opened = world.pool.nth(0).write(open, PATIENCE).await;
        opened.context("the probes' session cannot be opened")?;
        let mut timer = interval(EVERY);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut under_way = JoinSet::new();
        for seq in 1.. {
            timer.tick().await;
            while under_way.try_join_next().is_some() {}
            if seq % SIGN_OF_LIFE == 0 {
                let world = Arc::clone(world);
                // There are many more before it may end.
                under_way.spawn(async move { drop(world.pool.nth(0).keep_alive(session, PATIENCE).await) });
            }
            for (shard, key) in &self.shards {
                let write = probe(Arc::clone(world), session, key.clone(), seq);
                let (shard, began, seen) = (*shard, self.began, Arc::clone(&self.seen));
                under_way.spawn(async move {
                    let started = began.elapsed();
                    let answered = write.await;
                    let one = Seen { shard, started, ended: began.elapsed(), answered };
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push(one);
                });
            }
        }
        Ok(())
    }

    /// Waits until every shard has taken a write that began after this.
    pub(super) async fn all_write(&self, patience: Duration) -> anyhow::Result<()> {
        let from = self.now();
        let missing = || {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let wrote = |shard: u32| seen.iter().any(|one| one.shard == shard && one.answered && one.started >= from);
            self.shards.keys().copied().find(|shard| !wrote(*shard))
        };
        let all = async {
            while missing().is_some() {
                sleep(EVERY).await;
            }
        };
        if timeout(patience, all).await.is_err() {
            let shard = missing().unwrap_or_default();
            bail!("shard {shard} takes no writes {:.0} s after the fault was undone", patience.as_secs_f64());
        }
        Ok(())
    }

    /// What ended since `from`; what ended before is forgotten.
    pub(super) fn since(&self, from: Duration) -> Vec<Seen> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|one| one.ended >= from);
        seen.clone()
    }
}

/// One write: whatever is answered was committed.
async fn probe(world: Arc<World>, session: SessionId, key: Key, seq: u64) -> bool {
    let client = world.pool.nth(seq as usize);
    let acquire = Acquire::new(session, RequestId::Native { seq, low: seq }, key);
    !matches!(
        client.write(Command::Acquire(acquire), PATIENCE).await,
        Err(_) | Ok(Outcome::NotAttached | Outcome::UnknownSession | Outcome::Ended)
    )
}
