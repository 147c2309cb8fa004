//! What is wrong is refused by a stable code, in a problem document, and changes nothing.

use std::time::Duration;

use serde_json::json;

use crate::support::{Dev, alone};

/// Two locks, in whichever shards: their ids differ even where their tokens do not.
const KEPT: &str = "tests/kept";
const ELSEWHERE: &str = "tests/elsewhere";

/// Everything that callers can see of locks, elections and sessions.
fn seen(dev: &Dev) -> String {
    let pages = ["/locks?limit=1000", "/sessions?limit=1000", &format!("/locks/{KEPT}"), "/leader/kept"];
    pages.map(|page| dev.get(page).body).join("\n")
}

#[test]
fn bad_input_is_named_and_changes_nothing() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path(), &["--shards", "4"]);
    let (mine, closed) = (dev.open("mine", 3600.0), dev.open("closed", 3600.0));
    let kept = dev.acquire(KEPT, &mine).text("lockId");
    let elsewhere = dev.acquire(ELSEWHERE, &mine).text("lockId");
    let led = dev.post("/leader/election/kept", &json!({"candidateId": "c", "sessionId": mine}));
    assert_eq!(led.status, 200, "{led:?}");
    let short = dev.post("/locks/short/acquire", &json!({"timeout": 0.2, "sessionId": mine})).text("lockId");
    dev.until("/locks/short", Duration::from_secs(10), |shown| shown.status == 404);
    assert_eq!(dev.call("DELETE", &format!("/sessions/{closed}"), "", &[]).status, 200);
    let mut unknown = mine.clone().into_bytes();
    unknown[31] = if unknown[31] == b'0' { b'1' } else { b'0' };
    let unknown = String::from_utf8(unknown).unwrap();

    let before = seen(&dev);
    assert!(before.contains("/elsewhere\"") && before.contains("\"mine\""), "{before}");
    let check = |method: &str, path: &str, body: &str, status: u16, code: &str| {
        let headers: &[_] = if body.is_empty() { &[] } else { &[("content-type", "application/json")] };
        let answer = dev.call(method, path, body, headers);
        let shown = &body[..body.len().min(120)];
        assert_eq!(answer.status, status, "{method} {path} {shown}: {answer:?}");
        assert_eq!(answer.problem(), code, "{method} {path} {shown}: {answer:?}");
    };
    let acquire = |fields: &str, status: u16, code: &str| {
        check("POST", "/locks/new/acquire", &format!(r#"{{"sessionId":"{mine}"{fields}}}"#), status, code);
    };
    let with = |session: &str| format!(r#"{{"sessionId":"{session}"}}"#);
    let by = |lock_id: &str| format!(r#"{{"lockId":"{lock_id}"}}"#);

    // Sessions that are not there any more, or never were.
    check("POST", "/locks/new/acquire", &with(&unknown), 404, "unknown-session");
    check("POST", "/locks/new/acquire", &with(&closed), 410, "session-ended");
    check("GET", &format!("/sessions/{unknown}"), "", 404, "unknown-session");
    check("GET", "/sessions/nonsense", "", 404, "unknown-session");
    check("GET", &format!("/sessions/{closed}"), "", 410, "session-ended");
    check("POST", &format!("/sessions/{closed}/keepalive"), "", 410, "session-ended");
    check("POST", &format!("/sessions/{unknown}/keepalive"), "", 404, "unknown-session");
    let campaign = format!(r#"{{"candidateId":"c","sessionId":"{unknown}"}}"#);
    check("POST", "/leader/election/new", &campaign, 404, "unknown-session");

    // Lock ids of others, of the past, of nobody.
    let kept_release = format!("/locks/{KEPT}/release");
    check("POST", &kept_release, &by(&elsewhere), 409, "foreign-lock-id");
    check("POST", &format!("/locks/{KEPT}/renew"), &by(&elsewhere), 409, "foreign-lock-id");
    check("POST", "/locks/short/release", &by(&short), 410, "expired");
    check("POST", "/locks/short/renew", &by(&short), 410, "expired");
    check("POST", &kept_release, &by("nonsense"), 422, "invalid-field");
    let (of, tag) = kept.rsplit_once('-').expect("a lock id ends with its lock's tag");
    check("POST", &kept_release, &by(&format!("{of}0-{tag}")), 409, "foreign-lock-id");
    check("POST", &kept_release, "{}", 422, "missing-field");
    check("POST", &format!("/locks/{KEPT}/acquire"), &with(&mine), 409, "already-held");

    // Names.
    let long = "n".repeat(1025);
    for name in ["", &long, "%FF", "%ff%fe", "%C3", "%zz", "%2", "%"] {
        check("POST", &format!("/locks/{name}/acquire"), &with(&mine), 422, "invalid-name");
        check("GET", &format!("/locks/{name}"), "", 422, "invalid-name");
        check("POST", &format!("/leader/election/{name}"), &campaign, 422, "invalid-name");
    }

    // Durations.
    for wrong in ["-1", "0", "0.05", "1e300", "-1e300", "1e15", "\"30\"", "true", "[]", "{}"] {
        acquire(&format!(r#","timeout":{wrong}"#), 422, "invalid-field");
    }
    for wrong in ["-0.001", "1e300", "\"1\""] {
        acquire(&format!(r#","wait":{wrong}"#), 422, "invalid-field");
        acquire(&format!(r#","lockDelay":{wrong}"#), 422, "invalid-field");
    }
    for wrong in ["NaN", "Infinity", "1e999", "1."] {
        acquire(&format!(r#","timeout":{wrong}"#), 422, "invalid-field");
    }
    for wrong in ["0", "-1", "0.5", "1e9", "\"10\""] {
        let body = format!(r#"{{"clientId":"new","ttl":{wrong}}}"#);
        check("POST", "/sessions", &body, 422, "invalid-field");
    }

    acquire(r#","timeout":0x10"#, 422, "invalid-json");

    // Other fields.
    acquire(r#","mode":"sideways""#, 422, "invalid-field");
    acquire(r#","mode":7"#, 422, "invalid-field");
    acquire(r#","permits":0"#, 422, "invalid-field");
    acquire(r#","permits":100000"#, 422, "invalid-field");
    acquire(r#","priority":1.5"#, 422, "invalid-field");
    acquire(r#","metadata":{"k":1}"#, 422, "invalid-field");
    acquire(r#","tiemout":30"#, 422, "unknown-field");
    acquire(&format!(r#","sessionId":"{mine}""#), 422, "invalid-field");
    check("POST", "/locks/new/acquire", r#"{"sessionId":7}"#, 422, "invalid-field");
    check("POST", "/locks/new/acquire", r#"{"sessionId":"7"}"#, 422, "invalid-field");
    check("POST", "/locks/new/acquire", r#"{"timeout":30}"#, 422, "missing-field");
    check("POST", "/leader/election/new", &with(&mine), 422, "missing-field");
    check("POST", "/sessions", "{}", 422, "missing-field");
    check("POST", "/sessions", r#"{"clientId":""}"#, 422, "invalid-field");
    check("POST", "/sessions", &format!(r#"{{"clientId":"{}"}}"#, "c".repeat(257)), 422, "invalid-field");
    check("POST", "/locks/kept/break", "{}", 422, "missing-field");
    check("POST", "/fence/check", r#"{"checks":[{"name":"kept","fencingToken":-1}]}"#, 422, "invalid-field");
    check("POST", "/fence/check", r#"{"checks":[{"name":"","fencingToken":1}]}"#, 422, "invalid-field");
    check("POST", "/cluster/shards/999/transfer", r#"{"to":1}"#, 404, "unknown-shard");
    check("POST", "/cluster/shards/1/transfer", r#"{"to":9}"#, 422, "invalid-field");
    check("GET", "/locks?limit=0", "", 422, "invalid-field");
    check("GET", "/locks?held=maybe", "", 422, "invalid-field");
    check("GET", "/locks?sideways=1", "", 422, "unknown-parameter");

    // Bodies.
    for broken in ["{", "[]", "\"text\"", "nonsense", "{} {}", "{'sessionId':1}", "\u{1}"] {
        check("POST", "/locks/new/acquire", broken, 422, "invalid-json");
    }
    check("POST", "/sessions", &format!(r#"{{"clientId":"{}"}}"#, "c".repeat(65 * 1024)), 413, "too-large");
    check("POST", "/locks/new/acquire", &format!("{}{}", with(&mine), " ".repeat(64 * 1024)), 413, "too-large");
    let text = dev.call("POST", "/locks/new/acquire", &with(&mine), &[("content-type", "text/plain")]);
    assert_eq!((text.status, text.problem().as_str()), (415, "unsupported-media-type"), "{text:?}");
    let json = ("content-type", "application/json");
    let foreign = dev.call("POST", "/locks/new/acquire", &with(&mine), &[json, ("sec-fetch-site", "cross-site")]);
    assert_eq!((foreign.status, foreign.problem().as_str()), (403, "cross-site"), "{foreign:?}");

    // Paths and methods.
    check("PUT", "/locks/new", "", 405, "method-not-allowed");
    check("POST", "/locks/new/steal", &with(&mine), 405, "method-not-allowed");
    check("DELETE", "/leader/kept", "", 405, "method-not-allowed");
    check("GET", "/nothing", "", 404, "unknown-path");
    check("GET", "/", "", 404, "unknown-path");

    assert_eq!(seen(&dev), before, "a refused request changed something");
    // What was refused above is possible where it is asked for rightly.
    assert_eq!(dev.acquire("new", &mine).status, 200);
    assert_eq!(dev.acquire(&"n".repeat(1024), &mine).status, 200);
    assert_eq!(dev.release(KEPT, &kept).status, 200);
    assert_eq!(dev.release(ELSEWHERE, &elsewhere).status, 200);
    assert!(dev.stop().success());
}
