//! The static list of a cluster's nodes.

use std::{collections::BTreeMap, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize};
use wardlock_placement::NodeId;

/// Every node of the cluster with its `host:port` for QUIC. In the file a table, `1 = "host:port"`; as
/// a flag or in the environment `1=host:port,2=host:port`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Peers(pub BTreeMap<NodeId, String>);

impl FromStr for Peers {
    type Err = String;

    fn from_str(text: &str) -> Result<Peers, String> {
        let mut peers = BTreeMap::new();
        for part in text.split(',').map(str::trim) {
            let (node, address) = part.split_once('=').ok_or_else(|| format!("{part:?} is not NODE=HOST:PORT"))?;
            insert(&mut peers, node.trim(), address.trim())?;
        }
        Ok(Peers(peers))
    }
}

impl<'de> Deserialize<'de> for Peers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Peers, D::Error> {
        // Keys of a table are texts, in TOML as in JSON.
        let table = BTreeMap::<String, String>::deserialize(from)?;
        let mut peers = BTreeMap::new();
        for (node, address) in &table {
            insert(&mut peers, node, address).map_err(serde::de::Error::custom)?;
        }
        Ok(Peers(peers))
    }
}

fn insert(peers: &mut BTreeMap<NodeId, String>, node: &str, address: &str) -> Result<(), String> {
    let id: NodeId = node.parse().map_err(|_| format!("peers: {node:?} is not a node's number"))?;
    if peers.insert(id, address.to_owned()).is_some() {
        return Err(format!("peers: node {id} is there twice"));
    }
    Ok(())
}

/// Splits `host:port`, where the host is a name, an IPv4 address or an IPv6 address in brackets.
///
/// # Errors
/// What is wrong with the text.
pub fn split_host_port(text: &str) -> Result<(&str, u16), String> {
    let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("{text:?} is not HOST:PORT"))?;
    let port: u16 = port.parse().map_err(|_| format!("{port:?} in {text:?} is not a port"))?;
    let bracketed = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
    if host.is_empty() || (host.contains(':') && !bracketed) || host.contains(['/', ' ', '@']) {
        return Err(format!("{host:?} in {text:?} is not a host (an IPv6 address goes in brackets)"));
    }
    if port == 0 {
        return Err(format!("{text:?} has port 0, which nobody can reach"));
    }
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_and_a_wrong_one_says_what_is_wrong() {
        let peers: Peers = "1=a:7401, 2=[::1]:7402".parse().unwrap();
        assert_eq!(peers.0[&NodeId(2)], "[::1]:7402");
        assert!("1".parse::<Peers>().unwrap_err().contains("NODE=HOST:PORT"));
        assert!("x=a:1".parse::<Peers>().unwrap_err().contains("\"x\""));
        assert!("1=a:1,1=b:1".parse::<Peers>().unwrap_err().contains("twice"));
    }

    #[test]
    fn only_addresses_that_can_be_reached_pass() {
        assert_eq!(split_host_port("wl1.example.net:7401"), Ok(("wl1.example.net", 7401)));
        assert_eq!(split_host_port("[::1]:1"), Ok(("[::1]", 1)));
        for wrong in ["host", "host:", ":1", "::1:7401", "host:0", "host:70000", "http://h:1", "a b:1"] {
            assert!(split_host_port(wrong).is_err(), "{wrong}");
        }
    }
}
