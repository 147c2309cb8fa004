//! `POST /batch`: many independent calls in one request.
//!
//! They run concurrently, in no order; the answers stand in the order of the calls, each with the status
//! and the body that it would have had alone, and with `ageMs` where it may be old. A batch is no transaction. Streams
//! and batches cannot be in it.

use futures_util::future::join_all;
use http::Method;
use serde_json::Value;
use tokio::time::Instant;

use super::{
    Gateway,
    backend::Backend,
    call::Call,
    input::Fields,
    openapi,
    path::{self, PREFIX, Route},
    problem::Problem,
    reply::Reply,
};

pub(super) mod spec;

const CALLS: usize = 100;

impl<B: Backend> Gateway<B> {
    pub(super) async fn batch(&self, mut call: Call<'_>) -> Result<Reply, Problem> {
        let requests = call.fields.list("requests", CALLS)?;
        std::mem::take(&mut call.fields).finish()?;
        let mut items = Vec::with_capacity(requests.len());
        for request in requests {
            items.push(Item::parse(request)?);
        }
        let answers = join_all((0..).zip(items).map(|(place, item)| self.one(&call, place, item))).await;
        let mut body = Vec::with_capacity(64 + answers.iter().map(|a| a.body.len() + 32).sum::<usize>());
        body.extend_from_slice(br#"{"responses":["#);
        for (place, answer) in answers.iter().enumerate() {
            if place > 0 {
                body.push(b',');
            }
            body.extend_from_slice(br#"{"status":"#);
            body.extend_from_slice(answer.status.as_str().as_bytes());
            if let Some(age) = answer.age().json() {
                body.extend_from_slice(br#","ageMs":"#);
                body.extend_from_slice(age.as_bytes());
            }
            body.extend_from_slice(br#","body":"#);
            body.extend_from_slice(&answer.body);
            body.push(b'}');
        }
        body.extend_from_slice(b"]}");
        Ok(Reply::raw_json(body))
    }

    async fn one(&self, batch: &Call<'_>, place: u32, item: Item) -> Reply {
        let started = Instant::now();
        let Item { method, path, body } = item;
        let (path, query) = match path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (path.as_str(), None),
        };
        let mut op = "none";
        let answer = async {
            // Within a batch the prefix may be left out.
            let route = match path.starts_with(PREFIX) {
                true => path::route(&method, path)?,
                false => path::route(&method, &format!("{PREFIX}{path}"))?,
            };
            let apart = matches!(route, Route::Batch | Route::Observe(_) | Route::Watch | Route::FenceAuth);
            if apart || matches!(route, Route::Metrics | Route::OpenApi) {
                return Err(Problem::field("path", "this call cannot be in a batch"));
            }
            op = route.op();
            let fields = Fields::of(body)?.shaped(openapi::body_of(op));
            let call = batch.item(place, query, fields);
            if let Route::Config(_) = route {
                let detail = "values are large: read each by itself, or list with ?prefix=";
                return Err(Problem::field("path", detail));
            }
            if method == Method::POST {
                call.params()?.finish()?;
            }
            self.answer(route, call).await
        };
        let reply = answer.await.unwrap_or_else(Reply::from);
        self.record(op, reply.status, started);
        reply
    }
}

struct Item {
    method: Method,
    path: String,
    body: Value,
}

impl Item {
    fn parse(request: Value) -> Result<Item, Problem> {
        if !request.is_object() {
            return Err(Problem::field("requests", "each request must be an object"));
        }
        let mut fields = Fields::of(request)?.shaped(Some("BatchRequest"));
        let method = match fields.label("method")?.as_str() {
            "GET" => Method::GET,
            "POST" => Method::POST,
            "PUT" => Method::PUT,
            "DELETE" => Method::DELETE,
            _ => return Err(Problem::field("method", "method must be GET, POST, PUT or DELETE")),
        };
        let path = fields.text("path")?.ok_or_else(|| super::input::missing("path"))?;
        let body = fields.any("body");
        if !body.is_null() && !body.is_object() {
            return Err(Problem::field("body", "body must be an object, as the call alone takes it"));
        }
        fields.finish()?;
        Ok(Item { method, path, body })
    }
}
