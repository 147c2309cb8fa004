//! Wrong requests: each is refused by name, and none reaches the cluster.

mod http_support;

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http_support::*;
use serde_json::Value;
use wardlock_machine::{Grant, Outcome};

const ACQUIRE: &str = "/api/v1/locks/a/acquire";
const SID: &str = r#""sessionId": "00010000000000000000000000009f3c""#;

async fn refuse(path: &str, body: impl Into<Bytes>) -> (u16, Value) {
    let fake = Fake::new();
    let answer = send(&fake.gateway(), "POST", path, body).await;
    assert!(fake.asked().is_empty(), "a refused request changes nothing");
    answer
}

#[tokio::test]
async fn wrong_fields_are_named() {
    for (fields, field) in [
        (r#""timeout": -1"#, "timeout"),
        (r#""timeout": 0"#, "timeout"),
        (r#""timeout": 0.05"#, "timeout"),
        (r#""timeout": 1e300"#, "timeout"),
        (r#""timeout": 1e999"#, "timeout"),
        (r#""timeout": 2592000.001"#, "timeout"),
        (r#""timeout": 99999999999999999999999"#, "timeout"),
        (r#""timeout": NaN"#, "timeout"),
        (r#""timeout": Infinity"#, "timeout"),
        (r#""timeout": "30""#, "timeout"),
        (r#""timeout": true"#, "timeout"),
        (r#""timeout": [1]"#, "timeout"),
        (r#""wait": -0.001"#, "wait"),
        (r#""wait": 1e12"#, "wait"),
        (r#""lockDelay": -1"#, "lockDelay"),
        (r#""priority": 1.5"#, "priority"),
        (r#""priority": 2147483648"#, "priority"),
        (r#""priority": "high""#, "priority"),
        (r#""permits": 0"#, "permits"),
        (r#""permits": -1"#, "permits"),
        (r#""permits": 10001"#, "permits"),
        (r#""permits": 1.5"#, "permits"),
        (r#""permits": 2, "mode": "shared""#, "permits"),
        (r#""mode": "semaphore""#, "permits"),
        (r#""mode": "intent-shared""#, "mode"),
        (r#""mode": "Exclusive""#, "mode"),
        (r#""mode": 1"#, "mode"),
        (r#""metadata": [] "#, "metadata"),
        (r#""metadata": {"pid": 1}"#, "metadata"),
        (r#""color": "red""#, "color"),
        (r#""Timeout": 30"#, "Timeout"),
        (r#""timeout": 30, "timeout": 31"#, "timeout"),
    ] {
        let (status, problem) = refuse(ACQUIRE, format!("{{{SID}, {fields}}}")).await;
        assert_eq!((status, problem["field"].as_str()), (422, Some(field)), "{fields}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(field), "{problem}");
    }
    let many: Vec<_> = (0..33).map(|n| format!(r#""k{n}": "v""#)).collect();
    let long = "v".repeat(4097);
    for metadata in [many.join(","), format!(r#""k": "{long}""#)] {
        let (status, problem) = refuse(ACQUIRE, format!(r#"{{{SID}, "metadata": {{{metadata}}}}}"#)).await;
        assert_eq!((status, problem["field"].as_str()), (422, Some("metadata")));
    }
}

#[tokio::test]
async fn bounds_are_told() {
    let (_, problem) = refuse(ACQUIRE, format!(r#"{{{SID}, "timeout": 1e9}}"#)).await;
    assert_eq!(problem["detail"], "timeout: must be from 0.1 to 2592000 seconds");
    let (_, problem) = refuse("/api/v1/sessions", r#"{"clientId": "w", "ttl": 0.5}"#).await;
    assert_eq!(problem["detail"], "ttl: must be from 1 to 86400 seconds");
}

#[tokio::test]
async fn wrong_ids_and_labels_are_named() {
    let long = "x".repeat(257);
    for (path, body, field) in [
        (ACQUIRE, r#"{}"#.to_owned(), "sessionId"),
        (ACQUIRE, String::new(), "sessionId"),
        (ACQUIRE, r#"{"sessionId": null}"#.into(), "sessionId"),
        (ACQUIRE, r#"{"sessionId": "me"}"#.into(), "sessionId"),
        (ACQUIRE, r#"{"sessionId": 7}"#.into(), "sessionId"),
        ("/api/v1/locks/a/release", r#"{}"#.into(), "lockId"),
        ("/api/v1/locks/a/release", r#"{"lockId": "x-1"}"#.into(), "lockId"),
        ("/api/v1/locks/a/release", r#"{"lockId": "00010000000000000000000000009f3c-01"}"#.into(), "lockId"),
        ("/api/v1/locks/a/break", r#"{}"#.into(), "reason"),
        ("/api/v1/locks/a/break", r#"{"reason": ""}"#.into(), "reason"),
        ("/api/v1/sessions", r#"{}"#.into(), "clientId"),
        ("/api/v1/sessions", format!(r#"{{"clientId": "{long}"}}"#), "clientId"),
        ("/api/v1/leader/election/e", format!("{{{SID}}}"), "candidateId"),
        ("/api/v1/leader/election/e", format!(r#"{{{SID}, "candidateId": "c", "timeout": 1}}"#), "timeout"),
    ] {
        let (status, problem) = refuse(path, body.clone()).await;
        assert_eq!((status, problem["field"].as_str()), (422, Some(field)), "{path} {body}: {problem}");
    }
}

#[tokio::test]
async fn what_is_no_json_object_is_refused() {
    let deep = format!("{{{SID}, \"metadata\": {}1{}}}", "[".repeat(30_000), "]".repeat(30_000));
    for body in [
        Bytes::from_static(b"[]"),
        Bytes::from_static(b"null"),
        Bytes::from_static(b"{"),
        Bytes::from_static(b"{} {}"),
        Bytes::from_static(b"sessionId=1"),
        Bytes::from_static(b"{\"sessionId\": \"\xff\"}"),
        Bytes::from_static(b"\xef\xbb\xbf{}"),
        Bytes::from(deep),
        Bytes::from(format!("{{{}}}", (0..65).map(|n| format!("\"f{n}\": 1")).collect::<Vec<_>>().join(","))),
    ] {
        let start = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        assert_eq!(refuse(ACQUIRE, body).await.0, 422, "{start}");
    }
}

#[tokio::test]
async fn bodies_are_bounded_announced_or_not() {
    let big = format!("{{{SID}, \"metadata\": \"{}\"}}", "x".repeat(64 * 1024));
    let (status, problem) = refuse(ACQUIRE, big).await;
    assert_eq!((status, &problem["code"]), (413, &"too-large".into()));

    // Chunks without an announced length, more of them than anybody should read.
    let fake = Fake::new();
    let chunks = stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(&[b' '; 1024])));
    let endless = http::Request::post(ACQUIRE).body(axum::body::Body::from_stream(chunks)).unwrap();
    assert_eq!(fake.gateway().handle(endless).await.status(), 413);

    let body = format!("{{{SID}}}");
    let pieces: Vec<_> = body.as_bytes().chunks(7).map(|c| Ok::<_, Infallible>(Bytes::copy_from_slice(c))).collect();
    fake.will(Outcome::Granted(Grant { ..grant(1) }));
    let chunked = http::Request::post(ACQUIRE).body(axum::body::Body::from_stream(stream::iter(pieces))).unwrap();
    assert_eq!(fake.gateway().handle(chunked).await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let never = axum::body::Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
    let request = http::Request::post(ACQUIRE).body(never).unwrap();
    assert_eq!(Fake::new().gateway().handle(request).await.status(), 408);
}

#[tokio::test]
async fn content_types() {
    for (given, status) in [
        (None, 200),
        (Some("application/json"), 200),
        (Some("Application/JSON; charset=utf-8"), 200),
        (Some("application/merge-patch+json"), 200),
        // What `curl -d` says of any body.
        (Some("application/x-www-form-urlencoded"), 200),
        (Some("text/plain"), 415),
        (Some("multipart/form-data; boundary=x"), 415),
        (Some("application/+json"), 415),
        (Some("application/jsonp"), 415),
        (Some(""), 415),
    ] {
        let fake = Fake::new();
        fake.will(Outcome::Granted(grant(1)));
        let mut request = request("POST", ACQUIRE, format!("{{{SID}}}"));
        if let Some(given) = given {
            request.headers_mut().insert("content-type", given.parse().unwrap());
        }
        assert_eq!(fake.gateway().handle(request).await.status(), status, "{given:?}");
    }
}

#[tokio::test]
async fn headers_that_bound_a_call() {
    for (given, status) in
        [("0.1", 200), ("60", 200), ("0", 422), ("61", 422), ("NaN", 422), ("inf", 422), ("soon", 422)]
    {
        let fake = Fake::new();
        fake.will(Outcome::Granted(grant(1)));
        let mut request = request("POST", ACQUIRE, format!("{{{SID}}}"));
        request.headers_mut().insert("x-wardlock-timeout", given.parse().unwrap());
        assert_eq!(fake.gateway().handle(request).await.status(), status, "{given}");
    }
    let (status, _) = refuse(&format!("{ACQUIRE}?wait=5"), format!("{{{SID}}}")).await;
    assert_eq!(status, 422, "a body's field in the query would be ignored");
}

#[tokio::test]
async fn pages_of_other_sites_are_refused() {
    for (site, status) in [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)] {
        let mut request = request("GET", "/livez", "");
        request.headers_mut().insert("sec-fetch-site", site.parse().unwrap());
        assert_eq!(Fake::new().gateway().handle(request).await.status(), status, "{site}");
    }
    for (origin, status) in [("http://evil.example", 403), ("null", 403), ("http://127.0.0.1:7400", 200)] {
        let mut request = request("GET", "/livez", "");
        request.headers_mut().insert("host", "127.0.0.1:7400".parse().unwrap());
        request.headers_mut().insert("origin", origin.parse().unwrap());
        assert_eq!(Fake::new().gateway().handle(request).await.status(), status, "{origin}");
    }
}
