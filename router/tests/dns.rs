//! DNS over real sockets, against a directory that says what each test tells it to.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hickory_proto::{
    op::{Edns, Message, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, RecordType},
};
use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    task::JoinHandle,
    time::timeout,
};
use wardlock_machine::Name as Key;
use wardlock_router::{
    Error,
    dns::{
        Directory, Found, Listener, Zone,
        answer::{Over, UDP_BYTES, answer},
        serve,
        server::CONNECTIONS,
    },
};

const PATIENCE: Duration = Duration::from_secs(10);

/// Services by name, and how often somebody asked.
#[derive(Clone, Default)]
struct Fake {
    services: Arc<Mutex<BTreeMap<String, Vec<Found>>>>,
    asked: Arc<AtomicUsize>,
    down: bool,
}

impl Fake {
    fn of(service: &str, found: impl IntoIterator<Item = Found>) -> Fake {
        let fake = Fake::default();
        fake.services.lock().unwrap().insert(service.to_owned(), found.into_iter().collect());
        fake
    }

    fn found(&self, service: &str) -> Result<Option<Vec<Found>>, Error> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match self.down {
            true => Err(Error::TooStale),
            false => Ok(self.services.lock().unwrap().get(service).cloned()),
        }
    }
}

impl Directory for Fake {
    async fn service(&self, service: Key) -> Result<Option<Vec<Found>>, Error> {
        self.found(service.as_str())
    }

    async fn instance(&self, service: Key, instance: Key) -> Result<Option<Found>, Error> {
        let found = self.found(service.as_str())?;
        Ok(found.into_iter().flatten().find(|found| found.instance == instance.as_str()))
    }
}

fn instance(number: usize, address: &str) -> Found {
    Found { instance: format!("i-{number}"), address: address.into(), port: 8_000 + number as u16, weight: 10 }
}

fn zone() -> Zone {
    Zone::new("wardlock", 0).expect("a zone")
}

struct Server {
    at: SocketAddr,
    running: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn server(fake: Fake) -> Server {
    let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free port");
    let at = listener.local_addr().expect("it is bound");
    Server { at, running: tokio::spawn(serve(listener, zone(), fake)) }
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(77, hickory_proto::op::MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    message
}

fn with_edns(mut message: Message, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    message.set_edns(edns);
    message
}

async fn udp(at: SocketAddr, bytes: &[u8]) -> Option<Message> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    socket.send_to(bytes, at).await.expect("loopback");
    let mut buffer = [0; 65_535];
    let length = timeout(PATIENCE, socket.recv(&mut buffer)).await.ok()?.ok()?;
    Some(Message::from_vec(&buffer[..length]).expect("an answer"))
}

async fn tcp(stream: &mut TcpStream, message: &Message) -> Message {
    let bytes = message.to_vec().expect("it encodes");
    stream.write_u16(bytes.len() as u16).await.expect("it is open");
    stream.write_all(&bytes).await.expect("it is open");
    let mut answer = vec![0; usize::from(stream.read_u16().await.expect("an answer"))];
    stream.read_exact(&mut answer).await.expect("the whole answer");
    Message::from_vec(&answer).expect("an answer")
}

/// Without sockets.
async fn ask(fake: &Fake, message: &Message, over: Over) -> Message {
    let bytes = answer(&zone(), fake, &message.to_vec().expect("it encodes"), over).await.expect("an answer");
    Message::from_vec(&bytes).expect("it decodes")
}

/// An answer's records as text, in order: type, and what it says.
fn told(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| format!("{} {}", record.record_type(), record.data)).collect()
}

#[tokio::test]
async fn the_same_is_answered_over_udp_and_tcp() {
    let fake = Fake::of("payments", [instance(1, "10.0.0.1"), instance(2, "::1"), instance(3, "db.example.net")]);
    let server = server(fake).await;
    let mut stream = TcpStream::connect(server.at).await.expect("it listens");
    let srv = [
        "SRV 0 10 8001 i-1.payments.service.wardlock.",
        "SRV 0 10 8002 i-2.payments.service.wardlock.",
        "SRV 0 10 8003 db.example.net.",
    ];
    let cases: [(&str, RecordType, &[&str]); 6] = [
        ("payments.service.wardlock.", RecordType::SRV, &srv),
        ("payments.service.wardlock.", RecordType::A, &["A 10.0.0.1"]),
        ("PAYMENTS.service.WardLock.", RecordType::AAAA, &["AAAA ::1"]),
        ("i-1.payments.service.wardlock.", RecordType::A, &["A 10.0.0.1"]),
        ("i-2.payments.service.wardlock.", RecordType::SRV, &srv[1..2]),
        ("0a000001.addr.wardlock.", RecordType::A, &["A 10.0.0.1"]),
    ];
    for (name, kind, expected) in cases {
        let asked = question(name, kind);
        let by_udp = udp(server.at, &asked.to_vec().expect("it encodes")).await.expect("an answer");
        assert_eq!(told(&by_udp), expected, "{name} {kind}");
        assert_eq!(by_udp, tcp(&mut stream, &asked).await, "{name} {kind}");
        assert_eq!((by_udp.metadata.id, by_udp.metadata.response_code), (77, ResponseCode::NoError));
        assert!(by_udp.metadata.authoritative && by_udp.metadata.recursion_desired);
        assert!(!by_udp.metadata.truncation && !by_udp.metadata.recursion_available);
        assert_eq!(by_udp.queries, asked.queries, "the question as it was written");
        assert!(by_udp.answers.iter().all(|record| record.ttl == 0), "nobody may remember it");
    }
    let all = ask(
        &Fake::of("p", [instance(1, "10.0.0.1"), instance(2, "::1")]),
        &question("p.service.wardlock.", RecordType::SRV),
        Over::Udp,
    )
    .await;
    let beside: Vec<String> = all.additionals.iter().map(|record| format!("{} {}", record.name, record.data)).collect();
    assert_eq!(beside, ["i-1.p.service.wardlock. 10.0.0.1", "i-2.p.service.wardlock. ::1"]);
}

#[tokio::test]
async fn what_is_not_there_is_said_so_that_it_may_come() {
    let fake = Fake::of("payments", [instance(1, "10.0.0.1")]);
    fake.services.lock().unwrap().insert("idle".into(), Vec::new());
    for (name, kind, code) in [
        ("unknown.service.wardlock.", RecordType::SRV, ResponseCode::NXDomain),
        ("i-9.payments.service.wardlock.", RecordType::A, ResponseCode::NXDomain),
        ("elsewhere.wardlock.", RecordType::A, ResponseCode::NXDomain),
        ("payments.service.wardlock.", RecordType::AAAA, ResponseCode::NoError),
        ("payments.service.wardlock.", RecordType::TXT, ResponseCode::NoError),
        ("idle.service.wardlock.", RecordType::SRV, ResponseCode::NoError),
        ("service.wardlock.", RecordType::A, ResponseCode::NoError),
        ("wardlock.", RecordType::NS, ResponseCode::NoError),
    ] {
        let answer = ask(&fake, &question(name, kind), Over::Udp).await;
        assert_eq!((answer.metadata.response_code, told(&answer)), (code, vec![]), "{name} {kind}");
        let RData::SOA(soa) = &answer.authorities[0].data else { panic!("{name} {kind}: {answer:?}") };
        assert_eq!((soa.minimum, answer.authorities[0].ttl), (0, 0), "an absence is not to be remembered");
    }
    let apex = ask(&fake, &question("wardlock.", RecordType::SOA), Over::Udp).await;
    assert_eq!(apex.answers.len(), 1);
}

#[tokio::test]
async fn only_questions_about_the_zone_are_answered() {
    let fake = Fake::of("payments", [instance(1, "10.0.0.1")]);
    let code = async |message: &Message| {
        let answer = ask(&fake, message, Over::Udp).await;
        assert!(answer.answers.is_empty() && !answer.metadata.authoritative, "{answer:?}");
        answer.metadata.response_code
    };
    let here = "payments.service.wardlock.";
    assert_eq!(code(&question("example.com.", RecordType::A)).await, ResponseCode::Refused);
    assert_eq!(code(&question(".", RecordType::NS)).await, ResponseCode::Refused);
    assert_eq!(code(&question(here, RecordType::AXFR)).await, ResponseCode::Refused);
    assert_eq!(code(&question(here, RecordType::ANY)).await, ResponseCode::NotImp);
    let mut other = question(here, RecordType::SRV);
    other.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(code(&other).await, ResponseCode::Refused);
    let mut update = question(here, RecordType::SOA);
    update.metadata.op_code = OpCode::Update;
    assert_eq!(code(&update).await, ResponseCode::NotImp);
    let mut two = question(here, RecordType::SRV);
    two.add_query(two.queries[0].clone());
    assert_eq!(code(&two).await, ResponseCode::FormErr);
    let mut future = with_edns(question(here, RecordType::SRV), 1_232);
    future.edns.as_mut().expect("it has it").set_version(1);
    let answered = ask(&fake, &future, Over::Udp).await;
    // BADVERS, which shares its number with BADSIG.
    assert_eq!(u16::from(answered.metadata.response_code), 16);
    assert_eq!(fake.asked.load(Ordering::Relaxed), 0, "the cluster is not asked for nothing");
    let down = Fake { down: true, ..Fake::default() };
    assert_eq!(
        ask(&down, &question(here, RecordType::SRV), Over::Udp).await.metadata.response_code,
        ResponseCode::ServFail
    );
}

#[tokio::test]
async fn an_answer_is_as_large_as_its_asker_takes() {
    let fake = Fake::of("payments", (0..32).map(|number| instance(number, &format!("10.0.0.{number}"))));
    let srv = question("payments.service.wardlock.", RecordType::SRV);
    let size = async |message: &Message, over| {
        let bytes = answer(&zone(), &fake, &message.to_vec().expect("it encodes"), over).await.expect("an answer");
        (bytes.len(), Message::from_vec(&bytes).expect("it decodes"))
    };
    let (whole, all) = size(&srv, Over::Tcp).await;
    assert!(whole > UDP_BYTES && all.answers.len() == 32 && all.additionals.len() == 32, "{whole}");
    for (asked, most) in [
        (srv.clone(), 512),
        (with_edns(srv.clone(), 100), 512),
        (with_edns(srv.clone(), 900), 900),
        (with_edns(srv.clone(), 4_096), UDP_BYTES),
        (with_edns(srv.clone(), u16::MAX), UDP_BYTES),
    ] {
        let (bytes, cut) = size(&asked, Over::Udp).await;
        assert!(bytes <= most && cut.metadata.truncation, "{bytes} of {most}: {cut:?}");
        assert!(!cut.answers.is_empty() && cut.edns.is_some() == asked.edns.is_some());
        let (whole, all) = size(&asked, Over::Tcp).await;
        assert!(whole > most && !all.metadata.truncation && all.answers.len() == 32);
    }
    // What fits without the addresses beside is whole.
    let (_, few) = size(&with_edns(question("payments.service.wardlock.", RecordType::A), 1_232), Over::Udp).await;
    assert!(few.answers.len() == 32 && !few.metadata.truncation);
}

#[tokio::test]
async fn connections_are_bounded_and_a_bad_one_is_closed() {
    let server = server(Fake::of("payments", [instance(1, "10.0.0.1")])).await;
    let asked = question("payments.service.wardlock.", RecordType::A);
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(server.at).await.expect("it listens");
        assert_eq!(tcp(&mut stream, &asked).await.answers.len(), 1);
        open.push(stream);
    }
    let mut extra = TcpStream::connect(server.at).await.expect("the kernel accepts it");
    let closed = timeout(PATIENCE, extra.read_u8()).await.expect("it is closed soon");
    assert!(closed.is_err(), "one connection too many");
    // Those who are there are served, and make room.
    assert_eq!(tcp(&mut open[0], &asked).await.answers.len(), 1);
    let mut bad = open.pop().expect("there are some");
    bad.write_u16(u16::MAX).await.expect("it is open");
    assert!(timeout(PATIENCE, bad.read_u8()).await.expect("it is closed soon").is_err(), "too much was announced");
    let mut next = TcpStream::connect(server.at).await.expect("it listens");
    assert_eq!(tcp(&mut next, &asked).await.answers.len(), 1);
}

#[tokio::test]
async fn an_answer_is_not_answered_and_garbage_harms_nobody() {
    let server = server(Fake::of("payments", [instance(1, "10.0.0.1")])).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let asked = question("payments.service.wardlock.", RecordType::A);
    let mut reply = asked.clone();
    reply.metadata.message_type = hickory_proto::op::MessageType::Response;
    for nothing in [reply.to_vec().expect("it encodes"), Vec::new(), vec![0; 11], vec![0xff; 4_000]] {
        socket.send_to(&nothing, server.at).await.expect("loopback");
    }
    socket.send_to(&asked.to_vec().expect("it encodes"), server.at).await.expect("loopback");
    let mut buffer = [0; 512];
    let length = timeout(PATIENCE, socket.recv(&mut buffer)).await.expect("an answer").expect("loopback");
    let first = Message::from_vec(&buffer[..length]).expect("an answer");
    assert_eq!(told(&first), ["A 10.0.0.1"], "nothing else was answered");
}

/// A question with some bytes changed, or cut, or with more behind it.
fn almost() -> impl Strategy<Value = Vec<u8>> {
    let kinds = prop::sample::select(vec![RecordType::SRV, RecordType::A, RecordType::AAAA, RecordType::SOA]);
    let names = prop::sample::select(vec!["payments.service.wardlock.", "i-1.payments.service.wardlock.", "."]);
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (kinds, names, changes, any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..20)).prop_map(
        |(kind, name, changes, cut, more)| {
            let mut bytes = with_edns(question(name, kind), 1_232).to_vec().expect("it encodes");
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if more.is_empty() {
                bytes.truncate(cut.index(bytes.len()));
            }
            bytes.extend(more);
            bytes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whatever_comes_in_is_answered_by_a_message_or_not_at_all(
        bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..600), almost()],
        by_tcp in any::<bool>(),
    ) {
        let fake = Fake::of("payments", (0..32).map(|number| instance(number, "10.0.0.1")));
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let over = if by_tcp { Over::Tcp } else { Over::Udp };
        if let Some(reply) = runtime.block_on(answer(&zone(), &fake, &bytes, over)) {
            let message = Message::from_vec(&reply).expect("an answer decodes");
            prop_assert_eq!(message.metadata.id, u16::from_be_bytes([bytes[0], bytes[1]]));
            prop_assert!(by_tcp || reply.len() <= UDP_BYTES);
        }
    }
}
