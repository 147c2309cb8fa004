//! The calls that were added: fencing, batches, lists, resigning, observing, moving a leader, probes.

use std::{
    io::{BufRead, BufReader},
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{Dev, alone, http::begin};

#[test]
fn tokens_are_checked_calls_are_batched_and_lists_are_paged() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path(), &["--shards", "8"]);
    let (mine, other) = (dev.open("mine", 600.0), dev.open("other", 600.0));

    // Fencing: a token is good while its grant is held, for its own lock.
    let old = dev.acquire("fenced/1", &mine);
    let (old_id, old_token) = (old.text("lockId"), old.number("fencingToken"));
    let auth = |name: &str, token: u64| {
        let token = token.to_string();
        dev.call("GET", "/fence/auth", "", &[("X-Wardlock-Lock", name), ("X-Wardlock-Token", &token)]).status
    };
    assert_eq!(auth("fenced/1", old_token), 200);
    assert_eq!(auth("fenced/2", old_token), 403);
    assert_eq!(auth("fenced/1", old_token + 1), 403);
    assert_eq!(dev.get("/fence/auth").status, 401);
    assert_eq!(dev.release("fenced/1", &old_id).status, 200);
    assert_eq!(auth("fenced/1", old_token), 403);
    let new_token = dev.acquire("fenced/1", &other).number("fencingToken");
    assert!(new_token > old_token);
    let checks = json!({"checks": [
        {"name": "fenced/1", "fencingToken": old_token},
        {"name": "fenced/1", "fencingToken": new_token},
        {"name": "fenced/none", "fencingToken": new_token},
    ]});
    let verdicts = dev.post("/fence/check", &checks).json();
    assert_eq!(verdicts["valid"], json!(false), "{verdicts}");
    let valid: Vec<&Value> = verdicts["results"].as_array().unwrap().iter().map(|verdict| &verdict["valid"]).collect();
    assert_eq!(valid, [&json!(false), &json!(true), &json!(false)], "{verdicts}");

    // A batch: each call is answered as it would be alone, in its place.
    let batch = json!({"requests": [
        {"method": "POST", "path": "/locks/batch/1/acquire", "body": {"sessionId": mine}},
        {"method": "POST", "path": "/locks/fenced/1/acquire", "body": {"sessionId": mine}},
        {"method": "GET", "path": "/api/v1/locks/batch/none"},
        {"method": "POST", "path": "/locks//acquire", "body": {"sessionId": mine}},
    ]});
    let answered = dev.post("/batch", &batch);
    assert_eq!(answered.status, 200, "{answered:?}");
    let answered = answered.json();
    let statuses: Vec<u64> =
        answered["responses"].as_array().unwrap().iter().map(|one| one["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [200, 409, 404, 422], "{answered}");
    assert_eq!(dev.get("/locks/batch/1").json()["lockId"], answered["responses"][0]["body"]["lockId"]);

    // A list over all shards: every lock once, in order, page by page.
    let names: Vec<String> = (0..25).map(|n| format!("paged/{n:02}")).collect();
    for name in &names {
        assert_eq!(dev.acquire(name, &mine).status, 200);
    }
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let page = dev.get(&format!("/locks?prefix=paged/&held=true&limit=10{after}")).json();
        found
            .extend(page["locks"].as_array().unwrap().iter().map(|lock| lock["lockName"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={}", next.replace('/', "%2F")),
            None => break,
        }
        assert!(found.len() <= names.len(), "a lock comes twice: {found:?}");
    }
    assert_eq!(found, names);
    let of_other = dev.get(&format!("/locks?session={other}")).json();
    assert_eq!(of_other["locks"].as_array().unwrap().len(), 1, "{of_other}");

    // A caller that hangs up leaves no waiter behind.
    let body = json!({"sessionId": other, "wait": 600}).to_string();
    let json_body = [("content-type", "application/json")];
    let waiting = begin(dev.port, "POST", "/api/v1/locks/paged/00/acquire", body.as_bytes(), &json_body).unwrap();
    dev.until("/locks/paged/00", Duration::from_secs(20), |shown| shown.number("queueLength") == 1);
    drop(waiting);
    dev.until("/locks/paged/00", Duration::from_secs(20), |shown| shown.number("queueLength") == 0);

    // The end of a session is the end of all that it holds, on every shard.
    assert_eq!(dev.call("DELETE", &format!("/sessions/{mine}"), "", &[]).status, 200);
    assert_eq!(dev.get("/locks?prefix=paged/&held=true").json()["locks"], json!([]));
    assert!(dev.stop().success());
}

#[test]
fn an_audience_sees_a_leader_resign_and_a_shard_moves_on_demand() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let dev = Dev::start(dir.path(), &["--shards", "4"]);
    let (first, second) = (dev.open("host-1", 600.0), dev.open("host-2", 600.0));
    let campaign = |candidate: &str, session: &str, wait: u32| {
        let body = json!({"candidateId": candidate, "sessionId": session, "wait": wait});
        dev.post("/leader/election/primary", &body)
    };
    let stream = begin(dev.port, "GET", "/api/v1/leader/primary/observe", b"", &[]).unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut next = || -> Value {
        let data = lines.by_ref().map(Result::unwrap).find_map(|line| Some(line.strip_prefix("data: ")?.to_owned()));
        serde_json::from_str(&data.expect("the stream ended")).unwrap()
    };
    assert_eq!(next()["leaderId"], Value::Null);
    assert_eq!(campaign("a", &first, 0).json()["isLeader"], json!(true));
    assert_eq!(next()["leaderId"], json!("a"));
    // One waits in line; the leader resigns; the audience hears of it.
    let enrolled = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| campaign("b", &second, 60));
        dev.until("/leader/primary", Duration::from_secs(20), |shown| shown.number("candidateCount") == 1);
        let resigned = dev.post("/leader/primary/resign", &json!({"sessionId": first}));
        assert_eq!((resigned.status, resigned.json()), (200, json!({"success": true})), "{resigned:?}");
        waiting.join().unwrap()
    });
    assert_eq!(enrolled.json()["isLeader"], json!(true), "{enrolled:?}");
    assert_eq!(next()["candidateId"], json!("b"));
    assert_eq!(next()["leaderId"], json!("b"));
    let told = dev.post("/leader/primary/proclaim", &json!({"sessionId": second, "value": "b: ready"}));
    assert_eq!((told.status, told.text("leaderId").as_str()), (200, "b: ready"), "{told:?}");
    let proclaimed = next();
    assert_eq!((&proclaimed["leaderId"], &proclaimed["lockId"]), (&json!("b: ready"), &told.json()["lockId"]));
    assert_eq!(dev.get("/leader/primary").text("leaderId"), "b: ready");
    assert_eq!(campaign("b", &second, 0).json()["isLeader"], json!(true));
    let again = dev.post("/leader/primary/resign", &json!({"sessionId": first}));
    assert_eq!((again.status, again.problem().as_str()), (409, "not-leader"), "{again:?}");

    // A shard's leader goes where it is sent, and the shard's locks with it.
    let held = dev.acquire("moved", &first).text("lockId");
    let leaders = || -> Vec<(u64, u64)> {
        let shards = dev.until("/cluster/shards", Duration::from_secs(20), |shown| {
            shown.json()["shards"].as_array().unwrap().iter().all(|shard| shard["leader"].is_u64())
        });
        let shards = shards.json();
        let pair = |shard: &Value| (shard["id"].as_u64().unwrap(), shard["leader"].as_u64().unwrap());
        shards["shards"].as_array().unwrap().iter().map(pair).collect()
    };
    let (shard, from) = leaders()[0];
    let to = from % 3 + 1;
    let moved = dev.post(&format!("/cluster/shards/{shard}/transfer"), &json!({"to": to}));
    assert_eq!(moved.status, 200, "{moved:?}");
    dev.until("/cluster/shards", Duration::from_secs(10), |shown| {
        let shards = shown.json();
        shards["shards"].as_array().unwrap().iter().any(|s| s["id"] == json!(shard) && s["leader"] == json!(to))
    });
    assert_eq!(dev.get("/locks/moved").text("lockId"), held);

    // Probes and metrics, at the root as well.
    for (path, status) in [("/livez", "alive"), ("/readyz", "ready")] {
        assert_eq!(dev.get(path).json(), json!({"status": status}));
        let root = crate::support::exchange(dev.port, "GET", path, b"", &[]).unwrap();
        assert_eq!(root.status, 200, "{root:?}");
    }
    let metrics = dev.get("/metrics");
    assert_eq!(metrics.status, 200);
    assert!(metrics.body.contains("wardlock_request_duration_seconds"), "{}", metrics.body);
    assert!(!metrics.body.contains("primary") && !metrics.body.contains("host-1"), "names are no labels");
    let cluster = dev.get("/cluster").json();
    assert_eq!((&cluster["cluster"], &cluster["shards"]), (&json!("dev"), &json!(4)), "{cluster}");
    assert_eq!(cluster["nodes"].as_array().unwrap().len(), 3, "{cluster}");
    assert!(dev.stop().success());
}
