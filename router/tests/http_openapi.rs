//! The API's description, as it is served, against what the gateway takes.

mod http_support;

use http_support::*;
use serde_json::{Value, json};

async fn described() -> Value {
    let fake = Fake::new();
    let (status, document) = send(&fake.gateway(), "GET", "/openapi.json", "").await;
    assert_eq!(status, 200);
    let below_the_prefix = send(&fake.gateway(), "GET", "/api/v1/openapi.json", "").await;
    assert_eq!(below_the_prefix, (200, document.clone()));
    document
}

/// A description of a field that no handler takes would be found out by it; a field that no description has is found
/// out by the handlers themselves, in every debug build.
#[tokio::test]
async fn every_field_that_is_described_is_taken_and_looked_at() {
    let document = described().await;
    let mut seen = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let content = &operation["requestBody"]["content"]["application/json"];
            let Some(name) = content["schema"]["$ref"].as_str().and_then(|name| name.rsplit('/').next()) else {
                continue;
            };
            let properties = document["components"]["schemas"][name]["properties"].as_object();
            for field in properties.into_iter().flatten().map(|(field, _)| field) {
                let path = operation["parameters"].as_array().unwrap().iter().fold(path.clone(), |path, parameter| {
                    let example = parameter["example"].to_string().replace('"', "").replace('/', "%2F");
                    path.replace(&format!("{{{}}}", parameter["name"].as_str().unwrap()), &example)
                });
                let mut body = content["example"].clone();
                body[field] = json!({"neither": [1, "this"]});
                let fake = Fake::new();
                let (status, problem) = send(&fake.gateway(), &method.to_uppercase(), &path, body.to_string()).await;
                let at = format!("{method} {path} {field}: {problem}");
                assert_eq!((status, problem["code"].as_str()), (422, Some("invalid-field")), "{at}");
                assert_eq!(problem["field"], **field, "{at}");
                assert!(fake.asked().is_empty(), "{at}");
                seen += 1;
            }
        }
    }
    assert!(seen > 25, "only {seen} fields");
}

#[tokio::test]
async fn parts_of_a_batch_and_of_a_check_take_no_other_fields_than_described() {
    for (path, body) in [
        ("/api/v1/batch", json!({"requests": [{"method": "GET", "path": "/livez", "more": 1}]})),
        ("/api/v1/fence/check", json!({"checks": [{"name": "a", "fencingToken": 1, "more": 1}]})),
    ] {
        let (status, problem) = send(&Fake::new().gateway(), "POST", path, body.to_string()).await;
        assert_eq!((status, problem["code"].as_str()), (422, Some("unknown-field")), "{path}");
    }
}
