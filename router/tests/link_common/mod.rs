//! What the tests of the link share: an authority, identities, services.

#![allow(dead_code, missing_docs, unreachable_pub)]

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use wardlock_placement::NodeId;
use wardlock_router::{
    link::{
        Peer, Replier, Service,
        quic::{Config, Endpoint},
    },
    tls::{Identity, node_name},
};
use wardlock_wire::{Body, Refusal, Response};

pub const CLUSTER: &str = "test";

pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn identity(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let own = params.signed_by(&key, &self.0).unwrap();
        Identity::from_der(vec![self.0.der().clone()], vec![own.into()], key.into()).unwrap()
    }

    pub fn node(&self, id: u32) -> Identity {
        self.identity(&node_name(NodeId(id)))
    }

    pub fn client(&self) -> Identity {
        self.identity("client.wardlock")
    }
}

/// Answers `Map` with nothing new, remembers who asked, never answers `Status`.
#[derive(Default)]
pub struct Echo {
    pub calls: AtomicUsize,
    pub peers: Mutex<Vec<Peer>>,
    pub closed: Mutex<Vec<Peer>>,
    pub held: Mutex<Vec<Replier>>,
}

impl Service for Echo {
    fn call(&self, peer: &Peer, body: Body, reply: Replier) {
        if self.calls.fetch_add(1, Ordering::Relaxed) == 0 {
            self.peers.lock().unwrap().push(peer.clone());
        }
        match body {
            // Says which call it answers.
            Body::Map { known, .. } => reply.send(Err(Refusal::NoReplica { map: known })),
            Body::Transfer { .. } => reply.send(Ok(Response::Done)),
            Body::Status => self.held.lock().unwrap().push(reply),
            _ => reply.send(Err(Refusal::Overloaded)),
        }
    }

    fn closed(&self, peer: &Peer) {
        self.closed.lock().unwrap().push(peer.clone());
    }
}

pub fn here() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

pub fn node(authority: &Authority, id: u32, address: SocketAddr) -> (Endpoint, Arc<Echo>) {
    let service = Arc::new(Echo::default());
    let endpoint =
        Endpoint::bind(address, &authority.node(id), CLUSTER, NodeId(id), service.clone(), Config::default()).unwrap();
    (endpoint, service)
}

pub fn client(authority: &Authority) -> Endpoint {
    Endpoint::client(&authority.client(), CLUSTER, Config::default()).unwrap()
}

pub fn address(endpoint: &Endpoint) -> String {
    endpoint.local_address().unwrap().to_string()
}

pub async fn until(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
