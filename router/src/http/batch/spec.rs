//! What is said of batches.

#![allow(dead_code, reason = "shapes: what they describe is read field by field")]

use serde_json::json;
use utoipa::ToSchema;

use super::super::openapi::{Described, post, shapes};

/// What is asked.
#[derive(ToSchema)]
struct Batch {
    /// At most a hundred.
    #[schema(value_type = Requests)]
    requests: (),
}

struct Requests;

impl utoipa::PartialSchema for Requests {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        let items = utoipa::openapi::Ref::from_schema_name("BatchRequest");
        utoipa::openapi::schema::ArrayBuilder::new().items(items).max_items(Some(super::CALLS)).build().into()
    }
}

impl ToSchema for Requests {}

/// One call.
#[derive(ToSchema)]
struct BatchRequest {
    method: Method,
    /// With its query; `/api/v1` may be left out.
    path: String,
    /// As the call alone takes it.
    #[schema(value_type = Option<serde_json::Map<String, serde_json::Value>>)]
    body: (),
}

/// Of a call in a batch.
#[derive(ToSchema)]
#[schema(rename_all = "UPPERCASE", as = BatchMethod)]
enum Method {
    Get,
    Post,
    Put,
    Delete,
}

/// What is answered.
#[derive(ToSchema)]
struct BatchAnswers {
    /// In the order of the requests.
    responses: Vec<BatchAnswer>,
}

/// One answer.
#[derive(ToSchema)]
struct BatchAnswer {
    /// That it would have had alone.
    status: u16,
    /// Of a stale read: how old it may be, in milliseconds; null where nobody knows.
    #[schema(value_type = Option<shapes::Count>, rename = "ageMs")]
    age_ms: (),
    /// That it would have had alone.
    #[schema(value_type = serde_json::Value)]
    body: (),
}

pub(in super::super) fn calls() -> Vec<Described> {
    let calls = vec![
        post("batch", "/batch", "Makes many calls at once")
            .about(
                "They run concurrently, in no order, and are answered one by one: it is no transaction. Streams, \
                    batches, `/fence/auth`, values of the configuration, metrics and this document cannot be in it. An \
                    Idempotency-Key counts for each of them.",
            )
            .takes::<Batch>(json!({"requests": [{"method": "GET", "path": "/locks/orders%2F42"}]}))
            .within::<BatchRequest>()
            .writes(true)
            .answers::<BatchAnswers>(
                200,
                "An answer for each, in order.",
                json!({"responses": [{"status": 200, "body": {"success": true}}]}),
            ),
    ];
    calls.into_iter().map(|call| call.tag("batch")).collect()
}
