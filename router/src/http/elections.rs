//! Elections: campaign, ask, resign. Observing is in [`super::observe`].
//!
//! Losing is an answer, not an error. A campaign is answered at once; with `wait` the candidate is enrolled,
//! and the answer comes when it leads or its wait ends. Repeating a won campaign answers the same again.

use std::time::Duration;

use wardlock_machine::{Acquire, Command, Key, LockId, Millis, Mode, Name, Outcome, SessionId, limits};

use super::{
    Gateway,
    backend::Backend,
    call::Call,
    input, locks, outcome,
    problem::Problem,
    render::{self, ElectionView, LeaderView, SUCCESS},
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
        let acquire = Acquire {
            session,
            request,
            key: Key::election(name),
            mode: Mode::Exclusive,
            lease: None,
            wait,
            priority,
            lock_delay: Millis(0),
            metadata,
            value: Some(candidate.clone()),
        };
        match self.write_acquire(acquire, &call, patience).await? {
            Outcome::Granted(grant) | Outcome::AlreadyHeld(grant) => Reply::ok(&ElectionView::led(&grant, &candidate)),
            Outcome::Held(by) | Outcome::WaitTimeout(by) => Reply::ok(&ElectionView::lost(&by)),
            other => Err(outcome::refusal(other)),
        }
    }

    pub(super) async fn leader(&self, name: Name, call: Call<'_>) -> Result<Reply, Problem> {
        call.params()?.finish()?;
        let object = self.object(Key::election(name), call.patience).await?;
        match object.filter(|object| !object.holders.is_empty()) {
            Some(object) => Reply::ok(&LeaderView::new(Some(&object), object.revision)),
            None => Err(no_leader()),
        }
    }

    /// By lock id the leadership is given back as it stands; by session id it is looked up first.
    pub(super) async fn resign(&self, name: Name, mut call: Call<'_>) -> Result<Reply, Problem> {
        let by_lock = call.fields.lock_id_if_any()?;
        let by_session = call.fields.session_if_any()?;
        std::mem::take(&mut call.fields).finish()?;
        let lock_id = match (by_lock, by_session) {
            (Some(lock_id), None) => lock_id,
            (None, Some(session)) => self.leadership(&name, session, call.patience).await?,
            (Some(_), Some(_)) => return Err(Problem::field("sessionId", "send lockId or sessionId, not both")),
            (None, None) => return Err(input::missing("sessionId")),
        };
        let request = self.request(&call, "resign", lock_id.session, &name);
        let command = Command::Release { request, key: Key::election(name), lock_id };
        match self.backend().write(command, call.patience).await? {
            Outcome::Released => Reply::ok(&SUCCESS),
            other => Err(outcome::refusal(other)),
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
