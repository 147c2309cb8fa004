//! The configuration's calls: what each says to the cluster, and what it makes of each answer.

mod http_support;

use http_body_util::BodyExt;
use http_support::*;
use serde_json::{Value, json};
use wardlock_machine::*;
use wardlock_router::http::Gateway;

const PATH: &str = "/api/v1/config/app/db";

fn done(version: u64) -> Outcome {
    let updated = WallMs(1_765_792_800_000);
    Outcome::Configured(Configured { version: Version(version), revision: Revision(9), updated })
}

fn view(content_type: &str, value: &[u8]) -> ConfigView {
    ConfigView {
        path: name("app/db"),
        version: Version(3),
        revision: Revision(9),
        updated: WallMs(1_765_792_800_000),
        deleted: false,
        content_type: content_type.into(),
        size: value.len() as u32,
        value: Some(Blob::new(value)),
    }
}

/// Sends a request with headers.
async fn ask(
    gateway: &Gateway<Fake>,
    method: &str,
    path: &str,
    headers: &[(&'static str, &str)],
    body: &[u8],
) -> (u16, http::HeaderMap, Vec<u8>) {
    let mut request = request(method, path, body.to_vec());
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let response = gateway.handle(request).await;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    (status, headers, response.into_body().collect().await.unwrap().to_bytes().to_vec())
}

fn json_of(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|e| panic!("{e}: {body:?}"))
}

/// What a `PUT` comes to: type, value, and what it expects.
async fn put(path: &str, headers: &[(&'static str, &str)], body: &[u8]) -> (String, Vec<u8>, Option<u64>) {
    let fake = Fake::new();
    fake.will(done(4));
    let (status, headers, answer) = ask(&fake.gateway(), "PUT", path, headers, body).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    assert_eq!(headers["etag"], "\"4\"");
    let expected = json!({
        "success": true, "path": "app/db", "version": 4, "updatedAt": "2025-12-15T10:00:00.000Z", "revision": 9,
    });
    assert_eq!(json_of(&answer), expected);
    let Some(Command::Configure(ask)) = fake.asked().pop() else { panic!("{:?}", fake.asked()) };
    assert_eq!((ask.request, &ask.key), (42, &Key::config(name("app/db"))));
    let Change::Put(content) = ask.change else { panic!("{:?}", ask.change) };
    (content.content_type, content.value.to_vec(), ask.expected.map(|version| version.0))
}

#[tokio::test]
async fn a_value_is_put_as_it_is_or_in_a_document() {
    let text = "text/plain; charset=utf-8".to_owned();
    let (yaml, json) = (("content-type", "application/yaml"), ("content-type", "application/json"));
    let got = put(PATH, &[yaml], b"k: v").await;
    assert_eq!(got, ("application/yaml".into(), b"k: v".to_vec(), None));
    // A document of ours, however it calls itself.
    for headers in [&[json][..], &[], &[("content-type", "application/x-www-form-urlencoded")]] {
        assert_eq!(put(PATH, headers, br#"{"value":"k: v"}"#).await, (text.clone(), b"k: v".to_vec(), None));
    }
    let got = put(PATH, &[json], br#"{"value": {"a": [1, null]}, "expectedVersion": 3}"#).await;
    assert_eq!(got, ("application/json".into(), br#"{"a":[1,null]}"#.to_vec(), Some(3)));
    let got = put(PATH, &[], br#"{"value": "text", "contentType": "application/problem+json"}"#).await;
    assert_eq!(got, ("application/problem+json".into(), br#""text""#.to_vec(), None));
    let got = put(PATH, &[], br#"{"value": "/wA=", "encoding": "base64", "contentType": "x/y"}"#).await;
    assert_eq!(got, ("x/y".into(), vec![0xff, 0], None));
    // JSON as it is.
    let got = put(&format!("{PATH}?raw&expectedVersion=0"), &[json], b"{ \"z\":1, \"a\":2 }").await;
    assert_eq!(got, ("application/json".into(), b"{ \"z\":1, \"a\":2 }".to_vec(), Some(0)));
    let got = put(&format!("{PATH}?raw"), &[], b"").await;
    assert_eq!(got, ("application/octet-stream".into(), Vec::new(), None));
    // Conditions in headers.
    assert_eq!(put(PATH, &[yaml, ("if-match", "\"7\"")], b"").await.2, Some(7));
    assert_eq!(put(PATH, &[yaml, ("if-none-match", "*")], b"x").await.2, Some(0));
    let largest = vec![7; limits::CONFIG_VALUE_BYTES];
    assert_eq!(put(PATH, &[yaml], &largest).await.1, largest);
}

#[tokio::test]
async fn what_is_wrong_is_refused_before_the_cluster_is_asked() {
    let yaml = ("content-type", "application/yaml");
    let large = vec![7; limits::CONFIG_VALUE_BYTES + 1];
    for (path, headers, body, status, code) in [
        (PATH, &[][..], &b"{}"[..], 422, "missing-field"),
        (PATH, &[], b"", 422, "missing-field"),
        (PATH, &[], br#"{"value":1,"contentType":"text/plain"}"#, 422, "invalid-field"),
        (PATH, &[], br#"{"value":"x","contentType":"nonsense"}"#, 422, "invalid-field"),
        (PATH, &[], br#"{"value":"x","contentType":"a/b\r\nx: y"}"#, 422, "invalid-field"),
        (PATH, &[], br#"{"value":"%%","encoding":"base64"}"#, 422, "invalid-field"),
        (PATH, &[], br#"{"value":"x","encoding":"rot13"}"#, 422, "invalid-field"),
        (PATH, &[], br#"{"value":"x","expectedVersion":-1}"#, 422, "invalid-field"),
        (PATH, &[], br#"{"value":"x","version":1}"#, 422, "unknown-field"),
        (PATH, &[], b"[1]", 422, "invalid-json"),
        (PATH, &[yaml, ("if-match", "*")], b"x", 422, "invalid-field"),
        (PATH, &[yaml, ("if-match", "3")], b"x", 422, "invalid-field"),
        (PATH, &[yaml, ("if-none-match", "\"3\"")], b"x", 422, "invalid-field"),
        (PATH, &[yaml, ("if-match", "\"3\""), ("if-none-match", "*")], b"x", 422, "invalid-field"),
        ("/api/v1/config/a?expectedVersion=x", &[yaml], b"x", 422, "invalid-field"),
        ("/api/v1/config/a?expectedVersion=+3", &[yaml], b"x", 422, "invalid-field"),
        ("/api/v1/config/a?raw=perhaps", &[yaml], b"x", 422, "invalid-field"),
        ("/api/v1/config/a?wat", &[yaml], b"x", 422, "unknown-parameter"),
        ("/api/v1/config/", &[yaml], b"x", 422, "invalid-name"),
        (PATH, &[yaml], &large, 413, "too-large"),
    ] {
        let fake = Fake::new();
        let (got, _, answer) = ask(&fake.gateway(), "PUT", path, headers, body).await;
        assert_eq!((got, &json_of(&answer)["code"]), (status, &json!(code)), "{path} {headers:?}");
        assert!(fake.asked().is_empty(), "{path} {headers:?}");
    }
    let both = [yaml, ("if-match", "\"3\"")];
    let (status, ..) = ask(&Fake::new().gateway(), "PUT", "/api/v1/config/a?expectedVersion=4", &both, b"x").await;
    assert_eq!(status, 422, "two different versions");
    let (status, headers, _) = ask(&Fake::new().gateway(), "POST", "/api/v1/config/a", &[], b"").await;
    assert_eq!((status, &headers["allow"]), (405, &"GET, HEAD, PUT, DELETE".parse().unwrap()));
}

#[tokio::test]
async fn a_value_is_read_in_a_document_or_as_it_is() {
    for (content_type, value, shown, encoding) in [
        ("text/plain", &b"k: v"[..], json!("k: v"), None),
        ("application/json", br#"{"a":[1]}"#, json!({"a": [1]}), None),
        ("application/json", b"no json", json!("no json"), None),
        ("x/y", b"\xff\x00", json!("/wA="), Some("base64")),
        ("", b"", json!(""), None),
    ] {
        let fake = Fake::new();
        fake.answers(Answer::Config(Some(view(content_type, value))));
        fake.answers(Answer::Config(Some(view(content_type, value))));
        let gateway = fake.gateway();
        let (status, headers, body) = ask(&gateway, "GET", PATH, &[], b"").await;
        let mut expected = json!({
            "path": "app/db", "value": shown, "version": 3, "updatedAt": "2025-12-15T10:00:00.000Z", "revision": 9,
            "contentType": content_type, "size": value.len(),
        });
        if content_type.is_empty() {
            expected.as_object_mut().unwrap().remove("contentType");
        }
        if let Some(encoding) = encoding {
            expected["encoding"] = json!(encoding);
        }
        assert_eq!((status, json_of(&body)), (200, expected));
        assert_eq!(headers["etag"], "\"3\"");
        let (status, headers, body) = ask(&gateway, "GET", &format!("{PATH}?raw"), &[], b"").await;
        let sent = if content_type.is_empty() { "application/octet-stream" } else { content_type };
        assert_eq!((status, &headers["content-type"], &body[..]), (200, &sent.parse().unwrap(), value));
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["etag"], "\"3\"");
    }
    let fake = Fake::new();
    fake.answers(Answer::Config(Some(view("t/t", b"v"))));
    let (status, _, body) = ask(&fake.gateway(), "GET", PATH, &[("if-none-match", "W/\"3\"")], b"").await;
    assert_eq!((status, &body[..]), (304, &b""[..]));
}

#[tokio::test]
async fn earlier_versions_are_listed_read_and_brought_back() {
    let fake = Fake::new();
    let deleted = ConfigView { deleted: true, content_type: String::new(), size: 0, value: None, ..view("", b"") };
    fake.answers(Answer::Versions(vec![deleted.clone(), ConfigView { value: None, ..view("t/t", b"v") }]));
    let (status, answer) = send(&fake.gateway(), "GET", &format!("{PATH}?versions"), "").await;
    let listed = |extra: Value| {
        let mut one = json!({"version": 3, "updatedAt": "2025-12-15T10:00:00.000Z", "revision": 9});
        one.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        one
    };
    let versions = [listed(json!({"size": 0, "deleted": true})), listed(json!({"size": 1, "contentType": "t/t"}))];
    assert_eq!((status, answer), (200, json!({"path": "app/db", "versions": versions})));

    fake.answers(Answer::Config(Some(deleted)));
    let (status, answer) = send(&fake.gateway(), "GET", &format!("{PATH}?version=3"), "").await;
    assert_eq!((status, &answer["code"]), (404, &json!("no-such-version")), "a deletion has no value");
    let key = Key::config(name("app/db"));
    assert_eq!(fake.queries.lock().unwrap()[1], Query::Config { key: key.clone(), version: Some(Version(3)) });

    fake.will(done(5));
    let (status, answer) =
        send(&fake.gateway(), "POST", &format!("{PATH}/rollback"), r#"{"version":2,"expectedVersion":4}"#).await;
    assert_eq!((status, &answer["version"]), (200, &json!(5)));
    let change = Change::Rollback { to: Version(2) };
    let asked = Configure { request: 42, key, change, expected: Some(Version(4)) };
    assert_eq!(fake.asked(), [Command::Configure(asked)]);
    let (status, answer) = send(&fake.gateway(), "POST", &format!("{PATH}/rollback"), "{}").await;
    assert_eq!((status, &answer["field"]), (422, &json!("version")));
}

#[tokio::test]
async fn refusals_say_what_is_in_the_way() {
    let mismatch = Outcome::VersionMismatch { current: Version(8) };
    for (outcome, method, path, headers, status, code) in [
        (mismatch.clone(), "DELETE", "/api/v1/config/a?expectedVersion=3", &[][..], 409, "version-mismatch"),
        (mismatch, "DELETE", "/api/v1/config/a", &[("if-match", "\"3\"")], 412, "version-mismatch"),
        (Outcome::NoConfig, "DELETE", "/api/v1/config/a", &[], 404, "no-such-path"),
        (Outcome::Limit(Limit::ConfigBytes), "DELETE", "/api/v1/config/a", &[], 429, "quota"),
        (Outcome::Limit(Limit::Configs), "DELETE", "/api/v1/config/a", &[], 429, "quota"),
    ] {
        let fake = Fake::new();
        fake.will(outcome);
        let (got, _, answer) = ask(&fake.gateway(), method, path, headers, b"").await;
        let answer = json_of(&answer);
        assert_eq!((got, &answer["code"], &answer["success"]), (status, &json!(code), &json!(false)), "{answer}");
        if code == "version-mismatch" {
            assert_eq!(answer["currentVersion"], 8);
        }
    }
    let fake = Fake::new();
    fake.will(Outcome::NoConfig);
    let (status, answer) = send(&fake.gateway(), "POST", "/api/v1/config/a/rollback", r#"{"version":2}"#).await;
    assert_eq!((status, &answer["code"]), (404, &json!("no-such-version")));
    fake.answers(Answer::Config(None)).answers(Answer::Versions(Vec::new()));
    assert_eq!(send(&fake.gateway(), "GET", "/api/v1/config/a", "").await.0, 404);
    assert_eq!(send(&fake.gateway(), "GET", "/api/v1/config/a?versions", "").await.0, 404);
}

#[tokio::test]
async fn paths_are_listed_by_the_page() {
    let fake = Fake::new();
    fake.answers(Answer::Configs(vec![ConfigView { value: None, ..view("t/t", b"v") }]));
    let (status, answer) = send(&fake.gateway(), "GET", "/api/v1/config?prefix=app/&after=app/a&limit=1", "").await;
    assert_eq!((status, &answer["next"], &answer["configs"][0]["path"]), (200, &json!("app/db"), &json!("app/db")));
    assert!(answer["configs"][0].get("value").is_none());
    let asked = Query::Configs { prefix: "app/".into(), after: Some("app/a".into()), limit: 1 };
    assert_eq!(fake.queries.lock().unwrap()[..], [asked]);
    assert_eq!(send(&fake.gateway(), "GET", "/api/v1/config?limit=0", "").await.0, 422);
}

/// In a batch values are written in documents, and not read: they are large.
#[tokio::test]
async fn a_batch_writes_values_and_reads_none() {
    let fake = Fake::new();
    fake.will(done(1));
    let batch = json!({"requests": [
        {"method": "PUT", "path": "/config/a", "body": {"value": "v"}},
        {"method": "GET", "path": "/config/a"},
    ]});
    let (status, answer) = send(&fake.gateway(), "POST", "/api/v1/batch", batch.to_string()).await;
    let statuses: Vec<&Value> = answer["responses"].as_array().unwrap().iter().map(|one| &one["status"]).collect();
    assert_eq!((status, statuses), (200, vec![&json!(200), &json!(422)]), "{answer}");
}
