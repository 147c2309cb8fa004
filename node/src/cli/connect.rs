//! From `--server` to a client of the cluster.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::Args;
use serde_json::Value;
use wardlock_machine::{Metadata, limits};
use wardlock_router::{Client, tls::Identity};

use super::{
    failure::{Failure, chain},
    http,
    output::Format,
};
use crate::config::split_host_port;

/// How long one question to the cluster may take.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How long the first contact may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Which cluster, and how to print.
#[derive(Args, Clone, Debug)]
pub struct Server {
    /// The cluster: `http://HOST:PORT` of a gateway, which is asked for the nodes' addresses, or the
    /// QUIC addresses themselves, `HOST:PORT,HOST:PORT`; some of them will do.
    #[arg(
        long,
        env = "WARDLOCK_SERVER",
        value_name = "ADDRESS",
        default_value = "http://127.0.0.1:7400",
        global = true
    )]
    server: String,

    /// The directory with `ca.pem`, `client.pem` and `client.key`. A gateway on this machine may say where
    /// they are.
    #[arg(long, env = "WARDLOCK_CERTS", value_name = "DIR", global = true)]
    certs: Option<PathBuf>,

    /// The cluster's name, where --server is QUIC addresses; a gateway says it itself.
    #[arg(long, env = "WARDLOCK_CLUSTER", value_name = "NAME", default_value = "wardlock", global = true)]
    cluster: String,

    /// How to print.
    #[arg(short, long, env = "WARDLOCK_OUTPUT", value_enum, default_value_t, global = true)]
    pub output: Format,
}

/// Where the cluster is said to be.
#[derive(Debug, PartialEq, Eq)]
enum Address {
    Gateway(String),
    Seeds(Vec<String>),
}

impl Address {
    fn parse(text: &str) -> Result<Address, String> {
        if let Some(rest) = text.strip_prefix("http://") {
            let address = rest.strip_suffix('/').unwrap_or(rest);
            split_host_port(address)?;
            return Ok(Address::Gateway(address.to_owned()));
        }
        if text.contains("://") {
            return Err(format!("{text:?} is neither http://HOST:PORT nor HOST:PORT of a node's QUIC address"));
        }
        let seeds: Vec<String> = text.split(',').map(|seed| seed.trim().to_owned()).collect();
        for seed in &seeds {
            split_host_port(seed)?;
        }
        Ok(Address::Seeds(seeds))
    }
}

/// What is needed to become a client.
struct Found {
    cluster: String,
    seeds: Vec<String>,
    certs: PathBuf,
}

impl Server {
    /// Connects.
    ///
    /// # Errors
    /// One line that names the server.
    pub async fn connect(&self) -> Result<Client, Failure> {
        let found = self.find().await?;
        let identity = Identity::from_dir(&found.certs, "client")
            .map_err(|e| Failure::error(format!("certificates in {}: {}", found.certs.display(), chain(&e))))?;
        connect(&found.cluster, &found.seeds, &identity).await
    }

    async fn find(&self) -> Result<Found, Failure> {
        let wrong = |why: String| Failure::usage(format!("--server: {why}"));
        let (cluster, seeds, hint) = match Address::parse(&self.server).map_err(wrong)? {
            Address::Seeds(seeds) => (self.cluster.clone(), seeds, None),
            Address::Gateway(address) => {
                let said = http::get_json(&address, "/api/v1/cluster").await;
                let said = said.map_err(|why| {
                    Failure::error(format!(
                        "cannot reach {}: {why} (is it running? `wardlock dev` starts a cluster)",
                        self.server
                    ))
                })?;
                let seeds = seeds_of(&said);
                if seeds.is_empty() {
                    return Err(Failure::error(format!("{} names no nodes", self.server)));
                }
                // The path is of the gateway's machine.
                let hint = said.get("certs").and_then(Value::as_str).filter(|_| is_loopback(&address));
                let cluster = said.get("cluster").and_then(Value::as_str).unwrap_or(&self.cluster);
                (cluster.to_owned(), seeds, hint.map(PathBuf::from))
            }
        };
        let certs = self.certs.clone().or(hint).ok_or_else(|| {
            Failure::usage("--certs DIR (or WARDLOCK_CERTS) is needed: nodes talk over mutual TLS only")
        })?;
        Ok(Found { cluster, seeds, certs })
    }
}

/// Connects to a cluster by some of its nodes' QUIC addresses.
///
/// # Errors
/// One line that names the addresses.
pub async fn connect(cluster: &str, seeds: &[String], identity: &Identity) -> Result<Client, Failure> {
    let builder = Client::builder().cluster(cluster).identity(identity.clone()).patience(CONNECT);
    let connected = builder.connect(seeds).await;
    connected.map_err(|e| Failure::error(format!("cannot reach the cluster at {}: {}", seeds.join(", "), chain(&e))))
}

/// The nodes' QUIC addresses in the answer of `/cluster`.
fn seeds_of(said: &Value) -> Vec<String> {
    let nodes: Vec<&Value> = match said.get("nodes") {
        Some(Value::Array(nodes)) => nodes.iter().collect(),
        Some(Value::Object(nodes)) => nodes.values().collect(),
        _ => Vec::new(),
    };
    let address = |node: &Value| node.get("quic").and_then(Value::as_str).map(str::to_owned);
    nodes.into_iter().filter_map(address).filter(|at| split_host_port(at).is_ok()).collect()
}

fn is_loopback(address: &str) -> bool {
    let Ok((host, _)) = split_host_port(address) else { return false };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// How this process names itself to the cluster: `host:pid`.
pub fn client_id() -> String {
    let mut id = format!("{}:{}", host(), std::process::id());
    id.truncate(limits::LABEL_BYTES);
    id
}

/// What is shown of this process to whoever waits.
pub fn metadata(reason: Option<&str>) -> Result<Metadata, Failure> {
    let mut metadata = Metadata::new();
    metadata.insert("host".to_owned(), host());
    metadata.insert("pid".to_owned(), std::process::id().to_string());
    if let Ok(user) = std::env::var("USER") {
        metadata.insert("user".to_owned(), user);
    }
    if let Some(reason) = reason {
        if reason.len() > limits::LABEL_BYTES {
            return Err(Failure::usage(format!("--reason has more than {} bytes", limits::LABEL_BYTES)));
        }
        metadata.insert("reason".to_owned(), reason.to_owned());
    }
    let size: usize = metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    // USER and the host's name are anybody's.
    if size > limits::METADATA_BYTES {
        metadata.remove("user");
    }
    Ok(metadata)
}

fn host() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "unknown".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_server_is_a_gateway_or_seeds() {
        assert_eq!(Address::parse("http://127.0.0.1:7400/"), Ok(Address::Gateway("127.0.0.1:7400".to_owned())));
        let seeds = Address::Seeds(vec!["a:1".to_owned(), "[::1]:2".to_owned()]);
        assert_eq!(Address::parse("a:1, [::1]:2"), Ok(seeds));
        for wrong in ["https://a:1", "http://a", "a", "a:1,", "http://a:1/api"] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_a_gateway_on_this_machine_is_believed_about_paths() {
        for here in ["127.0.0.1:7400", "127.9.9.9:1", "[::1]:7400", "localhost:7400"] {
            assert!(is_loopback(here), "{here}");
        }
        for elsewhere in ["10.0.0.1:7400", "localhost.example.net:7400", "0.0.0.0:7400"] {
            assert!(!is_loopback(elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn seeds_are_read_from_what_the_gateway_says() {
        let said = json!({"nodes": [{"id": 1, "quic": "127.0.0.1:7401"}, {"id": 2, "quic": "nonsense"}, {"id": 3}]});
        assert_eq!(seeds_of(&said), ["127.0.0.1:7401"]);
        assert!(seeds_of(&json!({"nodes": 3})).is_empty());
    }
}
