//! What is said of the calls on webhooks.

#![allow(dead_code, reason = "shapes: what they describe is read field by field")]

use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    super::{
        locks::spec::TOKEN,
        openapi::{Described, delete, get, post, shapes},
        render::Success,
    },
    DeadLetters, HookDoc, Listing, Made, Settled,
};

/// What is told, and where. Something to watch must be said.
#[derive(ToSchema)]
struct AddWebhook {
    #[schema(value_type = shapes::Url)]
    url: (),
    /// By which the target knows a delivery. Made where it is not said; with an Idempotency-Key it must be.
    #[schema(value_type = Option<shapes::Secret>)]
    secret: (),
    /// A token, of an event, a page or a list; else from now on.
    #[schema(value_type = Option<shapes::WatchToken>)]
    since: (),
    #[schema(value_type = Option<shapes::NameOrNames>)]
    lock: (),
    #[schema(value_type = Option<shapes::NameOrNames>)]
    election: (),
    #[schema(value_type = Option<shapes::NameOrNames>)]
    config: (),
    #[schema(value_type = Option<shapes::NameOrNames>)]
    service: (),
    /// Of what kind the prefixes are; all kinds where it is not said.
    #[schema(value_type = Option<shapes::KindOrKinds>)]
    kind: (),
    /// Whatever starts so; all, where it is empty.
    #[schema(value_type = Option<shapes::PrefixOrPrefixes>)]
    prefix: (),
}

/// How a webhook fares.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase", as = WebhookStatus)]
pub(super) enum Status {
    /// Nothing stands in its way.
    Delivering,
    /// The last attempt failed.
    Failing,
}

pub(in super::super) fn calls() -> Vec<Described> {
    // Said, and not by an empty list.
    let said =
        |field: &str| json!({"required": [field], "properties": {field: {"type": ["string", "array"], "minItems": 1}}});
    let watched: Vec<Value> = ["lock", "election", "config", "service", "prefix"].map(said).into();
    let unkind = json!({"properties": {"kind": {"enum": [null, []]}}});
    let calls = vec![
        post("add_webhook", "/webhooks", "Makes a webhook")
            .about(
                "What it is told is said as in `/watch`; from where on, by `since`. Its target must be allowed by the \
                    configuration, else webhooks are off. Every delivery is signed with its secret.",
            )
            .takes::<AddWebhook>(json!({
                "url": "https://hooks.example.com/wardlock", "lock": ["orders/42"], "prefix": "payments/",
                "kind": "config",
            }))
            .demands("allOf", json!([{"anyOf": watched}, {"anyOf": [unkind, said("prefix")]}]))
            .writes(true)
            .answers::<Made<'_>>(
                201,
                "It is told what happens. Its secret is answered here only.",
                json!({
                    "webhookId": WEBHOOK_ID, "url": "https://hooks.example.com/wardlock", "patterns": patterns(),
                    "secret": "0000000000000000000000000000002b0000000000000000000000000000002c",
                }),
            )
            .with_header(201, "Location", true, json!({"type": "string"}), "Its own path.")
            .refuses(&["compacted", "invalid-token", "missing-parameter", "restored"])
            .refuses(&["target-not-allowed", "webhooks-off"]),
        get("webhooks", "/webhooks", "Lists the webhooks")
            .about("In the order of their ids, over all shards; a page has at most 200.")
            .pages::<shapes::Prefix>(json!(WEBHOOK_ID))
            .reads()
            .answers::<Listing<'_>>(200, "A page.", json!({"webhooks": [webhook()], "next": null})),
        get("webhook", "/webhooks/{webhookId}", "Shows a webhook, and how it fares")
            .reads()
            .answers::<HookDoc<'_>>(200, "Without its secret.", webhook())
            .refuses(&["no-such-webhook"]),
        delete("drop_webhook", "/webhooks/{webhookId}", "Deletes a webhook and its dead letters")
            .writes(true)
            .answers::<Success>(200, "It is told nothing more.", json!({"success": true}))
            .refuses(&["no-such-webhook"]),
        get("dead_letters", "/webhooks/{webhookId}/dead", "Shows the events that a webhook's target did not take")
            .reads()
            .answers::<DeadLetters>(200, "All that are kept.", json!({"deadLetters": [letter()]}))
            .refuses(&["no-such-webhook"]),
        delete("forget_dead", "/webhooks/{webhookId}/dead", "Forgets a webhook's dead letters")
            .writes(true)
            .answers::<Settled>(200, "So many.", settled())
            .refuses(&["no-such-webhook"]),
        post("redrive", "/webhooks/{webhookId}/redrive", "Delivers a webhook's dead letters once more")
            .takes_nothing()
            .writes(true)
            .answers::<Settled>(200, "So many are on their way.", settled())
            .refuses(&["no-such-webhook"]),
    ];
    calls.into_iter().map(|call| call.tag("webhooks")).collect()
}

/// For examples.
const WEBHOOK_ID: &str = "0000000000000000000000000000002a";

fn patterns() -> Value {
    json!([{"kind": "lock", "name": "orders/42"}, {"kind": "config", "prefix": "payments/"}])
}

fn webhook() -> Value {
    json!({
        "webhookId": WEBHOOK_ID, "url": "https://hooks.example.com/wardlock", "patterns": patterns(),
        "createdAt": "2025-12-15T10:00:00.000Z", "status": "delivering", "lastError": null, "delivered": 40,
        "failedAttempts": 1, "deadLetters": 0, "redriven": 0, "lostDeadLetters": 0, "token": TOKEN,
    })
}

fn letter() -> Value {
    json!({
        "deliveryId": "1-5", "attempts": 12, "error": "status 500", "diedAt": "2025-12-15T10:00:00.000Z",
        "event": {
            "event": "deleted", "kind": "config", "name": "payments/limit", "at": "2025-12-15T09:00:00.000Z",
            "shard": 1, "revision": 5, "version": 4,
        },
    })
}

fn settled() -> Value {
    json!({"success": true, "deadLetters": 1})
}
