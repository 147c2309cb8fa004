//! What is said of the calls on webhooks.

#![allow(dead_code, reason = "shapes: what they describe is read field by field")]

use std::{borrow::Cow, marker::PhantomData};

use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr, Schema,
        schema::{ArrayBuilder, OneOfBuilder},
    },
};
use wardlock_machine::limits;

use super::{
    super::{
        locks::spec::{LOCK_ID, SESSION_ID, TOKEN},
        openapi::{Described, delete, get, post, shapes},
        render::Success,
        watch::spec::Kind,
    },
    DeadLetters, HookDoc, Listing, Made, Settled,
};

/// One, or a list of some.
struct OneOrMore<T>(PhantomData<T>);

type Names = OneOrMore<shapes::Name>;
type Prefixes = OneOrMore<shapes::Prefix>;
type Kinds = OneOrMore<Kind>;

impl<T: ToSchema> PartialSchema for OneOrMore<T> {
    fn schema() -> RefOr<Schema> {
        let more = ArrayBuilder::new().items(T::schema()).max_items(Some(limits::PATTERNS));
        OneOfBuilder::new().item(T::schema()).item(more).into()
    }
}

impl<T: ToSchema> ToSchema for OneOrMore<T> {
    fn name() -> Cow<'static, str> {
        format!("{}OrMore", T::name()).into()
    }
}

/// Whom to tell what.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
struct AddWebhook {
    #[schema(value_type = shapes::Url)]
    url: (),
    /// By it the target knows a delivery. Made here where it is not given; with an `Idempotency-Key` it must be.
    #[schema(value_type = Option<shapes::Secret>)]
    secret: (),
    /// From where on, as a watch's token says; from now on where it is not said.
    #[schema(value_type = Option<shapes::WatchToken>)]
    since: (),
    /// These locks.
    #[schema(value_type = Option<Names>)]
    lock: (),
    /// These elections.
    #[schema(value_type = Option<Names>)]
    election: (),
    /// These paths of the configuration.
    #[schema(value_type = Option<Names>)]
    config: (),
    /// These services.
    #[schema(value_type = Option<Names>)]
    service: (),
    /// Whatever starts so; all, where it is empty.
    #[schema(value_type = Option<Prefixes>)]
    prefix: (),
    /// Of what kind the prefixes are; all kinds where it is not said.
    #[schema(value_type = Option<Kinds>)]
    kind: (),
}

pub(in super::super) fn calls() -> Vec<Described> {
    let calls = vec![
        post("add_webhook", "/webhooks", "Has what happens told to a URL")
            .about(
                "Signed, at least once, in order for each name. Something to watch must be said. Targets are those that \
                    the gateway and the nodes are configured to allow; without any, webhooks are off.",
            )
            .takes::<AddWebhook>(json!({"url": "https://hooks.example.com/wardlock", "lock": ["orders/42"]}))
            .writes(true)
            .answers::<Made<'_>>(
                201,
                "It is told from now on. No other answer has the secret.",
                json!({
                    "webhookId": ID, "url": "https://hooks.example.com/wardlock",
                    "patterns": [{"kind": "lock", "name": "orders/42"}], "secret": "5f4dcc3b5aa765d61d8327deb882cf99",
                }),
            )
            .with_header(201, "Location", true, json!({"type": "string"}), "Where it is shown.")
            .refuses(&[
                "compacted",
                "invalid-token",
                "missing-parameter",
                "restored",
                "target-not-allowed",
                "too-many-watches",
                "webhooks-off",
            ]),
        get("webhooks", "/webhooks", "Lists the webhooks")
            .pages::<shapes::Prefix>(json!(ID))
            .reads()
            .answers::<Listing<'_>>(200, "A page.", json!({"webhooks": [hook()], "next": null})),
        get("webhook", "/webhooks/{webhookId}", "Shows a webhook and how far it has come")
            .reads()
            .answers::<HookDoc<'_>>(200, "Without its secret.", hook())
            .refuses(&["no-such-webhook"]),
        delete("drop_webhook", "/webhooks/{webhookId}", "Ends a webhook, and its dead letters")
            .writes(true)
            .answers::<Success>(200, "Nothing more is told.", json!({"success": true}))
            .refuses(&["no-such-webhook"]),
        get("dead_letters", "/webhooks/{webhookId}/dead", "Lists what its target did not take")
            .reads()
            .answers::<DeadLetters>(200, "Oldest first.", json!({"deadLetters": [letter()]}))
            .refuses(&["no-such-webhook"]),
        delete("forget_dead", "/webhooks/{webhookId}/dead", "Forgets its dead letters")
            .writes(true)
            .answers::<Settled>(200, "They are gone.", json!({"success": true, "deadLetters": 1}))
            .refuses(&["no-such-webhook"]),
        post("redrive", "/webhooks/{webhookId}/redrive", "Delivers its dead letters once more")
            .takes_nothing()
            .writes(true)
            .answers::<Settled>(200, "They are under way.", json!({"success": true, "deadLetters": 1}))
            .refuses(&["no-such-webhook"]),
    ];
    calls.into_iter().map(|call| call.tag("webhooks")).collect()
}

const ID: &str = "0f7c5c1de4d54d2f9d3b8a1f6a1c0e42";

fn hook() -> Value {
    json!({
        "webhookId": ID, "url": "https://hooks.example.com/wardlock", "patterns": [{"kind": "lock", "prefix": "orders/"}],
        "createdAt": "2025-12-15T10:00:00.000Z", "status": "delivering", "lastError": null, "delivered": 12,
        "failedAttempts": 1, "deadLetters": 0, "redriven": 0, "lostDeadLetters": 0, "token": TOKEN,
    })
}

fn letter() -> Value {
    json!({
        "deliveryId": "1-5", "attempts": 9, "error": "the target answered 500", "diedAt": "2025-12-15T11:00:00.000Z",
        "event": {
            "event": "granted", "kind": "lock", "name": "orders/42", "at": "2025-12-15T10:00:00.000Z", "shard": 1,
            "revision": 5, "lockId": LOCK_ID, "sessionId": SESSION_ID, "fencingToken": 1042, "holder": "worker-7",
            "mode": "exclusive",
        },
    })
}
