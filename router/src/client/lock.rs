//! Asking for a lock, and what can come of it.

use std::time::Duration;

use tokio::time::Instant;
use wardlock_machine::{
    Acquire, Blocked, Circle, Command, Grant, Key, Kind, Limit, Metadata, Millis, Mode, Name, NameError, Outcome,
    planted,
};

use super::{
    Session, SessionState,
    call::{FOREVER, GIVE_UP},
    clock::less_drift,
    guard::Guard,
    janitor::Chore,
    requests::Open,
};
use crate::Error;

/// The pause before a queued request asks for its answer again.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Why a lock is not held, or could not be given back or renewed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Others hold it, and this request did not wait.
    #[error("held by others")]
    Held(Blocked),
    /// The wait ended without a grant.
    #[error("still held by others after the wait")]
    WaitTimeout(Blocked),
    /// The session holds it already, by another request; this is that grant.
    #[error("the session holds it already, as {}", .0.lock_id)]
    AlreadyHeld(Box<Grant>),
    /// The lock is in use in another mode, or with another number of permits.
    #[error("in use in another mode: {0:?}")]
    Mismatch(Mode),
    /// A bound is reached, or a field is outside its bounds.
    #[error("refused: a bound is reached: {0:?}")]
    Limit(Limit),
    /// The text is no name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The session has ended, or may have.
    #[error("the session is lost")]
    SessionLost,
    /// The grant is no longer there: its lease ran out or an operator broke it. Nothing changed.
    #[error("no longer held")]
    Expired,
    /// The request was taken out of the queue.
    #[error("cancelled")]
    Cancelled,
    /// The wait was part of a deadlock, and was ended so that the others can go on: give back what you hold, and try
    /// again after a pause.
    #[error("a deadlock: {0}")]
    Deadlock(Circle),
    /// The call failed. After [`Error::OutcomeUnknown`] of an acquire, what may have been granted is given
    /// back in the background.
    #[error(transparent)]
    Call(#[from] Error),
}

/// A lock to be asked for.
#[derive(Clone, Debug)]
#[must_use = "a lock is asked for by `acquire`"]
pub struct Lock<'a> {
    pub(crate) session: &'a Session,
    pub(crate) kind: Kind,
    pub(crate) name: &'a str,
    pub(crate) mode: Mode,
    pub(crate) lease: Option<Duration>,
    pub(crate) wait: Duration,
    pub(crate) priority: i32,
    pub(crate) lock_delay: Duration,
    pub(crate) metadata: Metadata,
    pub(crate) value: Option<String>,
}

impl Session {
    /// The lock called `name`, to be asked for: exclusively, without waiting, for as long as the session
    /// lives.
    pub fn lock<'a>(&'a self, name: &'a str) -> Lock<'a> {
        Lock {
            session: self,
            kind: Kind::Lock,
            name,
            mode: Mode::Exclusive,
            lease: None,
            wait: Duration::ZERO,
            priority: 0,
            lock_delay: Duration::ZERO,
            metadata: Metadata::new(),
            value: None,
        }
    }
}

impl Lock<'_> {
    /// Together with other shared holders.
    pub fn shared(mut self) -> Self {
        self.mode = Mode::Shared;
        self
    }

    /// As one of at most `permits` holders. All of them must name the same number.
    pub fn permits(mut self, permits: u32) -> Self {
        self.mode = Mode::Semaphore { permits };
        self
    }

    /// With a lease of its own, from 100 ms. It ends then even if the session lives.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Queues for so long.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Before waiters of a lower priority.
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// Keeps the lock closed for so long after it was lost rather than released: time for what its holder
    /// left under way to end.
    pub fn lock_delay(mut self, delay: Duration) -> Self {
        self.lock_delay = delay;
        self
    }

    /// Adds an entry that is shown to whoever waits.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Asks once, without waiting.
    pub async fn try_acquire(self) -> Result<Guard, LockError> {
        self.wait(Duration::ZERO).acquire().await
    }

    /// Asks, and queues as long as [`Lock::wait`] says. Dropping the future gives up the place in the queue,
    /// or what was granted meanwhile.
    pub async fn acquire(self) -> Result<Guard, LockError> {
        let session = self.session;
        let key = Key { kind: self.kind, name: Name::new(self.name)? };
        if session.state() == SessionState::Lost {
            return Err(LockError::SessionLost);
        }
        let open = session.requests().begin();
        let acquire = Acquire {
            session: session.id(),
            request: open.id(),
            key: key.clone(),
            mode: self.mode,
            lease: self.lease.map(to_millis),
            wait: to_millis(self.wait),
            priority: self.priority,
            lock_delay: to_millis(self.lock_delay),
            metadata: self.metadata,
            value: self.value,
        };
        let clock = &session.client().core().clock;
        let sent = clock.now();
        let command = Command::Acquire(acquire.clone());
        let asking = Asking { session, unanswered: Some((acquire, open)) };
        let settled = tokio::select! {
            biased;
            () = session.vital().lost().cancelled() => Err(LockError::SessionLost),
            settled = settle(session, command, self.wait.saturating_add(GIVE_UP)) => settled,
        };
        match settled {
            Ok(grant) => {
                asking.answered();
                let sent = if planted!("lease-reckoned-from-the-answer") { clock.now() } else { sent };
                let own = grant
                    .lease
                    .map(|lease| sent + less_drift(to_duration(grant.waited).saturating_add(to_duration(lease))));
                let guard = Guard::new(session.clone(), key, grant, own);
                // An answer that took longer than the lease: dropping the guard gives back what is left.
                if guard.is_held() { Ok(guard) } else { Err(guard.why_lost()) }
            }
            // Nobody knows, or nobody asked: the drop of `asking` withdraws.
            Err(error @ (LockError::SessionLost | LockError::Call(Error::OutcomeUnknown))) => Err(error),
            Err(error) => {
                asking.answered();
                Err(error)
            }
        }
    }
}

/// Repeats a request until it does not queue any more.
async fn settle(session: &Session, command: Command, patience: Duration) -> Result<Grant, LockError> {
    let deadline = Instant::now() + patience.min(FOREVER);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        return match session.client().write(command.clone(), left).await? {
            Outcome::Queued { .. } if Instant::now() < deadline => {
                tokio::time::sleep(ASK_AGAIN).await;
                continue;
            }
            Outcome::Granted(grant) => Ok(grant),
            Outcome::AlreadyHeld(grant) => Err(LockError::AlreadyHeld(Box::new(grant))),
            other => Err(session.refused(other)),
        };
    }
}

impl Session {
    /// What an outcome other than the one that was hoped for means.
    pub(crate) fn refused(&self, outcome: Outcome) -> LockError {
        match outcome {
            Outcome::Held(blocked) => LockError::Held(blocked),
            Outcome::WaitTimeout(blocked) => LockError::WaitTimeout(blocked),
            Outcome::Mismatch { mode } => LockError::Mismatch(mode),
            Outcome::Limit(limit) => LockError::Limit(limit),
            Outcome::Cancelled => LockError::Cancelled,
            Outcome::Deadlock(circle) => LockError::Deadlock(circle),
            Outcome::Expired => LockError::Expired,
            // A shard heard so from the session's home.
            Outcome::Closing | Outcome::Ended | Outcome::UnknownSession => {
                self.vital().lose();
                LockError::SessionLost
            }
            Outcome::NotAttached | Outcome::Pending { .. } => {
                LockError::Call(Error::unavailable("the session's home could not be asked"))
            }
            // The first answer is forgotten, or has not been given yet.
            Outcome::TooOld | Outcome::Queued { .. } => LockError::Call(Error::OutcomeUnknown),
            other => LockError::Call(Error::Malformed(format!("the request came to {other:?}"))),
        }
    }
}

/// A request that has no answer yet. Dropped so, it is withdrawn in the background, and counts as
/// unanswered until that is done.
struct Asking<'a> {
    session: &'a Session,
    unanswered: Option<(Acquire, Open)>,
}

impl Asking<'_> {
    /// It has one now.
    fn answered(mut self) {
        self.unanswered = None;
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if let Some((acquire, open)) = self.unanswered.take() {
            self.session.leave(Chore::Withdraw { acquire: Box::new(acquire), open: Some(open) });
        }
    }
}

/// A duration for the wire, in whole milliseconds.
pub(crate) fn to_millis(duration: Duration) -> Millis {
    Millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

pub(crate) fn to_duration(millis: Millis) -> Duration {
    Duration::from_millis(millis.0)
}
