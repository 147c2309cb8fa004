//! Watching over HTTP: what may be asked, streams, pages, gaps.

use std::{sync::Arc, time::Duration};

use http_body_util::BodyExt;
use serde_json::json;
use tokio::sync::mpsc;
use wardlock_machine::*;
use wardlock_placement::GroupId;
use wardlock_router::{Error, WatchError, WatchToken, Watched};

use self::http_support::*;

mod http_support;

/// Of the first incarnation, shard 1 at 5.
const TOKEN: &str = "AQEBAQU0k7EF";

type Sender = mpsc::UnboundedSender<Result<Watched, WatchError>>;

fn token() -> WatchToken {
    TOKEN.parse().unwrap()
}

/// A watch that the next call opens.
fn opens(fake: &Fake) -> Sender {
    let (sender, events) = mpsc::unbounded_channel();
    fake.watches.lock().unwrap().push_back(Ok(Told { events, token: token() }));
    sender
}

fn event(kind: Kind, what: What) -> Result<Watched, WatchError> {
    let key = Key { kind, name: name("orders/42") };
    let event = Event { revision: Revision(5), at: WallMs(1_765_800_000_000), key, what };
    Ok(Watched { shard: GroupId(1), event: Arc::new(event) })
}

fn granted() -> Result<Watched, WatchError> {
    let permits = Mode::Semaphore { permits: 3 };
    let what = What::Granted { lock_id: lock_id(7), mode: permits, holder: "worker-7".into(), value: None };
    event(Kind::Lock, what)
}

fn put(content_type: &str, value: Option<&[u8]>) -> Result<Watched, WatchError> {
    let what = What::Configured {
        version: Version(3),
        deleted: false,
        content_type: content_type.into(),
        size: 2,
        value: value.map(Blob::new),
    };
    event(Kind::Config, what)
}

#[tokio::test]
async fn a_watch_says_what_it_watches() {
    let pattern = |kind, name: &str, prefix| Pattern { kind, name: name.into(), prefix };
    let all = |name: &str| {
        [Kind::Lock, Kind::Election, Kind::Config, Kind::Service].map(|kind| pattern(kind, name, true)).to_vec()
    };
    for (query, patterns) in [
        ("lock=a%2Fb", vec![pattern(Kind::Lock, "a/b", false)]),
        ("election=a&config=a", vec![pattern(Kind::Election, "a", false), pattern(Kind::Config, "a", false)]),
        ("config=a&config=b", vec![pattern(Kind::Config, "a", false), pattern(Kind::Config, "b", false)]),
        ("prefix=app/", all("app/")),
        ("prefix=", all("")),
        ("prefix=app/&kind=config", vec![pattern(Kind::Config, "app/", true)]),
        (
            "service=a&kind=service&prefix=b",
            vec![pattern(Kind::Service, "a", false), pattern(Kind::Service, "b", true)],
        ),
        ("kind=lock&prefix=", vec![pattern(Kind::Lock, "", true)]),
    ] {
        let fake = Fake::new();
        opens(&fake);
        let (status, _) = send(&fake.gateway(), "GET", &format!("/api/v1/watch?wait=0&{query}"), "").await;
        assert_eq!(status, 200, "{query}");
        assert_eq!(*fake.watched.lock().unwrap(), [(patterns, None)], "{query}");
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_before_the_cluster_is_asked() {
    let fake = Fake::new();
    let gateway = fake.gateway();
    let long = "x".repeat(limits::NAME_BYTES + 1);
    for (query, code) in [
        ("", "missing-parameter"),
        ("lock=", "invalid-field"),
        ("kind=lock", "invalid-field"),
        ("kind=session&prefix=a", "invalid-field"),
        (&*format!("lock={long}"), "invalid-field"),
        ("lock=a&since=", "invalid-token"),
        ("lock=a&since=AAAA", "invalid-token"),
        ("lock=a&wait=x", "invalid-field"),
        ("lock=a&wait=-1", "invalid-field"),
        ("lock=a&wait=301", "invalid-field"),
        ("lock=a&wait=0&limit=0", "invalid-field"),
        ("lock=a&limit=5", "unknown-parameter"),
        ("lock=a&color=red", "unknown-parameter"),
        ("lock=%ff", "invalid-query"),
    ] {
        let (status, problem) = send(&gateway, "GET", &format!("/api/v1/watch?{query}"), "").await;
        assert_eq!((status, &problem["code"]), (422, &json!(code)), "{query}: {problem}");
    }
    let (status, _) = send(&gateway, "POST", "/api/v1/watch?lock=a", "").await;
    assert_eq!(status, 405);
    let batch = json!({ "requests": [{ "method": "GET", "path": "/watch?lock=a" }] }).to_string();
    let (_, answer) = send(&gateway, "POST", "/api/v1/batch", batch).await;
    assert_eq!(answer["responses"][0]["status"], 422);
    assert!(fake.watched.lock().unwrap().is_empty());
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let fake = Fake::new();
    let down = Error::Unavailable { retry_after: Duration::from_secs(2), why: "no leader".into() };
    for (error, status, code) in [
        (WatchError::Compacted { resume: token() }, 410, "compacted"),
        (WatchError::Restored, 410, "restored"),
        (WatchError::Token("of another time"), 422, "invalid-token"),
        (WatchError::Malformed("too many".into()), 422, "invalid-field"),
        (WatchError::Cluster(down), 503, "unavailable"),
    ] {
        fake.watches.lock().unwrap().push_back(Err(error.clone()));
        let (found, problem) = send(&fake.gateway(), "GET", "/api/v1/watch?lock=a", "").await;
        assert_eq!((found, &problem["code"]), (status, &json!(code)), "{error}");
        if let WatchError::Compacted { .. } = error {
            assert_eq!(problem["resume"], TOKEN);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_has_what_is_there_and_waits_for_what_is_not() {
    let fake = Fake::new();
    let gateway = fake.gateway();
    let events = opens(&fake);
    events.send(granted()).unwrap();
    events.send(put("application/json", Some(b"42"))).unwrap();
    events.send(put("text/plain", Some(b"on"))).unwrap();
    let (status, page) =
        send(&gateway, "GET", &format!("/api/v1/watch?prefix=&wait=9&limit=2&since={TOKEN}"), "").await;
    assert_eq!(status, 200);
    let at = "2025-12-15T12:00:00.000Z";
    let whose = json!({
        "event": "granted", "kind": "lock", "name": "orders/42", "at": at, "shard": 1, "revision": 5,
        "lockId": lock_id(7).to_string(), "sessionId": SESSION.to_string(), "fencingToken": 7,
        "holder": "worker-7", "mode": "semaphore", "permits": 3,
    });
    let value = json!({
        "event": "put", "kind": "config", "name": "orders/42", "at": at, "shard": 1, "revision": 5,
        "version": 3, "value": 42, "contentType": "application/json", "size": 2,
    });
    assert_eq!(page, json!({ "events": [whose, value], "next": TOKEN }));
    assert_eq!(fake.watched.lock().unwrap()[0].1, Some(token()));

    let events = opens(&fake);
    let later = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let ended = What::Ended { lock_id: lock_id(7), reason: EndReason::SessionExpired };
        events.send(event(Kind::Election, ended)).unwrap();
        events.send(Err(WatchError::Compacted { resume: token() })).unwrap();
    };
    let began = tokio::time::Instant::now();
    let path = "/api/v1/watch?election=orders%2F42&wait=9";
    let ((_, page), ()) = tokio::join!(send(&gateway, "GET", path, ""), later);
    assert_eq!(began.elapsed(), Duration::from_secs(3));
    assert_eq!(
        (&page["events"][0]["event"], &page["events"][0]["reason"]),
        (&json!("ended"), &json!("session-expired"))
    );
    assert_eq!(page["events"][1], json!(null), "the gap is told to the next");

    let _silent = opens(&fake);
    let (status, page) = send(&gateway, "GET", path, "").await;
    assert_eq!((status, page), (200, json!({ "events": [], "next": TOKEN })));
    assert_eq!(began.elapsed(), Duration::from_secs(12));

    let gap = opens(&fake);
    gap.send(Err(WatchError::Compacted { resume: token() })).unwrap();
    let (status, problem) = send(&gateway, "GET", path, "").await;
    assert_eq!((status, &problem["code"], &problem["resume"]), (410, &json!("compacted"), &json!(TOKEN)));
}

#[tokio::test(start_paused = true)]
async fn a_stream_tells_events_pulses_and_gaps() {
    let fake = Fake::new();
    let gateway = fake.gateway();
    let events = opens(&fake);
    let mut request = request("GET", "/api/v1/watch?config=orders%2F42", "");
    request.headers_mut().insert("last-event-id", TOKEN.parse().unwrap());
    let response = gateway.handle(request).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(fake.watched.lock().unwrap()[0].1, Some(token()));
    let mut body = response.into_body();
    let mut piece = async || {
        let frame = body.frame().await?.unwrap();
        Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
    };
    assert_eq!(piece().await.unwrap(), format!("retry: 1000\nid: {TOKEN}\n\n"));
    let began = tokio::time::Instant::now();
    assert_eq!(piece().await.unwrap(), format!("id: {TOKEN}\n\n"), "nothing happens");
    assert_eq!(began.elapsed(), Duration::from_secs(15));

    let deleted =
        What::Configured { version: Version(4), deleted: true, content_type: String::new(), size: 0, value: None };
    events.send(put("x/y", Some(&[0xff, 0]))).unwrap();
    events.send(put("x/y", None)).unwrap();
    events.send(event(Kind::Config, deleted)).unwrap();
    let told = piece().await.unwrap();
    let told: Vec<&str> = told.split("\n\n").collect();
    let common = r#""kind":"config","name":"orders/42","at":"2025-12-15T12:00:00.000Z","shard":1,"revision":5"#;
    let binary = r#""version":3,"value":"/wA=","encoding":"base64","contentType":"x/y","size":2"#;
    assert_eq!(told[0], format!("id: {TOKEN}\nevent: put\ndata: {{\"event\":\"put\",{common},{binary}}}"));
    let large = r#""version":3,"contentType":"x/y","size":2"#;
    assert_eq!(told[1], format!("id: {TOKEN}\nevent: put\ndata: {{\"event\":\"put\",{common},{large}}}"));
    let gone = format!("{{\"event\":\"deleted\",{common},\"version\":4}}");
    assert_eq!(told[2..], [&*format!("id: {TOKEN}\nevent: deleted\ndata: {gone}"), ""]);

    events.send(Err(WatchError::Compacted { resume: token() })).unwrap();
    let data = format!("{{\"code\":\"compacted\",\"resume\":\"{TOKEN}\"}}");
    assert_eq!(piece().await.unwrap(), format!("id: {TOKEN}\nevent: compacted\ndata: {data}\n\n"));
    events.send(granted()).unwrap();
    assert!(piece().await.unwrap().contains("event: granted"), "it goes on behind the gap");
    events.send(Err(WatchError::Restored)).unwrap();
    assert!(piece().await.unwrap().starts_with("event: restored\n"));
    assert_eq!(piece().await, None, "and ends there");
}
