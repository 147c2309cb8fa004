//! `GET /leader/{name}/observe`: an election's audience, as Server-Sent Events.
//!
//! The stream opens with the leader as it is, then tells each change. Between them it is a row of long
//! polls; nothing is kept here but the last revision seen, which every event carries as its `id`. A client
//! that comes back with `Last-Event-ID` hears of what changed since, once, as it is by then: an election's
//! audience wants the leader, not its history.
//!
//! Where nothing happens a comment is sent every [`PULSE`], so that proxies and dead connections show.

use std::{convert::Infallible, time::Duration};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, header};
use wardlock_machine::{Key, LockId, Name, Object, Revision};

use super::{Gateway, backend::Backend, call::Call, problem::Problem, render::LeaderView};
use crate::Error;

const PULSE: Duration = Duration::from_secs(15);
const RETRY_MAX: Duration = Duration::from_secs(2);

impl<B: Backend> Gateway<B> {
    pub(super) async fn observe(&self, name: Name, call: Call<'_>) -> Result<Response, Problem> {
        call.params()?.finish()?;
        let resumed = match call.headers.get("last-event-id") {
            None => None,
            Some(id) => {
                let id = id.to_str().ok().and_then(|id| id.parse().ok()).map(Revision);
                Some(id.ok_or_else(|| Problem::field("Last-Event-ID", "Last-Event-ID must be an id of this stream"))?)
            }
        };
        let mut audience =
            Audience { gateway: self.clone(), key: Key::election(name), since: Revision(0), seen: Seen::Nothing };
        // The first look comes before the headers: what is wrong now is a plain refusal.
        let (object, revision) = self.backend().observe(audience.key.clone(), Revision(0), Duration::ZERO).await?;
        // An id from before a restore is ahead of everything to come: its bearer starts anew.
        if let Some(since) = resumed.filter(|since| *since <= revision) {
            audience.since = since;
            audience.seen = Seen::Upto(since);
        }
        let first = audience.chunk(object.as_ref(), revision);
        let rest = stream::unfold(audience, |mut audience| async move {
            let chunk = audience.next().await?;
            Some((Ok::<_, Infallible>(chunk), audience))
        });
        let body = futures_util::StreamExt::chain(stream::once(std::future::ready(Ok(first))), rest);
        Ok(event_stream(Body::from_stream(body)))
    }
}

/// A stream of events as a response.
pub(super) fn event_stream(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // NGINX would hold events back until its buffer is full.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// One listener.
struct Audience<B> {
    gateway: Gateway<B>,
    key: Key,
    since: Revision,
    seen: Seen,
}

/// What the listener knows.
enum Seen {
    Nothing,
    /// Everything up to here, though not by us.
    Upto(Revision),
    /// This leader, or that there is none.
    Leader(Option<LockId>),
}

impl<B: Backend> Audience<B> {
    /// The next piece of the stream; `None` when the server stops.
    async fn next(&mut self) -> Option<Bytes> {
        let stopping = self.gateway.stopping().clone();
        let answer = tokio::select! {
            biased;
            () = stopping.cancelled() => return None,
            answer = self.gateway.backend().observe(self.key.clone(), self.since, PULSE) => answer,
        };
        match answer {
            Ok((object, revision)) => Some(self.chunk(object.as_ref(), revision)),
            Err(error) => {
                let pause = match &error {
                    Error::Unavailable { retry_after, .. } => (*retry_after).min(RETRY_MAX),
                    _ => RETRY_MAX,
                };
                tokio::select! {
                    () = stopping.cancelled() => return None,
                    () = tokio::time::sleep(pause) => {}
                }
                Some(Bytes::from_static(b": the shard cannot be reached now\n\n"))
            }
        }
    }

    fn chunk(&mut self, object: Option<&Object>, revision: Revision) -> Bytes {
        let leader = object.and_then(|o| o.holders.first()).map(|g| g.lock_id);
        let news = match self.seen {
            Seen::Nothing => true,
            Seen::Upto(since) => object.map_or(revision, |o| o.revision) > since,
            Seen::Leader(known) => known != leader,
        };
        let moved = revision != self.since;
        self.since = revision;
        self.seen = Seen::Leader(leader);
        match (news, moved) {
            (true, _) => event(&LeaderView::new(object, revision), revision),
            // An id alone moves the client's Last-Event-ID and calls nobody.
            (false, true) => Bytes::from(format!("id: {revision}\n\n")),
            (false, false) => Bytes::from_static(b": nothing new\n\n"),
        }
    }
}

fn event(leader: &LeaderView<'_>, revision: Revision) -> Bytes {
    // JSON of ours has no line breaks: a document is one `data` line.
    let data = serde_json::to_string(leader).unwrap_or_default();
    Bytes::from(format!("id: {revision}\nevent: leader\ndata: {data}\n\n"))
}
