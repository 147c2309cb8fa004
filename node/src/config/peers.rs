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
    if peers.insert(id, address.to_owned()).is_some() && !wardlock_machine::planted!("peer-listed-twice") {
        return Err(format!("peers: node {id} is there twice"));
    }
    Ok(())
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
}
