//! What the leader of a shard remembers beside the replicated state, and what it decides by it.
//!
//! A function of events: requests, outcomes, effects and the time come in; commands to propose, reads to
//! serve and errands to run come out. It starts no task and reads no clock.
//!
//! # Invariants
//! 1. Stamps rise: each is the last applied stamp at the term's begin plus the time since.
//! 2. A read or a keep-alive is answered only by a round that began after it arrived.
//! 3. An acquire or a registration is proposed only for a session that is attached here, or together with its confirmation.
//! 4. Every session that closes is told to each of its shards until each has acknowledged.

use std::{collections::VecDeque, time::Duration};

use wardlock_machine::{
    Acquire, Answer, Attachment, Command, Effects, Holder, Machine, Millis, Nonce, Outcome, Query, Register, SessionId,
    Stamp, Term, WallMs, limits, planted,
};
use wardlock_placement::MapVersion;
use wardlock_router::{link::Replier, random};
use wardlock_wire::{KeptAlive, Op, Refusal, Response};

use super::{
    Ask,
    errands::{Done, Errand, Errands},
    sessions::{Deadlines, Heard},
    waiters::Waiters,
    watches::Watches,
    weight,
};
use crate::metrics::ShardMetrics;

/// How often the clock is logged while something's length depends on it: a failover can lengthen a lease
/// by no more than this and the time without a leader.
const CLOCK_PERIOD: Duration = Duration::from_secs(2);
/// The most commands of one session that wait for its home's word.
const PARKED_PER_SESSION: usize = 1_024;
/// The most requests that wait in this leader's memory to be proposed or read.
const BACKLOG: usize = 16_384;
/// The most bytes of these requests, as they are [weighed](weight).
const BACKLOG_BYTES: usize = 8 << 20;
/// The most commands that wait for homes' words.
const PARKED: usize = 16_384;
/// The most reads whose memory is kept for the next ones.
const SPARE_READS: usize = 1_024;
/// How often those that nobody waits for any more are swept out.
const SWEEP: Duration = Duration::from_millis(500);
/// The most bytes of commands in one entry, roughly: well under the frame's bound.
const BATCH_BYTES: usize = 1 << 20;

/// Who gets the outcome of a proposed command.
pub enum Slot {
    /// Nobody.
    Nobody,
    /// The asker.
    Reply(Replier),
    /// The asker of an acquire that may queue; registered among the waiters.
    Waiter(SessionId, wardlock_machine::RequestId),
    /// The session whose attempt to attach goes on record.
    Pend(SessionId),
    /// A keep-alive that waited for its session's record to be cleared.
    Cleared(SessionId, u64, Replier),
    /// The leader's own tick.
    Tick,
    /// The shard's range.
    Range,
}

/// A read that waits for its round.
pub enum Read {
    /// A query.
    Query(Query, Replier),
    /// A list, with the revision that it is of.
    Marked(Query, Replier),
    /// A keep-alive.
    KeepAlive(SessionId, Replier),
    /// Up to where this leader has applied: a replica's proof of its age.
    Index(Replier),
}

impl Read {
    /// Who is answered.
    pub fn into_reply(self) -> Replier {
        let (Read::Query(_, reply) | Read::Marked(_, reply) | Read::KeepAlive(_, reply) | Read::Index(reply)) = self;
        reply
    }
}

/// An acquire or a registration that waits for its session's home, who is answered, and until when.
type Parked = (Command, Replier, Duration);

/// A leader in one term.
pub struct Leader {
    /// Its term.
    pub term: Term,
    base: Stamp,
    began: Duration,
    queue: VecDeque<(Command, Slot)>,
    /// What the queue weighs.
    queue_bytes: usize,
    reads: Vec<Read>,
    /// What the reads weigh.
    reads_bytes: usize,
    /// Emptied, for the next reads: they are many and large.
    spare: Vec<Read>,
    errands: Errands,
    sessions: Deadlines,
    waiters: Waiters,
    watches: Watches,
    attaching: random::Map<SessionId, Vec<Parked>>,
    /// How many commands `attaching` holds.
    parked: usize,
    tick_under_way: bool,
    logged: Duration,
    swept: Duration,
    metrics: ShardMetrics,
}

impl Leader {
    /// Takes over from the machine's state, after the first entry of the term is applied.
    pub fn new(machine: &Machine, term: Term, now: Duration, metrics: ShardMetrics) -> Leader {
        let mut leader = Leader {
            term,
            base: machine.now(),
            began: now,
            queue: VecDeque::new(),
            queue_bytes: 0,
            reads: Vec::new(),
            reads_bytes: 0,
            spare: Vec::new(),
            errands: Errands::default(),
            sessions: Deadlines::default(),
            waiters: Waiters::default(),
            watches: Watches::new(machine),
            attaching: random::Map::default(),
            parked: 0,
            tick_under_way: false,
            logged: now,
            swept: now,
            metrics,
        };
        for (session, ttl, left) in machine.open_sessions() {
            let left = if planted!("new-leader-gives-a-quarter") { Some(Millis(ttl.0 / 4)) } else { left };
            leader.sessions.open(session, ttl, left, now, None);
        }
        for (session, request, key) in machine.waiting() {
            leader.waiters.inherit(session, request, key, now);
        }
        for (session, nonce) in machine.pendings() {
            leader.attaching.insert(session, Vec::new());
            leader.errands.ask(session, nonce);
        }
        for (session, reason, shards) in machine.closing() {
            leader.errands.tell(session, reason, shards);
        }
        leader
    }

    /// The shard's clock at `now`.
    pub fn stamp(&self, now: Duration) -> Stamp {
        self.base.after(Millis(now.saturating_sub(self.began).as_millis() as u64))
    }

    /// Puts a command of the leader's own at the end of the queue.
    pub fn queue(&mut self, command: Command, slot: Slot) {
        self.queue_bytes += weight::command(&command);
        self.queue.push_back((command, slot));
    }

    /// A sign of life that cannot be acknowledged now still counts: a client that reaches its leader must
    /// not lose its session because the leader does not reach a majority.
    pub fn overheard(&mut self, session: SessionId, now: Duration, wall: WallMs) {
        self.sessions.heard(session, now, wall);
    }

    /// Takes a request in. Its answer comes by `reply`, now or later.
    pub fn admit(&mut self, machine: &Machine, ask: Ask, now: Duration, wall: WallMs) {
        let Ask { op, until, reply } = ask;
        let (backlog, bytes) = (self.queue.len() + self.reads.len(), weight::op(&op));
        let is_full = backlog >= BACKLOG || self.queue_bytes + self.reads_bytes + bytes > BACKLOG_BYTES;
        if is_full && !matches!(op, Op::KeepAlive { .. }) {
            return reply.send(Err(Refusal::Overloaded));
        }
        if matches!(op, Op::Read(_) | Op::Marked(_) | Op::ReadIndex) {
            self.reads_bytes += bytes;
        }
        match op {
            Op::Write(
                command @ (Command::Acquire(Acquire { session, .. }) | Command::Register(Register { session, .. })),
            ) => self.admit_guest(machine, session, command, reply, until),
            Op::Write(command) => self.queue(command, Slot::Reply(reply)),
            Op::Read(query) => self.reads.push(Read::Query(query, reply)),
            Op::Marked(query) => self.reads.push(Read::Marked(query, reply)),
            Op::KeepAlive { session } => match self.heard(session, now, wall) {
                Heard::Round | Heard::Unknown => self.reads.push(Read::KeepAlive(session, reply)),
                Heard::Expiry => self.sessions.park(session, reply),
                Heard::Clearing(number) => {
                    self.queue(
                        Command::Checkpoint { sessions: vec![(session, None)] },
                        Slot::Cleared(session, number, reply),
                    );
                }
            },
            Op::Watch { query, wait_ms } => {
                self.watches.ask(machine, query, Duration::from_millis(u64::from(wait_ms)), now, reply);
            }
            Op::ReadIndex => self.reads.push(Read::Index(reply)),
            Op::Stale { .. } => reply.send(Err(Refusal::Malformed("a stale read needs no leader".to_owned()))),
        }
    }

    fn heard(&mut self, session: SessionId, now: Duration, wall: WallMs) -> Heard {
        if let Some(margin) = self.sessions.margin(session, now) {
            self.metrics.kept_alive(margin);
        }
        self.sessions.heard(session, now, wall)
    }

    /// Takes in what needs its session attached here.
    fn admit_guest(
        &mut self,
        machine: &Machine,
        session: SessionId,
        command: Command,
        reply: Replier,
        until: Duration,
    ) {
        if let Some(parked) = self.attaching.get_mut(&session) {
            match parked.len() < PARKED_PER_SESSION && self.parked < PARKED {
                true => {
                    self.parked += 1;
                    parked.push((command, reply, until));
                }
                false => reply.send(Err(Refusal::Overloaded)),
            }
            return;
        }
        match machine.attachment(session) {
            Attachment::Attached => self.queue_guest(command, reply),
            Attachment::None | Attachment::Pending(_) if self.parked >= PARKED => reply.send(Err(Refusal::Overloaded)),
            Attachment::None | Attachment::Pending(_) => {
                self.parked += 1;
                self.attaching.insert(session, vec![(command, reply, until)]);
                self.queue(Command::Pend { session }, Slot::Pend(session));
            }
        }
    }

    fn queue_guest(&mut self, command: Command, reply: Replier) {
        let slot = match &command {
            Command::Acquire(acquire) if acquire.wait > Millis(0) => {
                let (session, request) = (acquire.session, acquire.request);
                self.waiters.register(session, request, acquire.key.clone(), reply);
                Slot::Waiter(session, request)
            }
            _ => Slot::Reply(reply),
        };
        self.queue(command, slot);
    }

    /// The pause of an errand that failed is over.
    pub fn errand_again(&mut self, errand: Errand) {
        self.errands.again(errand);
    }

    /// The next entry's commands, and who gets each outcome.
    pub fn take_batch(&mut self) -> Option<(Vec<Command>, Vec<Slot>)> {
        let count = self.queue.len().min(limits::BATCH_COMMANDS);
        let (mut commands, mut slots, mut bytes) = (Vec::with_capacity(count), Vec::with_capacity(count), 0);
        while bytes < BATCH_BYTES && commands.len() < limits::BATCH_COMMANDS {
            let Some((command, slot)) = self.queue.pop_front() else { break };
            bytes += weight::command(&command);
            commands.push(command);
            slots.push(slot);
        }
        self.queue_bytes -= bytes;
        (!commands.is_empty()).then_some((commands, slots))
    }

    /// Whether anything waits to be proposed.
    pub fn has_commands(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The reads that the next round serves.
    pub fn take_reads(&mut self) -> Vec<Read> {
        self.reads_bytes = 0;
        let spare = std::mem::take(&mut self.spare);
        std::mem::replace(&mut self.reads, spare)
    }

    /// The errands to run now.
    pub fn take_errands(&mut self) -> Vec<Errand> {
        self.errands.take()
    }

    /// An entry was proposed.
    pub fn proposed(&mut self, now: Duration) {
        self.logged = now;
    }

    /// An entry was applied: one outcome for each slot, in order.
    pub fn outcomes(&mut self, slots: Vec<Slot>, outcomes: Vec<Outcome>) {
        assert_eq!(slots.len(), outcomes.len(), "every command of a batch has one outcome");
        for (slot, outcome) in slots.into_iter().zip(outcomes) {
            match slot {
                Slot::Nobody | Slot::Range => {}
                Slot::Tick => self.tick_under_way = false,
                Slot::Reply(reply) => reply.send(respond(outcome)),
                Slot::Waiter(session, request) => self.waiters.answered(session, request, outcome),
                Slot::Pend(session) => self.pended(session, outcome),
                // Unless it is the client's own end that came first, the outcome of an expiry is still to come.
                Slot::Cleared(session, _, reply) if self.sessions.is_expiring(session) => {
                    self.sessions.park(session, reply);
                }
                Slot::Cleared(session, number, reply) => {
                    self.sessions.cleared(session, number);
                    let kept = if self.sessions.is_alive(session) { KeptAlive::Alive } else { KeptAlive::Ended };
                    reply.send(Ok(Response::KeptAlive(kept)));
                }
            }
        }
    }

    fn pended(&mut self, session: SessionId, outcome: Outcome) {
        match outcome {
            Outcome::Pending { nonce } => self.errands.ask(session, nonce),
            Outcome::Done => {
                for (command, reply, _) in self.unpark(session) {
                    self.queue_guest(command, reply);
                }
            }
            other => self.turn_away(session, &other),
        }
    }

    fn turn_away(&mut self, session: SessionId, outcome: &Outcome) {
        for (_, reply, _) in self.unpark(session) {
            reply.send(Ok(Response::Outcome(outcome.clone())));
        }
    }

    /// What waited for the session's home.
    fn unpark(&mut self, session: SessionId) -> Vec<Parked> {
        let parked = self.attaching.remove(&session).unwrap_or_default();
        self.parked -= parked.len();
        parked
    }

    /// An errand came back. Returns it where it must be run again after a while.
    pub fn errand_done(&mut self, done: Done) -> Option<Errand> {
        if let Done::Attach(..) = done {
            self.errands.asked();
        }
        match done {
            Done::Attach(session, nonce, Some(Outcome::Attached(holder))) => self.confirm(session, nonce, holder),
            Done::Attach(session, nonce, Some(no)) => {
                self.queue(Command::Unpend { session, nonce }, Slot::Nobody);
                self.turn_away(session, &no);
            }
            Done::Attach(session, nonce, None) => {
                // Those who wait are told to try again; the attempt on record is driven on.
                let waiting = self.attaching.entry(session).or_default();
                self.parked -= waiting.len();
                for (_, reply, _) in waiting.drain(..) {
                    reply.send(Err(Refusal::NoQuorum));
                }
                return Some(Errand::Attach(session, nonce));
            }
            Done::Told(session, shard) => {
                self.errands.has_told(session, shard);
                self.queue(Command::Detached { session, shard }, Slot::Nobody);
            }
        }
        None
    }

    /// The confirmation goes into the log ahead of what waited for it.
    fn confirm(&mut self, session: SessionId, nonce: Nonce, holder: Holder) {
        self.queue(Command::Confirm { session, nonce, holder }, Slot::Nobody);
        for (command, reply, _) in self.unpark(session) {
            self.queue_guest(command, reply);
        }
    }

    /// Acts on what an apply did besides answering.
    pub fn effects(&mut self, machine: &Machine, effects: Effects, now: Duration, wall: WallMs) {
        for settled in effects.settled {
            self.waiters.settled(settled);
        }
        self.watches.applied(machine);
        for session in effects.opened {
            if let Some((ttl, left)) = machine.session_ttl(session) {
                self.sessions.open(session, ttl, left, now, Some(wall));
            }
        }
        for (session, reason) in effects.closing {
            self.sessions.close(session);
            if let Some((_, shards)) = machine.closing_shards(session) {
                self.errands.tell(session, reason, shards);
            }
        }
    }

    /// A round that began after these reads arrived is complete: what was acknowledged before them is applied, up to
    /// the index `applied` at least.
    pub fn serve(&mut self, machine: &Machine, applied: u64, mut reads: Vec<Read>) {
        for read in reads.drain(..) {
            match read {
                Read::Query(query, reply) => {
                    let answer = machine.query(&query);
                    if let Answer::Fence(verdicts) = &answer {
                        self.metrics.fenced(verdicts);
                    }
                    let response = match query {
                        Query::Session { session } => {
                            Response::Session { answer, last_heartbeat: self.sessions.last_heard(session) }
                        }
                        _ => Response::Answer(answer),
                    };
                    reply.send(Ok(response));
                }
                Read::Marked(query, reply) => {
                    let (revision, answer) = (machine.revision(), machine.query(&query));
                    reply.send(Ok(Response::Marked { revision, answer }));
                }
                Read::KeepAlive(session, reply) => {
                    let kept = match machine.session_ttl(session) {
                        Some(_) if self.sessions.is_alive(session) => KeptAlive::Alive,
                        // Its expiry was proposed after this keep-alive arrived: wait for the outcome.
                        Some(_) => {
                            self.sessions.park(session, reply);
                            continue;
                        }
                        None if machine.closing_shards(session).is_some() || machine.is_ended(session) => {
                            KeptAlive::Ended
                        }
                        None => KeptAlive::Unknown,
                    };
                    reply.send(Ok(Response::KeptAlive(kept)));
                }
                Read::Index(reply) => reply.send(Ok(Response::ReadIndex(applied))),
            }
        }
        // A burst must not pin its memory for good.
        if reads.capacity() <= SPARE_READS {
            self.spare = reads;
        }
    }

    /// A connection ended.
    pub fn closed(&mut self, connection: u64, now: Duration) {
        self.waiters.closed(connection, now);
        self.watches.closed(connection);
        for parked in self.attaching.values_mut() {
            let before = parked.len();
            parked.retain(|(_, reply, _)| reply.connection() != connection);
            self.parked -= before - parked.len();
        }
    }

    /// The majority is out of reach: nobody is kept waiting for what another leader may do.
    pub fn dismiss(&mut self, now: Duration) {
        self.waiters.dismiss(now);
        self.watches.dismiss();
        for read in self.take_reads() {
            read.into_reply().send(Err(Refusal::NoQuorum));
        }
        for parked in self.attaching.values_mut() {
            for (_, reply, _) in parked.drain(..) {
                reply.send(Err(Refusal::NoQuorum));
            }
        }
        self.parked = 0;
        // What clients asked for and was not proposed is not proposed any more; the leader's own stays.
        self.queue_bytes = 0;
        for (command, slot) in std::mem::take(&mut self.queue) {
            match slot {
                Slot::Reply(reply) | Slot::Cleared(_, _, reply) => reply.send(Err(Refusal::NoQuorum)),
                Slot::Waiter(session, request) => self.waiters.refuse(session, request, &Refusal::NoQuorum),
                slot @ (Slot::Nobody | Slot::Pend(_) | Slot::Tick | Slot::Range) => self.queue(command, slot),
            }
        }
    }

    /// The majority is back.
    pub fn rearm(&mut self, now: Duration) {
        self.waiters.rearm(now);
    }

    /// Whether somebody waits who must hear soon if the majority gets lost.
    pub fn has_audience(&self) -> bool {
        !self.waiters.is_empty() || !self.watches.is_empty()
    }

    fn sweep(&mut self, now: Duration) {
        if self.parked == 0 || now.saturating_sub(self.swept) < SWEEP {
            return;
        }
        self.swept = now;
        for parked in self.attaching.values_mut() {
            let before = parked.len();
            // The dropped replier says that the outcome is unknown; nobody listens.
            parked.retain(|(_, _, until)| *until > now);
            self.parked -= before - parked.len();
        }
    }

    /// Queues what is due at `now`. While proposals stall, nothing is expired: a leader whose disk or
    /// quorum hangs must not end the sessions that it cannot hear.
    pub fn tick(&mut self, machine: &Machine, now: Duration, stalled: bool) {
        self.watches.ended(machine, now);
        self.sweep(now);
        if stalled {
            return;
        }
        let stamp = self.stamp(now);
        let due = machine.next_deadline().is_some_and(|at| at <= stamp);
        let silent = machine.keeps_time() && now.saturating_sub(self.logged) >= CLOCK_PERIOD;
        if (due || silent) && !self.tick_under_way {
            self.tick_under_way = true;
            self.queue(Command::Tick, Slot::Tick);
        }
        let due = self.sessions.due(now);
        if !due.checkpoint.is_empty() {
            self.queue(Command::Checkpoint { sessions: due.checkpoint }, Slot::Nobody);
        }
        if !due.expire.is_empty() {
            let term = self.term;
            self.queue(Command::ExpireSessions { sessions: due.expire, term }, Slot::Nobody);
        }
        for cancel in self.waiters.due(now) {
            self.queue(cancel, Slot::Nobody);
        }
    }

    /// When [`Self::tick`] has something to do next, as far as is known now.
    pub fn next_tick(&self, machine: &Machine) -> Option<Duration> {
        let next = [self.sessions.next(), self.waiters.next(), self.watches.next()];
        let mut next = next.into_iter().flatten().min();
        if !self.tick_under_way {
            if let Some(at) = machine.next_deadline() {
                next = earlier(next, self.began + Duration::from_millis(at.since(self.base).0));
            }
            if machine.keeps_time() {
                next = earlier(next, self.logged + CLOCK_PERIOD);
            }
        }
        next
    }

    /// The leadership has ended. What was not proposed is refused with `refusal`; what was has an unknown
    /// outcome, which is what dropping its replier says.
    pub fn resign(mut self, refusal: &Refusal) {
        for (_, slot) in std::mem::take(&mut self.queue) {
            match slot {
                Slot::Reply(reply) | Slot::Cleared(_, _, reply) => reply.send(Err(refusal.clone())),
                Slot::Waiter(session, request) => self.waiters.refuse(session, request, refusal),
                Slot::Nobody | Slot::Pend(_) | Slot::Tick | Slot::Range => {}
            }
        }
        for (_, reply, _) in self.attaching.into_values().flatten() {
            reply.send(Err(refusal.clone()));
        }
        for read in self.reads {
            read.into_reply().send(Err(refusal.clone()));
        }
    }
}

/// An outcome as it is answered. A range that changed under a checked command is a refusal: nothing was done.
pub fn respond(outcome: Outcome) -> Result<Response, Refusal> {
    match outcome {
        Outcome::StaleEpoch { current } => Err(Refusal::StaleEpoch { current, map: MapVersion(0) }),
        outcome => Ok(Response::Outcome(outcome)),
    }
}

fn earlier(a: Option<Duration>, b: Duration) -> Option<Duration> {
    Some(a.map_or(b, |a| a.min(b)))
}
