//! Refusals, as RFC 9457 problem documents.
//!
//! A `code` is stable: programs decide by it. `title` says the same to people, `detail` says what is
//! particular to this time, and further members carry what a program can use.

use std::time::Duration;

use http::StatusCode;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;

use super::{consistency::Age, path::Unroutable};
use crate::Error;

/// A refusal. Boxed, since it travels in results whose good case is small.
#[derive(Clone, Debug)]
pub struct Problem(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: String,
    members: Vec<(&'static str, Value)>,
    retry_after: Option<Duration>,
    allow: Option<&'static str>,
    age: Age,
}

impl Problem {
    /// A refusal with nothing special about it.
    pub fn new(status: StatusCode, code: &'static str, title: &'static str, detail: impl Into<String>) -> Problem {
        let (members, retry_after, allow) = (Vec::new(), None, None);
        Problem(Box::new(Inner {
            status,
            code,
            title,
            detail: detail.into(),
            members,
            retry_after,
            allow,
            age: Age::Current,
        }))
    }

    /// 422: the request is wrong, whoever holds what.
    pub fn invalid(code: &'static str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, "The request is not valid", detail)
    }

    /// 422 for one field.
    pub fn field(field: &str, detail: impl Into<String>) -> Problem {
        Problem::invalid("invalid-field", detail).with("field", field)
    }

    /// 409: the state of things is in the way.
    pub fn conflict(code: &'static str, title: &'static str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::CONFLICT, code, title, detail)
    }

    /// 404.
    pub fn missing(code: &'static str, title: &'static str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, code, title, detail)
    }

    /// 410: it was there, and its end is remembered.
    pub fn gone(code: &'static str, title: &'static str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::GONE, code, title, detail)
    }

    /// 503: worth trying again after a while.
    pub fn unavailable(code: &'static str, title: &'static str, detail: impl Into<String>, after: Duration) -> Problem {
        let mut problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, title, detail);
        problem.0.retry_after = Some(after);
        problem
    }

    /// 500: the cluster answered what it never should.
    pub fn internal(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something is wrong here", detail)
    }

    /// 404 for a session that nobody knows.
    pub fn unknown_session() -> Problem {
        Problem::missing("unknown-session", "There is no such session", "it was never opened, or ended long ago")
    }

    /// 410 for a session that has ended.
    pub fn session_ended() -> Problem {
        Problem::gone("session-ended", "The session has ended", "open a new session; what this one held is released")
    }

    /// 413.
    pub fn too_large(what: &str, limit: usize) -> Problem {
        let detail = format!("a {what} may have at most {limit} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The body is too large", detail).with("limit", limit)
    }

    /// Adds a member.
    pub fn with(mut self, member: &'static str, value: impl Into<Value>) -> Problem {
        self.0.members.push((member, value.into()));
        self
    }

    /// Adds members.
    pub fn with_all(mut self, members: impl IntoIterator<Item = (&'static str, Value)>) -> Problem {
        self.0.members.extend(members);
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// When to try again.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Says how old the state may be that it is decided by.
    pub(super) fn aged(mut self, age: Age) -> Problem {
        self.0.age = age;
        self
    }

    /// How old that state may be.
    pub(super) fn age(&self) -> Age {
        self.0.age
    }

    /// The methods that would do.
    pub fn allow(&self) -> Option<&'static str> {
        self.0.allow
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Inner { status, code, title, detail, members, .. } = &*self.0;
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("type", &format_args!("urn:wardlock:problem:{code}"))?;
        map.serialize_entry("title", title)?;
        map.serialize_entry("status", &status.as_u16())?;
        map.serialize_entry("detail", detail)?;
        map.serialize_entry("code", code)?;
        for (member, value) in members {
            map.serialize_entry(member, value)?;
        }
        map.end()
    }
}

impl From<Unroutable> for Problem {
    fn from(why: Unroutable) -> Problem {
        match why {
            Unroutable::NotFound => Problem::missing("unknown-path", "There is no such call", "no call has this path"),
            Unroutable::NoSuchSession => Problem::unknown_session(),
            Unroutable::Name(bad) => Problem::invalid("invalid-name", bad.to_string()),
            Unroutable::Method(allow) => {
                let mut problem = Problem::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "method-not-allowed",
                    "The path does not take this method",
                    format!("it takes {allow}"),
                );
                problem.0.allow = Some(allow);
                problem
            }
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        let detail = error.to_string();
        match error {
            Error::Unavailable { retry_after, .. } => {
                Problem::unavailable("unavailable", "No leader could be reached in time", detail, retry_after)
            }
            Error::Unreachable { .. } => {
                let title = "No node could be reached";
                Problem::unavailable("unavailable", title, detail, Duration::from_secs(1))
            }
            Error::DiskFull => {
                Problem::unavailable("disk-full", "The disk is nearly full", detail, Duration::from_secs(10))
            }
            Error::Overloaded => {
                Problem::unavailable("overloaded", "The cluster is overloaded", detail, Duration::from_secs(1))
            }
            Error::OutcomeUnknown => Problem::outcome_unknown(detail),
            Error::NotAllowed(_) => {
                Problem::new(StatusCode::FORBIDDEN, "not-allowed", "The cluster does not allow this", detail)
            }
            Error::Malformed(_) => Problem::invalid("invalid", detail),
            Error::TooStale => {
                let title = "No replica is known to be as fresh as that";
                Problem::unavailable("too-stale", title, detail, Duration::from_secs(1))
            }
        }
    }
}

impl Problem {
    /// 504: the write may or may not have happened.
    pub fn outcome_unknown(detail: impl Into<String>) -> Problem {
        let title = "The outcome is unknown";
        Problem::new(StatusCode::GATEWAY_TIMEOUT, "outcome-unknown", title, detail).with("outcome", "unknown")
    }
}
