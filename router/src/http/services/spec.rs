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

/// All that an instance says of itself, and what it goes with: a session, or a time to live of its own.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
struct PutInstance {
    #[schema(value_type = shapes::Address)]
    address: (),
    #[schema(value_type = shapes::Port)]
    port: (),
    /// By which it can be found. In order, each once.
    #[schema(value_type = Option<shapes::Tags>)]
    tags: (),
    #[schema(value_type = Option<shapes::Weight>)]
    weight: (),
    #[schema(value_type = Option<shapes::Metadata>)]
    metadata: (),
    /// `passing` where it is not said.
    #[schema(value_type = Option<shapes::InstanceHealth>)]
    health: (),
    /// The session with which it goes.
    #[schema(value_type = Option<shapes::SessionId>)]
    session_id: (),
    /// How long it lives without a heartbeat.
    #[schema(value_type = Option<shapes::Ttl>)]
    ttl: (),
}

/// How an instance fares.
#[derive(ToSchema)]
struct ReportHealth {
    /// As before where it is not said.
    #[schema(value_type = Option<shapes::InstanceHealth>)]
    health: (),
}

pub(in super::super) fn calls() -> Vec<Described> {
    let calls = vec![
        put("put_instance", "/services/{service}/instances/{instanceId}", "Registers an instance")
            .about(
                "It says all of the instance, and may be repeated at will: what is known already changes nothing. The \
                    last to register an id has it.",
            )
            .takes::<PutInstance>(json!({
                "address": "10.0.0.7", "port": 8080, "tags": ["v2"], "weight": 1, "metadata": {"zone": "a"},
                "health": "passing", "ttl": 10,
            }))
            .demands(
                "anyOf",
                json!([
                    {"properties": {"sessionId": {"type": "string"}, "ttl": {"type": "null"}}, "required": ["sessionId"]},
                    {"properties": {"sessionId": {"type": "null"}, "ttl": {"type": "number"}}, "required": ["ttl"]},
                ]),
            )
            .writes(true)
            .answers::<Done<'_>>(200, "It is registered.", registered())
            .refuses(&["foreign-instance", "id-taken", "no-such-instance", "request-too-old"])
            .refuses(&["session-ended", "unknown-session"]),
        post("heartbeat", "/services/{service}/instances/{instanceId}/heartbeat", "Keeps an instance alive")
            .about("Of one with a time to live of its own. Once in a third of it is a good measure.")
            .takes::<ReportHealth>(json!({"health": "passing"}))
            .writes(true)
            .answers::<Beat<'_>>(
                200,
                "It lives for another `ttl`.",
                json!({
                    "success": true, "service": "payments", "instanceId": "payments-1", "sessionId": SESSION_ID,
                    "ttl": 10, "health": "passing", "revision": 5,
                }),
            )
            .refuses(&["foreign-instance", "instance-ended", "no-such-instance", "session-bound"]),
        delete("delete_instance", "/services/{service}/instances/{instanceId}", "Takes an instance off")
            .query::<shapes::SessionId>("sessionId", json!(SESSION_ID), "Only if it is this session's.")
            .writes(true)
            .answers::<Gone<'_>>(
                200,
                "It is gone.",
                json!({"success": true, "service": "payments", "instanceId": "payments-1", "revision": 6}),
            )
            .refuses(&["foreign-instance", "no-such-instance"]),
        get("instance", "/services/{service}/instances/{instanceId}", "Shows an instance")
            .reads_as_asked()
            .answers::<InstanceDoc<'_>>(200, "As it is registered.", instance())
            .refuses(&["no-such-instance"]),
        get("service", "/services/{service}", "Lists a service's instances")
            .about(
                "In the order of their ids. `total` and `healthy` count all of them. `token` is where to watch from so \
                    as to miss nothing that happens after the list was made. A service without instances is an empty one.",
            )
            .query::<bool>("healthy", json!(true), "Only those that are not critical.")
            .query::<shapes::Label>("tag", json!("v2"), "Only those that have this tag.")
            .pages::<shapes::Prefix>(json!("payments-1"))
            .reads_as_asked()
            .answers::<Page<'_>>(
                200,
                "A page.",
                json!({
                    "service": "payments", "total": 1, "healthy": 1, "instances": [instance()], "next": null,
                    "revision": 5, "token": TOKEN,
                }),
            ),
        get("services", "/services", "Lists the services that have instances")
            .about(
                "In the order of their names, over all shards. `token` is where to watch from so as to miss nothing \
                    that happens after the list was made; for further pages the token of the first one counts.",
            )
            .query::<shapes::Prefix>("prefix", json!("pay"), "Only names that start so.")
            .pages::<shapes::Prefix>(json!("payments"))
            .reads_as_asked()
            .answers::<ServiceList<'_>>(
                200,
                "A page.",
                json!({
                    "services": [{"service": "payments", "total": 1, "healthy": 1}], "next": null, "token": TOKEN,
                }),
            ),
    ];
    calls.into_iter().map(|call| call.tag("services")).collect()
}

fn instance() -> Value {
    json!({
        "service": "payments", "instanceId": "payments-1", "address": "10.0.0.7", "port": 8080, "tags": ["v2"],
        "weight": 1, "metadata": {"zone": "a"}, "health": "passing", "sessionId": SESSION_ID, "boundTo": "ttl",
        "ttl": 10, "registeredAt": "2025-12-15T10:00:00.000Z", "revision": 5,
    })
}

fn registered() -> Value {
    let mut registered = instance();
    registered["success"] = true.into();
    registered
}
