//! What the machine answered, as a refusal, where it is one.

use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use wardlock_machine::{Limit, Outcome};

use super::{deadlocks, problem::Problem, render};

/// The refusal that an outcome means to a caller who hoped for another. Every outcome is one: those that
/// can only come from a mistake of the cluster's are internal errors.
pub(super) fn refusal(outcome: Outcome) -> Problem {
    match outcome {
        Outcome::Held(by) => refused("held", "Somebody else holds it", "it is held, and the request did not wait")
            .with_all(render::blocked(&by)),
        Outcome::WaitTimeout(by) => {
            refused("wait-timeout", "The wait ended without a grant", "it was not free in time")
                .with_all(render::blocked(&by))
        }
        Outcome::AlreadyHeld(grant) => {
            let detail = "the session holds it by an earlier request; there is no re-entrance";
            refused("already-held", "The session holds it already", detail)
                .with("lockId", grant.lock_id.to_string())
                .with("holder", grant.holder)
                .with("fencingToken", grant.lock_id.token.0)
        }
        Outcome::Mismatch { mode } => {
            let (mode, permits) = render::mode(mode);
            let detail = "its holders and waiters use another mode or another number of permits";
            refused("mode-mismatch", "It is in use in another way", detail).with("mode", mode).with("permits", permits)
        }
        Outcome::Cancelled => refused("cancelled", "The wait was given up", "the waiter was taken out of the queue"),
        Outcome::Deadlock(circle) => {
            let detail = "sessions waited for each other in a circle; this wait was ended so that the others can go on";
            refused("deadlock", "The wait was part of a deadlock", detail)
                .with("circle", json!(deadlocks::steps(&circle)))
                .with("circleLength", circle.length)
        }
        Outcome::TooOld => refused("request-too-old", "The request is too old", "its answer is no longer kept"),
        Outcome::IdTaken => {
            let detail = "the idempotency key belongs to another client's session";
            refused("id-taken", "The session id is in use", detail)
        }
        Outcome::Foreign => {
            refused("foreign-lock-id", "The lock id belongs elsewhere", "it names no grant of this lock's")
        }
        Outcome::Expired => {
            Problem::gone("expired", "The grant has ended", "it ran out, was broken, or its session ended")
                .with("success", false)
        }
        Outcome::Closing | Outcome::Ended => Problem::session_ended().with("success", false),
        Outcome::UnknownSession => Problem::unknown_session().with("success", false),
        Outcome::Limit(limit) => limited(limit).with("success", false),
        Outcome::NotAttached | Outcome::StaleEpoch { .. } | Outcome::StaleTerm => {
            let title = "No leader could be reached in time";
            let detail = "the shard was changing; nothing was done";
            Problem::unavailable("unavailable", title, detail, Duration::from_secs(1)).with("success", false)
        }
        Outcome::NoInstance => {
            let detail = "no instance of this id is registered with the service";
            Problem::missing("no-such-instance", "There is no such instance", detail).with("success", false)
        }
        Outcome::ForeignInstance => {
            let detail = "another session has registered the instance meanwhile";
            refused("foreign-instance", "The instance is another session's", detail)
        }
        Outcome::Queued { position } => {
            Problem::outcome_unknown("the request queues, and its answer did not come in time")
                .with("queuePosition", position)
        }
        Outcome::NoHook => {
            Problem::missing("no-such-webhook", "There is no such webhook", "it was never made, or deleted")
                .with("success", false)
        }
        Outcome::Done
        | Outcome::HookChanged { .. }
        | Outcome::StaleHook { .. }
        | Outcome::Granted(_)
        | Outcome::Released
        | Outcome::Renewed(_)
        | Outcome::Broken(_)
        | Outcome::Opened { .. }
        | Outcome::Attached(_)
        | Outcome::Pending { .. }
        | Outcome::Configured(_)
        | Outcome::VersionMismatch { .. }
        | Outcome::NoConfig
        | Outcome::Registered(_)
        | Outcome::Deregistered(_)
        | Outcome::HealthReported { .. }
        | Outcome::Dropped { .. } => Problem::internal("the cluster answered another question"),
    }
}

fn refused(code: &'static str, title: &'static str, detail: &'static str) -> Problem {
    Problem::conflict(code, title, detail).with("success", false)
}

fn limited(limit: Limit) -> Problem {
    let (what, detail) = match limit {
        Limit::Field => return Problem::invalid("invalid-field", "a field is out of its bounds"),
        Limit::Holders => ("holders", "the lock has as many holders as it may"),
        Limit::Waiters => ("waiters", "the lock has as many waiters as it may"),
        Limit::GrantsPerSession => ("grants-per-session", "the session holds and waits for as much as it may"),
        Limit::Sessions => ("sessions", "the shard has as many sessions as it may"),
        Limit::Configs => ("configurations", "the path's shard has as many paths as it may"),
        Limit::ConfigBytes => ("configuration-bytes", "the values of the path's shard have as many bytes as they may"),
        Limit::Instances => ("instances", "the service's shard has as many instances as it may"),
        Limit::InstanceBytes => {
            ("instance-bytes", "the instances of the service's shard have as many bytes as they may")
        }
        Limit::Hooks => ("webhooks", "the shard has as many webhooks as it may"),
        Limit::HookBytes => ("webhook-bytes", "the webhooks of the shard have as many bytes as they may"),
        Limit::Tokens => ("tokens", "the shard has no fencing tokens left"),
    };
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "quota", "A bound is reached", detail).with("limit", what)
}
