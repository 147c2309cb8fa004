//! What a holder has in its hand.
//!
//! # Promises
//! 1. A guard is valid no longer than its session, and no longer than its own lease, which counts from when
//!    the request was sent: sent + waited + lease, less 1 % for drift.
//! 2. A guard that was lost is never held again.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wardlock_machine::{Command, Grant, Key, LockId, Outcome, Token};

use super::{
    Session,
    clock::{Boot, Clock, less_drift, reached},
    janitor::Chore,
    lock::{LockError, to_duration, to_millis},
    vital::{SessionState, Vital},
};

/// How long renewing and releasing may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A lock that is held. Dropping it releases it in the background.
#[must_use = "a guard that is dropped releases its lock"]
pub struct Guard {
    session: Session,
    key: Key,
    grant: Grant,
    term: Arc<Term>,
    /// One renewal at a time: the end of the lease is that of the last one.
    renewing: tokio::sync::Mutex<()>,
    released: bool,
}

/// How long it is held. Shared with those who wait for the end.
struct Term {
    clock: Arc<dyn Clock>,
    vital: Arc<Vital>,
    /// The end of its own lease, if it has one.
    own: watch::Sender<Option<Boot>>,
    /// Cancelled when the session is lost, the grant is gone or given back.
    over: CancellationToken,
}

impl Term {
    fn own(&self) -> Option<Boot> {
        *self.own.borrow()
    }

    fn set_own(&self, end: Boot) {
        self.own.send_replace(Some(end));
    }

    fn until(&self) -> Boot {
        if self.over.is_cancelled() {
            return Boot(Duration::ZERO);
        }
        let session = self.vital.deadline();
        self.own().map_or(session, |own| own.min(session))
    }
}

impl Guard {
    pub(crate) fn new(session: Session, key: Key, grant: Grant, own: Option<Boot>) -> Guard {
        let clock = session.client().core().clock.clone();
        let over = session.vital().lost().child_token();
        let term = Term { clock, vital: session.vital().clone(), own: watch::Sender::new(own), over };
        Guard { session, key, grant, term: Arc::new(term), renewing: tokio::sync::Mutex::default(), released: false }
    }

    /// The token to send along with whatever is done under this lock. The resource refuses what carries a
    /// lower one than it has seen.
    pub fn fencing_token(&self) -> Token {
        self.grant.lock_id.token
    }

    /// The name of this grant.
    pub fn lock_id(&self) -> LockId {
        self.grant.lock_id
    }

    /// The name of the lock.
    pub fn name(&self) -> &str {
        self.key.name.as_str()
    }

    /// What is held.
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// The grant is known to be gone.
    pub(crate) fn gone(&self) -> LockError {
        self.term.over.cancel();
        LockError::Expired
    }

    /// The grant as it was answered.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Whose it is.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Until when nobody else can hold it, by this machine's `CLOCK_BOOTTIME`; moved by renewals and the
    /// session's signs of life. In the past once it is lost.
    pub fn valid_until(&self) -> Boot {
        self.term.until()
    }

    /// How long it is surely held from now; zero once it is lost.
    pub fn remaining(&self) -> Duration {
        self.valid_until().since(self.term.clock.now())
    }

    /// Whether it is surely held now.
    pub fn is_held(&self) -> bool {
        let held = !self.remaining().is_zero();
        if !held {
            // Promise 2.
            self.term.over.cancel();
        }
        held
    }

    /// Resolves when it is lost or given back, before the servers can grant it anew. Does not borrow the guard.
    pub fn lost(&self) -> impl Future<Output = ()> + Send + 'static {
        let term = self.term.clone();
        async move {
            // A renewal may give a lease to a grant that had none.
            let mut own = term.own.subscribe();
            tokio::select! {
                biased;
                () = term.over.cancelled() => return,
                // The sender lives in `term`: this fails never.
                _ = own.wait_for(Option::is_some) => {}
            }
            tokio::select! {
                biased;
                () = term.over.cancelled() => {}
                () = reached(&term.clock, || term.until()) => term.over.cancel(),
            }
        }
    }

    /// Extends its lease to `lease` from now; `None` repeats the length that it has. The token stays. A
    /// grant that lives as long as its session has nothing to renew unless it is given a lease by this.
    pub async fn renew(&self, lease: impl Into<Option<Duration>>) -> Result<(), LockError> {
        let lease = lease.into().map(to_millis);
        let _turn = self.renewing.lock().await;
        if !self.is_held() {
            return Err(self.why_lost());
        }
        let open = self.session.requests().begin();
        let sent = self.term.clock.now();
        if let (Some(lease), before) = (lease, self.term.own()) {
            // A shorter lease may come into force without our hearing of it.
            let end = sent + less_drift(to_duration(lease));
            self.term.set_own(before.map_or(end, |before| before.min(end)));
        }
        let command = Command::Renew { request: open.id(), key: self.key.clone(), lock_id: self.lock_id(), lease };
        match self.session.client().write(command, PATIENCE).await? {
            Outcome::Renewed(grant) => {
                if !self.is_held() {
                    return Err(self.why_lost());
                }
                if let Some(lease) = grant.lease {
                    self.term.set_own(sent + less_drift(to_duration(lease)));
                }
                Ok(())
            }
            Outcome::Expired | Outcome::Foreign => Err(self.gone()),
            other => Err(self.session.refused(other)),
        }
    }

    /// Gives it back. [`LockError::Expired`] says that it was not held any more.
    pub async fn release(mut self) -> Result<(), LockError> {
        self.term.over.cancel();
        let open = self.session.requests().begin();
        let command = Command::Release { request: open.id(), key: self.key.clone(), lock_id: self.lock_id() };
        // Dropped before the answer or failed, the drop of `self` tries again in the background.
        match self.session.client().write(command, PATIENCE).await? {
            Outcome::Released | Outcome::Done => {
                self.released = true;
                Ok(())
            }
            Outcome::Expired | Outcome::Foreign => {
                self.released = true;
                Err(LockError::Expired)
            }
            other => Err(self.session.refused(other)),
        }
    }

    /// Why it is not held.
    pub(crate) fn why_lost(&self) -> LockError {
        if self.session.state() == SessionState::Lost { LockError::SessionLost } else { LockError::Expired }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.term.over.cancel();
        if !self.released {
            let (requests, key) = (self.session.requests().clone(), self.key.clone());
            self.session.leave(Chore::Release { requests, key, lock_id: self.lock_id() });
        }
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guard({:?} as {})", self.name(), self.lock_id())
    }
}
