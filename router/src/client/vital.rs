//! Whether a session lives, as its client may believe.
//!
//! A sign of life that was answered gives the session its TTL from the moment it was *sent*, less 1 % for
//! drift: the server's own count began later. While more than half of that is left the session is
//! healthy; signs of life go out at a third, so a healthy session has had an answer lately. Then it is in
//! jeopardy, and at the deadline it is lost.
//!
//! # Promises
//! 1. Lost is for ever: an answer that comes after the deadline revives nothing.
//! 2. The deadline is never later than the server's earliest.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wardlock_machine::{SessionId, planted};

use super::clock::{Boot, Clock, less_drift};

/// How a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SessionState {
    /// More than half of its validity is left.
    Healthy,
    /// Less than half is left: its home has not answered lately. Finish, or get ready to stop.
    Jeopardy,
    /// It ended, was closed, or may have ended: others may hold what it held.
    Lost,
}

/// One session's life.
#[derive(Debug)]
pub(crate) struct Vital {
    pub(crate) id: SessionId,
    pub(crate) ttl: Duration,
    clock: Arc<dyn Clock>,
    life: Mutex<Life>,
    state: watch::Sender<SessionState>,
    lost: CancellationToken,
}

#[derive(Debug)]
struct Life {
    deadline: Boot,
    over: bool,
}

impl Vital {
    /// A session whose opening was sent at `sent` and answered.
    pub(crate) fn new(id: SessionId, ttl: Duration, sent: Boot, clock: Arc<dyn Clock>) -> Vital {
        let life = Mutex::new(Life { deadline: sent + less_drift(ttl), over: false });
        let (state, _) = watch::channel(SessionState::Healthy);
        Vital { id, ttl, clock, life, state, lost: CancellationToken::new() }
    }

    /// How it stands now. Whoever looks after the deadline makes it lost for everybody.
    pub(crate) fn look(&self) -> SessionState {
        self.change(|_| {})
    }

    /// A sign of life that was sent at `sent` was answered.
    pub(crate) fn extend(&self, sent: Boot) {
        let from = if planted!("session-reckoned-from-the-answer") { self.clock.now() } else { sent };
        self.change(|life| life.deadline = life.deadline.max(from + less_drift(self.ttl)));
    }

    /// It has ended.
    pub(crate) fn lose(&self) {
        self.change(|life| life.over = true);
    }

    /// Until when it surely lives; a point in the past once it is over.
    pub(crate) fn deadline(&self) -> Boot {
        let life = self.life.lock().unwrap_or_else(PoisonError::into_inner);
        if life.over { Boot(Duration::ZERO) } else { life.deadline }
    }

    /// When it falls into jeopardy, unless it is extended.
    pub(crate) fn jeopardy(&self) -> Boot {
        Boot(self.deadline().0.saturating_sub(less_drift(self.ttl) / 2))
    }

    pub(crate) fn watch(&self) -> watch::Receiver<SessionState> {
        self.state.subscribe()
    }

    /// Cancelled when it is lost.
    pub(crate) fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    fn change(&self, change: impl FnOnce(&mut Life)) -> SessionState {
        let mut life = self.life.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.now();
        // Promise 1: the deadline is looked at before the change.
        life.over |= now >= life.deadline;
        if !life.over {
            change(&mut life);
        }
        let left = life.deadline.since(now);
        let state = if life.over || left.is_zero() {
            life.over = true;
            SessionState::Lost
        } else if left <= less_drift(self.ttl) / 2 {
            SessionState::Jeopardy
        } else {
            SessionState::Healthy
        };
        self.state.send_if_modified(|told| std::mem::replace(told, state) != state);
        drop(life);
        if state == SessionState::Lost {
            self.lost.cancel();
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Debug, Default)]
    struct Seconds(AtomicU64);

    impl Clock for Seconds {
        fn now(&self) -> Boot {
            at(self.0.load(Ordering::Relaxed))
        }
    }

    fn at(seconds: u64) -> Boot {
        Boot(Duration::from_secs(seconds))
    }

    #[test]
    fn lost_is_for_ever() {
        let clock = Arc::new(Seconds::default());
        let vital = Vital::new(SessionId(1), Duration::from_secs(100), at(0), clock.clone());
        let look = |seconds| {
            clock.0.store(seconds, Ordering::Relaxed);
            vital.look()
        };
        assert_eq!(look(49), SessionState::Healthy);
        assert_eq!(look(50), SessionState::Jeopardy);
        vital.extend(at(40));
        assert_eq!(look(50), SessionState::Healthy);
        vital.extend(at(10));
        assert_eq!(vital.deadline(), at(139), "an older answer shortens nothing");
        assert_eq!(look(138), SessionState::Jeopardy);
        // Nobody looked at the deadline; the answer comes after it.
        clock.0.store(139, Ordering::Relaxed);
        vital.extend(at(130));
        assert_eq!(vital.look(), SessionState::Lost);
        assert!(vital.lost().is_cancelled());
        assert_eq!(vital.deadline(), at(0));
    }
}
