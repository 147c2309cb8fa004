//! `wardlock dev`: a whole cluster on loopback, with nothing to set up.
//!
//! Real nodes, real QUIC with mutual TLS between them, real files; only that they share a machine, and
//! without `--processes` a process. The gateway is a router like any other, over the same client. There is
//! no road in here that a production cluster does not have.
//!
//! # Promises
//! 1. What is printed when it is ready works as it stands.
//! 2. However this process ends, its nodes end too; a temporary directory is removed unless it was killed.
//! 3. Nothing listens beyond loopback.

pub mod greeting;
pub mod plan;
pub mod processes;
pub mod threads;

use std::{
    io::{IsTerminal, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use wardlock_router::{Client, tls::Identity};

use self::{
    greeting::greeting,
    plan::{CLUSTER, Plan, PlannedNode},
    processes::Processes,
    threads::Threads,
};
use crate::{
    certs::Holder,
    cli::{
        ClusterView,
        certs::{self, Existing},
        failure::{Failure, chain},
        gateway, output,
        signals::{Stop, orphaned},
    },
    dns::{self, DnsThread},
};

/// Where the gateway listens, where nothing is said, and where DNS does then: beyond the ports that the nodes take.
const HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7400);
const DNS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7453);

/// How long the cluster may take to be ready.
const READY: Duration = Duration::from_secs(60);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(100);

/// A cluster on this machine, to try things with.
///
/// Real nodes that talk QUIC with mutual TLS over loopback, and a gateway for HTTP.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  wardlock dev
  wardlock dev --nodes 5 --data-dir ./cluster
  wardlock dev --processes      # then kill -9 a node, and paste its line to start it again")]
pub struct DevArgs {
    /// How many nodes.
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=9))]
    nodes: u32,

    /// How many shards.
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=256))]
    shards: u32,

    /// Where the gateway listens. The nodes take the UDP ports after it; with port 0 all are any free ones.
    #[arg(long, value_name = "IP:PORT", default_value_t = HTTP, value_parser = loopback)]
    http: SocketAddr,

    /// Where services are found by DNS, over UDP and TCP. [default: 127.0.0.1:7453, where --http is not given]
    #[arg(long, value_name = "IP:PORT", value_parser = loopback)]
    dns_listen: Option<SocketAddr>,

    /// Where to keep the data and certificates. [default: a temporary directory, removed at the end]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Each node is a process of its own, to be killed and started again.
    #[arg(long)]
    processes: bool,

    /// Stop when stdin ends: how a program that starts a cluster takes it along, even when it is killed.
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| format!("{text:?} is not IP:PORT"))?;
    match address.ip().is_loopback() {
        true => Ok(address),
        false => Err(format!("{} is not a loopback address: `wardlock router` is for other listeners", address.ip())),
    }
}

/// Where the data is.
struct Place {
    path: PathBuf,
    /// Removed when dropped.
    temporary: Option<tempfile::TempDir>,
}

impl Place {
    fn new(wanted: Option<&PathBuf>) -> Result<Place, Failure> {
        let wrong =
            |path: &std::path::Path, e: std::io::Error| Failure::error(format!("cannot use {}: {e}", path.display()));
        let (given, temporary) = match wanted {
            Some(path) => {
                std::fs::create_dir_all(path).map_err(|e| wrong(path, e))?;
                (path.clone(), None)
            }
            None => {
                let made = tempfile::Builder::new().prefix("wardlock-dev-").tempdir();
                let made = made.map_err(|e| wrong(&std::env::temp_dir(), e))?;
                (made.path().to_owned(), Some(made))
            }
        };
        // The commands that are printed work from any directory.
        let path = given.canonicalize().map_err(|e| wrong(&given, e))?;
        Ok(Place { path, temporary })
    }

    /// Does not remove it at the end.
    fn keep(&mut self) {
        if let Some(mut temporary) = self.temporary.take() {
            temporary.disable_cleanup(true);
            crate::cli::output::complain(&format!("data kept in {}\n", self.path.display()));
        }
    }

    /// For an end without drops.
    fn remove(&self) {
        if let Some(temporary) = &self.temporary {
            // Nodes may still write; what they leave is in the system's directory for such things.
            let _ = std::fs::remove_dir_all(temporary.path());
        }
    }
}

/// Runs the command.
///
/// # Errors
/// One line on what stood in the way.
pub fn run(args: &DevArgs) -> Result<ExitCode, Failure> {
    if !args.processes || std::env::var_os("WARDLOCK_LOG").is_some() {
        log_quietly();
    }
    let mut place = Place::new(args.data_dir.as_ref())?;
    crate::cli::block_on(cluster(args, &mut place))
}

/// Errors of ours only: what is printed on stdout is the point, and the consensus core calls its own end an
/// error. `WARDLOCK_LOG` says otherwise.
fn log_quietly() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("WARDLOCK_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error,openraft=off"));
    let ansi = std::io::stderr().is_terminal();
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(std::io::stderr).try_init();
}

async fn cluster(args: &DevArgs, place: &mut Place) -> Result<ExitCode, Failure> {
    let mut stop = Stop::catch().map_err(Failure::error)?;
    let alone = orphaned(args.exit_with_stdin);
    tokio::pin!(alone);
    let program = std::env::current_exe().map_err(Failure::error)?;
    // Taken first: the address that people type must be free before anything else is tried.
    let listener = gateway::listen(args.http).await?;
    let http = listener.local_addr().map_err(Failure::error)?;
    let quic = plan::addresses(args.http, args.nodes)?;
    let plan = Plan::new(&place.path, &quic, args.shards);
    if place.temporary.is_some() {
        crate::cli::output::complain(&format!("data in {}, removed at the end\n", plan.dir.display()));
    }
    plan.write()?;
    make_certificates(&plan)?;

    let mut nodes = match args.processes {
        true => Nodes::Processes(Processes::start(&plan, &program)?),
        false => Nodes::Threads(Threads::start(&plan)?),
    };
    let stopping = CancellationToken::new();
    let started = async {
        let client = connect_client(&plan).await?;
        wait_until_ready(&client, args.shards).await?;
        Ok::<_, Failure>(client)
    };
    let client = tokio::select! {
        started = timeout(READY, started) => match started {
            Ok(started) => started,
            Err(_) => Err(Failure::error(format!("the cluster was not ready within {} s", READY.as_secs()))),
        },
        failure = nodes.failed_at_start() => Err(failure),
        () = async { tokio::select! { _ = stop.wait() => {}, () = &mut alone => {} } } => {
            stop.drain(nodes.shutdown(), || place.remove()).await;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let client = match client {
        Ok(client) => client,
        Err(failure) => {
            if args.processes {
                // The nodes' logs say what went wrong.
                place.keep();
            }
            stop.drain(nodes.shutdown(), || place.remove()).await;
            return Err(failure);
        }
    };

    let dns = match start_dns(args, client.clone()) {
        Ok(dns) => dns,
        Err(failure) => {
            stop.drain(nodes.shutdown(), || place.remove()).await;
            return Err(failure);
        }
    };
    let serving = gateway::run(listener, client, CLUSTER.to_owned(), Some(plan.certs()), None, stopping.clone());
    tokio::pin!(serving);
    let at = dns.as_ref().map(DnsThread::address);
    output::print(&greeting(&plan, args.shards, &http.to_string(), at, &program, place.temporary.is_some()))?;
    nodes.introduce()?;
    let ended = tokio::select! {
        served = &mut serving => served.and(Err(Failure::error("the gateway has ended"))),
        failed = nodes.failed() => Err(failed),
        _ = stop.wait() => Ok(()),
        () = &mut alone => Ok(()),
    };
    stopping.cancel();
    let drained = async {
        if ended.is_ok() {
            // The gateway answers what it has begun while the nodes still serve it.
            let _ = timeout(Duration::from_secs(6), serving).await;
        }
        nodes.shutdown().await;
    };
    stop.drain(drained, || place.remove()).await;
    ended.map(|()| ExitCode::SUCCESS)
}

/// By default at an address that is left out where somebody else has it.
fn start_dns(args: &DevArgs, client: Client) -> Result<Option<DnsThread>, Failure> {
    let default = (args.http == HTTP).then_some(DNS);
    let Some(listen) = args.dns_listen.or(default) else { return Ok(None) };
    let settings = dns::Settings::new(listen, dns::ZONE, 0, false).map_err(|e| Failure::usage(e.to_string()))?;
    match DnsThread::start(settings, client) {
        Ok(dns) => Ok(Some(dns)),
        Err(_) if args.dns_listen.is_none() => {
            output::complain(&format!("no DNS: port {} is taken; --dns-listen IP:PORT takes another\n", listen.port()));
            Ok(None)
        }
        Err(why) => Err(Failure::error(format!("--dns-listen: {listen} cannot be used: {why}"))),
    }
}

/// The nodes, whichever way they run.
enum Nodes {
    Threads(Threads),
    Processes(Processes),
}

impl Nodes {
    /// Resolves when one cannot start.
    async fn failed_at_start(&mut self) -> Failure {
        match self {
            Nodes::Threads(threads) => threads.failed().await,
            Nodes::Processes(processes) => Failure::error(processes.ended().await.1),
        }
    }

    /// Resolves when the cluster cannot go on. Processes may be killed: that is what they are for.
    async fn failed(&mut self) -> Failure {
        match self {
            Nodes::Threads(threads) => threads.failed().await,
            Nodes::Processes(processes) => loop {
                let (node, how) = processes.ended().await;
                crate::cli::output::complain(&format!("{how}\n{}\n", processes.line(node)));
            },
        }
    }

    fn introduce(&self) -> Result<(), Failure> {
        let Nodes::Processes(processes) = self else { return Ok(()) };
        let lines: String = processes.lines().map(|line| format!("{line}\n")).collect();
        output::print(&format!("\n{lines}"))
    }

    async fn shutdown(self) {
        match self {
            Nodes::Threads(threads) => threads.shutdown().await,
            Nodes::Processes(processes) => processes.shutdown().await,
        }
    }
}

/// Makes the certificates that are not there yet.
fn make_certificates(plan: &Plan) -> Result<(), Failure> {
    let hosts = |node: &PlannedNode| vec!["localhost".to_owned(), node.quic.ip().to_string()];
    let mut wanted: Vec<_> = plan.nodes.iter().map(|node| (Holder::Node(node.id), hosts(node))).collect();
    wanted.push((Holder::Client, Vec::new()));
    certs::make(&plan.certs(), &wanted, Existing::Keep).map_err(|e| Failure::error(chain(&e)))
}

async fn connect_client(plan: &Plan) -> Result<Client, Failure> {
    let identity = Identity::from_dir(&plan.certs(), "client").map_err(|e| Failure::error(chain(&e)))?;
    let seeds: Vec<String> = plan.nodes.iter().map(|node| node.quic.to_string()).collect();
    loop {
        // The nodes may not listen yet; the caller has the time in hand.
        match Client::builder().cluster(CLUSTER).identity(identity.clone()).connect(&seeds).await {
            Ok(client) => return Ok(client),
            Err(_) => sleep(LOOK).await,
        }
    }
}

/// Waits until every shard has a leader, and tells a terminal how far it is.
async fn wait_until_ready(client: &Client, shards: u32) -> Result<(), Failure> {
    let tell = std::io::stderr().is_terminal();
    let began = Instant::now();
    loop {
        let (known, led) = ClusterView::ask(client).await.led();
        if tell {
            let seconds = began.elapsed().as_secs();
            crate::cli::output::complain(&format!(
                "\rbootstrapping: {led} of {shards} shards have a leader ({seconds} s)\x1b[K"
            ));
            let _ = std::io::stderr().flush();
        }
        if led == known && known == shards as usize {
            if tell {
                crate::cli::output::complain("\r\x1b[K");
            }
            return Ok(());
        }
        sleep(LOOK).await;
    }
}
