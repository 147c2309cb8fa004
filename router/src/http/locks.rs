//! Locks: acquire, release, renew, look, list, break.

use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;
use wardlock_machine::{
    Acquire, Answer, Command, Key, Kind, Millis, Name, Object, Outcome, Query, RequestId, SessionId, limits,
};

use super::{
    Gateway,
    backend::Backend,
    call::Call,
    openapi::shapes,
    outcome,
    problem::Problem,
    render::{Granted, HolderView, LockView, SUCCESS, Text},
    reply::Reply,
};
use crate::{Error, client::WatchToken};

pub(super) mod spec;

const NOTHING: Millis = Millis(0);

impl<B: Backend> Gateway<B> {
    pub(super) async fn acquire(&self, name: Name, mut call: Call<'_>) -> Result<Reply, Problem> {
        let fields = &mut call.fields;
        let session = fields.session()?;
        let mode = fields.mode()?;
        let lease = fields.seconds("timeout", limits::LEASE_MIN, limits::LEASE_MAX)?;
        let wait = fields.seconds("wait", NOTHING, limits::LEASE_MAX)?.unwrap_or(NOTHING);
        let priority = priority(&mut call)?;
        let lock_delay = call.fields.seconds("lockDelay", NOTHING, limits::LEASE_MAX)?.unwrap_or(NOTHING);
        let metadata = call.fields.metadata()?;
        let request = self.request(&call, "acquire", session, &name);
        let patience = call.patience + Duration::from_millis(wait.0);
        std::mem::take(&mut call.fields).finish()?;
        let key = Key::lock(name);
        let acquire = Acquire { session, request, key, mode, lease, wait, priority, lock_delay, metadata, value: None };
        match self.write_acquire(acquire, &call, patience).await? {
            Outcome::Granted(grant) => Reply::ok(&Granted::from(&grant)),
            other => Err(outcome::refusal(other)),
        }
    }

    pub(super) async fn release(&self, name: Name, mut call: Call<'_>) -> Result<Reply, Problem> {
        let lock_id = call.fields.lock_id()?;
        let request = self.request(&call, "release", lock_id.session, &name);
        call.fields.finish()?;
        let command = Command::Release { request, key: Key::lock(name), lock_id };
        match self.backend().write(command, call.patience).await? {
            Outcome::Released => Reply::ok(&SUCCESS),
            other => Err(outcome::refusal(other)),
        }
    }

    pub(super) async fn renew(&self, name: Name, mut call: Call<'_>) -> Result<Reply, Problem> {
        let lock_id = call.fields.lock_id()?;
        let lease = call.fields.seconds("timeout", limits::LEASE_MIN, limits::LEASE_MAX)?;
        let request = self.request(&call, "renew", lock_id.session, &name);
        call.fields.finish()?;
        let command = Command::Renew { request, key: Key::lock(name), lock_id, lease };
        match self.backend().write(command, call.patience).await? {
            Outcome::Renewed(grant) => Reply::ok(&Granted::from(&grant)),
            other => Err(outcome::refusal(other)),
        }
    }

    pub(super) async fn break_lock(&self, name: Name, mut call: Call<'_>) -> Result<Reply, Problem> {
        let reason = call.fields.label("reason")?;
        call.fields.finish()?;
        tracing::warn!(lock = %name, %reason, "an operator breaks a lock");
        match self.backend().write(Command::Break { key: Key::lock(name), reason }, call.patience).await? {
            Outcome::Broken(grants) if grants.is_empty() => Err(free()),
            Outcome::Broken(grants) => {
                Reply::ok(&Broken { success: true, broken: grants.iter().map(HolderView::from).collect() })
            }
            other => Err(outcome::refusal(other)),
        }
    }

    pub(super) async fn lock(&self, name: Name, call: Call<'_>) -> Result<Reply, Problem> {
        let mut params = call.params()?;
        let consistency = params.consistency()?;
        params.finish()?;
        let (object, age) = self.object_as(Key::lock(name), consistency, call.patience).await?;
        age.on(match object {
            Some(object) => Reply::ok(&LockView::from(&object)),
            None => Err(free()),
        })
    }

    pub(super) async fn locks(&self, call: Call<'_>) -> Result<Reply, Problem> {
        let mut params = call.params()?;
        let held = match params.take("held")?.as_deref() {
            None => None,
            Some("true") => Some(true),
            Some("false") => Some(false),
            Some(_) => return Err(Problem::field("held", "held must be true or false")),
        };
        let session = params.take("session")?.map(|text| text.parse::<SessionId>()).transpose();
        let session = session.map_err(|e| Problem::field("session", format!("session: {e}")))?;
        let prefix = params.take("prefix")?.unwrap_or_default();
        let after = params.take("after")?;
        let limit = params.limit()?;
        let consistency = params.consistency()?;
        params.finish()?;
        let query = Query::List { kind: Kind::Lock, prefix, held, session, after, limit };
        let (Answer::List(objects), age, token) = self.ask_list(query, consistency, call.patience).await? else {
            return Err(Problem::internal("the cluster answered another question"));
        };
        let next = (objects.len() >= limit as usize).then(|| objects.last().map(|o| &o.key.name)).flatten();
        age.on(Reply::ok(&Locks { locks: objects.iter().map(LockView::from).collect(), next, token }))
    }

    /// Writes an acquire that is not left behind: where its caller hangs up, or must be told that the outcome
    /// is unknown, it is withdrawn. Not so where the caller gave it a key, which says that a retry may come
    /// for it, here or at another gateway; the wait then goes on, and the session's end ends it.
    pub(super) async fn write_acquire(
        &self,
        acquire: Acquire,
        call: &Call<'_>,
        patience: Duration,
    ) -> Result<Outcome, Problem> {
        let mut left_behind =
            (!call.has_key()).then(|| LeftBehind { backend: self.backend(), of: Some(acquire.clone()) });
        let answer = self.backend().write(Command::Acquire(acquire), patience).await;
        let settled = !matches!(answer, Ok(Outcome::Queued { .. }) | Err(Error::OutcomeUnknown));
        if let Some(left_behind) = left_behind.as_mut().filter(|_| settled) {
            left_behind.of = None;
        }
        Ok(answer?)
    }

    /// One lock or election, if there is anything to it.
    pub(super) async fn object(&self, key: Key, patience: Duration) -> Result<Option<Object>, Problem> {
        match self.backend().read(Query::Object { key }, patience).await? {
            Answer::Object(object) => Ok(object),
            _ => Err(Problem::internal("the cluster answered another question")),
        }
    }

    /// The request's id: of its idempotency key, else random.
    pub(super) fn request(&self, call: &Call<'_>, op: &str, session: SessionId, name: &Name) -> RequestId {
        match call.keyed(op, &[&session.0.to_be_bytes(), name.as_str().as_bytes()]) {
            Some(key) => RequestId::Keyed { key },
            None => RequestId::Keyed { key: self.backend().random_key() },
        }
    }
}

/// An acquire that is withdrawn unless it is settled.
struct LeftBehind<'a, B: Backend> {
    backend: &'a B,
    of: Option<Acquire>,
}

impl<B: Backend> Drop for LeftBehind<'_, B> {
    fn drop(&mut self) {
        if let Some(acquire) = self.of.take() {
            self.backend.withdraw(acquire);
        }
    }
}

/// Where in the queue a request may push in.
pub(super) fn priority(call: &mut Call<'_>) -> Result<i32, Problem> {
    let priority = call.fields.integer("priority", i32::MIN.into(), i32::MAX.into())?;
    Ok(priority.and_then(|n| i32::try_from(n).ok()).unwrap_or(0))
}

fn free() -> Problem {
    Problem::missing("lock-free", "The lock is free", "nobody holds it, and nobody waits for it")
}

#[derive(Serialize, ToSchema)]
struct Broken<'a> {
    success: bool,
    broken: Vec<HolderView<'a>>,
}

#[derive(Serialize, ToSchema)]
struct Locks<'a> {
    locks: Vec<LockView<'a>>,
    /// Where the next page starts: ask again with `after` this. Null on the last page.
    #[schema(required, value_type = Option<shapes::Name>)]
    next: Option<&'a Name>,
    /// From where to watch so as to miss nothing that happens behind this page. Absent where the page is stale.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = shapes::WatchToken)]
    token: Option<Text<WatchToken>>,
}
