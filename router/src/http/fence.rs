//! Fencing: does a token belong to a grant that is held now?
//!
//! `/fence/auth` is made for proxies that ask before they let a request pass: NGINX `auth_request` and Envoy
//! `ext_authz`. Its verdicts are 200, 401 (the headers are missing) and 403 (the token is not current).
//! Where it cannot be decided the answer is 503, which both take for a failure and let nothing pass.
//! It takes any method and anything below its path, since Envoy sends those of the request that it guards.

use http::{HeaderMap, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;
use wardlock_machine::{Name, Token, limits};

use super::{
    Gateway,
    backend::Backend,
    call::{Call, PATIENCE},
    input::Fields,
    openapi::shapes,
    path,
    problem::Problem,
    render::SUCCESS,
    reply::Reply,
};

pub(super) mod spec;

impl<B: Backend> Gateway<B> {
    pub(super) async fn fence_check(&self, mut call: Call<'_>) -> Result<Reply, Problem> {
        let items = call.fields.list("checks", limits::FENCE_CHECKS)?;
        call.fields.finish()?;
        let mut checks = Vec::with_capacity(items.len());
        for item in items {
            let mut item = Fields::of(item)?.shaped(Some("FenceCheck"));
            checks.push((item.name("name")?, item.token("fencingToken")?));
            item.finish()?;
        }
        let verdicts = match checks.is_empty() {
            true => Vec::new(),
            false => self.backend().fence(checks.clone(), call.patience).await?,
        };
        if verdicts.len() != checks.len() {
            return Err(Problem::internal("the cluster answered another question"));
        }
        let results = checks.iter().zip(&verdicts);
        Reply::ok(&Verdicts {
            valid: verdicts.iter().all(|valid| *valid),
            results: results
                .map(|((name, token), valid)| Verdict { name, fencing_token: *token, valid: *valid })
                .collect(),
        })
    }

    pub(super) async fn fence_auth(&self, headers: &HeaderMap) -> Result<Reply, Problem> {
        let check = credentials(headers)?;
        let verdicts = self.backend().fence(vec![check], PATIENCE).await;
        match verdicts.as_deref() {
            Ok([true]) => Reply::ok(&SUCCESS),
            Ok([false]) => Err(forbidden("the token belongs to no grant of this lock that is held now")),
            Ok(_) | Err(_) => {
                let after = std::time::Duration::from_secs(1);
                let detail = "whether the token is current could not be found out";
                Err(Problem::unavailable("unavailable", "No verdict could be reached in time", detail, after))
            }
        }
    }
}

/// The lock's name is percent-decoded, as in a path: headers carry little more than ASCII.
fn credentials(headers: &HeaderMap) -> Result<(Name, Token), Problem> {
    let one = |name: &'static str| {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(value.as_bytes()),
            (None, _) => Err(unauthorized(format!("the header {name} is needed"))),
            // Two of them: which one the guarded server reads is anybody's guess.
            (Some(_), Some(_)) => Err(forbidden(format!("the header {name} comes twice"))),
        }
    };
    let (name, token) = (one("x-wardlock-lock")?, one("x-wardlock-token")?);
    let name = std::str::from_utf8(name).map_err(|_| forbidden("the lock's name is not UTF-8"))?;
    let name = path::decode(name).map_err(|e| forbidden(e.to_string()))?;
    let name = Name::new(&name).map_err(|e| forbidden(e.to_string()))?;
    let digits = std::str::from_utf8(token).ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
    let token = digits.and_then(|t| t.parse().ok()).ok_or_else(|| forbidden("the token is not a number"))?;
    Ok((name, Token(token)))
}

fn unauthorized(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "no-token", "The request carries no fencing token", detail)
}

fn forbidden(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "stale-token", "The fencing token is not current", detail)
}

#[derive(Serialize, ToSchema)]
struct Verdicts<'a> {
    /// All of them.
    valid: bool,
    results: Vec<Verdict<'a>>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Verdict<'a> {
    #[schema(value_type = shapes::Name)]
    name: &'a Name,
    #[schema(value_type = shapes::FencingToken)]
    fencing_token: Token,
    valid: bool,
}
