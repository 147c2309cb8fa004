//! Ends deadlocks, where this node leads the placement group.
//!
//! Nodes report the shards in which a session waits that does one thing at a time. Only those are looked at, a few
//! times a second: what two looks one after the other show alike stood between them ([`wardlock_router::deadlock`]). Without such
//! waits nothing is asked; where there are very many, it is done less often.
//!
//! Nothing here matters for safety: whoever leads the placement group next begins anew, and where two do so at once,
//! the second verdict on a waiter finds it gone.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::future::join_all;
use metrics::counter;
use wardlock_machine::{Command, ShardId, planted};
use wardlock_placement::{GroupId, PLACEMENT};
use wardlock_router::deadlock::{self, Seen};

use super::{Host, driver::leads, report::FRESH};

/// How long it is from one look to the next.
const PERIOD: Duration = Duration::from_millis(400);
/// The pause for each wait that was seen: to take one in costs some microseconds, on this node and its leader.
const PAUSE_PER_WAIT: Duration = Duration::from_micros(50);
/// How long a shard may take to tell of its waiters. One that does not is looked at the next time.
const PATIENCE: Duration = Duration::from_millis(1_000);

/// Looks until stopped.
pub(super) async fn run(host: Arc<Host>) {
    let Some(group) = host.groups.get(&PLACEMENT).map(|group| group.clone()) else { return };
    let mut before: Option<Seen> = None;
    let mut pause = PERIOD;
    loop {
        tokio::time::sleep(pause).await;
        pause = PERIOD;
        let shards = host.shards_with_waits();
        if shards.is_empty() || !leads(&group) {
            before = None;
            continue;
        }
        let seen = host.look(shards).await;
        if let Some(before) = &before {
            let standing = deadlock::stand(before, seen.clone());
            join_all(deadlock::find(&standing).iter().map(|found| host.end_deadlock(found, &standing))).await;
        }
        pause = pause.max(PAUSE_PER_WAIT * seen.0.len() as u32);
        before = Some(seen);
    }
}

impl Host {
    /// Where deadlocks may be, by what the nodes report.
    fn shards_with_waits(&self) -> BTreeSet<GroupId> {
        let now = self.parts.clock.now();
        let reports = self.reports.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let fresh = reports.values().filter(|(_, at)| now.saturating_sub(*at) < FRESH);
        fresh.flat_map(|(report, _)| report.waits.iter().copied()).collect()
    }

    async fn look(&self, shards: BTreeSet<GroupId>) -> Seen {
        let client = &self.parts.client;
        let looks = shards.into_iter().map(|shard| async move { (shard, client.waits(shard, PATIENCE).await) });
        let mut seen = Seen::default();
        for (shard, waits) in join_all(looks).await {
            // What is not seen is taken to go on: no victim comes of that.
            seen.add(ShardId(shard.0), waits.unwrap_or_default());
        }
        seen
    }

    async fn end_deadlock(&self, found: &deadlock::Deadlock, seen: &Seen) {
        let Some(verdict) = found.verdict(seen).filter(|_| !planted!("deadlocks-stand")) else { return };
        tracing::warn!(lock = %verdict.key.name, session = %verdict.session, "a deadlock is broken: {}", found.circle);
        // Where it fails, the next looks find the circle again.
        if self.parts.client.write(Command::BreakDeadlock(verdict), PATIENCE).await.is_ok() {
            counter!("wardlock_deadlocks_total").increment(1);
        }
    }
}
