//! The HTTP gateway over a client: what `wardlock router` is, and what `wardlock dev` serves.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use wardlock_router::{
    Client,
    http::{Gateway, GatewayInfo, MutualTls, ServerConfig, serve},
    tls::Identity,
    webhook::Targets,
};

use super::failure::{Failure, chain};
use crate::metrics;

/// Listens for HTTP.
///
/// # Errors
/// Where the address cannot be had, by its port.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address)
        .await
        .map_err(|e| Failure::error(format!("TCP port {} on {} cannot be used: {e}", address.port(), address.ip())))
}

/// Mutual TLS from a directory with `ca.pem`, `NAME.pem` and `NAME.key`.
///
/// # Errors
/// Where they cannot be read or do not fit.
pub fn mutual_tls(dir: &Path, name: &str) -> Result<MutualTls, Failure> {
    Identity::from_dir(dir, name)
        .and_then(|identity| MutualTls::new(&identity))
        .map_err(|e| Failure::usage(format!("--certs: {}", chain(&e))))
}

/// Serves until `stop`.
///
/// # Errors
/// Where the socket fails.
pub async fn run(
    listener: TcpListener,
    client: Client,
    cluster: String,
    certs_hint: Option<PathBuf>,
    tls: Option<MutualTls>,
    targets: Targets,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let known = client.clone();
    let ready = move || match known.map().version.0 {
        0 => Err("the shard map is not known yet".to_owned()),
        _ => Ok(()),
    };
    let prometheus = metrics::install();
    let metrics = Arc::new(move || prometheus.render());
    let info = GatewayInfo { cluster, certs_hint, ready: Arc::new(ready), metrics };
    let gateway = Gateway::with_webhooks(client, info, targets);
    let config = ServerConfig { tls, drain: Duration::from_secs(5), ..ServerConfig::default() };
    serve(listener, gateway, stop.cancelled_owned(), config).await.map_err(|e| Failure::error(chain(&e)))
}
