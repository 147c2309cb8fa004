//! The link over real sockets: calls, identities, ends of connections.

mod link_common;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use link_common::*;
use wardlock_placement::{GroupId, MapVersion, NodeId};
use wardlock_router::{
    link::{
        CallError, Transport,
        quic::{BindError, Config, ConnectError, Endpoint},
    },
    tls::Identity,
};
use wardlock_wire::{Body, Lane, Refusal, Response, Status};

fn done() -> Body {
    Body::Transfer { group: GroupId(1), to: NodeId(1) }
}

fn numbered(number: u64) -> Body {
    Body::Map { known: MapVersion(number), wait_ms: 0 }
}

#[tokio::test]
async fn a_client_calls_a_node_and_is_no_node() {
    let authority = Authority::new();
    let (server, service) = node(&authority, 7, here());
    let client = client(&authority);
    assert_eq!(client.connect_seed(&address(&server)).await.unwrap(), NodeId(7));
    assert_eq!(client.call(NodeId(7), Lane::Client, done()).await, Ok(Response::Done));
    assert_eq!(service.peers.lock().unwrap()[0].node, None);
    // Clients have no lanes for logs and snapshots.
    assert!(matches!(client.call(NodeId(7), Lane::Bulk, done()).await, Err(CallError::NotSent(_))));
    assert!(matches!(client.call(NodeId(8), Lane::Client, done()).await, Err(CallError::NotSent(_))));
    client.close().await;
    until("the service hears of the end", Duration::from_secs(1), || service.closed.lock().unwrap().len() == 1).await;
}

#[tokio::test]
async fn ten_thousand_calls_share_a_connection() {
    let authority = Authority::new();
    let (server, service) = node(&authority, 1, here());
    let client = client(&authority);
    client.connect_seed(&address(&server)).await.unwrap();
    let calls = (0..10_000).map(|n| client.call(NodeId(1), Lane::Client, numbered(n)));
    let answers = join_all(calls).await;
    for (number, answer) in (0..).zip(answers) {
        assert_eq!(answer, Err(CallError::Refused(Refusal::NoReplica { map: MapVersion(number) })));
    }
    assert_eq!(service.calls.load(Ordering::Relaxed), 10_000);
    assert_eq!(server.connections(), 1);
}

/// A peer may ask for more at once than may wait to be sent: it is told to ask again, and stays connected.
#[tokio::test]
async fn large_replies_beyond_the_bound_are_refused_one_by_one() {
    let authority = Authority::new();
    let (server, service) = node(&authority, 1, here());
    let client = client(&authority);
    client.connect_seed(&address(&server)).await.unwrap();
    let calls = (0..100).map(|_| client.call(NodeId(1), Lane::Client, Body::Status));
    let answering = async {
        until("all have asked", Duration::from_secs(5), || service.held.lock().unwrap().len() == 100).await;
        for reply in std::mem::take(&mut *service.held.lock().unwrap()) {
            let (node, version, groups) = (NodeId(1), "x".repeat(1 << 20), Vec::new());
            reply.send(Ok(Response::Status(Status { node, version, groups })));
        }
    };
    let (answers, ()) = tokio::join!(join_all(calls), answering);
    let refused = answers.iter().filter(|answer| **answer == Err(CallError::Refused(Refusal::Overloaded))).count();
    let answered = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(answered + refused, 100, "{:?}", answers.iter().find(|answer| answer.is_err()));
    assert!(answered >= 8 && refused > 0, "{answered} were answered");
    assert_eq!(client.call(NodeId(1), Lane::Client, done()).await, Ok(Response::Done));
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn two_nodes_call_each_other_over_what_either_dialed() {
    let authority = Authority::new();
    let (one, heard_by_one) = node(&authority, 1, here());
    let (two, heard_by_two) = node(&authority, 2, here());
    // Only one of them knows the other's address.
    two.set_peer(NodeId(1), address(&one));
    until("connected", Duration::from_secs(2), || one.is_connected(NodeId(2)) && two.is_connected(NodeId(1))).await;
    for lane in Lane::ALL {
        assert_eq!(one.call(NodeId(2), lane, done()).await, Ok(Response::Done), "{lane:?}");
        assert_eq!(two.call(NodeId(1), lane, done()).await, Ok(Response::Done), "{lane:?}");
    }
    assert_eq!(heard_by_one.peers.lock().unwrap()[0].node, Some(NodeId(2)));
    assert_eq!(heard_by_two.peers.lock().unwrap()[0].node, Some(NodeId(1)));
    assert_eq!(one.peers(), vec![(NodeId(2), true)]);
    // A node's own service is asked without a network.
    assert_eq!(one.call(NodeId(1), Lane::Client, done()).await, Ok(Response::Done));
}

#[tokio::test]
async fn simultaneous_dials_end_in_one_connection() {
    let authority = Authority::new();
    let (one, _) = node(&authority, 1, here());
    let (two, _) = node(&authority, 2, here());
    let (one_at, two_at) = (address(&one), address(&two));
    let (a, b) = tokio::join!(one.connect_seed(&two_at), two.connect_seed(&one_at));
    assert_eq!((a.unwrap(), b.unwrap()), (NodeId(2), NodeId(1)));
    one.set_peer(NodeId(2), address(&two));
    two.set_peer(NodeId(1), address(&one));
    until("one connection", Duration::from_secs(4), || one.connections() == 1 && two.connections() == 1).await;
    tokio::time::sleep(Duration::from_millis(1_300)).await;
    assert_eq!((one.connections(), two.connections()), (1, 1));
    assert_eq!(one.call(NodeId(2), Lane::Urgent, done()).await, Ok(Response::Done));
    assert_eq!(two.call(NodeId(1), Lane::Urgent, done()).await, Ok(Response::Done));
}

#[tokio::test]
async fn a_large_message_passes_and_does_not_hold_up_the_others() {
    use bytes::Bytes;
    use wardlock_placement::ReplicaId;
    use wardlock_wire::raft::{RaftRequest, SnapshotMeta, Vote};
    let authority = Authority::new();
    let (one, _) = node(&authority, 1, here());
    let (two, _) = node(&authority, 2, here());
    one.set_peer(NodeId(2), address(&two));
    until("connected", Duration::from_secs(2), || one.is_connected(NodeId(2))).await;
    let vote = Vote { term: 1, replica: ReplicaId(1), committed: true };
    let meta = SnapshotMeta { last: None, members_at: None, members: Default::default() };
    let data = Bytes::from(vec![7; 40 << 20]);
    let request = RaftRequest::Snapshot { vote, meta, data };
    let body = Body::Raft { group: GroupId(1), from: ReplicaId(1), to: ReplicaId(2), request };
    let snapshot = one.call(NodeId(2), Lane::Bulk, body.clone());
    assert_eq!(one.call(NodeId(2), Lane::Urgent, done()).await, Ok(Response::Done));
    assert_eq!(snapshot.await, Err(CallError::Refused(Refusal::Overloaded)));
    // What does not fit a lane does not leave, and harms nothing.
    assert!(matches!(one.call(NodeId(2), Lane::Append, body).await, Err(CallError::NotSent(_))));
    assert_eq!(one.call(NodeId(2), Lane::Append, done()).await, Ok(Response::Done));
}

#[tokio::test]
async fn another_authority_is_refused() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let (server, service) = node(&ours, 1, here());
    let stranger = Endpoint::client(&theirs.client(), CLUSTER, Config::default()).unwrap();
    let refused = stranger.connect_seed(&address(&server)).await;
    assert!(matches!(refused, Err(ConnectError::Certificate(_))), "{refused:?}");
    assert_eq!((server.connections(), service.calls.load(Ordering::Relaxed)), (0, 0));
}

#[tokio::test]
async fn another_node_at_the_address_is_refused() {
    let authority = Authority::new();
    let (server, _) = node(&authority, 1, here());
    let (dialer, _) = node(&authority, 3, here());
    dialer.set_peer(NodeId(2), address(&server));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!dialer.is_connected(NodeId(2)) && !dialer.is_connected(NodeId(1)));
    assert_eq!(dialer.peers(), vec![(NodeId(2), false)]);
    // A client's certificate does not make a node, nor does a seed that is one.
    let taken =
        Endpoint::bind(here(), &authority.client(), CLUSTER, NodeId(2), Arc::new(Echo::default()), Config::default());
    assert!(matches!(taken, Err(BindError::WrongIdentity { .. })));
}

#[tokio::test]
async fn another_cluster_and_oneself_are_refused_with_the_reason() {
    let authority = Authority::new();
    let (server, _) = node(&authority, 1, here());
    let lost = Endpoint::client(&authority.client(), "production", Config::default()).unwrap();
    match lost.connect_seed(&address(&server)).await {
        Err(ConnectError::Refused(why)) => assert!(why.contains("production") && why.contains("test"), "{why}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(server.connect_seed(&address(&server)).await, Err(ConnectError::Myself)));
    let unresolved = server.connect_seed("no such host").await;
    assert!(matches!(unresolved, Err(ConnectError::Resolve { .. })), "{unresolved:?}");
}

#[tokio::test]
async fn the_clients_are_limited() {
    let authority = Authority::new();
    let service = Arc::new(Echo::default());
    let config = Config { clients: 1, ..Config::default() };
    let server = Endpoint::bind(here(), &authority.node(1), CLUSTER, NodeId(1), service, config).unwrap();
    let (first, second) = (client(&authority), client(&authority));
    first.connect_seed(&address(&server)).await.unwrap();
    assert!(matches!(second.connect_seed(&address(&server)).await, Err(ConnectError::Refused(_))));
    first.close().await;
    until("the place is free", Duration::from_secs(1), || server.connections() == 0).await;
    second.connect_seed(&address(&server)).await.unwrap();
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let authority = Authority::new();
    let (server, service) = node(&authority, 1, here());
    let taken = server.local_address().unwrap();
    match Endpoint::bind(taken, &authority.node(1), CLUSTER, NodeId(1), service, Config::default()) {
        Err(error @ BindError::InUse(_)) => assert!(error.to_string().contains(&taken.to_string())),
        _ => panic!("bound twice"),
    }
}

#[tokio::test]
async fn calls_are_lost_with_their_connection() {
    let authority = Authority::new();
    let (server, service) = node(&authority, 1, here());
    let client = client(&authority);
    client.connect_seed(&address(&server)).await.unwrap();
    let waiting = client.call(NodeId(1), Lane::Client, Body::Status);
    until("arrived", Duration::from_secs(1), || service.held.lock().unwrap().len() == 1).await;
    drop(server);
    let answer = tokio::time::timeout(Duration::from_secs(1), waiting).await.unwrap();
    assert_eq!(answer, Err(CallError::Lost));
    until("gone", Duration::from_secs(1), || !client.is_connected(NodeId(1))).await;
    assert!(matches!(client.call(NodeId(1), Lane::Client, done()).await, Err(CallError::NotSent(_))));
}

#[tokio::test]
async fn a_stopping_node_delivers_what_it_has_answered() {
    let authority = Authority::new();
    let (server, service) = node(&authority, 1, here());
    let client = client(&authority);
    client.connect_seed(&address(&server)).await.unwrap();
    let waiting: Vec<_> = (0..1_000).map(|_| client.call(NodeId(1), Lane::Client, Body::Status)).collect();
    until("arrived", Duration::from_secs(5), || service.held.lock().unwrap().len() == 1_000).await;
    for reply in service.held.lock().unwrap().drain(..) {
        reply.send(Ok(Response::Done));
    }
    server.close().await;
    for answer in join_all(waiting).await {
        assert_eq!(answer, Ok(Response::Done));
    }
}

/// A node in a runtime of its own, to be killed without a farewell.
struct Doomed(tokio::runtime::Runtime, Endpoint);

impl Doomed {
    fn start(identity: &Identity, at: SocketAddr, peer: Option<(NodeId, String)>) -> Doomed {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let node = identity.node().unwrap();
        let endpoint = runtime.block_on(async {
            let service = Arc::new(Echo::default());
            // The port of a killed node is free only once its socket is.
            for _ in 0..200 {
                match Endpoint::bind(at, identity, CLUSTER, node, service.clone(), Config::default()) {
                    Err(BindError::InUse(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                    bound => return bound.unwrap(),
                }
            }
            panic!("the port stays in use");
        });
        if let Some((node, address)) = peer {
            endpoint.set_peer(node, address);
        }
        Doomed(runtime, endpoint)
    }

    /// As a SIGKILL: the tasks vanish, nothing more is sent, the socket is closed.
    fn kill(self) {
        self.0.shutdown_timeout(Duration::from_secs(1));
        drop(self.1);
    }
}

async fn flows(from: &Endpoint, to: NodeId, within: Duration) {
    let flows = async {
        while from.call(to, Lane::Client, done()).await != Ok(Response::Done) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(within, flows).await.expect("calls do not flow");
}

#[tokio::test]
async fn a_killed_and_restarted_node_is_noticed_at_once_by_clients() {
    let authority = Authority::new();
    let identity = authority.node(1);
    let start = move |at| {
        let identity = identity.clone();
        tokio::task::spawn_blocking(move || Doomed::start(&identity, at, None))
    };
    let first = start(here()).await.unwrap();
    let at = first.1.local_address().unwrap();
    let client = client(&authority);
    client.set_peer(NodeId(1), at.to_string());
    until("connected", Duration::from_secs(2), || client.is_connected(NodeId(1))).await;
    let waiting = client.call(NodeId(1), Lane::Client, Body::Status);
    tokio::time::sleep(Duration::from_millis(50)).await;

    tokio::task::spawn_blocking(move || first.kill()).await.unwrap();
    assert!(client.is_connected(NodeId(1)), "nothing has told the client");
    let second = start(at).await.unwrap();
    // The next packet shows the client that the new process does not know the connection.
    let probe = client.call(NodeId(1), Lane::Client, Body::Status);
    let lost = async { (waiting.await, probe.await) };
    let lost = tokio::time::timeout(Duration::from_secs(1), lost).await.expect("not noticed");
    assert_eq!(lost, (Err(CallError::Lost), Err(CallError::Lost)));
    flows(&client, NodeId(1), Duration::from_secs(1)).await;
    tokio::task::spawn_blocking(move || second.kill()).await.unwrap();
}

#[tokio::test]
async fn the_calls_of_a_frozen_node_end_soon_and_those_of_a_slow_one_wait() {
    let authority = Authority::new();
    let identity = authority.node(1);
    let started = tokio::task::spawn_blocking(move || Doomed::start(&identity, here(), None));
    let peer = started.await.unwrap();
    let client = client(&authority);
    client.set_peer(NodeId(1), peer.1.local_address().unwrap().to_string());
    flows(&client, NodeId(1), Duration::from_secs(2)).await;
    // Its service holds this one; QUIC is well.
    let mut waiting = client.call(NodeId(1), Lane::Client, Body::Status);
    let early = tokio::time::timeout(Duration::from_secs(2), &mut waiting).await;
    assert!(early.is_err(), "a slow answer is waited for: {early:?}");

    // Its only thread sleeps: half of the idle timeout.
    peer.0.spawn(async { std::thread::sleep(Duration::from_secs(2)) });
    let probe = client.call(NodeId(1), Lane::Client, Body::Status);
    let ended = tokio::time::timeout(Duration::from_millis(1_500), async { (waiting.await, probe.await) }).await;
    assert_eq!(ended.expect("not noticed"), (Err(CallError::Lost), Err(CallError::Lost)));
    flows(&client, NodeId(1), Duration::from_secs(5)).await;
    tokio::task::spawn_blocking(move || peer.kill()).await.unwrap();
}

#[tokio::test]
async fn a_killed_and_restarted_node_is_noticed_at_once_by_nodes() {
    let authority = Authority::new();
    for (mine, its) in [(1, 2), (2, 1)] {
        let (own, _) = node(&authority, mine, here());
        let (identity, own_at) = (authority.node(its), address(&own));
        let start = move |at| {
            let (identity, peer) = (identity.clone(), (NodeId(mine), own_at.clone()));
            tokio::task::spawn_blocking(move || Doomed::start(&identity, at, Some(peer)))
        };
        let first = start(here()).await.unwrap();
        let at = first.1.local_address().unwrap();
        own.set_peer(NodeId(its), at.to_string());
        flows(&own, NodeId(its), Duration::from_secs(2)).await;
        tokio::task::spawn_blocking(move || first.kill()).await.unwrap();
        // Long enough for a pause between attempts to be at its longest, short of the idle timeout.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let second = start(at).await.unwrap();
        let both = async {
            flows(&own, NodeId(its), Duration::from_secs(1)).await;
            flows(&second.1, NodeId(mine), Duration::from_secs(1)).await;
        };
        tokio::time::timeout(Duration::from_secs(1), both).await.expect("not within a second");
        tokio::task::spawn_blocking(move || second.kill()).await.unwrap();
    }
}
