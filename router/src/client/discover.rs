//! From a server's address, as people write it, to a client.
//!
//! `http://host:port` is a gateway's: it is asked for the nodes and, where it listens on loopback, for the
//! directory of the client's certificates, so that whoever runs `wardlock dev` needs to set up nothing.
//! `host:port,host:port` are nodes' QUIC addresses; certificates must then be named.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::{Builder, Client, ConnectError};
use crate::split_host_port;

/// How long a gateway may take to say who its nodes are.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where it says so.
const CLUSTER: &str = "/api/v1/cluster";
/// The most bytes of its answer that are read.
const CLUSTER_BYTES: usize = 1 << 20;

/// Why a server's address does not lead to a client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address is none.
    #[error("{why}")]
    Address {
        /// As given.
        address: String,
        /// What is wrong with it.
        why: String,
    },
    /// The gateway does not answer, or not with a cluster.
    #[error("cannot reach {address}: {why}")]
    Gateway {
        /// As given.
        address: String,
        /// Why.
        why: String,
    },
    /// The nodes cannot be reached.
    #[error("cannot reach the cluster at {seeds}: {source}")]
    Nodes {
        /// Who was asked.
        seeds: String,
        /// Why.
        source: ConnectError,
    },
}

/// Where a cluster is, and what a gateway says beside that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    seeds: Vec<String>,
    cluster: Option<String>,
    certs: Option<PathBuf>,
}

impl Client {
    /// A client of the cluster at `server`: `http://host:port` of a gateway or `host:port,…` of nodes. The
    /// certificates are in `certs` or, without that, where `WARDLOCK_CERTS` or the gateway says.
    pub async fn at(server: &str, certs: Option<&Path>) -> Result<Client, ServerError> {
        let builder = Client::builder();
        match certs {
            Some(certs) => builder.certs(certs).connect_at(server).await,
            None => builder.connect_at(server).await,
        }
    }
}

impl Builder {
    /// Connects to the cluster at `server`: `http://host:port` of a gateway or `host:port,…` of nodes. The
    /// name and the certificates that the builder was given stand; a gateway fills in what is missing.
    /// Must be called within a tokio runtime, which runs the client's tasks.
    pub async fn connect_at(self, server: &str) -> Result<Client, ServerError> {
        let Found { seeds, cluster, certs } = find(server).await?;
        let builder = self.or_else(cluster, certs);
        let named = seeds.join(", ");
        builder.connect(seeds).await.map_err(|source| ServerError::Nodes { seeds: named, source })
    }
}

async fn find(server: &str) -> Result<Found, ServerError> {
    let wrong = |why| ServerError::Address { address: server.to_owned(), why };
    if let Some(rest) = server.strip_prefix("http://") {
        let gateway = rest.trim_end_matches('/');
        split_host_port(gateway).map_err(wrong)?;
        let failed = |why: String| ServerError::Gateway { address: server.to_owned(), why };
        let said = match tokio::time::timeout(PATIENCE, cluster_of(gateway)).await {
            Ok(said) => said.map_err(failed)?,
            Err(_) => return Err(failed(format!("no answer within {} s", PATIENCE.as_secs()))),
        };
        let found = Found::said(&said, is_loopback(gateway));
        return if found.seeds.is_empty() { Err(failed("it names no nodes".to_owned())) } else { Ok(found) };
    }
    if server.contains("://") {
        return Err(wrong(format!("{server:?} is neither http://HOST:PORT nor HOST:PORT of a node's QUIC address")));
    }
    let seeds: Vec<String> = server.split(',').map(|seed| seed.trim().to_owned()).collect();
    seeds.iter().try_for_each(|seed| split_host_port(seed).map(|_| ())).map_err(wrong)?;
    Ok(Found { seeds, ..Found::default() })
}

impl Found {
    /// What a `/cluster` document says. A path is one of the gateway's machine: `here` is whether that is this
    /// one.
    fn said(document: &Value, here: bool) -> Found {
        let text = |field| document.get(field).and_then(Value::as_str);
        let nodes = document.get("nodes").and_then(Value::as_array).into_iter().flatten();
        let seeds = nodes.filter_map(|node| node.get("quic")?.as_str()).filter(|at| split_host_port(at).is_ok());
        Found {
            seeds: seeds.map(str::to_owned).collect(),
            cluster: text("cluster").map(str::to_owned),
            certs: text("certs").filter(|_| here).map(PathBuf::from),
        }
    }
}

fn is_loopback(gateway: &str) -> bool {
    let Ok((host, _)) = split_host_port(gateway) else { return false };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The gateway's `/cluster` document.
async fn cluster_of(gateway: &str) -> Result<Value, String> {
    let text = |error: &hyper::Error| match error.is_parse() {
        true => "it does not speak plain HTTP; name the nodes' QUIC addresses instead".to_owned(),
        false => error.to_string(),
    };
    let stream = tokio::net::TcpStream::connect(gateway).await;
    let stream = stream.map_err(|e| format!("{e} (is it running? `wardlock dev` starts a cluster)"))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| text(&e))?;
    let request = http::Request::get(CLUSTER)
        .header(http::header::HOST, gateway)
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|e| e.to_string())?;
    let ask = async {
        let response = sender.send_request(request).await.map_err(|e| text(&e))?;
        let status = response.status();
        if !status.is_success() {
            return Err(format!("it answers {status} to {CLUSTER}"));
        }
        Limited::new(response.into_body(), CLUSTER_BYTES).collect().await.map_err(|e| e.to_string())
    };
    // The connection is driven beside the exchange and ends with it, or just before.
    tokio::pin!(ask);
    let body = tokio::select! {
        body = &mut ask => body?,
        ended = connection => match ended {
            Ok(()) => ask.await?,
            Err(error) => return Err(text(&error)),
        },
    };
    serde_json::from_slice(&body.to_bytes()).map_err(|e| format!("its answer is not JSON: {e}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn addresses_are_checked_before_anything_is_asked() {
        for wrong in ["https://h:1", "h", "h:0", "h:port", ":7401", "http://:80", "a:1,b", "http://h:1/path"] {
            let error = find(wrong).await.expect_err(wrong);
            assert!(matches!(error, ServerError::Address { .. }), "{wrong}: {error}");
        }
        let found = find("a:1, b:2").await.expect("two seeds");
        assert_eq!(found, Found { seeds: vec!["a:1".to_owned(), "b:2".to_owned()], ..Found::default() });
    }

    #[test]
    fn only_loopback_may_say_where_certificates_are() {
        for here in ["127.0.0.1:7400", "127.9.9.9:1", "[::1]:7400", "localhost:7400"] {
            assert!(is_loopback(here), "{here}");
        }
        for elsewhere in ["10.0.0.1:7400", "localhost.example.net:7400", "0.0.0.0:7400"] {
            assert!(!is_loopback(elsewhere), "{elsewhere}");
        }
        let said = json!({"cluster": "dev", "certs": "/d/certs", "nodes": [{"id": 1, "quic": "127.0.0.1:7401"}]});
        assert_eq!(Found::said(&said, true).certs, Some(PathBuf::from("/d/certs")));
        assert_eq!(Found::said(&said, false).certs, None);
    }

    #[test]
    fn a_gateways_answer_is_not_trusted_to_make_sense() {
        let said = json!({"cluster": 7, "nodes": [{"quic": "127.0.0.1:7401"}, {"quic": "nonsense"}, {"id": 3}, 4]});
        assert_eq!(Found::said(&said, true), Found { seeds: vec!["127.0.0.1:7401".to_owned()], ..Found::default() });
        assert_eq!(Found::said(&json!({"nodes": 3}), true), Found::default());
    }
}
