//! Stale reads: any replica answers from what it has applied, and says how old that may be.
//!
//! [`Freshness`] decides; here its questions are asked and its answers given. A read whose bound the
//! last proof meets is answered where it came in: it takes no task, no timer and no way through the group's inbox.
//! Where a proof is wanted one task for each group asks for it, for all who wait, and ends when nobody does.

use std::{
    future::pending,
    pin::pin,
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::{BoxFuture, FutureExt};
use wardlock_machine::{Answer, Query};
use wardlock_router::{Error, link::Replier};
use wardlock_wire::{Refusal, Response};

use super::Host;
use crate::group::{
    Freshness, Group,
    freshness::{Asked, Settled, StaleRead, TooStale},
    runner::misread,
    weight,
};

/// How long a leader is looked for, for one proof.
const PROOF_PATIENCE: Duration = Duration::from_secs(1);
/// How long after a failure the next proof is asked for.
const PROOF_PAUSE: Duration = Duration::from_millis(50);
/// The longest that a read waits.
const WAIT: Duration = Duration::from_secs(60);

/// A question for a proof under way: when it was asked, and its answer.
type Question = BoxFuture<'static, (Duration, Result<u64, Error>)>;

impl Host {
    /// Answers now, or when the replica is known to be as fresh as is asked for.
    pub(super) fn stale(
        self: &Arc<Self>,
        group: &Group,
        query: Query,
        max_age_ms: Option<u32>,
        patience: Duration,
        reply: Replier,
    ) {
        if matches!(query, Query::Events { .. } | Query::Fence { .. }) {
            let why = "events are watched, and fences are checked by the leader: neither may be stale";
            return reply.send(Err(Refusal::Malformed(why.to_owned())));
        }
        let came = self.parts.clock.now();
        let bytes = weight::query(&query);
        let until = came + patience.min(WAIT);
        let read = StaleRead { query, max_age_ms: max_age_ms.map(u64::from), came, until, reply };
        // Before the state is read: there it is at least as much.
        let applied = group.replica.applied_index();
        let mut freshness = freshness(group);
        let asked = freshness.ask(read, bytes, applied);
        let begins = freshness.take_over();
        drop(freshness);
        if begins {
            self.spawn(prove(Arc::clone(self), group.clone()));
        }
        match asked {
            Asked::Now(read, age) => self.end(group, read, Ok(age)),
            Asked::Waits => {}
            Asked::Full(read) => {
                self.stale_metrics.overloaded();
                read.reply.send(Err(Refusal::Overloaded));
            }
        }
    }

    fn end(&self, group: &Group, read: StaleRead<Replier>, settled: Settled) {
        self.stale_metrics.settled(settled);
        let answered = settled.map_err(|TooStale| Refusal::TooStale).and_then(|age_ms| {
            let map = self.map();
            let answer = group.replica.machine(|machine| {
                let elsewhere = misread(machine.range(), machine.epoch(), &map, &read.query);
                elsewhere.map_or_else(|| Ok(machine.query(&read.query)), Err)
            });
            let answer: Answer = answer.unwrap_or(Err(Refusal::NoReplica { map: map.version }))?;
            Ok(Response::Stale { answer, age_ms })
        });
        read.reply.send(answered);
    }
}

/// Asks for proofs for as long as somebody wants them.
async fn prove(host: Arc<Host>, group: Group) {
    let clock = Arc::clone(&host.parts.clock);
    let (mut question, mut not_before): (Option<Question>, _) = (None, Duration::ZERO);
    loop {
        let mut progressed = pin!(group.replica.progressed.notified());
        // From here on nothing that is applied goes unnoticed.
        progressed.as_mut().enable();
        let now = clock.now();
        let may_begin = question.is_none() && now >= not_before;
        let (settled, begins, ends, mut wake) = {
            let mut freshness = freshness(&group);
            let settled = freshness.settle(now, group.replica.applied_index());
            let begins = may_begin && freshness.begin();
            let ends = !begins && question.is_none() && freshness.hand_back();
            (settled, begins, ends, freshness.next())
        };
        if question.is_none() && !may_begin {
            wake = Some(wake.map_or(not_before, |wake| wake.min(not_before)));
        }
        for (read, settled) in settled {
            host.end(&group, read, settled);
        }
        if ends {
            return;
        }
        if begins {
            question = Some(ask(&host, &group));
        }
        let answered = async {
            match &mut question {
                Some(question) => question.await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            (asked, answer) = answered => {
                question = None;
                match answer {
                    Ok(index) => freshness(&group).proved(asked, clock.now(), index),
                    Err(error) => {
                        tracing::debug!("group {}: no proof of freshness: {error}", group.id);
                        freshness(&group).failed();
                        not_before = clock.now() + PROOF_PAUSE;
                    }
                }
            }
            () = progressed => {}
            () = sleep(wake.map(|wake| wake.saturating_sub(now))) => {}
        }
    }
}

/// The time is taken before anything is asked.
fn ask(host: &Host, group: &Group) -> Question {
    let (client, id, asked) = (host.parts.client.clone(), group.id, host.parts.clock.now());
    async move { (asked, client.read_index(id, PROOF_PATIENCE).await) }.boxed()
}

fn freshness(group: &Group) -> MutexGuard<'_, Freshness<Replier>> {
    group.freshness.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn sleep(wake: Option<Duration>) {
    match wake {
        Some(wait) => tokio::time::sleep(wait).await,
        None => pending().await,
    }
}
