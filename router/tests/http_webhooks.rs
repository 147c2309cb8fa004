//! Webhooks over HTTP: what is asked of the cluster, and what is shown of its answers.

mod http_support;

use http_support::{Fake, Told, document, name, request, send};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use wardlock_machine::*;
use wardlock_router::{
    WatchToken,
    http::{Gateway, GatewayInfo},
    webhook::Targets,
};

const TOKEN: &str = "AQEBAQU0k7EF";

fn gateway(fake: &Fake) -> Gateway<Fake> {
    let info = GatewayInfo {
        cluster: "test".into(),
        certs_hint: None,
        ready: std::sync::Arc::new(|| Ok(())),
        metrics: std::sync::Arc::new(String::new),
    };
    let targets = Targets::new(["https://hooks.example.com".parse().unwrap()], []);
    Gateway::with_webhooks(fake.clone(), info, targets)
}

/// A watch that the next call opens.
fn opens(fake: &Fake) {
    let (_, events) = mpsc::unbounded_channel();
    fake.watches.lock().unwrap().push_back(Ok(Told { events, token: TOKEN.parse().unwrap() }));
}

fn view() -> HookView {
    HookView {
        name: name("h1"),
        url: "https://hooks.example.com/a".into(),
        patterns: vec![Pattern { kind: Kind::Lock, name: "orders/".into(), prefix: true }],
        created: WallMs(1_765_800_000_000),
        epoch: HookEpoch(9),
        cursor: Cursor::from(&TOKEN.parse::<WatchToken>().unwrap()),
        dead: 2,
        again: 1,
        delivered: 40,
        failed: 16,
        lost: 3,
        error: Some("status 500".into()),
    }
}

#[tokio::test]
async fn a_webhook_is_made_with_what_is_watched_and_answers_its_secret_once() {
    let fake = Fake::new();
    opens(&fake);
    fake.will(Outcome::HookChanged { epoch: HookEpoch(1), letters: 0 });
    let body = json!({
        "url": "https://hooks.example.com/a", "config": ["p/1", "p/2"], "prefix": "orders/", "kind": "lock",
    });
    let response = gateway(&fake).handle(request("POST", "/api/v1/webhooks", body.to_string())).await;
    let id = format!("{:032x}", 42);
    assert_eq!(response.headers()["location"], format!("/api/v1/webhooks/{id}"));
    let (status, made) = document(response).await;
    assert_eq!((status, &made["webhookId"]), (201, &json!(id)));
    let patterns = vec![
        Pattern { kind: Kind::Config, name: "p/1".into(), prefix: false },
        Pattern { kind: Kind::Config, name: "p/2".into(), prefix: false },
        Pattern { kind: Kind::Lock, name: "orders/".into(), prefix: true },
    ];
    assert_eq!(*fake.watched.lock().unwrap(), [(patterns.clone(), None)], "it is known to be good before it is made");
    let asked = SetHook {
        request: 42,
        key: Key::hook(name(&id)),
        url: "https://hooks.example.com/a".into(),
        patterns,
        secret: Secret::new(made["secret"].as_str().unwrap()),
        cursor: Cursor::from(&TOKEN.parse::<WatchToken>().unwrap()),
    };
    assert_eq!(fake.asked(), [Command::SetHook(asked)]);
}

#[tokio::test]
async fn what_is_not_allowed_is_refused_before_the_cluster_is_asked() {
    let fake = Fake::new();
    for (gateway, url, expected) in [
        (fake.gateway(), "https://hooks.example.com/a", (403, "webhooks-off")),
        (gateway(&fake), "https://hooks.example.com:444/a", (403, "target-not-allowed")),
        (gateway(&fake), "http://hooks.example.com/a", (403, "target-not-allowed")),
        (gateway(&fake), "https://u@hooks.example.com/a", (422, "invalid-field")),
        (gateway(&fake), "nonsense", (422, "invalid-field")),
    ] {
        let body = json!({ "url": url, "prefix": "" }).to_string();
        let (status, problem) = send(&gateway, "POST", "/api/v1/webhooks", body).await;
        assert_eq!((status, problem["code"].as_str().unwrap()), expected, "{url}: {problem}");
    }
    assert!(fake.asked().is_empty() && fake.watched.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_webhook_is_shown_with_what_is_in_its_way() {
    let fake = Fake::new();
    let gateway = gateway(&fake);
    let shown = json!({
        "webhookId": "h1", "url": "https://hooks.example.com/a", "patterns": [{"kind": "lock", "prefix": "orders/"}],
        "createdAt": "2025-12-15T12:00:00.000Z", "status": "failing", "lastError": "status 500", "delivered": 40,
        "failedAttempts": 16, "deadLetters": 2, "redriven": 1, "lostDeadLetters": 3, "token": TOKEN,
    });
    fake.answers(Answer::Hook(Some(view())));
    assert_eq!(send(&gateway, "GET", "/api/v1/webhooks/h1", "").await, (200, shown.clone()));
    fake.answers(Answer::Hooks(vec![view()]));
    let (_, page) = send(&gateway, "GET", "/api/v1/webhooks?limit=1", "").await;
    assert_eq!(page, json!({ "webhooks": [shown], "next": "h1" }));
    fake.answers(Answer::Hook(None));
    let (status, problem) = send(&gateway, "GET", "/api/v1/webhooks/h2", "").await;
    assert_eq!((status, &problem["code"]), (404, &json!("no-such-webhook")));
}

#[tokio::test]
async fn dead_letters_are_listed_and_settled() {
    let fake = Fake::new();
    let gateway = gateway(&fake);
    let key = Key::config(name("p/1"));
    let what = What::Configured {
        version: Version(3),
        deleted: false,
        content_type: "text/plain".into(),
        size: 2,
        value: Some(Blob::new(b"hi")),
    };
    let event = Some(Event { revision: Revision(7), at: WallMs(1_765_800_000_000), key, what });
    let died = WallMs(1_765_800_060_000);
    let letter = |event, revision| DeadLetter {
        shard: ShardId(4),
        revision: Revision(revision),
        event,
        attempts: 8,
        error: "status 500".into(),
        died,
    };
    fake.answers(Answer::DeadLetters(Some(vec![letter(event, 7), letter(None, 90)])));
    let (status, listed) = send(&gateway, "GET", "/api/v1/webhooks/h1/dead", "").await;
    let [first, gap] = listed["deadLetters"].as_array().unwrap().as_slice() else { panic!("{status} {listed}") };
    assert_eq!((&first["deliveryId"], &first["attempts"]), (&json!("4-7"), &json!(8)));
    assert_eq!((&first["event"]["name"], &first["event"]["value"]), (&json!("p/1"), &json!("hi")));
    assert_eq!(first["diedAt"], "2025-12-15T12:01:00.000Z");
    assert_eq!((&gap["deliveryId"], &gap["event"]), (&json!("gap-90"), &json!({ "event": "compacted" })));

    for (method, path, redeliver) in
        [("POST", "/api/v1/webhooks/h1/redrive", true), ("DELETE", "/api/v1/webhooks/h1/dead", false)]
    {
        fake.will(Outcome::HookChanged { epoch: HookEpoch(3), letters: 2 });
        let done: (u16, Value) = send(&gateway, method, path, "").await;
        assert_eq!(done, (200, json!({ "success": true, "deadLetters": 2 })));
        let settled = SettleDead { request: 42, key: Key::hook(name("h1")), redeliver };
        assert_eq!(fake.asked().pop(), Some(Command::SettleDead(settled)));
    }
    fake.will(Outcome::NoHook);
    let (status, _) = send(&gateway, "DELETE", "/api/v1/webhooks/h1", "").await;
    assert_eq!(status, 404);
    assert_eq!(fake.asked().pop(), Some(Command::DropHook { request: 42, key: Key::hook(name("h1")) }));
}
