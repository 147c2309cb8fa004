//! A node's wiring: real disk, real sockets, real clock, threads.
//!
//! This file puts the parts of a [`Host`] together and takes them down again in order. Everything that
//! decides anything lives elsewhere and is given what it needs.
//!
//! A node runs on the runtime that it is started on, best a current-thread one of its own: a saturated
//! multi-threaded runtime adds tens of milliseconds at the 99th percentile. The log's writer has a thread
//! of its own, and so has the HTTP gateway: parsing requests must not delay heartbeats.

use std::{net::SocketAddr, sync::Arc, thread::JoinHandle, time::Duration};

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use wardlock_placement::{Goal, GoalError, ShardMap};
use wardlock_router::{
    Client,
    http::{Gateway, GatewayInfo, MutualTls, ServeError, ServerConfig},
    link::quic::{BindError, Config as LinkConfig, Endpoint},
    tls::TlsError,
};

pub use crate::config::Settings;
use crate::{
    clock::SystemClock,
    disk::{
        self,
        identity::{ClaimError, DataDir},
        log::{OpenError, Options, SharedLog},
        snapshots::{SnapshotError, Snapshots},
        space::{SpaceWatch, Thresholds},
    },
    dns::DnsThread,
    host::{Door, Host, HostError, Parts},
    metrics,
};

/// What the snapshot file may keep in memory.
const SNAPSHOT_CACHE_BYTES: usize = 4 << 20;
/// How often the disk's free space is looked at.
const SPACE_PERIOD: Duration = Duration::from_secs(1);

/// A running node.
pub struct Node {
    host: Arc<Host>,
    endpoint: Arc<Endpoint>,
    log: SharedLog,
    writer: JoinHandle<()>,
    gateway: Option<GatewayThread>,
    dns: Option<DnsThread>,
    stop: CancellationToken,
    // Dropped last: it holds the lock on the directory.
    _dir: DataDir,
}

/// Why a node cannot start. Each says what is wrong with what.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The directory is another node's, or in use.
    #[error(transparent)]
    Dir(#[from] ClaimError),
    /// The log cannot be opened.
    #[error("the log in {dir}: {source}")]
    Log {
        /// Where.
        dir: String,
        /// Why.
        source: OpenError,
    },
    /// The snapshots cannot be opened.
    #[error("the snapshots in {dir}: {source}")]
    Snapshots {
        /// Where.
        dir: String,
        /// Why.
        source: SnapshotError,
    },
    /// The file system or the threads fail.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The QUIC listener.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The HTTP listener.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The numbers of shards and replicas.
    #[error(transparent)]
    Goal(#[from] GoalError),
    /// The groups.
    #[error(transparent)]
    Host(#[from] HostError),
}

impl Node {
    /// Opens the data directory, starts to listen, recovers every group.
    pub async fn start(settings: Settings) -> Result<Node, StartError> {
        let prometheus = metrics::install();
        let goal = Goal::new(settings.shards, settings.replicas, settings.peers.keys().copied().collect())?;
        let (dir, log, writer, snapshots, space) = open_disk(&settings)?;
        let door = Arc::new(Door::default());
        let endpoint = Arc::new(Endpoint::bind(
            settings.listen_quic,
            &settings.identity,
            &settings.cluster,
            settings.node,
            Arc::clone(&door) as _,
            LinkConfig::default(),
        )?);
        if let Ok(expires) = settings.identity.expires() {
            ::metrics::gauge!("wardlock_cert_expiry_timestamp_seconds").set(expires as f64);
        }
        for (peer, address) in &settings.peers {
            endpoint.set_peer(*peer, address.clone());
        }
        let client = Client::over(Arc::clone(&endpoint) as _, settings.peers.values().cloned());
        let stop = CancellationToken::new();
        let host = Host::start(Parts {
            node: settings.node,
            nodes: settings.peers.keys().copied().collect(),
            addresses: wardlock_placement::Node {
                quic: settings.advertise_quic.clone(),
                http: settings.advertise_http.clone(),
                domain: settings.domain.clone(),
            },
            goal,
            timing: settings.timing,
            clock: SystemClock::shared(),
            transport: Arc::clone(&endpoint) as _,
            client: client.clone(),
            log: log.clone(),
            snapshots,
            disk_low: {
                let space = space.clone();
                Arc::new(move || space.is_low())
            },
            on_fatal: disk::abort_process(),
            maps: watch::Sender::new(Arc::new(ShardMap::default())),
        })
        .await?;
        door.open(Arc::clone(&host));
        tokio::spawn(stop.clone().run_until_cancelled_owned(watch_space(space)));
        let gateway = match settings.listen_http {
            Some(address) => {
                let tls = settings.http_identity.as_ref().map(MutualTls::new).transpose()?;
                let ready = Arc::clone(&host);
                let info = GatewayInfo {
                    cluster: settings.cluster.clone(),
                    certs_hint: settings.certs_hint.clone(),
                    ready: Arc::new(move || ready.not_ready().map_or(Ok(()), Err)),
                    metrics: Arc::new(move || prometheus.render()),
                };
                Some(GatewayThread::start(address, tls, Gateway::new(client.clone(), info))?)
            }
            None => None,
        };
        let dns = match settings.dns {
            Some(dns) => {
                let what = format!("DNS cannot be served at {}", dns.listen);
                Some(DnsThread::start(dns, client).map_err(|source| StartError::Io { what, source })?)
            }
            None => None,
        };
        tracing::info!("node {} of {} listens at {}", settings.node, settings.cluster, settings.listen_quic);
        Ok(Node { host, endpoint, log, writer, gateway, dns, stop, _dir: dir })
    }

    /// Resolves when the shards exist and every group of this node knows a leader.
    pub async fn ready(&self) {
        self.host.ready().await;
    }

    /// Where the HTTP gateway listens.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.gateway.as_ref().map(|gateway| gateway.address)
    }

    /// Where DNS is served.
    pub fn dns_address(&self) -> Option<SocketAddr> {
        self.dns.as_ref().map(DnsThread::address)
    }

    /// Drains: the gateway ends its requests, every leadership is handed over, what is queued is written.
    pub async fn shutdown(self) {
        if let Some(gateway) = self.gateway {
            gateway.stop().await;
        }
        drop(self.dns);
        self.host.shutdown().await;
        self.stop.cancel();
        self.endpoint.close().await;
        self.log.close();
        let writer = self.writer;
        if tokio::task::spawn_blocking(move || writer.join()).await.is_err() {
            tracing::warn!("the log's writer did not end in order");
        }
    }
}

type Disk = (DataDir, SharedLog, JoinHandle<()>, Arc<Snapshots>, SpaceWatch);

fn open_disk(settings: &Settings) -> Result<Disk, StartError> {
    let path = &settings.data_dir;
    let name = || path.display().to_string();
    let mut dir = DataDir::claim(path, &settings.cluster, settings.node)?;
    let thresholds = Thresholds { low_bytes: settings.disk.low_mark_bytes, reserve_bytes: settings.disk.reserve_bytes };
    let space = SpaceWatch::start(path, thresholds)
        .map_err(|source| StartError::Io { what: format!("the free space of {}", name()), source })?;
    let (log, writer) = SharedLog::open_dir(path, Options::default(), disk::abort_process())
        .map_err(|source| StartError::Log { dir: name(), source })?;
    let snapshots = Snapshots::open_dir(path, SNAPSHOT_CACHE_BYTES)
        .map_err(|source| StartError::Snapshots { dir: name(), source })?;
    snapshots.check_cover(&log).map_err(|source| StartError::Snapshots { dir: name(), source })?;
    dir.mark_used()?;
    let writer = writer
        .spawn_thread()
        .map_err(|source| StartError::Io { what: "the log writer's thread".to_owned(), source })?;
    Ok((dir, log, writer, Arc::new(snapshots), space))
}

async fn watch_space(space: SpaceWatch) {
    let mut timer = tokio::time::interval(SPACE_PERIOD);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        timer.tick().await;
        let look = space.clone();
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || look.check()).await {
            tracing::warn!("the free space cannot be read: {error}");
        }
    }
}

/// An HTTP gateway on a thread of its own.
struct GatewayThread {
    address: SocketAddr,
    stop: CancellationToken,
    ended: oneshot::Receiver<()>,
}

impl GatewayThread {
    fn start(address: SocketAddr, tls: Option<MutualTls>, gateway: Gateway<Client>) -> Result<Self, StartError> {
        wardlock_router::http::check(address, tls.as_ref())?;
        let failed = |source| StartError::Io { what: format!("the HTTP gateway cannot listen at {address}"), source };
        let listener = std::net::TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let (end, ended) = oneshot::channel();
        let serve = move || {
            runtime.block_on(async {
                let served = match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => {
                        let config = ServerConfig { tls, ..ServerConfig::default() };
                        wardlock_router::http::serve(listener, gateway, stopped.cancelled(), config).await
                    }
                    Err(error) => Err(error.into()),
                };
                if let Err(error) = served {
                    tracing::error!("the HTTP gateway at {address} ended: {error}");
                }
            });
            // Nobody waits for it any more where this fails.
            let _ = end.send(());
        };
        std::thread::Builder::new().name("http".to_owned()).spawn(serve).map_err(failed)?;
        Ok(GatewayThread { address, stop, ended })
    }

    async fn stop(self) {
        self.stop.cancel();
        let _ = self.ended.await;
    }
}
