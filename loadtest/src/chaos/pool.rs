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

use anyhow::ensure;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep};
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

/// How long a client may take to learn the map.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often one is looked at that does not know it all.
const LOOK: Duration = Duration::from_millis(50);

/// See the [module](self).
pub(super) struct Pool(Vec<Client>);

impl Pool {
    /// So many, of which the last is frozen once it knows all shards.
    pub(super) async fn connect(server: &str, certs: &Path, count: usize, shards: u32) -> anyhow::Result<Pool> {
        let mut clients = Vec::new();
        for _ in 1..count {
            let client = Client::at(server, Some(certs)).await?;
            knows_all(&client, shards).await?;
            clients.push(client);
        }
        clients.push(frozen(server, certs, shards).await?);
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

/// Waits until a client's map has all shards: one node may know of them later than another.
async fn knows_all(client: &Client, shards: u32) -> anyhow::Result<()> {
    let until = Instant::now() + PATIENCE;
    while client.map().shards().count() < shards as usize {
        ensure!(Instant::now() < until, "a client's map does not have all shards");
        sleep(LOOK).await;
        // Another look follows where this one fails.
        let _ = client.refresh().await;
    }
    Ok(())
}

async fn frozen(server: &str, certs: &Path, shards: u32) -> anyhow::Result<Client> {
    let identity = Identity::from_dir(certs, "client")?;
    let endpoint = Endpoint::client(&identity, ANY_CLUSTER, Config::default())?;
    let dialer = Arc::new(Frozen { endpoint, frozen: AtomicBool::new(false) });
    let client = Client::over(Arc::clone(&dialer) as _, server.split(','));
    client.ready(PATIENCE).await?;
    knows_all(&client, shards).await?;
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
