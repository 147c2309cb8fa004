//! The reference model of one shard: what the promises say, in the plainest way that can be run.
//!
//! Everything lies in flat vectors in the order in which it came about, and everything is found by walking
//! along them. There is no index, no counter that could be derived, and nothing is shared with the machine
//! but the words that go in and out.
//!
//! # Where the promises leave freedom
//!
//! - A lock id that was never given out, with the number of a grant that is past: the shard does not remember
//!   every grant, so *foreign*, *expired* and, of a number that the session did give back, *released* are
//!   all allowed. Whatever it says, nothing may change. The model takes the machine's word here, and only here.
//! - The order in which requests of different waiters are settled within one command: compared as a set. The
//!   order of the grants is in their tokens, which are compared.
//!
//! # What replicas agree on, though nobody asked for it
//!
//! Tokens and revisions count one by one. What ends at one moment ends in this order: leases by token, then
//! lock-delays by name, then waits in the order of their places, so that who waited to the very end gets
//! what became free then. A dropped session leaves its queues first, then its locks, then its services, each in the
//! order of names. Who is thrown out of a lock loses it youngest first. A lock-delay that has run out is noticed by a tick, by who asks anew, and by who leaves the lock or
//! its queue.

use wardlock_machine::*;

use crate::{answers::Guest, configs::Past, hooks::Hooks, locks::*, services::Registry};

/// What a batch says of all its commands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) at: Stamp,
    pub(crate) wall: WallMs,
    pub(crate) term: Term,
    pub(crate) epoch: RangeEpoch,
}

/// A session that is at home in the shard.
#[derive(Clone, Debug)]
pub(crate) struct AtHome {
    pub(crate) id: SessionId,
    pub(crate) holder: Holder,
    pub(crate) created: WallMs,
    pub(crate) left: Option<Millis>,
    pub(crate) shards: Vec<ShardId>,
    pub(crate) closing: Option<EndReason>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) now: Stamp,
    pub(crate) range: Option<(u64, u64)>,
    pub(crate) epoch: RangeEpoch,
    pub(crate) incarnation: Incarnation,
    pub(crate) revision: Revision,
    /// All tokens up to this one are used or given up.
    pub(crate) last_token: Token,
    pub(crate) last_nonce: Nonce,
    pub(crate) home: Vec<AtHome>,
    /// Every session that ever ended here.
    pub(crate) ended: Vec<SessionId>,
    /// Sessions whose home is being asked.
    pub(crate) asking: Vec<(SessionId, Nonce)>,
    /// Sessions that are attached.
    pub(crate) guests: Vec<Guest>,
    /// Every grant that is held, in the order of tokens.
    pub(crate) held: Vec<Holding>,
    /// Every request that waits, in the order of arrival.
    pub(crate) waiting: Vec<Waiter>,
    /// How many places in queues were ever taken.
    pub(crate) arrivals: u64,
    /// Locks that are closed after a loss.
    pub(crate) delays: Vec<Delay>,
    /// Every lock id that was ever given out.
    pub(crate) given: Vec<LockId>,
    /// When the holders of each object last changed, or their value; the last entry of a key counts.
    pub(crate) changes: Vec<(Key, Revision)>,
    /// All that ever happened.
    pub(crate) events: Vec<Event>,
    /// What the configuration was.
    pub(crate) past: Past,
    /// Which instances of services there are.
    pub(crate) registry: Registry,
    /// The webhooks.
    pub(crate) hooks: Hooks,
    /// How often the machine chose where it was free to.
    pub(crate) freedoms: u64,
    /// The wall time and the effects of the command that runs.
    pub(crate) wall: WallMs,
    pub(crate) effects: Effects,
}

impl Model {
    /// What must come of a command. `seen` is what the machine answered, for where it is free to choose.
    pub(crate) fn step(&mut self, header: &Header, command: &Command, seen: &Outcome) -> (Outcome, Effects) {
        self.now = self.now.max(header.at);
        self.wall = header.wall;
        self.effects = Effects::default();
        // Only what was placed by the map can have been placed wrongly: keys, and new sessions.
        let placed = command.key().is_some() || matches!(command, Command::OpenSession { .. });
        let outcome = if placed && self.range.is_some() && header.epoch != self.epoch {
            Outcome::StaleEpoch { current: self.epoch }
        } else {
            self.run(header.term, command, seen)
        };
        (outcome, std::mem::take(&mut self.effects))
    }

    fn run(&mut self, term: Term, command: &Command, seen: &Outcome) -> Outcome {
        match command {
            Command::SetRange { first, last, epoch, incarnation } => {
                self.set_range((*first, *last), *epoch, *incarnation)
            }
            Command::Tick => self.tick(),

            Command::OpenSession { session, holder } => self.open(*session, holder),
            Command::CloseSession { session } => match self.close(*session, EndReason::SessionClosed) {
                true if self.is_at_home(*session) => Outcome::Closing,
                true => Outcome::Ended,
                false => self.not_at_home(*session),
            },
            Command::ExpireSessions { sessions, term: watched } => {
                if *watched != term {
                    return Outcome::StaleTerm;
                }
                for session in sessions {
                    self.close(*session, EndReason::SessionExpired);
                }
                Outcome::Done
            }
            Command::Checkpoint { sessions } => {
                for (session, left) in sessions {
                    for open in self.home.iter_mut().filter(|open| open.id == *session && open.closing.is_none()) {
                        open.left = left.map(|left| left.min(open.holder.ttl));
                    }
                }
                Outcome::Done
            }
            Command::Attach { session, shard } => self.attach(*session, *shard),
            Command::Detached { session, shard } => self.detached(*session, *shard),

            Command::Pend { session } => self.pend(*session),
            Command::Confirm { session, nonce, holder } => self.confirm(*session, *nonce, holder),
            Command::Unpend { session, nonce } => {
                self.asking.retain(|asking| *asking != (*session, *nonce));
                Outcome::Done
            }
            Command::Drop { session, reason } => self.drop_session(*session, *reason),

            Command::Acquire(ask) => self.acquire(ask),
            Command::Release { request, key, lock_id } => self.release(*request, key, *lock_id, seen),
            Command::Renew { request, key, lock_id, lease } => self.renew(*request, key, *lock_id, *lease, seen),
            Command::Break { key, reason } => self.break_open(key, reason),
            Command::Cancel { session, request, key } => self.cancel(*session, *request, key),
            Command::BreakDeadlock(ask) => self.break_deadlock(ask),
            Command::Configure(ask) => self.configure(ask),
            Command::Proclaim { request, key, lock_id, value } => self.proclaim(*request, key, *lock_id, value, seen),
            Command::Register(ask) => self.register(ask),
            Command::Deregister { request, key, instance, session } => {
                self.deregister(*request, key, instance, *session)
            }
            Command::ReportHealth { request, key, instance, session, health } => {
                self.report_health(*request, key, instance, *session, *health)
            }
            Command::SetHook(ask) => self.set_hook(ask),
            Command::DropHook { request, key } => self.drop_hook(*request, key),
            Command::Advance(ask) => self.advance(ask),
            Command::SettleDead(ask) => self.settle_dead(ask),
        }
    }

    /// A range is replaced by one of a higher epoch only. A higher incarnation ends the sessions of those
    /// before it and leaves their tokens below.
    fn set_range(&mut self, range: (u64, u64), epoch: RangeEpoch, incarnation: Incarnation) -> Outcome {
        if range.0 > range.1 {
            return Outcome::Limit(Limit::Field);
        }
        if self.range == Some(range) && self.epoch == epoch {
            return Outcome::Done;
        }
        if self.range.is_some() && epoch <= self.epoch {
            return Outcome::StaleEpoch { current: self.epoch };
        }
        (self.range, self.epoch) = (Some(range), epoch);
        let before = self.incarnation;
        if incarnation > before {
            self.incarnation = incarnation;
            if before != Incarnation(0) {
                let leap = (u64::from(incarnation.0) * (1 << 40)).min(limits::TOKEN_END - 1);
                self.last_token = self.last_token.max(Token(leap));
            }
            let mut older: Vec<SessionId> = self.home.iter().map(|open| open.id).collect();
            older.retain(|session| session.incarnation() < incarnation);
            older.sort();
            for session in older {
                self.close(session, EndReason::SessionExpired);
            }
        }
        Outcome::Done
    }

    pub(crate) fn is_at_home(&self, session: SessionId) -> bool {
        self.home.iter().any(|open| open.id == session)
    }

    pub(crate) fn has_ended(&self, session: SessionId) -> bool {
        !self.is_at_home(session) && (self.ended.contains(&session) || session.incarnation() < self.incarnation)
    }

    fn not_at_home(&self, session: SessionId) -> Outcome {
        if self.has_ended(session) { Outcome::Ended } else { Outcome::UnknownSession }
    }

    fn open(&mut self, session: SessionId, holder: &Holder) -> Outcome {
        if !is_holder(holder) {
            return Outcome::Limit(Limit::Field);
        }
        // Of another incarnation is as good as ended: this one never gave out such an id.
        if self.ended.contains(&session) || session.incarnation() != self.incarnation {
            return Outcome::Ended;
        }
        if let Some(known) = self.home.iter().find(|open| open.id == session) {
            return match known.closing {
                Some(_) => Outcome::Closing,
                None if known.holder.client_id != holder.client_id => Outcome::IdTaken,
                None => Outcome::Opened { created: known.created },
            };
        }
        self.home.push(AtHome {
            id: session,
            holder: holder.clone(),
            created: self.wall,
            left: None,
            shards: Vec::new(),
            closing: None,
        });
        self.effects.opened.push(session);
        Outcome::Opened { created: self.wall }
    }

    /// Starts to close a session; false where it is not at home. The first reason stays.
    fn close(&mut self, session: SessionId, reason: EndReason) -> bool {
        let Some(known) = self.home.iter_mut().find(|open| open.id == session) else { return false };
        if known.closing.is_none() {
            known.closing = Some(reason);
            known.left = None;
            self.effects.closing.push((session, reason));
            self.end_what_is_told();
        }
        true
    }

    /// A closing session has ended when no shard is left to be told.
    fn end_what_is_told(&mut self) {
        let told = |open: &AtHome| open.closing.is_some() && open.shards.is_empty();
        let over: Vec<SessionId> = self.home.iter().filter(|open| told(open)).map(|open| open.id).collect();
        self.home.retain(|open| !told(open));
        self.ended.extend(&over);
        self.effects.ended.extend(over);
    }

    fn attach(&mut self, session: SessionId, shard: ShardId) -> Outcome {
        let Some(known) = self.home.iter_mut().find(|open| open.id == session) else {
            return self.not_at_home(session);
        };
        if known.closing.is_some() {
            return Outcome::Closing;
        }
        if !known.shards.contains(&shard) {
            known.shards.push(shard);
        }
        Outcome::Attached(known.holder.clone())
    }

    /// Only a closing session is detached: an open one may have come back meanwhile.
    fn detached(&mut self, session: SessionId, shard: ShardId) -> Outcome {
        for known in self.home.iter_mut().filter(|known| known.id == session && known.closing.is_some()) {
            known.shards.retain(|other| *other != shard);
        }
        self.end_what_is_told();
        Outcome::Done
    }

    pub(crate) fn guest(&self, session: SessionId) -> Option<&Guest> {
        self.guests.iter().find(|guest| guest.id == session)
    }

    pub(crate) fn guest_mut(&mut self, session: SessionId) -> Option<&mut Guest> {
        self.guests.iter_mut().find(|guest| guest.id == session)
    }

    fn pend(&mut self, session: SessionId) -> Outcome {
        if self.guest(session).is_some() {
            return Outcome::Done;
        }
        if let Some((_, nonce)) = self.asking.iter().find(|asking| asking.0 == session) {
            return Outcome::Pending { nonce: *nonce };
        }
        self.last_nonce.0 += 1;
        self.asking.push((session, self.last_nonce));
        Outcome::Pending { nonce: self.last_nonce }
    }

    /// Only the answer to the attempt that runs lets a session in.
    fn confirm(&mut self, session: SessionId, nonce: Nonce, holder: &Holder) -> Outcome {
        if !is_holder(holder) {
            return Outcome::Limit(Limit::Field);
        }
        if self.guest(session).is_some_and(|guest| guest.nonce == nonce) {
            return Outcome::Done;
        }
        if !self.asking.contains(&(session, nonce)) {
            return Outcome::NotAttached;
        }
        self.asking.retain(|asking| asking.0 != session);
        self.guests.push(Guest::new(session, nonce, holder.clone()));
        Outcome::Done
    }

    /// Nothing of a dropped session stays: no attempt, no place in a queue, no grant, no attachment.
    fn drop_session(&mut self, session: SessionId, reason: EndReason) -> Outcome {
        self.asking.retain(|asking| asking.0 != session);
        let mut waits: Vec<Waiter> =
            self.waiting.iter().filter(|waiter| waiter.ask.session == session).cloned().collect();
        waits.sort_by(|a, b| a.ask.key.cmp(&b.ask.key));
        for waiter in waits {
            self.leave(&waiter, Outcome::Ended);
            self.serve(&waiter.ask.key);
        }
        let mut held: Vec<Holding> = self.held.iter().filter(|held| held.session() == session).cloned().collect();
        held.sort_by(|a, b| a.key.cmp(&b.key));
        for holding in held {
            self.end(holding.token(), reason);
            self.serve(&holding.key);
        }
        self.drop_instances(session, reason);
        self.guests.retain(|guest| guest.id != session);
        Outcome::Dropped { more: false }
    }
}

/// A text for people.
pub(crate) fn is_label(text: &str) -> bool {
    text.len() <= limits::LABEL_BYTES
}

/// Metadata within its bounds.
pub(crate) fn is_metadata(metadata: &Metadata) -> bool {
    let bytes: usize = metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    metadata.len() <= limits::METADATA_ENTRIES && bytes <= limits::METADATA_BYTES
}

fn is_holder(holder: &Holder) -> bool {
    let ttl = holder.ttl >= limits::SESSION_TTL_MIN && holder.ttl <= limits::SESSION_TTL_MAX;
    ttl && is_label(&holder.client_id) && is_metadata(&holder.metadata)
}
