//! Deadlocks over HTTP: who is stuck with whom, and what the victim is told.

mod http_support;

use http_support::{Fake, send};
use serde_json::{Value, json};
use wardlock_machine::*;

const SID: &str = "00010000000000000000000000009f3c";

fn body(value: Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

#[tokio::test]
async fn the_circles_are_listed_with_their_victims() {
    let (status, told) = send(&Fake::new().gateway(), "GET", "/api/v1/locks:deadlocks", "").await;
    let step = |holder: &str, id: &str, lock: &str| json!({"holder": holder, "sessionId": id, "waitsFor": lock});
    let (ann, bob) = ("00010000000000000000000000009f3d", "00010000000000000000000000009f3e");
    let circle = json!([step("bob", bob, "b"), step("ann", ann, "a")]);
    let expected = json!({"deadlocks": [{
        "victim": bob, "lockName": "b", "since": "2025-12-15T10:00:00.002Z", "circle": circle, "circleLength": 2,
    }]});
    assert_eq!((status, told), (200, expected));
    assert_eq!(send(&Fake::new().gateway(), "GET", "/api/v1/locks:deadlocks?x=1", "").await.0, 422);
    assert_eq!(send(&Fake::new().gateway(), "POST", "/api/v1/locks:deadlocks", "").await.0, 405);
}

#[tokio::test]
async fn the_victim_is_told_the_circle() {
    let fake = Fake::new();
    let step = CircleStep { session: SessionId(5), holder: "ann".into(), key: Key::lock(Name::new("a").unwrap()) };
    fake.will(Outcome::Deadlock(Circle { steps: vec![step], length: 3 }));
    let ask = body(json!({"sessionId": SID, "wait": 60}));
    let (status, problem) = send(&fake.gateway(), "POST", "/api/v1/locks/a/acquire", ask).await;
    assert_eq!((status, &problem["code"], &problem["success"]), (409, &json!("deadlock"), &json!(false)));
    assert_eq!((&problem["circle"][0]["waitsFor"], &problem["circleLength"]), (&json!("a"), &json!(3)));
}

#[tokio::test]
async fn a_session_says_that_it_does_one_thing_at_a_time() {
    for (serial, kept) in [(json!(true), Some("true")), (json!(false), None), (json!(null), None)] {
        let fake = Fake::new();
        fake.will(Outcome::Opened { created: WallMs(0) });
        let ask = body(json!({"clientId": "w", "serial": serial}));
        assert_eq!(send(&fake.gateway(), "POST", "/api/v1/sessions", ask).await.0, 201);
        let (command, _) = fake.commands.lock().unwrap()[0].clone();
        let Command::OpenSession { holder, .. } = command else { panic!("{command:?}") };
        assert_eq!(holder.metadata.get(SERIAL).map(String::as_str), kept);
    }
    let ask = body(json!({"clientId": "w", "serial": "yes"}));
    let (status, problem) = send(&Fake::new().gateway(), "POST", "/api/v1/sessions", ask).await;
    assert_eq!((status, &problem["field"]), (422, &json!("serial")));
}
