//! Elections: exclusive locks with a value and an audience.

use std::{ops::Deref, time::Duration};

use wardlock_machine::{Answer, Grant, Key, Kind, LockId, Name, Object, Query, Revision};

use super::{Client, Guard, Lock, LockError, Session};
use crate::Error;

/// How long an observer's question is held before it is asked anew.
const OBSERVE: Duration = Duration::from_secs(30);

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
        self.lock.wait(wait).acquire().await.map(|guard| Leadership { guard })
    }
}

/// To lead. All that a [`Guard`] has, and dropped like one.
#[derive(Debug)]
#[must_use = "a leadership that is dropped is resigned"]
pub struct Leadership {
    guard: Guard,
}

impl Leadership {
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
        let key = election_key(name)?;
        match self.read(Query::Object { key }, patience).await? {
            Answer::Object(object) => Ok(leader_of(object)),
            other => Err(Error::Malformed(format!("a question for an object was answered with {other:?}"))),
        }
    }

    /// Watches who leads, from now on.
    pub fn observe_leader(&self, name: &str) -> Result<LeaderWatch, Error> {
        Ok(LeaderWatch { client: self.clone(), key: election_key(name)?, since: None, seen: None })
    }
}

fn election_key(name: &str) -> Result<Key, Error> {
    Name::new(name).map(Key::election).map_err(|error| Error::Malformed(error.to_string()))
}

fn leader_of(object: Option<Object>) -> Option<Grant> {
    object.and_then(|object| object.holders.into_iter().next())
}

/// Tells who leads, one change after another. A leader that came and went between two questions is not told.
#[derive(Debug)]
pub struct LeaderWatch {
    client: Client,
    key: Key,
    /// Up to where it has been told; `None` before the first answer.
    since: Option<Revision>,
    seen: Option<LockId>,
}

impl LeaderWatch {
    /// The leader now, at the first call; then each new one, or `None` when there is none. After an error it
    /// may be called again and misses nothing. Dropping the future is harmless.
    pub async fn next(&mut self) -> Result<Option<Grant>, Error> {
        loop {
            let wait = self.since.map_or(Duration::ZERO, |_| OBSERVE);
            let (object, revision) =
                self.client.observe(self.key.clone(), self.since.unwrap_or_default(), wait).await?;
            let first = self.since.replace(revision).is_none();
            let leader = leader_of(object);
            let seen = leader.as_ref().map(|grant| grant.lock_id);
            if first || seen != self.seen {
                self.seen = seen;
                return Ok(leader);
            }
        }
    }
}
