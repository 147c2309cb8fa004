//! What is said of the calls on services.

#![allow(dead_code, reason = "shapes: what they describe is read field by field")]

use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    super::{
        locks::spec::{SESSION_ID, TOKEN},
        openapi::{Described, delete, get, post, put, shapes},
    },
    Beat, Done, Gone, InstanceDoc, Page, ServiceList,
};

/// An instance as it is registered: with the session that it goes with, or with a time to live of its own.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
struct PutInstance {
    #[schema(value_type = shapes::Address)]
    address: (),
    #[schema(value_type = shapes::Port)]
    port: (),
    #[schema(value_type = Option<shapes::Tags>)]
    tags: (),
    /// Its share of what DNS and samples give; 1 where it is not said. 0: only where there is no other.
    #[schema(value_type = Option<shapes::Weight>)]
    weight: (),
    #[schema(value_type = Option<shapes::Metadata>)]
    metadata: (),
    /// How it fares; `passing` where it is not said.
    #[schema(value_type = Option<shapes::Health>)]
    health: (),
    /// It goes when this session ends.
    #[schema(value_type = Option<shapes::SessionId>)]
    session_id: (),
    /// It goes when it has not been heard of for so long.
    #[schema(value_type = Option<shapes::Ttl>)]
    ttl: (),
}

/// How an instance fares.
#[derive(ToSchema)]
struct Heartbeat {
    /// Logged only where it is new.
    #[schema(value_type = Option<shapes::Health>)]
    health: (),
}

pub(in super::super) fn calls() -> Vec<Described> {
    let registered = {
        let mut registered = instance();
        registered["success"] = json!(true);
        registered
    };
    let calls = vec![
        put("put_instance", "/services/{serviceName}/instances/{instanceId}", "Registers an instance of a service")
            .about(
                "One of `sessionId` and `ttl` is needed. The last to register an id has it: a process that restarts \
                    takes its own id again. The same again changes nothing.",
            )
            .takes::<PutInstance>(json!({"address": "10.0.0.7", "port": 8080, "tags": ["eu"], "ttl": 10}))
            .demands(
                "oneOf",
                json!([
                    {"properties": {"ttl": {"type": "null"}, "sessionId": {"type": "string"}}, "required": ["sessionId"]},
                    {"properties": {"sessionId": {"type": "null"}, "ttl": {"type": "number"}}, "required": ["ttl"]},
                ]),
            )
            .writes(true)
            .answers::<Done<'_>>(200, "It is registered.", registered)
            .refuses(&["id-taken", "session-ended", "unknown-session"]),
        post(
            "heartbeat",
            "/services/{serviceName}/instances/{instanceId}/heartbeat",
            "Says that an instance with a time to live of its own is alive",
        )
        .takes::<Heartbeat>(json!({"health": "passing"}))
        .writes(true)
        .answers::<Beat<'_>>(
            200,
            "It lives for its whole ttl from now on.",
            json!({
                "success": true, "service": "payments", "instanceId": "i-1", "sessionId": SESSION_ID, "ttl": 10,
                "health": "passing", "revision": 5,
            }),
        )
        .refuses(&["foreign-instance", "instance-ended", "no-such-instance", "session-bound"]),
        delete("delete_instance", "/services/{serviceName}/instances/{instanceId}", "Takes an instance off")
            .query::<shapes::SessionId>("sessionId", json!(SESSION_ID), "Only if it is this session's.")
            .writes(true)
            .answers::<Gone<'_>>(
                200,
                "It is registered no more.",
                json!({"success": true, "service": "payments", "instanceId": "i-1", "revision": 6}),
            )
            .refuses(&["foreign-instance", "no-such-instance"]),
        get("instance", "/services/{serviceName}/instances/{instanceId}", "Shows an instance")
            .reads()
            .answers::<InstanceDoc<'_>>(200, "It is registered.", instance())
            .may_be_stale()
            .refuses(&["no-such-instance"]),
        get("service", "/services/{serviceName}", "Lists the instances of a service")
            .about(
                "In the order of their ids. A service that nobody registered is empty. `token` is where to watch from \
                    so as to miss nothing that happens after the list was made.",
            )
            .query::<bool>("healthy", json!(true), "Only those that are not critical.")
            .query::<shapes::Label>("tag", json!("eu"), "Only those with this tag.")
            .pages::<shapes::Prefix>(json!("i-0"))
            .reads()
            .answers::<Page<'_>>(
                200,
                "A page.",
                json!({
                    "service": "payments", "total": 1, "healthy": 1, "instances": [instance()], "next": null,
                    "revision": 5, "token": TOKEN,
                }),
            )
            .may_be_stale(),
        get("services", "/services", "Lists the services that have an instance")
            .query::<shapes::Prefix>("prefix", json!("pay"), "Only names that start so.")
            .pages::<shapes::Prefix>(json!("orders"))
            .reads()
            .answers::<ServiceList<'_>>(
                200,
                "A page.",
                json!({"services": [{"service": "payments", "total": 3, "healthy": 2}], "next": null, "token": TOKEN}),
            )
            .may_be_stale(),
    ];
    calls.into_iter().map(|call| call.tag("services")).collect()
}

fn instance() -> Value {
    json!({
        "service": "payments", "instanceId": "i-1", "address": "10.0.0.7", "port": 8080, "tags": ["eu"], "weight": 1,
        "metadata": {"zone": "a"}, "health": "passing", "sessionId": SESSION_ID, "boundTo": "ttl", "ttl": 10,
        "registeredAt": "2025-12-15T10:00:00.000Z", "revision": 5,
    })
}
