//! What is said of the calls on the configuration.

#![allow(dead_code, reason = "shapes: what they describe is read field by field")]

use std::borrow::Cow;

use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        RefOr, Schema,
        schema::{ObjectBuilder, SchemaType},
    },
};
use wardlock_machine::limits;

use super::{
    super::{
        locks::spec::TOKEN,
        openapi::{Described, delete, get, post, put, shapes},
    },
    Document, Done, History, Listing,
};

/// A value for a path.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
struct PutConfig {
    /// A text, at most 1 MiB; with a `contentType` of JSON anything.
    #[schema(value_type = serde_json::Value)]
    value: (),
    /// A media type, which is kept with the value; `text/plain; charset=utf-8` where it is not said.
    #[schema(value_type = Option<shapes::Label>)]
    content_type: (),
    /// `base64` where the value is that, because it is no text.
    #[schema(value_type = Option<Encoding>)]
    encoding: (),
    /// The version that the path must have; 0 where it must have no value.
    #[schema(value_type = Option<shapes::Version>)]
    expected_version: (),
}

/// How bytes stand in JSON.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
pub(in super::super) enum Encoding {
    Base64,
}

/// Which version a path is given again.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
struct Rollback {
    #[schema(value_type = shapes::Version)]
    version: (),
    /// The version that the path must have.
    #[schema(value_type = Option<shapes::Version>)]
    expected_version: (),
}

/// With `raw`, a value that is kept as JSON: whatever it is.
struct Raw;

impl PartialSchema for Raw {
    fn schema() -> RefOr<Schema> {
        let about = "With `raw`: a value that is kept as JSON, whatever it is.";
        RefOr::T(Schema::Object(
            ObjectBuilder::new().schema_type(SchemaType::AnyValue).description(Some(about)).build(),
        ))
    }
}

impl ToSchema for Raw {
    fn name() -> Cow<'static, str> {
        "RawValue".into()
    }
}

pub(in super::super) fn calls() -> Vec<Described> {
    let done = json!({
        "success": true, "path": "payments/limit", "version": 3, "updatedAt": "2025-12-15T10:00:00.000Z", "revision": 5,
    });
    let tag = "A version as `ETag` has it: `\"3\"`. The change fails with 412 where the path has another.";
    let raw = "The value alone, as it is.";
    let calls = vec![
        put("put_config", "/config/{path}", "Gives a path a value")
            .about("In a document, or as it is: with a Content-Type other than JSON's, or with `raw` and any.")
            .query::<bool>("raw", json!(false), "The body is the value itself, of whatever type.")
            .query::<shapes::Version>("expectedVersion", json!(2), "The version that it must have; 0 for none.")
            .header::<shapes::EntityTag>("If-Match", false, json!("\"2\""), tag)
            .header::<shapes::Star>("If-None-Match", false, json!("*"), "`*`: it must have no value.")
            .takes::<PutConfig>(json!({"value": "100", "contentType": "text/plain", "expectedVersion": 2}))
            .takes_also("application/octet-stream", value(), json!("100"))
            .takes_also("text/plain", value(), json!("100"))
            .writes(true)
            .answers::<Done<'_>>(200, "It has that value.", done.clone())
            .tagged(200, true)
            .refuses(&["version-mismatch"]),
        get("config", "/config/{path}", "Shows a path's value, or its versions")
            .query::<bool>("raw", json!(false), raw)
            .query::<shapes::Version>("version", json!(2), "As it was at this version; the last 32 are kept.")
            .query::<bool>(
                "versions",
                json!(false),
                "The versions that are kept, without values. It goes with no other.",
            )
            .header::<String>("If-None-Match", false, json!("\"3\""), "The version that the caller has.")
            .reads_as_asked()
            .answers::<Document<'_>>(200, "The value, or the versions.", config())
            .or_answers::<History<'_>>(200)
            .or_answers::<Raw>(200)
            .answers_as(200, raw, "*/*", json!({}), json!("100"))
            .tagged(200, false)
            .answers_nothing(304, "The caller has it.")
            .tagged(304, true)
            .refuses(&["no-such-path", "no-such-version"]),
        delete("delete_config", "/config/{path}", "Takes a path's value away")
            .about("That is a version, too. The earlier ones stay for a while.")
            .query::<shapes::Version>("expectedVersion", json!(3), "The version that it must have.")
            .header::<shapes::EntityTag>("If-Match", false, json!("\"3\""), tag)
            .writes(true)
            .answers::<Done<'_>>(200, "It has no value.", done.clone())
            .tagged(200, true)
            .refuses(&["no-such-path", "version-mismatch"]),
        post("rollback_config", "/config/{path}/rollback", "Gives a path the value again that it had at a version")
            .about("That makes a new version.")
            .header::<shapes::EntityTag>("If-Match", false, json!("\"3\""), tag)
            .header::<shapes::Star>("If-None-Match", false, json!("*"), "`*`: it must have no value.")
            .takes::<Rollback>(json!({"version": 2, "expectedVersion": 3}))
            .writes(true)
            .answers::<Done<'_>>(200, "It has that value.", done)
            .tagged(200, true)
            .refuses(&["no-such-version", "version-mismatch"]),
        get("configs", "/config", "Lists the paths that have a value")
            .about(
                "In their order, over all shards, without values. `token` is where to watch from so as to miss \
                    nothing that happens after the list was made; for further pages the token of the first one counts.",
            )
            .query::<shapes::Prefix>("prefix", json!("payments/"), "Only paths that start so.")
            .pages::<shapes::Prefix>(json!("payments/limit"))
            .reads_as_asked()
            .answers::<Listing<'_>>(200, "A page.", json!({"configs": [listed()], "next": null, "token": TOKEN})),
    ];
    calls.into_iter().map(|call| call.tag("configuration")).collect()
}

fn value() -> Value {
    json!({"type": "string", "contentEncoding": "binary", "maxLength": limits::CONFIG_VALUE_BYTES})
}

fn listed() -> Value {
    json!({
        "path": "payments/limit", "version": 3, "updatedAt": "2025-12-15T10:00:00.000Z", "revision": 5,
        "contentType": "text/plain", "size": 3,
    })
}

fn config() -> Value {
    let mut config = listed();
    config["value"] = "100".into();
    config
}
