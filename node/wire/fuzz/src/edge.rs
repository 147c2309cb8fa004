//! What people and their files say: names, ids, addresses, the configuration, certificates.

use std::{path::PathBuf, str::FromStr, sync::LazyLock};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use wardlock::config::{self, Error, Fields, Peers};
use wardlock_machine::{Key, KeyTag, LockId, Name, SessionId, limits};
use wardlock_placement::{HashKey, NodeId, hash_name, hash_tag};
use wardlock_router::{
    split_host_port,
    tls::{ALPN, Identity, node_name, peer_node},
};

use crate::within;

/// Text as a name, an id, an address, a list of peers.
///
/// Bounds are kept; what was taken prints as it was written; the wire and JSON take the same names as people's
/// calls do; what is hashed of a name is a part of it, and its own tag.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let named = Name::new(text);
    assert_eq!(named.is_ok(), (1..=limits::NAME_BYTES).contains(&text.len()));
    let by_wire = postcard::to_stdvec(text).expect("a text encodes");
    assert_eq!(postcard::from_bytes::<Name>(&by_wire).ok(), named.clone().ok(), "the wire takes other names");
    let by_json = serde_json::to_vec(text).expect("a text encodes");
    assert_eq!(serde_json::from_slice::<Name>(&by_json).ok(), named.clone().ok(), "JSON takes other names");
    if let Ok(name) = named {
        let (lock, election) = (Key::lock(name.clone()), Key::election(name));
        assert_ne!(KeyTag::of(&lock), KeyTag::of(&election), "a lock and an election of one name");
    }
    let tag = hash_tag(text);
    assert!(text.contains(tag) && (tag.is_empty() == text.is_empty()), "{tag:?} is no tag of {text:?}");
    let hash = |name: &str| hash_name(&HashKey([3; 16]), name);
    // A whole name that is its own tag may have a brace that would end it.
    let shared = tag.is_empty() || tag.contains('}') || hash(&format!("{{{tag}}}x")) == hash(&format!("y{{{tag}}}"));
    assert!(shared, "one tag, two hashes");

    prints_as_written::<SessionId>(text);
    prints_as_written::<LockId>(text);
    if let Ok((host, port)) = split_host_port(text) {
        assert!(!host.is_empty() && port > 0);
        let again = format!("{host}:{port}");
        assert_eq!(split_host_port(&again), Ok((host, port)));
    }
    if let Ok(Peers(peers)) = text.parse::<Peers>() {
        assert_eq!(peers.len(), text.split(',').count(), "a node is there twice");
        let written: Vec<String> = peers.iter().map(|(node, address)| format!("{node}={address}")).collect();
        assert_eq!(written.join(",").parse(), Ok(Peers(peers)), "a list of peers reads differently");
    }
}

fn prints_as_written<T: FromStr + ToString>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string(), text, "two texts mean one id");
    }
}

/// A configuration file.
///
/// It is refused by the name of a field, or every relation between its values holds; and what was taken says
/// the same when it is written out and read again.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let flags = Fields::default();
    let layered =
        within(400 * data.len() + (2 << 20), "reading a configuration", || config::layer_text(Some(text), &flags));
    let Ok(mut fields) = layered else { return };
    let written = fields.to_toml();
    let again = config::layer_text(Some(&written), &flags);
    assert_eq!(again.as_ref().ok(), Some(&fields), "written out as {written:?}");

    // Certificates come last: who is refused for them has passed all else.
    fields.certs = Some(PathBuf::from("/there/are/no/certificates/here"));
    let effective = fields.clone().effective();
    match fields.check() {
        Err(Error::Field { field: "certs", .. }) => {}
        Err(Error::Field { field, why }) => {
            assert!(!field.is_empty() && !why.is_empty());
            return;
        }
        other => panic!("neither refused nor valid: {other:?}"),
    }
    let shape = "what was checked is there";
    let (beat, min, max) = (
        effective.heartbeat_ms.expect(shape),
        effective.election_min_ms.expect(shape),
        effective.election_max_ms.expect(shape),
    );
    assert!(0 < beat && beat < min && min < max && beat * 5 < (min + max) * 2, "{beat}, {min}, {max}");
    let Peers(peers) = effective.peers.expect(shape);
    let node = NodeId(effective.node.expect(shape));
    assert_eq!(peers.get(&node), effective.advertise_quic.as_ref());
    assert!(peers.values().all(|address| split_host_port(address).is_ok()));
    assert!((1..=peers.len()).contains(&effective.replicas.expect(shape).into()));
    assert!((1..=1024).contains(&effective.shards.expect(shape)));
}

static KEY: LazyLock<Vec<u8>> = LazyLock::new(|| rcgen::KeyPair::generate().expect("a key").serialize_der());

/// A certificate, DER or PEM.
///
/// It names one node, none, or is refused; the name of the node stands in it, word for word; an identity from it
/// makes a configuration or an error.
pub fn certificates(data: &[u8]) {
    let named = within(60 * data.len() + (1 << 20), "reading a certificate", || peer_node(data));
    if let Ok(Some(node)) = named {
        let name = node_name(node);
        let stands = data.windows(name.len()).any(|window| window == name.as_bytes());
        assert!(stands, "{name} is nowhere in the certificate");
    }
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(KEY.clone()));
    let certificate = CertificateDer::from(data.to_vec());
    if let Ok(identity) = Identity::from_der(vec![certificate.clone()], vec![certificate], key) {
        assert_eq!(identity.node(), named.expect("an identity is of a certificate that can be read"));
        let _ = identity.expires();
        let _ = identity.server_config(&[ALPN]);
        let _ = identity.client_config(&[ALPN]);
    }
    let _ = Identity::from_pem(data, data, data);
}
