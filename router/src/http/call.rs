//! One call as the handlers see it: its fields, its query, what its headers say about retries and time.

use std::{hash::Hasher, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, header};
use serde_json::Value;
use siphasher::sip128::{Hasher128, SipHasher13};
use tokio::time::Instant;
use wardlock_machine::{Millis, limits};

use super::{
    input::{self, Fields},
    media_type, path,
    problem::Problem,
};

/// How long a call may take beyond its `wait`, where the caller does not say.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// The least that a caller may say.
pub(super) const PATIENCE_MIN: Millis = Millis(100);
/// The most.
pub(super) const PATIENCE_MAX: Millis = Millis(60_000);
const PATIENCE_HEADER: &str = "x-wardlock-timeout";
const KEY_HEADER: &str = "idempotency-key";
/// The longest idempotency key.
pub(super) const KEY_BYTES: usize = 255;

/// A call without its route.
pub(super) struct Call<'a> {
    /// The body's fields; none where the call takes no body.
    pub(super) fields: Fields,
    /// The body, where it is not read as fields.
    pub(super) body: Bytes,
    query: Option<&'a str>,
    /// The headers of the request that carried it.
    pub(super) headers: &'a HeaderMap,
    /// How long it may take beyond its `wait`.
    pub(super) patience: Duration,
    /// When it came.
    pub(super) began: Instant,
    key: Option<&'a [u8]>,
    /// Its place in a batch, which the same key must not confuse with its neighbours'.
    place: u32,
}

impl<'a> Call<'a> {
    /// Of a request.
    pub(super) fn new(headers: &'a HeaderMap, query: Option<&'a str>) -> Result<Call<'a>, Problem> {
        let patience = match headers.get(PATIENCE_HEADER) {
            None => PATIENCE,
            Some(value) => {
                let text = value.to_str().unwrap_or_default();
                input::header_seconds("X-Wardlock-Timeout", text, PATIENCE_MIN, PATIENCE_MAX)?
            }
        };
        let key = headers.get(KEY_HEADER).map(|value| value.as_bytes());
        if key.is_some_and(|key| key.is_empty() || key.len() > KEY_BYTES) {
            let detail = format!("Idempotency-Key has 1 to {KEY_BYTES} bytes");
            return Err(Problem::field("Idempotency-Key", detail));
        }
        Ok(Call {
            fields: Fields::default(),
            body: Bytes::new(),
            query,
            headers,
            patience,
            began: Instant::now(),
            key,
            place: 0,
        })
    }

    /// The call at `place` of the batch that this call is.
    pub(super) fn item<'b>(&self, place: u32, query: Option<&'b str>, fields: Fields) -> Call<'b>
    where
        'a: 'b,
    {
        let Call { headers, patience, began, key, .. } = *self;
        Call { fields, body: Bytes::new(), query, headers, patience, began, key, place }
    }

    /// A hash of the idempotency key and of what it is for; `None` without a key.
    pub(super) fn keyed(&self, op: &str, about: &[&[u8]]) -> Option<u128> {
        let key = self.key?;
        let place = self.place.to_be_bytes();
        let mut hasher = SipHasher13::new_with_keys(0x7761_7264_6c6f_636b, 0x6964_656d_706f_7465);
        for part in [key, &place, op.as_bytes()].into_iter().chain(about.iter().copied()) {
            hasher.write(&(part.len() as u64).to_be_bytes());
            hasher.write(part);
        }
        Some(hasher.finish128().as_u128())
    }

    /// What is left of its patience.
    pub(super) fn left(&self) -> Duration {
        self.patience.saturating_sub(self.began.elapsed())
    }

    /// What is left of the time in which it must have been begun, so that it can be finished in what is left then.
    pub(super) fn left_to_begin(&self) -> Duration {
        (self.patience / 2).saturating_sub(self.began.elapsed())
    }

    /// Whether the caller may come back for its answer.
    pub(super) fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// The query's parameters.
    pub(super) fn params(&self) -> Result<Params, Problem> {
        let pairs = path::pairs(self.query.unwrap_or_default()).collect::<Result<Vec<_>, _>>();
        pairs.map(Params).map_err(|e| Problem::invalid("invalid-query", e.to_string()))
    }
}

/// What a body may call itself.
pub(super) fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    if headers.get(header::CONTENT_TYPE).is_none_or(media_type::is_document) {
        return Ok(());
    }
    let status = http::StatusCode::UNSUPPORTED_MEDIA_TYPE;
    let detail = "send the body as application/json";
    Err(Problem::new(status, "unsupported-media-type", "The body is not JSON", detail))
}

/// The parameters of a query, each taken once for each time that it is there.
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// Of a body's fields that are called as parameters: each a text or a list of them.
    pub(super) fn of(fields: &mut Fields, names: &[&'static str]) -> Result<Params, Problem> {
        let mut pairs = Vec::new();
        for name in names {
            let values = match fields.any(name) {
                Value::Null => Vec::new(),
                Value::Array(values) => values,
                value => vec![value],
            };
            if pairs.len() + values.len() > limits::PATTERNS {
                return Err(Problem::field(name, format!("there may be at most {} patterns", limits::PATTERNS)));
            }
            for value in values {
                let Value::String(value) = value else {
                    return Err(Problem::field(name, format!("{name} must be a string or a list of strings")));
                };
                pairs.push(((*name).to_owned(), value));
            }
        }
        Ok(Params(pairs))
    }

    /// One parameter, at most as long as a name.
    pub(super) fn take(&mut self, name: &'static str) -> Result<Option<String>, Problem> {
        self.take_long(name, limits::NAME_BYTES)
    }

    /// One parameter, at most so long.
    pub(super) fn take_long(&mut self, name: &'static str, bytes: usize) -> Result<Option<String>, Problem> {
        let Some(at) = self.0.iter().position(|(key, _)| key == name) else { return Ok(None) };
        let (_, value) = self.0.swap_remove(at);
        if value.len() > bytes {
            return Err(Problem::field(name, format!("{name} may have at most {bytes} bytes")));
        }
        Ok(Some(value))
    }

    /// A length of time in seconds, at most `max`.
    pub(super) fn seconds(&mut self, name: &'static str, max: Millis) -> Result<Option<Duration>, Problem> {
        let text = self.take(name)?;
        text.map(|text| input::header_seconds(name, &text, Millis(0), max)).transpose()
    }

    /// How many are asked for: 1 to a page, 100 where it is not said.
    pub(super) fn limit(&mut self) -> Result<u32, Problem> {
        let Some(text) = self.take("limit")? else { return Ok(100) };
        let limit = text.parse().ok().filter(|n| (1..=limits::PAGE as u32).contains(n));
        limit.ok_or_else(|| Problem::field("limit", format!("limit must be from 1 to {}", limits::PAGE)))
    }

    /// All parameters must have been taken.
    pub(super) fn finish(self) -> Result<(), Problem> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(Problem::invalid("unknown-parameter", format!("there is no parameter {name:?}"))
                .with("field", name.as_str())),
        }
    }
}
