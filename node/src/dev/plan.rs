//! Who listens where and keeps what: a cluster on loopback, laid out before anything starts.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
};

use wardlock_placement::NodeId;

use crate::{
    cli::failure::{Failure, chain},
    config::{self, Fields, Peers},
    disk::identity::DataDir,
};

/// The cluster's name.
pub const CLUSTER: &str = "dev";

/// The layout of the cluster.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where everything is kept, as an absolute path.
    pub dir: PathBuf,
    /// Its nodes, in the order of their numbers.
    pub nodes: Vec<PlannedNode>,
}

/// One node of it.
#[derive(Clone, Debug)]
pub struct PlannedNode {
    /// Its number.
    pub id: NodeId,
    /// Where it listens.
    pub quic: SocketAddr,
    /// Its whole configuration.
    pub fields: Fields,
}

impl Plan {
    /// Lays out a cluster of one node for each address.
    pub fn new(dir: &Path, quic: &[SocketAddr], shards: u32) -> Plan {
        let numbered = || (1..).map(NodeId).zip(quic);
        let peers = Peers(numbered().map(|(id, at)| (id, at.to_string())).collect());
        let certs = dir.join("certs");
        let node = |(id, quic): (NodeId, &SocketAddr)| PlannedNode {
            id,
            quic: *quic,
            fields: Fields {
                cluster: Some(CLUSTER.to_owned()),
                node: Some(id.0),
                data_dir: Some(data(dir, id)),
                listen_quic: Some(*quic),
                peers: Some(peers.clone()),
                shards: Some(shards),
                certs: Some(certs.clone()),
                certs_hint: Some(certs.clone()),
                // A laptop's disk is often fuller than a server's may get.
                disk_low_mark_mib: Some(64),
                disk_reserve_mib: Some(8),
                ..Fields::default()
            },
        };
        Plan { dir: dir.to_owned(), nodes: numbered().map(node).collect() }
    }

    /// Where the certificates are.
    pub fn certs(&self) -> PathBuf {
        self.dir.join("certs")
    }

    /// The configuration file of a node.
    pub fn file(&self, node: NodeId) -> PathBuf {
        self.dir.join(format!("node-{node}.toml"))
    }

    /// Writes each node's configuration, after a look at what an earlier start left: a cluster keeps the
    /// number of nodes and shards that it was founded with, and the files of one that runs are its own.
    ///
    /// # Errors
    /// Where the directory is another cluster's, in use, or cannot be written.
    pub fn write(&self) -> Result<(), Failure> {
        if let Some(node) = self.nodes.first() {
            let file = self.file(node.id);
            if file.exists() {
                let before = config::layer(Some(&file), &Fields::default()).map_err(|e| Failure::error(chain(&e)))?;
                founded_alike(&before, &node.fields).map_err(|what| {
                    Failure::usage(format!("{}: {what}; take another --data-dir", self.dir.display()))
                })?;
            }
        }
        let claim = |node: &PlannedNode| DataDir::claim(&data(&self.dir, node.id), CLUSTER, node.id);
        // All are held together while the files change, and freed together for the nodes to take.
        let _held: Vec<DataDir> =
            self.nodes.iter().map(claim).collect::<Result<_, _>>().map_err(|e| Failure::error(chain(&e)))?;
        for node in &self.nodes {
            let file = self.file(node.id);
            std::fs::write(&file, node.fields.to_toml())
                .map_err(|e| Failure::error(format!("cannot write {}: {e}", file.display())))?;
        }
        Ok(())
    }
}

/// Where a node keeps its data.
fn data(dir: &Path, node: NodeId) -> PathBuf {
    dir.join(format!("node-{node}"))
}

fn founded_alike(before: &Fields, now: &Fields) -> Result<(), String> {
    let nodes = |fields: &Fields| fields.peers.as_ref().map_or(0, |peers| peers.0.len());
    let shards = |fields: &Fields| fields.shards.unwrap_or_default();
    if nodes(before) != nodes(now) {
        return Err(format!("its cluster has {} nodes, not {}", nodes(before), nodes(now)));
    }
    if shards(before) != shards(now) {
        return Err(format!("its cluster has {} shards, not {}", shards(before), shards(now)));
    }
    Ok(())
}

/// The nodes' QUIC addresses: the ports after the gateway's, or any free ones where that is 0.
///
/// # Errors
/// Where a port is taken, by its number, or there are not enough of them.
pub fn addresses(http: SocketAddr, nodes: u32) -> Result<Vec<SocketAddr>, Failure> {
    let wanted: Vec<SocketAddr> = if http.port() == 0 {
        vec![SocketAddr::new(http.ip(), 0); nodes as usize]
    } else {
        let port = |n: u32| u32::from(http.port()).checked_add(n).and_then(|port| u16::try_from(port).ok());
        let all: Option<Vec<u16>> = (1..=nodes).map(port).collect();
        let all =
            all.ok_or_else(|| Failure::usage(format!("--http: there are no {nodes} ports after {}", http.port())))?;
        all.into_iter().map(|port| SocketAddr::new(http.ip(), port)).collect()
    };
    // All are held together, so that no port is found twice, and freed together for the nodes to take.
    let held: Vec<UdpSocket> = wanted.into_iter().map(probe).collect::<Result<_, _>>()?;
    held.iter().map(UdpSocket::local_addr).collect::<Result<_, _>>().map_err(Failure::error)
}

fn probe(at: SocketAddr) -> Result<UdpSocket, Failure> {
    UdpSocket::bind(at).map_err(|e| {
        let ip: IpAddr = at.ip();
        Failure::error(format!(
            "UDP port {} on {ip} cannot be used: {e}; with --http PORT the nodes take the ports after it, with --http {ip}:0 any",
            at.port()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn each_node_has_a_directory_and_the_whole_list() {
        let plan = Plan::new(Path::new("/d"), &[loopback(7401), loopback(7402)], 4);
        assert_eq!(plan.nodes[1].id, NodeId(2));
        assert_eq!(plan.nodes[1].fields.data_dir.as_deref(), Some(Path::new("/d/node-2")));
        assert_eq!(plan.nodes[0].fields.peers, "1=127.0.0.1:7401,2=127.0.0.1:7402".parse().ok());
        assert_eq!(plan.file(NodeId(2)), Path::new("/d/node-2.toml"));
    }

    #[test]
    fn the_files_say_what_was_planned_and_keep_the_founding() {
        let dir = tempfile::tempdir().unwrap();
        let at = [loopback(7401), loopback(7402), loopback(7403)];
        let plan = Plan::new(dir.path(), &at, 4);
        plan.write().unwrap();
        let read = config::layer(Some(&plan.file(NodeId(3))), &Fields::default()).unwrap();
        assert_eq!(read.node, Some(3));
        assert_eq!(read.peers, plan.nodes[2].fields.peers);
        plan.write().unwrap();
        let error = Plan::new(dir.path(), &at, 8).write().unwrap_err();
        assert!(error.message.contains("4 shards, not 8"), "{error}");
        let error = Plan::new(dir.path(), &at[..1], 4).write().unwrap_err();
        assert!(error.message.contains("3 nodes, not 1"), "{error}");
    }

    #[test]
    fn a_taken_port_is_named() {
        let taken = UdpSocket::bind(loopback(0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = addresses(loopback(port - 1), 1).unwrap_err();
        assert!(error.message.contains(&format!("UDP port {port} ")), "{error}");
        assert!(addresses(loopback(u16::MAX), 1).is_err());
        let free = addresses(loopback(0), 3).unwrap();
        assert!(free.iter().all(|at| at.port() != 0) && free[0] != free[1] && free[1] != free[2]);
    }
}
