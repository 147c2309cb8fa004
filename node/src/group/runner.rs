//! The task that runs one replica of a shard.
//!
//! It sleeps until something happens (a request, an apply, a change of leadership, the end of a round, a
//! deadline), takes in everything that is there, and starts what can be started: at most
//! [`PROPOSALS`] entries and [`ROUNDS`] read rounds are under way at once. All decisions are in
//! [`Leader`]; this file only moves things between it, the consensus core and the network.

use std::{
    future::{Future, pending},
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use openraft::{ServerState, async_runtime::watch::WatchReceiver};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use wardlock_machine::{Batch, Command, Incarnation, Outcome, Query, RangeEpoch, SessionId, Stamp, Term, planted};
use wardlock_placement::{ShardMap, hash_name, hash_session};
use wardlock_router::Client;
use wardlock_wire::{Op, Refusal};

use super::{
    Group,
    calls::{has_quorum, propose, refuse, run_errand},
    errands::{Done, Errand},
    inbox::Arrived,
    leader::{Leader, Read, Slot},
};
use crate::{
    barrier::{Barrier, Question},
    clock::Clock,
    disk::OnFatal,
    hooks::Leads,
    metrics::ShardMetrics,
};

/// The most entries of one group under way. The second forms while the first is on its way to disk.
const PROPOSALS: usize = 2;
/// The most read rounds of one group under way.
const ROUNDS: usize = 1;
/// How long a proposal keeps its turn: one that takes longer hangs on a disk or on its own group's majority,
/// and the other groups of the node must not wait for that for long.
const TURN: Duration = Duration::from_millis(15);
/// A proposal older than this means that the disk or the quorum hangs.
const STALLED: Duration = Duration::from_secs(1);
/// How long requests wait for a new leader's first entry before they are sent elsewhere.
const ESTABLISHING: Duration = Duration::from_millis(250);
/// How often a leader with waiters or watches makes sure that it still has a majority.
const AUDIENCE: Duration = Duration::from_secs(1);
/// How often a replica that cannot go on looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long after a failed errand the next try starts.
const ERRAND_PAUSE: Duration = Duration::from_millis(500);

/// What the runner works with.
pub struct Runner {
    /// The replica.
    pub group: Group,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Confirms leaderships, for all groups of the node at once.
    pub barrier: Arc<Barrier>,
    /// Turns to propose, which all groups of the node share.
    pub turns: Arc<Semaphore>,
    /// Reaches other shards.
    pub client: Client,
    /// Whether the disk is nearly full.
    pub disk_low: Arc<dyn Fn() -> bool + Send + Sync>,
    /// The newest shard map that this node knows.
    pub maps: watch::Receiver<Arc<ShardMap>>,
    /// A leader that has not heard of a majority for so long refuses at once.
    pub quorum_patience: Duration,
    /// What the dashboards see.
    pub metrics: ShardMetrics,
    /// Told when the consensus core ends by itself: this node must stop, not limp.
    pub on_fatal: OnFatal,
    /// Ends the task.
    pub stop: CancellationToken,
    /// Tells whoever delivers webhooks whether this replica leads, and when they have changed.
    pub hooks: watch::Sender<Leads>,
}

/// When a replica may take over at the earliest: one that was just broken waits a little, for whatever broke
/// it (a transfer of the leadership, a lease that lapsed) is usually not over yet.
type NotBefore = Duration;

enum Role {
    Follower,
    /// Elected in this term, at this time; the term's first entry is not applied yet, or the shard has no
    /// range, or no majority answers. Requests wait, but not for long.
    Establishing(Term, Duration, NotBefore),
    Leading(Box<Leader>),
}

enum Event {
    /// The group may propose.
    Turn(OwnedSemaphorePermit),
    Proposed(u64, Vec<Slot>, Result<Vec<Outcome>, Refusal>),
    Round(Vec<Read>, Result<(), Refusal>),
    Errand(Errand, Option<Done>),
    /// A failed errand's pause is over.
    Again(Errand),
}

/// Each with the number of the leader that started it: what comes back to another is dropped.
type Running = FuturesUnordered<Pin<Box<dyn Future<Output = (u64, Event)> + Send>>>;

struct State {
    role: Role,
    running: Running,
    /// What is asked of other shards. Thrown away with the leader that asked.
    errands: Running,
    /// Numbers and start times of the proposals under way, oldest first.
    proposals: Vec<(u64, Duration)>,
    /// Since when a turn is waited for.
    queued: Option<Duration>,
    /// It has come.
    turn: Option<OwnedSemaphorePermit>,
    rounds: usize,
    serial: u64,
    /// Numbers the leaders of this task, one for each time that a replica takes over.
    leader: u64,
    /// A proposal of this leader was refused or its outcome lost although its term goes on. What it
    /// remembers of the entry is wrong now: it ends as soon as nothing of it is under way, and the machine's
    /// state makes a new one.
    broken: bool,
    /// The majority is out of reach; those who wait have been told.
    alone: bool,
    drained: Arrived,
}

impl Runner {
    /// Runs until told to stop.
    pub async fn run(mut self) {
        let mut server = self.group.raft.server_metrics();
        let mut state = State {
            role: Role::Follower,
            running: FuturesUnordered::new(),
            errands: FuturesUnordered::new(),
            proposals: Vec::new(),
            queued: None,
            turn: None,
            rounds: 0,
            serial: 0,
            leader: 0,
            broken: false,
            alone: false,
            drained: Arrived::default(),
        };
        loop {
            self.follow_leadership(&mut state, server.borrow_watched().clone());
            self.take_effects(&mut state);
            self.take_requests(&mut state);
            self.start(&mut state).await;
            let wake = self.next_wake(&state);
            let (running, errands) = (next(&mut state.running), next(&mut state.errands));
            // In order, here and wherever several things are waited for, so that one seed gives one run. Whichever
            // it was, the next turn looks at all of them.
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                changed = server.changed() => if changed.is_err() {
                    if !self.stop.is_cancelled() {
                        (self.on_fatal)(&format!("group {} has stopped", self.group.id));
                    }
                    break;
                },
                (leader, event) = running => self.finished(&mut state, leader, event),
                (leader, event) = errands => self.finished(&mut state, leader, event),
                // One turn for the other readers of this node, so that what they bring joins the batch.
                () = self.group.inbox.arrived() => tokio::task::yield_now().await,
                () = self.group.replica.applied.notified() => {}
                () = sleep(wake) => {}
            }
        }
        self.step_down(&mut state, &Refusal::Stopping);
        self.refuse_all(&mut state, &Refusal::Stopping);
    }

    fn follow_leadership(
        &mut self,
        state: &mut State,
        server: openraft::metrics::RaftServerMetrics<crate::raft::types::Types>,
    ) {
        let leads = server.state == ServerState::Leader && server.vote.committed;
        let term = leads.then_some(Term(server.vote.leader_id.term));
        let known = match &state.role {
            Role::Follower => None,
            Role::Establishing(term, ..) => Some(*term),
            Role::Leading(leader) => Some(leader.term),
        };
        if term == known {
            return;
        }
        let hint = server.current_leader.and_then(|id| self.home(id));
        self.step_down(state, &Refusal::NotLeader { hint });
        self.metrics.leader_changed();
        if let Some(term) = term {
            self.group.replica.set_leading(true);
            let now = self.clock.now();
            state.role = Role::Establishing(term, now, now);
        }
    }

    fn home(&self, replica: u64) -> Option<wardlock_placement::NodeId> {
        let map = self.maps.borrow();
        let group = map.groups.get(&self.group.id)?;
        group.replicas.iter().find(|r| r.id.0 == replica).map(|r| r.node)
    }

    fn step_down(&mut self, state: &mut State, refusal: &Refusal) {
        self.hooks.send_if_modified(|leads| leads.take().is_some());
        self.group.replica.set_leading(false);
        if let Role::Leading(leader) = std::mem::replace(&mut state.role, Role::Follower) {
            leader.resign(refusal);
        }
        // Their proposals and rounds end by themselves; what they bring is of another term and dropped.
        state.proposals.clear();
        (state.queued, state.turn) = (None, None);
        state.rounds = 0;
        state.broken = false;
        state.leader += 1;
        state.errands.clear();
    }

    /// Ends a broken leader once its last proposal has an outcome: until then an entry of its own, an expiry
    /// say, could still surprise its successor in the same term.
    fn mend(&mut self, state: &mut State) {
        let Role::Leading(leader) = &state.role else { return };
        let term = leader.term;
        if state.broken && state.proposals.is_empty() {
            self.step_down(state, &Refusal::NoQuorum);
            self.group.replica.set_leading(true);
            let now = self.clock.now();
            state.role = Role::Establishing(term, now, now + LOOK_AGAIN);
        }
    }

    /// Once the first entry of the term is applied, the machine's state holds everything that was ever
    /// acknowledged: the leader can take over from it.
    fn establish(&self, state: &mut State) {
        let Role::Establishing(term, _, not_before) = state.role else { return };
        let now = self.clock.now();
        let applied = self.group.replica.applied_term() == term.0 || planted!("leads-before-its-first-entry");
        if !applied || now < not_before || !has_quorum(&self.group, self.quorum_patience) {
            return;
        }
        // Effects so far are part of the state that is read now.
        let leader = self.group.replica.machine(|machine| {
            let mut leader = Leader::new(machine, term, now, self.metrics.clone());
            match (machine.range(), self.range()) {
                (None, Some(set_range)) => leader.queue(set_range, Slot::Range),
                (None, None) => return None,
                (Some(_), _) => {}
            }
            Some(leader)
        });
        if let Some(Some(leader)) = leader {
            self.group.replica.take_effects();
            state.role = Role::Leading(Box::new(leader));
            self.hooks.send_replace(Some(0));
        }
    }

    /// The command that gives the shard the range that the map has for it.
    fn range(&self) -> Option<Command> {
        let map = self.maps.borrow();
        let group = map.groups.get(&self.group.id)?;
        let range = group.range?;
        Some(Command::SetRange {
            first: range.first,
            last: range.last,
            epoch: RangeEpoch(group.epoch.0),
            incarnation: Incarnation(map.incarnation),
        })
    }

    fn take_effects(&mut self, state: &mut State) {
        self.mend(state);
        self.establish(state);
        let Role::Leading(leader) = &mut state.role else { return };
        let effects = self.group.replica.take_effects();
        self.metrics.effects(&effects);
        if effects.hooks {
            self.hooks.send_modify(|leads| *leads = leads.map(|number| number + 1));
        }
        let (now, wall) = (self.clock.now(), self.clock.wall());
        self.group.replica.machine(|machine| leader.effects(machine, effects, now, wall));
    }

    fn take_requests(&mut self, state: &mut State) {
        match state.role {
            Role::Follower => {
                let hint = self.group.raft.server_metrics().borrow_watched().current_leader;
                let hint = hint.and_then(|id| self.home(id));
                self.refuse_all(state, &Refusal::NotLeader { hint });
            }
            // They stay in the bounded inbox while there is hope that it is a matter of milliseconds.
            Role::Establishing(_, since, _) => {
                if self.clock.now().saturating_sub(since) > ESTABLISHING {
                    self.refuse_all(state, &Refusal::NoQuorum);
                }
            }
            Role::Leading(_) if state.broken => self.refuse_all(state, &Refusal::NoQuorum),
            Role::Leading(_) => {
                let mut drained = std::mem::take(&mut state.drained);
                self.group.inbox.drain(&mut drained);
                self.admit(state, &mut drained);
                state.drained = drained;
            }
        }
    }

    fn refuse_all(&self, state: &mut State, refusal: &Refusal) {
        self.group.inbox.drain(&mut state.drained);
        state.drained.closed.clear();
        for ask in state.drained.asks.drain(..) {
            ask.reply.send(Err(refusal.clone()));
        }
    }

    fn admit(&mut self, state: &mut State, drained: &mut Arrived) {
        let Role::Leading(leader) = &mut state.role else { return };
        let (now, wall) = (self.clock.now(), self.clock.wall());
        if !drained.asks.is_empty() {
            let reachable = has_quorum(&self.group, self.quorum_patience);
            let low = (self.disk_low)();
            let map = Arc::clone(&self.maps.borrow());
            self.group.replica.machine(|machine| {
                for ask in drained.asks.drain(..) {
                    let refused = match () {
                        // Nobody waits for it any more, and nothing has happened.
                        () if ask.until <= now || !reachable => Some(Refusal::NoQuorum),
                        () if low && matches!(&ask.op, Op::Write(command) if command.grows()) => {
                            Some(Refusal::DiskFull)
                        }
                        () => Runner::misrouted(machine.range(), machine.epoch(), &map, &ask.op),
                    };
                    match refused {
                        Some(refusal) => {
                            if let Op::KeepAlive { session } = ask.op {
                                leader.overheard(session, now, wall);
                            }
                            ask.reply.send(Err(refusal));
                        }
                        None => leader.admit(machine, ask, now, wall),
                    }
                }
            });
        }
        for connection in drained.closed.drain(..) {
            leader.closed(connection, now);
        }
    }

    /// Whether the operation's name or session belongs to another shard.
    fn misrouted(range: Option<(u64, u64)>, epoch: RangeEpoch, map: &ShardMap, op: &Op) -> Option<Refusal> {
        let stale = Refusal::StaleEpoch { current: epoch, map: map.version };
        let Some((first, last)) = range else { return Some(Refusal::NoQuorum) };
        let name = |name: &str| hash_name(&map.hash_key, name);
        let session = |session: SessionId| hash_session(&map.hash_key, session.0);
        let hash = match op {
            Op::Write(command) => match (command.key(), command) {
                (Some(key), _) => name(key.name.as_str()),
                (None, Command::OpenSession { session: id, .. })
                | (None, Command::CloseSession { session: id })
                | (None, Command::Attach { session: id, .. }) => session(*id),
                (None, _) => return None,
            },
            Op::Read(query) | Op::Marked(query) | Op::Stale { query, .. } => {
                return misread(Some((first, last)), epoch, map, query);
            }
            Op::KeepAlive { session: id } => session(*id),
            Op::Watch { .. } | Op::ReadIndex => return None,
        };
        (!(first..=last).contains(&hash)).then_some(stale)
    }

    async fn start(&mut self, state: &mut State) {
        // Given back unless it is used now.
        let mut turn = state.turn.take();
        let Role::Leading(leader) = &mut state.role else { return };
        let now = self.clock.now();
        let alone = !has_quorum(&self.group, self.quorum_patience);
        match (state.alone, alone) {
            (false, true) => leader.dismiss(now),
            (true, false) => leader.rearm(now),
            _ => {}
        }
        state.alone = alone;
        if state.broken || alone {
            return;
        }
        // A group that has nothing under way may wait for a turn just as long, behind those that hang.
        let waits = state.proposals.first().map(|(_, since)| *since).into_iter().chain(state.queued).min();
        let stalled = waits.is_some_and(|since| now.saturating_sub(since) > STALLED);
        self.group.replica.machine(|machine| leader.tick(machine, now, stalled));
        while state.proposals.len() < PROPOSALS
            && leader.has_commands()
            && let Some(turn) = turn.take().or_else(|| self.turns.clone().try_acquire_owned().ok())
            && let Some((commands, slots)) = leader.take_batch()
        {
            let epoch = self.group.replica.machine(|machine| machine.epoch()).unwrap_or_default();
            let wall = self.clock.wall();
            let at = if planted!("wall-time-in-stamp") { Stamp(wall.0) } else { leader.stamp(now) };
            let batch = Batch { at, wall, epoch, commands };
            leader.proposed(now);
            state.serial += 1;
            state.proposals.push((state.serial, now));
            let (serial, number) = (state.serial, state.leader);
            self.metrics.proposed(slots.len(), state.proposals.len());
            let proposed = propose(&self.group, leader.term, &batch).await;
            state.running.push(Box::pin(async move {
                let mut proposed = pin!(proposed);
                let outcome = match tokio::time::timeout(TURN, &mut proposed).await {
                    Ok(outcome) => outcome,
                    Err(_) => {
                        drop(turn);
                        proposed.await
                    }
                };
                (number, Event::Proposed(serial, slots, outcome))
            }));
        }
        if state.proposals.len() < PROPOSALS && leader.has_commands() && state.queued.is_none() {
            state.queued = Some(now);
            let (turn, number) = (Arc::clone(&self.turns).acquire_owned(), state.leader);
            state.running.push(Box::pin(async move {
                match turn.await {
                    Ok(turn) => (number, Event::Turn(turn)),
                    // Nobody closes it.
                    Err(_) => pending().await,
                }
            }));
        }
        if state.rounds < ROUNDS {
            let reads = leader.take_reads();
            if !reads.is_empty() {
                state.rounds += 1;
                let question = Question {
                    group: self.group.id,
                    replica: self.group.replica_id,
                    term: leader.term,
                    members: Arc::clone(&self.group.raft.metrics().borrow_watched().membership_config),
                    log: self.group.log.clone(),
                };
                let (confirmed, number) = (self.barrier.ask(question), state.leader);
                state.running.push(Box::pin(async move { (number, Event::Round(reads, confirmed.await)) }));
            }
        }
        for errand in leader.take_errands() {
            let (client, own, number) = (self.client.clone(), self.group.id, state.leader);
            state.errands.push(Box::pin(async move {
                let done = run_errand(&client, own, &errand).await;
                (number, Event::Errand(errand, done))
            }));
        }
    }

    fn finished(&mut self, state: &mut State, number: u64, event: Event) {
        // Outcomes may refer to sessions that the same entry opened.
        self.take_effects(state);
        let leader = match &mut state.role {
            Role::Leading(leader) if state.leader == number => leader,
            // Of an earlier leader: whoever waited has been told, or learns by the dropped replier.
            _ => return,
        };
        match event {
            Event::Turn(turn) => (state.queued, state.turn) = (None, Some(turn)),
            Event::Proposed(serial, slots, result) => {
                state.proposals.retain(|(other, _)| *other != serial);
                match result {
                    Ok(outcomes) => {
                        self.metrics.outcomes(&outcomes, state.proposals.len());
                        leader.outcomes(slots, outcomes);
                    }
                    Err(refusal) => {
                        self.metrics.failed(state.proposals.len());
                        refuse(slots, &refusal);
                        state.broken = true;
                    }
                }
            }
            Event::Round(reads, result) => {
                state.rounds -= 1;
                match result {
                    Ok(()) => {
                        // Read before the state is: what is there by then is at least that.
                        let applied = self.group.replica.applied_index();
                        self.group.replica.machine(|machine| leader.serve(machine, applied, reads));
                    }
                    Err(refusal) => {
                        for read in reads {
                            read.into_reply().send(Err(refusal.clone()));
                        }
                    }
                }
            }
            Event::Errand(errand, done) => {
                let again = match (errand, done) {
                    (_, Some(done)) => leader.errand_done(done),
                    (Errand::Attach(session, nonce), None) => leader.errand_done(Done::Attach(session, nonce, None)),
                    (tell, None) => Some(tell),
                };
                if let Some(errand) = again {
                    state.errands.push(Box::pin(async move {
                        tokio::time::sleep(ERRAND_PAUSE).await;
                        (number, Event::Again(errand))
                    }));
                }
            }
            Event::Again(errand) => leader.errand_again(errand),
        }
    }

    /// How long until something falls due.
    fn next_wake(&self, state: &State) -> Option<Duration> {
        let leader = match &state.role {
            Role::Follower => return None,
            Role::Establishing(..) => return Some(LOOK_AGAIN),
            Role::Leading(_) if state.broken || state.alone => return Some(LOOK_AGAIN),
            Role::Leading(leader) => leader,
        };
        let at = self.group.replica.machine(|machine| leader.next_tick(machine)).flatten();
        // A majority that gets lost is noticed by looking.
        let at = match leader.has_audience() {
            true => at.unwrap_or(Duration::MAX).min(self.clock.now() + AUDIENCE),
            false => at?,
        };
        // What is due and could not be started (a stall) is looked at again after a while, not in a loop.
        let wait = at.saturating_sub(self.clock.now());
        Some(if wait.is_zero() { LOOK_AGAIN } else { wait })
    }
}

/// Whether a read's name or session belongs to another shard.
pub fn misread(range: Option<(u64, u64)>, epoch: RangeEpoch, map: &ShardMap, query: &Query) -> Option<Refusal> {
    let Some((first, last)) = range else { return Some(Refusal::NoQuorum) };
    let here = |hash| (first..=last).contains(&hash);
    let named = |name: &str| here(hash_name(&map.hash_key, name));
    let all_here = match query {
        Query::Object { key }
        | Query::Config { key, .. }
        | Query::Versions { key }
        | Query::Hook { key }
        | Query::DeadLetters { key }
        | Query::Service { key, .. }
        | Query::Instance { key, .. }
        | Query::Sample { key, .. } => named(key.name.as_str()),
        Query::Session { session } => here(hash_session(&map.hash_key, session.0)),
        Query::Fence { checks } => checks.iter().all(|(key, _)| named(key.name.as_str())),
        Query::List { .. }
        | Query::Sessions { .. }
        | Query::Configs { .. }
        | Query::Events { .. }
        | Query::Hooks { .. }
        | Query::Services { .. }
        | Query::Waits { .. } => true,
    };
    (!all_here).then_some(Refusal::StaleEpoch { current: epoch, map: map.version })
}

/// The next to end; never, where none is under way.
async fn next(running: &mut Running) -> (u64, Event) {
    match running.next().await {
        Some(ended) => ended,
        None => pending().await,
    }
}

async fn sleep(wake: Option<Duration>) {
    match wake {
        Some(wait) => tokio::time::sleep(wait).await,
        None => pending().await,
    }
}
