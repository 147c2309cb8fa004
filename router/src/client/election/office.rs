//! What an election's audience knows: made of looks at the election and of its events.
//!
//! # Promises
//! 1. Every leader and every proclamation that is told by an event is told once, in the order of events.
//! 2. What a look has shown is not told again by an event that came before it.
//! 3. That nobody leads is told only where a look says so after an office ended: who follows in the same apply is
//!    told instead.

use wardlock_machine::{Event, Grant, LockId, Object, Revision, SessionId, WallMs, What, planted};

/// Who leads an election, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// The grant by which it leads. Its token is the term of office: a number that only rises, and the fencing token.
    pub lock_id: LockId,
    /// The candidate's id, or what it has proclaimed since.
    pub candidate: String,
    /// Its session's client id.
    pub holder: String,
    /// Since when it leads, by wall time.
    pub elected: WallMs,
    /// The shard's revision at which it came to lead, or proclaimed what it is called.
    pub revision: Revision,
}

impl Leader {
    /// Of a grant, as it was at `revision`.
    pub fn of(grant: &Grant, revision: Revision) -> Leader {
        Leader {
            lock_id: grant.lock_id,
            candidate: grant.value.clone().unwrap_or_else(|| grant.holder.clone()),
            holder: grant.holder.clone(),
            elected: grant.acquired,
            revision,
        }
    }
}

/// Who waits for its turn to lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The candidate's id.
    pub candidate: String,
    /// Its session's client id.
    pub holder: String,
    /// Its session.
    pub session: SessionId,
    /// Higher ones lead first.
    pub priority: i32,
    /// Since when it waits, by wall time.
    pub since: WallMs,
}

/// Something that an audience is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Somebody leads from now on, or has proclaimed something.
    Leader(Leader),
    /// Somebody waits from now on.
    Candidate(Candidate),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Office {
    /// What happened up to here is known by a look.
    seen: Revision,
    /// The last that was heard of.
    heard: Revision,
    /// An office has ended, and nobody was told what came of that.
    vacant: bool,
    /// The last that was told is not that nobody leads.
    led: bool,
}

impl Office {
    /// Of an audience that may know something, by what it was told elsewhere.
    pub(crate) fn new() -> Office {
        Office { seen: Revision(0), heard: Revision(0), vacant: false, led: true }
    }

    /// Who leads, as a look shows it.
    pub(crate) fn look(&mut self, object: Option<&Object>) -> Option<Leader> {
        self.seen = self.seen.max(object.map_or(Revision(0), |object| object.revision));
        let leader = object.and_then(|object| Some(Leader::of(object.holders.first()?, object.revision)));
        (self.vacant, self.led) = (false, leader.is_some());
        leader
    }

    /// What an event has to tell.
    pub(crate) fn hear(&mut self, event: &Event) -> Option<News> {
        let Event { revision, at, what, .. } = event;
        if *revision <= self.seen {
            return None;
        }
        self.heard = *revision;
        let leader = |lock_id: &LockId, candidate: &String, holder: &String, elected| {
            let (candidate, holder) = (candidate.clone(), holder.clone());
            News::Leader(Leader { lock_id: *lock_id, candidate, holder, elected, revision: *revision })
        };
        let news = match what {
            What::Granted { lock_id, holder, value, .. } => {
                leader(lock_id, value.as_ref().unwrap_or(holder), holder, *at)
            }
            What::Proclaimed { .. } if planted!("audience-hears-no-proclamation") => return None,
            What::Proclaimed { lock_id, holder, value, acquired } => leader(lock_id, value, holder, *acquired),
            What::Enrolled { session, holder, value, priority } => {
                let (candidate, holder) = (value.clone(), holder.clone());
                let (session, priority, since) = (*session, *priority, *at);
                return Some(News::Candidate(Candidate { candidate, holder, session, priority, since }));
            }
            What::Ended { .. } => {
                self.vacant = true;
                return None;
            }
            What::Configured { .. } | What::Registered { .. } | What::Deregistered { .. } | What::Health { .. } => {
                return None;
            }
        };
        (self.vacant, self.led) = (false, true);
        Some(news)
    }

    /// The revision of the last event that was heard of, or what a look had in it.
    pub(crate) fn heard(&self) -> Revision {
        self.heard.max(self.seen)
    }

    /// An office has ended: unless the next event is at hand, a look must [settle](Office::settle) whether anybody
    /// follows.
    pub(crate) fn is_vacant(&self) -> bool {
        self.vacant
    }

    /// Whether it is to be told that nobody leads. Whoever leads by then is told by an event of its own.
    pub(crate) fn settle(&mut self, object: Option<&Object>) -> bool {
        let nobody = self.vacant && self.led && object.is_none_or(|object| object.holders.is_empty());
        self.led &= !nobody;
        self.vacant = false;
        nobody
    }
}
