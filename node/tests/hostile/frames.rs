//! What those can send who have a client's certificate: streams, frames and calls that break every rule.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use quinn::{ClientConfig, Connection, SendStream, crypto::rustls::QuicClientConfig};
use tokio::runtime::Runtime;
use wardlock_machine::{
    Acquire, Command, Holder, Incarnation, Key, Kind, Metadata, Millis, Name, Outcome, Pattern, Query, RangeEpoch,
    RequestId, Revision, SessionId, ShardId, Term, Token,
};
use wardlock_placement::{GroupId, NodeId, ReplicaId, Routes, hash_name};
use wardlock_router::{
    Client,
    tls::{ALPN, Identity, node_name},
};
use wardlock_wire::{
    Body, Hello, Lane, Message, Op, Response, VERSION,
    frame::encode,
    raft::{Entry, LogPos, Payload, RaftRequest, Vote},
};

use crate::support::Dev;

/// A name, its shard, the node that leads it, and a session that is attached there.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    key: Key,
    group: GroupId,
    leader: NodeId,
    address: String,
    session: SessionId,
}

/// A name of each shard.
pub(crate) async fn places(dev: &Dev, client: &Client) -> Vec<Place> {
    let map = client.map();
    let (session, patience) = (client.new_session_id(), Duration::from_secs(10));
    let holder = Holder { client_id: "attacker".into(), ttl: Millis(600_000), metadata: Metadata::new() };
    client.write(Command::OpenSession { session, holder }, patience).await.unwrap();
    let routes = Routes::new(&map);
    let shown = dev.get("/cluster/shards").json();
    let mut places: Vec<Place> = Vec::new();
    for n in 0..1_000 {
        let name = format!("hostile/{n}");
        let group = routes.owner(hash_name(&map.hash_key, &name)).unwrap();
        let shard = shown["shards"].as_array().unwrap().iter().find(|shard| shard["id"] == group.0).unwrap();
        let Some(leader) = shard["leader"].as_u64().map(|node| NodeId(node as u32)) else { continue };
        if places.iter().all(|known| known.group != group) {
            let address = map.nodes[&leader].quic.clone();
            let name = Name::new(&name).unwrap();
            // Having held something there, the session is attached.
            let request = RequestId::Native { seq: 1, low: 1 };
            let held = Acquire::new(session, request, Key::lock(name.clone()));
            assert!(matches!(client.write(Command::Acquire(held), patience).await, Ok(Outcome::Granted(_))));
            places.push(Place { key: Key::election(name), group, leader, address, session });
        }
    }
    assert_eq!(places.len(), map.shards().count(), "a name of each shard");
    places
}

fn framed(message: &Message) -> BytesMut {
    let mut bytes = BytesMut::new();
    encode(message, Lane::Bulk.frame_bytes(), &mut bytes).unwrap();
    bytes
}

fn shard(group: GroupId, op: Op) -> Body {
    Body::Shard { group, epoch: RangeEpoch(1), patience_ms: 2_000, op }
}

fn calls(bodies: impl IntoIterator<Item = Body>) -> BytesMut {
    let mut all = BytesMut::new();
    (1..).zip(bodies).for_each(|(id, body)| all.unsplit(framed(&Message::Call { id, body })));
    all
}

/// A session of nobody's.
fn session(number: u64) -> SessionId {
    SessionId::new(Incarnation(1), u128::from(number) << 64 | 7)
}

fn acquire(place: &Place, number: u64, metadata: Metadata, value: String) -> Op {
    Op::Write(Command::Acquire(Acquire {
        metadata,
        value: Some(value),
        wait: Millis(1_000),
        ..Acquire::new(
            if number.is_multiple_of(2) { place.session } else { session(number % 40) },
            RequestId::Native { seq: number + 2, low: 1 },
            place.key.clone(),
        )
    }))
}

/// How many kinds of nonsense there are.
const KINDS: u64 = 14;

/// What to say on the client lane, of every kind, by place. Made before anything is measured.
pub(crate) fn contents(places: &[Place]) -> Vec<Vec<BytesMut>> {
    places.iter().map(|place| (0..KINDS).map(|number| nonsense(number, place)).collect()).collect()
}

/// What to say on the client lane, of many kinds.
fn nonsense(number: u64, place: &Place) -> BytesMut {
    let group = place.group;
    let text = |length: usize| "x".repeat(length);
    let raw = |head: u32, content: usize| {
        let mut bytes = BytesMut::from(&head.to_le_bytes()[..]);
        bytes.resize(4 + content, 0x2a);
        bytes
    };
    match number % KINDS {
        // Lengths that are too long, that lie, and frames that are nothing.
        0 => raw(u32::MAX, 100),
        1 => raw(4 << 20, 300_000),
        2 => raw(200_000, 1_000),
        3 => raw(64, 64),
        // Lists of what is small on the wire and large in memory. Longer ones only cost processor time, of which
        // a build for tests, which is not optimized, has twenty times too little.
        4 => {
            let vote = Vote { term: 1, replica: ReplicaId(1), committed: true };
            let blank = |index: u64| Entry { pos: LogPos { term: 1, index: index % 100 }, payload: Payload::Blank };
            let request =
                RaftRequest::Append { vote, prev: None, commit: None, entries: (0..8_000).map(blank).collect() };
            calls([Body::Raft { group, from: ReplicaId(1), to: ReplicaId(2), request }])
        }
        5 => {
            let sessions = vec![(SessionId(0), None); 8_000];
            calls((0..3).map(|_| shard(group, Op::Write(Command::Checkpoint { sessions: sessions.clone() }))))
        }
        // Fields that are much too long, many at once: they must not come into the log.
        6 => calls((0..20).map(|n| shard(group, acquire(place, n, Metadata::new(), text(200_000))))),
        7 => {
            let metadata: Metadata = (0..500).map(|n| (n.to_string(), text(400))).collect();
            calls((0..20).map(|n| shard(group, acquire(place, n, metadata.clone(), text(1)))))
        }
        8 => calls(
            (0..30).map(|_| shard(group, Op::Write(Command::Break { key: place.key.clone(), reason: text(250_000) }))),
        ),
        9 => {
            let check = (Key::lock(Name::new(&text(1_000)).unwrap()), Token(1));
            calls((0..10).map(|_| shard(group, Op::Read(Query::Fence { checks: vec![check.clone(); 250] }))))
        }
        // As much as fields may be, as many as leave at once.
        10 => {
            let metadata: Metadata = (0..30).map(|n| (n.to_string(), text(130))).collect();
            calls((0..200).map(|n| shard(group, acquire(place, n + number, metadata.clone(), text(250)))))
        }
        // Questions that are held, and more of them than there may be.
        11 => calls((0..500).map(|_| {
            let pattern = Pattern { kind: place.key.kind, name: place.key.name.to_string(), prefix: false };
            let query = Query::Events { after: Revision(u64::MAX), patterns: vec![pattern], limit: 1 };
            shard(group, Op::Watch { query, wait_ms: u32::MAX })
        })),
        12 => {
            let list = Query::List {
                kind: Kind::Lock,
                prefix: String::new(),
                held: None,
                session: None,
                after: None,
                limit: u32::MAX,
            };
            calls((0..50).map(|_| shard(group, Op::Read(list.clone()))))
        }
        // What only nodes may say, answers that nobody waits for, and a second hello.
        _ => {
            let inner = [
                Command::Tick,
                Command::SetRange { first: 0, last: 0, epoch: RangeEpoch(u64::MAX), incarnation: Incarnation(9) },
                Command::ExpireSessions { sessions: vec![session(1)], term: Term(1) },
                Command::Attach { session: session(1), shard: ShardId(9) },
            ];
            let mut all = calls(inner.into_iter().map(|command| shard(group, Op::Write(command))));
            for id in [0, 1, u64::MAX] {
                all.unsplit(framed(&Message::Reply { id, result: Ok(Response::Done) }));
            }
            all.unsplit(framed(&Message::Hello(hello())));
            all
        }
    }
}

fn hello() -> Hello {
    Hello { version: VERSION, cluster: "dev".into(), node: None, boot: 1 }
}

async fn dial(config: &ClientConfig, endpoint: &quinn::Endpoint, place: &Place) -> Option<Connection> {
    let address = place.address.parse().unwrap();
    let connecting = endpoint.connect_with(config.clone(), address, &node_name(place.leader)).unwrap();
    tokio::time::timeout(Duration::from_secs(2), connecting).await.ok()?.ok()
}

async fn lane(connection: &Connection, lane: Lane, first: &[u8]) -> Option<SendStream> {
    let mut stream = connection.open_uni().await.ok()?;
    stream.write_all(&[lane as u8]).await.ok()?;
    stream.write_all(first).await.ok()?;
    Some(stream)
}

/// One bad connection.
async fn one(
    config: &ClientConfig,
    endpoint: &quinn::Endpoint,
    place: &Place,
    content: &[u8],
    number: u64,
) -> Option<()> {
    let connection = dial(config, endpoint, place).await?;
    match number % 19 {
        // No hello, a bad one, or one on the wrong stream; a lane that there is not, or twice.
        14 => drop(lane(&connection, Lane::Urgent, &[9, 0, 0, 0, 1, 2]).await),
        15 => drop(lane(&connection, Lane::Client, &framed(&Message::Hello(hello()))).await),
        16 => {
            let strange = Hello { version: 9, cluster: "x".repeat(9_000), node: Some(NodeId(1)), boot: 0 };
            drop(lane(&connection, Lane::Urgent, &framed(&Message::Hello(strange))).await);
        }
        17 | 18 => {
            let _urgent = lane(&connection, Lane::Urgent, &framed(&Message::Hello(hello()))).await?;
            let number = if number.is_multiple_of(2) { Lane::Bulk } else { Lane::Urgent };
            drop(lane(&connection, number, &[]).await);
        }
        _ => {
            let _urgent = lane(&connection, Lane::Urgent, &framed(&Message::Hello(hello()))).await?;
            let mut stream = lane(&connection, Lane::Client, &[]).await?;
            // What is asked is mostly not read: its answers pile up on the other side.
            let _ = tokio::time::timeout(Duration::from_millis(400), stream.write_all(content)).await;
        }
    }
    let _ = tokio::time::timeout(Duration::from_millis(100), connection.closed()).await;
    // Some hang up, some just fall silent.
    if number.is_multiple_of(3) {
        connection.close(quinn::VarInt::from_u32(77), &[b'x'; 900]);
    }
    Some(())
}

/// Connects and misbehaves until it is told to stop; how often it did, streams and calls counted by connections.
pub(crate) fn attack(
    runtime: &Runtime,
    certs: &Path,
    (places, contents): (&[Place], &[Vec<BytesMut>]),
    stop: &AtomicBool,
) -> u64 {
    let identity = Identity::from_dir(certs, "client").unwrap();
    let tls = QuicClientConfig::try_from(identity.client_config(&[ALPN]).unwrap()).unwrap();
    let config = ClientConfig::new(Arc::new(tls));
    runtime.block_on(async {
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let (mut made, mut number) = (0, 0);
        while !stop.load(Ordering::Relaxed) {
            let some = (number..number + 4).map(|n| {
                let at = n as usize / 3 % places.len();
                one(&config, &endpoint, &places[at], &contents[at][n as usize % KINDS as usize], n)
            });
            made += futures_util::future::join_all(some).await.into_iter().flatten().count() as u64;
            number += 4;
            // What is sent costs the nodes' processor some work, as it may; not all of it.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        endpoint.close(quinn::VarInt::from_u32(0), b"");
        made
    })
}
