//! The given calls, to the letter: paths, names, fields and their types.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::{
    is_about,
    support::{Dev, alone},
    time,
};

/// A name in a path, and what it means.
const NAMES: [(&str, &str); 16] = [
    ("plain", "plain"),
    ("orders/42", "orders/42"),
    ("a/b/c/d", "a/b/c/d"),
    ("encoded%2Fslash", "encoded/slash"),
    ("gr%C3%BC%C3%9Fe/%E6%97%A5%E6%9C%AC", "grüße/日本"),
    ("%2e%2e", ".."),
    ("x/../y", "x/../y"),
    ("%00", "\0"),
    ("two//slashes", "two//slashes"),
    ("%20blank%20", " blank "),
    ("a+b", "a+b"),
    ("100%25", "100%"),
    ("acquire", "acquire"),
    ("jobs/release", "jobs/release"),
    ("q%3Fs%23f", "q?s#f"),
    ("%7Borders%7D/42", "{orders}/42"),
];

#[test]
fn locks_are_acquired_shown_and_released_by_any_name() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path(), &["--shards", "4"]);
    let (mine, other) = (dev.open("worker-7", 600.0), dev.open("worker-8", 600.0));
    for (raw, name) in NAMES {
        let asked = SystemTime::now();
        let granted = dev.post(&format!("/locks/{raw}/acquire"), &json!({"timeout": 30, "sessionId": mine}));
        assert_eq!(granted.status, 200, "{name:?}: {granted:?}");
        assert_eq!(granted.header("content-type"), Some("application/json"), "{granted:?}");
        assert_eq!(granted.json()["success"], json!(true), "{granted:?}");
        let lock_id = granted.text("lockId");
        assert!(is_about(time(&granted.json()["expiresAt"]), asked + Duration::from_secs(30)), "{granted:?}");
        assert!(granted.number("fencingToken") < 1 << 53, "{granted:?}");

        let shown = dev.get(&format!("/locks/{raw}"));
        assert_eq!(shown.status, 200, "{name:?}: {shown:?}");
        assert_eq!(shown.text("lockId"), lock_id, "{name:?}");
        assert_eq!(shown.text("holder"), "worker-7", "{name:?}");
        assert_eq!(shown.text("lockName"), name);
        assert_eq!(shown.text("sessionId"), mine, "{name:?}");
        assert!(is_about(time(&shown.json()["acquiredAt"]), asked), "{shown:?}");
        assert_eq!(shown.json()["expiresAt"], granted.json()["expiresAt"], "{name:?}");

        let refused = dev.acquire(raw, &other);
        assert_eq!((refused.status, refused.problem().as_str()), (409, "held"), "{name:?}: {refused:?}");
        assert_eq!(refused.json()["success"], json!(false), "{refused:?}");
        assert_eq!(refused.text("holder"), "worker-7", "{refused:?}");

        let released = dev.release(raw, &lock_id);
        assert_eq!((released.status, released.json()), (200, json!({"success": true})), "{name:?}: {released:?}");
        let free = dev.get(&format!("/locks/{raw}"));
        assert_eq!((free.status, free.problem().as_str()), (404, "lock-free"), "{name:?}: {free:?}");
    }

    // A slash is a slash, however it was sent; nothing is normalized away.
    let granted = dev.acquire("one%2Fname", &mine);
    assert_eq!(dev.get("/locks/one/name").text("lockId"), granted.text("lockId"));
    assert_eq!(dev.get("/locks/one/./name").status, 404);

    // Without a timeout it lives as long as its session.
    assert_eq!(granted.json()["expiresAt"], Value::Null, "{granted:?}");
    assert_eq!(granted.number("sessionTtl"), 600, "{granted:?}");
    assert_eq!(dev.get("/locks/one/name").json()["expiresAt"], Value::Null);

    // Its own lease ends it, while the session lives on.
    let brief = dev.post("/locks/brief/acquire", &json!({"timeout": 0.3, "sessionId": mine}));
    assert_eq!(brief.status, 200, "{brief:?}");
    dev.until("/locks/brief", Duration::from_secs(10), |shown| shown.status == 404);
    let late = dev.release("brief", &brief.text("lockId"));
    assert_eq!((late.status, late.problem().as_str()), (410, "expired"), "{late:?}");
    let again = dev.acquire("brief", &other);
    assert!(again.number("fencingToken") > brief.number("fencingToken"), "tokens rise: {brief:?}, {again:?}");
    assert!(dev.stop().success());
}

#[test]
fn elections_are_won_lost_repeated_and_shown() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path(), &["--shards", "4"]);
    let (first, second) = (dev.open("host-1", 600.0), dev.open("host-2", 600.0));
    let campaign = |name: &str, candidate: &str, session: &str| {
        let answer =
            dev.post(&format!("/leader/election/{name}"), &json!({"candidateId": candidate, "sessionId": session}));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
    };
    for name in ["scheduler", "eu/west/scheduler", "%C3%BC%2Fprim%C3%A4r", "observe", "election"] {
        let nobody = dev.get(&format!("/leader/{name}"));
        assert_eq!((nobody.status, nobody.problem().as_str()), (404, "no-leader"), "{nobody:?}");
        let asked = SystemTime::now();
        let won = campaign(name, "node-a", &first);
        assert_eq!((&won.json()["isLeader"], &won.json()["leaderId"]), (&json!(true), &json!("node-a")), "{won:?}");
        let lost = campaign(name, "node-b", &second);
        assert_eq!((&lost.json()["isLeader"], &lost.json()["leaderId"]), (&json!(false), &json!("node-a")), "{lost:?}");
        let repeated = campaign(name, "node-a", &first);
        for field in ["isLeader", "leaderId", "lockId", "fencingToken"] {
            assert_eq!(repeated.json()[field], won.json()[field], "a repeat is the same leadership: {repeated:?}");
        }
        let shown = dev.get(&format!("/leader/{name}"));
        assert_eq!((shown.status, shown.text("leaderId").as_str()), (200, "node-a"), "{shown:?}");
        assert!(is_about(time(&shown.json()["electedAt"]), asked), "{shown:?}");
        // The loser was not enrolled: it asked once.
        assert_eq!(shown.number("candidateCount"), 0, "{shown:?}");
    }
    // A lock of the same name is another thing.
    assert_eq!(dev.get("/locks/scheduler").status, 404);
    // The leader's end is the end of its leadership.
    assert_eq!(dev.call("DELETE", &format!("/sessions/{first}"), "", &[]).status, 200);
    dev.until("/leader/scheduler", Duration::from_secs(5), |shown| shown.status == 404);
    let won = campaign("scheduler", "node-b", &second);
    assert_eq!(won.json()["isLeader"], json!(true), "{won:?}");
    assert!(dev.stop().success());
}
