//! Sessions: a client's identity and liveness, kept alive in the background.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wardlock_machine::{Command, Holder, Limit, Metadata, Millis, Outcome, SERIAL, SessionId};

use super::{
    Client,
    clock::Boot,
    janitor::Chore,
    requests::Requests,
    vital::{SessionState, Vital},
};
use crate::Error;

/// A session's TTL where its opener names none: short enough to free a dead client's locks soon, long
/// enough to outlive a change of leaders.
const TTL: Duration = Duration::from_secs(10);
/// How long opening and closing may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a session could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A bound is reached, or a field is outside its bounds.
    #[error("refused: a bound is reached: {0:?}")]
    Limit(Limit),
    /// The opening took longer than the TTL: the session may have ended again.
    #[error("the session's TTL passed before it was open")]
    TooSlow,
    /// The call failed.
    #[error(transparent)]
    Call(#[from] Error),
}

/// A session to be opened.
#[derive(Debug)]
#[must_use = "a session is opened by `open`"]
pub struct SessionBuilder {
    client: Client,
    client_id: String,
    ttl: Duration,
    metadata: Metadata,
}

impl Client {
    /// A session to be opened for the client that calls itself `client_id`; shown as `holder`.
    pub fn session(&self, client_id: impl Into<String>) -> SessionBuilder {
        let client_id = client_id.into();
        SessionBuilder { client: self.clone(), client_id, ttl: TTL, metadata: Metadata::new() }
    }
}

impl SessionBuilder {
    /// How long the session outlives its last sign of life: 1 s to 24 h, in whole milliseconds. A short one frees a dead
    /// client's locks soon; a long one survives longer outages. 10 s without this.
    pub fn ttl(mut self, ttl: Duration) -> SessionBuilder {
        self.ttl = ttl;
        self
    }

    /// Adds an entry that is shown to whoever waits for what this session holds.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> SessionBuilder {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// It does one thing at a time: while it waits for a lock, it gives nothing back. Where such sessions wait for each
    /// other in a circle, that is a deadlock: the youngest wait of it ends with
    /// [`LockError::Deadlock`](crate::LockError::Deadlock). Not for sessions of which several tasks take locks, each for
    /// itself: what one waits for, another may give back.
    pub fn serial(mut self) -> SessionBuilder {
        self.metadata.insert(SERIAL.to_owned(), "true".to_owned());
        self
    }

    /// Opens the session. It is kept alive from here on.
    pub async fn open(self) -> Result<Session, OpenError> {
        let client = self.client;
        client.ready(PATIENCE).await?;
        let ttl = Duration::from_millis(u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX));
        let holder = Holder { client_id: self.client_id, ttl: Millis(ttl.as_millis() as u64), metadata: self.metadata };
        let id = client.new_session_id();
        let sent = client.core().clock.now();
        match client.write(Command::OpenSession { session: id, holder: holder.clone() }, PATIENCE).await? {
            Outcome::Opened { .. } => {}
            Outcome::Limit(limit) => return Err(OpenError::Limit(limit)),
            Outcome::Closing | Outcome::Ended => return Err(OpenError::TooSlow),
            other => return Err(Error::Malformed(format!("opening a session came to {other:?}")).into()),
        }
        let vital = Arc::new(Vital::new(id, ttl, sent, client.core().clock.clone()));
        if vital.look() == SessionState::Lost {
            return Err(OpenError::TooSlow);
        }
        client.inner.keeper.keep(vital.clone());
        let (requests, closed) = (Arc::default(), AtomicBool::new(false));
        let held = Held { client, vital, client_id: holder.client_id, requests, closed };
        Ok(Session { inner: Arc::new(held) })
    }
}

/// An open session. A handle: clones are the same session, and so are the guards that came of it. When
/// the last of them is dropped, the session is closed in the background.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Held>,
}

struct Held {
    client: Client,
    vital: Arc<Vital>,
    client_id: String,
    requests: Arc<Requests>,
    closed: AtomicBool,
}

impl Session {
    /// Its id.
    pub fn id(&self) -> SessionId {
        self.inner.vital.id
    }

    /// The client's name for itself.
    pub fn client_id(&self) -> &str {
        &self.inner.client_id
    }

    /// Its TTL.
    pub fn ttl(&self) -> Duration {
        self.inner.vital.ttl
    }

    /// How it stands now.
    pub fn state(&self) -> SessionState {
        self.inner.vital.look()
    }

    /// Tells each change of its state.
    pub fn changed(&self) -> watch::Receiver<SessionState> {
        self.inner.vital.watch()
    }

    /// Cancelled when the session is lost or closed. A child of the session's own: cancelling it disturbs
    /// nobody else.
    pub fn cancelled(&self) -> CancellationToken {
        self.inner.vital.lost().child_token()
    }

    /// Until when it surely lives, by this machine's `CLOCK_BOOTTIME`; in the past once it is lost.
    pub fn valid_until(&self) -> Boot {
        self.inner.vital.deadline()
    }

    /// How long it surely lives from now.
    pub fn remaining(&self) -> Duration {
        self.valid_until().since(self.client().core().clock.now())
    }

    /// The client that opened it.
    pub fn client(&self) -> &Client {
        &self.inner.client
    }

    /// Closes it: everything that it holds is released. All its handles are lost at once.
    pub async fn close(self) -> Result<(), Error> {
        self.inner.vital.lose();
        let closing = Command::CloseSession { session: self.id() };
        let outcome = self.client().write(closing, PATIENCE).await?;
        self.inner.closed.store(true, Ordering::Relaxed);
        match outcome {
            Outcome::Closing | Outcome::Done | Outcome::Ended | Outcome::UnknownSession => Ok(()),
            other => Err(Error::Malformed(format!("closing a session came to {other:?}"))),
        }
    }

    pub(crate) fn vital(&self) -> &Arc<Vital> {
        &self.inner.vital
    }

    pub(crate) fn requests(&self) -> &Arc<Requests> {
        &self.inner.requests
    }

    pub(crate) fn leave(&self, chore: Chore) {
        self.inner.client.inner.janitor.leave(chore);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.vital.lose();
        if !self.closed.load(Ordering::Relaxed) {
            self.client.inner.janitor.leave(Chore::Close { session: self.vital.id });
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({} of {:?})", self.id(), self.client_id())
    }
}
