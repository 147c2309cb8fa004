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
//! A call that nobody has taken for [`GIVE_UP`] is given up even where its caller has more patience, so
//! that one who asked to queue for an hour hears that the shard has no leader. A call that may have been
//! proposed is not given up: its answer is worth the wait.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::{Instant, timeout_at};
use wardlock_machine::{Command, Outcome, RangeEpoch};
use wardlock_placement::{GroupId, MapVersion, NodeId};
use wardlock_wire::{Body, Lane, Op, Refusal, Response};

use super::{clock::Boot, core::Core};
use crate::{
    Error,
    link::CallError,
    routes::{GroupRoute, Target},
};

/// How long a call may find nobody to take it.
pub(crate) const GIVE_UP: Duration = Duration::from_secs(5);
/// How long a node that holds a call for no reason may be silent; less for impatient callers.
pub(crate) const SILENCE: Duration = Duration::from_millis(1_500);
/// How long a call waits for a newer map before it tries again with the old one.
const MAP_WAIT: Duration = Duration::from_millis(500);
/// How many hints are followed before the next pause: two replicas may each believe in the other.
const HINTS: u32 = 3;

/// What a call asks of a group's leader.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    Op(Op),
    Transfer(NodeId),
}

impl Work {
    fn body(&self, group: GroupId, epoch: RangeEpoch, patience: Duration) -> Body {
        match self {
            Work::Op(op) => Body::Shard { group, epoch, patience_ms: millis(patience), op: op.clone() },
            Work::Transfer(to) => Body::Transfer { group, to: *to },
        }
    }

    /// Whether it may have changed something once it was proposed.
    fn changes(&self) -> bool {
        matches!(self, Work::Op(Op::Write(_)))
    }

    /// Whether doing it twice is the same as doing it once. All but an operator's break is: it either has
    /// a request id or names what it ends or begins.
    fn repeats(&self) -> bool {
        !matches!(self, Work::Op(Op::Write(Command::Break { .. })))
    }

    /// The longest pause between attempts. Signs of life are many and have the time.
    fn pause_max(&self) -> Duration {
        let short = !matches!(self, Work::Op(Op::KeepAlive { .. }));
        if short { PAUSE_MAX } else { 5 * PAUSE_MAX }
    }

    /// How long the leader may hold it before it answers.
    fn held(&self) -> Duration {
        match self {
            Work::Op(Op::Write(Command::Acquire(acquire))) => Duration::from_millis(acquire.wait.0),
            Work::Op(Op::Observe { wait_ms, .. }) => Duration::from_millis(u64::from(*wait_ms)),
            _ => Duration::ZERO,
        }
    }
}

/// A duration for the wire.
pub(crate) fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// An answer, and when the attempt that it answers was sent.
#[derive(Debug)]
pub(crate) struct Replied {
    pub(crate) response: Response,
    pub(crate) sent: Boot,
}

/// What one attempt says about the next.
enum Next {
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
struct Call {
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

impl Core {
    /// Repeats `work` until it is answered or `patience` ends.
    pub(crate) async fn run(&self, target: Target<'_>, work: &Work, patience: Duration) -> Result<Replied, Error> {
        let mut call = Call::new(patience, work.pause_max(), "no shard map yet");
        let mut silence = SILENCE.min((patience / 3).max(Duration::from_millis(100)));
        let mut node = None;
        loop {
            let routes = self.routes();
            let Some((group, epoch)) = routes.resolve(target) else {
                self.wait_for_map(routes.map().version, None, call.deadline).await;
                call.rest(Next::Other).await?;
                continue;
            };
            let Some(asked) = node.take().or_else(|| group.leader()).or_else(|| group.replicas.first().copied()) else {
                self.wait_for_map(routes.map().version, None, call.deadline).await;
                call.rest(Next::Other).await?;
                continue;
            };
            let start = Instant::now();
            let until = call.deadline.min(start + work.held() + silence);
            let body = work.body(group.id, epoch, call.deadline.saturating_duration_since(start));
            let sent = self.clock.now();
            let answered = timeout_at(until, self.dialer.call(asked, Lane::Client, body)).await;
            if !work.held().is_zero() && start.elapsed() > silence {
                // It was taken and held: what went before is over.
                call.trouble = None;
            }
            let next = match answered {
                // Whoever names a group rather than a key wants to know.
                Ok(Ok(Response::Outcome(Outcome::StaleEpoch { .. }))) if !matches!(target, Target::Group(_)) => {
                    call.last = Error::unavailable("the shard's range has changed");
                    Next::Map(MapVersion(routes.map().version.0 + 1))
                }
                Ok(Ok(response)) => {
                    group.believe(asked);
                    return Ok(Replied { response, sent });
                }
                Ok(Err(error)) => call.judge(error, work, group, asked, routes.map().version)?,
                Err(_) => {
                    // Repeats must not drown a cluster that is merely slow.
                    silence *= 2;
                    call.unknown(work, "the node stays silent")?
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
    }

    /// Asks for a newer map than `known` and waits for a little while until it is there.
    async fn wait_for_map(&self, known: MapVersion, from: Option<NodeId>, deadline: Instant) {
        let until = deadline.min(Instant::now() + MAP_WAIT);
        if let Some(node) = from {
            self.map_source.store(node.0, Ordering::Relaxed);
        }
        // A failure shows in the next attempt.
        let _ = timeout_at(until, self.newer_than(known)).await;
    }
}

const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// The granularity of timers, and a little.
const TICK: Duration = Duration::from_millis(2);

impl Call {
    fn new(patience: Duration, pause_max: Duration, why: &str) -> Call {
        let last = Error::Unreachable { why: why.into() };
        let deadline = Instant::now() + patience;
        Call { deadline, perhaps: false, trouble: None, last, pause: PAUSE_MIN, pause_max, hints: 0 }
    }

    /// What an attempt without a response means.
    fn judge(
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
            Refusal::DiskFull => return Err(self.verdict(Error::DiskFull)),
            Refusal::NotAllowed(why) => return Err(self.verdict(Error::NotAllowed(why))),
            Refusal::Malformed(why) => return Err(self.verdict(Error::Malformed(why))),
        };
        self.last = last;
        Ok(next)
    }

    /// An attempt whose fate nobody knows.
    fn unknown(&mut self, work: &Work, why: &str) -> Result<Next, Error> {
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
    async fn rest(&mut self, next: Next) -> Result<(), Error> {
        let now = Instant::now();
        let trouble = *self.trouble.get_or_insert(now);
        let hopeless = !self.perhaps && now.duration_since(trouble) >= GIVE_UP;
        if now >= self.deadline || hopeless {
            return Err(self.verdict(self.last.clone()));
        }
        if matches!(next, Next::Hint(_)) {
            return Ok(());
        }
        let pause = rand::random_range(self.pause / 2..=self.pause);
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
        let mut call = Call::new(patience, PAUSE_MAX, "the node stays silent");
        loop {
            let answered = timeout_at(call.deadline, self.dialer.call(node, Lane::Client, body.clone())).await;
            call.last = match answered {
                Ok(Ok(response)) => return Ok(response),
                Ok(Err(CallError::NotSent(why))) => Error::Unreachable { why },
                Ok(Err(CallError::Refused(Refusal::NotAllowed(why)))) => return Err(Error::NotAllowed(why)),
                Ok(Err(CallError::Refused(Refusal::Malformed(why)))) => return Err(Error::Malformed(why)),
                Ok(Err(error)) => Error::unavailable(error.to_string()),
                Err(_) => Error::Unreachable { why: format!("node {node} stays silent") },
            };
            call.rest(Next::Same).await?;
        }
    }
}
