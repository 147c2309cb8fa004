//! Deadlocks: which stand now.

use serde::Serialize;
use utoipa::ToSchema;
use wardlock_machine::{Circle, CircleStep, Name, SessionId};

use super::{
    Gateway,
    backend::Backend,
    call::Call,
    openapi::shapes,
    problem::Problem,
    render::{Rfc3339, Text},
    reply::Reply,
};
use crate::deadlock::{Deadlock, Seen};

pub(super) mod spec;

impl<B: Backend> Gateway<B> {
    pub(super) async fn deadlocks(&self, call: Call<'_>) -> Result<Reply, Problem> {
        call.params()?.finish()?;
        let (found, seen) = self.backend().deadlocks(call.patience).await?;
        Reply::ok(&Deadlocks::new(&found, &seen))
    }
}

impl Deadlocks {
    /// As they were found in what was seen.
    pub(super) fn new(found: &[Deadlock], seen: &Seen) -> Deadlocks {
        let shown = |deadlock: &Deadlock| {
            let victim = seen.0.get(&deadlock.victim)?;
            Some(DeadlockDoc {
                victim: Text(victim.session),
                lock_name: victim.key.name.clone(),
                since: Rfc3339(victim.since),
                circle: steps(&deadlock.circle),
                circle_length: deadlock.circle.length,
            })
        };
        Deadlocks { deadlocks: found.iter().filter_map(shown).collect() }
    }
}

/// The circle as it is told.
pub(super) fn steps(circle: &Circle) -> Vec<Step> {
    let step = |step: &CircleStep| Step {
        holder: step.holder.clone(),
        session_id: Text(step.session),
        waits_for: step.key.name.clone(),
    };
    circle.steps.iter().map(step).collect()
}

/// The deadlocks that stand now.
#[derive(Serialize, ToSchema)]
pub(super) struct Deadlocks {
    deadlocks: Vec<DeadlockDoc>,
}

/// A deadlock.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Deadlock)]
struct DeadlockDoc {
    /// Whose wait is ended: of the lowest priority, and of these the youngest.
    #[schema(value_type = shapes::SessionId)]
    victim: Text<SessionId>,
    /// What it waits for.
    #[schema(value_type = shapes::Name)]
    lock_name: Name,
    /// Since when it waits.
    since: Rfc3339,
    circle: Vec<Step>,
    /// How many wait in all; of very many the first are shown.
    circle_length: u32,
}

/// Who waits for what; the next holds it or stands before it in the queue, and the first after the last.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DeadlockStep)]
pub(super) struct Step {
    #[schema(value_type = shapes::Label)]
    holder: String,
    #[schema(value_type = shapes::SessionId)]
    session_id: Text<SessionId>,
    #[schema(value_type = shapes::Name)]
    waits_for: Name,
}
