//! A cluster whose nodes are apart: each reaches the others, and its clients reach it, through [`Net`] alone.
//!
//! What `wardlock dev` does is done here by the same commands that an operator would give: certificates, a
//! configuration file for each node that names the proxies as its peers, and a process for each.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex},
};

use anyhow::{Context, bail};
use tokio::{
    process::Command,
    time::{Instant, sleep},
};
use wardlock_router::Client;

use super::{
    Cluster, Local, READY, clocks,
    disks::Disks,
    health,
    net::Net,
    node::{self, Node},
    program, room,
};
use crate::workload::Dice;

/// What every node is called after.
const CLUSTER: &str = "chaos";
/// Below so much room a node takes no new grants, MiB.
const LOW_MARK_MIB: u32 = 64;

/// What each node is to have of its own, beside its ways to the others.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Own {
    pub(crate) disks: bool,
    pub(crate) clocks: bool,
}

/// Why it has not, where this machine does not allow it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Without {
    pub(crate) disks: Option<String>,
    pub(crate) clocks: Option<String>,
}

impl Cluster {
    /// Starts one behind a network of its own and, where the machine allows it, with what else is asked for. Waits
    /// until it is well. Beside it, what is not allowed.
    ///
    /// # Errors
    /// Where there is no program, it cannot be started, or the cluster does not get well.
    pub(crate) async fn start_apart(
        local: &Local,
        nodes: u32,
        shards: u32,
        own: Own,
        seed: u64,
    ) -> anyhow::Result<(Cluster, Without)> {
        let program = program::find(local.wardlock.as_deref())?;
        let data = room(local.data_dir.as_deref())?;
        let listen = ports(nodes)?;
        let net = Net::start(&listen, seed)?;
        let dirs: BTreeMap<u32, _> =
            listen.keys().map(|node| (*node, data.path().join(format!("node-{node}")))).collect();
        let (disks, no_disks) = match own.disks.then(|| Disks::mount(&dirs)) {
            Some(Ok(disks)) => (Some(disks), None),
            Some(Err(error)) => (None, Some(format!("{error:#}"))),
            None => (None, None),
        };
        let clocks = if own.clocks { clocks::available().map(|()| true) } else { Ok(false) };
        let without = Without { disks: no_disks, clocks: clocks.as_ref().err().map(|error| format!("{error:#}")) };
        let mut dice = Dice::new(seed);
        make_certificates(&program, data.path(), listen.keys()).await?;
        let mut all = BTreeMap::new();
        for (id, at) in &listen {
            let file = data.path().join(format!("node-{id}.toml"));
            std::fs::write(&file, configuration(data.path(), *id, *at, shards, net.public()))?;
            let command = format!("{} node --config {}", quoted(&program), quoted(&file));
            let mut node = Node::to_be_started(*id, command, data.path().join(format!("node-{id}.log")));
            if let Ok(true) = clocks {
                node.set_clock(clocks::some(&mut dice));
            }
            all.insert(*id, node);
        }
        let server = net.public().values().map(SocketAddr::to_string).collect::<Vec<_>>().join(",");
        let complaints: Arc<Mutex<VecDeque<String>>> = Arc::default();
        let mut cluster = Cluster { dev: None, server, dns: None, nodes: all, complaints, net: Some(net), disks, data };
        match cluster.begin(shards).await {
            Ok(()) => {
                cluster.remark();
                Ok((cluster, without))
            }
            Err(error) => Err(cluster.stillborn(error).await),
        }
    }

    async fn begin(&mut self, shards: u32) -> anyhow::Result<()> {
        self.nodes.values_mut().try_for_each(Node::restart)?;
        let until = Instant::now() + READY;
        let client = loop {
            let why = match self.client().await {
                // What was founded just now has no shards yet.
                Ok(client) if client.map().shards().count() == shards as usize => break client,
                Ok(_) => "not every shard was created".to_owned(),
                Err(error) => error.to_string(),
            };
            if let Some(ailing) = self.ailing() {
                bail!("{ailing}");
            }
            if Instant::now() >= until {
                bail!("{why}");
            }
            sleep(health::LOOK).await;
        };
        health::well(&client, until.saturating_duration_since(Instant::now())).await?;
        Ok(())
    }

    /// A client of it.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::at(&self.server, Some(&self.certs())).await?)
    }

    /// Where everybody reaches its nodes: `HOST:PORT,…`.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// The directory of its certificates.
    pub(crate) fn certs(&self) -> std::path::PathBuf {
        self.data.path().join("certs")
    }

    /// Gives a node other clocks from its next start on.
    pub(crate) fn change_clock(&mut self, node: u32, dice: &mut Dice) -> anyhow::Result<()> {
        self.node(node)?.set_clock(clocks::some(dice));
        Ok(())
    }

    fn disks(&self) -> anyhow::Result<&Disks> {
        self.disks.as_ref().context("there are no disks")
    }

    /// Takes nearly all room on a node's disk.
    pub(crate) fn fill_disk(&self, node: u32) -> anyhow::Result<()> {
        self.disks()?.fill(node)
    }

    /// Gives it back.
    pub(crate) fn empty_disk(&self, node: u32) -> anyhow::Result<()> {
        self.disks()?.empty(node)
    }

    /// The disk of a node that does not run loses everything that was not synced.
    pub(crate) fn cut_power(&self, node: u32) -> anyhow::Result<()> {
        self.disks()?.cut_power(node)
    }

    /// Lets a node's disk write only now and then, for so long.
    pub(crate) async fn slow_disk(
        &self,
        node: u32,
        length: std::time::Duration,
        dice: &mut Dice,
    ) -> anyhow::Result<()> {
        self.disks()?.slow(node, length, dice).await
    }
}

/// Free ports of loopback, held together so that none is found twice, and freed together for the nodes to take.
fn ports(nodes: u32) -> anyhow::Result<BTreeMap<u32, SocketAddr>> {
    let mut held = Vec::new();
    let mut listen = BTreeMap::new();
    for node in 1..=nodes {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("there is no free port")?;
        listen.insert(node, socket.local_addr()?);
        held.push(socket);
    }
    Ok(listen)
}

async fn make_certificates(program: &Path, dir: &Path, nodes: impl Iterator<Item = &u32>) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    command.arg("certs").arg("--dir").arg(dir.join("certs")).arg("--client");
    for node in nodes {
        command.arg("--node").arg(format!("{node}=localhost,127.0.0.1"));
    }
    node::without_settings(&mut command);
    let output = command.output().await.with_context(|| format!("{} cannot be run", program.display()))?;
    if !output.status.success() {
        bail!("no certificates: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// A node's file. A path of the system's directory for such things has nothing in it that TOML would not take.
fn configuration(dir: &Path, id: u32, listen: SocketAddr, shards: u32, peers: &BTreeMap<u32, SocketAddr>) -> String {
    let path = |name: &str| format!("{:?}", dir.join(name).display().to_string());
    let mut text = format!(
        "cluster = {CLUSTER:?}\nnode = {id}\ndata_dir = {}\nlisten_quic = \"{listen}\"\nshards = {shards}\n\
         certs = {}\ndisk_low_mark_mib = {LOW_MARK_MIB}\ndisk_reserve_mib = 8\n\n[peers]\n",
        path(&format!("node-{id}")),
        path("certs"),
    );
    for (peer, at) in peers {
        let _ = writeln!(text, "{peer} = \"{at}\"");
    }
    text
}

/// For a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_file_names_the_proxies_and_where_it_listens_itself() {
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let text = configuration(Path::new("/d"), 2, at(9), 8, &[(1, at(71)), (2, at(72))].into());
        assert!(text.contains("listen_quic = \"127.0.0.1:9\"") && text.contains("2 = \"127.0.0.1:72\""), "{text}");
        assert!(text.contains("data_dir = \"/d/node-2\""), "{text}");
    }

    #[test]
    fn a_path_with_odd_letters_stays_one_word() {
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
