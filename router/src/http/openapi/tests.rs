//! The document against the routes, the codes against the sources, the examples against their schemas.

use std::{collections::BTreeSet, fs, path::Path};

use http::Method;
use serde_json::Value;

use super::{super::path::route, *};

fn parsed() -> Value {
    serde_json::from_slice(document()).expect("the document is JSON")
}

#[test]
fn every_call_is_described_and_every_description_is_a_calls() {
    let mut described = BTreeSet::new();
    for call in calls() {
        let method: Method = call.method.to_uppercase().parse().expect("a method");
        let found = route(&method, &call.example_path()).unwrap_or_else(|why| panic!("{}: {why:?}", call.op));
        assert_eq!(found.op(), call.op, "{} {}", call.method, call.example_path());
        assert!(described.insert(call.op), "{} is described twice", call.op);
    }
    let source = include_str!("../path.rs");
    let ops = source.lines().filter_map(|line| line.trim().strip_prefix("Route::")?.split_once(" => \""));
    let ops: BTreeSet<&str> = ops.filter_map(|(_, op)| op.strip_suffix("\",")).collect();
    assert!(ops.contains("acquire") && ops.len() > 30, "the names of the calls were not found: {ops:?}");
    assert_eq!(described, ops, "left: described, right: routed");
}

/// Every text between quotes that stands where a problem's code does.
fn codes_in(source: &str) -> BTreeSet<&str> {
    const MAKERS: [&str; 7] = ["new(", "invalid(", "conflict(", "missing(", "gone(", "unavailable(", "refused("];
    let mut codes = BTreeSet::new();
    for maker in MAKERS {
        for (at, _) in source.match_indices(maker) {
            let before = &source[..at];
            if maker != "refused(" && !before.ends_with("Problem::") {
                continue;
            }
            // Behind the status, where there is one, the code is the next word in quotes.
            let call = &source[at + maker.len()..];
            let Some(text) = call.split('"').nth(1) else { continue };
            let near = call.find('"').is_some_and(|quote| quote < 120 && !call[..quote].contains("code,"));
            if near && !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') {
                codes.insert(text);
            }
        }
    }
    codes
}

#[test]
fn every_code_that_a_source_can_write_is_described() {
    let mut written = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the sources").map(|entry| entry.expect("an entry").path()) {
            match entry.extension() {
                None => folders.push(entry),
                Some(_) => {
                    let source = fs::read_to_string(&entry).expect("a source");
                    written.extend(codes_in(&source).into_iter().map(str::to_owned));
                }
            }
        }
    }
    let source = include_str!("../../http.rs");
    written.extend(codes_in(source).into_iter().map(str::to_owned));
    let known: BTreeSet<String> = codes::CODES.iter().map(|(code, ..)| (*code).to_owned()).collect();
    assert_eq!(written, known, "left: in the sources, right: described");
}

#[test]
fn a_call_is_refused_with_known_codes_only_and_each_code_but_one_is_some_calls() {
    let document = parsed();
    let mut used = BTreeSet::new();
    for (_, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().expect("responses") {
            let schema = &response["content"]["application/problem+json"]["schema"];
            for code in schema["allOf"][1]["properties"]["code"]["enum"].as_array().into_iter().flatten() {
                let code = code.as_str().expect("a code");
                let known =
                    codes::CODES.iter().any(|(known, at, _)| (*known, at.to_string()) == (code, status.clone()));
                assert!(known, "{code} with {status}");
                used.insert(code);
            }
        }
    }
    let known: BTreeSet<&str> = codes::CODES.iter().map(|(code, ..)| *code).collect();
    let unused: Vec<&str> = known.difference(&used).copied().collect();
    assert_eq!(unused, ["method-not-allowed"], "no described call has these");
}

fn operations(document: &Value) -> impl Iterator<Item = (String, &Value)> {
    let paths = document["paths"].as_object().expect("paths");
    paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().expect("methods");
        methods.iter().map(move |(method, operation)| (format!("{method} {path}"), operation))
    })
}

#[test]
fn every_call_has_a_summary_a_group_and_examples_that_fit_their_schemas() {
    let document = parsed();
    let tags: BTreeSet<&str> = TAGS.iter().map(|(tag, _)| *tag).collect();
    for (call, operation) in operations(&document) {
        assert!(!operation["summary"].as_str().expect("a summary").is_empty(), "{call}");
        assert!(tags.contains(operation["tags"][0].as_str().expect("a tag")), "{call}");
        for parameter in operation["parameters"].as_array().expect("parameters") {
            fits(&document, &parameter["schema"], &parameter["example"], &call);
        }
        let answers = operation["responses"].as_object().expect("responses").values();
        for of in answers.chain(operation.get("requestBody")) {
            for (media_type, content) in of["content"].as_object().into_iter().flatten() {
                let at = format!("{call} {media_type}");
                if let Some(examples) = content["examples"].as_object() {
                    for example in examples.values().filter_map(|example| example["$ref"].as_str()) {
                        let example = &document.pointer(&example[1..]).expect("the example is there")["value"];
                        fits(&document, &content["schema"], example, &at);
                    }
                } else {
                    fits(&document, &content["schema"], &content["example"], &at);
                }
            }
        }
    }
}

/// As much of JSON Schema as the document uses.
fn misfit(document: &Value, schema: &Value, value: &Value) -> Option<String> {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/components/schemas/")) {
        let schema = document["components"]["schemas"].get(name);
        let Some(schema) = schema else { return Some(format!("there is no schema {name}")) };
        return misfit(document, schema, value).map(|why| format!("{name}: {why}"));
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let is = |of: &&str| match *of {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        _ => value.is_object(),
    };
    if !types.is_empty() && !types.iter().any(is) {
        return Some(format!("{value} is no {types:?}"));
    }
    if let Some(allowed) = schema["enum"].as_array().filter(|allowed| !allowed.contains(value)) {
        return Some(format!("{value} is none of {allowed:?}"));
    }
    if let Some(object) = value.as_object() {
        let properties = &schema["properties"];
        for needed in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !object.contains_key(needed) {
                return Some(format!("{needed} is not there: {value}"));
            }
        }
        for (name, value) in object {
            match properties.get(name) {
                Some(schema) => match misfit(document, schema, value) {
                    None => {}
                    Some(why) => return Some(format!("{name}: {why}")),
                },
                None if schema["additionalProperties"] == false => return Some(format!("{name} is unknown")),
                None => {}
            }
        }
    }
    if let Some(items) = schema.get("items") {
        let wrong = value.as_array().into_iter().flatten().find_map(|value| misfit(document, items, value));
        if wrong.is_some() {
            return wrong;
        }
    }
    let all = |key: &str| schema[key].as_array().cloned().unwrap_or_default();
    if let Some(why) = all("allOf").iter().find_map(|schema| misfit(document, schema, value)) {
        return Some(why);
    }
    for key in ["anyOf", "oneOf"] {
        let choices = all(key);
        let fitting = choices.iter().filter(|schema| misfit(document, schema, value).is_none()).count();
        if !choices.is_empty() && fitting == 0 {
            return Some(format!("{value} fits no choice of {schema}"));
        }
    }
    None
}

fn fits(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(why) = misfit(document, schema, value) {
        panic!("{at}: {why}");
    }
}
