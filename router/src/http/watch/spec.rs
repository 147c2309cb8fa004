//! What is said of watching.

#![allow(dead_code, reason = "shapes: what they describe is read field by field")]

use serde_json::json;
use utoipa::ToSchema;

use super::{
    super::{
        config::spec::Encoding,
        locks::spec::{LOCK_ID, SESSION_ID, TOKEN},
        openapi::{Described, get, shapes},
        render::Rfc3339,
    },
    Page,
};

/// What happened.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase", as = EventName)]
enum Name {
    /// A lock has one more holder, or an election a leader.
    Granted,
    /// A grant has ended.
    Ended,
    /// A path has a value.
    Put,
    /// A path has none.
    Deleted,
    /// A leader has another value.
    Proclaimed,
    /// An election has one more candidate.
    Enrolled,
    /// A service has an instance, or that says other things of itself.
    Registered,
    /// An instance is gone.
    Deregistered,
    /// An instance fares otherwise.
    Health,
}

/// What it happened to.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub(in super::super) enum Kind {
    Lock,
    Election,
    Config,
    Service,
}

/// Something that happened. Which members it has follows from `event`.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct Event {
    event: Name,
    kind: Kind,
    #[schema(value_type = shapes::Name)]
    name: (),
    at: Rfc3339,
    shard: u32,
    #[schema(value_type = shapes::Revision)]
    revision: (),
    #[schema(value_type = Option<shapes::LockId>)]
    lock_id: (),
    #[schema(value_type = Option<shapes::SessionId>)]
    session_id: (),
    #[schema(value_type = Option<shapes::FencingToken>)]
    fencing_token: (),
    holder: Option<String>,
    mode: Option<shapes::Mode>,
    permits: Option<u32>,
    /// Of an election.
    candidate_id: Option<String>,
    /// Since when a leader leads that has proclaimed something.
    elected_at: Option<Rfc3339>,
    #[schema(value_type = Option<shapes::Priority>)]
    priority: (),
    #[schema(value_type = Option<shapes::InstanceId>)]
    instance_id: (),
    #[schema(value_type = Option<shapes::Address>)]
    address: (),
    #[schema(value_type = Option<shapes::Port>)]
    port: (),
    #[schema(value_type = Option<shapes::Tags>)]
    tags: (),
    #[schema(value_type = Option<shapes::Weight>)]
    weight: (),
    #[schema(value_type = Option<shapes::InstanceHealth>)]
    health: (),
    /// Why a grant or an instance has ended.
    reason: Option<String>,
    #[schema(value_type = Option<shapes::Version>)]
    version: (),
    /// Left out where it is large or no longer kept: it is to be read.
    #[schema(value_type = serde_json::Value, required = false)]
    value: (),
    encoding: Option<Encoding>,
    content_type: Option<String>,
    /// Of the value, in bytes.
    size: Option<u32>,
}

pub(in super::super) fn calls() -> Vec<Described> {
    let event = json!({
        "event": "granted", "kind": "lock", "name": "orders/42", "at": "2025-12-15T10:00:00.000Z", "shard": 1,
        "revision": 5, "lockId": LOCK_ID, "sessionId": SESSION_ID, "fencingToken": 1042, "holder": "worker-7",
        "mode": "exclusive",
    });
    let calls = vec![
        get("watch", "/watch", "Tells what happens, as a stream or page by page")
            .about("Without `wait`: server-sent events, each with its token as `id`; whoever comes back with it as \
                    `Last-Event-ID` misses nothing. The stream does not end. With `wait`: one page as soon as there is \
                    something, or an empty one after that time, with `next`, the token for the next. Where a client was \
                    away for longer than events are kept it is told so: `compacted`. Something to watch must be said.")
            .query_each::<shapes::Name>("lock", json!("orders/42"), "A lock.")
            .query_each::<shapes::Name>("election", json!("scheduler"), "An election.")
            .query_each::<shapes::Name>("config", json!("payments/limit"), "A path of the configuration.")
            .query_each::<shapes::Name>("service", json!("payments"), "A service, with all its instances.")
            .query_each::<shapes::Prefix>("prefix", json!("orders/"), "Whatever starts so; all, where it is empty.")
            .query_each::<Kind>("kind", json!("lock"), "Of what kind the prefixes are; all kinds where it is not said.")
            .query::<shapes::WatchToken>("since", json!(TOKEN), "A token, of an event, a page or a list; else from now on.")
            .query::<shapes::LongPoll>("wait", json!(30), "How long a page may be waited for, in seconds.")
            .query::<shapes::Limit>("limit", json!(100), "With `wait`: how many events at the most; 100 where it is not said.")
            .header::<shapes::WatchToken>("Last-Event-ID", false, json!(TOKEN), "As `since`, which goes before it.")
            .reads()
            .answers::<Page<'_>>(200, "A page, or a stream.", json!({"events": [event], "next": TOKEN}))
            .answers_as(
                200,
                "",
                "text/event-stream",
                json!({"type": "string"}),
                json!(format!("id: {TOKEN}\nevent: granted\ndata: {event}\n\n")),
            )
            .refuses(&["compacted", "invalid-token", "missing-parameter", "restored", "too-many-watches"]),
    ];
    calls.into_iter().map(|call| call.tag("events")).collect()
}
