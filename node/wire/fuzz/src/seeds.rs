//! What each target begins with: a few good inputs of every kind, from which bad ones are made.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use wardlock::disk::log::inspect::{self, Said};
use wardlock_machine::*;
use wardlock_placement::{
    Change, GroupId, HashKey, MapVersion, Node, NodeId, Placement, ReplicaId, limits as placement_limits,
};
use wardlock_wire::{
    ANY_CLUSTER, Body, Claim, GroupStatus, Hello, KeptAlive, Lane, Message, Op, Refusal, Report, Response, Standing,
    Status, VERSION,
    frame::encode,
    raft::{Entry, LogPos, Members, Payload, RaftReply, RaftRequest, SnapshotMeta, Vote},
};

use crate::{image, machine};

fn bytes(value: &impl serde::Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).expect("plain data encodes")
}

fn members() -> Members {
    let ids = [1, 2, 3].map(ReplicaId);
    Members {
        configs: vec![BTreeSet::from(ids), BTreeSet::from([ReplicaId(4)])],
        nodes: BTreeMap::from([1, 2, 3, 4].map(|n| (ReplicaId(n), NodeId(n as u32)))),
    }
}

const VOTE: Vote = Vote { term: 5, replica: ReplicaId(2), committed: true };
const POS: LogPos = LogPos { term: 4, index: 300 };

fn requests() -> Vec<RaftRequest> {
    let payloads = [Payload::Blank, Payload::Data(Bytes::from_static(b"data")), Payload::Members(members())];
    let entries = (301..).zip(payloads).map(|(index, payload)| Entry { pos: LogPos { term: 5, index }, payload });
    let meta = SnapshotMeta { last: Some(POS), members_at: Some(POS), members: members() };
    vec![
        RaftRequest::Append { vote: VOTE, prev: Some(POS), commit: Some(POS), entries: entries.collect() },
        RaftRequest::Append { vote: VOTE, prev: None, commit: None, entries: Vec::new() },
        RaftRequest::Vote { vote: VOTE, last: Some(POS), transfer: true },
        RaftRequest::PreVote { vote: VOTE, last: None },
        RaftRequest::Transfer { from: VOTE, to: ReplicaId(3), last: Some(POS) },
        RaftRequest::Snapshot { vote: VOTE, meta, data: machine::shard().snapshot().into() },
    ]
}

fn replies() -> Vec<RaftReply> {
    vec![
        RaftReply::Appended,
        RaftReply::AppendedTo(Some(POS)),
        RaftReply::Conflict,
        RaftReply::HigherVote(VOTE),
        RaftReply::Voted { vote: VOTE, granted: true, last: Some(POS) },
        RaftReply::Transferring,
        RaftReply::TransferRefused("busy".into()),
        RaftReply::Installed(VOTE),
    ]
}

/// A command of every kind.
fn all_commands() -> Vec<Command> {
    let (session, key) = (machine::session(1), machine::key(0));
    let lock_id = LockId::new(session, Token(1), &key);
    let holder = Holder {
        client_id: "w".into(),
        ttl: Millis(5_000),
        metadata: Metadata::from([("host".to_owned(), "h".to_owned())]),
    };
    let election = machine::key(5);
    let leads = LockId::new(session, Token(1), &election);
    let request = RequestId::Native { seq: 3, low: 2 };
    let acquire = |n: u8| Acquire {
        mode: [Mode::Exclusive, Mode::Shared, Mode::Semaphore { permits: 2 }][usize::from(n % 3)],
        lease: Some(Millis(10_000)),
        wait: Millis(u64::from(n) * 1_000),
        priority: 1 - i32::from(n),
        lock_delay: Millis(500),
        metadata: Metadata::from([("a".to_owned(), "b".to_owned())]),
        value: Some("v".into()),
        ..Acquire::new(machine::session(n), RequestId::Keyed { key: n.into() }, machine::key(n))
    };
    let mut all = vec![
        Command::SetRange { first: 0, last: u64::MAX, epoch: RangeEpoch(2), incarnation: Incarnation(2) },
        Command::Tick,
        Command::OpenSession { session, holder: holder.clone() },
        Command::CloseSession { session },
        Command::ExpireSessions { sessions: vec![session, machine::session(2)], term: Term(1) },
        Command::Checkpoint { sessions: vec![(session, Some(Millis(1_000))), (machine::session(2), None)] },
        Command::Attach { session, shard: ShardId(3) },
        Command::Detached { session, shard: ShardId(3) },
        Command::Pend { session: machine::session(9) },
        Command::Confirm { session: machine::session(9), nonce: Nonce(5), holder },
        Command::Unpend { session: machine::session(9), nonce: Nonce(5) },
        Command::Drop { session, reason: EndReason::SessionClosed },
        Command::Release { request, key: key.clone(), lock_id },
        Command::Renew { request, key: key.clone(), lock_id, lease: Some(Millis(3_000)) },
        Command::Break { key: key.clone(), reason: "stuck".into() },
        Command::Cancel { session, request, key: key.clone() },
        Command::BreakDeadlock(BreakDeadlock {
            session,
            arrival: 1,
            circle: Circle {
                steps: vec![CircleStep { session, holder: "client-1".into(), key: key.clone() }],
                length: 2,
            },
            key,
        }),
        Command::Proclaim { request, key: election, lock_id: leads, value: "stage 2".into() },
    ];
    all.extend((0..4).map(|n| Command::Acquire(acquire(n))));
    all.extend((0..5).map(|n| machine::register(n, machine::session(n), n / 2, n, 3 * n)));
    let (service, instance) = (Key::service(machine::key(0).name), Name::new("i").expect("a short name"));
    all.push(Command::ReportHealth {
        request: 77,
        key: service.clone(),
        instance: instance.clone(),
        session: machine::session(0),
        health: Health::Critical,
    });
    all.push(Command::Deregister { request: 78, key: service, instance, session: Some(machine::session(0)) });
    all.extend((0..6).map(|n| machine::hook(n, n % 2, [0, 12, 2, 0, 20, 3][usize::from(n)], 40 + n)));
    all.extend((0..5).map(|n| machine::configure(n, n, n, Some(n).filter(|n| n % 2 == 0))));
    all
}

/// A question of every kind.
fn all_queries() -> Vec<Query> {
    let list = |kind, prefix: &str, held, session, after: Option<&str>| Query::List {
        kind,
        prefix: prefix.into(),
        held,
        session,
        after: after.map(Into::into),
        limit: 10,
    };
    vec![
        Query::Object { key: machine::key(0) },
        list(Kind::Lock, "", None, None, None),
        list(Kind::Lock, "a", Some(true), None, Some("a")),
        list(Kind::Election, "", Some(false), Some(machine::session(1)), None),
        Query::Session { session: machine::session(1) },
        Query::Sessions { after: Some(machine::session(0)), limit: 2 },
        Query::Config { key: Key::config(machine::key(0).name), version: None },
        Query::Config { key: Key::config(machine::key(0).name), version: Some(Version(1)) },
        Query::Versions { key: Key::config(machine::key(0).name) },
        Query::Configs { prefix: "a".into(), after: Some("a".into()), limit: 2 },
        Query::Service {
            key: Key::service(machine::key(0).name),
            healthy: true,
            tag: Some("t0".into()),
            after: Some("a".into()),
            limit: 2,
        },
        Query::Service { key: Key::service(machine::key(0).name), healthy: false, tag: None, after: None, limit: 9 },
        Query::Instance { key: Key::service(machine::key(0).name), instance: Name::new("i").expect("a short name") },
        Query::Services { prefix: "a".into(), after: Some("a".into()), limit: 2 },
        Query::Sample { key: Key::service(machine::key(0).name), count: 2, seed: 9 },
        events(0, [Kind::Lock, Kind::Election, Kind::Config, Kind::Service].map(|kind| ("", kind, true)).to_vec()),
        events(5, vec![("a", Kind::Lock, false), ("a/", Kind::Config, true)]),
        events(u64::MAX, vec![]),
        Query::Hook { key: Key::hook(machine::key(0).name) },
        Query::Hooks { after: Some("a".into()), limit: 2 },
        Query::DeadLetters { key: Key::hook(machine::key(0).name) },
        Query::Waits { after: None },
        Query::Waits { after: Some(machine::key(0)) },
        Query::Fence { checks: vec![(machine::key(0), Token(1)), (machine::key(1), Token(9))] },
    ]
}

fn all_messages() -> Vec<Message> {
    let group = GroupId(3);
    let session = machine::session(1);
    let addresses = Node { quic: "h:1".into(), http: Some("h:2".into()), domain: None };
    let mut bodies: Vec<Body> = vec![
        Body::Map { known: MapVersion(3), wait_ms: 100 },
        Body::Report(Report { node: NodeId(1), addresses, leads: vec![group, GroupId(4)], waits: vec![group] }),
        Body::Transfer { group, to: NodeId(2) },
        Body::Status,
        Body::Confirm(vec![Claim { group, to: ReplicaId(8), vote: VOTE }; 2]),
    ];
    let shard = |op| Body::Shard { group, epoch: RangeEpoch(1), patience_ms: 1_000, op };
    bodies.extend(all_commands().into_iter().map(|command| shard(Op::Write(command))));
    bodies.extend(all_queries().into_iter().map(|query| shard(Op::Read(query))));
    bodies.extend(all_queries().into_iter().map(|query| shard(Op::Stale { query, max_age_ms: Some(500) })));
    bodies.push(shard(Op::ReadIndex));
    bodies.extend(all_queries().into_iter().filter(Query::is_list).map(|query| shard(Op::Marked(query))));
    bodies.push(shard(Op::KeepAlive { session }));
    bodies.push(shard(Op::Watch { query: events(3, vec![("a", Kind::Lock, true)]), wait_ms: 50 }));
    let (from, to) = (ReplicaId(7), ReplicaId(8));
    bodies.extend(requests().into_iter().map(|request| Body::Raft { group, from, to, request }));

    let furnished = machine::furnished();
    let mut answers: Vec<Response> =
        all_queries().iter().map(|query| Response::Answer(furnished.query(query))).collect();
    answers.extend(replies().into_iter().map(Response::Raft));
    let (mut outcomes, mut machine) = (Vec::new(), furnished);
    let batch = Batch { at: Stamp(40), wall: WallMs(40), epoch: RangeEpoch(1), commands: all_commands() };
    machine.apply(Term(1), batch, &mut outcomes, &mut Effects::default());
    answers.extend(outcomes.into_iter().map(Response::Outcome));
    let status = GroupStatus {
        group,
        replica: to,
        term: 4,
        leader: Some(NodeId(1)),
        last_log: Some(9),
        applied: Some(8),
        snapshot: None,
        matched: vec![(NodeId(1), Some(9)), (NodeId(2), None)],
    };
    answers.extend([
        Response::KeptAlive(KeptAlive::Alive),
        Response::Map(Some(placement().map().clone())),
        Response::Status(Status { node: NodeId(1), version: "0.1.0".into(), groups: vec![status] }),
        Response::Done,
        Response::Marked { revision: Revision(9), answer: Answer::Configs(Vec::new()) },
        Response::Confirmed(vec![Standing::Stands, Standing::Deposed, Standing::Unknown]),
        Response::Stale { answer: Answer::Object(None), age_ms: Some(12) },
        Response::ReadIndex(u64::MAX),
    ]);
    let refusals = [
        Refusal::NotLeader { hint: Some(NodeId(2)) },
        Refusal::StaleEpoch { current: RangeEpoch(2), map: MapVersion(7) },
        Refusal::Malformed("why".into()),
        Refusal::OutcomeUnknown,
        Refusal::TooStale,
    ];
    let hello = Hello { version: VERSION, cluster: ANY_CLUSTER.into(), node: Some(NodeId(1)), boot: 77 };
    let calls = (1..).zip(bodies).map(|(id, body)| Message::Call { id, body });
    let good = (1..).zip(answers).map(|(id, answer)| Message::Reply { id, result: Ok(answer) });
    let bad = refusals.into_iter().map(|refusal| Message::Reply { id: 1 << 20, result: Err(refusal) });
    [Message::Hello(hello)].into_iter().chain(calls).chain(good).chain(bad).collect()
}

/// Streams of a few frames.
pub fn frames() -> Vec<Vec<u8>> {
    let stream = |messages: &[Message]| {
        let mut stream = BytesMut::new();
        for message in messages {
            encode(message, Lane::Bulk.frame_bytes(), &mut stream).expect("a small message");
        }
        stream
    };
    let mut seeds: Vec<Vec<u8>> = all_messages().chunks(3).map(|some| [&[1, 7], &stream(some)[..]].concat()).collect();
    seeds.push([&[4, 3][..], &1_000u32.to_le_bytes(), &[0; 70]].concat());
    seeds
}

/// Messages of every kind.
pub fn messages() -> Vec<Vec<u8>> {
    all_messages().iter().map(bytes).collect()
}

/// Raft's requests and replies.
pub fn raft_messages() -> Vec<Vec<u8>> {
    requests().iter().map(bytes).chain(replies().iter().map(bytes)).collect()
}

fn row() -> Vec<u8> {
    let entries = |first: u64| (first..first + 2).map(|index| image::encoded(1, index, 8)).collect();
    let said = [
        Said::Entries { group: GroupId(1), first: 7, entries: entries(7) },
        Said::Truncate { group: GroupId(1), from: 8 },
        Said::Reset { group: GroupId(2), first: 5, entries: entries(5) },
    ];
    inspect::write(3, &said).expect("a small row")
}

/// `kind · position · key · value` of a value without its seal, and of the sealed one.
fn sealed(key: u8, value: &[u8]) -> Vec<Vec<u8>> {
    let body = &value[..value.len() - 4];
    vec![[&[0, 3, key], body].concat(), [&[1, 3, key], value].concat()]
}

/// Rows.
pub fn log_rows() -> Vec<Vec<u8>> {
    let mut seeds = sealed(3, &row());
    seeds.push([&[0, 0, 3][..], &[1]].concat());
    seeds
}

/// Marks.
pub fn log_marks() -> Vec<Vec<u8>> {
    let all = [(Some(VOTE), Some(POS), Some(POS)), (None, None, None), (Some(VOTE), None, None)];
    all.iter().flat_map(|marks| sealed(3, &inspect::seal(3, &[vec![1], bytes(marks)].concat()))).collect()
}

/// Snapshots' descriptions.
pub fn snapshot_records() -> Vec<Vec<u8>> {
    let meta = SnapshotMeta { last: Some(POS), members_at: None, members: members() };
    let record = [vec![1], bytes(&(meta, 3u32, 700_000u64, 0xdead_beefu32))].concat();
    sealed(3, &inspect::seal(3, &record))
}

/// Bytes of which structures are made: any do.
fn mixed(count: usize, length: usize) -> Vec<Vec<u8>> {
    let mut random = crate::random::Random::new(7);
    (0..count).map(|_| (0..length).map(|_| random.below(256) as u8 >> (random.below(3) * 2)).collect()).collect()
}

/// Rows for a journal.
pub fn log_replay() -> Vec<Vec<u8>> {
    mixed(24, 160)
}

/// Changes of a file.
pub fn log_images() -> Vec<Vec<u8>> {
    mixed(24, 24)
}

/// Entries of a shard's log.
pub fn batches() -> Vec<Vec<u8>> {
    let batch = |at: u64, commands: Vec<Command>| {
        bytes(&Batch { at: Stamp(at), wall: WallMs(at), epoch: RangeEpoch(1), commands })
    };
    let mut seeds: Vec<Vec<u8>> = all_commands().into_iter().map(|command| batch(50, vec![command])).collect();
    let mut commands = all_commands();
    commands.rotate_right(4);
    seeds.push([batch(10, commands), batch(20_000, vec![Command::Tick])].concat());
    seeds
}

/// Histories.
pub fn commands() -> Vec<Vec<u8>> {
    mixed(32, 400)
}

/// A question for events: what is called so, or starts so.
fn events(after: u64, patterns: Vec<(&str, Kind, bool)>) -> Query {
    let pattern = |(name, kind, prefix): (&str, Kind, bool)| Pattern { kind, name: name.into(), prefix };
    Query::Events { after: Revision(after), patterns: patterns.into_iter().map(pattern).collect(), limit: 10 }
}

/// Questions.
pub fn queries() -> Vec<Vec<u8>> {
    all_queries().iter().map(bytes).collect()
}

/// States of a shard.
pub fn machine_snapshots() -> Vec<Vec<u8>> {
    vec![Machine::new().snapshot(), machine::shard().snapshot(), machine::furnished().snapshot()]
}

fn placement() -> Placement {
    let mut placement = Placement::default();
    for change in all_changes() {
        placement.apply(change).expect("a good change");
    }
    placement
}

fn all_changes() -> Vec<Change> {
    let node = |n: u32| Node { quic: format!("h{n}:1"), http: Some(format!("h{n}:2")), domain: Some("d".into()) };
    let nodes = [1, 2, 3].map(NodeId);
    let mut all = vec![Change::Found { hash_key: HashKey([9; 16]), incarnation: 1, placement: nodes.to_vec() }];
    all.extend(nodes.map(|id| Change::Register { node: id, info: node(id.0) }));
    all.push(Change::CreateShards { assignments: vec![nodes.to_vec(), nodes.to_vec(), vec![NodeId(3)]] });
    all
}

/// Changes of the shard map.
pub fn changes() -> Vec<Vec<u8>> {
    let framed = |change: &Change| {
        let bytes = change.encode();
        [&(bytes.len() as u16).to_le_bytes()[..], &bytes].concat()
    };
    let all: Vec<Vec<u8>> = all_changes().iter().map(framed).collect();
    let mut seeds: Vec<Vec<u8>> = all.iter().map(|one| [&[3], &one[..]].concat()).collect();
    seeds.push([vec![0], all.concat()].concat());
    let many = Change::CreateShards { assignments: vec![vec![NodeId(1)]; placement_limits::SHARDS] };
    seeds.push([vec![3], framed(&many)].concat());
    seeds
}

/// Maps.
pub fn maps() -> Vec<Vec<u8>> {
    let bytes = placement().snapshot();
    let empty = Placement::default().snapshot();
    vec![[&[0], &bytes[9..]].concat(), [&[1], &bytes[..]].concat(), [&[0], &empty[9..]].concat()]
}

/// Paths.
pub fn http_paths() -> Vec<Vec<u8>> {
    let paths = [
        (0, "/api/v1/locks/orders%2F42"),
        (1, "/api/v1/locks/orders/42/acquire"),
        (1, "/api/v1/leader/election/x"),
        (0, "/api/v1/leader/a%20b/observe"),
        (1, "/api/v1/leader/x/resign"),
        (1, "/api/v1/leader/x/proclaim"),
        (0, "/api/v1/sessions/00010000000000000000000000009f3c"),
        (2, "/api/v1/sessions/00010000000000000000000000009f3c"),
        (0, "/api/v1/services/a%2Fb"),
        (3, "/api/v1/services/a/instances/i%2F1"),
        (1, "/api/v1/services/a/instances/i/heartbeat"),
        (1, "/api/v1/cluster/shards/3/transfer"),
        (0, "/api/v1/fence/auth/%2e%2e/x"),
        (0, "/livez"),
        (0, "prefix=a%2Fb&limit=10&held=true&after=+"),
        (0, "/api/v1/locks/%00%ff%c0%80%2e%2e"),
    ];
    paths.iter().map(|(method, path)| [&[*method], path.as_bytes()].concat()).collect()
}

/// Bodies of calls; which calls they are for is any byte's to say.
fn bodies() -> Vec<String> {
    let session = machine::session(1);
    let lock_id = LockId::new(session, Token(1), &machine::key(0));
    let acquire = format!(
        r#"{{"sessionId":"{session}","mode":"semaphore","permits":3,"timeout":30,"wait":1.5,"priority":-1,"lockDelay":0.1,"metadata":{{"a":"b"}}}}"#
    );
    vec![
        acquire.clone(),
        format!(r#"{{"lockId":"{lock_id}","timeout":0.1}}"#),
        r#"{"reason":"stuck"}"#.into(),
        r#"{"clientId":"w","ttl":10,"metadata":{"host":"h"}}"#.into(),
        format!(r#"{{"candidateId":"c","sessionId":"{session}","wait":2}}"#),
        format!(r#"{{"value":"stage 2","sessionId":"{session}"}}"#),
        r#"{"checks":[{"name":"a","fencingToken":1},{"name":"b","fencingToken":9007199254740991}]}"#.into(),
        format!(
            r#"{{"requests":[{{"method":"POST","path":"/locks/a/acquire","body":{acquire}}},{{"method":"GET","path":"/api/v1/locks?limit=2"}}]}}"#
        ),
        format!(r#"{{"address":"10.0.0.7","port":80,"tags":["b","a"],"weight":3,"sessionId":"{session}"}}"#),
        r#"{"address":"h.example","port":80,"metadata":{"zone":"a"},"health":"warning","ttl":5}"#.into(),
        r#"{"health":"critical"}"#.into(),
        r#"{"to":2}"#.into(),
        r#"{"a":[[[[{"\u0000":1e308}]]]],"a":null}"#.into(),
    ]
}

/// Whole calls, in parts: each body to each call, and a few with headers and queries.
pub fn http_calls() -> Vec<Vec<u8>> {
    let session = machine::session(1).to_string();
    let names = ["a", "a%2Fb", session.as_str(), "3"];
    let mut seeds = Vec::new();
    for call in 0..27u8 {
        let name = names[match call {
            7 | 8 => 2,
            19 => 3,
            other => usize::from(other % 2),
        }];
        for (method, body) in [(1, ""), (2, "")].into_iter().chain(bodies().iter().map(|body| (0, body.as_str()))) {
            seeds.push([&[call, method, call], name.as_bytes(), b"\n\n\n", body.as_bytes()].concat());
        }
        for body in bodies().iter().filter(|_| call >= 20) {
            seeds.push([&[call, 3, call], name.as_bytes(), b"\n\n\n", body.as_bytes()].concat());
        }
    }
    let page = b"\x00\x01\x05x\nheld=true&prefix=a&limit=10&after=a%20\n\x001.5\n\x01key\n\x04same-origin\n\n";
    let fence = b"\x00\x01\x0ex\n\n\x06a%2Fb\n\x0717\n\n";
    let resumed = b"\x00\x01\x0ca\n\n\x0512\n\n";
    seeds.extend([page.to_vec(), fence.to_vec(), resumed.to_vec(), b"\x00\x01\xff/metrics\n\n".to_vec()]);
    seeds
}

/// Connections.
pub fn http_streams() -> Vec<Vec<u8>> {
    let post = |path: &str, body: &str| {
        let head = format!("POST /api/v1{path} HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n");
        format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())
    };
    let all = bodies();
    let streams = [
        "GET /api/v1/locks/a HTTP/1.1\r\nHost: h\r\n\r\nGET /livez HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
            .into(),
        post("/locks/a/acquire", &all[0]),
        post("/batch", &all[6]),
        format!("{}{}", post("/sessions", &all[3]), post("/fence/check", &all[5])),
        "POST /api/v1/sessions HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"cli\r\n0\r\n\r\n"
            .into(),
        "GET /api/v1/leader/a/observe HTTP/1.1\r\nHost: h\r\nLast-Event-ID: AQEBAQU0k7EF\r\n\r\n".into(),
        "POST /api/v1/sessions HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n".into(),
        "GET /api/v1/fence/auth HTTP/1.0\r\nX-Wardlock-Lock: a\r\nX-Wardlock-Token: 1\r\n\r\n".into(),
        format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(20_000)),
    ];
    streams.iter().map(|stream: &String| [&[0, 5], stream.as_bytes()].concat()).collect()
}

/// Names, ids, addresses, peers.
pub fn names() -> Vec<Vec<u8>> {
    let key = machine::key(0);
    let mut texts: Vec<String> =
        ["orders/42", "{orders}/42", "a{}{b}c", "é{ü}", "h:7401", "[::1]:7401", "1=a:1, 2=[::1]:2"]
            .map(Into::into)
            .to_vec();
    texts.push(machine::session(1).to_string());
    texts.push(LockId::new(machine::session(1), Token(17), &key).to_string());
    texts.push("x".repeat(limits::NAME_BYTES));
    texts.into_iter().map(String::into_bytes).collect()
}

/// Configuration files.
pub fn config() -> Vec<Vec<u8>> {
    let small = "cluster = \"c\"\nnode = 1\ndata_dir = \"d\"\ncerts = \"certs\"\n[peers]\n1 = \"a:7401\"\n";
    let large = "node = 2\ncluster = \"prod-1\"\ndata_dir = \"/var/lib/wardlock\"\nlisten_quic = \"0.0.0.0:7401\"\n\
                 advertise_quic = \"b:7401\"\nlisten_http = \"[::1]:7400\"\nadvertise_http = \"b:7400\"\nshards = 64\n\
                 replicas = 3\ncerts = \"/c\"\ndomain = \"r1\"\nheartbeat_ms = 100\nelection_min_ms = 300\n\
                 election_max_ms = 500\ndisk_low_mark_mib = 100\ndisk_reserve_mib = 10\ncerts_hint = \"h\"\n\
                 [peers]\n1 = \"a:7401\"\n2 = \"b:7401\"\n3 = \"[::1]:7401\"\n";
    [small, large, "shards = 0x10", "peers = { 1 = 'a:1' }\nnode = 1_0\n"].map(|text| text.as_bytes().to_vec()).to_vec()
}

/// Certificates of nodes, of clients, and of nobody.
pub fn certificates() -> Vec<Vec<u8>> {
    let names: [&[&str]; 4] = [
        &["localhost", "node-7.wardlock"],
        &["client.wardlock", "127.0.0.1"],
        &["node-1.wardlock", "node-2.wardlock"],
        &["node-007.wardlock"],
    ];
    let made = names.map(|names| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        rcgen::generate_simple_self_signed(names).expect("a certificate")
    });
    let mut seeds: Vec<Vec<u8>> = made.iter().map(|made| made.cert.der().to_vec()).collect();
    seeds.push(format!("{}{}", made[0].cert.pem(), made[0].signing_key.serialize_pem()).into_bytes());
    seeds
}
