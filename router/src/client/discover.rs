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

use super::{Client, ConnectError};

/// How long a gateway may take to say who its nodes are.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most bytes of its answer that are read.
const CLUSTER_BYTES: usize = 1 << 20;

/// Why a server's address does not lead to a client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address is none.
    #[error("{address:?} is neither http://HOST:PORT of a gateway nor HOST:PORT of a node: {why}")]
    Address {
        /// As given.
        address: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The gateway does not answer, or not with a cluster.
    #[error("cannot reach {address}: {why} (is it running? `wardlock dev` starts a cluster)")]
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

/// Where a cluster is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    seeds: Vec<String>,
    certs: Option<PathBuf>,
}

impl Client {
    /// A client of the cluster at `server`: `http://host:port` of a gateway or `host:port,…` of nodes. The
    /// certificates are in `certs` or, without that, where the gateway or `WARDLOCK_CERTS` says.
    pub async fn at(server: &str, certs: Option<&Path>) -> Result<Client, ServerError> {
        let found = find(server).await?;
        let mut builder = Client::builder();
        if let Some(certs) = certs.map(Path::to_owned).or(found.certs) {
            builder = builder.certs(certs);
        }
        let seeds = found.seeds.join(", ");
        builder.connect(found.seeds).await.map_err(|source| ServerError::Nodes { seeds, source })
    }
}

async fn find(server: &str) -> Result<Found, ServerError> {
    let wrong = |why| ServerError::Address { address: server.to_owned(), why };
    if let Some(rest) = server.strip_prefix("http://") {
        let gateway = rest.trim_end_matches('/');
        check_address(gateway).map_err(wrong)?;
        let failed = |why: String| ServerError::Gateway { address: server.to_owned(), why };
        let said = match tokio::time::timeout(PATIENCE, cluster_of(gateway)).await {
            Ok(said) => said.map_err(failed)?,
            Err(_) => return Err(failed("no answer in time".to_owned())),
        };
        let seeds = seeds_in(&said);
        if seeds.is_empty() {
            return Err(failed("it names no nodes".to_owned()));
        }
        // The path is one of the gateway's machine.
        let certs = said.get("certs").and_then(Value::as_str).filter(|_| is_loopback(gateway));
        return Ok(Found { seeds, certs: certs.map(PathBuf::from) });
    }
    if server.contains("://") {
        return Err(wrong("that scheme is not spoken here"));
    }
    let seeds: Vec<String> = server.split(',').map(|seed| seed.trim().to_owned()).collect();
    seeds.iter().try_for_each(|seed| check_address(seed)).map_err(wrong)?;
    Ok(Found { seeds, certs: None })
}

fn check_address(address: &str) -> Result<(), &'static str> {
    match address.rsplit_once(':') {
        Some(("", _)) => Err("the host is missing"),
        Some((_, port)) => match port.parse::<u16>() {
            Ok(0) | Err(_) => Err("the port is not a number from 1 to 65535"),
            Ok(_) => Ok(()),
        },
        None => Err("the port is missing"),
    }
}

fn is_loopback(gateway: &str) -> bool {
    let host = gateway.rsplit_once(':').map_or(gateway, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The gateway's `/cluster` document.
async fn cluster_of(gateway: &str) -> Result<Value, String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let stream = tokio::net::TcpStream::connect(gateway).await.map_err(|e| text(&e))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| text(&e))?;
    let request = http::Request::get("/api/v1/cluster")
        .header(http::header::HOST, gateway)
        .body(Empty::<bytes::Bytes>::new())
        .map_err(|e| text(&e))?;
    let ask = async {
        let response = sender.send_request(request).await.map_err(|e| text(&e))?;
        let status = response.status();
        if !status.is_success() {
            return Err(format!("it answers {status}"));
        }
        Limited::new(response.into_body(), CLUSTER_BYTES).collect().await.map_err(|e| e.to_string())
    };
    // The connection is driven beside the exchange and ends with it.
    let body = tokio::select! {
        body = ask => body?,
        ended = connection => return Err(ended.err().map_or("it hung up".to_owned(), |e| text(&e))),
    };
    serde_json::from_slice(&body.to_bytes()).map_err(|e| format!("its answer is not JSON: {e}"))
}

/// The nodes' QUIC addresses in a `/cluster` document.
fn seeds_in(said: &Value) -> Vec<String> {
    let nodes = said.get("nodes").and_then(Value::as_array).into_iter().flatten();
    nodes.filter_map(|node| node.get("quic")?.as_str()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_are_checked_before_anything_is_asked() {
        for wrong in ["https://h:1", "h", "h:0", "h:port", ":7401", "http://:80", "a:1,b", "http://h:1/path"] {
            let error = find(wrong).await.expect_err(wrong);
            assert!(matches!(error, ServerError::Address { .. }), "{wrong}: {error}");
        }
        let found = find("a:1, b:2").await.expect("two seeds");
        assert_eq!(found, Found { seeds: vec!["a:1".to_owned(), "b:2".to_owned()], certs: None });
    }

    #[test]
    fn only_loopback_may_say_where_certificates_are() {
        assert!(is_loopback("127.0.0.1:7400") && is_loopback("[::1]:7400") && is_loopback("localhost:7400"));
        assert!(!is_loopback("10.0.0.1:7400") && !is_loopback("example.org:80"));
    }
}
