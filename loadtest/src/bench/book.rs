//! The books: what each client is to do next, and what follows from each answer.
//!
//! Everything here is bookkeeping between two waits: times are passed in and nothing is sent. An operation
//! begins with [`Book::choose`], which also notes what the [safety check](crate::safety) must know before it
//! is sent, and ends with one of the other calls.

use std::{sync::Arc, time::Duration, time::Instant};

use super::{
    Observer, Seen,
    holds::{Holding, Holds, Id},
    recorder::{Kind, Recorder, Times},
    shards::Shards,
};
use crate::{
    safety::{Asked, At, Granted, Holder, Safety},
    target::{Acquired, Failure, How},
    workload::{self, Dice, Names, Plan},
};

/// How long a release that failed rests before it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// One logical client.
#[derive(Debug)]
pub(crate) struct Client {
    number: u32,
    /// How many there are.
    of: u32,
    dice: Dice,
    /// The lock that it holds until its next write.
    own: Option<Id>,
}

impl Client {
    /// Number `number` of `of`; `seed` differs between measurements.
    pub(crate) fn new(number: u32, of: u32, seed: u64) -> Client {
        Client { number, of, dice: Dice::new((seed << 32) | u64::from(number)), own: None }
    }

    /// The session that it asks with: its own ones in turn, or the one that it shares with others.
    fn session(&mut self, sessions: u32) -> u32 {
        let Client { number, of, dice, .. } = self;
        if sessions <= *of {
            return *number % sessions;
        }
        let own = (sessions - *number).div_ceil(*of);
        *number + *of * dice.below(u64::from(own)) as u32
    }
}

/// An operation that is about to be sent.
#[derive(Debug)]
pub(crate) enum Work {
    Read { name: u64, before: Option<Holder> },
    Acquire { session: u32, name: u64, how: How, asked: Asked },
    Release { holding: Holding, holder: Option<Holder>, own: bool },
    KeepAlive { session: u32 },
}

/// See the [module](self).
pub(crate) struct Book {
    plan: Plan,
    /// Percent of reads; a measurement may have its own.
    pub(crate) reads: f64,
    names: Names,
    shards: Arc<Shards>,
    check_reads: bool,
    began: Instant,
    pub(crate) safety: Safety,
    pub(crate) holds: Holds,
    pub(crate) recorder: Recorder,
    /// When each name's last release was sent, where clients queue.
    released: Vec<Option<At>>,
    /// The session whose sign of life is next.
    turn: u32,
    pub(crate) observer: Option<Observer>,
}

impl Book {
    /// For a workload. `check_reads` where reads are linearizable.
    pub(crate) fn new(plan: Plan, shards: Arc<Shards>, check_reads: bool) -> Book {
        let queues = if plan.wait.is_zero() { 0 } else { plan.names as usize };
        Book {
            reads: plan.reads,
            names: Names::new(plan.names, plan.distribution),
            recorder: Recorder::new(shards.count(), plan.rate.is_some()),
            shards,
            check_reads,
            began: Instant::now(),
            safety: Safety::new(plan.names, plan.sessions),
            holds: Holds::default(),
            released: vec![None; queues],
            turn: 0,
            observer: None,
            plan,
        }
    }

    /// A moment, as the safety check counts.
    pub(crate) fn at(&self, moment: Instant) -> At {
        moment.saturating_duration_since(self.began)
    }

    /// The TTL of sessions.
    pub(crate) fn ttl(&self) -> Duration {
        self.plan.ttl
    }

    /// What a client does now.
    pub(crate) fn choose(&mut self, client: &mut Client, due: Instant, now: Instant) -> Work {
        self.recorder.sent(due, now);
        if self.plan.kind == workload::Kind::Keepalive {
            self.turn = (self.turn + 1) % self.plan.sessions;
            return Work::KeepAlive { session: self.turn };
        }
        if self.reads > 0.0 && client.dice.percent(self.reads) {
            let name = self.names.draw(&mut client.dice);
            let before = if self.check_reads { self.safety.reading(name, self.at(now)) } else { None };
            return Work::Read { name, before };
        }
        if let Some(holding) = client.own.take().and_then(|own| self.holds.take(own)) {
            return self.releasing(holding, true, now);
        }
        if let Some(holding) = self.holds.take_due(now) {
            return self.releasing(holding, false, now);
        }
        let session = client.session(self.plan.sessions);
        let name = self.names.draw(&mut client.dice);
        let asked = self.safety.asking(session, name, self.at(now));
        Work::Acquire { session, name, how: self.plan.how(&mut client.dice), asked }
    }

    /// A release is sent.
    pub(crate) fn releasing(&mut self, holding: Holding, own: bool, now: Instant) -> Work {
        let at = self.at(now);
        if let Some(released) = self.released.get_mut(holding.name as usize) {
            *released = Some(at);
        }
        Work::Release { holding, holder: self.safety.releasing(holding.name, holding.grant.token), own }
    }

    /// A read was answered.
    pub(crate) fn read(&mut self, name: u64, before: Option<Holder>, token: Option<u64>, times: Times) {
        self.safety.was_read(name, before, token, self.at(times.done));
        self.answered(Kind::Read, Some(name), times);
    }

    /// An acquire was answered.
    pub(crate) fn acquired(
        &mut self,
        client: &mut Client,
        (session, name, how, asked): (u32, u64, How, Asked),
        acquired: Acquired,
        times: Times,
    ) {
        let kind = match acquired {
            Acquired::Held => Kind::Refused,
            Acquired::TimedOut => Kind::TimedOut,
            Acquired::Granted { queued: false, .. } => Kind::Acquire,
            Acquired::Granted { queued: true, .. } => Kind::QueueWait,
        };
        if let Acquired::Granted { grant, .. } = acquired {
            let now = self.at(times.done);
            if kind == Kind::QueueWait
                && let Some(released) = self.released.get(name as usize).copied().flatten()
            {
                self.recorder.handed_off(now.saturating_sub(released), times.done);
            }
            let How { shared, lease, .. } = how;
            let granted = Granted { session, name, token: grant.token, shared, lease };
            self.safety.granted(asked, granted, now);
            let hold = self.plan.hold(&mut client.dice);
            let id = self.holds.add(Holding { session, name, grant }, hold.map(|hold| times.done + hold));
            if hold.is_none() {
                client.own = Some(id);
            }
            if let Some(half) = lease.map(|lease| lease / 2).filter(|half| hold.is_none_or(|hold| hold > *half)) {
                self.holds.renew_at(id, times.sent + half);
            }
        }
        self.answered(kind, Some(name), times);
    }

    /// A release was answered: whether the lock was still held.
    pub(crate) fn released(&mut self, name: u64, holder: Option<Holder>, held: bool, times: Times) {
        if !held {
            self.safety.was_lost(name, holder, self.at(times.done));
            self.recorder.lost(times.done);
        }
        self.answered(Kind::Release, Some(name), times);
    }

    /// A release failed: the lock is as good as held.
    pub(crate) fn not_released(&mut self, client: &mut Client, holding: Holding, own: bool, now: Instant) {
        let id = self.holds.add(holding, (!own).then(|| now + RETRY));
        if own {
            client.own = Some(id);
        }
    }

    /// A renewal, which is on no schedule, was answered: whether the lock was still held. It may have been released meanwhile.
    pub(crate) fn renewed(&mut self, id: Id, holding: Holding, lease: Duration, held: bool, times: Times) {
        let Holding { name, grant, .. } = holding;
        if held {
            self.safety.renewed(name, grant.token, self.at(times.sent), lease);
            self.holds.renew_at(id, times.sent + lease / 2);
        } else if self.holds.take(id).is_some() {
            self.safety.renewal_lost(name, grant.token, self.at(times.done));
            self.recorder.lost(times.done);
        }
        self.recorder.answered(Kind::Renew, self.shards.index(name), times, false);
    }

    /// A sign of life was answered: whether the session still lives. `counts` is whether it belongs to the
    /// load.
    pub(crate) fn kept(&mut self, session: u32, alive: bool, counts: bool, times: Times) {
        match alive {
            true => self.safety.alive(session, self.at(times.sent)),
            false => self.safety.session_lost(session, self.at(times.done)),
        }
        self.recorder.answered(Kind::KeepAlive, None, times, counts);
    }

    /// An operation failed.
    pub(crate) fn failed(&mut self, name: Option<u64>, failure: &Failure, times: Times) {
        self.recorder.failed(&failure.0, times.due, times.done);
        self.observe(name, times, false);
    }

    fn answered(&mut self, kind: Kind, name: Option<u64>, times: Times) {
        let shard = name.and_then(|name| self.shards.index(name));
        self.recorder.answered(kind, shard, times, true);
        self.observe(name, times, true);
    }

    fn observe(&self, name: Option<u64>, times: Times, ok: bool) {
        if let Some(observer) = &self.observer
            && let Some(shard) = name.and_then(|name| self.shards.id(self.shards.index(name)?))
        {
            observer(Seen { shard, due: times.due, done: times.done, ok });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_share_sessions_or_have_several_each() {
        for (clients, sessions) in [(10, 3), (10, 10), (3, 10), (1, 7)] {
            let mut used = vec![std::collections::BTreeSet::new(); sessions as usize];
            for number in 0..clients {
                let mut client = Client::new(number, clients, 1);
                for _ in 0..200 {
                    used[client.session(sessions) as usize].insert(number);
                }
            }
            assert!(used.iter().all(|by| !by.is_empty()), "{clients} clients leave none of {sessions} sessions unused");
            if sessions >= clients {
                assert!(used.iter().all(|by| by.len() == 1), "no session has two clients");
            }
        }
    }
}
