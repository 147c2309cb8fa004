//! One call, repeated until somebody answers it: the retry rules of the client.
//!
//! A call goes to the node that is believed to lead its group. What comes back decides what is next:
//!
//! | answer | next |
//! |---|---|
//! | not the leader, with a hint | the hinted node, at once |
//! | no leader known, no quorum, stopping, not sent, silent | the next replica, after a short pause |
//! | a newer map | that map, then again |
//! | overloaded | the same node, after a pause |
//! | disk full, not allowed, malformed | the caller |
//! | connection lost, outcome unknown | the *same* command again, if it may be repeated |
//!
//! # Promises
//! 1. Every repeat is the same command with the same request id.
//! 2. A command that must not happen twice is not sent again once it may have been proposed.
//! 3. A failure is [`Error::OutcomeUnknown`] where some attempt may have been proposed; every other error
//!    means that nothing happened.
//!
//! Nearly every call is answered at its first attempt, and is only as expensive as that: it is written from
//! where it lies, waits without a timer, and looks at the clock once. What repeats need is made when the first
//! attempt has failed.
//!
//! A call that nobody has taken for [`GIVE_UP`] is given up even where its caller has more patience, so
//! that one who asked to queue for an hour hears that the shard has no leader. A call that may have been
//! proposed is not given up: its answer is worth the wait.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::{Instant, timeout_at};
use wardlock_machine::{Change, Command, Configure, Outcome, Query, RangeEpoch};
use wardlock_placement::{GroupId, MapVersion, NodeId};
use wardlock_wire::{Body, Lane, Op, Refusal, Response};

use super::{clock::Boot, core::Core};
use crate::{
    Error,
    link::{Answered, CallError, PendingReply},
    random,
    routes::{GroupRoute, Routes, Target},
};

/// How long a call may find nobody to take it.
pub(crate) const GIVE_UP: Duration = Duration::from_secs(5);
/// How long a node that holds a call for no reason may be silent; less for impatient callers.
pub(crate) const SILENCE: Duration = Duration::from_millis(1_500);
/// A value beyond this is large.
const LARGE: usize = 64 << 10;
/// How long a call waits for a newer map before it tries again with the old one.
const MAP_WAIT: Duration = Duration::from_millis(500);
/// No call lasts longer, so that points in time can be reckoned.
pub(crate) const FOREVER: Duration = Duration::from_secs(366 * 24 * 3_600);
/// How many hints are followed before the next pause: two replicas may each believe in the other.
const HINTS: u32 = 3;

/// What a call asks of a group's leader.
#[derive(Debug)]
pub(crate) struct Work {
    /// Its group, epoch and patience are those of the last attempt.
    body: Body,
    /// The group where the caller named it.
    group: Option<GroupId>,
}

impl Work {
    /// An operation for the shard of its key, or of its session's home where it has no key.
    pub(crate) fn op(op: Op) -> Work {
        let (group, epoch) = (GroupId::default(), RangeEpoch::default());
        Work { body: Body::Shard { group, epoch, patience_ms: 0, op }, group: None }
    }

    /// An operation for this group.
    pub(crate) fn op_for(group: GroupId, op: Op) -> Work {
        Work { group: Some(group), ..Work::op(op) }
    }

    /// A change of a group's leader.
    pub(crate) fn transfer(group: GroupId, to: NodeId) -> Work {
        Work { body: Body::Transfer { group, to }, group: Some(group) }
    }

    /// Whom it is for; `None` of what belongs to a group that nobody has named.
    fn target(&self) -> Option<Target<'_>> {
        if let Some(group) = self.group {
            return Some(Target::Group(group));
        }
        match self.asked()? {
            Op::Write(command) => match command.key() {
                Some(key) => Some(Target::Key(key)),
                None => command.session().map(Target::Home),
            },
            Op::Read(query) => read_from(query),
            Op::KeepAlive { session } => Some(Target::Home(*session)),
            // These go to a group that is named, or to any of its replicas.
            Op::Watch { .. } | Op::Marked(_) | Op::ReadIndex | Op::Stale { .. } => None,
        }
    }

    fn asked(&self) -> Option<&Op> {
        match &self.body {
            Body::Shard { op, .. } => Some(op),
            _ => None,
        }
    }

    /// What is sent in the next attempt.
    pub(crate) fn address(&mut self, to: GroupId, by: RangeEpoch, patience: Duration) -> &Body {
        if let Body::Shard { group, epoch, patience_ms, .. } = &mut self.body {
            (*group, *epoch, *patience_ms) = (to, by, millis(patience));
        }
        &self.body
    }

    /// Whether it may have changed something once it was proposed.
    fn changes(&self) -> bool {
        matches!(self.asked(), Some(Op::Write(_)))
    }

    /// Whether doing it twice is the same as doing it once. All but an operator's break is: it either has
    /// a request id or names what it ends or begins.
    fn repeats(&self) -> bool {
        !matches!(self.asked(), Some(Op::Write(Command::Break { .. })))
    }

    fn is_sign_of_life(&self) -> bool {
        matches!(self.asked(), Some(Op::KeepAlive { .. }))
    }

    /// The longest pause between attempts. Signs of life are many and have the time.
    fn pause_max(&self) -> Duration {
        if self.is_sign_of_life() { 5 * PAUSE_MAX } else { PAUSE_MAX }
    }

    /// Whether it is large: to send it again makes a slow cluster slower.
    fn is_large(&self) -> bool {
        match self.asked() {
            Some(Op::Write(Command::Configure(Configure { change: Change::Put(content), .. }))) => {
                content.value.len() > LARGE
            }
            _ => false,
        }
    }

    /// How long a node that holds it for no reason may be silent.
    fn silence(&self, patience: Duration) -> Duration {
        match self.is_large() {
            true => (3 * SILENCE).min((patience * 4 / 5).max(Duration::from_millis(100))),
            false => SILENCE.min((patience / 3).max(Duration::from_millis(100))),
        }
    }

    /// How long the leader may hold it before it answers.
    fn held(&self) -> Duration {
        let held = match self.asked() {
            Some(Op::Write(Command::Acquire(acquire))) => Duration::from_millis(acquire.wait.0),
            Some(Op::Watch { wait_ms, .. }) => Duration::from_millis(u64::from(*wait_ms)),
            _ => Duration::ZERO,
        };
        held.min(FOREVER)
    }
}

/// The shard that a query asks; `None` where it is every one, or one that must be named.
pub(crate) fn read_from(query: &Query) -> Option<Target<'_>> {
    match query {
        Query::Object { key }
        | Query::Config { key, .. }
        | Query::Versions { key }
        | Query::Hook { key }
        | Query::DeadLetters { key }
        | Query::Service { key, .. }
        | Query::Instance { key, .. }
        | Query::Sample { key, .. } => Some(Target::Key(key)),
        Query::Fence { checks } => checks.first().map(|(key, _)| Target::Key(key)),
        Query::Session { session } => Some(Target::Home(*session)),
        Query::List { .. }
        | Query::Sessions { .. }
        | Query::Configs { .. }
        | Query::Events { .. }
        | Query::Hooks { .. }
        | Query::Services { .. }
        | Query::Waits { .. } => None,
    }
}

/// A duration for the wire.
pub(crate) fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// An answer, and of a sign of life when the attempt that it answers was sent.
#[derive(Debug)]
pub(crate) struct Replied {
    pub(crate) response: Response,
    pub(crate) sent: Option<Boot>,
}

/// One attempt under way.
struct Attempt {
    routes: Arc<Routes>,
    group: GroupId,
    asked: NodeId,
    began: Instant,
    until: Instant,
    sent: Option<Boot>,
    reply: PendingReply,
}

impl Attempt {
    /// `None` where the node was silent.
    fn poll(&mut self, context: &Context<'_>) -> Poll<Option<Answered>> {
        let answered = ready!(self.reply.poll_by(context, Some(self.until)));
        if let (Some(Ok(_)), Some(group)) = (&answered, self.routes.group(self.group)) {
            group.believe(self.asked);
        }
        Poll::Ready(answered)
    }
}

/// Whether an answer ends the call.
fn settles(work: &Work, response: &Response) -> bool {
    // Whoever names a group rather than a key wants to know.
    work.group.is_some() || !matches!(response, Response::Outcome(Outcome::StaleEpoch { .. }))
}

/// What one attempt says about the next.
pub(crate) enum Next {
    /// Somebody leads here: ask it now.
    Hint(NodeId),
    /// Ask another replica, after a pause.
    Other,
    /// Ask the same node, after a pause.
    Same,
    /// Wait for a map at least as new as this, known to the node that was asked.
    Map(MapVersion),
}

/// One call under way.
pub(crate) struct Call {
    deadline: Instant,
    /// Some attempt may have been proposed.
    perhaps: bool,
    /// Since when nobody has taken it.
    trouble: Option<Instant>,
    /// What the last attempt failed with.
    last: Error,
    pause: Duration,
    pause_max: Duration,
    hints: u32,
}

/// A call under way. Callers keep thousands of these: it holds what it asks once, one attempt, and what repeats
/// need only where there are any. Nothing is sent before it is polled.
pub(crate) struct Run<'a> {
    core: &'a Core,
    patience: Duration,
    /// Until it is answered or repeated.
    work: Option<Work>,
    first: Option<Attempt>,
    further: Option<BoxFuture<'a, Result<Replied, Error>>>,
}

impl Future for Run<'_> {
    type Output = Result<Replied, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Run { core, patience, work, first, further } = &mut *self;
        if let Some(asking) = work {
            let silence = asking.silence(*patience);
            let (deadline, answered) = match first {
                Some(attempt) => (attempt.began + (*patience).min(FOREVER), ready!(attempt.poll(context))),
                None => {
                    let began = Instant::now();
                    let deadline = began + (*patience).min(FOREVER);
                    *first = core.attempt(asking, None, began, deadline, silence);
                    let answered = match first {
                        Some(attempt) => ready!(attempt.poll(context)),
                        None => None,
                    };
                    (deadline, answered)
                }
            };
            let tried = match (first.take(), answered) {
                (Some(attempt), Some(Ok(response))) if settles(asking, &response) => {
                    *work = None;
                    return Poll::Ready(Ok(Replied { response, sent: attempt.sent }));
                }
                (attempt, answered) => attempt.map(|attempt| (attempt, answered)),
            };
            *further = work.take().map(|work| core.persist(work, tried, deadline, silence));
        }
        match further {
            Some(further) => further.as_mut().poll(context),
            None => panic!("a call was polled after its end"),
        }
    }
}

impl Core {
    /// Repeats `work` until it is answered or `patience` ends.
    pub(crate) fn run(&self, work: Work, patience: Duration) -> Run<'_> {
        Run { core: self, patience, work: Some(work), first: None, further: None }
    }

    /// Sends it to `node`, or to whoever is believed to lead its group. `None` where the map names nobody.
    fn attempt(
        &self,
        work: &mut Work,
        node: Option<NodeId>,
        began: Instant,
        deadline: Instant,
        silence: Duration,
    ) -> Option<Attempt> {
        let routes = self.routes();
        let (group, epoch) = work.target().and_then(|target| routes.resolve(target))?;
        let asked = node.or_else(|| group.leader()).or_else(|| group.replicas.first().copied())?;
        let until = deadline.min(began + work.held() + silence);
        let group = group.id;
        // Only sessions live by when their signs of life were sent.
        let sent = work.is_sign_of_life().then(|| self.clock.now());
        let body = work.address(group, epoch, deadline.saturating_duration_since(began));
        let reply = self.dialer.ask(asked, Lane::Client, body);
        Some(Attempt { routes, group, asked, began, until, sent, reply })
    }

    /// Goes on after a first attempt that settled nothing, or could not be made.
    fn persist(
        &self,
        mut work: Work,
        mut tried: Option<(Attempt, Option<Answered>)>,
        deadline: Instant,
        mut silence: Duration,
    ) -> BoxFuture<'_, Result<Replied, Error>> {
        let persisting = async move {
            let mut call = Call::new(deadline, work.pause_max(), "no shard map yet");
            let mut node = None;
            loop {
                let (attempt, answered) = match tried.take() {
                    Some(tried) => tried,
                    None => match self.attempt(&mut work, node.take(), Instant::now(), call.deadline, silence) {
                        Some(mut attempt) => {
                            let answered = poll_fn(|context| attempt.poll(context)).await;
                            (attempt, answered)
                        }
                        None if work.target().is_none() => {
                            return Err(Error::Malformed("this belongs to a group: name it".into()));
                        }
                        None => {
                            self.wait_for_map(self.routes().map().version, None, call.deadline).await;
                            call.rest(Next::Other).await?;
                            continue;
                        }
                    },
                };
                let Attempt { routes, asked, began, sent, .. } = attempt;
                if !work.held().is_zero() && began.elapsed() > silence {
                    // It was taken and held: what went before is over.
                    call.trouble = None;
                }
                let known = routes.map().version;
                let Some(group) = routes.group(attempt.group) else { continue };
                let next = match answered {
                    Some(Ok(response)) if settles(&work, &response) => return Ok(Replied { response, sent }),
                    Some(Ok(_)) => {
                        call.last = Error::unavailable("the shard's range has changed");
                        Next::Map(MapVersion(known.0 + 1))
                    }
                    Some(Err(error)) => call.judge(error, &work, group, asked, known)?,
                    None => {
                        // Repeats must not drown a cluster that is merely slow.
                        silence *= 2;
                        call.unknown(&work, "the node stays silent")?
                    }
                };
                node = match next {
                    Next::Hint(hint) => {
                        group.believe(hint);
                        Some(hint)
                    }
                    // Only an answer moves the belief: a full queue must not send everybody elsewhere.
                    Next::Other => group.next(asked),
                    Next::Same => Some(asked),
                    Next::Map(version) => {
                        self.wait_for_map(MapVersion(version.0.saturating_sub(1)), Some(asked), call.deadline).await;
                        None
                    }
                };
                call.rest(next).await?;
            }
        };
        persisting.boxed()
    }

    /// Asks for a newer map than `known` and waits for a little while until it is there.
    pub(crate) async fn wait_for_map(&self, known: MapVersion, from: Option<NodeId>, deadline: Instant) {
        let until = deadline.min(Instant::now() + MAP_WAIT);
        if let Some(node) = from {
            self.map_source.store(node.0, Ordering::Relaxed);
        }
        // A failure shows in the next attempt.
        let _ = timeout_at(until, self.newer_than(known)).await;
    }
}

const PAUSE_MIN: Duration = Duration::from_millis(10);
pub(crate) const PAUSE_MAX: Duration = Duration::from_millis(100);
/// The granularity of timers, and a little.
const TICK: Duration = Duration::from_millis(12);

impl Call {
    pub(crate) fn new(deadline: Instant, pause_max: Duration, why: &str) -> Call {
        let last = Error::Unreachable { why: why.into() };
        Call { deadline, perhaps: false, trouble: None, last, pause: PAUSE_MIN, pause_max, hints: 0 }
    }

    /// What an attempt without a response means.
    pub(crate) fn judge(
        &mut self,
        error: CallError,
        work: &Work,
        group: &GroupRoute,
        asked: NodeId,
        known: MapVersion,
    ) -> Result<Next, Error> {
        let refusal = match error {
            CallError::Lost => return self.unknown(work, "the connection ended before the answer"),
            CallError::NotSent(why) => {
                self.last = Error::Unreachable { why };
                return Ok(Next::Other);
            }
            CallError::Refused(refusal) => refusal,
        };
        let (last, next) = match refusal {
            Refusal::OutcomeUnknown => return self.unknown(work, "the answer is lost"),
            Refusal::NotLeader { hint: Some(hint) } if hint != asked && self.hints < HINTS => {
                self.hints += 1;
                (Error::unavailable("the shard's leader moves"), Next::Hint(hint))
            }
            // Another round of hints may follow the pause.
            Refusal::NotLeader { hint: Some(hint) } if hint != asked => {
                self.hints = 0;
                (Error::unavailable("the shard's leader moves"), Next::Other)
            }
            Refusal::NotLeader { .. } => (Error::unavailable("the shard has no leader"), Next::Other),
            // A leader without a majority may get it back; with one replica there is nobody else.
            refusal @ Refusal::NoQuorum => (Error::unavailable(refusal.to_string()), Next::Other),
            ref refusal @ (Refusal::StaleEpoch { map, .. } | Refusal::NoReplica { map }) => {
                let last = Error::unavailable(refusal.to_string());
                match map > known {
                    true => (last, Next::Map(map)),
                    // Its node knows no better, but another may: a new map is on its way.
                    false if group.replicas.len() < 2 => (last, Next::Map(MapVersion(known.0 + 1))),
                    false => (last, Next::Other),
                }
            }
            Refusal::Overloaded => (Error::Overloaded, Next::Same),
            refusal @ Refusal::Stopping => (Error::unavailable(refusal.to_string()), Next::Other),
            Refusal::TooStale => (Error::TooStale, Next::Other),
            Refusal::DiskFull => return Err(self.verdict(Error::DiskFull)),
            Refusal::NotAllowed(why) => return Err(self.verdict(Error::NotAllowed(why))),
            Refusal::Malformed(why) => return Err(self.verdict(Error::Malformed(why))),
        };
        self.last = last;
        Ok(next)
    }

    /// An attempt whose fate nobody knows.
    pub(crate) fn unknown(&mut self, work: &Work, why: &str) -> Result<Next, Error> {
        if work.changes() {
            self.perhaps = true;
            if !work.repeats() {
                return Err(Error::OutcomeUnknown);
            }
        }
        self.last = Error::unavailable(why);
        Ok(Next::Other)
    }

    /// What the caller is told: promise 3.
    fn verdict(&self, error: Error) -> Error {
        if self.perhaps { Error::OutcomeUnknown } else { error }
    }

    /// Pauses before the next attempt, or ends the call.
    pub(crate) async fn rest(&mut self, next: Next) -> Result<(), Error> {
        let now = Instant::now();
        let trouble = *self.trouble.get_or_insert(now);
        let hopeless = !self.perhaps && now.duration_since(trouble) >= GIVE_UP;
        if now >= self.deadline || hopeless {
            return Err(self.verdict(self.last.clone()));
        }
        if matches!(next, Next::Hint(_)) {
            return Ok(());
        }
        let pause = random::within(self.pause / 2..=self.pause);
        self.pause = (self.pause * 2).min(self.pause_max);
        // An attempt that nobody has time to hear would only make the outcome unknown. Timers fire up to a
        // tick late.
        if now + pause + TICK >= self.deadline {
            return Err(self.verdict(self.last.clone()));
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// Calls to a node itself rather than to a group's leader.
impl Core {
    /// Asks `node`, again where the call did not leave, until `patience` ends.
    pub(crate) async fn ask(&self, node: NodeId, body: Body, patience: Duration) -> Result<Response, Error> {
        let deadline = Instant::now() + patience.min(FOREVER);
        let mut call = Call::new(deadline, PAUSE_MAX, "the node stays silent");
        loop {
            let answered = self.dialer.ask(node, Lane::Client, &body).by(call.deadline).await;
            call.last = match answered {
                Some(Ok(response)) => return Ok(response),
                Some(Err(CallError::NotSent(why))) => Error::Unreachable { why },
                Some(Err(CallError::Refused(Refusal::NotAllowed(why)))) => return Err(Error::NotAllowed(why)),
                Some(Err(CallError::Refused(Refusal::Malformed(why)))) => return Err(Error::Malformed(why)),
                Some(Err(error)) => Error::unavailable(error.to_string()),
                None => Error::Unreachable { why: format!("node {node} stays silent") },
            };
            call.rest(Next::Same).await?;
        }
    }
}
