//! The names in certificates, and what they say.

use wardlock_placement::NodeId;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The subject alternative name of those who are no nodes.
pub const CLIENT_NAME: &str = "client.wardlock";

/// The name to dial where any node will do. No certificate has it.
pub const SEED_NAME: &str = "seed.wardlock";

const PREFIX: &str = "node-";
const SUFFIX: &str = ".wardlock";

/// The subject alternative name of a node.
pub fn node_name(node: NodeId) -> String {
    format!("{PREFIX}{node}{SUFFIX}")
}

/// Why a certificate does not say who its holder is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It cannot be parsed.
    #[error("a certificate is malformed: {0}")]
    Malformed(String),
    /// It names two nodes.
    #[error("a certificate names both node {0} and node {1}")]
    Ambiguous(NodeId, NodeId),
}

/// The node that a certificate is for; `None` where it is a client's. Says nothing about who signed it:
/// ask only of certificates that the handshake has verified.
pub fn peer_node(certificate: &[u8]) -> Result<Option<NodeId>, NameError> {
    let certificate = parse(certificate)?;
    let names = certificate.subject_alternative_name().map_err(|error| NameError::Malformed(error.to_string()))?;
    let Some(names) = names else {
        return Ok(None);
    };
    let mut found = None;
    for name in &names.value.general_names {
        let GeneralName::DNSName(name) = name else { continue };
        match (found, parse_node(name)) {
            (Some(first), Some(second)) if first != second => return Err(NameError::Ambiguous(first, second)),
            (_, Some(node)) => found = Some(node),
            (_, None) => {}
        }
    }
    Ok(found)
}

/// When it expires, in seconds since the Unix epoch.
pub(super) fn expiry(certificate: &[u8]) -> Result<i64, NameError> {
    Ok(parse(certificate)?.validity().not_after.timestamp())
}

fn parse(certificate: &[u8]) -> Result<X509Certificate<'_>, NameError> {
    match X509Certificate::from_der(certificate) {
        Ok((_, certificate)) => Ok(certificate),
        Err(error) => Err(NameError::Malformed(error.to_string())),
    }
}

/// Only the form that [`node_name`] writes: two texts for one node would be two names to compare.
fn parse_node(name: &str) -> Option<NodeId> {
    let node = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()?;
    (node_name(node) == name || wardlock_machine::planted!("node-name-loose")).then_some(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed_for(names: &[&str]) -> Vec<u8> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        rcgen::generate_simple_self_signed(names).unwrap().cert.der().to_vec()
    }

    #[test]
    fn a_node_is_named_by_one_name_only() {
        assert_eq!(peer_node(&signed_for(&["localhost", "node-7.wardlock"])), Ok(Some(NodeId(7))));
        assert_eq!(peer_node(&signed_for(&["client.wardlock", "127.0.0.1"])), Ok(None));
        assert_eq!(
            peer_node(&signed_for(&["node-1.wardlock", "node-2.wardlock"])),
            Err(NameError::Ambiguous(NodeId(1), NodeId(2)))
        );
        for odd in
            ["node-007.wardlock", "node-+7.wardlock", "node-7.wardlock.evil", "x.node-7.wardlock", "node-.wardlock"]
        {
            assert_eq!(parse_node(odd), None, "{odd}");
        }
        assert!(peer_node(b"garbage").is_err());
    }
}
