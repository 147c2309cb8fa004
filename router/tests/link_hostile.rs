//! What a peer with a valid certificate and bad manners can do: end its own connection.

mod link_common;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use link_common::*;
use quinn::{ClientConfig, Connection, ConnectionError, SendStream, TransportConfig, crypto::rustls::QuicClientConfig};
use wardlock_placement::{GroupId, NodeId};
use wardlock_router::{
    link::{
        CallError, Peer, Replier, Service, Transport,
        quic::{Config, Endpoint},
    },
    tls::{ALPN, Identity, node_name},
};
use wardlock_wire::{Body, Hello, Lane, Message, Refusal, Response, VERSION, frame};

fn done() -> Body {
    Body::Transfer { group: GroupId(1), to: NodeId(1) }
}

fn framed(message: &Message) -> BytesMut {
    let mut bytes = BytesMut::new();
    frame::encode(message, Lane::Client.frame_bytes(), &mut bytes).unwrap();
    bytes
}

/// A bare connection to node 1, before any hello.
async fn bare(identity: &Identity, server: &Endpoint, transport: TransportConfig) -> (quinn::Endpoint, Connection) {
    let tls = QuicClientConfig::try_from(identity.client_config(&[ALPN]).unwrap()).unwrap();
    let mut config = ClientConfig::new(Arc::new(tls));
    config.transport_config(Arc::new(transport));
    let endpoint = quinn::Endpoint::client(here()).unwrap();
    let address = server.local_address().unwrap();
    let connection = endpoint.connect_with(config, address, &node_name(NodeId(1))).unwrap().await.unwrap();
    (endpoint, connection)
}

async fn say_hello(connection: &Connection, node: Option<u32>) -> SendStream {
    let hello = Hello { version: VERSION, cluster: CLUSTER.into(), node: node.map(NodeId), boot: 1 };
    let mut urgent = connection.open_uni().await.unwrap();
    urgent.write_all(&[Lane::Urgent as u8]).await.unwrap();
    urgent.write_all(&framed(&Message::Hello(hello))).await.unwrap();
    urgent
}

/// The reason that the connection was closed with.
async fn closed(connection: &Connection, within: Duration) -> String {
    match tokio::time::timeout(within, connection.closed()).await.expect("still open") {
        ConnectionError::ApplicationClosed(close) => String::from_utf8_lossy(&close.reason).into_owned(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn garbage_on_a_stream_ends_only_its_connection() {
    let authority = Authority::new();
    let (server, service) = node(&authority, 1, here());
    let bystander = client(&authority);
    bystander.connect_seed(&address(&server)).await.unwrap();
    let held = bystander.call(NodeId(1), Lane::Client, Body::Status);
    let garbage: [(&[u8], &str); 6] = [
        (&[Lane::Client as u8, 0, 0, 0x50, 0], "exceeds"),
        (&[Lane::Client as u8, 3, 0, 0, 0, 0xff, 0xff, 0xff], "not a message"),
        (&[Lane::Client as u8, 0xff, 0xff, 0xff, 0xff], "exceeds"),
        (&[Lane::Bulk as u8, 1, 0, 0, 0], "lane"),
        (&[Lane::Urgent as u8], "lane"),
        (&[200], "lane"),
    ];
    for (bytes, why) in garbage {
        let (_endpoint, connection) = bare(&authority.client(), &server, TransportConfig::default()).await;
        let _urgent = say_hello(&connection, None).await;
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let reason = closed(&connection, Duration::from_secs(2)).await;
        assert!(reason.contains(why), "{bytes:?}: {reason}");
    }
    assert_eq!(bystander.call(NodeId(1), Lane::Client, done()).await, Ok(Response::Done));
    service.held.lock().unwrap().pop().unwrap().send(Ok(Response::Done));
    assert_eq!(held.await, Ok(Response::Done));
    until("only the bystander stays", Duration::from_secs(1), || server.connections() == 1).await;
}

#[tokio::test]
async fn a_client_that_says_it_is_a_node_is_refused() {
    let authority = Authority::new();
    let (server, service) = node(&authority, 1, here());
    let (_endpoint, connection) = bare(&authority.client(), &server, TransportConfig::default()).await;
    let _urgent = say_hello(&connection, Some(5)).await;
    let reason = closed(&connection, Duration::from_secs(2)).await;
    assert!(reason.contains("node 5") && reason.contains("client"), "{reason}");
    let (_endpoint, connection) = bare(&authority.node(4), &server, TransportConfig::default()).await;
    let _urgent = say_hello(&connection, Some(5)).await;
    let reason = closed(&connection, Duration::from_secs(2)).await;
    assert!(reason.contains("node 5") && reason.contains("node 4"), "{reason}");
    assert!(service.peers.lock().unwrap().is_empty() && server.peers().is_empty());
}

#[tokio::test]
async fn who_says_nothing_is_not_waited_for() {
    let authority = Authority::new();
    let config = Config { handshake_timeout: Duration::from_millis(300), ..Config::default() };
    let service = Arc::new(Echo::default());
    let server = Endpoint::bind(here(), &authority.node(1), CLUSTER, NodeId(1), service, config).unwrap();
    let mut patient = TransportConfig::default();
    patient.keep_alive_interval(Some(Duration::from_millis(100)));
    let (_endpoint, connection) = bare(&authority.client(), &server, patient).await;
    let mut stream = connection.open_uni().await.unwrap();
    stream.write_all(&[Lane::Urgent as u8]).await.unwrap();
    closed(&connection, Duration::from_secs(2)).await;
    assert_eq!(server.connections(), 0);
}

/// Answers everything at length.
struct Talkative;

impl Service for Talkative {
    fn call(&self, _: &Peer, _: Body, reply: Replier) {
        reply.send(Err(Refusal::Malformed("x".repeat(1 << 20))));
    }

    fn closed(&self, _: &Peer) {}
}

#[tokio::test]
async fn who_asks_and_does_not_read_is_cut_off() {
    let authority = Authority::new();
    let (identity, config) = (authority.node(1), Config::default());
    let server = Endpoint::bind(here(), &identity, CLUSTER, NodeId(1), Arc::new(Talkative), config).unwrap();
    let mut transport = TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_millis(100)));
    let (_endpoint, connection) = bare(&authority.client(), &server, transport).await;
    let _urgent = say_hello(&connection, None).await;
    let mut stream = connection.open_uni().await.unwrap();
    stream.write_all(&[Lane::Client as u8]).await.unwrap();
    for id in 0..200 {
        if stream.write_all(&framed(&Message::Call { id, body: done() })).await.is_err() {
            break;
        }
    }
    let reason = closed(&connection, Duration::from_secs(5)).await;
    assert!(reason.contains("not being read"), "{reason}");
}

#[tokio::test]
async fn a_frozen_peer_is_given_up_after_the_idle_timeout() {
    let authority = Authority::new();
    let identity = authority.node(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = runtime
        .spawn(async move {
            let service = Arc::new(Echo::default());
            Endpoint::bind(here(), &identity, CLUSTER, NodeId(1), service, Config::default()).unwrap()
        })
        .await
        .unwrap();
    let config = Config {
        idle_timeout: Duration::from_millis(600),
        keep_alive: Duration::from_millis(150),
        ..Config::default()
    };
    let client = Endpoint::client(&authority.client(), CLUSTER, config).unwrap();
    client.connect_seed(&address(&server)).await.unwrap();
    // Silence alone ends nothing.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(client.call(NodeId(1), Lane::Client, done()).await, Ok(Response::Done));
    let waiting = client.call(NodeId(1), Lane::Client, Body::Status);
    // The peer's only thread hangs: its socket stays, and nobody reads it.
    let (resume, frozen) = std::sync::mpsc::channel::<()>();
    runtime.spawn(async move {
        let _ = frozen.recv();
    });
    let start = Instant::now();
    assert_eq!(waiting.await, Err(CallError::Lost));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    drop(resume);
    drop(server);
    runtime.shutdown_background();
}
