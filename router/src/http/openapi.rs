//! `GET /openapi.json`: the API's own description, an OpenAPI 3.1 document that is made from this code.
//!
//! The documents that are answered describe themselves (`#[derive(ToSchema)]` beside `#[derive(Serialize)]`); bounds
//! stand in [`shapes`], taken from the machine's limits. What is said of a call beyond that, its summary, examples,
//! parameters, answers and the codes of its refusals, stands in the room `spec` beside the call's handler.
//!
//! # What holds it to the truth
//! 1. Each call of [`path`](super::path) is here and each call here is one of `path`'s: a test goes both ways.
//! 2. Each code that a source can write is in [`codes`], and each of those in some source: a test reads the sources.
//! 3. A debug build panics where a handler takes a field that its body's schema does not have, or answers with a
//!    status that is not described. A test sends every property that is described: none may be unknown.
//! 4. `.ci/conformance` has every call of the document made at random, against a cluster, and its answers held against
//!    it, the codes of refusals included.
//!
//! # How to add a call
//! 1. Derive [`utoipa::ToSchema`] on what it answers; give a field of another crate's type a `value_type` of [`shapes`].
//!    An `Option` that is written even where it is `None` is `#[schema(required)]`.
//! 2. Where it takes a body, write its shape in the handler's `spec`, and list it there with [`Described::takes`].
//! 3. Add a [`Described`] to that room's `calls`, with an example for the body and for each answer; a new room also goes
//!    into [`calls`] below.
//! 4. A new code goes into [`codes::CODES`], with what its reader should do.

pub(super) mod codes;
mod described;
pub(super) mod shapes;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use serde_json::{Value, json};

pub(super) use self::described::{Described, delete, get, post, put};
use super::{batch, cluster, config, deadlocks, elections, fence, locks, services, sessions, watch, webhooks};

/// Every call, in the order of the rooms.
fn calls() -> Vec<Described> {
    let rooms = [
        locks::spec::calls(),
        deadlocks::spec::calls(),
        sessions::spec::calls(),
        elections::spec::calls(),
        config::spec::calls(),
        services::spec::calls(),
        watch::spec::calls(),
        webhooks::spec::calls(),
        fence::spec::calls(),
        batch::spec::calls(),
        cluster::spec::calls(),
    ];
    rooms.into_iter().flatten().collect()
}

/// What the calls are grouped by.
const TAGS: [(&str, &str); 10] = [
    ("locks", "Exclusive, shared and semaphore locks with fair queues, leases and fencing tokens."),
    ("sessions", "One session for each client, for the whole cluster: what it holds lives as long as it does."),
    ("elections", "Who leads, and the queue of those who would."),
    ("configuration", "Values by path, with versions, compare-and-set, history and rollback."),
    ("services", "Instances, registered for as long as a session or they themselves live, and found by whoever asks."),
    ("events", "What happens, in order and once, from any token on."),
    ("webhooks", "The same events, told to a URL: signed, at least once, in order, with dead letters."),
    ("fencing", "Whether a token belongs to a grant that is held now."),
    ("batch", "Many calls in one request."),
    ("cluster", "The cluster itself, its probes, its metrics and this document."),
];

/// The document, and what a debug build asks it.
struct Document {
    json: Vec<u8>,
    /// The statuses that a call answers with.
    statuses: BTreeMap<&'static str, BTreeSet<u16>>,
    /// The schema of a call's body.
    bodies: BTreeMap<&'static str, String>,
    /// The properties of each schema.
    properties: BTreeMap<String, BTreeSet<String>>,
}

static DOCUMENT: LazyLock<Document> = LazyLock::new(|| Document::of(calls()));

/// The document as JSON. It is made once.
pub fn document() -> &'static [u8] {
    &DOCUMENT.json
}

/// The name of the schema that a call's body has; for debug builds, `None` in others.
pub(super) fn body_of(op: &str) -> Option<&'static str> {
    if cfg!(debug_assertions) { DOCUMENT.bodies.get(op).map(String::as_str) } else { None }
}

/// Whether a schema has this property. One that is not described has all.
pub(super) fn has_property(schema: &str, property: &str) -> bool {
    DOCUMENT.properties.get(schema).is_none_or(|properties| properties.contains(property))
}

/// Whether a call may answer with this status. One that is not described may.
pub(super) fn allows(op: &str, status: u16) -> bool {
    DOCUMENT.statuses.get(op).is_none_or(|statuses| statuses.contains(&status))
}

impl Document {
    fn of(calls: Vec<Described>) -> Document {
        let mut schemas: BTreeMap<String, Value> = codes::schemas().into();
        let mut paths: BTreeMap<String, BTreeMap<&str, Value>> = BTreeMap::new();
        let (mut statuses, mut bodies) = (BTreeMap::new(), BTreeMap::new());
        for mut call in calls {
            statuses.insert(call.op, call.statuses());
            bodies.extend(call.body.take().map(|body| (call.op, body)));
            schemas.append(&mut call.schemas);
            paths.entry(call.full_path()).or_default().insert(call.method, call.operation());
        }
        let properties = |schema: &Value| -> Option<BTreeSet<String>> {
            Some(schema.get("properties")?.as_object()?.keys().cloned().collect())
        };
        let properties =
            schemas.iter().filter_map(|(name, schema)| Some((name.clone(), properties(schema)?))).collect();
        let tags: Vec<Value> = TAGS.iter().map(|(name, about)| json!({"name": name, "description": about})).collect();
        let document = json!({
            "openapi": "3.1.0",
            "info": {
                "title": "Wardlock",
                "version": env!("CARGO_PKG_VERSION"),
                "description": ABOUT,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "/"}],
            "tags": tags,
            "paths": paths,
            "components": {"schemas": schemas, "examples": codes::examples()},
        });
        // Texts, numbers and lists of them: there is nothing in it that JSON cannot say.
        Document { json: serde_json::to_vec(&document).unwrap_or_default(), statuses, bodies, properties }
    }
}

const ABOUT: &str = "A distributed lock service: locks, sessions, elections, configuration, services and events.

Refusals are problem documents (RFC 9457) with a stable `code`; a refused or malformed request changes nothing. A body \
is one JSON object; a field that is `null` counts as absent, and one that is not known is refused. Times are RFC 3339 \
in UTC, lengths of time are seconds and may have a fraction. A name in a path is opaque once it is decoded; a slash in \
it is `%2F`. Lengths of texts are in bytes of UTF-8. Every `GET` answers `HEAD`, too; another method than those that a \
path has is answered by 405 `method-not-allowed` with `Allow`, a path that is not here by 404 `unknown-path`. Where a \
certificate is asked for, TLS does so. Reads are linearizable unless they ask for `consistency=stale`; then \
`Wardlock-Age` says how old the answer may be.";
