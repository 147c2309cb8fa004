//! The HTTP/JSON gateway.
//!
//! A [`Gateway`] turns a request into one or two calls on a [`Backend`] and the answer into JSON. It keeps
//! no state between requests, so any gateway may answer any request of a client.
//!
//! # Promises
//! 1. A refused or malformed request changes nothing: the whole of it is checked before the cluster is asked.
//! 2. What cannot be known is not claimed: a write whose answer is lost is a 504 with `outcome: unknown`.
//! 3. Nothing is allocated for a caller beyond the bounds of [`input`] and [`server::ServerConfig`].
//! 4. A caller that hangs up leaves no waiter and no grant behind, unless it sent an `Idempotency-Key` and so
//!    may come back for them.
//!
//! # Rooms
//! [`path`] says which call is meant; [`input`], `media_type`, `consistency` and `call` what is asked; `locks`,
//! `sessions`, `elections`, `observe`, `services`, `watch`, `webhooks`, `config`, `fence`, `cluster` and `batch` answer;
//! `outcome` and [`problem`] refuse; `render` and `reply` write it down; [`openapi`] describes it all; [`server`] owns
//! the sockets.

pub mod backend;
mod batch;
mod call;
mod cluster;
mod config;
mod consistency;
mod deadlocks;
pub mod documents;
mod elections;
mod fence;
pub mod input;
mod large;
mod locks;
mod media_type;
mod observe;
pub mod openapi;
mod outcome;
pub mod path;
pub mod problem;
mod render;
mod reply;
pub mod server;
mod services;
mod sessions;
pub mod watch;
mod webhooks;

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Body;
use metrics::Histogram;
use serde::Serialize;
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;

pub use self::{
    backend::Backend,
    server::{MutualTls, ServeError, ServerConfig, check, serve},
};
use self::{call::Call, input::Fields, large::Large, path::Route, problem::Problem, reply::Reply};
use crate::webhook::Targets;

/// How long a body may take to arrive, once its headers have.
const BODY_PATIENCE: Duration = Duration::from_secs(10);

/// How many calls may have a value of the configuration in memory at once. One takes a megabyte, and some times that
/// while it is made into JSON or out of it.
const VALUES: usize = 64;

/// What the process around a gateway tells it.
#[derive(Clone)]
pub struct GatewayInfo {
    /// The cluster's name.
    pub cluster: String,
    /// Where clients on this machine find certificates, if `/cluster` is to say so.
    pub certs_hint: Option<PathBuf>,
    /// Whether requests can be served; `Err` says why not.
    pub ready: Arc<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// The metrics as text.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

impl fmt::Debug for GatewayInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GatewayInfo({:?})", self.cluster)
    }
}

/// Answers HTTP requests. Cheap to clone.
#[derive(Debug)]
pub struct Gateway<B>(Arc<Inner<B>>);

impl<B> Clone for Gateway<B> {
    fn clone(&self) -> Gateway<B> {
        Gateway(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct Inner<B> {
    backend: B,
    info: GatewayInfo,
    stopping: CancellationToken,
    durations: Durations,
    /// Who may have a value of the configuration in memory.
    values: Semaphore,
    /// The large ones of them that are on their way into the cluster.
    large: Large,
    /// Who may watch.
    watches: Arc<Semaphore>,
    /// Where webhooks may go.
    targets: Targets,
}

impl<B: Backend> Gateway<B> {
    /// A gateway to `backend` that takes no webhooks.
    pub fn new(backend: B, info: GatewayInfo) -> Gateway<B> {
        Gateway::with_webhooks(backend, info, Targets::default())
    }

    /// One that takes webhooks to these targets.
    pub fn with_webhooks(backend: B, info: GatewayInfo, targets: Targets) -> Gateway<B> {
        let (stopping, values) = (CancellationToken::new(), Semaphore::new(VALUES));
        let large = Large::default();
        let watches = Arc::new(Semaphore::new(watch::WATCHES));
        let durations = Durations::default();
        Gateway(Arc::new(Inner { backend, info, stopping, durations, values, large, watches, targets }))
    }

    /// Answers one request.
    pub async fn handle<R>(&self, request: Request<R>) -> Response
    where
        R: Body<Data = Bytes>,
    {
        let started = Instant::now();
        let (head, body) = request.into_parts();
        let mut op = "none";
        let answer = async {
            let route = path::route(&head.method, head.uri.path())?;
            op = route.op();
            // A proxy asks with the headers of the request that it guards, whose site is no business of ours.
            if route == Route::FenceAuth {
                return self.fence_auth(&head.headers).await.map(Response::from);
            }
            same_site(&head.headers)?;
            let mut call = Call::new(&head.headers, head.uri.query())?;
            // Values are large: of these few are in memory at once.
            let _turn = match route {
                Route::Config(_) | Route::PutConfig(_) => {
                    match tokio::time::timeout(call.left_to_begin(), self.0.values.acquire()).await {
                        Ok(Ok(turn)) => Some(turn),
                        _ => {
                            // Who still sends hears no answer.
                            discard(body).await;
                            return Err(overloaded());
                        }
                    }
                }
                _ => None,
            };
            if head.method == Method::POST {
                call.params()?.finish()?;
                let body = read(body, input::BODY_BYTES).await?;
                if !body.is_empty() {
                    call::check_content_type(&head.headers)?;
                }
                call.fields = Fields::parse(&body)?.shaped(openapi::body_of(op));
            } else if let Route::PutInstance(..) = route {
                let body = read(body, input::BODY_BYTES).await?;
                if !body.is_empty() {
                    call::check_content_type(&head.headers)?;
                }
                call.fields = Fields::parse(&body)?.shaped(openapi::body_of(op));
            } else if let Route::PutConfig(_) = route {
                call.body = read(body, config::BODY_BYTES).await?;
            }
            match route {
                Route::Observe(name) => self.observe(name, call).await,
                Route::Watch => self.watch(call).await,
                Route::Batch => self.batch(call).await.map(Response::from),
                route => self.answer(route, call).await.map(Response::from),
            }
        };
        let response = answer.await.unwrap_or_else(|problem: Problem| Reply::from(problem).into());
        self.record(op, response.status(), started);
        response
    }

    async fn answer(&self, route: Route, call: Call<'_>) -> Result<Reply, Problem> {
        match route {
            Route::Acquire(name) => self.acquire(name, call).await,
            Route::Release(name) => self.release(name, call).await,
            Route::Renew(name) => self.renew(name, call).await,
            Route::Break(name) => self.break_lock(name, call).await,
            Route::Lock(name) => self.lock(name, call).await,
            Route::Locks => self.locks(call).await,
            Route::OpenSession => self.open_session(call).await,
            Route::Sessions => self.sessions(call).await,
            Route::Session(id) => self.session(id, call).await,
            Route::CloseSession(id) => self.close_session(id, call).await,
            Route::KeepAlive(id) => self.keep_alive(id, call).await,
            Route::Elect(name) => self.elect(name, call).await,
            Route::Leader(name) => self.leader(name, call).await,
            Route::Resign(name) => self.resign(name, call).await,
            Route::Proclaim(name) => self.proclaim(name, call).await,
            Route::Configs => self.configs(call).await,
            Route::Config(path) => self.config(path, call).await,
            Route::PutConfig(path) => self.put_config(path, call).await,
            Route::DeleteConfig(path) => self.delete_config(path, call).await,
            Route::RollbackConfig(path) => self.rollback_config(path, call).await,
            Route::Deadlocks => self.deadlocks(call).await,
            Route::Services => self.services(call).await,
            Route::Service(name) => self.service(name, call).await,
            Route::Instance(service, id) => self.instance(service, id, call).await,
            Route::PutInstance(service, id) => self.put_instance(service, id, call).await,
            Route::DeleteInstance(service, id) => self.delete_instance(service, id, call).await,
            Route::Heartbeat(service, id) => self.heartbeat(service, id, call).await,
            Route::AddWebhook => self.add_webhook(call).await,
            Route::Webhooks => self.webhooks(call).await,
            Route::Webhook(id) => self.webhook(id, call).await,
            Route::DropWebhook(id) => self.drop_webhook(id, call).await,
            Route::DeadLetters(id) => self.dead_letters(id, call).await,
            Route::ForgetDead(id) => self.settle_dead(id, false, call).await,
            Route::Redrive(id) => self.settle_dead(id, true, call).await,
            Route::FenceCheck => self.fence_check(call).await,
            Route::Cluster => self.cluster(call),
            Route::Shards => self.shards(call).await,
            Route::Nodes => self.nodes(call).await,
            Route::Transfer(id) => self.transfer(id, call).await,
            Route::Livez => Reply::ok(&Health { status: "alive" }),
            Route::Readyz => self.ready(),
            Route::Metrics => Ok(Reply::metrics((self.info().metrics)())),
            Route::OpenApi => Ok(Reply::raw_json(openapi::document().to_vec())),
            // These have no plain reply, or hold other calls; their callers keep them out of here.
            Route::FenceAuth | Route::Observe(_) | Route::Watch | Route::Batch => {
                Err(Problem::internal("not a plain call"))
            }
        }
    }

    /// Waits until a value of this length may be written. One that cannot be begun in time is refused: nothing of it
    /// is proposed.
    async fn turn_to_write(&self, bytes: usize, patience: Duration) -> Result<Option<large::Turn<'_>>, Problem> {
        if bytes <= large::SMALL_BYTES {
            return Ok(None);
        }
        self.0.large.begin(bytes, patience).await.map(Some).ok_or_else(overloaded)
    }

    fn ready(&self) -> Result<Reply, Problem> {
        let stopping = self.stopping().is_cancelled().then(|| "the process is stopping".to_owned());
        let why = stopping.map_or_else(|| (self.info().ready)(), Err);
        match why {
            Ok(()) => Reply::ok(&Health { status: "ready" }),
            Err(why) => Err(Problem::unavailable("not-ready", "The gateway is not ready", why, Duration::from_secs(1))),
        }
    }

    fn record(&self, op: &'static str, status: StatusCode, started: Instant) {
        debug_assert!(
            openapi::allows(op, status.as_u16()),
            "{op} answers {status}, which its description does not say"
        );
        self.0.durations.record(op, status, started.elapsed());
    }

    fn backend(&self) -> &B {
        &self.0.backend
    }

    fn info(&self) -> &GatewayInfo {
        &self.0.info
    }

    fn targets(&self) -> &Targets {
        &self.0.targets
    }

    fn stopping(&self) -> &CancellationToken {
        &self.0.stopping
    }
}

fn overloaded() -> Problem {
    let detail = "too many values are read and written here now";
    Problem::unavailable("overloaded", "The gateway is overloaded", detail, Duration::from_secs(1))
}

#[derive(Serialize, utoipa::ToSchema)]
struct Health {
    status: &'static str,
}

/// A page of another site has no business with locks, even from a browser on this machine. Browsers say
/// where a request comes from, those of today by `Sec-Fetch-Site`, older ones by `Origin`; nobody else does.
fn same_site(headers: &HeaderMap) -> Result<(), Problem> {
    let bytes = |name: &str| headers.get(name).map(|value| value.as_bytes());
    let same = match (bytes("sec-fetch-site"), bytes("origin")) {
        (Some(site), _) => matches!(site, b"same-origin" | b"none"),
        (None, Some(origin)) => {
            let host = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
            host.is_some() && host == bytes("host")
        }
        (None, None) => true,
    };
    if same {
        return Ok(());
    }
    let detail = "a browser sent this for a page of another site";
    Err(Problem::new(StatusCode::FORBIDDEN, "cross-site", "Other sites may not call this", detail))
}

/// Reads a body within its bound. What its sender announces is checked before anything is read.
async fn read<R: Body<Data = Bytes>>(body: R, limit: usize) -> Result<Bytes, Problem> {
    if body.size_hint().lower() > limit as u64 {
        return Err(Problem::too_large("body", limit));
    }
    let collect = async {
        let mut body = std::pin::pin!(body);
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                return Err(Problem::invalid("incomplete-body", "the body ended before its end"));
            };
            let Ok(data) = frame.into_data() else { continue };
            if first.len() + all.len() + data.len() > limit {
                return Err(Problem::too_large("body", limit));
            }
            if first.is_empty() && all.is_empty() {
                first = data;
            } else {
                all.extend_from_slice(&std::mem::take(&mut first));
                all.extend_from_slice(&data);
            }
        }
        Ok(if all.is_empty() { first } else { all.freeze() })
    };
    tokio::time::timeout(BODY_PATIENCE, collect).await.unwrap_or_else(|_| {
        let detail = "the body did not arrive in time";
        Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "request-timeout", "The request took too long", detail))
    })
}

/// Reads a body and keeps nothing of it.
async fn discard<R: Body<Data = Bytes>>(body: R) {
    let all = async {
        let mut body = std::pin::pin!(body);
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > config::BODY_BYTES {
                break;
            }
        }
    };
    // Late or not, it is refused.
    let _ = tokio::time::timeout(BODY_PATIENCE, all).await;
}

/// How long requests took, by call and status. A handle is looked up by its labels once, when it is first used.
#[derive(Debug, Default)]
struct Durations(RwLock<HashMap<(&'static str, u16), Histogram>>);

impl Durations {
    fn record(&self, op: &'static str, status: StatusCode, took: Duration) {
        let (key, seconds) = ((op, status.as_u16()), took.as_secs_f64());
        if let Some(known) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return known.record(seconds);
        }
        let made = metrics::histogram!("wardlock_request_duration_seconds", "op" => op, "code" => code(status));
        made.record(seconds);
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(key, made);
    }
}

fn code(status: StatusCode) -> &'static str {
    match status.as_u16() {
        200 => "200",
        201 => "201",
        202 => "202",
        304 => "304",
        401 => "401",
        403 => "403",
        404 => "404",
        409 => "409",
        410 => "410",
        412 => "412",
        413 => "413",
        422 => "422",
        429 => "429",
        500 => "500",
        503 => "503",
        504 => "504",
        _ => "other",
    }
}
