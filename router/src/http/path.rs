//! Which call a path means.
//!
//! A path is split before it is decoded, and words of ours are compared as they were sent: an escape
//! always marks data. So `/leader/%65lection/observe` observes the election called `election`, while
//! `/leader/election/observe` is the given call.
//!
//! # Rules
//! 1. `/locks/{name}`: the name is all that follows, slashes too. For a POST the verb is what follows the
//!    last slash. This holds for the added verbs as well, where it leaves no second reading.
//! 2. `/leader/election/…` is always a given call: a POST campaigns for what follows `election/`, a GET asks
//!    who leads `election/…`.
//! 3. `/leader/{name}/observe` needs a name of one segment (a slash is `%2F`); any other GET below
//!    `/leader/` asks for the leader of all that follows.
//! 4. `/config/{path}`: the path is all that follows, slashes too. For a POST it ends before `/rollback`.
//! 5. In `/services/{service}/instances/{id}` each name is one segment.
//! 6. A name is opaque once decoded: dots, empty segments, control characters are data, and nothing is
//!    normalized. Invalid escapes, bytes that are not UTF-8 and lengths out of bounds are refused.

use std::borrow::Cow;

use http::Method;
use wardlock_machine::{Name, NameError, SessionId, limits};
use wardlock_placement::GroupId;

/// Under which all calls live. Probes, metrics and the API's description are served at the root as well.
pub const PREFIX: &str = "/api/v1";

/// A call, with what its path says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is one line of the table of calls")]
pub enum Route {
    Acquire(Name),
    Release(Name),
    Renew(Name),
    Break(Name),
    Lock(Name),
    Locks,
    Deadlocks,
    OpenSession,
    Sessions,
    Session(SessionId),
    CloseSession(SessionId),
    KeepAlive(SessionId),
    Elect(Name),
    Leader(Name),
    Resign(Name),
    Proclaim(Name),
    Observe(Name),
    Watch,
    Configs,
    Config(Name),
    PutConfig(Name),
    DeleteConfig(Name),
    RollbackConfig(Name),
    Services,
    Service(Name),
    Instance(Name, Name),
    PutInstance(Name, Name),
    DeleteInstance(Name, Name),
    Heartbeat(Name, Name),
    AddWebhook,
    Webhooks,
    Webhook(Name),
    DropWebhook(Name),
    DeadLetters(Name),
    ForgetDead(Name),
    Redrive(Name),
    FenceCheck,
    FenceAuth,
    Batch,
    Cluster,
    Shards,
    Nodes,
    Transfer(GroupId),
    Livez,
    Readyz,
    Metrics,
    OpenApi,
}

impl Route {
    /// The call's name in metrics. Never a lock's.
    pub fn op(&self) -> &'static str {
        match self {
            Route::Acquire(_) => "acquire",
            Route::Release(_) => "release",
            Route::Renew(_) => "renew",
            Route::Break(_) => "break",
            Route::Lock(_) => "lock",
            Route::Locks => "locks",
            Route::Deadlocks => "deadlocks",
            Route::OpenSession => "open_session",
            Route::Sessions => "sessions",
            Route::Session(_) => "session",
            Route::CloseSession(_) => "close_session",
            Route::KeepAlive(_) => "keep_alive",
            Route::Elect(_) => "elect",
            Route::Leader(_) => "leader",
            Route::Resign(_) => "resign",
            Route::Proclaim(_) => "proclaim",
            Route::Observe(_) => "observe",
            Route::Watch => "watch",
            Route::Configs => "configs",
            Route::Config(_) => "config",
            Route::PutConfig(_) => "put_config",
            Route::DeleteConfig(_) => "delete_config",
            Route::RollbackConfig(_) => "rollback_config",
            Route::Services => "services",
            Route::Service(_) => "service",
            Route::Instance(..) => "instance",
            Route::PutInstance(..) => "put_instance",
            Route::DeleteInstance(..) => "delete_instance",
            Route::Heartbeat(..) => "heartbeat",
            Route::AddWebhook => "add_webhook",
            Route::Webhooks => "webhooks",
            Route::Webhook(_) => "webhook",
            Route::DropWebhook(_) => "drop_webhook",
            Route::DeadLetters(_) => "dead_letters",
            Route::ForgetDead(_) => "forget_dead",
            Route::Redrive(_) => "redrive",
            Route::FenceCheck => "fence_check",
            Route::FenceAuth => "fence_auth",
            Route::Batch => "batch",
            Route::Cluster => "cluster",
            Route::Shards => "shards",
            Route::Nodes => "nodes",
            Route::Transfer(_) => "transfer",
            Route::Livez => "livez",
            Route::Readyz => "readyz",
            Route::Metrics => "metrics",
            Route::OpenApi => "openapi",
        }
    }
}

/// Why a path means no call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unroutable {
    /// There is nothing there.
    NotFound,
    /// A session id that no session can have.
    NoSuchSession,
    /// There is, for these methods.
    Method(&'static str),
    /// The name in it is none.
    Name(BadName),
}

/// Why a part of a path is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Its length is out of bounds.
    #[error(transparent)]
    Length(#[from] NameError),
    /// `%` without two hexadecimal digits.
    #[error("a % must be followed by two hexadecimal digits")]
    Escape,
    /// Not text.
    #[error("the bytes are not UTF-8")]
    NotUtf8,
}

const GET: &str = "GET, HEAD";
const POST: &str = "POST";

/// The call that `method` and the raw, undecoded `path` mean.
pub fn route(method: &Method, path: &str) -> Result<Route, Unroutable> {
    let rest = match path.strip_prefix(PREFIX) {
        Some(rest) => rest,
        None => return probe(method, path).unwrap_or(Err(Unroutable::NotFound)),
    };
    if let Some(found) = probe(method, rest) {
        return found;
    }
    let rest = rest.strip_prefix('/').ok_or(Unroutable::NotFound)?;
    let (head, tail) = match rest.split_once('/') {
        Some((head, tail)) => (head, Some(tail)),
        None => (rest, None),
    };
    match (head, tail) {
        ("locks", None) => get(method, Route::Locks),
        ("locks", Some(tail)) => lock(method, tail),
        ("locks:deadlocks", None) => get(method, Route::Deadlocks),
        ("leader", Some(tail)) => leader(method, tail),
        ("sessions", None) => match *method {
            Method::POST => Ok(Route::OpenSession),
            Method::GET | Method::HEAD => Ok(Route::Sessions),
            _ => Err(Unroutable::Method("GET, HEAD, POST")),
        },
        ("sessions", Some(tail)) => session(method, tail),
        ("config", None) => get(method, Route::Configs),
        ("config", Some(tail)) => config(method, tail),
        ("services", None) => get(method, Route::Services),
        ("services", Some(tail)) => service(method, tail),
        ("webhooks", None) => match *method {
            Method::POST => Ok(Route::AddWebhook),
            Method::GET | Method::HEAD => Ok(Route::Webhooks),
            _ => Err(Unroutable::Method("GET, HEAD, POST")),
        },
        ("webhooks", Some(tail)) => webhook(method, tail),
        ("fence", Some("check")) => post(method, Route::FenceCheck),
        // Proxies send the method of the request that they guard, and Envoy appends its path.
        ("fence", Some(tail)) if tail == "auth" || tail.starts_with("auth/") => Ok(Route::FenceAuth),
        ("watch", None) => get(method, Route::Watch),
        ("batch", None) => post(method, Route::Batch),
        ("cluster", None) => get(method, Route::Cluster),
        ("cluster", Some("shards")) => get(method, Route::Shards),
        ("cluster", Some("nodes")) => get(method, Route::Nodes),
        ("cluster", Some(tail)) => {
            let id = tail.strip_prefix("shards/").and_then(|t| t.strip_suffix("/transfer"));
            let id = id.filter(|id| id.bytes().all(|b| b.is_ascii_digit())).and_then(|id| id.parse().ok());
            post(method, Route::Transfer(GroupId(id.ok_or(Unroutable::NotFound)?)))
        }
        _ => Err(Unroutable::NotFound),
    }
}

fn probe(method: &Method, path: &str) -> Option<Result<Route, Unroutable>> {
    match path {
        "/livez" => Some(get(method, Route::Livez)),
        "/readyz" => Some(get(method, Route::Readyz)),
        "/metrics" => Some(get(method, Route::Metrics)),
        "/openapi.json" => Some(get(method, Route::OpenApi)),
        _ => None,
    }
}

fn lock(method: &Method, tail: &str) -> Result<Route, Unroutable> {
    match *method {
        Method::GET | Method::HEAD => Ok(Route::Lock(name(tail)?)),
        Method::POST => {
            // A verb alone is the lock of that name, and a lock cannot be posted to.
            let (raw, verb) = tail.rsplit_once('/').ok_or(Unroutable::Method(GET))?;
            let call: fn(Name) -> Route = match verb {
                "acquire" => Route::Acquire,
                "release" => Route::Release,
                "renew" => Route::Renew,
                "break" => Route::Break,
                _ => return Err(Unroutable::Method(GET)),
            };
            Ok(call(name(raw)?))
        }
        _ => match tail.rsplit_once('/') {
            Some((_, "acquire" | "release" | "renew" | "break")) => Err(Unroutable::Method("GET, HEAD, POST")),
            _ => Err(Unroutable::Method(GET)),
        },
    }
}

fn leader(method: &Method, tail: &str) -> Result<Route, Unroutable> {
    let campaign = tail.strip_prefix("election/");
    let verb = |verb: &str| tail.strip_suffix(verb).filter(|_| campaign.is_none());
    let (resign, proclaim) = (verb("/resign"), verb("/proclaim"));
    match *method {
        Method::GET | Method::HEAD => match tail.strip_suffix("/observe") {
            Some(raw) if campaign.is_none() && !raw.contains('/') => Ok(Route::Observe(name(raw)?)),
            _ => Ok(Route::Leader(name(tail)?)),
        },
        Method::POST => match (campaign, resign, proclaim) {
            (Some(raw), ..) => Ok(Route::Elect(name(raw)?)),
            (None, Some(raw), _) => Ok(Route::Resign(name(raw)?)),
            (None, None, Some(raw)) => Ok(Route::Proclaim(name(raw)?)),
            (None, None, None) => Err(Unroutable::Method(GET)),
        },
        _ if campaign.or(resign).or(proclaim).is_some() => Err(Unroutable::Method("GET, HEAD, POST")),
        _ => Err(Unroutable::Method(GET)),
    }
}

/// A path of the configuration is all that follows, slashes too, but for a POST's verb.
fn config(method: &Method, tail: &str) -> Result<Route, Unroutable> {
    match *method {
        Method::GET | Method::HEAD => Ok(Route::Config(name(tail)?)),
        Method::PUT => Ok(Route::PutConfig(name(tail)?)),
        Method::DELETE => Ok(Route::DeleteConfig(name(tail)?)),
        _ => match tail.strip_suffix("/rollback") {
            Some(raw) if *method == Method::POST => Ok(Route::RollbackConfig(name(raw)?)),
            Some(_) => Err(Unroutable::Method("GET, HEAD, PUT, DELETE, POST")),
            None => Err(Unroutable::Method("GET, HEAD, PUT, DELETE")),
        },
    }
}

/// Of a service and of an instance each part is one segment.
fn service(method: &Method, tail: &str) -> Result<Route, Unroutable> {
    let mut parts = tail.splitn(5, '/');
    match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(service), None, ..) => get(method, Route::Service(name(service)?)),
        (Some(service), Some("instances"), Some(id), None, _) => {
            let call: fn(Name, Name) -> Route = match *method {
                Method::GET | Method::HEAD => Route::Instance,
                Method::PUT => Route::PutInstance,
                Method::DELETE => Route::DeleteInstance,
                _ => return Err(Unroutable::Method("GET, HEAD, PUT, DELETE")),
            };
            Ok(call(name(service)?, name(id)?))
        }
        (Some(service), Some("instances"), Some(id), Some("heartbeat"), None) => {
            post(method, Route::Heartbeat(name(service)?, name(id)?))
        }
        _ => Err(Unroutable::NotFound),
    }
}

fn session(method: &Method, tail: &str) -> Result<Route, Unroutable> {
    let id = |raw: &str| {
        let text = decode(raw).map_err(Unroutable::Name)?;
        text.parse::<SessionId>().map_err(|_| Unroutable::NoSuchSession)
    };
    match tail.split_once('/') {
        None => match *method {
            Method::GET | Method::HEAD => Ok(Route::Session(id(tail)?)),
            Method::DELETE => Ok(Route::CloseSession(id(tail)?)),
            _ => Err(Unroutable::Method("GET, HEAD, DELETE")),
        },
        Some((raw, "keepalive")) => match *method {
            Method::POST => Ok(Route::KeepAlive(id(raw)?)),
            _ => Err(Unroutable::Method(POST)),
        },
        Some(_) => Err(Unroutable::NotFound),
    }
}

fn webhook(method: &Method, tail: &str) -> Result<Route, Unroutable> {
    match tail.split_once('/') {
        None => match *method {
            Method::GET | Method::HEAD => Ok(Route::Webhook(name(tail)?)),
            Method::DELETE => Ok(Route::DropWebhook(name(tail)?)),
            _ => Err(Unroutable::Method("GET, HEAD, DELETE")),
        },
        Some((raw, "dead")) => match *method {
            Method::GET | Method::HEAD => Ok(Route::DeadLetters(name(raw)?)),
            Method::DELETE => Ok(Route::ForgetDead(name(raw)?)),
            _ => Err(Unroutable::Method("GET, HEAD, DELETE")),
        },
        Some((raw, "redrive")) => post(method, Route::Redrive(name(raw)?)),
        Some(_) => Err(Unroutable::NotFound),
    }
}

fn get(method: &Method, route: Route) -> Result<Route, Unroutable> {
    match *method {
        Method::GET | Method::HEAD => Ok(route),
        _ => Err(Unroutable::Method(GET)),
    }
}

fn post(method: &Method, route: Route) -> Result<Route, Unroutable> {
    match *method {
        Method::POST => Ok(route),
        _ => Err(Unroutable::Method(POST)),
    }
}

fn name(raw: &str) -> Result<Name, Unroutable> {
    let text = decode(raw).map_err(Unroutable::Name)?;
    Name::new(&text).map_err(|e| Unroutable::Name(e.into()))
}

/// Decodes percent escapes, strictly. The bound is checked before anything is allocated.
pub fn decode(raw: &str) -> Result<Cow<'_, str>, BadName> {
    let escapes = raw.bytes().filter(|b| *b == b'%').count();
    if escapes == 0 {
        return Ok(Cow::Borrowed(raw));
    }
    let length = raw.len().checked_sub(2 * escapes).ok_or(BadName::Escape)?;
    if length > limits::NAME_BYTES {
        return Err(NameError::TooLong(length).into());
    }
    let mut text = Vec::with_capacity(length);
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        text.push(match byte {
            b'%' => match (bytes.next().and_then(hex), bytes.next().and_then(hex)) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return Err(BadName::Escape),
            },
            plain => plain,
        });
    }
    let decoded = String::from_utf8(text);
    if wardlock_machine::planted!("path-bytes-unwrapped") {
        return Ok(Cow::Owned(decoded.expect("a path is UTF-8")));
    }
    decoded.map(Cow::Owned).map_err(|_| BadName::NotUtf8)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// The pairs of a query string, decoded as forms encode them: `+` is a space.
pub fn pairs(query: &str) -> impl Iterator<Item = Result<(String, String), BadName>> + '_ {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let plain = |text: &str| decode(&text.replace('+', " ")).map(Cow::into_owned);
        Ok((plain(key)?, plain(value)?))
    })
}
