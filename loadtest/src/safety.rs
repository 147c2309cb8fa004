//! Did the system keep its promises? Checked on every answer of every run.
//!
//! The checker is told what the clients sent and what they were answered, and keeps only what follows for
//! certain: who holds a lock as far as any client can know, which token must be exceeded, until when a session
//! cannot have ended. It reads no clock: times are passed in. What is merely possible it does not accuse: a
//! holder whose release has left may have lost the lock already, a lock whose lease has passed may be another's.
//!
//! # What it checks
//! 1. **Exclusion.** Nobody is granted a lock that another certainly holds, unless both hold it shared.
//! 2. **Tokens rise.** A grant's token exceeds every token of that name that was known when the grant was asked
//!    for, and every token of a holding that must have ended before it.
//! 3. **No early end.** No lock and no session is lost before its lease or TTL has passed since the *sending* of
//!    the last sign of life that was acknowledged, less 1 % for clocks of different speed.
//! 4. **Reads are not stale.** While a lock is certainly held, from before a read is sent until after it is
//!    answered, the read names that holder. Only where the target promises linearizable reads.
//!
//! A lock broken by an operator, or a session closed by one, looks like an early end.

use std::{collections::HashMap, time::Duration};

/// A moment, since the run began.
pub(crate) type At = Duration;

/// How many violations are kept in words.
const EXAMPLES: usize = 10;

/// The state of the check.
#[derive(Debug, Default)]
pub(crate) struct Safety {
    names: Vec<Name>,
    /// The holders of locks that are held shared.
    shared: HashMap<u64, Vec<Holder>>,
    sessions: Vec<Session>,
    violations: u64,
    examples: Vec<String>,
}

/// What is known of one name.
#[derive(Clone, Debug, Default)]
struct Name {
    /// The highest token of any grant, and of an exclusive one.
    last: u64,
    last_exclusive: u64,
    exclusive: Option<Holder>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Session {
    /// Which life of this number: it rises when the session is opened anew.
    life: u32,
    /// Until when it cannot have ended.
    until: At,
    ttl: Duration,
}

/// Somebody who was granted a lock and has not begun to give it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    session: u32,
    life: u32,
    token: u64,
    /// Until when its own lease cannot have ended; `None` where it lives as long as its session.
    until: Option<At>,
}

/// What was known of a name when an acquire was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    sent: At,
    life: u32,
    floor: u64,
}

/// A grant that was answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Granted {
    pub(crate) session: u32,
    pub(crate) name: u64,
    pub(crate) token: u64,
    pub(crate) shared: bool,
    pub(crate) lease: Option<Duration>,
}

/// What of a length has passed by any clock: they may differ in speed by so much.
pub(crate) fn certain(length: Duration) -> Duration {
    length.mul_f64(0.99)
}

impl Safety {
    /// For names from 0 to below `names`, and so many sessions.
    pub(crate) fn new(names: u64, sessions: u32) -> Safety {
        Safety {
            names: vec![Name::default(); names as usize],
            sessions: vec![Session::default(); sessions as usize],
            ..Safety::default()
        }
    }

    /// How many promises were broken.
    pub(crate) fn violations(&self) -> u64 {
        self.violations
    }

    /// The first few, in words.
    pub(crate) fn examples(&self) -> &[String] {
        &self.examples
    }

    /// A session was opened by a request that was sent at `sent`.
    pub(crate) fn opened(&mut self, session: u32, sent: At, ttl: Duration) {
        if let Some(known) = self.sessions.get_mut(session as usize) {
            *known = Session { life: known.life + 1, until: sent + certain(ttl), ttl };
        }
    }

    /// A sign of life that was sent at `sent` was acknowledged.
    pub(crate) fn alive(&mut self, session: u32, sent: At) {
        if let Some(known) = self.sessions.get_mut(session as usize) {
            known.until = known.until.max(sent + certain(known.ttl));
        }
    }

    /// A session turned out to be gone.
    pub(crate) fn session_lost(&mut self, session: u32, now: At) {
        let Some(known) = self.sessions.get_mut(session as usize) else { return };
        let early = known.until.checked_sub(now).filter(|left| !left.is_zero());
        (known.life, known.until) = (known.life + 1, At::ZERO);
        if let Some(left) = early {
            self.violated(|| format!("session {session} ended at least {left:?} before its TTL had passed"));
        }
    }

    /// The client asks for its session's end: from now on it may have ended.
    pub(crate) fn closing(&mut self, session: u32) {
        if let Some(known) = self.sessions.get_mut(session as usize) {
            known.until = At::ZERO;
        }
    }

    /// The number of a name is another's from now on.
    pub(crate) fn forget_name(&mut self, name: u64) {
        if let Some(known) = self.names.get_mut(name as usize) {
            *known = Name::default();
        }
        self.shared.remove(&name);
    }

    /// An acquire is sent.
    pub(crate) fn asking(&self, session: u32, name: u64, now: At) -> Asked {
        let life = self.sessions.get(session as usize).map_or(0, |known| known.life);
        Asked { sent: now, life, floor: self.names.get(name as usize).map_or(0, |known| known.last) }
    }

    /// It was granted.
    pub(crate) fn granted(&mut self, asked: Asked, granted: Granted, now: At) {
        let Granted { session, name, token, shared, lease } = granted;
        let until = lease.map(|lease| asked.sent + certain(lease));
        let holder = Holder { session, life: asked.life, token, until };
        let certain = self.is_certain(&holder, now);
        let others: Vec<Holder> = self.holders(name, shared).filter(|other| self.is_certain(other, now)).collect();
        let Some(known) = self.names.get_mut(name as usize) else { return };
        // A late answer may tell of a holding that is over.
        let before = match (certain, shared) {
            (true, true) => known.last_exclusive,
            (true, false) => known.last,
            (false, _) => 0,
        };
        let floor = asked.floor.max(before);
        known.last = known.last.max(token);
        if !shared {
            known.last_exclusive = known.last_exclusive.max(token);
            if certain {
                known.exclusive = Some(holder);
                self.shared.remove(&name);
            }
        } else if certain {
            known.exclusive = None;
            self.shared.entry(name).or_default().push(holder);
        }
        if token <= floor {
            self.violated(|| format!("name {name}: token {token} was granted after token {floor}"));
        }
        if let Some(other) = others.first().filter(|_| certain) {
            self.violated(|| {
                format!("name {name}: granted to session {session} with token {token} while session {} held it with token {}", other.session, other.token)
            });
        }
    }

    /// A renewal that was sent at `sent` was acknowledged.
    pub(crate) fn renewed(&mut self, name: u64, token: u64, sent: At, lease: Duration) {
        if let Some(holder) = self.find(name, token) {
            holder.until = holder.until.map(|until| until.max(sent + certain(lease)));
        }
    }

    /// A release is sent: from here on its holder may hold it or not.
    pub(crate) fn releasing(&mut self, name: u64, token: u64) -> Option<Holder> {
        let found = *self.find(name, token)?;
        self.forget(name, token);
        Some(found)
    }

    /// A release was answered that the lock had been lost before.
    pub(crate) fn was_lost(&mut self, name: u64, holder: Option<Holder>, now: At) {
        if let Some(holder) = holder.filter(|holder| self.is_certain(holder, now)) {
            let Holder { session, token, .. } = holder;
            self.violated(|| {
                format!("name {name}: session {session} lost it, token {token}, before its lease had passed")
            });
        }
    }

    /// A renewal was answered so.
    pub(crate) fn renewal_lost(&mut self, name: u64, token: u64, now: At) {
        let holder = self.releasing(name, token);
        self.was_lost(name, holder, now);
    }

    /// A read is sent: who holds the lock for certain, if anybody does.
    pub(crate) fn reading(&self, name: u64, now: At) -> Option<Holder> {
        self.names.get(name as usize)?.exclusive.filter(|holder| self.is_certain(holder, now))
    }

    /// It was answered.
    pub(crate) fn was_read(&mut self, name: u64, before: Option<Holder>, token: Option<u64>, now: At) {
        let Some(before) = before else { return };
        let after = self.reading(name, now).filter(|after| after.token == before.token);
        if after.is_some() && token != Some(before.token) {
            let said = token.map_or_else(|| "nobody".to_owned(), |token| format!("token {token}"));
            self.violated(|| format!("name {name}: a read named {said} while token {} held it", before.token));
        }
    }

    /// Whether a holder cannot have lost its lock yet.
    fn is_certain(&self, holder: &Holder, now: At) -> bool {
        let alive = |known: &Session| known.life == holder.life && now < known.until;
        self.sessions.get(holder.session as usize).is_some_and(alive) && holder.until.is_none_or(|until| now < until)
    }

    /// Those who exclude a new holder.
    fn holders(&self, name: u64, shared: bool) -> impl Iterator<Item = Holder> {
        let exclusive = self.names.get(name as usize).and_then(|known| known.exclusive);
        let sharing = if shared { None } else { self.shared.get(&name) };
        exclusive.into_iter().chain(sharing.into_iter().flatten().copied())
    }

    fn find(&mut self, name: u64, token: u64) -> Option<&mut Holder> {
        let exclusive = self.names.get_mut(name as usize)?.exclusive.as_mut();
        let sharing = self.shared.get_mut(&name).into_iter().flatten();
        exclusive.into_iter().chain(sharing).find(|holder| holder.token == token)
    }

    fn forget(&mut self, name: u64, token: u64) {
        if let Some(known) = self.names.get_mut(name as usize)
            && known.exclusive.is_some_and(|holder| holder.token == token)
        {
            known.exclusive = None;
        }
        if let Some(sharing) = self.shared.get_mut(&name) {
            sharing.retain(|holder| holder.token != token);
            if sharing.is_empty() {
                self.shared.remove(&name);
            }
        }
    }

    fn violated(&mut self, what: impl FnOnce() -> String) {
        self.violations += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(what());
        }
    }
}

#[cfg(test)]
mod tests;
