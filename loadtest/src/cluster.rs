//! A real cluster on this machine, started and owned by this program.
//!
//! `wardlock dev --processes` lays it out and starts it; what it prints says where the gateway listens, which
//! process each node is and how to start it again. From there on a [`Cluster`] can do to its nodes what
//! happens to nodes: [`kill`](Cluster::kill), [`pause`](Cluster::pause), drain, start again.
//!
//! # Promises
//! 1. However this program ends, even killed, the cluster ends: every process of it reads a pipe whose other
//!    end only this program has. The one exception is a node that it paused after it had restarted it.
//! 2. [`Cluster::end`] resumes what is paused, asks all to drain, kills what has not ended within
//!    [`DRAIN`], and removes the data last.
//! 3. Ctrl-C reaches this program alone, which then keeps promise 2: the cluster is a process group of its own.
//!
//! Nothing is started again by itself: a node that died of something else shows in [`Cluster::ailing`].
//!
//! A cluster behind a network of our own, whose nodes have disks and clocks of their own, is laid out by this
//! program itself ([`Cluster::start_apart`]): the way between any two nodes can then be cut, a disk be full or lose
//! what was not synced, and a node be started on a machine that has run for another time.

mod apart;
mod clocks;
mod disks;
pub(crate) mod health;
pub(crate) mod interrupt;
pub(crate) mod net;
mod node;
mod program;
mod said;

use std::{
    collections::{BTreeMap, VecDeque},
    io::IsTerminal,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::{Instant, timeout, timeout_at},
};

pub(crate) use self::apart::{Own, Without};
use self::{disks::Disks, net::Net, node::Node, said::Said};
use crate::target::Place;

/// How long `wardlock dev` may take to be ready; it gives up by itself before.
const READY: Duration = Duration::from_secs(90);
/// How long it may take to drain all nodes; it kills them itself before.
const DRAIN: Duration = Duration::from_secs(30);
/// How many of its last lines on stderr are kept, for when it fails.
const COMPLAINTS: usize = 20;
/// The type of a file system in memory, as `statfs` tells it.
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

/// Where the program is and where the data goes.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Local {
    /// The `wardlock` program. [default: beside this program, else the one on PATH]
    #[arg(long, env = "WARDLOCK_BIN", value_name = "PATH")]
    pub(crate) wardlock: Option<PathBuf>,
    /// Where clusters keep their data, each in a directory of its own that is removed at its end.
    /// [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// A running cluster.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// `wardlock dev`, unless the cluster was laid out here.
    dev: Option<Child>,
    server: String,
    /// Where `wardlock dev` answers DNS.
    dns: Option<SocketAddr>,
    nodes: BTreeMap<u32, Node>,
    complaints: Arc<Mutex<VecDeque<String>>>,
    net: Option<Net>,
    disks: Option<Disks>,
    /// Removed when dropped: the last field, after all who write there.
    data: tempfile::TempDir,
}

impl Cluster {
    /// Starts one and waits until every shard has a leader.
    ///
    /// # Errors
    /// Where there is no program, it cannot be started, or it does not get ready; with what it said.
    pub(crate) async fn start(local: &Local, nodes: u32, shards: u32) -> anyhow::Result<Cluster> {
        let program = program::find(local.wardlock.as_deref())?;
        if std::io::stderr().is_terminal() {
            eprintln!("starting {nodes} nodes with {shards} shards: {}", program.display());
        }
        let data = room(local.data_dir.as_deref())?;
        let mut command = Command::new(&program);
        command.args(["dev", "--processes", "--exit-with-stdin", "--http", "127.0.0.1:0"]);
        command.args(["--dns-listen", "127.0.0.1:0"]);
        command.args(["--nodes", &nodes.to_string(), "--shards", &shards.to_string()]);
        command.arg("--data-dir").arg(data.path());
        node::without_settings(&mut command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut dev = command
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| anyhow!("{} cannot be started: {e}", program.display()))?;
        let complaints = Arc::default();
        if let Some(stderr) = dev.stderr.take() {
            tokio::spawn(keep_last(stderr, Arc::clone(&complaints)));
        }
        let mut lines = BufReader::new(dev.stdout.take().context("its output is not to be had")?).lines();
        let mut cluster = Cluster {
            dev: Some(dev),
            server: String::new(),
            dns: None,
            nodes: BTreeMap::new(),
            complaints,
            net: None,
            disks: None,
            data,
        };
        match cluster.get_ready(&mut lines, nodes).await {
            Ok(()) => {
                cluster.remark();
                // Whatever else it says is read, so that it never waits to say it.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                Ok(cluster)
            }
            Err(error) => Err(cluster.stillborn(error).await),
        }
    }

    /// Ends it and says where the nodes' logs are, which say more.
    async fn stillborn(mut self, error: anyhow::Error) -> anyhow::Error {
        let logs = self.keep_data();
        self.end().await;
        anyhow!("the cluster did not start: {error}\nits logs are in {logs}")
    }

    /// Leaves the data where it is at the end, and says where that is.
    pub(crate) fn keep_data(&mut self) -> String {
        self.data.disable_cleanup(true);
        self.data.path().display().to_string()
    }

    async fn get_ready(&mut self, lines: &mut Lines<BufReader<ChildStdout>>, nodes: u32) -> anyhow::Result<()> {
        let until = Instant::now() + READY;
        while self.server.is_empty() || self.nodes.len() < nodes as usize {
            let line = match timeout_at(until, lines.next_line()).await {
                Ok(line) => line?,
                Err(_) => bail!("it was not ready within {} s", READY.as_secs()),
            };
            let Some(line) = line else {
                let Some(dev) = &mut self.dev else { bail!("it was never started") };
                let how = timeout_at(until, dev.wait()).await.map_err(|_| anyhow!("it fell silent"))??;
                // What it said last may still be on its way.
                tokio::time::sleep(Duration::from_millis(50)).await;
                bail!("{} ({how})", self.last_words().unwrap_or_else(|| "it ended without a word".to_owned()));
            };
            match said::understand(&line) {
                Some(Said::Ready(server)) => self.server = server,
                Some(Said::Dns(at)) => self.dns = Some(at),
                Some(Said::Node { id, pid, command }) => {
                    let log = self.data.path().join(format!("node-{id}.log"));
                    self.nodes.insert(id, Node::of_another(id, pid, command, log));
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Says what keeps figures taken here from saying much about a disk, if anything does.
    fn remark(&self) {
        let place = self.data.path();
        if rustix::fs::statfs(place).is_ok_and(|place| place.f_type == TMPFS) {
            let place = place.display();
            eprintln!(
                "note: {place} is in memory, where fsync costs nothing; name a --data-dir on a disk for figures that hold"
            );
        }
    }

    /// Points a load at it.
    pub(crate) fn aim(&self, place: &mut Place) {
        place.target.clone_from(&self.server);
        place.certs = Some(self.data.path().join("certs"));
        if self.net.is_some() {
            // Those who listen where the nodes are reached are the proxies.
            place.server_pid = self.nodes.values().map(Node::pid).collect();
        }
    }

    /// Kills a node without warning, as the kernel would, and waits until it is gone.
    pub(crate) async fn kill(&mut self, node: u32) -> anyhow::Result<()> {
        let node = self.node(node)?;
        node.signal(Signal::KILL)?;
        node.gone().await
    }

    /// Stops a node where it stands.
    pub(crate) fn pause(&mut self, node: u32) -> anyhow::Result<()> {
        self.node(node)?.signal(Signal::STOP)
    }

    /// Lets a paused node go on.
    pub(crate) fn resume(&mut self, node: u32) -> anyhow::Result<()> {
        self.node(node)?.signal(Signal::CONT)
    }

    /// Asks a node to drain and end, and waits until it has.
    pub(crate) async fn drain(&mut self, node: u32) -> anyhow::Result<()> {
        let node = self.node(node)?;
        node.signal(Signal::TERM)?;
        node.gone().await
    }

    /// Starts a node again that has ended. Returns before it is ready.
    pub(crate) fn restart(&mut self, node: u32) -> anyhow::Result<()> {
        self.node(node)?.restart()
    }

    /// The network between its nodes and to their clients, where it has one of its own.
    pub(crate) fn net(&self) -> anyhow::Result<&Net> {
        self.net.as_ref().context("the cluster has no network of its own")
    }

    /// Where it answers DNS.
    pub(crate) fn dns(&self) -> anyhow::Result<SocketAddr> {
        self.dns.context("the cluster answers no DNS")
    }

    fn node(&mut self, id: u32) -> anyhow::Result<&mut Node> {
        self.nodes.get_mut(&id).with_context(|| format!("the cluster has no node {id}"))
    }

    /// A node's process.
    pub(crate) fn pid(&self, node: u32) -> Option<u32> {
        self.nodes.get(&node).map(Node::pid)
    }

    /// Where a node keeps its data.
    pub(crate) fn data_of(&self, node: u32) -> PathBuf {
        self.data.path().join(format!("node-{node}"))
    }

    /// What has ended that should run, if anything: figures taken since mean nothing.
    pub(crate) fn ailing(&mut self) -> Option<String> {
        if let Some(Ok(Some(how))) = self.dev.as_mut().map(Child::try_wait) {
            return Some(format!("the cluster has ended ({how}): {}", self.last_words().unwrap_or_default()));
        }
        let dead: Vec<String> =
            self.nodes.values().filter(|node| !node::runs(node.pid())).map(|node| node.to_string()).collect();
        (!dead.is_empty()).then(|| format!("{} ended by itself", dead.join(" and ")))
    }

    fn last_words(&self) -> Option<String> {
        let complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        (!complaints.is_empty()).then(|| complaints.iter().cloned().collect::<Vec<_>>().join("\n"))
    }

    /// Ends it (promise 2); on another signal, at once. Says on stderr what had to be killed.
    pub(crate) async fn end(mut self) {
        for node in self.nodes.values_mut() {
            node.ask_to_end();
        }
        if let Some(pid) = self.dev.as_ref().and_then(Child::id).and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
        {
            // It may have ended just now, which is all that is wanted.
            let _ = kill_process(pid, Signal::TERM);
        }
        let drained = tokio::select! {
            drained = timeout(DRAIN, self.drained()) => drained.is_ok(),
            Ok(_) = interrupt::signalled() => false,
        };
        if !drained {
            let named: Vec<String> =
                self.nodes.values().filter(|node| node::runs(node.pid())).map(Node::to_string).collect();
            eprintln!("wardlock-loadtest: killed without draining: {}", named.join(", "));
            // With it the pipes of its nodes end, and with those the nodes.
            if let Some(dev) = &mut self.dev {
                let _ = dev.kill().await;
            }
            for node in self.nodes.values_mut() {
                node.kill_for_good().await;
            }
        }
    }

    async fn drained(&mut self) {
        // What cannot be waited for is not there any more.
        if let Some(dev) = &mut self.dev {
            let _ = dev.wait().await;
        }
        for node in self.nodes.values_mut() {
            node.ended().await;
        }
    }
}

/// A fresh directory, in `parent` where that is given.
fn room(parent: Option<&Path>) -> anyhow::Result<tempfile::TempDir> {
    let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
    let made = std::fs::create_dir_all(&parent)
        .and_then(|()| tempfile::Builder::new().prefix("wardlock-loadtest-").tempdir_in(&parent));
    made.map_err(|e| anyhow!("{} cannot be used for data: {e}; name another --data-dir", parent.display()))
}

/// Reads to the end and keeps the last few lines.
async fn keep_last(from: impl AsyncRead + Unpin, kept: Arc<Mutex<VecDeque<String>>>) {
    let mut lines = BufReader::new(from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == COMPLAINTS {
            kept.pop_front();
        }
        kept.push_back(line);
    }
}
