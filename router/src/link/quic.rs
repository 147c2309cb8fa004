//! The link over QUIC. Nothing outside of this module names the QUIC library.
//!
//! An [`Endpoint`] is one UDP socket. Between two nodes there is one connection, whichever of them dialed
//! it, and calls go both ways on it; a client dials nodes and is never called. A connection carries one
//! stream for each lane and direction, opened at its start and kept to its end. The first byte of a
//! stream is its lane's number; then come frames, on the urgent one a hello first.
//!
//! # Promises
//! 1. [`Peer`] is what the verified certificate says: a node is what has a node's name in it
//!    and says the same in its hello.
//! 2. A call that was sent is answered, or completes with [`CallError::Lost`] when its connection ends.
//!    A frozen or unreachable peer ends it after the idle timeout; a restarted one at once.
//! 3. Whatever a peer sends, at the most its own connection ends. What it can make this process hold is
//!    bounded: handshakes, clients, streams, frames, queues.
//!
//! There is no early data, and a client's calls are not spread over connections: one is enough.

mod accept;
mod code;
mod connection;
mod dial;
mod hello;
mod lane;
mod rarely;
mod settings;
mod silence;
mod socket;
mod table;

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use wardlock_placement::NodeId;
use wardlock_wire::{Body, Hello, Lane, Refusal, VERSION};

use super::{CallError, Peer, PendingReply, Replier, Service, Transport, local, pending::Pending};
use crate::tls::{Identity, TlsError};
use rarely::Rarely;
pub use settings::Config;
use table::Table;

/// How long a stopping endpoint waits for its peers to take what is queued, and then for its last words
/// to arrive.
const FLUSH: Duration = Duration::from_secs(1);

/// Why there is no endpoint.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process has the address.
    #[error("{0} is already in use (UDP)")]
    InUse(SocketAddr),
    /// The address cannot be had.
    #[error("cannot bind {address} (UDP): {source}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The certificates are of no use.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The certificate is not for this node.
    #[error("the certificate is for {certificate:?}, this process is {configured:?}")]
    WrongIdentity {
        /// The node of the certificate.
        certificate: Option<NodeId>,
        /// The node of the configuration.
        configured: Option<NodeId>,
    },
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name has no address.
    #[error("cannot resolve {address}: {source}")]
    Resolve {
        /// The name.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Nobody answers, or not in time.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// One side does not take the other's certificate.
    #[error("certificate not accepted: {0}")]
    Certificate(String),
    /// One side does not take the other's hello, or has no room.
    #[error("refused: {0}")]
    Refused(String),
    /// The address is this node's own.
    #[error("this is the same node")]
    Myself,
    /// This endpoint is closing.
    #[error("the endpoint is closing")]
    Stopping,
}

/// A socket and its connections. Dropping it closes them at once; [`Endpoint::close`] does so in order.
pub struct Endpoint(Arc<Shared>);

/// What the tasks of an endpoint share.
struct Shared {
    hello: Hello,
    service: Arc<dyn Service>,
    config: Config,
    quic: quinn::Endpoint,
    dialing: quinn::ClientConfig,
    runtime: Handle,
    table: Table,
    /// The node's calls to itself.
    own: Arc<Pending>,
    connections: AtomicU64,
    clients: Arc<AtomicUsize>,
    writers: TaskTracker,
    complaints: Rarely,
}

impl Shared {
    /// A number for a new connection. Zero is this process's own.
    fn number(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl Endpoint {
    /// Listens at `address` as the node `node` of `cluster`. Must be called within a runtime, which will
    /// run everything of this endpoint.
    pub fn bind(
        address: SocketAddr,
        identity: &Identity,
        cluster: &str,
        node: NodeId,
        service: Arc<dyn Service>,
        config: Config,
    ) -> Result<Endpoint, BindError> {
        Endpoint::new(address, identity, cluster, Some(node), service, config)
    }

    /// Only dials, from any port.
    pub fn client(identity: &Identity, cluster: &str, config: Config) -> Result<Endpoint, BindError> {
        let any = |ip6| if ip6 { (Ipv6Addr::UNSPECIFIED, 0).into() } else { (Ipv4Addr::UNSPECIFIED, 0).into() };
        match Endpoint::new(any(true), identity, cluster, None, Arc::new(NoService), config.clone()) {
            // A machine without IPv6.
            Err(BindError::Bind { .. }) => {
                Endpoint::new(any(false), identity, cluster, None, Arc::new(NoService), config)
            }
            result => result,
        }
    }

    fn new(
        address: SocketAddr,
        identity: &Identity,
        cluster: &str,
        node: Option<NodeId>,
        service: Arc<dyn Service>,
        config: Config,
    ) -> Result<Endpoint, BindError> {
        // A client with a node's certificate is wrong too: its peers would refuse its hello.
        if identity.node() != node {
            return Err(BindError::WrongIdentity { certificate: identity.node(), configured: node });
        }
        let dialing = settings::client(identity, &config)?;
        let server = node.map(|_| settings::server(identity, &config)).transpose()?;
        let bind = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse(address),
            _ => BindError::Bind { address, source },
        };
        let socket = settings::socket(address).map_err(bind)?;
        let runtime = Arc::new(socket::LinkRuntime);
        let quic = quinn::Endpoint::new(settings::endpoint(identity), server, socket, runtime).map_err(bind)?;
        let hello = Hello { version: VERSION, cluster: cluster.to_owned(), node, boot: rand::random() };
        let shared = Arc::new(Shared {
            hello,
            service,
            config,
            quic,
            dialing,
            runtime: Handle::current(),
            table: Table::new(node),
            own: Pending::new(),
            connections: AtomicU64::new(0),
            clients: Arc::default(),
            writers: TaskTracker::new(),
            complaints: Rarely::new(),
        });
        if node.is_some() {
            shared.runtime.spawn(accept::accept(shared.clone()));
        }
        Ok(Endpoint(shared))
    }

    /// Where it listens or dials from.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.0.quic.local_addr()
    }

    /// Stays connected to a node from now on. Its name is resolved anew at each attempt; another address
    /// takes the place of the one before, for the next attempt.
    pub fn set_peer(&self, node: NodeId, address: String) {
        if self.0.hello.node == Some(node) {
            return;
        }
        let start = |changed| {
            let keeping = dial::keep(self.0.clone(), node, address.clone(), changed);
            self.0.runtime.spawn(keeping).abort_handle()
        };
        self.0.table.keep(node, address.clone(), start);
    }

    /// No longer stays connected to a node. A connection that it dialed is its own to close.
    pub fn remove_peer(&self, node: NodeId) {
        self.0.table.forget(node);
    }

    /// Connects to whichever node answers at `address`, and says which. The connection is not kept up:
    /// that is what [`Endpoint::set_peer`] is for, once the id is known.
    pub async fn connect_seed(&self, address: &str) -> Result<NodeId, ConnectError> {
        let (shared, address) = (self.0.clone(), address.to_owned());
        let dialing = async move { dial::dial(&shared, &address, None, shared.config.handshake_timeout).await };
        let dialing = self.0.runtime.spawn(dialing);
        match dialing.await {
            Ok(result) => result,
            Err(_) => Err(ConnectError::Stopping),
        }
    }

    /// Whether calls to this node can leave now.
    pub fn is_connected(&self, node: NodeId) -> bool {
        self.0.table.is_connected(node)
    }

    /// Every node that is kept connected or happens to be, and whether it is now.
    pub fn peers(&self) -> Vec<(NodeId, bool)> {
        self.0.table.peers()
    }

    /// How many connections there are, clients' included.
    pub fn connections(&self) -> usize {
        self.0.table.connections().len()
    }

    /// Stops in order: takes no more calls, lets what is queued arrive, tells the peers. Bounded by two
    /// seconds.
    pub async fn close(&self) {
        self.0.table.stop_keepers();
        self.0.quic.set_server_config(None);
        self.0.table.connections().iter().for_each(|connection| connection.finish());
        self.0.writers.close();
        let _ = tokio::time::timeout(FLUSH, self.0.writers.wait()).await;
        self.halt();
        let _ = tokio::time::timeout(FLUSH, self.0.quic.wait_idle()).await;
    }

    fn halt(&self) {
        self.0.table.stop_keepers();
        self.0.quic.close(quinn::VarInt::from_u32(code::Code::Done as u32), b"stopping");
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.halt();
    }
}

impl Transport for Endpoint {
    fn call(&self, to: NodeId, lane: Lane, body: Body) -> PendingReply {
        if self.0.hello.node == Some(to) {
            return local::call(&*self.0.service, &self.0.own, to, body);
        }
        self.ask(to, lane, &body)
    }

    fn ask(&self, to: NodeId, lane: Lane, body: &Body) -> PendingReply {
        if self.0.hello.node == Some(to) {
            return local::call(&*self.0.service, &self.0.own, to, body.clone());
        }
        match self.0.table.current(to) {
            Some(connection) => connection.call(lane, body),
            None => PendingReply::failed(CallError::NotSent(format!("no connection to node {to}"))),
        }
    }
}

/// What a client says to calls.
struct NoService;

impl Service for NoService {
    fn call(&self, _: &Peer, _: Body, reply: Replier) {
        reply.send(Err(Refusal::NotAllowed("a client answers no calls".into())));
    }

    fn closed(&self, _: &Peer) {}
}
