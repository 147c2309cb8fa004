//! The ways into the cluster: several clients of the library, each with connections and beliefs of its own.
//!
//! What one has learned of a new leader another does not know yet, so that deposed leaders are asked. One is
//! *frozen*: it learns the shard map once, and whatever it asks for a newer one fails.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use wardlock_placement::NodeId;
use wardlock_router::{
    Client, Dialer,
    link::{
        CallError, PendingReply, Transport,
        quic::{Config, Endpoint},
    },
    tls::Identity,
};
use wardlock_wire::{ANY_CLUSTER, Body, Lane};

use crate::workload::Dice;

/// How long the frozen client may take to learn the map.
const PATIENCE: Duration = Duration::from_secs(10);

/// See the [module](self).
pub(super) struct Pool(Vec<Client>);

impl Pool {
    /// So many, of which the last is frozen.
    pub(super) async fn connect(server: &str, certs: &Path, count: usize) -> anyhow::Result<Pool> {
        let mut clients = Vec::new();
        for _ in 1..count {
            clients.push(Client::at(server, Some(certs)).await?);
        }
        clients.push(frozen(server, certs).await?);
        Ok(Pool(clients))
    }

    pub(super) fn any(&self, dice: &mut Dice) -> &Client {
        &self.0[dice.below(self.0.len() as u64) as usize]
    }

    /// One after the other.
    pub(super) fn nth(&self, n: usize) -> &Client {
        &self.0[n % self.0.len()]
    }
}

async fn frozen(server: &str, certs: &Path) -> anyhow::Result<Client> {
    let identity = Identity::from_dir(certs, "client")?;
    let endpoint = Endpoint::client(&identity, ANY_CLUSTER, Config::default())?;
    let dialer = Arc::new(Frozen { endpoint, frozen: AtomicBool::new(false) });
    let client = Client::over(Arc::clone(&dialer) as _, server.split(','));
    client.ready(PATIENCE).await?;
    dialer.frozen.store(true, Ordering::Relaxed);
    Ok(client)
}

struct Frozen {
    endpoint: Endpoint,
    frozen: AtomicBool,
}

impl Frozen {
    fn refuses(&self, body: &Body) -> bool {
        matches!(body, Body::Map { .. }) && self.frozen.load(Ordering::Relaxed)
    }
}

fn refused() -> PendingReply {
    PendingReply::failed(CallError::NotSent("this client learns no map any more".to_owned()))
}

impl Transport for Frozen {
    fn call(&self, to: NodeId, lane: Lane, body: Body) -> PendingReply {
        if self.refuses(&body) { refused() } else { self.endpoint.call(to, lane, body) }
    }

    fn ask(&self, to: NodeId, lane: Lane, body: &Body) -> PendingReply {
        if self.refuses(body) { refused() } else { self.endpoint.ask(to, lane, body) }
    }
}

impl Dialer for Frozen {
    fn set_peer(&self, node: NodeId, address: String) {
        Dialer::set_peer(&self.endpoint, node, address);
    }

    fn connect_seed<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<NodeId, CallError>> {
        Dialer::connect_seed(&self.endpoint, address)
    }
}
