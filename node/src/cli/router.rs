//! `wardlock router`: the HTTP gateway alone.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::Args;
use tokio_util::sync::CancellationToken;
use wardlock_router::{Client, split_host_port, tls::Identity};

use crate::dns::{self, DnsThread, ZONE};

use super::{
    failure::{Failure, chain},
    gateway,
    signals::Stop,
};

/// The HTTP gateway alone, without a node.
///
/// Many clients share a router's few connections to the nodes. Routers keep nothing: run as many as you
/// like, beside the clients or behind a load balancer.
#[derive(Args, Debug)]
#[command(after_help = "\
Beyond loopback it speaks HTTPS and asks for client certificates.

Example:
  wardlock router --seed wl1:7401 --seed wl2:7401 --http 127.0.0.1:7400 --certs /etc/wardlock/certs
  wardlock router --seed wl1:7401 --certs certs --dns-listen 127.0.0.1:7453
  dig @127.0.0.1 -p 7453 SRV payments.service.wardlock")]
pub(super) struct RouterArgs {
    /// A node's QUIC address; the others are learned from it. May be repeated.
    #[arg(long, value_name = "HOST:PORT", required = true, value_parser = seed)]
    seed: Vec<String>,

    /// Where to listen.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:7400")]
    http: SocketAddr,

    /// The cluster's name.
    #[arg(long, env = "WARDLOCK_CLUSTER", value_name = "NAME", default_value = "wardlock")]
    cluster: String,

    /// The directory with `ca.pem`, `client.pem` and `client.key`. To listen beyond loopback the
    /// certificate must name this host: `wardlock certs --client=HOST`.
    #[arg(long, env = "WARDLOCK_CERTS", value_name = "DIR")]
    certs: PathBuf,

    /// Where services are found by DNS, over UDP and TCP. [default: nowhere]
    #[arg(long, env = "WARDLOCK_DNS_LISTEN", value_name = "IP:PORT")]
    dns_listen: Option<SocketAddr>,

    /// The zone that DNS answers for.
    #[arg(long, env = "WARDLOCK_DNS_ZONE", value_name = "NAME", default_value = ZONE)]
    dns_zone: String,

    /// How many seconds others may remember what DNS answers: 0 or 1.
    #[arg(long, env = "WARDLOCK_DNS_TTL", value_name = "SECONDS", default_value_t = 0)]
    dns_ttl: u32,

    /// Lets DNS listen beyond loopback. It knows no certificates: whoever reaches it learns where services are.
    #[arg(long)]
    dns_beyond_loopback: bool,
}

fn seed(text: &str) -> Result<String, String> {
    split_host_port(text).map(|_| text.to_owned())
}

/// Runs the command.
pub(super) fn run(args: RouterArgs) -> Result<ExitCode, Failure> {
    super::log_to_stderr();
    super::block_on(serve(args))
}

async fn serve(args: RouterArgs) -> Result<ExitCode, Failure> {
    let mut stop = Stop::catch().map_err(Failure::error)?;
    let identity = Identity::from_dir(&args.certs, "client");
    let identity = identity.map_err(|e| Failure::usage(format!("--certs: {}", chain(&e))))?;
    crate::metrics::install();
    if let Ok(expires) = identity.expires() {
        metrics::gauge!("wardlock_cert_expiry_timestamp_seconds").set(expires as f64);
    }
    let tls = match args.http.ip().is_loopback() {
        true => None,
        false => Some(gateway::mutual_tls(&args.certs, "client")?),
    };
    let dns = args.dns_listen.map(|listen| {
        let settings = dns::Settings::new(listen, &args.dns_zone, args.dns_ttl, args.dns_beyond_loopback);
        settings.map_err(|e| Failure::usage(format!("--{}: {e}", e.field().replace('_', "-"))))
    });
    let dns = dns.transpose()?;
    let listener = gateway::listen(args.http).await?;
    let connecting = Client::builder().cluster(&args.cluster).identity(identity);
    let seeds = args.seed.join(",");
    let client = tokio::select! {
        connected = connecting.connect_at(&seeds) => connected.map_err(|e| Failure::error(chain(&e)))?,
        _ = stop.wait() => return Ok(ExitCode::SUCCESS),
    };
    let failed = |e: std::io::Error| Failure::error(format!("--dns-listen: {e}"));
    let _dns = dns.map(|dns| DnsThread::start(dns, client.clone()).map_err(failed)).transpose()?;
    tracing::info!(http = %args.http, "ready");
    let stopping = CancellationToken::new();
    let serving = gateway::run(listener, client, args.cluster, None, tls, stopping.clone());
    tokio::pin!(serving);
    tokio::select! {
        served = &mut serving => served?,
        _ = stop.wait() => {
            tracing::info!("draining; a second signal stops at once");
            stopping.cancel();
            stop.drain(serving, || ()).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
