//! Those who watch all locks, elections and paths of the run, over all shards, through every fault.
//!
//! Some stay where they are. The others leave every few seconds, stay away for a moment, and come back by another client
//! with the token that they had, as text. Often that is a client by which one watches already: what the two are served
//! together is then ahead of the one that came back.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use wardlock_machine::{Kind, What};
use wardlock_router::{Watch, WatchError, WatchToken, Watched};

use super::{
    book::content,
    client::{World, number},
};
use crate::{
    linear::{Op, path},
    told::News,
    workload::Dice,
};

/// How many watch, and how many of them stay where they are.
pub(super) const WATCHES: usize = 5;
const STAY: usize = 2;
/// A watch that does not stay ends after at least and at most so long.
const STAYS: (f64, f64) = (1.0, 7.0);
/// How long the first opening may take, before any fault.
const PATIENCE: Duration = Duration::from_secs(20);
/// The pause after an opening that failed.
const PAUSE: Duration = Duration::from_millis(200);

/// Opens all watches, before anything happens that they must be told; they watch until the set is dropped.
pub(super) async fn watch(world: &Arc<World>, seed: u64) -> anyhow::Result<JoinSet<()>> {
    let mut watching = JoinSet::new();
    for watcher in 0..WATCHES {
        let watch = builder(world, watcher).patience(PATIENCE).open().await?;
        let dice = Dice::new(seed ^ (watcher as u64 + 1).wrapping_mul(0x51_7cc1));
        watching.spawn(Watcher { watcher, world: Arc::clone(world), dice }.watch(watch));
    }
    Ok(watching)
}

fn builder(world: &World, way: usize) -> wardlock_router::WatchBuilder {
    let prefix = world.book().prefix().to_owned();
    let watch = world.pool.nth(way).watch();
    watch.prefix(Kind::Config, prefix.as_str()).prefix(Kind::Lock, prefix.as_str()).prefix(Kind::Election, prefix)
}

struct Watcher {
    watcher: usize,
    world: Arc<World>,
    dice: Dice,
}

impl Watcher {
    async fn watch(mut self, mut watch: Watch) {
        loop {
            let length = match self.watcher < STAY || self.world.stop.load(Ordering::Relaxed) {
                true => Duration::MAX,
                false => Duration::from_secs_f64(STAYS.0 + (STAYS.1 - STAYS.0) * self.dice.unit()),
            };
            // Once the load has ended there is no more to come back for.
            if timeout(length, self.listen(&mut watch)).await.is_ok() {
                return;
            }
            let token = watch.token();
            drop(watch);
            sleep(Duration::from_millis(self.dice.below(1_000))).await;
            let Some(again) = self.come_back(token).await else { return };
            watch = again;
        }
    }

    /// Tells what is told, until the watch is broken.
    async fn listen(&mut self, watch: &mut Watch) {
        loop {
            match watch.next().await {
                Ok(told) => self.told(&told),
                Err(WatchError::Compacted { .. }) => self.world.book().told.gap(self.watcher),
                Err(error) => return self.broken(&error),
            }
        }
    }

    async fn come_back(&mut self, token: WatchToken) -> Option<Watch> {
        let Ok(mut token) = token.to_string().parse::<WatchToken>() else {
            self.world.book().told.broken(format!("a token is none: {token}"));
            return None;
        };
        let began = Instant::now();
        loop {
            // Mostly where somebody watches already.
            let way = if self.dice.percent(60.0) { self.dice.below(STAY as u64) } else { self.dice.below(64) };
            match builder(&self.world, way as usize).since(token.clone()).open().await {
                Ok(watch) => {
                    self.world.book().told.resumed();
                    return Some(watch);
                }
                Err(WatchError::Compacted { resume }) => {
                    self.world.book().told.gap(self.watcher);
                    token = resume;
                }
                Err(WatchError::Cluster(error)) => {
                    if began.elapsed() > Duration::from_secs(300) {
                        self.broken(&WatchError::Cluster(error));
                        return None;
                    }
                    sleep(PAUSE).await;
                }
                Err(error) => {
                    self.broken(&error);
                    return None;
                }
            }
        }
    }

    fn broken(&self, error: &WatchError) {
        self.world.book().told.broken(format!("watch {} is broken: {error}", self.watcher));
    }

    fn told(&self, told: &Watched) {
        let event = &told.event;
        let (at, kind, called) = ((told.shard.0, event.revision.0), event.key.kind, event.key.name.as_str());
        let mut book = self.world.book();
        let now = book.now();
        if let What::Configured { version, deleted, value, .. } = &event.what {
            let told = match (deleted, value) {
                (true, _) => Some(None),
                (false, Some(value)) => Some(Some(number(value))),
                // The value was no longer kept.
                (false, None) => None,
            };
            let news = News::Made(version.0, told.map(content));
            let first = book.told.told(self.watcher, at, (kind, called), news);
            let name = book.number(called);
            if let (true, Some(value), Some(name)) = (first, told, name) {
                let what = path::What::Told { version: version.0, value };
                // As a session of its own, which no client has.
                let op = Op { session: self.watcher as u128, invoked: now, returned: Some(now), what };
                book.record_path(name, op);
            }
        } else if let What::Granted { lock_id, .. } = &event.what {
            let news = News::Made(lock_id.token.0, Some(lock_id.session.0));
            book.told.told(self.watcher, at, (kind, called), news);
        } else if let What::Ended { lock_id, .. } = &event.what {
            book.told.told(self.watcher, at, (kind, called), News::Ended(lock_id.token.0));
        }
    }
}
