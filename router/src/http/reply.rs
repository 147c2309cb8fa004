//! A complete answer, before it is an HTTP response or a line of a batch.

use std::time::Duration;

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use wardlock_machine::Version;

use super::{consistency::Age, problem::Problem};

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Json,
    Problem,
    Metrics,
    /// A value of the configuration, as it is.
    Value,
}

impl Content {
    fn media_type(self) -> &'static str {
        match self {
            Content::Json => "application/json",
            Content::Problem => "application/problem+json",
            Content::Metrics => "text/plain; version=0.0.4; charset=utf-8",
            Content::Value => "application/octet-stream",
        }
    }
}

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
    content: Content,
    location: Option<String>,
    retry_after: Option<Duration>,
    allow: Option<&'static str>,
    /// What a value is, if its writer's word can be sent.
    media_type: Option<HeaderValue>,
    etag: Option<Version>,
    age: Age,
}

impl Reply {
    fn new(status: StatusCode, content: Content, body: Vec<u8>) -> Reply {
        let (location, retry_after, allow, media_type, etag) = (None, None, None, None, None);
        Reply { status, body, content, location, retry_after, allow, media_type, etag, age: Age::Current }
    }

    /// 200 with a document.
    pub(super) fn ok(document: &impl Serialize) -> Result<Reply, Problem> {
        Reply::json(StatusCode::OK, document)
    }

    /// A document.
    pub(super) fn json(status: StatusCode, document: &impl Serialize) -> Result<Reply, Problem> {
        let body = serde_json::to_vec(document).map_err(|e| Problem::internal(e.to_string()))?;
        Ok(Reply::new(status, Content::Json, body))
    }

    /// 200 with JSON that is already written.
    pub(super) fn raw_json(body: Vec<u8>) -> Reply {
        Reply::new(StatusCode::OK, Content::Json, body)
    }

    /// 200 with metrics.
    pub(super) fn metrics(text: String) -> Reply {
        Reply::new(StatusCode::OK, Content::Metrics, text.into_bytes())
    }

    /// 200 with a value as it is.
    pub(super) fn value(body: Vec<u8>, media_type: String) -> Reply {
        let media_type = HeaderValue::try_from(media_type).ok().filter(|value| !value.is_empty());
        Reply { media_type, ..Reply::new(StatusCode::OK, Content::Value, body) }
    }

    /// 304: the caller has that version.
    pub(super) fn not_modified(version: Version) -> Reply {
        Reply::new(StatusCode::NOT_MODIFIED, Content::Value, Vec::new()).tagged(version)
    }

    /// Names the version that the answer is about.
    pub(super) fn tagged(self, version: Version) -> Reply {
        Reply { etag: Some(version), ..self }
    }

    /// Says how old the answer may be.
    pub(super) fn aged(self, age: Age) -> Reply {
        Reply { age, ..self }
    }

    /// How old it may be.
    pub(super) fn age(&self) -> Age {
        self.age
    }

    /// Names the new thing's own path.
    pub(super) fn at(mut self, location: String) -> Reply {
        self.location = Some(location);
        self
    }
}

impl From<Problem> for Reply {
    fn from(problem: Problem) -> Reply {
        // Its members are texts, numbers and lists of them: there is nothing in it that JSON cannot say.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut reply = Reply::new(problem.status(), Content::Problem, body);
        reply.retry_after = problem.retry_after();
        reply.allow = problem.allow();
        reply.age = problem.age();
        reply
    }
}

impl From<Reply> for Response {
    fn from(mut reply: Reply) -> Response {
        if matches!(reply.content, Content::Json | Content::Problem) {
            // For whoever reads it at a terminal.
            reply.body.push(b'\n');
        }
        let mut response = Response::new(Body::from(Bytes::from(reply.body)));
        *response.status_mut() = reply.status;
        let headers = response.headers_mut();
        let media_type = reply.media_type.unwrap_or_else(|| HeaderValue::from_static(reply.content.media_type()));
        headers.insert(header::CONTENT_TYPE, media_type);
        if reply.content == Content::Value {
            // A browser that is shown somebody's value must not run it as a page of ours.
            headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
        }
        if let Some(tag) = reply.etag.and_then(|version| HeaderValue::try_from(format!("\"{version}\"")).ok()) {
            headers.insert(header::ETAG, tag);
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(after) = reply.retry_after {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if let Some(age) = reply.age.header() {
            headers.insert("wardlock-age", age);
        }
        if let Some(allow) = reply.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if let Some(location) = reply.location.and_then(|path| HeaderValue::try_from(path).ok()) {
            headers.insert(header::LOCATION, location);
        }
        response
    }
}
