//! Elections: campaign, ask, proclaim, resign. Observing is in [`super::observe`].
//!
//! Losing is an answer, not an error. A campaign is answered at once; with `wait` the candidate is enrolled,
//! and the answer comes when it leads or its wait ends. Repeating a won campaign answers the same again. A leader that
//! has proclaimed something is called by that: from then on each candidate of its session is told that it leads.

use std::time::Duration;

use wardlock_machine::{Acquire, Command, Grant, Key, LockId, Millis, Mode, Name, Object, Outcome, SessionId, limits};

use super::{
    Gateway,
    backend::Backend,
    call::Call,
    input, locks, outcome,
    problem::Problem,
    render::{self, ElectionView, LeaderView, ProclaimedView, SUCCESS},
    reply::Reply,
};

pub(super) mod spec;

impl<B: Backend> Gateway<B> {
    pub(super) async fn elect(&self, name: Name, mut call: Call<'_>) -> Result<Reply, Problem> {
        let candidate = call.fields.label("candidateId")?;
        let session = call.fields.session()?;
        let wait = call.fields.seconds("wait", Millis(0), limits::LEASE_MAX)?.unwrap_or(Millis(0));
        let priority = locks::priority(&mut call)?;
        let metadata = call.fields.metadata()?;
        let request = self.request(&call, "elect", session, &name);
        std::mem::take(&mut call.fields).finish()?;
        let patience = call.patience + Duration::from_millis(wait.0);
        let key = Key::election(name);
        let acquire = Acquire {
            session,
            request,
            key: key.clone(),
            mode: Mode::Exclusive,
            lease: None,
            wait,
            priority,
            lock_delay: Millis(0),
            metadata,
            value: Some(candidate.clone()),
        };
        match self.write_acquire(acquire, &call, patience).await? {
            Outcome::Granted(grant) => Reply::ok(&ElectionView::led(&grant, true)),
            Outcome::AlreadyHeld(grant) => {
                let same =
                    render::candidate(&grant) == candidate || self.has_proclaimed(&grant, &key, patience).await?;
                Reply::ok(&ElectionView::led(&grant, same))
            }
            Outcome::Held(by) | Outcome::WaitTimeout(by) => Reply::ok(&ElectionView::lost(&by)),
            other => Err(outcome::refusal(other)),
        }
    }

    pub(super) async fn leader(&self, name: Name, call: Call<'_>) -> Result<Reply, Problem> {
        let mut params = call.params()?;
        let consistency = params.consistency()?;
        params.finish()?;
        let (object, age) = self.object_as(Key::election(name), consistency, call.patience).await?;
        age.on(match object.filter(|object| !object.holders.is_empty()) {
            Some(object) => Reply::ok(&LeaderView::new(Some(&object), object.revision)),
            None => Err(no_leader()),
        })
    }

    /// Whether what a leader is called is what it has proclaimed.
    async fn has_proclaimed(&self, grant: &Grant, key: &Key, patience: Duration) -> Result<bool, Problem> {
        let object = self.object(key.clone(), patience).await?;
        let leads = |object: &Object| object.holders.first().is_some_and(|leader| leader.lock_id == grant.lock_id);
        // Nothing else raises an election's revision while its leader leads.
        Ok(object.is_some_and(|object| leads(&object) && object.revision > grant.revision))
    }

    /// Gives the election another value, for as long as its leader leads.
    pub(super) async fn proclaim(&self, name: Name, mut call: Call<'_>) -> Result<Reply, Problem> {
        let value = call.fields.label("value")?;
        let lock_id = self.office(&name, &mut call).await?;
        let key = Key::election(name);
        let request = self.request(&call, "proclaim", lock_id.session, &key.name);
        let command = Command::Proclaim { request, key, lock_id, value };
        match self.backend().write(command, call.patience).await? {
            Outcome::Renewed(grant) => Reply::ok(&ProclaimedView::from(&grant)),
            other => Err(outcome::refusal(other)),
        }
    }

    pub(super) async fn resign(&self, name: Name, mut call: Call<'_>) -> Result<Reply, Problem> {
        let lock_id = self.office(&name, &mut call).await?;
        let request = self.request(&call, "resign", lock_id.session, &name);
        let command = Command::Release { request, key: Key::election(name), lock_id };
        match self.backend().write(command, call.patience).await? {
            Outcome::Released => Reply::ok(&SUCCESS),
            other => Err(outcome::refusal(other)),
        }
    }

    /// Which leadership a call means, as its last fields: by lock id as it stands; by session id it is looked up.
    async fn office(&self, name: &Name, call: &mut Call<'_>) -> Result<LockId, Problem> {
        let by_lock = call.fields.lock_id_if_any()?;
        let by_session = call.fields.session_if_any()?;
        std::mem::take(&mut call.fields).finish()?;
        match (by_lock, by_session) {
            (Some(lock_id), None) => Ok(lock_id),
            (None, Some(session)) => self.leadership(name, session, call.patience).await,
            (Some(_), Some(_)) => Err(Problem::field("sessionId", "send lockId or sessionId, not both")),
            (None, None) => Err(input::missing("sessionId")),
        }
    }

    async fn leadership(&self, name: &Name, session: SessionId, patience: Duration) -> Result<LockId, Problem> {
        let object = self.object(Key::election(name.clone()), patience).await?.ok_or_else(no_leader)?;
        let leader = object.holders.first().ok_or_else(no_leader)?;
        if leader.lock_id.session != session {
            let detail = "another session leads";
            return Err(Problem::conflict("not-leader", "The session does not lead", detail)
                .with("success", false)
                .with("leaderId", render::candidate(leader)));
        }
        Ok(leader.lock_id)
    }
}

fn no_leader() -> Problem {
    Problem::missing("no-leader", "The election has no leader", "nobody leads now")
}
