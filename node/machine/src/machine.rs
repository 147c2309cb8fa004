//! The machine itself: its clock, its range, and which room each command goes to.

use crate::{
    command::*,
    config::{Configs, Now},
    effects::Cx,
    hooks::{HookWork, Hooks},
    ids::*,
    ledger::{Counters, Ledger, Spot},
    limits,
    locks::{LockAt, Locks},
    planted,
    query::*,
    services::Services,
    session::Home,
};

mod acquire;
mod attach;
mod hold;
mod said;
mod same;
mod tick;

pub(crate) use said::Said;

/// The replicated state of one shard. See the crate's documentation.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    pub(crate) locks: Locks,
    pub(crate) ledger: Ledger,
    pub(crate) home: Home,
    pub(crate) configs: Configs,
    pub(crate) services: Services,
    pub(crate) hooks: Hooks,
}

/// How far a session's attachment to this shard has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// Not known here, or on its way out.
    None,
    /// Its home is being asked by this attempt.
    Pending(Nonce),
    /// It may hold and wait here.
    Attached,
}

impl Machine {
    /// The machine of a shard that has no range yet.
    pub fn new() -> Machine {
        Machine::default()
    }

    /// Applies one log entry. Appends one outcome for each command, in order, and the effects.
    ///
    /// `term` is the entry's own log term. The result depends on nothing but the state, the term and the
    /// batch.
    pub fn apply(&mut self, term: Term, batch: Batch, outcomes: &mut Vec<Outcome>, effects: &mut Effects) {
        outcomes.reserve(batch.commands.len());
        self.run(term, batch, Some((outcomes, effects)));
    }

    /// Applies one log entry that nobody here asks about: the state becomes the same as by
    /// [`Machine::apply`], and what would be answered is not even built.
    pub fn follow(&mut self, term: Term, batch: Batch) {
        self.run(term, batch, None);
    }

    fn run(&mut self, term: Term, batch: Batch, asked: Option<(&mut Vec<Outcome>, &mut Effects)>) {
        let counters = &mut self.ledger.counters;
        counters.now = if planted!("clock-goes-back") { batch.at } else { counters.now.max(batch.at) };
        let (mut outcomes, effects) = asked.unzip();
        let mut cx = Cx { term, wall: batch.wall, effects };
        let epoch = batch.epoch;
        let before = self.epoch();
        for command in batch.commands {
            // As if the epoch were looked at once for the whole batch.
            let epoch = if planted!("epoch-once-a-batch") && epoch == before { self.epoch() } else { epoch };
            let said = match self.stale(epoch, &command) {
                Some(current) => Outcome::StaleEpoch { current }.into(),
                None => self.execute(command, &mut cx),
            };
            if let Some(outcomes) = &mut outcomes {
                outcomes.push(self.outcome(said));
            }
        }
    }

    /// The epoch now, where the range has changed since the leader checked that the command's name or
    /// new session belongs here. An entry may change the range in its midst.
    fn stale(&self, epoch: RangeEpoch, command: &Command) -> Option<RangeEpoch> {
        let counters = &self.ledger.counters;
        let placed = command.key().is_some() || matches!(command, Command::OpenSession { .. });
        let stale = epoch != counters.epoch && !planted!("stale-epoch-accepted");
        (placed && counters.range.is_some() && stale).then_some(counters.epoch)
    }

    fn execute(&mut self, command: Command, cx: &mut Cx<'_>) -> Said {
        let incarnation = self.incarnation();
        let outcome = match command {
            Command::SetRange { first, last, epoch, incarnation } => {
                self.set_range((first, last), epoch, incarnation, cx)
            }
            Command::Tick => self.tick(cx),

            Command::OpenSession { session, holder } => self.home.open(session, holder, incarnation, cx),
            Command::CloseSession { session } => self
                .home
                .close(session, EndReason::SessionClosed, cx)
                .unwrap_or_else(|| self.home.gone(session, incarnation)),
            Command::ExpireSessions { sessions, term } => {
                if term != cx.term && !planted!("expiry-in-any-term") {
                    return Outcome::StaleTerm.into();
                }
                for session in sessions {
                    self.home.close(session, EndReason::SessionExpired, cx);
                }
                Outcome::Done
            }
            Command::Checkpoint { sessions } => {
                self.home.checkpoint(sessions);
                Outcome::Done
            }
            Command::Attach { session, shard } => {
                self.home.attach(session, shard).unwrap_or_else(|| self.home.gone(session, incarnation))
            }
            Command::Detached { session, shard } => {
                self.home.detached(session, shard, cx);
                Outcome::Done
            }

            Command::Pend { session } => self.pend(session),
            Command::Confirm { session, nonce, holder } => self.confirm(session, nonce, holder),
            Command::Unpend { session, nonce } => self.unpend(session, nonce),
            Command::Drop { session, reason } => self.drop_session(session, reason, cx),

            Command::Acquire(acquire) => return self.acquire(acquire, cx),
            Command::Release { request, key, lock_id } => return self.release(request, key, lock_id, cx),
            Command::Renew { request, key, lock_id, lease } => {
                return self.renew(request, key, lock_id, lease, cx);
            }
            Command::Break { key, reason } => self.break_open(key, reason, cx),
            Command::Cancel { session, request, key } => self.cancel(session, request, key, cx),

            Command::Configure(ask) => {
                let Ledger { counters: Counters { now, revision, .. }, events, .. } = &mut self.ledger;
                self.configs.configure(ask, &Now { stamp: *now, wall: cx.wall }, revision, events)
            }
            Command::Proclaim { request, key, lock_id, value } => {
                return self.proclaim(request, key, lock_id, value, cx);
            }

            Command::Register(ask) => self.register(ask, cx),
            Command::Deregister { request, key, instance, session } => {
                self.deregister(request, &key, &instance, session, cx)
            }
            Command::ReportHealth { request, key, instance, session, health } => {
                self.report_health(request, &key, &instance, session, health, cx)
            }

            Command::SetHook(ask) => {
                let now = self.at(cx);
                told(self.hooks.set(ask, &now), cx)
            }
            Command::DropHook { request, key } => {
                let now = self.at(cx);
                told(self.hooks.drop_hook(request, &key, &now), cx)
            }
            Command::SettleDead(ask) => {
                let now = self.at(cx);
                told(self.hooks.settle(&ask, &now), cx)
            }
            Command::BreakDeadlock(ask) => self.break_deadlock(ask, cx),
            Command::Advance(ask) => {
                let now = self.at(cx);
                self.hooks.advance(ask, &now)
            }
        };
        outcome.into()
    }

    fn at(&self, cx: &Cx<'_>) -> Now {
        Now { stamp: self.now(), wall: cx.wall }
    }

    /// Only a larger epoch takes effect; a repeat of the present range is as good as done.
    fn set_range(
        &mut self,
        range: (u64, u64),
        epoch: RangeEpoch,
        incarnation: Incarnation,
        cx: &mut Cx<'_>,
    ) -> Outcome {
        let counters = &mut self.ledger.counters;
        if range.0 > range.1 {
            return Outcome::Limit(Limit::Field);
        }
        if counters.range.is_some() && epoch <= counters.epoch {
            let repeat = counters.range == Some(range) && epoch == counters.epoch;
            return if repeat { Outcome::Done } else { Outcome::StaleEpoch { current: counters.epoch } };
        }
        counters.range = Some(range);
        counters.epoch = epoch;
        if incarnation > counters.incarnation {
            // After a restore, tokens granted by the lost history must stay below all new ones. A shard's
            // first incarnation has no history.
            if counters.incarnation > Incarnation(0) && !planted!("tokens-stay-after-a-lost-history") {
                let least = Token((u64::from(incarnation.0) << 40).min(limits::TOKEN_END - 1));
                counters.token = counters.token.max(least);
            }
            counters.incarnation = incarnation;
            self.home.close_older(incarnation, cx);
        }
        Outcome::Done
    }

    /// Works on one lock with the ledger, then lets its place rest if nothing is left of it.
    pub(crate) fn with_lock<T>(&mut self, at: LockAt, work: impl FnOnce(&mut Ledger, &mut Spot<'_>) -> T) -> T {
        let (key, lock) = self.locks.entry_mut(at);
        let mut spot = Spot { at, key, lock };
        let result = work(&mut self.ledger, &mut spot);
        if spot.lock.is_idle() {
            self.ledger.vanish(spot.lock);
            self.locks.rest(at);
        }
        result
    }

    /// The shard's clock.
    pub fn now(&self) -> Stamp {
        self.ledger.counters.now
    }

    /// The shard's range of the hash space, inclusive, once it has one.
    pub fn range(&self) -> Option<(u64, u64)> {
        self.ledger.counters.range
    }

    /// The epoch of the range.
    pub fn epoch(&self) -> RangeEpoch {
        self.ledger.counters.epoch
    }

    /// The cluster's incarnation as the shard knows it.
    pub fn incarnation(&self) -> Incarnation {
        self.ledger.counters.incarnation
    }

    /// The shard's revision: rises with every event.
    pub fn revision(&self) -> Revision {
        self.ledger.counters.revision
    }

    /// The earliest stamp at which a `Tick` has something to end: a lease, a wait, a lock-delay or a keyed
    /// answer. It is not after [`Machine::now`] where a tick left a page over.
    pub fn next_deadline(&self) -> Option<Stamp> {
        self.ledger.deadlines.next()
    }

    /// Whether a lease, a wait or a lock-delay runs by the shard's clock, so that a leader must log the
    /// clock every few seconds.
    pub fn keeps_time(&self) -> bool {
        self.ledger.deadlines.keeps_time()
    }

    /// How far a session's attachment to this shard has come.
    pub fn attachment(&self, session: SessionId) -> Attachment {
        if let Some(seat) = self.ledger.seats.get(&session) {
            return if seat.dropping { Attachment::None } else { Attachment::Attached };
        }
        self.ledger.pending.get(&session).map_or(Attachment::None, |nonce| Attachment::Pending(*nonce))
    }

    /// The attempts to attach whose answer is not on record, for a new leader to drive again.
    pub fn pendings(&self) -> impl Iterator<Item = (SessionId, Nonce)> {
        self.ledger.pending.iter().map(|(session, nonce)| (*session, *nonce))
    }

    /// The open sessions at home, with their TTL and what a checkpoint has recorded as left of it.
    pub fn open_sessions(&self) -> impl Iterator<Item = (SessionId, Millis, Option<Millis>)> {
        let open = self.home.iter().filter(|(_, session)| session.closing.is_none());
        open.map(|(id, session)| (id, session.holder.ttl, session.remaining))
    }

    /// The TTL of an open session at home and what a checkpoint has recorded as left of it.
    pub fn session_ttl(&self, session: SessionId) -> Option<(Millis, Option<Millis>)> {
        let known = self.home.get(session).filter(|known| known.closing.is_none())?;
        Some((known.holder.ttl, known.remaining))
    }

    /// The outbox: sessions that close, why, and the shards that have not yet acknowledged it.
    pub fn closing(&self) -> impl Iterator<Item = (SessionId, EndReason, Vec<ShardId>)> {
        self.home.closing().map(|(id, reason, session)| (id, reason, session.shards.iter().copied().collect()))
    }

    /// The outbox of one session; `None` where it does not close.
    pub fn closing_shards(&self, session: SessionId) -> Option<(EndReason, Vec<ShardId>)> {
        let known = self.home.get(session)?;
        Some((known.closing?, known.shards.iter().copied().collect()))
    }

    /// Whether the session has ended and that is remembered here, or it is of an older incarnation.
    pub fn is_ended(&self, session: SessionId) -> bool {
        self.home.gone(session, self.incarnation()) == Outcome::Ended && self.home.get(session).is_none()
    }

    /// The sessions that are attached here, those that are being dropped too.
    pub fn attached(&self) -> impl Iterator<Item = SessionId> {
        self.ledger.seats.sorted().into_iter().map(|(session, _)| *session)
    }

    /// Every queued request, by session.
    pub fn waiting(&self) -> impl Iterator<Item = (SessionId, RequestId, Key)> {
        let seats = self.ledger.seats.sorted();
        seats.into_iter().flat_map(|(session, seat)| {
            let mut waits: Vec<(SessionId, RequestId, Key)> = seat
                .waits
                .iter()
                .map(|(at, place)| {
                    let (key, lock) = self.locks.entry(at);
                    let (_, waiter) = lock.queue.find(place).expect("invariant 6: an indexed waiter waits");
                    (*session, waiter.ask.request, key.clone())
                })
                .collect();
            waits.sort_unstable_by(|a, b| a.2.cmp(&b.2));
            waits
        })
    }

    /// What happened after a revision and is kept still, in the order of revisions for each kind of object. Values of
    /// the configuration are not with it.
    pub fn happened(&self, after: Revision) -> impl Iterator<Item = &Event> {
        self.ledger.events.happened(after)
    }

    /// The webhooks, each with its last change that was none of progress.
    pub fn hooks(&self) -> impl Iterator<Item = (&Name, HookEpoch)> {
        self.hooks.revised()
    }

    /// What whoever delivers for a webhook has to know, its secret included.
    pub fn hook_work(&self, name: &Name) -> Option<HookWork> {
        self.hooks.work(name)
    }

    /// How much of what there is. O(1).
    pub fn counts(&self) -> Counts {
        Counts {
            sessions: self.home.open_count() as u64,
            grants_total: self.ledger.counters.grants_total,
            configs: self.configs.live() as u64,
            config_bytes: self.configs.bytes().0 as u64,
            config_old_bytes: self.configs.bytes().1 as u64,
            services: self.services.len() as u64,
            instances: self.services.tally(),
            instance_bytes: self.services.bytes() as u64,
            hooks: self.hooks.len() as u64,
            ..self.ledger.counts
        }
    }
}

/// An outcome; where a webhook was changed, whoever delivers hears of it.
fn told((outcome, changed): (Outcome, bool), cx: &mut Cx<'_>) -> Outcome {
    if changed {
        cx.note(|effects| effects.hooks = true);
    }
    outcome
}
