//! The calls for services: what each says to the cluster, and what it makes of each answer.

mod http_support;

use http_support::*;
use serde_json::{Value, json};
use wardlock_machine::*;
use wardlock_wire::KeptAlive;

const INSTANCE: &str = "/api/v1/services/pay%2Feu/instances/i-1";
const OTHER: SessionId = SessionId(0x0001_0000_0000_0000_0000_0000_0000_0007);

fn key() -> Key {
    Key::service(name("pay/eu"))
}

fn spec() -> InstanceSpec {
    InstanceSpec {
        address: "10.0.0.7".into(),
        port: 8080,
        tags: vec!["a".into(), "b".into()],
        weight: 3,
        metadata: Metadata::from([("zone".to_owned(), "x".to_owned())]),
    }
}

fn view(session: SessionId, private: bool, ttl: u64) -> InstanceView {
    InstanceView {
        instance: name("i-1"),
        spec: spec(),
        session,
        private,
        ttl: Millis(ttl),
        health: Health::Passing,
        registered: WallMs(1_765_792_800_000),
        revision: Revision(9),
    }
}

fn done(replaced: Option<SessionId>) -> Outcome {
    Outcome::Registered(Registered { revision: Revision(9), registered: WallMs(1_765_792_800_000), replaced })
}

fn register(session: SessionId, private: bool) -> Command {
    let (key, instance, spec) = (key(), name("i-1"), spec());
    Command::Register(Register { request: 42, key, instance, session, private, spec, health: Health::Passing })
}

fn open(ttl: u64) -> Command {
    let pairs = [("opened-for", "instance"), ("service", "pay/eu"), ("instance", "i-1")];
    let metadata = pairs.map(|(a, b)| (a.to_owned(), b.to_owned())).into();
    let holder = Holder { client_id: "pay/eu/i-1".into(), ttl: Millis(ttl), metadata };
    Command::OpenSession { session: SESSION, holder }
}

fn body(more: &str) -> String {
    format!(r#"{{"address":"10.0.0.7","port":8080,"tags":["b","a","b"],"weight":3,"metadata":{{"zone":"x"}},{more}}}"#)
}

fn document(bound_to: &str, ttl: Option<Value>) -> Value {
    let mut document = json!({
        "success": true, "service": "pay/eu", "instanceId": "i-1", "address": "10.0.0.7", "port": 8080,
        "tags": ["a", "b"], "weight": 3, "metadata": {"zone": "x"}, "health": "passing",
        "sessionId": SESSION.to_string(), "boundTo": bound_to, "registeredAt": "2025-12-15T10:00:00.000Z",
        "revision": 9,
    });
    if let Some(ttl) = ttl {
        document["ttl"] = ttl;
    }
    document
}

#[tokio::test]
async fn an_instance_goes_with_a_session() {
    let fake = Fake::new();
    fake.will(done(None));
    let answer = send(&fake.gateway(), "PUT", INSTANCE, body(&format!(r#""sessionId":"{SESSION}""#))).await;
    assert_eq!(answer, (200, document("session", None)));
    assert_eq!(fake.asked(), [register(SESSION, false)]);
}

#[tokio::test]
async fn an_instance_with_a_ttl_gets_a_session_of_its_own() {
    let fake = Fake::new();
    fake.answers(Answer::Instance(None)).will(Outcome::Opened { created: WallMs(1) }).will(done(None));
    let answer = send(&fake.gateway(), "PUT", INSTANCE, body(r#""ttl":2.5"#)).await;
    assert_eq!(answer, (200, document("ttl", Some(json!(2.5)))));
    assert_eq!(fake.asked(), [open(2_500), register(SESSION, true)]);
}

#[tokio::test]
async fn an_instance_that_is_there_with_that_ttl_is_kept_alive() {
    let fake = Fake::new();
    fake.answers(Answer::Instance(Some(view(SESSION, true, 5_000)))).will(done(None));
    let answer = send(&fake.gateway(), "PUT", INSTANCE, body(r#""ttl":5"#)).await;
    assert_eq!(answer, (200, document("ttl", Some(json!(5)))));
    assert_eq!(fake.asked(), [register(SESSION, true)], "with the session that it has");
}

#[tokio::test]
async fn what_it_had_before_is_closed_once_it_is_replaced() {
    // Another TTL, a session of somebody's, a session of its own that has ended.
    for (present, kept, replaced) in [
        (view(OTHER, true, 7_000), KeptAlive::Alive, Some(OTHER)),
        (view(OTHER, false, 5_000), KeptAlive::Alive, None),
        (view(OTHER, true, 5_000), KeptAlive::Ended, Some(OTHER)),
    ] {
        let fake = Fake::new();
        *fake.kept.lock().unwrap() = Ok(kept);
        fake.answers(Answer::Instance(Some(present))).will(Outcome::Opened { created: WallMs(1) }).will(done(replaced));
        if replaced.is_some() {
            fake.will(Outcome::Closing);
        }
        let (status, _) = send(&fake.gateway(), "PUT", INSTANCE, body(r#""ttl":5"#)).await;
        assert_eq!(status, 200);
        let mut asked = vec![open(5_000), register(SESSION, true)];
        asked.extend(replaced.map(|session| Command::CloseSession { session }));
        assert_eq!(fake.asked(), asked);
    }
}

#[tokio::test]
async fn a_session_that_was_closed_meanwhile_gives_way_to_a_new_one() {
    let fake = Fake::new();
    fake.answers(Answer::Instance(Some(view(OTHER, true, 5_000))));
    fake.will(Outcome::Ended).will(Outcome::Opened { created: WallMs(1) }).will(done(None));
    let (status, _) = send(&fake.gateway(), "PUT", INSTANCE, body(r#""ttl":5"#)).await;
    assert_eq!(status, 200);
    assert_eq!(fake.asked(), [register(OTHER, true), open(5_000), register(SESSION, true)]);
}

#[tokio::test]
async fn a_refused_registration_leaves_no_session_behind() {
    let fake = Fake::new();
    fake.answers(Answer::Instance(None)).will(Outcome::Opened { created: WallMs(1) });
    fake.will(Outcome::Limit(Limit::Instances)).will(Outcome::Closing);
    let (status, problem) = send(&fake.gateway(), "PUT", INSTANCE, body(r#""ttl":5"#)).await;
    assert_eq!((status, &problem["code"], &problem["limit"]), (429, &json!("quota"), &json!("instances")));
    assert_eq!(fake.asked().last(), Some(&Command::CloseSession { session: SESSION }));
}

#[tokio::test]
async fn what_is_wrong_is_refused_before_the_cluster_is_asked() {
    let long = "i".repeat(limits::LABEL_BYTES + 1);
    let good = r#""address":"a","port":1"#;
    for (path, body, code, field) in [
        (INSTANCE, String::new(), "missing-field", "address"),
        (INSTANCE, r#"{"address":"a"}"#.into(), "missing-field", "port"),
        (INSTANCE, format!("{{{good}}}"), "missing-field", "ttl"),
        (INSTANCE, format!(r#"{{{good},"ttl":5,"sessionId":"{SESSION}"}}"#), "invalid-field", "ttl"),
        (INSTANCE, format!(r#"{{{good},"ttl":0.5}}"#), "invalid-field", "ttl"),
        (INSTANCE, format!(r#"{{{good},"sessionId":"x"}}"#), "invalid-field", "sessionId"),
        (INSTANCE, format!(r#"{{{good},"ttl":5,"tags":"a"}}"#), "invalid-field", "tags"),
        (INSTANCE, format!(r#"{{{good},"ttl":5,"tags":[""]}}"#), "invalid-field", "tags"),
        (INSTANCE, format!(r#"{{{good},"ttl":5,"tags":{:?}}}"#, vec!["t"; 33]), "invalid-field", "tags"),
        (INSTANCE, format!(r#"{{{good},"ttl":5,"weight":65536}}"#), "invalid-field", "weight"),
        (INSTANCE, format!(r#"{{{good},"ttl":5,"health":"fine"}}"#), "invalid-field", "health"),
        (INSTANCE, format!(r#"{{{good},"ttl":5,"colour":"red"}}"#), "unknown-field", "colour"),
        (INSTANCE, r#"{"address":"a:80","port":1,"ttl":5}"#.into(), "invalid-field", "address"),
        (INSTANCE, r#"{"address":"a","port":0,"ttl":5}"#.into(), "invalid-field", "port"),
        (&format!("/api/v1/services/s/instances/{long}"), format!(r#"{{{good},"ttl":5}}"#), "invalid-name", ""),
    ] {
        let fake = Fake::new();
        let (status, problem) = send(&fake.gateway(), "PUT", path, body.clone()).await;
        assert_eq!((status, &problem["code"]), (422, &json!(code)), "{body}");
        assert!(field.is_empty() || problem["field"] == field, "{body}: {problem}");
        assert!(fake.asked().is_empty() && fake.queries.lock().unwrap().is_empty(), "{body}");
    }
}

#[tokio::test]
async fn a_heartbeat_keeps_it_alive_and_is_logged_only_where_its_health_is_new() {
    let beat = format!("{INSTANCE}/heartbeat");
    for body in ["", r#"{"health":"passing"}"#] {
        let fake = Fake::new();
        fake.answers(Answer::Instance(Some(view(OTHER, true, 5_000))));
        let (status, answer) = send(&fake.gateway(), "POST", &beat, body).await;
        let expected = json!({
            "success": true, "service": "pay/eu", "instanceId": "i-1", "sessionId": OTHER.to_string(), "ttl": 5,
            "health": "passing", "revision": 9,
        });
        assert_eq!((status, answer), (200, expected));
        assert!(fake.asked().is_empty(), "nothing is logged");
    }
    let fake = Fake::new();
    fake.answers(Answer::Instance(Some(view(OTHER, true, 5_000))));
    fake.will(Outcome::HealthReported { revision: Revision(10) });
    let (status, answer) = send(&fake.gateway(), "POST", &beat, r#"{"health":"critical"}"#).await;
    assert_eq!((status, &answer["health"], &answer["revision"]), (200, &json!("critical"), &json!(10)));
    let report = Command::ReportHealth {
        request: 42,
        key: key(),
        instance: name("i-1"),
        session: OTHER,
        health: Health::Critical,
    };
    assert_eq!(fake.asked(), [report]);
}

#[tokio::test]
async fn a_heartbeat_that_comes_to_nothing_says_why() {
    let beat = format!("{INSTANCE}/heartbeat");
    for (present, kept, status, code) in [
        (None, KeptAlive::Alive, 404, "no-such-instance"),
        (Some(view(OTHER, false, 5_000)), KeptAlive::Alive, 409, "session-bound"),
        (Some(view(OTHER, true, 5_000)), KeptAlive::Ended, 410, "instance-ended"),
        (Some(view(OTHER, true, 5_000)), KeptAlive::Unknown, 410, "instance-ended"),
    ] {
        let fake = Fake::new();
        *fake.kept.lock().unwrap() = Ok(kept);
        fake.answers(Answer::Instance(present));
        let (is, problem) = send(&fake.gateway(), "POST", &beat, r#"{"health":"warning"}"#).await;
        assert_eq!((is, &problem["code"]), (status, &json!(code)));
        assert!(fake.asked().is_empty());
    }
}

#[tokio::test]
async fn an_instance_is_taken_off_and_its_own_session_closed() {
    let off = |session| Command::Deregister { request: 42, key: key(), instance: name("i-1"), session };
    let gone = |private| Outcome::Deregistered(Deregistered { revision: Revision(11), private });
    let fake = Fake::new();
    fake.will(gone(Some(OTHER))).will(Outcome::Closing).will(gone(None));
    let (status, answer) = send(&fake.gateway(), "DELETE", INSTANCE, "").await;
    let expected = json!({"success": true, "service": "pay/eu", "instanceId": "i-1", "revision": 11});
    assert_eq!((status, answer), (200, expected));
    let (status, _) = send(&fake.gateway(), "DELETE", &format!("{INSTANCE}?sessionId={SESSION}"), "").await;
    assert_eq!(status, 200);
    assert_eq!(fake.asked(), [off(None), Command::CloseSession { session: OTHER }, off(Some(SESSION))]);
    for (outcome, status, code) in
        [(Outcome::NoInstance, 404, "no-such-instance"), (Outcome::ForeignInstance, 409, "foreign-instance")]
    {
        let fake = Fake::new();
        fake.will(outcome);
        let (is, problem) = send(&fake.gateway(), "DELETE", INSTANCE, "").await;
        assert_eq!((is, &problem["code"], &problem["success"]), (status, &json!(code), &json!(false)));
    }
}

#[tokio::test]
async fn a_service_is_listed_in_pages() {
    let fake = Fake::new();
    let (instances, revision) = (vec![view(SESSION, false, 10_000)], Revision(12));
    fake.answers(Answer::Service(ServicePage { instances, total: 5, healthy: 3, more: true, revision }));
    let path = "/api/v1/services/pay%2Feu?healthy&tag=a&after=h&limit=1";
    let (status, answer) = send(&fake.gateway(), "GET", path, "").await;
    let mut instance = document("session", Some(json!(10)));
    instance.as_object_mut().unwrap().remove("success");
    let expected = json!({
        "service": "pay/eu", "total": 5, "healthy": 3, "instances": [instance], "next": "i-1", "revision": 12,
        "token": "AQEBAQU0k7EF",
    });
    assert_eq!((status, answer), (200, expected));
    let asked = Query::Service { key: key(), healthy: true, tag: Some("a".into()), after: Some("h".into()), limit: 1 };
    assert_eq!(*fake.queries.lock().unwrap(), [asked]);
    // Of a service that nobody registered there are none.
    let none = ServicePage { instances: Vec::new(), total: 0, healthy: 0, more: false, revision: Revision(0) };
    fake.answers(Answer::Service(none));
    let (status, answer) = send(&fake.gateway(), "GET", "/api/v1/services/x", "").await;
    let expected = json!({
        "service": "x", "total": 0, "healthy": 0, "instances": [], "next": null, "revision": 0, "token": "AQEBAQU0k7EF",
    });
    assert_eq!((status, answer), (200, expected));
}

#[tokio::test]
async fn no_instance_has_an_empty_tag_and_tags_may_be_null() {
    let fake = Fake::new();
    let (status, problem) = send(&fake.gateway(), "GET", "/api/v1/services/x?tag=", "").await;
    assert_eq!((status, &problem["field"]), (422, &json!("tag")));
    fake.will(Outcome::UnknownSession);
    let body = json!({"address": "h", "port": 1, "tags": null, "sessionId": SESSION.to_string()}).to_string();
    let (status, problem) = send(&fake.gateway(), "PUT", INSTANCE, body).await;
    assert_eq!((status, &problem["code"]), (404, &json!("unknown-session")));
}

#[tokio::test]
async fn services_are_listed_and_an_instance_is_shown() {
    let fake = Fake::new();
    let web = ServiceView { service: name("web"), total: 4, healthy: 2 };
    fake.answers(Answer::Services(vec![web]));
    let (status, answer) = send(&fake.gateway(), "GET", "/api/v1/services?prefix=w&after=v&limit=1", "").await;
    let expected = json!({
        "services": [{"service": "web", "total": 4, "healthy": 2}], "next": "web", "token": "AQEBAQU0k7EF",
    });
    assert_eq!((status, answer), (200, expected));
    fake.answers(Answer::Instance(Some(view(SESSION, true, 10_000)))).answers(Answer::Instance(None));
    let (status, answer) = send(&fake.gateway(), "GET", INSTANCE, "").await;
    let mut expected = document("ttl", Some(json!(10)));
    expected.as_object_mut().unwrap().remove("success");
    assert_eq!((status, answer), (200, expected));
    let (status, problem) = send(&fake.gateway(), "GET", INSTANCE, "").await;
    assert_eq!((status, &problem["code"]), (404, &json!("no-such-instance")));
}

#[tokio::test]
async fn what_the_path_does_not_mean_is_no_call() {
    let gateway = Fake::new().gateway();
    for (method, path, status) in [
        ("GET", "/api/v1/services/a/b", 404),
        ("GET", "/api/v1/services/a/instances", 404),
        ("GET", "/api/v1/services/a/instances/b/c", 404),
        ("POST", "/api/v1/services/a/instances/b/heartbeat/c", 404),
        ("GET", "/api/v1/services/a/instances/b/heartbeat", 405),
        ("POST", "/api/v1/services/a/instances/b", 405),
        ("PUT", "/api/v1/services/a", 405),
        ("DELETE", "/api/v1/services", 405),
        ("GET", "/api/v1/services//instances/b", 422),
        ("GET", "/api/v1/services/a?healthy=maybe", 422),
        ("GET", "/api/v1/services/a?limit=0", 422),
        ("GET", "/api/v1/services?colour=red", 422),
    ] {
        let (is, problem) = send(&gateway, method, path, "").await;
        assert_eq!(is, status, "{method} {path}: {problem}");
    }
}
