//! What is said of fencing.

#![allow(dead_code, reason = "shapes: what they describe is read field by field")]

use serde_json::json;
use utoipa::ToSchema;

use super::{
    super::{
        openapi::{Described, get, post, shapes},
        render::Success,
    },
    Verdicts,
};

/// What is looked at.
#[derive(ToSchema)]
struct FenceChecks {
    #[schema(value_type = Checks)]
    checks: (),
}

struct Checks;

impl utoipa::PartialSchema for Checks {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        let items = utoipa::openapi::Ref::from_schema_name("FenceCheck");
        let list = utoipa::openapi::schema::ArrayBuilder::new().items(items);
        list.max_items(Some(wardlock_machine::limits::FENCE_CHECKS)).build().into()
    }
}

impl ToSchema for Checks {}

/// A lock and a token.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
struct FenceCheck {
    #[schema(value_type = shapes::Name)]
    name: (),
    #[schema(value_type = shapes::FencingToken)]
    fencing_token: (),
}

pub(in super::super) fn calls() -> Vec<Described> {
    let calls = vec![
        post("fence_check", "/fence/check", "Says whether tokens belong to grants that are held now")
            .takes::<FenceChecks>(json!({"checks": [{"name": "orders/42", "fencingToken": 1042}]}))
            .within::<FenceCheck>()
            .reads()
            .answers::<Verdicts<'_>>(
                200,
                "A verdict for each, in order.",
                json!({"valid": true, "results": [{"name": "orders/42", "fencingToken": 1042, "valid": true}]}),
            ),
        get("fence_auth", "/fence/auth", "The same, for a proxy that asks before it lets a request pass")
            .about(
                "For NGINX `auth_request` and Envoy `ext_authz`. It takes any method, and anything below its path, \
                    since Envoy sends those of the request that it guards.",
            )
            .by_proxy()
            .header::<shapes::Name>("X-Wardlock-Lock", true, json!("orders%2F42"), "The lock's name, percent-encoded.")
            .header::<shapes::FencingToken>("X-Wardlock-Token", true, json!(1042), "The fencing token.")
            .answers::<Success>(200, "Let it pass.", json!({"success": true}))
            .refuses(&["no-token", "stale-token", "unavailable"]),
    ];
    calls.into_iter().map(|call| call.tag("fencing")).collect()
}
