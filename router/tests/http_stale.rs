//! Reads that may be old: how they are asked for, and how their age is told.

mod http_support;

use std::time::Duration;

use http_support::*;
use serde_json::json;
use wardlock_machine::*;
use wardlock_router::Error;

/// Sends a `GET`; its status, its age as the header has it, and its body.
async fn get(fake: &Fake, path: &str) -> (u16, Option<String>, serde_json::Value) {
    let response = fake.gateway().handle(request("GET", path, "")).await;
    let age = response.headers().get("wardlock-age").map(|age| age.to_str().unwrap().to_owned());
    let (status, body) = document(response).await;
    (status, age, body)
}

fn config() -> ConfigView {
    ConfigView {
        path: name("app/db"),
        version: Version(3),
        revision: Revision(9),
        updated: WallMs(1_765_792_800_000),
        deleted: false,
        content_type: "text/plain".into(),
        size: 1,
        value: Some(Blob::new(b"1")),
    }
}

fn view() -> SessionView {
    SessionView {
        session: SESSION,
        client_id: "worker-7".into(),
        ttl: Millis(10_000),
        created: WallMs(1_765_792_800_000),
        metadata: Metadata::new(),
        shards: Vec::new(),
        closing: false,
    }
}

#[tokio::test]
async fn every_read_may_be_stale_and_says_its_age() {
    let held = |key| Answer::Object(Some(object(key, led(7, "candidate"), 5)));
    let session = format!("/api/v1/sessions/{SESSION}");
    let reads = [
        ("/api/v1/locks/orders", held(Key::lock(name("orders")))),
        ("/api/v1/locks", Answer::List(vec![object(Key::lock(name("orders")), grant(7), 5)])),
        ("/api/v1/leader/primary", held(Key::election(name("primary")))),
        (session.as_str(), Answer::Session(Ok(view()))),
        ("/api/v1/sessions", Answer::Sessions(vec![view()])),
        ("/api/v1/config/app%2Fdb", Answer::Config(Some(config()))),
        ("/api/v1/config/app%2Fdb?versions", Answer::Versions(vec![config()])),
        ("/api/v1/config?prefix=app", Answer::Configs(vec![config()])),
    ];
    for (path, answer) in reads {
        let fake = Fake::new();
        fake.answers(answer);
        fake.ages.lock().unwrap().push_back(Some(Duration::from_micros(12_500)));
        let separator = if path.contains('?') { '&' } else { '?' };
        let (status, age, body) = get(&fake, &format!("{path}{separator}consistency=stale&maxAge=0.5")).await;
        assert_eq!((status, age.as_deref()), (200, Some("0.013")), "{path}: {body}");
        assert_eq!(*fake.bounds.lock().unwrap(), [Some(Duration::from_millis(500))], "{path}");
    }
}

#[tokio::test]
async fn an_age_that_nobody_knows_is_said_to_be_unknown_and_a_linearizable_read_has_none() {
    let fake = Fake::new();
    fake.answers(Answer::Object(None)).answers(Answer::Object(None));
    fake.ages.lock().unwrap().push_back(None);
    let (status, age, _) = get(&fake, "/api/v1/locks/orders?consistency=stale").await;
    assert_eq!((status, age.as_deref()), (404, Some("unknown")), "what is not there may be there by now");
    let (status, age, _) = get(&fake, "/api/v1/locks/orders?consistency=linearizable").await;
    assert_eq!((status, age), (404, None));
}

#[tokio::test]
async fn a_bound_that_no_replica_meets_is_a_503_that_may_be_repeated() {
    let fake = Fake::new();
    fake.answers.lock().unwrap().push_back(Err(Error::TooStale));
    let response = fake.gateway().handle(request("GET", "/api/v1/locks/orders?consistency=stale&maxAge=0", "")).await;
    assert_eq!(response.headers()["retry-after"], "1");
    let (status, body) = document(response).await;
    assert_eq!((status, &body["code"]), (503, &json!("too-stale")), "{body}");
}

#[tokio::test]
async fn wrong_parameters_are_refused_by_name() {
    for (query, field) in [
        ("consistency=eventual", "consistency"),
        ("consistency=", "consistency"),
        ("maxAge=1", "maxAge"),
        ("consistency=linearizable&maxAge=1", "maxAge"),
        ("consistency=stale&maxAge=-1", "maxAge"),
        ("consistency=stale&maxAge=soon", "maxAge"),
        ("consistency=stale&maxAge=3601", "maxAge"),
        ("consistency=stale&consistency=stale", "consistency"),
    ] {
        let (status, _, body) = get(&Fake::new(), &format!("/api/v1/locks/orders?{query}")).await;
        assert_eq!((status, &body["field"]), (422, &json!(field)), "{query}: {body}");
    }
}

#[tokio::test]
async fn a_batch_tells_each_age() {
    let fake = Fake::new();
    fake.answers(Answer::Object(Some(object(Key::lock(name("a")), grant(7), 5))));
    fake.ages.lock().unwrap().push_back(Some(Duration::from_millis(40)));
    let body = json!({"requests": [{"method": "GET", "path": "/locks/a?consistency=stale"}]}).to_string();
    let (status, body) = send(&fake.gateway(), "POST", "/api/v1/batch", body).await;
    assert_eq!((status, &body["responses"][0]["ageMs"]), (200, &json!(40)), "{body}");
}
