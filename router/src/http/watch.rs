//! `GET /watch`: what happens to locks, elections, configurations and services, as Server-Sent Events or by long polling.
//!
//! What is watched is said by `lock`, `election`, `config` and `service`, each a name, or by `prefix`, with `kind` where not
//! everything is meant; each may come more than once. Without a token the watch begins now. Every event carries the
//! token from which another watch goes on behind it: as its `id`, so that a client that comes back with
//! `Last-Event-ID` misses nothing, or as `next` of the page.
//!
//! Where nothing happens a stream sends its token every [`PULSE`]: a client that hears little is not told one day
//! that its token is too old, and dead connections show. Where a client was away for longer than events are kept, it
//! is told so, with a token to begin anew from: by 410 `compacted`, or in a stream by an event of that name.

use std::{convert::Infallible, future::Future, str::FromStr, time::Duration};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::{FutureExt, stream};
use serde::Serialize;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::ToSchema;
use wardlock_machine::{Event, Kind, LockId, Millis, Pattern, Revision, SessionId, Token, What};

use super::{
    Gateway,
    backend::Backend,
    call::Call,
    config::EventValue,
    observe::event_stream,
    openapi::shapes,
    problem::Problem,
    render::{Rfc3339, Text, mode_name},
    reply::Reply,
    services::EventInstance,
};
use crate::client::{WatchError, WatchToken, Watched};

pub(super) mod spec;

/// How many watches one gateway has at a time.
pub(super) const WATCHES: usize = 10_000;
/// How often a stream says that it is there.
pub(super) const PULSE: Duration = Duration::from_secs(15);
/// The most events that are written in one piece.
const PIECE: usize = 64;
/// The longest that a long poll is held.
pub(super) const WAIT_MAX: Millis = Millis(300_000);
/// The longest token that is looked at.
pub(super) const TOKEN_BYTES: usize = 1 << 16;

/// What a [`Backend`] tells those who watch.
pub trait Events: Send + 'static {
    /// The next event. Dropping the future is harmless. After a gap it goes on behind it.
    fn next(&mut self) -> impl Future<Output = Result<Watched, WatchError>> + Send;

    /// Up to where everything has been told.
    fn token(&mut self) -> WatchToken;
}

impl Events for crate::client::Watch {
    async fn next(&mut self) -> Result<Watched, WatchError> {
        crate::client::Watch::next(self).await
    }

    fn token(&mut self) -> WatchToken {
        crate::client::Watch::token(self)
    }
}

impl<B: Backend> Gateway<B> {
    pub(super) async fn watch(&self, call: Call<'_>) -> Result<Response, Problem> {
        let mut params = call.params()?;
        let patterns = patterns(&mut params)?;
        let since = match params.take_long("since", TOKEN_BYTES)? {
            Some(text) => Some(token("since", &text)?),
            None => match call.headers.get("last-event-id") {
                Some(id) => Some(token("Last-Event-ID", id.to_str().unwrap_or_default())?),
                None => None,
            },
        };
        let wait = params.seconds("wait", WAIT_MAX)?;
        let limit = match wait {
            Some(_) => params.limit()?,
            None => 0,
        };
        params.finish()?;
        let slot = self.watch_slot()?;
        let events = self.backend().watch(patterns, since, call.patience).await?;
        match wait {
            Some(wait) => poll(events, wait, limit as usize).await.map(Response::from),
            None => Ok(self.stream(events, slot)),
        }
    }

    /// A place for one more watch, if there is one.
    pub(super) fn watch_slot(&self) -> Result<Slot, Problem> {
        let Ok(permit) = self.0.watches.clone().try_acquire_owned() else {
            let detail = format!("this gateway has {WATCHES} watches: ask another");
            let after = Duration::from_secs(1);
            return Err(Problem::unavailable("too-many-watches", "There is no room for another watch", detail, after));
        };
        Ok(Slot::new(permit))
    }

    fn stream(&self, mut events: B::Watch, slot: Slot) -> Response {
        // What a client that hears nothing more comes back with.
        let first = Bytes::from(format!("retry: 1000\nid: {}\n\n", events.token()));
        let listener = Listener { gateway: self.clone(), events, _slot: slot, ended: false };
        let rest = stream::unfold(listener, |mut listener| async move {
            let piece = listener.next().await?;
            Some((Ok::<_, Infallible>(piece), listener))
        });
        let body = futures_util::StreamExt::chain(stream::once(std::future::ready(Ok(first))), rest);
        event_stream(Body::from_stream(body))
    }
}

/// The place of one watch, counted.
pub(super) struct Slot(#[expect(dead_code, reason = "held")] OwnedSemaphorePermit);

impl Slot {
    fn new(permit: OwnedSemaphorePermit) -> Slot {
        metrics::gauge!("wardlock_watchers").increment(1);
        Slot(permit)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        metrics::gauge!("wardlock_watchers").decrement(1);
    }
}

/// The kinds of objects, by the parameters that name one.
const NAMED: [(&str, Kind); 4] =
    [("lock", Kind::Lock), ("election", Kind::Election), ("config", Kind::Config), ("service", Kind::Service)];

pub(super) fn patterns(params: &mut super::call::Params) -> Result<Vec<Pattern>, Problem> {
    let mut patterns = Vec::new();
    for (param, kind) in NAMED {
        while let Some(name) = params.take(param)? {
            if name.is_empty() {
                return Err(Problem::field(param, format!("{param}: a name must not be empty; see prefix")));
            }
            patterns.push(Pattern { kind, name, prefix: false });
        }
    }
    let mut kinds = Vec::new();
    while let Some(kind) = params.take("kind")? {
        kinds.push(match kind.as_str() {
            "lock" => Kind::Lock,
            "election" => Kind::Election,
            "config" => Kind::Config,
            "service" => Kind::Service,
            _ => {
                let detail = "kind must be \"lock\", \"election\", \"config\" or \"service\"";
                return Err(Problem::field("kind", detail));
            }
        });
    }
    let mut prefixes = 0;
    let every = NAMED.map(|(_, kind)| kind);
    while let Some(prefix) = params.take("prefix")? {
        prefixes += 1;
        let kinds = if kinds.is_empty() { &every[..] } else { &kinds };
        patterns.extend(kinds.iter().map(|kind| Pattern { kind: *kind, name: prefix.clone(), prefix: true }));
    }
    if prefixes == 0 && !kinds.is_empty() {
        return Err(Problem::field("kind", "kind goes with prefix; an empty prefix means all"));
    }
    if patterns.is_empty() {
        let detail = "say what to watch: lock, election, config or service with a name, or prefix";
        return Err(Problem::invalid("missing-parameter", detail));
    }
    Ok(patterns)
}

pub(super) fn token(field: &'static str, text: &str) -> Result<WatchToken, Problem> {
    WatchToken::from_str(text)
        .map_err(|error| Problem::invalid("invalid-token", format!("{field}: {error}")).with("field", field))
}

impl From<WatchError> for Problem {
    fn from(error: WatchError) -> Problem {
        match error {
            WatchError::Compacted { resume } => {
                let detail = "read what you watch anew, then watch since `resume`";
                Problem::gone("compacted", "Some events are no longer kept", detail).with("resume", resume.to_string())
            }
            WatchError::Restored => {
                let detail = "read what you watch anew, then watch without a token";
                Problem::gone("restored", "The cluster was restored from a backup", detail)
            }
            WatchError::Token(why) => Problem::invalid("invalid-token", format!("the token does not fit: {why}")),
            WatchError::Malformed(why) => Problem::invalid("invalid-field", why),
            WatchError::Cluster(error) => error.into(),
        }
    }
}

/// A page of events, as soon as there is one, or an empty one after `wait`.
async fn poll(mut events: impl Events, wait: Duration, limit: usize) -> Result<Reply, Problem> {
    let mut page = Vec::new();
    while page.len() < limit {
        // What is there already is taken, too.
        let next = match page.is_empty() {
            true => tokio::time::timeout(wait, events.next()).await.ok(),
            false => events.next().now_or_never(),
        };
        match next {
            None => break,
            Some(Ok(watched)) => page.push(watched),
            // The next poll is told, by its token.
            Some(Err(_)) if !page.is_empty() => break,
            Some(Err(error)) => return Err(gap(error)),
        }
    }
    page.iter().for_each(lag);
    let events_of = page.iter().map(EventView::from).collect();
    Reply::ok(&Page { events: events_of, next: Text(events.token()) })
}

fn gap(error: WatchError) -> Problem {
    let reason = match error {
        WatchError::Compacted { .. } => "compacted",
        WatchError::Restored => "restored",
        _ => "other",
    };
    reset(reason);
    error.into()
}

/// Counts a watch that has a gap.
pub(super) fn reset(reason: &'static str) {
    metrics::counter!("wardlock_watch_resets_total", "reason" => reason).increment(1);
}

/// How late an event is, by wall clocks.
pub(super) fn lag(watched: &Watched) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let lag = now.saturating_sub(Duration::from_millis(watched.event.at.0));
    metrics::histogram!("wardlock_watch_lag_seconds").record(lag.as_secs_f64());
}

/// One stream.
struct Listener<B: Backend> {
    gateway: Gateway<B>,
    events: B::Watch,
    _slot: Slot,
    ended: bool,
}

impl<B: Backend> Listener<B> {
    /// The next piece of the stream; `None` at its end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let stopping = self.gateway.stopping().clone();
        let first = tokio::select! {
            biased;
            () = stopping.cancelled() => return None,
            first = self.events.next() => first,
            () = tokio::time::sleep(PULSE) => return Some(format!("id: {}\n\n", self.events.token()).into()),
        };
        let mut piece = String::new();
        let mut next = Some(first);
        for _ in 0..PIECE {
            match next {
                None => break,
                Some(Ok(watched)) => {
                    lag(&watched);
                    let view = EventView::from(&watched);
                    // JSON of ours has no line breaks: a document is one `data` line.
                    let data = serde_json::to_string(&view).unwrap_or_default();
                    piece += &format!("id: {}\nevent: {}\ndata: {data}\n\n", self.events.token(), view.event);
                }
                Some(Err(error)) => {
                    let resume = match &error {
                        WatchError::Compacted { resume } => Some(resume.to_string()),
                        _ => None,
                    };
                    let problem = gap(error);
                    let data = json!({ "code": problem.code(), "resume": resume });
                    let id = resume.map(|resume| format!("id: {resume}\n")).unwrap_or_default();
                    piece += &format!("{id}event: {}\ndata: {data}\n\n", problem.code());
                    // Behind a gap it goes on; behind a restore there is nothing.
                    self.ended = problem.code() != "compacted";
                    break;
                }
            }
            next = self.events.next().now_or_never();
        }
        Some(piece.into())
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = Events)]
struct Page<'a> {
    #[schema(value_type = Vec<spec::Event>)]
    events: Vec<EventView<'a>>,
    #[schema(value_type = shapes::WatchToken)]
    next: Text<WatchToken>,
}

/// Something that happened.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventView<'a> {
    event: &'static str,
    kind: &'static str,
    name: &'a str,
    at: Rfc3339,
    shard: u32,
    revision: Revision,
    #[serde(flatten)]
    grant: Option<GrantView<'a>>,
    #[serde(flatten)]
    candidate: Option<CandidateView<'a>>,
    #[serde(flatten)]
    value: Option<EventValue<'a>>,
    #[serde(flatten)]
    instance: Option<EventInstance<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GrantView<'a> {
    lock_id: Text<LockId>,
    session_id: Text<SessionId>,
    fencing_token: Token,
    #[serde(skip_serializing_if = "Option::is_none")]
    holder: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mode: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    permits: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    candidate_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    elected_at: Option<Rfc3339>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

impl<'a> GrantView<'a> {
    fn of(lock_id: LockId) -> GrantView<'a> {
        GrantView {
            lock_id: Text(lock_id),
            session_id: Text(lock_id.session),
            fencing_token: lock_id.token,
            holder: None,
            mode: None,
            permits: None,
            candidate_id: None,
            elected_at: None,
            reason: None,
        }
    }
}

/// Who comes to wait for its turn to lead.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CandidateView<'a> {
    session_id: Text<SessionId>,
    holder: &'a str,
    candidate_id: &'a str,
    priority: i32,
}

impl<'a> From<&'a Watched> for EventView<'a> {
    fn from(watched: &'a Watched) -> EventView<'a> {
        let Event { revision, at, key, what } = &*watched.event;
        let instance = EventInstance::of(what);
        let mut candidate = None;
        let (event, grant, value) = match what {
            What::Granted { lock_id, mode, holder, value } => {
                let (mode, permits) = mode_name(*mode);
                let grant = GrantView {
                    holder: Some(holder.as_str()),
                    mode: Some(mode),
                    permits,
                    candidate_id: value.as_deref(),
                    ..GrantView::of(*lock_id)
                };
                ("granted", Some(grant), None)
            }
            What::Ended { lock_id, reason } => {
                ("ended", Some(GrantView { reason: Some(reason.name()), ..GrantView::of(*lock_id) }), None)
            }
            What::Configured { version, deleted: true, .. } => ("deleted", None, Some(EventValue::deleted(*version))),
            What::Configured { version, content_type, size, value, .. } => {
                ("put", None, Some(EventValue::new(*version, content_type, *size, value.as_deref())))
            }
            What::Registered { .. } => ("registered", None, None),
            What::Deregistered { .. } => ("deregistered", None, None),
            What::Health { .. } => ("health", None, None),
            What::Proclaimed { lock_id, holder, value, acquired } => {
                let grant = GrantView {
                    holder: Some(holder.as_str()),
                    candidate_id: Some(value.as_str()),
                    elected_at: Some(Rfc3339(*acquired)),
                    ..GrantView::of(*lock_id)
                };
                ("proclaimed", Some(grant), None)
            }
            What::Enrolled { session, holder, value, priority } => {
                let session_id = Text(*session);
                candidate = Some(CandidateView { session_id, holder, candidate_id: value, priority: *priority });
                ("enrolled", None, None)
            }
        };
        EventView {
            event,
            kind: key.kind.name(),
            name: key.name.as_str(),
            at: Rfc3339(*at),
            shard: watched.shard.0,
            revision: *revision,
            grant,
            candidate,
            value,
            instance,
        }
    }
}
