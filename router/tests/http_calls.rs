//! What each call says to the cluster, and what it makes of each answer.

mod http_support;

use std::{sync::Arc, time::Duration};

use http_support::*;
use serde_json::{Value, json};
use wardlock_machine::*;
use wardlock_placement::{GroupId, NodeId};
use wardlock_router::{
    Error,
    http::{Gateway, GatewayInfo},
};
use wardlock_wire::KeptAlive;

const SID: &str = "00010000000000000000000000009f3c";

fn body(value: Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

#[tokio::test]
async fn acquire_to_the_letter() {
    let fake = Fake::new();
    fake.will(Outcome::Granted(grant(1042)));
    let ask = body(json!({"timeout": 30, "sessionId": SID}));
    let (status, answer) = send(&fake.gateway(), "POST", "/api/v1/locks/orders/42/acquire", ask).await;
    assert_eq!(status, 200);
    assert_eq!(
        answer,
        json!({
            "success": true, "lockId": format!("{SID}-1042-00000007"), "expiresAt": "2025-12-15T10:00:30.000Z",
            "fencingToken": 1042, "queuePosition": 0, "waitedMs": 12, "sessionTtl": 10, "revision": 5,
        })
    );
    let (command, patience) = fake.commands.lock().unwrap()[0].clone();
    assert_eq!(patience, Duration::from_secs(5));
    assert_eq!(
        command,
        Command::Acquire(Acquire {
            session: SESSION,
            request: RequestId::Keyed { key: 42 },
            key: Key::lock(name("orders/42")),
            mode: Mode::Exclusive,
            lease: Some(Millis(30_000)),
            wait: Millis(0),
            priority: 0,
            lock_delay: Millis(0),
            metadata: Metadata::new(),
            value: None,
        })
    );
}

#[tokio::test]
async fn acquire_with_everything() {
    let fake = Fake::new();
    fake.will(Outcome::Granted(Grant { expires: None, ..grant(1) }));
    let ask = body(json!({
        "sessionId": SID, "timeout": null, "permits": 3, "wait": 1.5, "priority": -2, "lockDelay": 0.25,
        "metadata": {"host": "h"},
    }));
    let (status, answer) = send(&fake.gateway(), "POST", "/api/v1/locks/a/acquire", ask).await;
    assert_eq!((status, &answer["expiresAt"]), (200, &Value::Null));
    let (command, patience) = fake.commands.lock().unwrap()[0].clone();
    let Command::Acquire(acquire) = command else { panic!("{command:?}") };
    assert_eq!(patience, Duration::from_millis(6_500));
    assert_eq!(acquire.mode, Mode::Semaphore { permits: 3 });
    assert_eq!((acquire.lease, acquire.wait, acquire.lock_delay), (None, Millis(1_500), Millis(250)));
    assert_eq!((acquire.priority, acquire.metadata["host"].as_str()), (-2, "h"));
}

#[tokio::test]
async fn every_outcome_of_an_acquire_has_its_status() {
    for (outcome, status, code) in [
        (Outcome::Held(blocked()), 409, "held"),
        (Outcome::WaitTimeout(blocked()), 409, "wait-timeout"),
        (Outcome::AlreadyHeld(grant(3)), 409, "already-held"),
        (Outcome::Mismatch { mode: Mode::Semaphore { permits: 2 } }, 409, "mode-mismatch"),
        (Outcome::Cancelled, 409, "cancelled"),
        (Outcome::Deadlock(Circle::default()), 409, "deadlock"),
        (Outcome::TooOld, 409, "request-too-old"),
        (Outcome::Foreign, 409, "foreign-lock-id"),
        (Outcome::IdTaken, 409, "id-taken"),
        (Outcome::Expired, 410, "expired"),
        (Outcome::Closing, 410, "session-ended"),
        (Outcome::Ended, 410, "session-ended"),
        (Outcome::UnknownSession, 404, "unknown-session"),
        (Outcome::Limit(Limit::Waiters), 429, "quota"),
        (Outcome::Limit(Limit::Holders), 429, "quota"),
        (Outcome::Limit(Limit::GrantsPerSession), 429, "quota"),
        (Outcome::Limit(Limit::Sessions), 429, "quota"),
        (Outcome::Limit(Limit::Tokens), 429, "quota"),
        (Outcome::Limit(Limit::Field), 422, "invalid-field"),
        (Outcome::NotAttached, 503, "unavailable"),
        (Outcome::StaleEpoch { current: RangeEpoch(2) }, 503, "unavailable"),
        (Outcome::StaleTerm, 503, "unavailable"),
        (Outcome::Queued { position: 4 }, 504, "outcome-unknown"),
        (Outcome::Done, 500, "internal"),
        (Outcome::Released, 500, "internal"),
        (Outcome::Renewed(grant(1)), 500, "internal"),
        (Outcome::Broken(vec![]), 500, "internal"),
        (Outcome::Opened { created: WallMs(0) }, 500, "internal"),
        (Outcome::Pending { nonce: Nonce(1) }, 500, "internal"),
        (Outcome::Dropped { more: false }, 500, "internal"),
    ] {
        let fake = Fake::new();
        fake.will(outcome.clone());
        let ask = body(json!({"sessionId": SID}));
        let (got, problem) = send(&fake.gateway(), "POST", "/api/v1/locks/a/acquire", ask).await;
        assert_eq!((got, problem["code"].as_str()), (status, Some(code)), "{outcome:?}");
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], format!("urn:wardlock:problem:{code}"));
        if matches!(status, 409 | 410) {
            assert_eq!(problem["success"], false, "{outcome:?}");
        }
    }
}

#[tokio::test]
async fn a_refused_acquire_says_who_holds_it() {
    let fake = Fake::new();
    fake.will(Outcome::Held(blocked())).will(Outcome::AlreadyHeld(grant(3)));
    let gateway = fake.gateway();
    let response = gateway.handle(request("POST", "/api/v1/locks/a/acquire", body(json!({"sessionId": SID})))).await;
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let (_, problem) = document(response).await;
    assert_eq!((&problem["holder"], &problem["waiters"]), (&json!("worker-7"), &json!(2)));
    assert_eq!(problem["holders"][0]["fencingToken"], 9);
    let (_, problem) = send(&gateway, "POST", "/api/v1/locks/a/acquire", body(json!({"sessionId": SID}))).await;
    assert_eq!(problem["lockId"], format!("{SID}-3-00000007"));
}

#[tokio::test]
async fn every_error_has_its_status() {
    let why = || "no quorum".to_owned();
    for (error, status, code, retry) in [
        (Error::Unavailable { retry_after: Duration::from_millis(1_200), why: why() }, 503, "unavailable", Some("2")),
        (Error::Unreachable { why: why() }, 503, "unavailable", Some("1")),
        (Error::DiskFull, 503, "disk-full", Some("10")),
        (Error::Overloaded, 503, "overloaded", Some("1")),
        (Error::OutcomeUnknown, 504, "outcome-unknown", None),
        (Error::NotAllowed(why()), 403, "not-allowed", None),
        (Error::Malformed(why()), 422, "invalid", None),
    ] {
        let fake = Fake::new();
        fake.fails(error.clone());
        let ask = body(json!({"lockId": lock_id(1).to_string()}));
        let response = fake.gateway().handle(request("POST", "/api/v1/locks/a/release", ask)).await;
        let after = response.headers().get("retry-after").map(|v| v.to_str().unwrap().to_owned());
        assert_eq!(after.as_deref(), retry, "{error:?}");
        let (got, problem) = document(response).await;
        assert_eq!((got, problem["code"].as_str()), (status, Some(code)), "{error:?}");
        assert_eq!(problem.get("outcome").is_some(), status == 504);
    }
}

#[tokio::test]
async fn release_renew_break() {
    let fake = Fake::new();
    let gateway = fake.gateway();
    let ask = || body(json!({"lockId": lock_id(7).to_string()}));
    fake.will(Outcome::Released);
    assert_eq!(send(&gateway, "POST", "/api/v1/locks/a/release", ask()).await, (200, json!({"success": true})));
    fake.will(Outcome::Expired);
    let (status, problem) = send(&gateway, "POST", "/api/v1/locks/a/release", ask()).await;
    assert_eq!((status, &problem["code"], &problem["success"]), (410, &json!("expired"), &json!(false)));
    fake.will(Outcome::Renewed(grant(7)));
    let renew = body(json!({"lockId": lock_id(7).to_string(), "timeout": 0.5}));
    let (status, answer) = send(&gateway, "POST", "/api/v1/locks/a/renew", renew).await;
    assert_eq!((status, &answer["fencingToken"]), (200, &json!(7)));
    fake.will(Outcome::Broken(vec![grant(7)])).will(Outcome::Broken(vec![]));
    let why = || body(json!({"reason": "stuck"}));
    let (status, answer) = send(&gateway, "POST", "/api/v1/locks/a/break", why()).await;
    assert_eq!((status, &answer["broken"][0]["holder"]), (200, &json!("worker-7")));
    let (status, problem) = send(&gateway, "POST", "/api/v1/locks/a/break", why()).await;
    assert_eq!((status, &problem["code"]), (404, &json!("lock-free")));
    let asked = fake.asked();
    let key = Key::lock(name("a"));
    assert_eq!(asked[4], Command::Break { key: key.clone(), reason: "stuck".into() });
    let request = RequestId::Keyed { key: 42 };
    assert_eq!(asked[2], Command::Renew { request, key, lock_id: lock_id(7), lease: Some(Millis(500)) });
}

#[tokio::test]
async fn looking_at_locks() {
    let fake = Fake::new();
    let gateway = fake.gateway();
    let waiting = Waiting {
        session: SESSION,
        holder: "w2".into(),
        mode: Mode::Shared,
        priority: 1,
        since: WallMs(0),
        metadata: Metadata::new(),
        value: None,
    };
    let held = Object { queue: vec![waiting], queue_count: 1, ..object(Key::lock(name("a/b")), grant(7), 5) };
    fake.answers(Answer::Object(Some(held.clone())));
    let (status, doc) = send(&gateway, "GET", "/api/v1/locks/a/b", "").await;
    assert_eq!(status, 200);
    for (field, value) in [
        ("lockName", json!("a/b")),
        ("lockId", json!(format!("{SID}-7-00000007"))),
        ("holder", json!("worker-7")),
        ("acquiredAt", json!("2025-12-15T10:00:00.000Z")),
        ("expiresAt", json!("2025-12-15T10:00:30.000Z")),
        ("sessionId", json!(SID)),
        ("holderCount", json!(1)),
        ("queueLength", json!(1)),
        ("lockDelayUntil", Value::Null),
        ("revision", json!(5)),
    ] {
        assert_eq!(doc[field], value, "{field}");
    }
    assert_eq!(doc["queue"][0]["mode"], "shared");
    fake.answers(Answer::Object(None));
    let (status, problem) = send(&gateway, "GET", "/api/v1/locks/a", "").await;
    assert_eq!((status, &problem["code"]), (404, &json!("lock-free")));

    fake.answers(Answer::List(vec![held.clone()])).answers(Answer::List(vec![held]));
    let path = format!("/api/v1/locks?prefix=a%2F&held=true&session={SID}&after=a&limit=1");
    let (status, page) = send(&gateway, "GET", &path, "").await;
    assert_eq!((status, &page["next"], &page["locks"][0]["holder"]), (200, &json!("a/b"), &json!("worker-7")));
    assert_eq!(send(&gateway, "GET", "/api/v1/locks", "").await.1["next"], Value::Null);
    assert_eq!(
        fake.queries.lock().unwrap()[2],
        Query::List {
            kind: Kind::Lock,
            prefix: "a/".into(),
            held: Some(true),
            session: Some(SESSION),
            after: Some("a".into()),
            limit: 1
        }
    );
    for query in ["held=yes", "limit=0", "limit=1001", "limit=x", "session=me", "color=red", "a=%zz", "limit=1&limit=2"]
    {
        assert_eq!(send(&gateway, "GET", &format!("/api/v1/locks?{query}"), "").await.0, 422, "{query}");
    }
}

#[tokio::test]
async fn sessions_from_open_to_close() {
    let fake = Fake::new();
    let gateway = fake.gateway();
    fake.will(Outcome::Opened { created: WallMs(1_000) });
    let ask = body(json!({"clientId": "worker-7", "ttl": 12.5, "metadata": {"pid": "1"}}));
    let response = gateway.handle(request("POST", "/api/v1/sessions", ask)).await;
    assert_eq!(response.headers()["location"], format!("/api/v1/sessions/{SID}"));
    let (status, doc) = document(response).await;
    assert_eq!(status, 201);
    assert_eq!(
        doc,
        json!({
            "sessionId": SID, "clientId": "worker-7", "createdAt": "1970-01-01T00:00:01.000Z",
            "lastHeartbeat": "1970-01-01T00:00:01.000Z", "ttl": 12.5, "state": "open",
            "metadata": {"pid": "1"}, "shards": [],
        })
    );
    let alive = format!("/api/v1/sessions/{SID}/keepalive");
    for (kept, status) in [(KeptAlive::Alive, 200), (KeptAlive::Ended, 410), (KeptAlive::Unknown, 404)] {
        *fake.kept.lock().unwrap() = Ok(kept);
        assert_eq!(send(&gateway, "POST", &alive, "").await.0, status, "{kept:?}");
    }
    let view = SessionView {
        session: SESSION,
        client_id: "worker-7".into(),
        ttl: Millis(10_000),
        created: WallMs(0),
        metadata: Metadata::new(),
        shards: vec![ShardId(3)],
        closing: true,
    };
    let look = |answer| Ok((Answer::Session(answer), Some(WallMs(2_000))));
    let path = format!("/api/v1/sessions/{SID}");
    fake.views.lock().unwrap().extend([
        look(Ok(view.clone())),
        look(Err(SessionGone::Ended)),
        look(Err(SessionGone::Unknown)),
        // What the close sees: still closing, trouble on the way, over.
        look(Ok(view.clone())),
        Err(Error::Overloaded),
        look(Err(SessionGone::Ended)),
    ]);
    let (status, doc) = send(&gateway, "GET", &path, "").await;
    assert_eq!(
        (status, &doc["lastHeartbeat"], &doc["state"]),
        (200, &json!("1970-01-01T00:00:02.000Z"), &json!("closing"))
    );
    assert_eq!(send(&gateway, "GET", &path, "").await.0, 410);
    assert_eq!(send(&gateway, "GET", &path, "").await.0, 404);
    fake.will(Outcome::Closing).will(Outcome::Ended).will(Outcome::UnknownSession);
    assert_eq!(send(&gateway, "DELETE", &path, "").await, (200, json!({"success": true})));
    assert_eq!(send(&gateway, "DELETE", &path, "").await.0, 200);
    assert_eq!(send(&gateway, "DELETE", &path, "").await.0, 404);
    fake.answers(Answer::Sessions(vec![view]));
    let (_, page) = send(&gateway, "GET", "/api/v1/sessions?limit=1", "").await;
    assert_eq!((&page["next"], &page["sessions"][0]["clientId"]), (&json!(SID), &json!("worker-7")));
}

#[tokio::test(start_paused = true)]
async fn a_close_that_takes_too_long_is_accepted() {
    let fake = Fake::new();
    let view = SessionView {
        session: SESSION,
        client_id: "w".into(),
        ttl: Millis(10_000),
        created: WallMs(0),
        metadata: Metadata::new(),
        shards: vec![ShardId(3)],
        closing: true,
    };
    fake.views.lock().unwrap().push_back(Ok((Answer::Session(Ok(view)), None)));
    fake.will(Outcome::Closing);
    let (status, answer) = send(&fake.gateway(), "DELETE", &format!("/api/v1/sessions/{SID}"), "").await;
    assert_eq!((status, &answer["state"]), (202, &json!("closing")));
}

#[tokio::test]
async fn elections_to_the_letter() {
    let fake = Fake::new();
    let gateway = fake.gateway();
    let ask = |me: &str| body(json!({"candidateId": me, "sessionId": SID}));
    let run = async |outcome, me| {
        fake.will(outcome);
        let (status, doc) = send(&gateway, "POST", "/api/v1/leader/election/a/b", ask(me)).await;
        (status, doc["isLeader"].clone(), doc["leaderId"].clone())
    };
    assert_eq!(run(Outcome::Granted(led(1, "me")), "me").await, (200, json!(true), json!("me")));
    assert_eq!(run(Outcome::AlreadyHeld(led(1, "me")), "me").await, (200, json!(true), json!("me")));
    fake.answers(Answer::Object(Some(object(Key::election(name("a/b")), led(1, "me"), 5))));
    assert_eq!(run(Outcome::AlreadyHeld(led(1, "me")), "other").await, (200, json!(false), json!("me")));
    let lost = Blocked { holders: vec![led(1, "you")], ..blocked() };
    assert_eq!(run(Outcome::Held(lost.clone()), "me").await, (200, json!(false), json!("you")));
    assert_eq!(run(Outcome::WaitTimeout(lost), "me").await, (200, json!(false), json!("you")));
    let closed = Blocked { holders: vec![], holder_count: 0, ..blocked() };
    assert_eq!(run(Outcome::Held(closed), "me").await, (200, json!(false), Value::Null));
    assert_eq!(run(Outcome::Ended, "me").await.0, 410);
    let Command::Acquire(first) = fake.asked().remove(0) else { panic!() };
    assert_eq!((first.key, first.value, first.wait), (Key::election(name("a/b")), Some("me".into()), Millis(0)));

    let led = || object(Key::election(name("e")), led(4, "me"), 9);
    fake.answers(Answer::Object(Some(led()))).answers(Answer::Object(None));
    let (status, doc) = send(&gateway, "GET", "/api/v1/leader/e", "").await;
    assert_eq!((status, &doc["leaderId"], &doc["electedAt"]), (200, &json!("me"), &json!("2025-12-15T10:00:00.000Z")));
    let (status, problem) = send(&gateway, "GET", "/api/v1/leader/e", "").await;
    assert_eq!((status, &problem["code"]), (404, &json!("no-leader")));

    fake.answers(Answer::Object(Some(led()))).will(Outcome::Released);
    let mine = body(json!({"sessionId": SID}));
    assert_eq!(send(&gateway, "POST", "/api/v1/leader/e/resign", mine).await, (200, json!({"success": true})));
    assert!(matches!(fake.asked().last(), Some(Command::Release { lock_id: id, .. }) if *id == lock_id(4)));
    fake.answers(Answer::Object(Some(led())));
    let other = body(json!({"sessionId": "0".repeat(32)}));
    let (status, problem) = send(&gateway, "POST", "/api/v1/leader/e/resign", other).await;
    assert_eq!((status, &problem["code"], &problem["leaderId"]), (409, &json!("not-leader"), &json!("me")));
    let both = body(json!({"sessionId": SID, "lockId": lock_id(4).to_string()}));
    assert_eq!(send(&gateway, "POST", "/api/v1/leader/e/resign", both).await.0, 422);
    assert_eq!(send(&gateway, "POST", "/api/v1/leader/e/resign", "").await.0, 422);
}

#[tokio::test]
async fn a_leader_proclaims() {
    let fake = Fake::new();
    let gateway = fake.gateway();
    let path = "/api/v1/leader/e/proclaim";
    let now = || Grant { value: Some("me/2".into()), ..led(4, "me") };
    let by_lock = json!({"lockId": lock_id(4).to_string(), "value": "me/2"});
    fake.will(Outcome::Renewed(now()));
    let answer = json!({
        "success": true, "leaderId": "me/2", "electedAt": "2025-12-15T10:00:00.000Z",
        "lockId": lock_id(4).to_string(), "fencingToken": 4,
    });
    assert_eq!(send(&gateway, "POST", path, body(by_lock.clone())).await, (200, answer));
    let (key, request, value) = (Key::election(name("e")), RequestId::Keyed { key: 42 }, "me/2".to_owned());
    let command = Command::Proclaim { request, key: key.clone(), lock_id: lock_id(4), value };
    assert_eq!(fake.asked(), [command]);

    // By session the leadership is looked up.
    fake.answers(Answer::Object(Some(object(key.clone(), led(4, "me"), 9)))).will(Outcome::Renewed(now()));
    let by_session = json!({"sessionId": SID, "value": "me/2"});
    assert_eq!(send(&gateway, "POST", path, body(by_session.clone())).await.0, 200);
    fake.answers(Answer::Object(None));
    assert_eq!(send(&gateway, "POST", path, body(by_session)).await.0, 404);
    for (outcome, status) in [(Outcome::Expired, 410), (Outcome::Foreign, 409), (Outcome::TooOld, 409)] {
        fake.will(outcome);
        assert_eq!(send(&gateway, "POST", path, body(by_lock.clone())).await.0, status);
    }
    let asked = fake.asked().len();
    for wrong in [
        json!({"lockId": lock_id(4).to_string()}),
        json!({"lockId": lock_id(4).to_string(), "value": ""}),
        json!({"lockId": lock_id(4).to_string(), "value": "v".repeat(limits::LABEL_BYTES + 1)}),
        json!({"lockId": lock_id(4).to_string(), "value": 7}),
        json!({"lockId": lock_id(4).to_string(), "sessionId": SID, "value": "v"}),
        json!({"lockId": lock_id(4).to_string(), "value": "v", "timeout": 3}),
        json!({"value": "v"}),
    ] {
        assert_eq!(send(&gateway, "POST", path, body(wrong.clone())).await.0, 422, "{wrong}");
    }
    assert_eq!(fake.asked().len(), asked, "nothing came of these");
    assert_eq!(send(&gateway, "PUT", path, "").await.0, 405);

    // What it proclaims is its name from then on; it leads all the same, and is told so.
    let campaign = body(json!({"candidateId": "me", "sessionId": SID}));
    for (revision, leads) in [(9, true), (5, false)] {
        fake.will(Outcome::AlreadyHeld(now())).answers(Answer::Object(Some(object(key.clone(), now(), revision))));
        let (status, doc) = send(&gateway, "POST", "/api/v1/leader/election/e", campaign.clone()).await;
        assert_eq!((status, &doc["isLeader"], &doc["leaderId"]), (200, &json!(leads), &json!("me/2")), "{revision}");
    }
    fake.will(Outcome::Granted(now()));
    let (_, doc) = send(&gateway, "POST", "/api/v1/leader/election/e", campaign).await;
    assert_eq!((&doc["isLeader"], &doc["lockId"]), (&json!(true), &json!(lock_id(4).to_string())));
}

#[tokio::test]
async fn fencing() {
    let fake = Fake::new();
    let gateway = fake.gateway();
    *fake.fence.lock().unwrap() = Ok(vec![true, false]);
    let ask = body(json!({"checks": [{"name": "a", "fencingToken": 1}, {"name": "b", "fencingToken": 2}]}));
    let (status, doc) = send(&gateway, "POST", "/api/v1/fence/check", ask).await;
    assert_eq!((status, &doc["valid"]), (200, &json!(false)));
    assert_eq!(doc["results"][0], json!({"name": "a", "fencingToken": 1, "valid": true}));
    for wrong in [
        json!({}),
        json!({"checks": {}}),
        json!({"checks": [1]}),
        json!({"checks": [{"name": "", "fencingToken": 1}]}),
        json!({"checks": [{"name": "a", "fencingToken": -1}]}),
        json!({"checks": [{"name": "a", "fencingToken": 9007199254740992_u64}]}),
        json!({"checks": [{"name": "a", "fencingToken": 1, "x": 1}]}),
        json!({"checks": vec![json!({"name": "a", "fencingToken": 1}); 129]}),
    ] {
        assert_eq!(send(&gateway, "POST", "/api/v1/fence/check", body(wrong.clone())).await.0, 422, "{wrong}");
    }
}

#[tokio::test]
async fn the_proxys_question_has_three_answers() {
    let fake = Fake::new();
    let gateway = fake.gateway();
    let ask = async |method: &str, path: &str, headers: &[(&str, &[u8])]| {
        let mut request = request(method, path, "");
        for (key, value) in headers {
            let key: http::HeaderName = key.parse().unwrap();
            request.headers_mut().append(key, http::HeaderValue::from_bytes(value).unwrap());
        }
        gateway.handle(request).await.status().as_u16()
    };
    let (lock, token) = ("x-wardlock-lock", "x-wardlock-token");
    let path = "/api/v1/fence/auth";
    *fake.fence.lock().unwrap() = Ok(vec![true]);
    assert_eq!(ask("GET", path, &[(lock, b"orders/42"), (token, b"7")]).await, 200);
    assert_eq!(ask("PUT", "/api/v1/fence/auth/v1/x?y=%zz", &[(lock, "é".as_bytes()), (token, b"7")]).await, 200);
    assert_eq!(ask("GET", path, &[]).await, 401);
    assert_eq!(ask("GET", path, &[(lock, b"a")]).await, 401);
    assert_eq!(ask("GET", path, &[(token, b"7")]).await, 401);
    for (name, number) in
        [(&b"a"[..], &b"x"[..]), (b"a", b"-1"), (b"a", b""), (b"", b"1"), (b"%f", b"1"), (b"\xff", b"1")]
    {
        assert_eq!(ask("GET", path, &[(lock, name), (token, number)]).await, 403, "{name:?} {number:?}");
    }
    assert_eq!(ask("GET", path, &[(lock, b"a"), (token, b"7"), (token, b"8")]).await, 403);
    *fake.fence.lock().unwrap() = Ok(vec![false]);
    assert_eq!(ask("GET", path, &[(lock, b"a"), (token, b"7")]).await, 403);
    for undecided in [Err(Error::Overloaded), Err(Error::NotAllowed("no".into())), Ok(vec![])] {
        *fake.fence.lock().unwrap() = undecided;
        assert_eq!(ask("GET", path, &[(lock, b"a"), (token, b"7")]).await, 503);
    }
}

#[tokio::test]
async fn a_batch_is_answered_one_by_one() {
    let fake = Fake::new();
    let gateway = fake.gateway();
    fake.will(Outcome::Released).will(Outcome::Held(blocked()));
    let ask = body(json!({"requests": [
        {"method": "POST", "path": "/api/v1/locks/a%2Fb/release", "body": {"lockId": lock_id(1).to_string()}},
        {"method": "POST", "path": "/locks/a/acquire", "body": {"sessionId": SID}},
        {"method": "POST", "path": "/locks/a/acquire", "body": {"sessionId": SID, "color": "red"}},
        {"method": "GET", "path": "/nothing"},
        {"method": "POST", "path": "/batch", "body": {"requests": []}},
        {"method": "GET", "path": "/leader/e/observe"},
        {"method": "GET", "path": "/livez"},
    ]}));
    let (status, doc) = send(&gateway, "POST", "/api/v1/batch", ask).await;
    assert_eq!(status, 200);
    let statuses: Vec<_> = doc["responses"].as_array().unwrap().iter().map(|r| r["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [200, 409, 422, 404, 422, 422, 200]);
    assert_eq!(doc["responses"][0]["body"], json!({"success": true}));
    assert_eq!(doc["responses"][1]["body"]["code"], "held");
    assert_eq!(doc["responses"][2]["body"]["field"], "color");

    let many = |n| body(json!({"requests": vec![json!({"method": "GET", "path": "/livez"}); n]}));
    assert_eq!(send(&gateway, "POST", "/api/v1/batch", many(100)).await.0, 200);
    assert_eq!(send(&gateway, "POST", "/api/v1/batch", many(101)).await.0, 422);
    for wrong in [json!({}), json!({"requests": [null]}), json!({"requests": [{"method": "BREW", "path": "/livez"}]})] {
        assert_eq!(send(&gateway, "POST", "/api/v1/batch", body(wrong)).await.0, 422);
    }
}

#[tokio::test]
async fn a_key_makes_the_same_request_of_the_same_call() {
    let fake = Fake::new();
    let gateway = fake.gateway();
    let ask = async |key: &str, path: &str| {
        fake.will(Outcome::Released);
        let mut request = request("POST", path, body(json!({"lockId": lock_id(1).to_string()})));
        request.headers_mut().insert("idempotency-key", key.parse().unwrap());
        assert_eq!(gateway.handle(request).await.status(), 200);
        let Some(Command::Release { request, .. }) = fake.asked().pop() else { panic!() };
        request
    };
    let first = ask("k", "/api/v1/locks/a/b/release").await;
    assert_ne!(first, RequestId::Keyed { key: 42 });
    assert_eq!(ask("k", "/api/v1/locks/a%2Fb/release").await, first);
    assert_ne!(ask("k2", "/api/v1/locks/a/b/release").await, first);
    assert_ne!(ask("k", "/api/v1/locks/a/release").await, first);
    for key in [String::new(), "k".repeat(256)] {
        let mut request = request("POST", "/api/v1/locks/a/release", body(json!({"lockId": lock_id(1).to_string()})));
        request.headers_mut().insert("idempotency-key", key.parse().unwrap());
        assert_eq!(gateway.handle(request).await.status(), 422);
    }
    // Two calls of one batch are two requests; so are two sessions opened by two keys.
    let item = json!({"method": "POST", "path": "/locks/a/release", "body": {"lockId": lock_id(1).to_string()}});
    fake.will(Outcome::Released).will(Outcome::Released);
    let mut batch = request("POST", "/api/v1/batch", body(json!({"requests": [item.clone(), item]})));
    batch.headers_mut().insert("idempotency-key", "k".parse().unwrap());
    assert_eq!(gateway.handle(batch).await.status(), 200);
    let asked = fake.asked();
    let [.., Command::Release { request: one, .. }, Command::Release { request: two, .. }] = &asked[..] else {
        panic!()
    };
    assert_ne!(one, two);
}

#[tokio::test]
async fn a_key_opens_one_session() {
    let fake = Fake::new();
    let gateway = fake.gateway();
    let ask = async |key: &str, client: &str| {
        fake.will(Outcome::Opened { created: WallMs(0) });
        let mut request = request("POST", "/api/v1/sessions", body(json!({"clientId": client})));
        request.headers_mut().insert("idempotency-key", key.parse().unwrap());
        document(gateway.handle(request).await).await.1["sessionId"].as_str().unwrap().to_owned()
    };
    let first = ask("k", "w").await;
    assert!(first.starts_with("0001"), "the incarnation is kept");
    assert_eq!(ask("k", "w").await, first);
    assert_ne!(ask("k", "w2").await, first);
    assert_ne!(ask("k2", "w").await, first);
}

#[tokio::test]
async fn who_hangs_up_leaves_no_waiter_behind() {
    let fake = Fake::new();
    let gateway = fake.gateway();
    let acquire = || request("POST", "/api/v1/locks/a/acquire", body(json!({"sessionId": SID, "wait": 60})));
    let hung_up = tokio::time::timeout(Duration::from_millis(10), gateway.handle(acquire())).await;
    assert!(hung_up.is_err());
    let withdrawn = (SESSION, RequestId::Keyed { key: 42 }, Key::lock(name("a")));
    assert_eq!(*fake.withdrawn.lock().unwrap(), [withdrawn]);
    // Nor does one who cannot know what became of it.
    fake.fails(Error::OutcomeUnknown);
    assert_eq!(gateway.handle(acquire()).await.status(), 504);
    assert_eq!(fake.withdrawn.lock().unwrap().len(), 2);
    // A settled one is nobody's to withdraw, and one with a key may be come back for.
    fake.will(Outcome::Granted(grant(1)));
    assert_eq!(gateway.handle(acquire()).await.status(), 200);
    let mut keyed = acquire();
    keyed.headers_mut().insert("idempotency-key", "k".parse().unwrap());
    assert!(tokio::time::timeout(Duration::from_millis(10), gateway.handle(keyed)).await.is_err());
    assert_eq!(fake.withdrawn.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn the_cluster_for_people() {
    let fake = Fake::new();
    let gateway = fake.gateway();
    let (_, doc) = send(&gateway, "GET", "/api/v1/cluster", "").await;
    assert_eq!((&doc["cluster"], &doc["mapVersion"], &doc["shards"]), (&json!("test"), &json!(7), &json!(1)));
    assert_eq!(doc["nodes"][1]["quic"], "127.0.0.1:7402");
    assert!(!doc.to_string().to_lowercase().contains("key"), "the hash key stays inside");
    let (_, doc) = send(&gateway, "GET", "/api/v1/cluster/nodes", "").await;
    assert_eq!((&doc["nodes"][0]["leads"], &doc["nodes"][0]["replicas"]), (&json!(2), &json!(2)));
    assert_eq!((&doc["nodes"][2]["reachable"], &doc["nodes"][2]["leads"]), (&json!(false), &Value::Null));
    let (_, doc) = send(&gateway, "GET", "/api/v1/cluster/shards", "").await;
    let shard = &doc["shards"][0];
    assert_eq!((&shard["id"], &shard["leader"], &shard["term"]), (&json!(1), &json!(1), &json!(4)));
    let lags: Vec<_> = shard["replicas"].as_array().unwrap().iter().map(|r| r["lag"].as_u64()).collect();
    assert_eq!(lags, [Some(0), Some(2), Some(60)]);
    assert_eq!(shard["replicas"][2]["reachable"], false);
    let path = "/api/v1/cluster/shards/1/transfer";
    assert_eq!(send(&gateway, "POST", path, body(json!({"to": 2}))).await.0, 200);
    assert_eq!(*fake.transfers.lock().unwrap(), [(GroupId(1), NodeId(2))]);
    assert_eq!(send(&gateway, "POST", path, body(json!({"to": 9}))).await.0, 422);
    assert_eq!(send(&gateway, "POST", path, "{}").await.0, 422);
    assert_eq!(send(&gateway, "POST", "/api/v1/cluster/shards/8/transfer", body(json!({"to": 2}))).await.0, 404);
}

#[tokio::test]
async fn probes_and_metrics_at_both_places() {
    let gateway = Fake::new().gateway();
    for prefix in ["", "/api/v1"] {
        assert_eq!(send(&gateway, "GET", &format!("{prefix}/livez"), "").await.0, 200);
        assert_eq!(send(&gateway, "GET", &format!("{prefix}/readyz"), "").await.0, 200);
        let response = gateway.handle(request("GET", &format!("{prefix}/metrics"), "")).await;
        assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/plain"));
    }
    let info = GatewayInfo {
        cluster: "test".into(),
        certs_hint: Some("/etc/wardlock".into()),
        ready: Arc::new(|| Err("3 shards have no leader".into())),
        metrics: Arc::new(String::new),
    };
    let starting = Gateway::new(Fake::new(), info);
    let (status, problem) = send(&starting, "GET", "/readyz", "").await;
    assert_eq!((status, &problem["detail"]), (503, &json!("3 shards have no leader")));
    assert_eq!(send(&starting, "GET", "/livez", "").await.0, 200);
    assert_eq!(send(&starting, "GET", "/api/v1/cluster", "").await.1["certs"], "/etc/wardlock");
    let response = gateway.handle(request("DELETE", "/livez", "")).await;
    assert_eq!((response.status().as_u16(), &response.headers()["allow"]), (405, &"GET, HEAD".parse().unwrap()));
}
