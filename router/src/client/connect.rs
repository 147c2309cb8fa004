//! A client over QUIC.

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use wardlock_placement::NodeId;
use wardlock_wire::ANY_CLUSTER;

use super::{Client, Dialer};
use crate::{
    Error,
    link::{
        CallError,
        quic::{BindError, Config, Endpoint},
    },
    tls::{Identity, TlsError},
};

/// Why there is no connection to a cluster.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nothing says who this client is.
    #[error("no certificates: name their directory, or set WARDLOCK_CERTS")]
    NoCertificates,
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// There is no socket to dial from.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// No node gave a shard map.
    #[error(transparent)]
    Call(#[from] Error),
}

/// How a client is to be connected.
#[derive(Clone, Debug)]
#[must_use = "a client is connected by `connect`"]
pub struct Builder {
    cluster: String,
    certs: Option<PathBuf>,
    identity: Option<Identity>,
    patience: Duration,
}

impl Client {
    /// Connects to the cluster of which these addresses, each a `host:port`, are some nodes', with the
    /// certificates in the directory `WARDLOCK_CERTS`.
    pub async fn connect(seeds: impl IntoIterator<Item = impl Into<String>>) -> Result<Client, ConnectError> {
        Client::builder().connect(seeds).await
    }

    /// Says more than [`Client::connect`] about how to connect.
    pub fn builder() -> Builder {
        let cluster = std::env::var("WARDLOCK_CLUSTER").unwrap_or_else(|_| ANY_CLUSTER.to_owned());
        let certs = std::env::var_os("WARDLOCK_CERTS").map(PathBuf::from);
        Builder { cluster, certs, identity: None, patience: Duration::from_secs(10) }
    }
}

impl Builder {
    /// The cluster's name; nodes of another refuse. Without this and without `WARDLOCK_CLUSTER`, whichever
    /// cluster the certificate is for.
    pub fn cluster(mut self, name: impl Into<String>) -> Builder {
        self.cluster = name.into();
        self
    }

    /// The directory with `ca.pem`, `client.pem` and `client.key`.
    pub fn certs(mut self, directory: impl Into<PathBuf>) -> Builder {
        self.certs = Some(directory.into());
        self
    }

    /// The certificates themselves, rather than a directory.
    pub fn identity(mut self, identity: Identity) -> Builder {
        self.identity = Some(identity);
        self
    }

    /// How long to look for a node that gives a shard map. 10 s without this.
    pub fn patience(mut self, patience: Duration) -> Builder {
        self.patience = patience;
        self
    }

    /// With these where nothing else was said: the name of the cluster and the directory of certificates.
    pub(super) fn or_else(mut self, cluster: Option<String>, certs: Option<PathBuf>) -> Builder {
        if self.cluster == ANY_CLUSTER {
            self.cluster = cluster.unwrap_or(self.cluster);
        }
        if self.identity.is_none() {
            self.certs = self.certs.or(certs);
        }
        self
    }

    /// Connects. Must be called within a tokio runtime, which runs the client's tasks.
    pub async fn connect(self, seeds: impl IntoIterator<Item = impl Into<String>>) -> Result<Client, ConnectError> {
        let identity = match (self.identity, self.certs) {
            (Some(identity), _) => identity,
            (None, Some(certs)) => Identity::from_dir(&certs, "client")?,
            (None, None) => return Err(ConnectError::NoCertificates),
        };
        let endpoint = Endpoint::client(&identity, &self.cluster, Config::default())?;
        let client = Client::over(Arc::new(endpoint), seeds);
        client.ready(self.patience).await?;
        Ok(client)
    }
}

impl Dialer for Endpoint {
    fn set_peer(&self, node: NodeId, address: String) {
        Endpoint::set_peer(self, node, address);
    }

    fn connect_seed<'a>(&'a self, address: &'a str) -> BoxFuture<'a, Result<NodeId, CallError>> {
        async move { Endpoint::connect_seed(self, address).await.map_err(|error| CallError::NotSent(error.to_string())) }
            .boxed()
    }
}
