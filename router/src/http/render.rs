//! Answers as JSON: the given fields under their given names, and what was added beside them.
//!
//! Times are RFC 3339 in UTC with milliseconds; lengths of time are seconds.

use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use utoipa::ToSchema;
use wardlock_machine::{
    Blocked, Grant, LockId, Metadata, Millis, Mode, Name, Object, Revision, SessionId, SessionView, Token, Waiting,
    WallMs,
};

use super::openapi::shapes;
use crate::client::{Candidate, Leader};

/// The end of the year 9999, the last that RFC 3339 can write.
const LAST_MS: u64 = 253_402_300_799_999;

/// A wall time in RFC 3339.
pub(super) struct Rfc3339(pub(super) WallMs);

impl Serialize for Rfc3339 {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(self.0.0.min(LAST_MS));
        to.collect_str(&humantime::format_rfc3339_millis(time))
    }
}

/// A length of time in seconds: whole where it is, else with a fraction.
pub(super) struct Seconds(pub(super) Millis);

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let ms = self.0.0;
        if ms.is_multiple_of(1000) { to.serialize_u64(ms / 1000) } else { to.serialize_f64(ms as f64 / 1000.0) }
    }
}

/// An id in its text form.
pub(super) struct Text<T>(pub(super) T);

impl<T: std::fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

/// Of an answer that has nothing to say but yes.
#[derive(Serialize, ToSchema)]
pub(super) struct Success {
    success: bool,
}

/// Yes.
pub(super) const SUCCESS: Success = Success { success: true };

/// The answer to an acquire or a renew.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Granted {
    success: bool,
    #[schema(value_type = shapes::LockId)]
    lock_id: Text<LockId>,
    #[schema(required)]
    expires_at: Option<Rfc3339>,
    #[schema(value_type = shapes::FencingToken)]
    fencing_token: Token,
    queue_position: u32,
    #[schema(value_type = shapes::Count)]
    waited_ms: Millis,
    session_ttl: Seconds,
    #[schema(value_type = shapes::Revision)]
    revision: Revision,
}

impl From<&Grant> for Granted {
    fn from(grant: &Grant) -> Granted {
        Granted {
            success: true,
            lock_id: Text(grant.lock_id),
            expires_at: grant.expires.map(Rfc3339),
            fencing_token: grant.lock_id.token,
            queue_position: 0,
            waited_ms: grant.waited,
            session_ttl: Seconds(grant.session_ttl),
            revision: grant.revision,
        }
    }
}

/// A mode's name, and of a semaphore its permits.
pub(super) fn mode_name(mode: Mode) -> (&'static str, Option<u32>) {
    match mode {
        Mode::Exclusive => ("exclusive", None),
        Mode::Shared => ("shared", None),
        Mode::Semaphore { permits } => ("semaphore", Some(permits)),
    }
}

/// A mode, for the members of a problem.
pub(super) fn mode(mode: Mode) -> (Value, Value) {
    let (name, permits) = mode_name(mode);
    (name.into(), permits.into())
}

/// One holder.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Holder)]
pub(super) struct HolderView<'a> {
    holder: &'a str,
    #[schema(value_type = shapes::SessionId)]
    session_id: Text<SessionId>,
    #[schema(value_type = shapes::LockId)]
    lock_id: Text<LockId>,
    #[schema(value_type = shapes::FencingToken)]
    fencing_token: Token,
    #[schema(value_type = shapes::Mode)]
    mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    permits: Option<u32>,
    acquired_at: Rfc3339,
    #[schema(required)]
    expires_at: Option<Rfc3339>,
    session_ttl: Seconds,
    #[serde(skip_serializing_if = "Option::is_none")]
    candidate_id: Option<&'a str>,
    #[schema(value_type = shapes::Metadata)]
    metadata: &'a Metadata,
}

impl<'a> From<&'a Grant> for HolderView<'a> {
    fn from(grant: &'a Grant) -> HolderView<'a> {
        let (mode, permits) = mode_name(grant.mode);
        HolderView {
            holder: &grant.holder,
            session_id: Text(grant.lock_id.session),
            lock_id: Text(grant.lock_id),
            fencing_token: grant.lock_id.token,
            mode,
            permits,
            acquired_at: Rfc3339(grant.acquired),
            expires_at: grant.expires.map(Rfc3339),
            session_ttl: Seconds(grant.session_ttl),
            candidate_id: grant.value.as_deref(),
            metadata: &grant.metadata,
        }
    }
}

/// One waiter.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Waiter)]
pub(super) struct WaiterView<'a> {
    holder: &'a str,
    #[schema(value_type = shapes::SessionId)]
    session_id: Text<SessionId>,
    #[schema(value_type = shapes::Mode)]
    mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    permits: Option<u32>,
    priority: i32,
    waiting_since: Rfc3339,
    #[serde(skip_serializing_if = "Option::is_none")]
    candidate_id: Option<&'a str>,
    #[schema(value_type = shapes::Metadata)]
    metadata: &'a Metadata,
}

impl<'a> From<&'a Waiting> for WaiterView<'a> {
    fn from(waiter: &'a Waiting) -> WaiterView<'a> {
        let (mode, permits) = mode_name(waiter.mode);
        WaiterView {
            holder: &waiter.holder,
            session_id: Text(waiter.session),
            mode,
            permits,
            priority: waiter.priority,
            waiting_since: Rfc3339(waiter.since),
            candidate_id: waiter.value.as_deref(),
            metadata: &waiter.metadata,
        }
    }
}

/// A lock: the given four fields are those of its first holder.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Lock)]
pub(super) struct LockView<'a> {
    #[schema(value_type = shapes::Name)]
    lock_name: &'a Name,
    #[schema(required, value_type = Option<shapes::LockId>)]
    lock_id: Option<Text<LockId>>,
    #[schema(required)]
    holder: Option<&'a str>,
    #[schema(required)]
    acquired_at: Option<Rfc3339>,
    #[schema(required)]
    expires_at: Option<Rfc3339>,
    #[schema(required, value_type = Option<shapes::SessionId>)]
    session_id: Option<Text<SessionId>>,
    #[schema(required, value_type = Option<shapes::FencingToken>)]
    fencing_token: Option<Token>,
    #[schema(required, value_type = Option<shapes::Mode>)]
    mode: Option<&'static str>,
    holders: Vec<HolderView<'a>>,
    holder_count: u32,
    queue: Vec<WaiterView<'a>>,
    queue_length: u32,
    #[schema(required)]
    lock_delay_until: Option<Rfc3339>,
    #[schema(value_type = shapes::Revision)]
    revision: Revision,
}

impl<'a> From<&'a Object> for LockView<'a> {
    fn from(object: &'a Object) -> LockView<'a> {
        let first = object.holders.first();
        LockView {
            lock_name: &object.key.name,
            lock_id: first.map(|g| Text(g.lock_id)),
            holder: first.map(|g| g.holder.as_str()),
            acquired_at: first.map(|g| Rfc3339(g.acquired)),
            expires_at: first.and_then(|g| g.expires).map(Rfc3339),
            session_id: first.map(|g| Text(g.lock_id.session)),
            fencing_token: first.map(|g| g.lock_id.token),
            mode: first.map(|g| mode_name(g.mode).0),
            holders: object.holders.iter().map(HolderView::from).collect(),
            holder_count: object.holder_count,
            queue: object.queue.iter().map(WaiterView::from).collect(),
            queue_length: object.queue_count,
            lock_delay_until: object.lock_delay_until.map(Rfc3339),
            revision: object.revision,
        }
    }
}

/// Who leads, for the audience of an election. All `None` where nobody does.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Leader)]
pub(super) struct LeaderView<'a> {
    #[schema(required)]
    pub(super) leader_id: Option<&'a str>,
    #[schema(required)]
    elected_at: Option<Rfc3339>,
    #[schema(required, value_type = Option<shapes::FencingToken>)]
    fencing_token: Option<Token>,
    #[schema(required, value_type = Option<shapes::SessionId>)]
    session_id: Option<Text<SessionId>>,
    #[schema(required, value_type = Option<shapes::LockId>)]
    lock_id: Option<Text<LockId>>,
    /// Where they are known at the same moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    candidates: Option<Vec<WaiterView<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    candidate_count: Option<u32>,
    #[schema(value_type = shapes::Revision)]
    revision: Revision,
}

impl<'a> LeaderView<'a> {
    /// Of an election as it is at `revision`.
    pub(super) fn new(object: Option<&'a Object>, revision: Revision) -> LeaderView<'a> {
        let leader = object.and_then(|o| o.holders.first());
        LeaderView {
            leader_id: leader.map(candidate),
            elected_at: leader.map(|g| Rfc3339(g.acquired)),
            fencing_token: leader.map(|g| g.lock_id.token),
            session_id: leader.map(|g| Text(g.lock_id.session)),
            lock_id: leader.map(|g| Text(g.lock_id)),
            candidates: Some(object.map_or_else(Vec::new, |o| o.queue.iter().map(WaiterView::from).collect())),
            candidate_count: Some(object.map_or(0, |o| o.queue_count)),
            revision,
        }
    }

    /// Of an event: it does not tell who waits.
    pub(super) fn told(leader: &'a Leader) -> LeaderView<'a> {
        LeaderView {
            leader_id: Some(&leader.candidate),
            elected_at: Some(Rfc3339(leader.elected)),
            fencing_token: Some(leader.lock_id.token),
            session_id: Some(Text(leader.lock_id.session)),
            lock_id: Some(Text(leader.lock_id)),
            candidates: None,
            candidate_count: None,
            revision: leader.revision,
        }
    }
}

/// Who comes to wait for its turn to lead.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CandidateView<'a> {
    candidate_id: &'a str,
    holder: &'a str,
    session_id: Text<SessionId>,
    priority: i32,
    waiting_since: Rfc3339,
}

impl<'a> From<&'a Candidate> for CandidateView<'a> {
    fn from(candidate: &'a Candidate) -> CandidateView<'a> {
        CandidateView {
            candidate_id: &candidate.candidate,
            holder: &candidate.holder,
            session_id: Text(candidate.session),
            priority: candidate.priority,
            waiting_since: Rfc3339(candidate.since),
        }
    }
}

/// The answer to a leader that has proclaimed something.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Proclaimed)]
pub(super) struct ProclaimedView<'a> {
    success: bool,
    leader_id: &'a str,
    elected_at: Rfc3339,
    #[schema(value_type = shapes::LockId)]
    lock_id: Text<LockId>,
    #[schema(value_type = shapes::FencingToken)]
    fencing_token: Token,
}

impl<'a> From<&'a Grant> for ProclaimedView<'a> {
    fn from(grant: &'a Grant) -> ProclaimedView<'a> {
        ProclaimedView {
            success: true,
            leader_id: candidate(grant),
            elected_at: Rfc3339(grant.acquired),
            lock_id: Text(grant.lock_id),
            fencing_token: grant.lock_id.token,
        }
    }
}

/// The id under which a grant's holder leads.
pub(super) fn candidate(grant: &Grant) -> &str {
    grant.value.as_deref().unwrap_or(&grant.holder)
}

/// The answer to a candidate.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Election)]
pub(super) struct ElectionView<'a> {
    is_leader: bool,
    #[schema(required)]
    leader_id: Option<&'a str>,
    #[schema(required)]
    elected_at: Option<Rfc3339>,
    /// To the leader alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<shapes::LockId>)]
    lock_id: Option<Text<LockId>>,
    #[schema(required, value_type = Option<shapes::FencingToken>)]
    fencing_token: Option<Token>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_ttl: Option<Seconds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiters: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lock_delay_until: Option<Rfc3339>,
}

impl<'a> ElectionView<'a> {
    /// To the session that leads: as this candidate, or as another of its own.
    pub(super) fn led(grant: &'a Grant, is_leader: bool) -> ElectionView<'a> {
        ElectionView {
            is_leader,
            leader_id: Some(candidate(grant)),
            elected_at: Some(Rfc3339(grant.acquired)),
            lock_id: is_leader.then_some(Text(grant.lock_id)),
            fencing_token: Some(grant.lock_id.token),
            session_ttl: is_leader.then_some(Seconds(grant.session_ttl)),
            waiters: None,
            lock_delay_until: None,
        }
    }

    /// To one that lost.
    pub(super) fn lost(blocked: &'a Blocked) -> ElectionView<'a> {
        let leader = blocked.holders.first();
        ElectionView {
            is_leader: false,
            leader_id: leader.map(candidate),
            elected_at: leader.map(|g| Rfc3339(g.acquired)),
            lock_id: None,
            fencing_token: leader.map(|g| g.lock_id.token),
            session_ttl: None,
            waiters: Some(blocked.waiters),
            lock_delay_until: blocked.lock_delay_until.map(Rfc3339),
        }
    }
}

/// Whether a session has ended.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase", as = SessionState)]
#[expect(dead_code, reason = "a shape")]
enum State {
    /// It lives.
    Open,
    /// It has ended, and its shards are being told.
    Closing,
}

/// A session.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Session)]
pub(super) struct SessionDoc<'a> {
    #[schema(value_type = shapes::SessionId)]
    session_id: Text<SessionId>,
    client_id: &'a str,
    created_at: Rfc3339,
    #[schema(required)]
    last_heartbeat: Option<Rfc3339>,
    ttl: Seconds,
    #[schema(value_type = State)]
    state: &'static str,
    #[schema(value_type = shapes::Metadata)]
    metadata: &'a Metadata,
    shards: Vec<u32>,
}

impl<'a> SessionDoc<'a> {
    /// Of a session, with what its home's leader remembers.
    pub(super) fn new(view: &'a SessionView, heard: Option<WallMs>) -> SessionDoc<'a> {
        SessionDoc {
            session_id: Text(view.session),
            client_id: &view.client_id,
            created_at: Rfc3339(view.created),
            last_heartbeat: heard.map(Rfc3339),
            ttl: Seconds(view.ttl),
            state: if view.closing { "closing" } else { "open" },
            metadata: &view.metadata,
            shards: view.shards.iter().map(|shard| shard.0).collect(),
        }
    }
}

/// What stands in the way, for the members of a problem.
pub(super) fn blocked(blocked: &Blocked) -> [(&'static str, Value); 5] {
    let holders: Vec<HolderView<'_>> = blocked.holders.iter().map(HolderView::from).collect();
    [
        ("holder", json!(blocked.holders.first().map(|g| &g.holder))),
        ("holders", json!(holders)),
        ("holderCount", json!(blocked.holder_count)),
        ("waiters", json!(blocked.waiters)),
        ("lockDelayUntil", json!(blocked.lock_delay_until.map(Rfc3339))),
    ]
}
