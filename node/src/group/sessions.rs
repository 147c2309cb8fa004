//! The deadlines of the sessions that are at home in a shard, in its leader's memory.
//!
//! Keep-alives are not logged. The leader notes when it heard of each session and proposes an expiry
//! when one has been silent for its TTL. So that a dead client does not outlive a series of failovers,
//! each of which gives a full TTL, a session silent for half its TTL is *checkpointed*: the log records
//! what it has left, and a new leader starts from there. A checkpointed session that speaks again is
//! acknowledged only once the clearing of its record has committed.
//!
//! # Invariants
//! 1. A session is never due before its full TTL (or its checkpointed rest) has passed since it was
//!    last heard of, or since this leader began.
//! 2. From the moment its expiry is proposed, a session's keep-alives wait for the proposal's outcome.
//! 3. The heap holds one entry for each live session; an entry may be early, never late.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use wardlock_machine::{Millis, SessionId, WallMs, limits, planted};
use wardlock_router::{link::Replier, random};
use wardlock_wire::{KeptAlive, Response};

/// How many heap entries of ended sessions are kept before the heap is made anew.
const SLACK: usize = 1_024;

/// All of one leader's session deadlines. Times are readings of the node's clock.
#[derive(Default)]
pub struct Deadlines {
    sessions: random::Map<SessionId, Entry>,
    due: BinaryHeap<Reverse<(Duration, SessionId)>>,
    checkpoints: u64,
}

struct Entry {
    ttl: Duration,
    deadline: Duration,
    heard: Option<WallMs>,
    state: State,
}

enum State {
    /// Heard of within half its TTL, or about to be checkpointed.
    Live,
    /// The log says what it has left: the checkpoint of this number.
    Checkpointed(u64),
    /// Its expiry is proposed; these keep-alives wait for the outcome.
    Expiring(Vec<Replier>),
}

/// What a keep-alive needs before it may be acknowledged.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// A quorum round begun after it arrived.
    Round,
    /// The clearing of its checkpoint, of this number, must commit.
    Clearing(u64),
    /// The outcome of the expiry that is under way.
    Expiry,
    /// The session is not open here, as far as the leader's memory goes.
    Unknown,
}

/// What is due.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Propose their expiry.
    pub expire: Vec<SessionId>,
    /// Propose to record what they have left.
    pub checkpoint: Vec<(SessionId, Option<Millis>)>,
}

impl Deadlines {
    /// A session begins, or a new leader takes it over with `left` of its TTL.
    pub fn open(
        &mut self,
        session: SessionId,
        ttl: Millis,
        left: Option<Millis>,
        now: Duration,
        heard: Option<WallMs>,
    ) {
        let ttl = Duration::from_millis(ttl.0);
        let (state, deadline) = match left {
            Some(left) => (State::Checkpointed(0), now + Duration::from_millis(left.0)),
            None => (State::Live, now + ttl),
        };
        let entry = Entry { ttl, deadline, heard, state };
        self.due.push(Reverse((entry.next(), session)));
        self.sessions.insert(session, entry);
    }

    /// The session has started to close: keep-alives that waited for its expiry learn of its end.
    pub fn close(&mut self, session: SessionId) {
        if let Some(Entry { state: State::Expiring(parked), .. }) = self.sessions.remove(&session) {
            for reply in parked {
                reply.send(Ok(Response::KeptAlive(KeptAlive::Ended)));
            }
        }
        // Sessions that end long before their TTL leave their heap entries behind.
        if self.due.len() > 2 * self.sessions.len() + SLACK {
            self.due = self.sessions.iter().map(|(session, entry)| Reverse((entry.next(), *session))).collect();
        }
    }

    /// A keep-alive has arrived. Its arrival already moves the deadline: that can only lengthen the
    /// session's life. The acknowledgement waits for what the answer names. A checkpointed session stays so
    /// until [`Self::cleared`]: were a second keep-alive acknowledged while the clearing is on its way, a new
    /// leader could still find the record and end the session early.
    pub fn heard(&mut self, session: SessionId, now: Duration, wall: WallMs) -> Heard {
        let Some(entry) = self.sessions.get_mut(&session) else {
            return Heard::Unknown;
        };
        if let State::Expiring(_) = entry.state {
            return Heard::Expiry;
        }
        entry.heard = Some(wall);
        entry.deadline = now + if planted!("session-early-end") { entry.ttl / 2 } else { entry.ttl };
        match entry.state {
            State::Checkpointed(number) => Heard::Clearing(number),
            _ => Heard::Round,
        }
    }

    /// The clearing of the session's record of this number has committed. A later record stands: it was
    /// proposed behind this clearing, and counts from a later deadline.
    pub fn cleared(&mut self, session: SessionId, number: u64) {
        if let Some(entry) = self.sessions.get_mut(&session)
            && matches!(entry.state, State::Checkpointed(of) if of == number)
        {
            entry.state = State::Live;
        }
    }

    /// What is left of the session's TTL, as a share of it.
    pub fn margin(&self, session: SessionId, now: Duration) -> Option<f64> {
        let entry = self.sessions.get(&session)?;
        Some(entry.deadline.saturating_sub(now).as_secs_f64() / entry.ttl.as_secs_f64())
    }

    /// Holds a keep-alive until the expiry that is under way has an outcome.
    pub fn park(&mut self, session: SessionId, reply: Replier) {
        match self.sessions.get_mut(&session) {
            Some(Entry { state: State::Expiring(parked), .. }) if parked.len() < 16 => parked.push(reply),
            // Unanswered, it reads as an unknown outcome: the client asks again.
            _ => drop(reply),
        }
    }

    /// Whether an expiry of the session is under way.
    pub fn is_expiring(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|entry| matches!(entry.state, State::Expiring(_)))
    }

    /// Whether the session is open and no expiry is under way.
    pub fn is_alive(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|entry| !matches!(entry.state, State::Expiring(_)))
    }

    /// When it was last heard of.
    pub fn last_heard(&self, session: SessionId) -> Option<WallMs> {
        self.sessions.get(&session).and_then(|entry| entry.heard)
    }

    /// When [`Self::due`] should next be asked.
    pub fn next(&self) -> Option<Duration> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    /// What is due at `now`, a page at a time. The caller proposes it.
    pub fn due(&mut self, now: Duration) -> Due {
        let mut due = Due::default();
        while let Some(Reverse((at, session))) = self.due.peek().copied() {
            if at > now || due.expire.len() + due.checkpoint.len() >= limits::PAGE {
                break;
            }
            self.due.pop();
            let Some(entry) = self.sessions.get_mut(&session) else {
                continue;
            };
            match entry.state {
                State::Expiring(_) => continue,
                State::Live if entry.next() <= now => {
                    let left = entry.deadline.saturating_sub(now);
                    due.checkpoint.push((session, Some(Millis(left.as_millis() as u64))));
                    self.checkpoints += 1;
                    entry.state = State::Checkpointed(self.checkpoints);
                }
                State::Checkpointed(_) if entry.deadline <= now => {
                    entry.state = State::Expiring(Vec::new());
                    due.expire.push(session);
                    continue;
                }
                State::Live => {}
                State::Checkpointed(_) => {
                    // It has spoken since. Its record may be cleared at any moment, and it is live from then
                    // on: the entry must not be later than its next checkpoint.
                    let half = entry.deadline.saturating_sub(entry.ttl / 2);
                    let next = if half > now { half } else { entry.deadline };
                    self.due.push(Reverse((next, session)));
                    continue;
                }
            }
            self.due.push(Reverse((entry.next(), session)));
        }
        due
    }
}

impl Entry {
    fn next(&self) -> Duration {
        match self.state {
            State::Live => self.deadline.saturating_sub(self.ttl / 2),
            _ => self.deadline,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const TTL: Millis = Millis(10_000);

    fn session(n: u128) -> SessionId {
        SessionId(n)
    }

    #[test]
    fn a_silent_session_is_checkpointed_at_half_and_expires_at_its_ttl() {
        let mut deadlines = Deadlines::default();
        deadlines.open(session(1), TTL, None, Duration::ZERO, None);
        assert_eq!(deadlines.due(4 * SECOND), Due::default());
        assert_eq!(deadlines.due(5 * SECOND).checkpoint, [(session(1), Some(Millis(5_000)))]);
        assert_eq!(deadlines.due(10 * SECOND - Duration::from_millis(1)), Due::default());
        assert_eq!(deadlines.due(10 * SECOND).expire, [session(1)]);
        assert_eq!(deadlines.heard(session(1), 10 * SECOND, WallMs(0)), Heard::Expiry, "invariant 2");
    }

    #[test]
    fn a_keep_alive_moves_the_deadline_and_a_checkpointed_one_needs_the_clearing() {
        let mut deadlines = Deadlines::default();
        deadlines.open(session(1), TTL, None, Duration::ZERO, None);
        assert_eq!(deadlines.heard(session(1), 4 * SECOND, WallMs(4)), Heard::Round);
        assert_eq!(deadlines.due(6 * SECOND), Due::default(), "half of the TTL counts from 4 s");
        assert_eq!(deadlines.due(9 * SECOND).checkpoint.len(), 1);
        assert_eq!(deadlines.heard(session(1), 12 * SECOND, WallMs(12)), Heard::Clearing(1));
        assert_eq!(deadlines.heard(session(1), 12 * SECOND, WallMs(12)), Heard::Clearing(1), "until it has committed");
        deadlines.cleared(session(1), 1);
        assert_eq!(deadlines.heard(session(1), 12 * SECOND, WallMs(12)), Heard::Round);
        assert_eq!(deadlines.due(14 * SECOND), Due::default(), "invariant 1");
        assert_eq!(deadlines.last_heard(session(1)), Some(WallMs(12)));
    }

    #[test]
    fn a_new_leader_starts_from_the_checkpoint() {
        let mut deadlines = Deadlines::default();
        deadlines.open(session(1), TTL, Some(Millis(2_000)), SECOND, None);
        deadlines.open(session(2), TTL, None, SECOND, None);
        assert_eq!(deadlines.due(3 * SECOND).expire, [session(1)]);
        assert_eq!(deadlines.next(), Some(6 * SECOND));
    }

    #[test]
    fn a_checkpointed_session_that_speaks_is_not_expired_while_its_clearing_commits() {
        let mut deadlines = Deadlines::default();
        deadlines.open(session(1), TTL, None, Duration::ZERO, None);
        assert_eq!(deadlines.due(5 * SECOND).checkpoint.len(), 1);
        assert_eq!(deadlines.heard(session(1), 9 * SECOND, WallMs(9)), Heard::Clearing(1));
        assert_eq!(deadlines.due(18 * SECOND), Due::default(), "invariant 1");
        assert_eq!(deadlines.due(19 * SECOND).expire, [session(1)]);
    }

    #[test]
    fn a_late_clearing_does_not_undo_a_newer_checkpoint() {
        let mut deadlines = Deadlines::default();
        deadlines.open(session(1), TTL, None, Duration::ZERO, None);
        assert_eq!(deadlines.due(5 * SECOND).checkpoint.len(), 1);
        assert_eq!(deadlines.heard(session(1), 6 * SECOND, WallMs(6)), Heard::Clearing(1));
        assert_eq!(deadlines.heard(session(1), 6 * SECOND, WallMs(6)), Heard::Clearing(1));
        deadlines.cleared(session(1), 1);
        assert_eq!(deadlines.due(11 * SECOND).checkpoint.len(), 1, "silent for half its TTL again");
        deadlines.cleared(session(1), 1);
        assert_eq!(deadlines.heard(session(1), 12 * SECOND, WallMs(12)), Heard::Clearing(2));
    }

    #[test]
    fn churn_leaves_no_heap_behind() {
        let mut deadlines = Deadlines::default();
        for n in 0..10_000 {
            deadlines.open(session(n), TTL, None, Duration::ZERO, None);
            deadlines.close(session(n));
        }
        assert!(deadlines.due.len() <= SLACK + 1, "{} entries for no session", deadlines.due.len());
    }

    #[test]
    fn closed_sessions_are_forgotten() {
        let mut deadlines = Deadlines::default();
        deadlines.open(session(1), TTL, None, Duration::ZERO, None);
        deadlines.close(session(1));
        assert_eq!(deadlines.heard(session(1), SECOND, WallMs(0)), Heard::Unknown);
        assert_eq!(deadlines.due(20 * SECOND), Due::default());
        assert_eq!(deadlines.next(), None);
    }
}
