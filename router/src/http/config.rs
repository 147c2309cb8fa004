//! Configuration: values by path, with their versions.
//!
//! A value is bytes with a media type. It is written in one of two ways:
//!
//! - As it is: `PUT` with a `Content-Type` that is not JSON's, or with `?raw` and any. The type is kept with it.
//! - In a JSON document, `{"value": …}`: a text, or with a `contentType` of JSON anything that JSON can say. Bytes that
//!   are no text stand in base64, with `"encoding": "base64"`.
//!
//! It is read in the same two ways: in a JSON document, or as it is with `?raw`. Every answer that has a version
//! carries it as `ETag` too.
//!
//! A change may be bound to the version before it: by `If-Match: "3"` and `If-None-Match: *`, which fail with 412, or by
//! `expectedVersion`, which fails with 409; `expectedVersion` 0 means that the path must have no value.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Value, value::RawValue};
use wardlock_machine::{
    Answer, Blob, Change, Command, ConfigView, Configure, Configured, Content, Key, Name, Outcome, Query, Revision,
    Version, limits,
};

use super::{
    Gateway,
    backend::Backend,
    call::{Call, Params},
    consistency::Consistency,
    input::{self, Fields},
    media_type, outcome,
    problem::Problem,
    render::Rfc3339,
    reply::Reply,
};

/// The most bytes of a body that carries a value.
pub(super) const BODY_BYTES: usize = limits::CONFIG_VALUE_BYTES + (64 << 10);
/// What a text is, where its writer does not say.
const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

impl<B: Backend> Gateway<B> {
    pub(super) async fn config(&self, path: Name, call: Call<'_>) -> Result<Reply, Problem> {
        let mut params = call.params()?;
        let raw = flag(&mut params, "raw")?;
        let versions = flag(&mut params, "versions")?;
        let version = version(&mut params, "version")?;
        let consistency = params.consistency()?;
        params.finish()?;
        if versions {
            if raw || version.is_some() {
                return Err(Problem::field("versions", "versions goes with no other parameter"));
            }
            return self.versions(path, consistency, &call).await;
        }
        let query = Query::Config { key: Key::config(path), version };
        let (answer, age) = self.ask(query, consistency, call.patience).await?;
        let Answer::Config(found) = answer else { return Err(other()) };
        age.on(value(found, version, raw, &call))
    }

    async fn versions(&self, path: Name, consistency: Consistency, call: &Call<'_>) -> Result<Reply, Problem> {
        let query = Query::Versions { key: Key::config(path.clone()) };
        let (answer, age) = self.ask(query, consistency, call.patience).await?;
        let Answer::Versions(versions) = answer else { return Err(other()) };
        age.on(match versions.is_empty() {
            true => Err(missing(None)),
            false => Reply::ok(&History { path: &path, versions: versions.iter().map(VersionView::from).collect() }),
        })
    }

    pub(super) async fn configs(&self, call: Call<'_>) -> Result<Reply, Problem> {
        let mut params = call.params()?;
        let prefix = params.take("prefix")?.unwrap_or_default();
        let after = params.take("after")?;
        let limit = params.limit()?;
        let consistency = params.consistency()?;
        params.finish()?;
        let query = Query::Configs { prefix, after, limit };
        let (Answer::Configs(found), age) = self.ask(query, consistency, call.patience).await? else {
            return Err(other());
        };
        let next = (found.len() >= limit as usize).then(|| found.last().map(|last| &last.path)).flatten();
        let configs = found.iter().map(Listed::from).collect();
        age.on(Reply::ok(&Listing { configs, next }))
    }

    pub(super) async fn put_config(&self, path: Name, mut call: Call<'_>) -> Result<Reply, Problem> {
        let mut params = call.params()?;
        let raw = flag(&mut params, "raw")?;
        let condition = Condition::of(call.headers, version(&mut params, "expectedVersion")?)?;
        params.finish()?;
        let body = std::mem::take(&mut call.body);
        let given = call.headers.get(header::CONTENT_TYPE);
        let (content, condition) = match given {
            Some(given) if raw || !media_type::is_document(given) => (plain(&body, given)?, condition),
            None if raw => (plain(&body, &HeaderValue::from_static("application/octet-stream"))?, condition),
            _ => {
                let mut fields = match body.is_empty() {
                    true => std::mem::take(&mut call.fields),
                    false => Fields::parse(&body)?,
                };
                let condition = condition.and(expected(&mut fields)?)?;
                (document(fields)?, condition)
            }
        };
        self.configure(path, "put-config", Change::Put(content), condition, &call).await
    }

    pub(super) async fn delete_config(&self, path: Name, call: Call<'_>) -> Result<Reply, Problem> {
        let mut params = call.params()?;
        let condition = Condition::of(call.headers, version(&mut params, "expectedVersion")?)?;
        params.finish()?;
        self.configure(path, "delete-config", Change::Delete, condition, &call).await
    }

    pub(super) async fn rollback_config(&self, path: Name, mut call: Call<'_>) -> Result<Reply, Problem> {
        let to = number(&mut call.fields, "version")?.ok_or_else(|| input::missing("version"))?;
        let condition = Condition::of(call.headers, None)?.and(expected(&mut call.fields)?)?;
        std::mem::take(&mut call.fields).finish()?;
        self.configure(path, "rollback-config", Change::Rollback { to }, condition, &call).await
    }

    async fn configure(
        &self,
        path: Name,
        op: &str,
        change: Change,
        condition: Condition,
        call: &Call<'_>,
    ) -> Result<Reply, Problem> {
        let rolls_back = matches!(change, Change::Rollback { .. });
        let request = call.keyed(op, &[path.as_str().as_bytes()]).unwrap_or_else(|| self.backend().random_key());
        let ask = Configure { request, key: Key::config(path.clone()), change, expected: condition.expected };
        match self.backend().write(Command::Configure(ask), call.patience).await? {
            Outcome::Configured(done) => Ok(Reply::ok(&Done::new(&path, &done))?.tagged(done.version)),
            Outcome::VersionMismatch { current } => Err(condition.failed(current)),
            Outcome::NoConfig if rolls_back => {
                let detail = "that version is not kept any more, was never made, or is a deletion";
                Err(Problem::missing("no-such-version", "There is no such version", detail).with("success", false))
            }
            Outcome::NoConfig => Err(missing(None).with("success", false)),
            other => Err(outcome::refusal(other)),
        }
    }
}

/// What was found, as it was asked for.
fn value(found: Option<ConfigView>, version: Option<Version>, raw: bool, call: &Call<'_>) -> Result<Reply, Problem> {
    let Some(found) = found.filter(|found| !found.deleted) else { return Err(missing(version)) };
    if call.headers.get(header::IF_NONE_MATCH).and_then(tag) == Some(found.version) {
        return Ok(Reply::not_modified(found.version));
    }
    if raw {
        let value = found.value.as_deref().unwrap_or_default();
        return Ok(Reply::value(value.to_vec(), found.content_type).tagged(found.version));
    }
    let reply = Reply::ok(&Document::new(&found))?;
    Ok(reply.tagged(found.version))
}

fn other() -> Problem {
    Problem::internal("the cluster answered another question")
}

fn missing(version: Option<Version>) -> Problem {
    match version {
        None => Problem::missing("no-such-path", "There is no such path", "it has no value"),
        Some(_) => {
            let detail = "that version is not kept any more, was never made, or is a deletion";
            Problem::missing("no-such-version", "There is no such version", detail)
        }
    }
}

/// Which version a change must find.
#[derive(Clone, Copy, Default)]
struct Condition {
    expected: Option<Version>,
    /// A header says so.
    by_header: bool,
}

impl Condition {
    fn of(headers: &HeaderMap, expected: Option<Version>) -> Result<Condition, Problem> {
        let by_header = match (headers.get(header::IF_MATCH), headers.get(header::IF_NONE_MATCH)) {
            (None, None) => None,
            (Some(given), None) => {
                let detail = "If-Match takes one version, as ETag gives it: \"3\"";
                Some(tag(given).ok_or_else(|| Problem::field("If-Match", detail))?)
            }
            (None, Some(given)) if given.as_bytes() == b"*" => Some(Version(0)),
            (None, Some(_)) => return Err(Problem::field("If-None-Match", "a change takes If-None-Match: * only")),
            (Some(_), Some(_)) => {
                return Err(Problem::field("If-Match", "If-Match and If-None-Match exclude each other"));
            }
        };
        let header = Condition { expected: by_header, by_header: by_header.is_some() };
        header.and(expected)
    }

    /// The same, said again in another place.
    fn and(self, expected: Option<Version>) -> Result<Condition, Problem> {
        match (self.expected, expected) {
            (Some(one), Some(other)) if one != other => {
                Err(Problem::field("expectedVersion", "the request expects two different versions"))
            }
            (None, Some(_)) => Ok(Condition { expected, by_header: false }),
            _ => Ok(self),
        }
    }

    fn failed(self, current: Version) -> Problem {
        let status = if self.by_header { StatusCode::PRECONDITION_FAILED } else { StatusCode::CONFLICT };
        let detail = match (self.expected, current) {
            (Some(Version(0)), _) => "the path has a value".to_owned(),
            (_, Version(0)) => "the path has no value".to_owned(),
            _ => format!("the path is at version {current}"),
        };
        Problem::new(status, "version-mismatch", "The path has another version", detail)
            .with("success", false)
            .with("currentVersion", current.0)
    }
}

/// A version as an entity tag has it.
fn tag(value: &HeaderValue) -> Option<Version> {
    let text = value.to_str().ok()?.trim();
    let text = text.strip_prefix("W/").unwrap_or(text);
    number_of(text.strip_prefix('"')?.strip_suffix('"')?)
}

fn number_of(text: &str) -> Option<Version> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit())).map(Version)
}

/// A parameter without a value, or true or false.
pub(super) fn flag(params: &mut Params, name: &'static str) -> Result<bool, Problem> {
    match params.take(name)?.as_deref() {
        None | Some("false") => Ok(false),
        Some("" | "true") => Ok(true),
        Some(_) => Err(Problem::field(name, format!("{name} is there or not, or true or false"))),
    }
}

fn version(params: &mut Params, name: &'static str) -> Result<Option<Version>, Problem> {
    let Some(text) = params.take(name)? else { return Ok(None) };
    number_of(&text).map(Some).ok_or_else(|| Problem::field(name, format!("{name} must be a whole number")))
}

fn number(fields: &mut Fields, name: &'static str) -> Result<Option<Version>, Problem> {
    let number = fields.integer(name, 0, i64::MAX)?;
    Ok(number.map(|number| Version(number.unsigned_abs())))
}

fn expected(fields: &mut Fields) -> Result<Option<Version>, Problem> {
    number(fields, "expectedVersion")
}

/// A value as it was sent.
fn plain(body: &Bytes, given: &HeaderValue) -> Result<Content, Problem> {
    let content_type = given.to_str().map_err(|_| Problem::field("Content-Type", "Content-Type must be ASCII"))?;
    content(content_type.to_owned(), body)
}

/// A value out of a document.
fn document(mut fields: Fields) -> Result<Content, Problem> {
    let given = fields.text("contentType")?;
    let encoding = fields.text("encoding")?;
    if !fields.has("value") && !given.as_deref().is_some_and(media_type::is_json) {
        return Err(input::missing("value"));
    }
    let value = fields.any("value");
    fields.finish()?;
    match (encoding.as_deref(), value) {
        (None, Value::String(text)) if !given.as_deref().is_some_and(media_type::is_json) => {
            content(given.unwrap_or_else(|| TEXT.to_owned()), text.as_bytes())
        }
        (None, value) => {
            let given = given.unwrap_or_else(|| JSON.to_owned());
            if !media_type::is_json(&given) {
                return Err(Problem::field("value", "value must be a string, unless its contentType is JSON's"));
            }
            let bytes = serde_json::to_vec(&value).map_err(|e| Problem::internal(e.to_string()))?;
            content(given, &bytes)
        }
        (Some("base64"), Value::String(text)) => {
            let bytes = BASE64_STANDARD.decode(text).map_err(|e| Problem::field("value", format!("value: {e}")))?;
            content(given.unwrap_or_else(|| "application/octet-stream".to_owned()), &bytes)
        }
        (Some("base64"), _) => Err(Problem::field("value", "value must be a string of base64")),
        (Some(_), _) => Err(Problem::field("encoding", "encoding must be \"base64\", or left out")),
    }
}

fn content(content_type: String, value: &[u8]) -> Result<Content, Problem> {
    if content_type.len() > limits::LABEL_BYTES || !media_type::is_sound(&content_type) {
        let detail = format!("a content type is a media type of at most {} bytes: text/plain", limits::LABEL_BYTES);
        return Err(Problem::field("contentType", detail));
    }
    if value.len() > limits::CONFIG_VALUE_BYTES {
        return Err(Problem::too_large("value", limits::CONFIG_VALUE_BYTES));
    }
    Ok(Content { content_type, value: Blob::new(value) })
}

/// The answer to a change.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Done<'a> {
    success: bool,
    path: &'a Name,
    version: Version,
    updated_at: Rfc3339,
    revision: Revision,
}

impl<'a> Done<'a> {
    pub(super) fn new(path: &'a Name, done: &Configured) -> Done<'a> {
        let Configured { version, revision, updated } = *done;
        Done { success: true, path, version, updated_at: Rfc3339(updated), revision }
    }
}

/// A path and its value.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document<'a> {
    path: &'a Name,
    value: Shown<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    #[serde(flatten)]
    version: VersionView<'a>,
}

/// A value in JSON.
#[derive(Serialize)]
#[serde(untagged)]
enum Shown<'a> {
    Json(&'a RawValue),
    Text(&'a str),
    Base64(String),
}

/// A value as it stands in a document, and how it is encoded there.
fn shown<'a>(content_type: &str, bytes: &'a [u8]) -> (Shown<'a>, Option<&'static str>) {
    let json = media_type::is_json(content_type).then(|| serde_json::from_slice(bytes).ok()).flatten();
    match (json, std::str::from_utf8(bytes)) {
        (Some(json), _) => (Shown::Json(json), None),
        (None, Ok(text)) => (Shown::Text(text), None),
        (None, Err(_)) => (Shown::Base64(BASE64_STANDARD.encode(bytes)), Some("base64")),
    }
}

/// What an event says of a version. A value that is too large for events, or gone, is left out: it is to be read.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventValue<'a> {
    version: Version,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Shown<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u32>,
}

impl<'a> EventValue<'a> {
    pub(super) fn new(version: Version, content_type: &'a str, size: u32, value: Option<&'a [u8]>) -> EventValue<'a> {
        let (value, encoding) = value.map(|value| shown(content_type, value)).unzip();
        EventValue { version, value, encoding: encoding.flatten(), content_type: Some(content_type), size: Some(size) }
    }

    pub(super) fn deleted(version: Version) -> EventValue<'a> {
        EventValue { version, value: None, encoding: None, content_type: None, size: None }
    }
}

impl<'a> Document<'a> {
    pub(super) fn new(view: &'a ConfigView) -> Document<'a> {
        let (value, encoding) = shown(&view.content_type, view.value.as_deref().unwrap_or_default());
        Document { path: &view.path, value, encoding, version: VersionView::from(view) }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VersionView<'a> {
    version: Version,
    updated_at: Rfc3339,
    revision: Revision,
    #[serde(skip_serializing_if = "str::is_empty")]
    content_type: &'a str,
    size: u32,
    #[serde(skip_serializing_if = "is_false")]
    deleted: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl<'a> From<&'a ConfigView> for VersionView<'a> {
    fn from(view: &'a ConfigView) -> VersionView<'a> {
        VersionView {
            version: view.version,
            updated_at: Rfc3339(view.updated),
            revision: view.revision,
            content_type: &view.content_type,
            size: view.size,
            deleted: view.deleted,
        }
    }
}

#[derive(Serialize)]
struct History<'a> {
    path: &'a Name,
    /// Newest first.
    versions: Vec<VersionView<'a>>,
}

#[derive(Serialize)]
pub(super) struct Listed<'a> {
    path: &'a Name,
    #[serde(flatten)]
    version: VersionView<'a>,
}

impl<'a> From<&'a ConfigView> for Listed<'a> {
    fn from(view: &'a ConfigView) -> Listed<'a> {
        Listed { path: &view.path, version: view.into() }
    }
}

#[derive(Serialize)]
struct Listing<'a> {
    configs: Vec<Listed<'a>>,
    /// Where the next page starts: ask again with `after` this. Null on the last page.
    next: Option<&'a Name>,
}
