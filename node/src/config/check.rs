//! From what people wrote to what can be relied on.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use wardlock_placement::NodeId;
use wardlock_router::{split_host_port, tls::Identity};

use super::{Disk, Error, Fields, Settings, Timing};
use crate::{cli::failure::chain, dns};

/// The most shards a cluster can be founded with: each is a Raft group on several nodes.
const SHARDS_MAX: u32 = 1024;
/// The most replicas of a shard. More only make each commit wait for more disks.
const REPLICAS_MAX: u8 = 7;
/// The longest cluster or domain name, in bytes.
const NAME_MAX: usize = 64;
/// The longest of Raft's times.
const TIMING_MAX_MS: u64 = 60_000;
const MIB: u64 = 1 << 20;

impl Fields {
    /// Checks every field and every relation, then loads the certificates.
    ///
    /// # Errors
    /// [`Error::Field`], for the first field that is wrong.
    pub fn check(self) -> Result<Settings, Error> {
        let fields = self.effective();
        let cluster = name("cluster", required("cluster", fields.cluster)?)?;
        let node = NodeId(required("node", fields.node)?);
        let data_dir = required("data_dir", fields.data_dir)?;
        if node.0 == 0 {
            return wrong("node", "nodes are numbered from 1");
        }
        let peers = check_peers(required("peers", fields.peers)?.0)?;
        let Some(listed) = peers.get(&node) else {
            let all = peers.keys().map(NodeId::to_string).collect::<Vec<_>>().join(", ");
            return wrong("peers", format!("this node, {node}, is not among them ({all})"));
        };
        let listen_quic = required("listen_quic", fields.listen_quic)?;
        if listen_quic.port() == 0 {
            return wrong("listen_quic", "port 0 would change at every start");
        }
        let advertise_quic = required("advertise_quic", fields.advertise_quic)?;
        if advertise_quic != *listed {
            return wrong("advertise_quic", format!("{advertise_quic} is not what peers says of this node: {listed}"));
        }
        let advertise_http = check_http(fields.listen_http, fields.advertise_http)?;

        let shards = required("shards", fields.shards)?;
        if !(1..=SHARDS_MAX).contains(&shards) {
            return wrong("shards", format!("{shards} is not from 1 to {SHARDS_MAX}"));
        }
        let replicas = required("replicas", fields.replicas)?;
        if !(1..=REPLICAS_MAX).contains(&replicas) {
            return wrong("replicas", format!("{replicas} is not from 1 to {REPLICAS_MAX}"));
        }
        if usize::from(replicas) > peers.len() {
            return wrong("replicas", format!("{replicas} replicas need as many peers, and there are {}", peers.len()));
        }
        let domain = fields.domain.map(|domain| name("domain", domain)).transpose()?;
        let timing = check_timing(
            required("heartbeat_ms", fields.heartbeat_ms)?,
            required("election_min_ms", fields.election_min_ms)?,
            required("election_max_ms", fields.election_max_ms)?,
        )?;
        let disk = check_disk(
            required("disk_low_mark_mib", fields.disk_low_mark_mib)?,
            required("disk_reserve_mib", fields.disk_reserve_mib)?,
        )?;

        let (zone, ttl) = (required("dns_zone", fields.dns_zone)?, required("dns_ttl", fields.dns_ttl)?);
        let dns = check_dns(fields.dns_listen, &zone, ttl, fields.dns_beyond_loopback.unwrap_or(false))?;

        let certs = required("certs", fields.certs)?;
        let identity = load(&certs, node)?;
        let http_identity = fields.listen_http.filter(|at| !at.ip().is_loopback()).map(|_| identity.clone());
        Ok(Settings {
            cluster,
            node,
            data_dir,
            listen_quic,
            advertise_quic,
            listen_http: fields.listen_http,
            advertise_http,
            peers,
            shards,
            replicas,
            identity,
            http_identity,
            domain,
            timing,
            disk,
            certs_hint: fields.certs_hint,
            dns,
        })
    }
}

/// The node's identity, which must be this node's: a copy of another's certificates is refused here, not
/// by every peer.
fn load(certs: &Path, node: NodeId) -> Result<Identity, Error> {
    let identity = match Identity::from_dir(certs, &format!("node-{node}")) {
        Ok(identity) => identity,
        Err(error) => return wrong("certs", chain(&error)),
    };
    match identity.node() {
        Some(named) if named == node => Ok(identity),
        Some(named) => wrong("certs", format!("the certificate for node {node} names node {named}")),
        None => wrong("certs", format!("the certificate for node {node} names no node")),
    }
}

fn wrong<T>(field: &'static str, why: impl Into<String>) -> Result<T, Error> {
    Err(Error::Field { field, why: why.into() })
}

fn required<T>(field: &'static str, value: Option<T>) -> Result<T, Error> {
    value.ok_or_else(|| Error::Field { field, why: "must be given".to_owned() })
}

fn name(field: &'static str, text: String) -> Result<String, Error> {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if text.is_empty() || text.len() > NAME_MAX || !plain {
        return wrong(field, format!("{text:?} is not 1 to {NAME_MAX} letters, digits, '-', '_' or '.'"));
    }
    Ok(text)
}

fn check_peers(peers: BTreeMap<NodeId, String>) -> Result<BTreeMap<NodeId, String>, Error> {
    let mut seen = BTreeSet::new();
    for (node, address) in &peers {
        if node.0 == 0 {
            return wrong("peers", "nodes are numbered from 1");
        }
        if let Err(why) = split_host_port(address) {
            return wrong("peers", format!("node {node}: {why}"));
        }
        if !seen.insert(address) {
            return wrong("peers", format!("{address} is there twice"));
        }
    }
    Ok(peers)
}

fn check_http(listen: Option<SocketAddr>, advertise: Option<String>) -> Result<Option<String>, Error> {
    match (listen, advertise) {
        (None, Some(_)) => wrong("advertise_http", "there is no gateway without listen_http"),
        (Some(at), None) => wrong("advertise_http", format!("must be given: others cannot reach {at} by that address")),
        (Some(_), Some(advertise)) => match split_host_port(&advertise) {
            Ok(_) => Ok(Some(advertise)),
            Err(why) => wrong("advertise_http", why),
        },
        (None, None) => Ok(None),
    }
}

/// The zone and the TTL are checked where nothing listens, too: a mistake in them must not show later.
fn check_dns(
    listen: Option<SocketAddr>,
    zone: &str,
    ttl: u32,
    beyond_loopback: bool,
) -> Result<Option<dns::Settings>, Error> {
    let at = listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)));
    match dns::Settings::new(at, zone, ttl, beyond_loopback) {
        Ok(settings) => Ok(listen.map(|_| settings)),
        Err(why) => wrong(why.field(), why.to_string()),
    }
}

fn check_timing(heartbeat: u64, election_min: u64, election_max: u64) -> Result<Timing, Error> {
    if heartbeat == 0 {
        return wrong("heartbeat_ms", "must be at least 1");
    }
    if election_max > TIMING_MAX_MS {
        return wrong("election_max_ms", format!("{election_max} is more than {TIMING_MAX_MS}"));
    }
    if election_min >= election_max {
        return wrong(
            "election_min_ms",
            format!("{election_min} must be less than election_max_ms, which is {election_max}"),
        );
    }
    if heartbeat >= election_min {
        return wrong(
            "heartbeat_ms",
            format!("{heartbeat} must be less than election_min_ms, which is {election_min}"),
        );
    }
    if heartbeat * 5 >= (election_min + election_max) * 2 {
        return wrong(
            "heartbeat_ms",
            format!(
                "{heartbeat} × 2.5 must be less than election_min_ms + election_max_ms = {}",
                election_min + election_max
            ),
        );
    }
    Ok(Timing {
        heartbeat: Duration::from_millis(heartbeat),
        election_min: Duration::from_millis(election_min),
        election_max: Duration::from_millis(election_max),
    })
}

fn check_disk(low_mark_mib: u64, reserve_mib: u64) -> Result<Disk, Error> {
    let bytes = |field, mib: u64| {
        mib.checked_mul(MIB).ok_or_else(|| Error::Field { field, why: format!("{mib} MiB is more than there can be") })
    };
    let disk = Disk {
        low_mark_bytes: bytes("disk_low_mark_mib", low_mark_mib)?,
        reserve_bytes: bytes("disk_reserve_mib", reserve_mib)?,
    };
    if disk.reserve_bytes >= disk.low_mark_bytes {
        return wrong(
            "disk_reserve_mib",
            format!("{reserve_mib} must be less than disk_low_mark_mib, which is {low_mark_mib}"),
        );
    }
    Ok(disk)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn good() -> Fields {
        Fields {
            node: Some(1),
            data_dir: Some(PathBuf::from("data")),
            peers: "1=a:7401,2=b:7401,3=c:7401".parse().ok(),
            certs: Some(PathBuf::from("no-such-directory")),
            ..Fields::defaults()
        }
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Fields)) -> (&'static str, String) {
        let mut fields = good();
        change(&mut fields);
        match fields.check() {
            Err(Error::Field { field, why }) => (field, why),
            other => panic!("not refused by a field: {other:?}"),
        }
    }

    /// Each wrong value is refused by the name of its own field.
    #[test]
    fn wrong_values_name_their_field() {
        type Change = fn(&mut Fields);
        let cases: [(&str, Change); 25] = [
            ("certs", |_| ()),
            ("certs", |f| f.certs = None),
            ("cluster", |f| f.cluster = Some("two words".to_owned())),
            ("node", |f| f.node = None),
            ("node", |f| f.node = Some(0)),
            ("peers", |f| f.node = Some(4)),
            ("peers", |f| f.peers = None),
            ("peers", |f| f.peers = "1=a:7401,2=a:7401".parse().ok()),
            ("peers", |f| f.peers = "1=a".parse().ok()),
            ("data_dir", |f| f.data_dir = None),
            ("listen_quic", |f| f.listen_quic = Some(SocketAddr::from(([0, 0, 0, 0], 0)))),
            ("advertise_quic", |f| f.advertise_quic = Some("b:7401".to_owned())),
            ("advertise_http", |f| f.advertise_http = Some("a:7400".to_owned())),
            ("advertise_http", |f| f.listen_http = Some(SocketAddr::from(([0, 0, 0, 0], 7400)))),
            ("shards", |f| f.shards = Some(0)),
            ("replicas", |f| f.replicas = Some(4)),
            ("replicas", |f| f.replicas = Some(0)),
            ("domain", |f| f.domain = Some(String::new())),
            ("heartbeat_ms", |f| f.heartbeat_ms = Some(0)),
            ("heartbeat_ms", |f| f.heartbeat_ms = Some(1000)),
            ("election_min_ms", |f| f.election_min_ms = Some(2000)),
            ("disk_reserve_mib", |f| f.disk_reserve_mib = Some(512)),
            ("dns_listen", |f| f.dns_listen = Some(SocketAddr::from(([0, 0, 0, 0], 53)))),
            ("dns_zone", |f| f.dns_zone = Some("two words".to_owned())),
            ("dns_ttl", |f| f.dns_ttl = Some(2)),
        ];
        for (number, (field, change)) in cases.into_iter().enumerate() {
            assert_eq!(refused(change).0, field, "case {number}");
        }
    }

    #[test]
    fn the_heartbeat_leaves_room_for_an_election() {
        let at = |heartbeat| check_timing(heartbeat, 500, 600);
        assert!(at(439).is_ok(), "439 × 2.5 < 1100");
        let Err(Error::Field { field, why }) = at(440) else { panic!("440 × 2.5 = 1100") };
        assert_eq!(field, "heartbeat_ms");
        assert!(why.contains("1100"), "{why}");
    }

    #[test]
    fn replicas_follow_the_peers_where_nothing_is_said() {
        let mut fields = good();
        assert_eq!(fields.clone().effective().replicas, Some(3));
        fields.peers = "1=a:7401".parse().ok();
        assert_eq!(fields.effective().replicas, Some(1));
    }
}
