//! The HTTP gateway: paths, whole calls, and what comes over a connection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::response::Response;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wardlock_machine::*;
use wardlock_placement::{GroupId, NodeId, ShardMap};
use wardlock_router::{
    Error, WatchError, WatchToken, Watched,
    deadlock::{Deadlock, Seen, find},
    http::{
        Backend, Gateway, GatewayInfo, ServerConfig, openapi,
        path::{self, PREFIX, Route},
        server,
        watch::Events,
    },
};
use wardlock_wire::{KeptAlive, Status};

use crate::{image, machine, random::Random, within};

/// `method · path`: which call a path means.
///
/// It means one call or none; a name in it is within its bounds, and the same name, every byte of it escaped,
/// means the same call. Data behind an escape is never a word of ours.
pub fn paths(data: &[u8]) {
    let Some((method, path)) = data.split_first() else { return };
    let Ok(path) = std::str::from_utf8(path) else { return };
    let method =
        [Method::GET, Method::POST, Method::DELETE, Method::PUT, Method::HEAD][usize::from(method % 5)].clone();
    if let Ok(text) = path::decode(path) {
        assert!(text.len() <= path.len(), "decoding made it longer");
    }
    for (key, value) in path::pairs(path).flatten() {
        assert!(key.len() + value.len() <= path.len());
    }
    if let Ok(route) = path::route(&method, path)
        && let Some((again, name)) = named(&route)
    {
        assert!((1..=limits::NAME_BYTES).contains(&name.as_str().len()), "a name out of bounds came through");
        let path = again.replace("{}", &escape(name.as_str(), b"0123456789ABCDEF"));
        assert_eq!(path::route(&method, &path), Ok(route), "{path} means something else");
    }
    // The bytes as a name: there is a path to it, by every call.
    if let Ok(name) = Name::new(path) {
        let escaped = escape(path, b"0123456789abcdef");
        let routed = |method: Method, before: &str, after: &str| {
            path::route(&method, &format!("{PREFIX}{before}{escaped}{after}"))
        };
        assert_eq!(routed(Method::GET, "/locks/", ""), Ok(Route::Lock(name.clone())));
        assert_eq!(routed(Method::POST, "/locks/", "/acquire"), Ok(Route::Acquire(name.clone())));
        assert_eq!(routed(Method::GET, "/leader/", "/observe"), Ok(Route::Observe(name.clone())));
        assert_eq!(routed(Method::POST, "/leader/election/", ""), Ok(Route::Elect(name)));
    }
}

/// Every byte escaped.
fn escape(text: &str, digits: &[u8; 16]) -> String {
    let mut escaped = String::with_capacity(3 * text.len());
    for byte in text.bytes() {
        escaped.push('%');
        escaped.extend([byte >> 4, byte & 15].map(|digit| char::from(digits[usize::from(digit)])));
    }
    escaped
}

/// A path that means the call, `{}` standing for the name.
fn named(route: &Route) -> Option<(String, &Name)> {
    let (path, name) = match route {
        Route::Acquire(name) => ("/locks/{}/acquire", name),
        Route::Release(name) => ("/locks/{}/release", name),
        Route::Renew(name) => ("/locks/{}/renew", name),
        Route::Break(name) => ("/locks/{}/break", name),
        Route::Lock(name) => ("/locks/{}", name),
        Route::Config(name) | Route::PutConfig(name) | Route::DeleteConfig(name) => ("/config/{}", name),
        Route::RollbackConfig(name) => ("/config/{}/rollback", name),
        Route::Elect(name) => ("/leader/election/{}", name),
        Route::Leader(name) => ("/leader/{}", name),
        Route::Resign(name) => ("/leader/{}/resign", name),
        Route::Proclaim(name) => ("/leader/{}/proclaim", name),
        Route::Observe(name) => ("/leader/{}/observe", name),
        Route::Service(name) => ("/services/{}", name),
        _ => return None,
    };
    Some((format!("{PREFIX}{path}"), name))
}

/// A cluster that answers one thing after the other, and checks what it is asked.
struct Fake {
    turn: AtomicUsize,
}

impl Fake {
    fn gateway(turn: usize) -> Gateway<Fake> {
        // Made once a process, which no call is to be charged for.
        openapi::document();
        let info = GatewayInfo {
            cluster: "fuzz".into(),
            certs_hint: None,
            ready: Arc::new(|| Ok(())),
            metrics: Arc::new(|| "wardlock_up 1\n".into()),
        };
        Gateway::new(Fake { turn: AtomicUsize::new(turn) }, info)
    }

    fn turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// Now and then there is no answer to a question: nothing is unknown of what changes nothing.
    fn fails(&self) -> Result<(), Error> {
        self.fails_to_change().map_err(|error| match error {
            Error::OutcomeUnknown => Error::Unreachable { why: "down".into() },
            error => error,
        })
    }

    /// Now and then there is no answer.
    fn fails_to_change(&self) -> Result<(), Error> {
        let why = String::from("down");
        match self.turn() % 16 {
            11 => Err(Error::Unavailable { retry_after: Duration::from_millis(10), why }),
            12 => Err(Error::OutcomeUnknown),
            13 => Err(Error::NotAllowed(why)),
            14 => Err(Error::Unreachable { why }),
            15 => Err(Error::Malformed(why)),
            _ => Ok(()),
        }
    }
}

fn grant(key: &Key) -> Grant {
    Grant {
        lock_id: LockId::new(machine::session(1), Token(limits::TOKEN_END - 1), key),
        holder: "h\"\u{1}".into(),
        mode: Mode::Semaphore { permits: 3 },
        lease: Some(limits::LEASE_MAX),
        session_ttl: Millis(1),
        acquired: WallMs(u64::MAX),
        expires: Some(WallMs(0)),
        waited: Millis(u64::MAX),
        value: Some("c".into()),
        metadata: Metadata::from([("k".into(), "\u{7f}".into())]),
        revision: Revision(u64::MAX),
    }
}

/// A command that the gateway let through is within the bounds of every field: the machine has nothing to say
/// against those.
fn check(command: &Command) {
    let mut machine = Machine::new();
    let mut outcomes = Vec::new();
    let batch = Batch { at: Stamp(1), wall: WallMs(1), epoch: RangeEpoch(0), commands: vec![command.clone()] };
    machine.apply(Term(1), batch, &mut outcomes, &mut Effects::default());
    assert_ne!(outcomes, [Outcome::Limit(Limit::Field)], "the gateway let through {command:?}");
    assert!(command.is_public(), "the gateway let through {command:?}");
}

/// Whether the machine may answer so: it says nothing of sessions to who names none, nor of queues to who waits in none.
fn may_answer(command: &Command, outcome: &Outcome) -> bool {
    let acquires = matches!(command, Command::Acquire(_));
    let configures = matches!(command, Command::Configure(_));
    let puts = matches!(command, Command::Configure(configure) if matches!(configure.change, Change::Put { .. }));
    let registers = matches!(command, Command::Register(_) | Command::Deregister { .. } | Command::ReportHealth { .. });
    let hooks = matches!(command, Command::SetHook(_) | Command::DropHook { .. } | Command::SettleDead(_));
    let held = matches!(command, Command::Release { .. } | Command::Renew { .. } | Command::Proclaim { .. });
    let by_a_session = acquires || held || matches!(command, Command::Register(_));
    match outcome {
        Outcome::Held(_) | Outcome::WaitTimeout(_) | Outcome::AlreadyHeld(_) => acquires,
        Outcome::Mismatch { .. } | Outcome::Queued { .. } => acquires,
        Outcome::TooOld => by_a_session,
        Outcome::Ended | Outcome::UnknownSession => by_a_session || matches!(command, Command::CloseSession { .. }),
        Outcome::Foreign => held,
        Outcome::VersionMismatch { .. } => configures,
        Outcome::NoConfig => configures && !puts,
        Outcome::NoInstance | Outcome::ForeignInstance => registers,
        Outcome::NoHook => hooks,
        _ => true,
    }
}

/// What happened, over and over.
pub struct Told(u64);

impl Events for Told {
    async fn next(&mut self) -> Result<Watched, WatchError> {
        self.0 += 1;
        let lock = machine::key(0);
        let lock_id = LockId::new(machine::session(1), Token(self.0), &lock);
        let text = "x".repeat(limits::LABEL_BYTES);
        let election = machine::key(5);
        let leads = LockId::new(machine::session(1), Token(self.0), &election);
        let (key, what) = match self.0 % 10 {
            0 => {
                let (mode, value) = (Mode::Semaphore { permits: 3 }, Some(text.clone()));
                (lock, What::Granted { lock_id, mode, holder: text, value })
            }
            1 => (lock, What::Ended { lock_id, reason: EndReason::SessionExpired }),
            2 => {
                let value = Some(Blob::new(&[0xff; 100]));
                let what =
                    What::Configured { version: Version(self.0), deleted: false, content_type: text, size: 100, value };
                (Key::config(lock.name), what)
            }
            8 => {
                let what = What::Registered {
                    instance: Name::new(&text).expect("a name"),
                    session: machine::session(1),
                    address: text.clone(),
                    port: u16::MAX,
                    tags: vec![text],
                    weight: u16::MAX,
                    health: Health::Critical,
                };
                (Key::service(lock.name), what)
            }
            3 => return Err(WatchError::Compacted { resume: self.token() }),
            4 => {
                let (mode, value) = (Mode::Exclusive, Some(text.clone()));
                (election, What::Granted { lock_id: leads, mode, holder: text, value })
            }
            5 => {
                let (holder, value, acquired) = (text.clone(), text, WallMs(u64::MAX));
                (election, What::Proclaimed { lock_id: leads, holder, value, acquired })
            }
            6 => {
                let (session, holder, value) = (machine::session(2), text.clone(), text);
                (election, What::Enrolled { session, holder, value, priority: i32::MIN })
            }
            7 => (election, What::Ended { lock_id: leads, reason: EndReason::Released }),
            _ => std::future::pending().await,
        };
        let event = Event { revision: Revision(self.0), at: WallMs(u64::MAX), key, what };
        Ok(Watched { shard: GroupId(1), event: Arc::new(event) })
    }

    fn token(&mut self) -> WatchToken {
        token()
    }
}

fn token() -> WatchToken {
    "AQEBAQU0k7EF".parse().expect("a token of the first form")
}

impl Backend for Fake {
    type Watch = Told;

    async fn watch(&self, patterns: Vec<Pattern>, since: Option<WatchToken>, _: Duration) -> Result<Told, WatchError> {
        self.fails()?;
        let query = Query::Events { after: Revision(0), patterns, limit: 1 };
        if !query.is_within_bounds() {
            return Err(WatchError::Malformed("too many".into()));
        }
        Ok(Told(u64::from(since.is_some())))
    }

    async fn write(&self, command: Command, _: Duration) -> Result<Outcome, Error> {
        check(&command);
        self.fails_to_change()?;
        let key = command.key().cloned().unwrap_or_else(|| machine::key(0));
        let blocked = Blocked {
            holders: vec![grant(&key)],
            holder_count: 1,
            waiters: 2,
            lock_delay_until: Some(WallMs(u64::MAX)),
        };
        let like = match &command {
            Command::OpenSession { .. } => Outcome::Opened { created: WallMs(u64::MAX / 2) },
            Command::CloseSession { .. } => Outcome::Closing,
            Command::Acquire(_) => Outcome::Granted(grant(&key)),
            Command::Release { .. } => Outcome::Released,
            Command::Renew { .. } | Command::Proclaim { .. } => Outcome::Renewed(grant(&key)),
            Command::Break { .. } => Outcome::Broken(vec![grant(&key)]),
            Command::Configure(_) => Outcome::Configured(Configured {
                version: Version(u64::MAX),
                revision: Revision(u64::MAX),
                updated: WallMs(u64::MAX),
            }),
            Command::Register(_) => Outcome::Registered(Registered {
                revision: Revision(u64::MAX),
                registered: WallMs(u64::MAX),
                replaced: Some(machine::session(2)),
            }),
            Command::Deregister { .. } => {
                Outcome::Deregistered(Deregistered { revision: Revision(u64::MAX), private: Some(machine::session(2)) })
            }
            Command::ReportHealth { .. } => Outcome::HealthReported { revision: Revision(u64::MAX) },
            Command::SetHook(_) | Command::DropHook { .. } | Command::SettleDead(_) => {
                Outcome::HookChanged { epoch: HookEpoch(u64::MAX), letters: 3 }
            }
            _ => Outcome::Done,
        };
        let outcome = match self.turn() % 24 {
            0 => Outcome::Held(blocked),
            1 => Outcome::WaitTimeout(blocked),
            2 => Outcome::AlreadyHeld(grant(&key)),
            3 => Outcome::Mismatch { mode: Mode::Shared },
            4 => Outcome::Queued { position: 3 },
            5 => Outcome::Ended,
            6 => Outcome::Limit(Limit::Waiters),
            7 => Outcome::TooOld,
            8 => Outcome::UnknownSession,
            9 => Outcome::Foreign,
            10 => Outcome::StaleEpoch { current: RangeEpoch(1) },
            11 => Outcome::VersionMismatch { current: Version(3) },
            12 => Outcome::NoConfig,
            13 => Outcome::NoInstance,
            14 => Outcome::ForeignInstance,
            15 => Outcome::NoHook,
            _ => return Ok(like),
        };
        Ok(if may_answer(&command, &outcome) { outcome } else { like })
    }

    fn withdraw(&self, acquire: Acquire) {
        check(&Command::Acquire(acquire));
    }

    async fn read(&self, query: Query, _: Duration) -> Result<Answer, Error> {
        self.fails()?;
        Ok(machine::ask(&query))
    }

    async fn read_stale(
        &self,
        query: Query,
        max_age: Option<Duration>,
        _: Duration,
    ) -> Result<(Answer, Option<Duration>), Error> {
        self.fails()?;
        Ok((machine::ask(&query), max_age))
    }

    async fn list(&self, query: Query, _: Duration) -> Result<(Answer, WatchToken), Error> {
        self.fails()?;
        assert!(query.is_list(), "a list was asked for by another question: {query:?}");
        Ok((machine::ask(&query), token()))
    }

    async fn fence(&self, checks: Vec<(Name, Token)>, _: Duration) -> Result<Vec<bool>, Error> {
        assert!(checks.len() <= limits::FENCE_CHECKS, "the gateway let through {} checks", checks.len());
        self.fails()?;
        Ok(checks.iter().map(|(_, token)| token.0 % 2 == 0).collect())
    }

    async fn session_view(&self, session: SessionId, _: Duration) -> Result<(Answer, Option<WallMs>), Error> {
        self.fails()?;
        Ok((machine::ask(&Query::Session { session }), Some(WallMs(u64::MAX))))
    }

    async fn keep_alive(&self, _: SessionId, _: Duration) -> Result<KeptAlive, Error> {
        self.fails()?;
        Ok([KeptAlive::Alive, KeptAlive::Ended, KeptAlive::Unknown][self.turn() % 3])
    }

    async fn deadlocks(&self, _: Duration) -> Result<(Vec<Deadlock>, Seen), Error> {
        self.fails()?;
        let mut seen = Seen::default();
        seen.add(ShardId(1), machine::ring());
        Ok((find(&seen), seen))
    }

    fn map(&self) -> Arc<ShardMap> {
        Arc::default()
    }

    async fn status(&self, node: NodeId, _: Duration) -> Result<Status, Error> {
        self.fails()?;
        Ok(Status { node, version: String::new(), groups: Vec::new() })
    }

    async fn transfer(&self, _: GroupId, _: NodeId, _: Duration) -> Result<(), Error> {
        self.fails_to_change()
    }

    fn new_session_id(&self) -> SessionId {
        machine::session(7)
    }

    fn random_key(&self) -> u128 {
        42
    }
}

/// A request, in parts: `turn · method · call`, then lines: the name, or the path of no call; the query; and
/// headers, each a byte that says which and the value. The body follows an empty line.
struct Asked<'a> {
    turn: u8,
    method: Method,
    uri: String,
    headers: Vec<(&'static str, &'a [u8])>,
    body: &'a [u8],
}

impl<'a> Asked<'a> {
    fn read(data: &'a [u8]) -> Option<Asked<'a>> {
        let [turn, method, call, rest @ ..] = data else { return None };
        let end = rest.windows(2).position(|pair| pair == b"\n\n").unwrap_or(rest.len());
        let (head, body) = (&rest[..end], rest.get(end + 2..).unwrap_or_default());
        let mut lines = head.split(|byte| *byte == b'\n');
        let name = std::str::from_utf8(lines.next()?).ok()?;
        let mut uri = match CALLS.get(usize::from(*call)) {
            Some(path) => format!("{PREFIX}{}", path.replace("{}", name)),
            None => name.to_owned(),
        };
        if let Some(query) = lines.next().filter(|query| !query.is_empty()) {
            uri = format!("{uri}?{}", std::str::from_utf8(query).ok()?);
        }
        let header = |line: &'a [u8]| {
            let (which, value) = line.split_first()?;
            Some((HEADERS[usize::from(*which) % HEADERS.len()], value))
        };
        let method = [Method::POST, Method::GET, Method::DELETE, Method::PUT][usize::from(method % 4)].clone();
        Some(Asked { turn: *turn, method, uri, headers: lines.filter_map(header).collect(), body })
    }
}

const HEADERS: [&str; 12] = [
    "x-wardlock-timeout",
    "idempotency-key",
    "content-type",
    "origin",
    "sec-fetch-site",
    "last-event-id",
    "x-wardlock-lock",
    "x-wardlock-token",
    "host",
    "x-other",
    "if-match",
    "if-none-match",
];

const CALLS: [&str; 33] = [
    "/locks/{}/acquire",
    "/locks/{}/release",
    "/locks/{}/renew",
    "/locks/{}/break",
    "/locks/{}",
    "/locks",
    "/sessions",
    "/sessions/{}",
    "/sessions/{}/keepalive",
    "/leader/election/{}",
    "/leader/{}",
    "/leader/{}/resign",
    "/leader/{}/observe",
    "/fence/check",
    "/fence/auth",
    "/batch",
    "/cluster",
    "/cluster/shards",
    "/cluster/nodes",
    "/cluster/shards/{}/transfer",
    "/config",
    "/config/{}",
    "/config/{}/rollback",
    "/services",
    "/services/{}",
    "/services/a/instances/{}",
    "/services/a/instances/{}/heartbeat",
    "/leader/{}/proclaim",
    "/webhooks",
    "/webhooks/{}",
    "/webhooks/{}/dead",
    "/webhooks/{}/redrive",
    "/locks:deadlocks",
];

/// A whole call: method, path, query, headers, body, in parts.
///
/// It is answered, with JSON where the answer says so, by a status of ours; what reaches the cluster is within
/// the machine's bounds.
pub fn calls(data: &[u8]) {
    let Some(asked) = Asked::read(data) else { return };
    let mut request = Request::builder().method(asked.method.clone()).uri(asked.uri.clone());
    for (name, value) in asked.headers {
        request = request.header(name, value);
    }
    let raw = asked.method == Method::GET && asked.uri.contains("/config/");
    let Ok(request) = request.body(Full::new(Bytes::copy_from_slice(asked.body))) else { return };
    let gateway = Fake::gateway(asked.turn.into());
    let (status, kind, body) = within(60 * data.len() + (2 << 20), "answering a call", || {
        image::run(async { read(gateway.handle(request).await).await })
    });
    let known = [200, 201, 202, 304, 401, 403, 404, 405, 408, 409, 410, 412, 413, 415, 422, 429, 500, 503, 504];
    assert!(known.contains(&status), "{status}");
    match kind.as_str() {
        "application/json" | "application/problem+json" => {
            let json: serde_json::Value = serde_json::from_slice(&body).expect("it says that it is JSON");
            let is_problem = kind.ends_with("problem+json");
            assert_eq!(is_problem, status >= 300, "{status} {json}");
            assert!(!is_problem || json["status"] == status, "{status} {json}");
        }
        // A value, as whoever put it called it.
        _ if raw => {}
        "text/event-stream" => assert!(body.ends_with(b"\n\n"), "an event without an end"),
        other => assert!(other.starts_with("text/plain"), "{other}"),
    }
}

/// An answer's status, kind and body; of a stream, the first piece.
async fn read(response: Response) -> (u16, String, Vec<u8>) {
    let status = response.status().as_u16();
    let kind =
        response.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_owned();
    let mut body = response.into_body();
    let mut all = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        all.extend(frame.into_data().unwrap_or_default());
        if kind == "text/event-stream" {
            break;
        }
    }
    (status, kind, all)
}

/// What a connection carries: `turn · seed · bytes`, in pieces, with pauses, and then nothing more.
///
/// The server answers or hangs up, in finite time; what it says is HTTP.
pub fn streams(data: &[u8]) {
    let [turn, seed, bytes @ ..] = data else { return };
    let mut random = Random::new(u64::from(*seed));
    let gateway = Fake::gateway((*turn).into());
    let answer = within(60 * data.len() + (2 << 20), "serving a connection", || {
        image::run(async {
            let (client, stream) = tokio::io::duplex(4096);
            let (mut reading, mut writing) = tokio::io::split(client);
            let config = ServerConfig::default();
            let serving = async {
                server::serve_stream(stream, gateway, &config).await;
            };
            let asking = async {
                let mut rest = bytes;
                while !rest.is_empty() {
                    let (now, later) = rest.split_at((1 + random.below(2_000)).min(rest.len()));
                    rest = later;
                    if writing.write_all(now).await.is_err() {
                        return;
                    }
                    // Longer than any patience, in the end.
                    tokio::time::sleep(Duration::from_secs(random.below(3) as u64)).await;
                }
                let _ = writing.shutdown().await;
            };
            // Never moved to a larger room: both would count as held.
            let mut answer = Vec::with_capacity(1 << 20);
            let hearing = async {
                let mut piece = [0; 1024];
                while let Ok(length @ 1..) = reading.read(&mut piece).await {
                    let room = answer.capacity() - answer.len();
                    answer.extend_from_slice(&piece[..length.min(room)]);
                }
            };
            let all = async { tokio::join!(serving, asking, hearing) };
            let ended = tokio::time::timeout(Duration::from_secs(7_200), all).await;
            // A stream of events lasts as long as somebody listens.
            let streams = answer.windows(17).any(|kind| kind == b"text/event-stream");
            assert!(ended.is_ok() || streams, "a connection outlived everything that was said on it");
            answer
        })
    });
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "an answer that is not HTTP");
}
