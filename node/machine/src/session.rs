//! The sessions that are at home in a shard, and those whose end it remembers.
//!
//! A session is open, then closing while the shards that it used are told, then ended. An id that has
//! ended is never opened again while that is remembered (invariant 7); beyond that its random bits are
//! what keeps it from coming back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::{command::*, effects::Cx, fields, ids::*, limits, planted, query::SessionView};

/// One session at home.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Session {
    pub(crate) holder: Holder,
    pub(crate) created: WallMs,
    /// What was left of its TTL when it was last found silent.
    pub(crate) remaining: Option<Millis>,
    /// Where it is attached.
    pub(crate) shards: BTreeSet<ShardId>,
    /// Why it closes, if it does.
    pub(crate) closing: Option<EndReason>,
}

impl Session {
    pub(crate) fn view(&self, session: SessionId) -> SessionView {
        SessionView {
            session,
            client_id: self.holder.client_id.clone(),
            ttl: self.holder.ttl,
            created: self.created,
            metadata: self.holder.metadata.clone(),
            shards: self.shards.iter().copied().collect(),
            closing: self.closing.is_some(),
        }
    }
}

/// All sessions at home.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Home {
    sessions: BTreeMap<SessionId, Session>,
    /// Oldest first.
    ended: VecDeque<SessionId>,
    /// Index: those that close.
    #[serde(skip)]
    closing: BTreeSet<SessionId>,
    /// Index: the same as `ended`.
    #[serde(skip)]
    ended_set: BTreeSet<SessionId>,
}

impl Home {
    pub(crate) fn get(&self, session: SessionId) -> Option<&Session> {
        self.sessions.get(&session)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.sessions.iter().map(|(id, session)| (*id, session))
    }

    pub(crate) fn after(&self, after: Option<SessionId>) -> impl Iterator<Item = (SessionId, &Session)> {
        use std::ops::Bound::*;
        let from = after.map_or(Unbounded, Excluded);
        self.sessions.range((from, Unbounded)).map(|(id, session)| (*id, session))
    }

    pub(crate) fn closing(&self) -> impl Iterator<Item = (SessionId, EndReason, &Session)> {
        self.closing.iter().map(|id| {
            let session = self.sessions.get(id).expect("invariant 6: a closing session is a session");
            (*id, session.closing.expect("invariant 6: a closing session has a reason"), session)
        })
    }

    pub(crate) fn open_count(&self) -> usize {
        self.sessions.len() - self.closing.len()
    }

    pub(crate) fn is_ended(&self, session: SessionId) -> bool {
        self.ended_set.contains(&session)
    }

    /// Opens a session of this incarnation. A repeat is answered as the first time.
    pub(crate) fn open(
        &mut self,
        session: SessionId,
        holder: Holder,
        incarnation: Incarnation,
        cx: &mut Cx<'_>,
    ) -> Outcome {
        if !fields::holder(&holder) {
            return Outcome::Limit(Limit::Field);
        }
        let ended = self.is_ended(session) && !planted!("ended-session-reopens");
        if ended || session.incarnation() != incarnation {
            return Outcome::Ended;
        }
        if let Some(known) = self.sessions.get(&session) {
            return match known {
                Session { closing: Some(_), .. } => Outcome::Closing,
                known if known.holder.client_id == holder.client_id => Outcome::Opened { created: known.created },
                _ => Outcome::IdTaken,
            };
        }
        if self.sessions.len() >= limits::SESSIONS {
            return Outcome::Limit(Limit::Sessions);
        }
        let created = cx.wall;
        let new = Session { holder, created, remaining: None, shards: BTreeSet::new(), closing: None };
        self.sessions.insert(session, new);
        cx.note(|effects| effects.opened.push(session));
        Outcome::Opened { created }
    }

    /// Why a session that is not among the known ones is not.
    pub(crate) fn gone(&self, session: SessionId, incarnation: Incarnation) -> Outcome {
        if self.is_ended(session) || session.incarnation() < incarnation {
            Outcome::Ended
        } else {
            Outcome::UnknownSession
        }
    }

    /// Starts to close an open session. Where it is attached nowhere it ends at once.
    pub(crate) fn close(&mut self, session: SessionId, reason: EndReason, cx: &mut Cx<'_>) -> Option<Outcome> {
        let known = self.sessions.get_mut(&session)?;
        if known.closing.is_some() {
            return Some(Outcome::Closing);
        }
        known.closing = Some(reason);
        known.remaining = None;
        let over = known.shards.is_empty();
        self.closing.insert(session);
        cx.note(|effects| effects.closing.push((session, reason)));
        if over {
            self.end(session, cx);
            return Some(Outcome::Ended);
        }
        Some(Outcome::Closing)
    }

    /// Closes every session of an incarnation before this one.
    pub(crate) fn close_older(&mut self, incarnation: Incarnation, cx: &mut Cx<'_>) {
        let older: Vec<SessionId> =
            self.sessions.keys().copied().filter(|session| session.incarnation() < incarnation).collect();
        for session in older {
            self.close(session, EndReason::SessionExpired, cx);
        }
    }

    /// Records what silent sessions have left. Those that are not open are passed over.
    pub(crate) fn checkpoint(&mut self, sessions: Vec<(SessionId, Option<Millis>)>) {
        for (session, remaining) in sessions {
            if planted!("keep-alive-reopens") && self.closing.remove(&session) {
                self.sessions.get_mut(&session).expect("a closing session is a session").closing = None;
            }
            if let Some(known) = self.sessions.get_mut(&session).filter(|known| known.closing.is_none()) {
                known.remaining = remaining.map(|left| left.min(known.holder.ttl));
            }
        }
    }

    /// Lets a shard in, if the session is open.
    pub(crate) fn attach(&mut self, session: SessionId, shard: ShardId) -> Option<Outcome> {
        let known = self.sessions.get_mut(&session)?;
        if known.closing.is_some() {
            return Some(Outcome::Closing);
        }
        if !planted!("attachment-forgotten-at-home") {
            known.shards.insert(shard);
        }
        Some(Outcome::Attached(known.holder.clone()))
    }

    /// A shard has dropped what a closing session had there; the last one ends it.
    pub(crate) fn detached(&mut self, session: SessionId, shard: ShardId, cx: &mut Cx<'_>) {
        // An open session keeps its shards: only its end detaches it.
        if let Some(known) = self.sessions.get_mut(&session).filter(|known| known.closing.is_some()) {
            known.shards.remove(&shard);
            if known.shards.is_empty() {
                self.end(session, cx);
            }
        }
    }

    fn end(&mut self, session: SessionId, cx: &mut Cx<'_>) {
        let known = self.sessions.remove(&session).expect("only a known session ends");
        assert!(known.closing.is_some(), "session {session} ended without having closed");
        assert!(known.shards.is_empty(), "session {session} ended while shards still held its grants");
        self.closing.remove(&session);
        let new = self.ended_set.insert(session);
        assert!(new, "invariant 7: session {session} ended twice");
        self.ended.push_back(session);
        if self.ended.len() > limits::ENDED_SESSIONS
            && let Some(oldest) = self.ended.pop_front()
        {
            self.ended_set.remove(&oldest);
        }
        cx.note(|effects| effects.ended.push(session));
    }

    /// Builds the indexes of a decoded home; false where it could not have come about.
    pub(crate) fn restore(&mut self) -> bool {
        self.closing =
            self.sessions.iter().filter(|(_, session)| session.closing.is_some()).map(|(id, _)| *id).collect();
        self.ended_set = self.ended.iter().copied().collect();
        self.sessions.len() <= limits::SESSIONS
            && self.ended.len() <= limits::ENDED_SESSIONS
            && self.ended.len() == self.ended_set.len()
            && self.sessions.iter().all(|(id, session)| {
                let told = session.closing.is_none() || !session.shards.is_empty();
                told && fields::holder(&session.holder) && !self.ended_set.contains(id)
            })
    }
}
