//! Elections: exclusive locks with a value and an audience.
//!
//! Nobody is deposed by force. A leader learns that somebody of a higher priority waits
//! ([`Leadership::outranked`]), finishes what it is at, and resigns; the order of the queue makes the highest priority
//! lead in the same apply.

mod office;
mod watch;

use std::{future::Future, ops::Deref, time::Duration};

use wardlock_machine::{Command, Grant, Key, Kind, Name, Outcome, What};

pub(crate) use self::office::{News, Office};
pub use self::{
    office::{Candidate, Leader},
    watch::LeaderWatch,
};
use super::{Client, Guard, Lock, LockError, Session, WatchError, guard};
use crate::{Error, random};

/// How long one look at an election, or the opening of a watch, may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause after one that failed.
const PAUSE: Duration = Duration::from_millis(500);

/// An election to stand in.
#[derive(Clone, Debug)]
#[must_use = "a candidate stands by `campaign`"]
pub struct Election<'a> {
    lock: Lock<'a>,
}

impl Session {
    /// The election called `name`. The candidate is called as the session's client, unless
    /// [`Election::candidate`] says otherwise.
    pub fn election<'a>(&'a self, name: &'a str) -> Election<'a> {
        let value = Some(self.client_id().to_owned());
        Election { lock: Lock { kind: Kind::Election, value, ..self.lock(name) } }
    }
}

impl Election<'_> {
    /// What observers see as the leader.
    pub fn candidate(mut self, id: impl Into<String>) -> Self {
        self.lock.value = Some(id.into());
        self
    }

    /// Before candidates of a lower priority.
    pub fn priority(mut self, priority: i32) -> Self {
        self.lock = self.lock.priority(priority);
        self
    }

    /// Leads for so long at most, unless renewed, even if the session lives.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lock = self.lock.lease(lease);
        self
    }

    /// Adds an entry that observers see.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.lock = self.lock.metadata(key, value);
        self
    }

    /// Stands, and waits for so long to be elected. A session that leads already is answered
    /// [`LockError::AlreadyHeld`].
    pub async fn campaign(self, wait: Duration) -> Result<Leadership, LockError> {
        let priority = self.lock.priority;
        self.lock.wait(wait).acquire().await.map(|guard| Leadership { guard, priority })
    }
}

/// To lead. All that a [`Guard`] has, and dropped like one.
#[derive(Debug)]
#[must_use = "a leadership that is dropped is resigned"]
pub struct Leadership {
    guard: Guard,
    priority: i32,
}

impl Leadership {
    /// Gives the election another value, which its audience is told: same term of office, same token. What was
    /// proclaimed by one call is never undone by a late repeat of an earlier one.
    pub async fn proclaim(&self, value: impl Into<String>) -> Result<(), LockError> {
        if !self.guard.is_held() {
            return Err(self.guard.why_lost());
        }
        let session = self.guard.session();
        let open = session.requests().begin();
        let command = Command::Proclaim {
            request: open.id(),
            key: self.guard.key().clone(),
            lock_id: self.guard.lock_id(),
            value: value.into(),
        };
        match session.client().write(command, guard::PATIENCE).await? {
            Outcome::Renewed(_) => Ok(()),
            Outcome::Expired | Outcome::Foreign => Err(self.guard.gone()),
            other => Err(session.refused(other)),
        }
    }

    /// Resolves with whoever waits for this office at a higher priority, as soon as somebody does; at once where
    /// somebody does already. It stays a wish: to grant it, finish, and [resign](Leadership::resign). Does not borrow
    /// the leadership, and does not tell of its end.
    pub fn outranked(&self) -> impl Future<Output = Candidate> + Send + 'static {
        let (client, key) = (self.guard.session().client().clone(), self.guard.key().clone());
        outranked(client, key, self.priority)
    }

    /// Steps down; the next candidate leads.
    pub async fn resign(self) -> Result<(), LockError> {
        self.guard.release().await
    }
}

impl Deref for Leadership {
    type Target = Guard;

    fn deref(&self) -> &Guard {
        &self.guard
    }
}

impl Client {
    /// Who leads, if anybody does: the candidate is the grant's `value`.
    pub async fn leader(&self, name: &str, patience: Duration) -> Result<Option<Grant>, Error> {
        let key = Name::new(name).map(Key::election).map_err(|error| Error::Malformed(error.to_string()))?;
        let object = self.object(key, patience).await?;
        Ok(object.and_then(|object| object.holders.into_iter().next()))
    }
}

/// Events say when to look; whether somebody waits, a look says: a candidate may have gone again.
async fn outranked(client: Client, key: Key, own: i32) -> Candidate {
    let pause = || tokio::time::sleep(random::within(PAUSE / 2..=PAUSE));
    loop {
        let opening = client.watch().name(Kind::Election, key.name.as_str()).patience(PATIENCE);
        let Ok(mut watch) = opening.open().await else {
            pause().await;
            continue;
        };
        loop {
            match client.object(key.clone(), PATIENCE).await {
                Ok(object) => {
                    // The first in line has the highest priority.
                    let first = object.and_then(|object| object.queue.into_iter().next());
                    if let Some(first) = first.filter(|first| first.priority > own) {
                        let candidate = first.value.unwrap_or_else(|| first.holder.clone());
                        let (holder, session, priority, since) =
                            (first.holder, first.session, first.priority, first.since);
                        return Candidate { candidate, holder, session, priority, since };
                    }
                }
                Err(_) => {
                    pause().await;
                    continue;
                }
            }
            let gap = loop {
                match watch.next().await {
                    Ok(watched) => {
                        let higher = matches!(watched.event.what, What::Enrolled { priority, .. } if priority > own);
                        if higher {
                            break None;
                        }
                    }
                    Err(error) => break Some(error),
                }
            };
            // Behind a gap the watch goes on.
            if !matches!(gap, None | Some(WatchError::Compacted { .. })) {
                break;
            }
        }
    }
}
