//! A lock service in memory, for tests of the engine: correct, or with one bug planted in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{About, Acquired, Failure, Grant, How};

/// What is wrong with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Nothing.
    #[default]
    None,
    /// Each lock is given to whoever asks.
    GrantsTwice,
    /// Tokens fall from grant to grant.
    TokensFall,
    /// Sessions are forgotten.
    ForgetsSessions,
    /// Locks are forgotten by their release.
    ForgetsLocks,
    /// Reads say that nobody holds anything.
    StaleReads,
}

/// See the [module](self).
#[derive(Default)]
pub(crate) struct Fake {
    bug: Bug,
    /// How long each call takes.
    delay: Duration,
    /// No call is answered before this.
    stalled: Option<Instant>,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Default)]
struct State {
    token: u64,
    /// Who holds what, shared or not, and until when by its lease.
    held: BTreeMap<(u64, u64), (bool, Option<Instant>)>,
    sessions: BTreeSet<u32>,
}

impl Fake {
    /// Each call takes so long.
    pub(crate) fn slow(ms: u64) -> Fake {
        Fake { delay: Duration::from_millis(ms), ..Fake::default() }
    }

    /// With this bug.
    pub(crate) fn with(self, bug: Bug) -> Fake {
        Fake { bug, ..self }
    }

    /// Answers nothing before then.
    pub(crate) fn stalled_until(self, then: Instant) -> Fake {
        Fake { stalled: Some(then), ..self }
    }

    /// How many locks are held and how many sessions are open.
    pub(crate) fn left(&self) -> (usize, usize) {
        let state = self.state();
        (state.held.len(), state.sessions.len())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        state.held.retain(|_, (_, until)| until.is_none_or(|until| now < until));
        state
    }

    async fn work(&self) {
        if let Some(stalled) = self.stalled.filter(|stalled| Instant::now() < *stalled) {
            tokio::time::sleep_until(stalled.into()).await;
        }
        tokio::time::sleep(self.delay).await;
    }

    pub(crate) async fn open(&self, session: u32, _ttl: Duration) -> Result<(), Failure> {
        self.state().sessions.insert(session);
        Ok(())
    }

    pub(crate) async fn close(&self, session: u32) -> Result<(), Failure> {
        self.state().sessions.remove(&session);
        Ok(())
    }

    pub(crate) async fn keep_alive(&self, session: u32) -> Result<bool, Failure> {
        self.work().await;
        Ok(self.bug != Bug::ForgetsSessions && self.state().sessions.contains(&session))
    }

    pub(crate) async fn acquire(&self, _session: u32, name: u64, how: How) -> Result<Acquired, Failure> {
        self.work().await;
        let (deadline, mut queued) = (Instant::now() + how.wait, false);
        loop {
            let freed = self.freed.notified();
            if let Some(grant) = self.state().grant(self.bug, name, how) {
                return Ok(Acquired::Granted { grant, queued });
            }
            if how.wait.is_zero() {
                return Ok(Acquired::Held);
            }
            queued = true;
            if tokio::time::timeout_at(deadline.into(), freed).await.is_err() {
                return Ok(Acquired::TimedOut);
            }
        }
    }

    pub(crate) async fn renew(&self, _session: u32, name: u64, grant: Grant, lease: Duration) -> Result<bool, Failure> {
        self.work().await;
        let mut state = self.state();
        let held = state.held.get_mut(&(name, grant.token));
        Ok(held.map(|(_, until)| *until = Some(Instant::now() + lease)).is_some())
    }

    pub(crate) async fn release(&self, _session: u32, name: u64, grant: Grant) -> Result<bool, Failure> {
        self.work().await;
        let held = self.state().held.remove(&(name, grant.token)).is_some();
        self.freed.notify_waiters();
        Ok(held && self.bug != Bug::ForgetsLocks)
    }

    pub(crate) async fn read(&self, name: u64) -> Result<Option<u64>, Failure> {
        self.work().await;
        let state = self.state();
        let holder = state.held.range((name, 0)..=(name, u64::MAX)).next().map(|((_, token), _)| *token);
        Ok(holder.filter(|_| self.bug != Bug::StaleReads))
    }

    pub(crate) fn shard_of(&self, name: u64) -> Option<(u32, Option<u32>)> {
        Some((10 + (name % 4) as u32, Some(1)))
    }

    pub(crate) fn server_pids(&self) -> Vec<u32> {
        Vec::new()
    }

    pub(crate) fn about(&self) -> About {
        About { system: "fake".to_owned(), consistency: "linearizable".to_owned(), shards: 4, ..About::default() }
    }
}

impl State {
    fn grant(&mut self, bug: Bug, name: u64, how: How) -> Option<Grant> {
        let mut holders = self.held.range((name, 0)..=(name, u64::MAX));
        let excluded = holders.any(|(_, (shared, _))| !(*shared && how.shared));
        if excluded && bug != Bug::GrantsTwice {
            return None;
        }
        self.token += 1;
        let token = if bug == Bug::TokensFall { u64::MAX - self.token } else { self.token };
        self.held.insert((name, token), (how.shared, how.lease.map(|lease| Instant::now() + lease)));
        Some(Grant { token, id: 0 })
    }
}
