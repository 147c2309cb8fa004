//! What is said of the calls on locks.

#![allow(dead_code, reason = "shapes: what they describe is read field by field")]

use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    super::{
        openapi::{Described, get, post, shapes},
        render::{Granted, LockView, Success},
    },
    Broken, Locks,
};

/// How a lock is asked for.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
struct Acquire {
    /// The session that asks.
    #[schema(value_type = shapes::SessionId)]
    session_id: (),
    /// The lock's own lease. Without it the lock lives as long as its session.
    #[schema(value_type = Option<shapes::Lease>)]
    timeout: (),
    /// How long the request may queue. 0, which it is where it is not said, tries once.
    #[schema(value_type = Option<shapes::Wait>)]
    wait: (),
    /// How it is to be held; `exclusive` where neither this nor `permits` is said.
    #[schema(value_type = Option<shapes::Mode>)]
    mode: (),
    /// The permits of a semaphore, which all that use it must agree on. They go with no other mode.
    #[schema(value_type = Option<shapes::Permits>)]
    permits: (),
    #[schema(value_type = Option<shapes::Priority>)]
    priority: (),
    /// How long it stays closed after it was lost rather than released.
    #[schema(value_type = Option<shapes::Wait>)]
    lock_delay: (),
    #[schema(value_type = Option<shapes::Metadata>)]
    metadata: (),
}

/// Which grant is given back.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
struct Release {
    #[schema(value_type = shapes::LockId)]
    lock_id: (),
}

/// Which lease is extended.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
struct Renew {
    #[schema(value_type = shapes::LockId)]
    lock_id: (),
    /// The new lease, from now on. Without it the lock lives as long as its session.
    #[schema(value_type = Option<shapes::Lease>)]
    timeout: (),
}

/// Why a lock is broken.
#[derive(ToSchema)]
struct Break {
    /// For whoever looks into it.
    #[schema(value_type = shapes::Label)]
    reason: (),
}

pub(in super::super) fn calls() -> Vec<Described> {
    let granted = json!({
        "success": true, "lockId": LOCK_ID, "expiresAt": "2025-12-15T10:00:30.000Z", "fencingToken": 1042,
        "queuePosition": 0, "waitedMs": 0, "sessionTtl": 10, "revision": 5,
    });
    let grant = &["expired", "foreign-lock-id", "request-too-old", "session-ended", "unknown-session"];
    let calls = vec![
        post("acquire", "/locks/{lockName}/acquire", "Takes a lock")
            .about(
                "Waiters are served in turn, higher priorities first. A session that holds the lock is told so by 409 \
                    `already-held`, with its lock id: there is no re-entrance.",
            )
            .takes::<Acquire>(json!({"sessionId": SESSION_ID, "timeout": 30, "wait": 5}))
            // Permits are a semaphore's.
            .demands(
                "anyOf",
                json!([
                    {"properties": {"mode": {"enum": ["exclusive", "shared", null]}, "permits": {"type": "null"}}},
                    {
                        "properties": {"mode": {"enum": ["semaphore", null]}, "permits": {"type": "integer"}},
                        "required": ["permits"],
                    },
                ]),
            )
            .writes(true)
            .answers::<Granted>(200, "It is held.", granted.clone())
            .refuses(&["held", "wait-timeout", "already-held", "mode-mismatch", "cancelled", "id-taken"])
            .refuses(&["deadlock"])
            .refuses(grant),
        post("release", "/locks/{lockName}/release", "Gives a lock back")
            .about("To release what has ended already answers 410 `expired` and disturbs nobody.")
            .takes::<Release>(json!({"lockId": LOCK_ID}))
            .writes(true)
            .answers::<Success>(200, "It is free, or the next in the queue's.", json!({"success": true}))
            .refuses(grant),
        post("renew", "/locks/{lockName}/renew", "Extends a lock's lease")
            .about("The fencing token stays the same.")
            .takes::<Renew>(json!({"lockId": LOCK_ID, "timeout": 30}))
            .writes(true)
            .answers::<Granted>(200, "It is held for that much longer.", granted)
            .refuses(grant),
        post("break", "/locks/{lockName}/break", "Takes a lock away from its holders")
            .about(
                "For operators. It is written to the log of the gateway, and those who watch are told; the next \
                    fencing token is higher, as ever. It has no Idempotency-Key: after a 504, look.",
            )
            .takes::<Break>(json!({"reason": "its host burned down"}))
            .writes(false)
            .answers::<Broken>(200, "These held it.", json!({"success": true, "broken": [holder()]}))
            .refuses(&["lock-free"]),
        get("lock", "/locks/{lockName}", "Shows a lock, its holders and its queue")
            .reads_as_asked()
            .answers::<LockView>(200, "The first holder, then all of them.", lock())
            .refuses(&["lock-free"]),
        get("locks", "/locks", "Lists the locks that are held or waited for")
            .about(
                "In the order of their names, over all shards. `token` is where to watch from so as to miss nothing \
                    that happens after the list was made; for further pages the token of the first one counts.",
            )
            .query::<shapes::Prefix>("prefix", json!("orders/"), "Only names that start so.")
            .query::<bool>("held", json!(true), "Only those that somebody holds, or that some only wait for.")
            .query::<shapes::SessionId>("session", json!(SESSION_ID), "Only those that it holds or waits for.")
            .pages::<shapes::Prefix>(json!("orders/41"))
            .reads_as_asked()
            .answers::<Locks>(200, "A page.", json!({"locks": [lock()], "next": null, "token": TOKEN})),
    ];
    calls.into_iter().map(|call| call.tag("locks")).collect()
}

/// For examples.
pub(in super::super) const SESSION_ID: &str = "00010000000000000000000000009f3c";
/// For examples.
pub(in super::super) const LOCK_ID: &str = "00010000000000000000000000009f3c-1042-00000007";
/// For examples.
pub(in super::super) const TOKEN: &str = "AQEBAQU0k7EF";

fn holder() -> Value {
    json!({
        "holder": "worker-7", "sessionId": SESSION_ID, "lockId": LOCK_ID, "fencingToken": 1042, "mode": "exclusive",
        "acquiredAt": "2025-12-15T10:00:00.000Z", "expiresAt": "2025-12-15T10:00:30.000Z", "sessionTtl": 10,
        "metadata": {"host": "a1"},
    })
}

fn lock() -> Value {
    json!({
        "lockName": "orders/42", "lockId": LOCK_ID, "holder": "worker-7", "acquiredAt": "2025-12-15T10:00:00.000Z",
        "expiresAt": "2025-12-15T10:00:30.000Z", "sessionId": SESSION_ID, "fencingToken": 1042, "mode": "exclusive",
        "holders": [holder()], "holderCount": 1, "queue": [], "queueLength": 0, "lockDelayUntil": null, "revision": 5,
    })
}
