//! `GET /leader/{name}/observe`: an election's audience, as Server-Sent Events.
//!
//! The stream opens with the leader as it is, by an event `leader`. Then it tells every leader and every proclamation,
//! one after the other, that nobody leads, and by an event `candidate` who comes to wait. It is made of the same events
//! as `/watch`, and every event carries the token from which another stream goes on behind it as its `id`: a client
//! that comes back with `Last-Event-ID` misses nothing, and is not told the leader that it knows. Where that is too
//! long ago, and after a restore, it is told the leader as it is now.
//!
//! Where nothing happens the token is sent every [`PULSE`], so that proxies and dead connections show.

use std::{convert::Infallible, time::Duration};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::{FutureExt, stream};
use http::{HeaderValue, header};
use serde::Serialize;
use wardlock_machine::{Answer, Key, Kind, Name, Object, Pattern, Query};

use super::{
    Gateway,
    backend::Backend,
    call::Call,
    problem::Problem,
    render::{CandidateView, LeaderView},
    watch::{self, Events, PULSE, Slot},
};
use crate::client::{News, Office, WatchError, Watched};

/// How long one look at the election may take.
const LOOK: Duration = Duration::from_secs(5);
/// The pause after one that failed.
const RETRY: Duration = Duration::from_secs(2);

impl<B: Backend> Gateway<B> {
    pub(super) async fn observe(&self, name: Name, call: Call<'_>) -> Result<Response, Problem> {
        call.params()?.finish()?;
        let since = call.headers.get("last-event-id").map(|id| id.to_str().unwrap_or_default());
        let since = since.map(|id| watch::token("Last-Event-ID", id)).transpose()?;
        let slot = self.watch_slot()?;
        let key = Key::election(name);
        let pattern = Pattern { kind: Kind::Election, name: key.name.as_str().to_owned(), prefix: false };
        let mut resumes = since.is_some();
        let events = match self.backend().watch(vec![pattern.clone()], since, call.patience).await {
            // What came in between is gone: the stream begins anew.
            Err(WatchError::Compacted { resume }) if resumes => {
                resumes = false;
                self.backend().watch(vec![pattern], Some(resume), call.patience).await?
            }
            opened => opened?,
        };
        let mut audience = Audience { gateway: self.clone(), events, key, office: Office::new(), gap: false, slot };
        let first = match resumes {
            true => audience.token(),
            // The look comes before the headers: what is wrong now is a plain refusal.
            false => {
                let object = self.object(audience.key.clone(), call.patience).await?;
                audience.look(object.as_ref())
            }
        };
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
struct Audience<B: Backend> {
    gateway: Gateway<B>,
    events: B::Watch,
    key: Key,
    office: Office,
    /// Something was missed: a look is due.
    gap: bool,
    #[expect(dead_code, reason = "held")]
    slot: Slot,
}

impl<B: Backend> Audience<B> {
    /// The next piece of the stream; `None` at its end.
    async fn next(&mut self) -> Option<Bytes> {
        let stopping = self.gateway.stopping().clone();
        tokio::select! {
            biased;
            () = stopping.cancelled() => None,
            piece = self.piece() => piece,
            () = tokio::time::sleep(PULSE) => Some(self.token()),
        }
    }

    /// Dropping the future is harmless.
    async fn piece(&mut self) -> Option<Bytes> {
        loop {
            if self.gap {
                let Some(object) = look_at(&self.gateway, &self.key).await else {
                    tokio::time::sleep(RETRY).await;
                    continue;
                };
                self.gap = false;
                return Some(self.look(object.as_ref()));
            }
            let next = match self.office.is_vacant() {
                false => self.events.next().await,
                true => match self.events.next().now_or_never() {
                    Some(next) => next,
                    None => match self.vacancy().await {
                        Some(piece) => return Some(piece),
                        None => continue,
                    },
                },
            };
            match next {
                Ok(watched) => {
                    if let Some(piece) = self.hear(&watched) {
                        return Some(piece);
                    }
                }
                Err(WatchError::Compacted { .. }) => {
                    watch::reset("compacted");
                    self.gap = true;
                }
                // Whoever comes back is told the leader as it is by then.
                Err(error) => {
                    watch::reset(if error == WatchError::Restored { "restored" } else { "other" });
                    return None;
                }
            }
        }
    }

    /// An office has ended, and nobody is known to follow.
    async fn vacancy(&mut self) -> Option<Bytes> {
        let Some(object) = look_at(&self.gateway, &self.key).await else {
            tokio::time::sleep(RETRY).await;
            return None;
        };
        let nobody = self.office.settle(object.as_ref());
        nobody.then(|| {
            let revision = object.as_ref().map_or(self.office.heard(), |object| object.revision);
            self.event("leader", &LeaderView::new(object.as_ref(), revision))
        })
    }

    fn look(&mut self, object: Option<&Object>) -> Bytes {
        self.office.look(object);
        let revision = object.map_or(self.office.heard(), |object| object.revision);
        self.event("leader", &LeaderView::new(object, revision))
    }

    fn hear(&mut self, watched: &Watched) -> Option<Bytes> {
        watch::lag(watched);
        Some(match self.office.hear(&watched.event)? {
            News::Leader(leader) => self.event("leader", &LeaderView::told(&leader)),
            News::Candidate(candidate) => self.event("candidate", &CandidateView::from(&candidate)),
        })
    }

    fn event(&mut self, name: &str, document: &impl Serialize) -> Bytes {
        // JSON of ours has no line breaks: a document is one `data` line.
        let data = serde_json::to_string(document).unwrap_or_default();
        Bytes::from(format!("id: {}\nevent: {name}\ndata: {data}\n\n", self.events.token()))
    }

    /// An id alone moves the client's `Last-Event-ID` and calls nobody.
    fn token(&mut self) -> Bytes {
        Bytes::from(format!("id: {}\n\n", self.events.token()))
    }
}

/// An election as it is; `None` where its shard cannot be asked now.
async fn look_at<B: Backend>(gateway: &Gateway<B>, key: &Key) -> Option<Option<Object>> {
    match gateway.backend().read(Query::Object { key: key.clone() }, LOOK).await {
        Ok(Answer::Object(object)) => Some(object),
        _ => None,
    }
}
