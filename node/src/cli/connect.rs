//! From `--server` to a client of the cluster.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use wardlock_machine::{Metadata, limits};
use wardlock_router::{Client, ConnectError, ServerError};

use super::{
    failure::{Failure, chain},
    output::Format,
    telling::telling,
};

/// How long one question to the cluster may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

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

    /// The cluster's name: nodes of another are refused. Without this, whichever cluster the server is of.
    #[arg(long, env = "WARDLOCK_CLUSTER", value_name = "NAME", global = true)]
    cluster: Option<String>,

    /// How to print.
    #[arg(short, long, env = "WARDLOCK_OUTPUT", value_enum, default_value_t, global = true)]
    pub output: Format,
}

impl Server {
    /// Connects.
    ///
    /// # Errors
    /// One line that names the server.
    pub async fn connect(&self) -> Result<Client, Failure> {
        let mut builder = Client::builder();
        if let Some(cluster) = &self.cluster {
            builder = builder.cluster(cluster);
        }
        if let Some(certs) = &self.certs {
            builder = builder.certs(certs);
        }
        let line = async || Some(format!("connecting to {}", self.server));
        let connected = telling(line, builder.connect_at(&self.server)).await;
        connected.map_err(|error| match &error {
            ServerError::Address { .. } => Failure::usage(format!("--server: {error}")),
            ServerError::Nodes { source: ConnectError::NoCertificates, .. } => {
                Failure::usage("--certs DIR (or WARDLOCK_CERTS) is needed: nodes talk over mutual TLS only")
            }
            ServerError::Nodes { source: ConnectError::Tls(error), .. } => {
                Failure::usage(format!("--certs: {}", chain(error)))
            }
            _ => Failure::error(chain(&error)),
        })
    }
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
