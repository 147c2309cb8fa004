//! The machine of a shard: what its log holds, what it is asked, and the snapshots that it comes from.

use std::collections::{BTreeMap, BTreeSet};

use arbitrary::{Arbitrary, Unstructured};
use bytes::BytesMut;
use wardlock_machine::*;
use wardlock_wire::{Lane, Message, Response, frame::encode};

use crate::within;

/// How many sessions are attached to begin with.
const SESSIONS: u8 = 4;
const EPOCH: RangeEpoch = RangeEpoch(1);

/// A session that is attached to begin with, or not.
pub fn session(number: u8) -> SessionId {
    SessionId::new(Incarnation(1), u128::from(number))
}

fn holder(number: u8) -> Holder {
    let mut metadata = Metadata::from([("host".to_owned(), "h".to_owned())]);
    if number.is_multiple_of(2) {
        metadata.insert(SERIAL.to_owned(), "true".to_owned());
    }
    Holder { client_id: format!("client-{number}"), ttl: Millis(10_000), metadata }
}

/// A key of the few that there are.
pub fn key(number: u8) -> Key {
    let name = Name::new(["a", "b", "a/b", "{a}"][usize::from(number % 4)]).expect("a short name");
    if number % 8 < 5 { Key::lock(name) } else { Key::election(name) }
}

/// A change of one of few paths; one of eight is out of bounds.
pub fn configure(request: u8, on: u8, change: u8, expected: Option<u8>) -> Command {
    let value = vec![change; 3 * usize::from(change)];
    let long = if change % 8 == 7 { limits::LABEL_BYTES } else { 0 };
    let content = Content { content_type: format!("t/{}", "y".repeat(long)), value: Blob::new(&value) };
    Command::Configure(Configure {
        request: request.into(),
        key: Key::config(key(on).name),
        change: match change % 5 {
            0..3 => Change::Put(content),
            3 => Change::Delete,
            _ => Change::Rollback { to: Version(u64::from(change / 5)) },
        },
        expected: expected.map(|version| Version(version.into())),
    })
}

/// An instance of one of few services, its session's; one of sixteen is out of bounds.
pub fn register(request: u8, session: SessionId, on: u8, id: u8, how: u8) -> Command {
    let tags = (0..how % 4).map(|n| format!("t{n}")).collect();
    let metadata = (how % 3 == 0).then(|| ("zone".to_owned(), "z".repeat(usize::from(how))));
    Command::Register(Register {
        request: request.into(),
        key: Key::service(key(on).name),
        instance: instance(id),
        session,
        private: how % 5 == 0,
        spec: InstanceSpec {
            address: if how % 16 == 15 { "no address".to_owned() } else { format!("10.0.0.{how}") },
            port: u16::from(how).max(1),
            tags,
            weight: (how % 7).into(),
            metadata: metadata.into_iter().collect(),
        },
        health: health(how),
    })
}

fn instance(id: u8) -> Name {
    Name::new(["i", "j", "i/j", "k"][usize::from(id % 4)]).expect("a short name")
}

fn health(number: u8) -> Health {
    Health::ALL[usize::from(number % 3)]
}

/// Something about one of few webhooks; some of it out of bounds, or not known to its last change.
pub fn hook(request: u8, on: u8, act: u8, by: u8) -> Command {
    let (key, request) = (Key::hook(key(on).name), u128::from(request));
    let cursor = Cursor {
        incarnation: Incarnation(1),
        positions: [(ShardId(u32::from(by % 4)), Revision(u64::from(by)))].into(),
    };
    let dead = |n: u8| DeadLetter {
        shard: ShardId(1),
        revision: Revision(u64::from(n)),
        event: None,
        attempts: 8,
        error: "e".repeat(usize::from(n) * 2),
        died: WallMs(0),
    };
    match act % 8 {
        0 | 1 => Command::SetHook(SetHook {
            request,
            key,
            url: format!("http://h/{by}"),
            patterns: vec![Pattern { kind: Kind::Lock, name: String::new(), prefix: by < 240 }],
            secret: Secret::new("s".repeat(usize::from(by))),
            cursor,
        }),
        2 => Command::DropHook { request, key },
        3 => Command::SettleDead(SettleDead { request, key, redeliver: by % 2 == 0 }),
        _ => Command::Advance(Advance {
            key,
            epoch: HookEpoch(u64::from(act / 8)),
            cursor,
            dead: (0..by % 3).map(|n| dead(n.wrapping_mul(by))).collect(),
            settled: vec![(ShardId(1), Revision(u64::from(by)))],
            delivered: u32::from(by),
            failed: 1,
            error: None,
        }),
    }
}

fn batch(at: u64, commands: Vec<Command>) -> Batch {
    Batch { at: Stamp(at), wall: WallMs(at), epoch: EPOCH, commands }
}

/// A shard with its range and a few sessions attached.
pub fn shard() -> Machine {
    thread_local!(static MADE: Machine = new_shard());
    MADE.with(Machine::clone)
}

fn new_shard() -> Machine {
    let mut machine = Machine::new();
    let range = Command::SetRange { first: 0, last: u64::MAX, epoch: EPOCH, incarnation: Incarnation(1) };
    machine.follow(Term(1), batch(0, vec![range]));
    for number in 0..SESSIONS {
        let session = session(number);
        machine.follow(Term(1), batch(0, vec![Command::Pend { session }]));
        let Attachment::Pending(nonce) = machine.attachment(session) else { panic!("a pend is on record") };
        machine.follow(Term(1), batch(0, vec![Command::Confirm { session, nonce, holder: holder(number) }]));
        let open = Command::OpenSession { session, holder: holder(number) };
        machine.follow(Term(1), batch(0, vec![open]));
    }
    machine.follow(Term(1), batch(0, (0..4).map(|n| configure(n, n, n, None)).collect()));
    machine.follow(Term(1), batch(0, (0..4).map(|n| register(n, session(n), n / 2, n, n)).collect()));
    machine
}

/// Two replicas of one shard, of which one is asked.
pub(crate) struct Pair {
    pub(crate) asked: Machine,
    follows: Machine,
}

impl Pair {
    pub(crate) fn new(machine: Machine) -> Pair {
        Pair { follows: machine.clone(), asked: machine }
    }

    pub(crate) fn apply(&mut self, term: Term, batch: Batch) -> Vec<Outcome> {
        let (mut outcomes, mut effects) = (Vec::new(), Effects::default());
        let (count, before) = (batch.commands.len(), self.asked.now());
        self.follows.follow(term, batch.clone());
        self.asked.apply(term, batch, &mut outcomes, &mut effects);
        assert_eq!(outcomes.len(), count, "a command has no outcome of its own");
        assert!(self.asked.now() >= before, "invariant 3: the clock went back");
        outcomes.iter().for_each(|outcome| fits(Response::Outcome(outcome.clone())));
        outcomes
    }

    /// What must hold after any history.
    pub(crate) fn check(&self) {
        objects(&self.asked).iter().for_each(check_object);
        check_services(&self.asked);
        assert!(self.asked == self.follows, "a replica that nobody asks has come to another state");
        let bytes = self.asked.snapshot();
        let restored = Machine::restore(&bytes).expect("a state that came about can be restored");
        assert!(restored == self.asked, "a restored machine differs");
        assert_eq!(restored.hash(), self.asked.hash());
    }
}

/// The tokens that are held.
fn held(machine: &Machine) -> BTreeSet<Token> {
    let objects = objects(machine);
    objects.iter().flat_map(|object| object.holders.iter().map(|grant| grant.lock_id.token)).collect()
}

/// All objects of a shard, page by page.
pub(crate) fn objects(machine: &Machine) -> Vec<Object> {
    let mut all = Vec::new();
    for kind in [Kind::Lock, Kind::Election] {
        let mut after = None;
        for _ in 0..64 {
            let query = Query::List { kind, prefix: String::new(), held: None, session: None, after, limit: 100 };
            let Answer::List(page) = machine.query(&query) else { panic!("a list was asked for") };
            after = page.last().map(|object| object.key.name.as_str().to_owned());
            all.extend(page);
            if after.is_none() {
                break;
            }
        }
    }
    all
}

/// Every instance goes with a session that is attached, and the counts are what the lists say.
fn check_services(machine: &Machine) {
    let Answer::Services(services) = machine.query(&Query::Services { prefix: String::new(), after: None, limit: 100 })
    else {
        panic!("services were asked for")
    };
    let attached: BTreeSet<SessionId> = machine.attached().collect();
    let mut total = 0;
    for service in services {
        let key = Key::service(service.service.clone());
        let query = Query::Service { key: key.clone(), healthy: false, tag: None, after: None, limit: 1_000 };
        let Answer::Service(page) = machine.query(&query) else { panic!("a service was asked for") };
        assert!(service.total > 0 && service.total == page.total, "invariant 8: {service:?}");
        let healthy = page.instances.iter().filter(|view| view.health.is_healthy()).count();
        assert!(page.more || healthy == page.healthy as usize, "invariant 6: {page:?}");
        assert!(page.instances.iter().all(|view| attached.contains(&view.session)), "invariant 12: {page:?}");
        let Answer::Sample(drawn) = machine.query(&Query::Sample { key, count: 3, seed: 7 }) else {
            panic!("a sample was asked for")
        };
        assert!(drawn.iter().all(|view| view.health.is_healthy()), "invariant 13: {drawn:?}");
        assert_eq!(drawn.len(), 3.min(page.healthy as usize), "invariant 13: {drawn:?}");
        total += u64::from(page.total);
    }
    assert_eq!(machine.counts().instances.total(), total, "invariant 6: the instances are counted");
}

fn check_object(object: &Object) {
    let idle = object.holder_count == 0 && object.queue_count == 0 && object.lock_delay_until.is_none();
    assert!(!idle, "invariant 8: {object:?}");
    let modes: Vec<Mode> = object.holders.iter().map(|grant| grant.mode).collect();
    match modes.first() {
        None => {}
        Some(Mode::Exclusive) => assert_eq!(object.holder_count, 1, "invariant 1: {object:?}"),
        Some(Mode::Shared) => assert!(modes.iter().all(|mode| *mode == Mode::Shared), "invariant 1: {object:?}"),
        Some(Mode::Semaphore { permits }) => assert!(object.holder_count <= *permits, "invariant 1: {object:?}"),
    }
    let rising = object.holders.windows(2).all(|pair| pair[0].lock_id.token < pair[1].lock_id.token);
    assert!(rising, "invariant 2: {object:?}");
    let ordered = object.queue.windows(2).all(|pair| pair[0].priority >= pair[1].priority);
    assert!(ordered, "invariant 4: {object:?}");
}

/// An answer must fit the lane that it leaves by.
fn fits(response: Response) {
    let message = Message::Reply { id: u64::MAX, result: Ok(response) };
    let encoded = encode(&message, Lane::Client.frame_bytes(), &mut BytesMut::new());
    assert_eq!(encoded, Ok(()), "an answer does not fit its lane");
}

/// Entries of a shard's log as bytes, one after the other.
///
/// Whatever they say, the machine's invariants hold after each, and a follower comes to the same state.
pub fn batches(mut data: &[u8]) {
    let mut pair = Pair::new(shard());
    for term in 1..=8 {
        let decoded =
            within(crate::wire::ample(data.len()), "decoding a batch", || postcard::take_from_bytes::<Batch>(data));
        let Ok((batch, rest)) = decoded else { break };
        data = rest;
        pair.apply(Term(term / 2), batch);
    }
    pair.check();
}

/// A command, before it knows which tokens and nonces there are.
#[derive(Arbitrary, Debug)]
enum Step {
    Acquire {
        session: u8,
        key: u8,
        how: How,
        request: Request,
    },
    Release {
        id: Id,
        request: Request,
    },
    Renew {
        id: Id,
        lease: Option<Length>,
        request: Request,
    },
    Break {
        key: u8,
    },
    Configure {
        request: u8,
        path: u8,
        change: u8,
        expected: Option<u8>,
    },
    Cancel {
        session: u8,
        key: u8,
        request: Request,
    },
    Register {
        request: u8,
        session: u8,
        service: u8,
        instance: u8,
        how: u8,
    },
    Deregister {
        request: u8,
        session: Option<u8>,
        service: u8,
        instance: u8,
    },
    ReportHealth {
        request: u8,
        session: u8,
        service: u8,
        instance: u8,
        health: u8,
    },
    Tick,
    Pend {
        session: u8,
    },
    Confirm {
        session: u8,
        nonce: Option<u8>,
    },
    Unpend {
        session: u8,
        nonce: u8,
    },
    Drop {
        session: u8,
        expired: bool,
    },
    Open {
        session: u8,
        incarnation: u8,
    },
    Close {
        session: u8,
    },
    Expire {
        sessions: Vec<u8>,
        term: u8,
    },
    Checkpoint {
        sessions: Vec<(u8, Option<Length>)>,
    },
    Attach {
        session: u8,
        shard: u8,
    },
    Detached {
        session: u8,
        shard: u8,
    },
    Range {
        first: u64,
        last: u64,
        epoch: u8,
        incarnation: u16,
    },
    Hook {
        request: u8,
        on: u8,
        act: u8,
        by: u8,
    },
    /// The asked replica is made anew from its snapshot.
    Restore,
    /// The clock moves.
    Pass(Length),
    Proclaim {
        id: Id,
        value: u8,
        request: Request,
    },
}

#[derive(Arbitrary, Debug)]
struct How {
    mode: u8,
    lease: Option<Length>,
    wait: Length,
    priority: i8,
    lock_delay: Length,
    metadata: u8,
    value: bool,
}

/// Mostly some seconds; sometimes what is no length of anything.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Length {
    None,
    Seconds(u8),
    Millis(u16),
    Any(u64),
}

impl Length {
    fn millis(self) -> Millis {
        match self {
            Length::None => Millis(0),
            Length::Seconds(n) => Millis(u64::from(n) * 1_000),
            Length::Millis(n) => Millis(n.into()),
            Length::Any(n) => Millis(n),
        }
    }
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Request {
    Keyed(u8),
    Native { seq: u8, low: u8 },
    Extreme { seq: u64, low: u64 },
}

impl Request {
    fn id(self) -> RequestId {
        match self {
            Request::Keyed(n) => RequestId::Keyed { key: (n % 32).into() },
            Request::Native { seq, low } => RequestId::Native { seq: (seq % 32).into(), low: (low % 32).into() },
            Request::Extreme { seq, low } => RequestId::Native { seq, low },
        }
    }
}

/// Which grant is meant, and on which key.
#[derive(Arbitrary, Debug)]
struct Id {
    session: u8,
    key: u8,
    /// The grant that the session has of the key, or a token of whatever number.
    token: Option<u64>,
    foreign: bool,
}

impl Id {
    fn of(&self, machine: &Machine) -> (Key, LockId) {
        let (key, session) = (key(self.key), session(self.session % 6));
        let Answer::Object(object) = machine.query(&Query::Object { key: key.clone() }) else {
            panic!("an object was asked for")
        };
        let held = object.and_then(|object| object.holders.into_iter().find(|held| held.lock_id.session == session));
        let id = match (self.token, held) {
            (None, Some(grant)) => grant.lock_id,
            (token, _) => LockId::new(session, Token(token.unwrap_or(1)), &key),
        };
        if self.foreign { (self::key(self.key.wrapping_add(1)), id) } else { (key, id) }
    }
}

fn command(step: &Step, machine: &Machine) -> Option<Command> {
    let of = |number: &u8| session(number % 6);
    Some(match step {
        Step::Acquire { session, key: on, how, request } => {
            let key = key(*on);
            let mode = match how.mode % 8 {
                0..=2 => Mode::Exclusive,
                3 | 4 => Mode::Shared,
                5 => Mode::Semaphore { permits: 2 },
                6 => Mode::Semaphore { permits: 3 },
                _ => Mode::Semaphore { permits: u32::from(how.mode / 8) * 1_000 },
            };
            let length = usize::from(how.metadata) * 40;
            let metadata = (how.metadata % 4 == 3).then(|| ("m".to_owned(), "x".repeat(length)));
            Command::Acquire(Acquire {
                session: of(session),
                request: request.id(),
                mode,
                lease: how.lease.map(Length::millis),
                wait: how.wait.millis(),
                priority: (how.priority % 3).into(),
                lock_delay: how.lock_delay.millis(),
                metadata: metadata.into_iter().collect(),
                value: how.value.then(|| "v".repeat(usize::from(how.metadata) * 2)),
                key,
            })
        }
        Step::Release { id, request } => {
            let (key, lock_id) = id.of(machine);
            Command::Release { request: request.id(), key, lock_id }
        }
        Step::Renew { id, lease, request } => {
            let (key, lock_id) = id.of(machine);
            Command::Renew { request: request.id(), key, lock_id, lease: lease.map(Length::millis) }
        }
        Step::Break { key: on } => Command::Break { key: key(*on), reason: "x".repeat(usize::from(*on) * 2) },
        Step::Configure { request, path: on, change, expected } => configure(*request, *on, *change, *expected),
        Step::Hook { request, on, act, by } => hook(*request, *on, *act, *by),
        Step::Cancel { session, key: on, request } => {
            Command::Cancel { session: of(session), request: request.id(), key: key(*on) }
        }
        Step::Register { request, session, service, instance, how } => {
            register(*request, of(session), *service, *instance, *how)
        }
        Step::Deregister { request, session, service, instance: id } => Command::Deregister {
            request: (*request).into(),
            key: Key::service(key(*service).name),
            instance: instance(*id),
            session: session.as_ref().map(of),
        },
        Step::ReportHealth { request, session, service, instance: id, health: fares } => Command::ReportHealth {
            request: (*request).into(),
            key: Key::service(key(*service).name),
            instance: instance(*id),
            session: of(session),
            health: health(*fares),
        },
        Step::Tick => Command::Tick,
        Step::Pend { session } => Command::Pend { session: of(session) },
        Step::Confirm { session: number, nonce } => {
            let session = of(number);
            let drawn = match machine.attachment(session) {
                Attachment::Pending(nonce) => nonce,
                _ => Nonce(0),
            };
            let nonce = nonce.map_or(drawn, |nonce| Nonce(nonce.into()));
            Command::Confirm { session, nonce, holder: holder(number % 6) }
        }
        Step::Unpend { session, nonce } => Command::Unpend { session: of(session), nonce: Nonce((*nonce).into()) },
        Step::Drop { session, expired } => {
            let reason = if *expired { EndReason::SessionExpired } else { EndReason::SessionClosed };
            Command::Drop { session: of(session), reason }
        }
        Step::Open { session: number, incarnation } => {
            let session = SessionId::new(Incarnation((*incarnation).into()), of(number).0);
            Command::OpenSession { session, holder: holder(number % 6) }
        }
        Step::Close { session } => Command::CloseSession { session: of(session) },
        Step::Expire { sessions, term } => {
            Command::ExpireSessions { sessions: sessions.iter().map(of).collect(), term: Term((*term % 4).into()) }
        }
        Step::Checkpoint { sessions } => {
            let left = |(session, left): &(u8, Option<Length>)| (of(session), left.map(Length::millis));
            Command::Checkpoint { sessions: sessions.iter().map(left).collect() }
        }
        Step::Attach { session, shard } => Command::Attach { session: of(session), shard: ShardId((*shard).into()) },
        Step::Detached { session, shard } => {
            Command::Detached { session: of(session), shard: ShardId((*shard).into()) }
        }
        Step::Range { first, last, epoch, incarnation } => Command::SetRange {
            first: *first,
            last: *last,
            epoch: RangeEpoch((*epoch).into()),
            incarnation: Incarnation(*incarnation),
        },
        Step::Proclaim { id, value, request } => {
            let (key, lock_id) = id.of(machine);
            Command::Proclaim { request: request.id(), key, lock_id, value: "v".repeat(2 * usize::from(*value)) }
        }
        Step::Restore | Step::Pass(_) => return None,
    })
}

/// Histories of commands that mostly make sense, on few sessions and few names.
///
/// As with [`batches`], and in addition: the grants that are held were given in the order of their tokens, and
/// a lease that was granted is not over before its time.
pub fn commands(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut pair = Pair::new(shard());
    // The clock, the highest token of all so far, those that are held, and when each may end by itself.
    let (mut now, mut highest, mut before) = (0u64, Token(0), BTreeSet::new());
    let mut ends: BTreeMap<Token, Stamp> = BTreeMap::new();
    let mut counted = pair.asked.counts();
    for _ in 0..200 {
        if input.is_empty() {
            break;
        }
        let Ok(step) = input.arbitrary::<Step>() else { break };
        match &step {
            Step::Pass(length) => now = now.saturating_add(length.millis().0),
            Step::Restore => {
                let bytes = pair.asked.snapshot();
                pair.asked = Machine::restore(&bytes).expect("a state that came about can be restored");
            }
            _ => {}
        }
        let Some(command) = command(&step, &pair.asked) else { continue };
        let is_tick = command == Command::Tick;
        let epoch = pair.asked.epoch();
        let batch = Batch { at: Stamp(now), wall: WallMs(now), epoch, commands: vec![command] };
        let outcomes = pair.apply(Term(1), batch);

        // What is held is a long list; where as many were granted and are held as before, it is the same one.
        let counts = pair.asked.counts();
        let after = if counts == counted { before.clone() } else { held(&pair.asked) };
        counted = counts;
        for token in after.difference(&before) {
            assert!(*token > highest, "invariant 2: token {token} after {highest}");
        }
        highest = highest.max(after.last().copied().unwrap_or_default());
        for token in before.difference(&after).filter(|_| is_tick) {
            let end = ends.get(token);
            assert!(end.is_none_or(|end| *end <= pair.asked.now()), "invariant 3: {token} ended before {end:?}");
        }
        if let [Outcome::Granted(grant) | Outcome::Renewed(grant)] = outcomes.as_slice() {
            // A repeated answer shows the grant as it is, which may have begun before now.
            ends.insert(grant.lock_id.token, grant.expires.map_or(Stamp(u64::MAX), |end| Stamp(end.0)));
        }
        ends.retain(|token, _| after.contains(token));
        before = after;
    }
    pair.check();
}

thread_local!(static FURNISHED: Machine = furnished());

/// What a shard answers that has something of everything in it.
pub fn ask(query: &Query) -> Answer {
    FURNISHED.with(|machine| machine.query(query))
}

/// A shard with something of everything in it.
pub fn furnished() -> Machine {
    let mut machine = shard();
    for number in 0..24u8 {
        let acquire = Acquire {
            mode: if number % 3 == 0 { Mode::Shared } else { Mode::Exclusive },
            lease: (number % 2 == 0).then_some(Millis(20_000 + u64::from(number))),
            wait: Millis(u64::from(number % 4) * 5_000),
            lock_delay: Millis(u64::from(number % 5) * 100),
            value: Some("candidate".to_owned()),
            metadata: Metadata::from([("n".to_owned(), number.to_string())]),
            ..Acquire::new(
                session(number % SESSIONS),
                match number % 2 {
                    0 => RequestId::Native { seq: number.into(), low: 0 },
                    _ => RequestId::Keyed { key: number.into() },
                },
                key(number % 8),
            )
        };
        let acquire = Acquire { mode: if number % 8 < 5 { acquire.mode } else { Mode::Exclusive }, ..acquire };
        machine.follow(Term(1), batch(number.into(), vec![Command::Acquire(acquire)]));
    }
    let Answer::Object(Some(Object { holders, .. })) = machine.query(&Query::Object { key: key(5) }) else {
        panic!("somebody leads")
    };
    let more = vec![
        Command::Proclaim {
            request: RequestId::Keyed { key: 77 },
            key: key(5),
            lock_id: holders[0].lock_id,
            value: "stage 2".into(),
        },
        Command::Pend { session: session(9) },
        Command::Attach { session: session(1), shard: ShardId(3) },
        Command::CloseSession { session: session(1) },
        Command::CloseSession { session: session(2) },
        Command::Checkpoint { sessions: vec![(session(3), Some(Millis(4_000)))] },
        hook(1, 0, 0, 40),
        hook(2, 1, 0, 41),
        hook(3, 0, 8 + 4, 50),
    ];
    machine.follow(Term(1), batch(30, more));
    machine
}

/// Two sessions that wait for each other.
pub fn ring() -> Vec<Wait> {
    let wait = |number: u8| Wait {
        key: key(number),
        session: session(number),
        holder: format!("client-{number}"),
        serial: true,
        arrival: number.into(),
        priority: 0,
        since: WallMs(number.into()),
        blockers: Blockers::All(vec![(session(1 - number), Token(1 + u64::from(number)))]),
    };
    vec![wait(0), wait(1)]
}

/// A question as bytes, to a shard that has something of everything.
///
/// It is answered, in bounds, and changes nothing.
pub fn queries(data: &[u8]) {
    let decoded = within(crate::wire::ample(data.len()), "decoding a query", || postcard::from_bytes::<Query>(data));
    let Ok(query) = decoded else { return };
    let answer = ask(&query);
    match (&query, &answer) {
        (Query::List { limit, prefix, after, .. }, Answer::List(page)) => {
            assert!(page.len() <= *limit as usize);
            let names: Vec<&str> = page.iter().map(|object| object.key.name.as_str()).collect();
            assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "a list out of order");
            let ours = |name: &&str| name.starts_with(prefix) && after.as_deref().is_none_or(|after| *name > after);
            assert!(names.iter().all(ours), "{names:?} to {query:?}");
        }
        (Query::Sessions { limit, .. }, Answer::Sessions(page)) => assert!(page.len() <= *limit as usize),
        (Query::Fence { checks }, Answer::Fence(verdicts)) => assert_eq!(checks.len(), verdicts.len()),
        (Query::Configs { limit, .. }, Answer::Configs(page)) => {
            assert!(page.len() <= *limit as usize);
            assert!(page.windows(2).all(|pair| pair[0].path < pair[1].path), "a list out of order");
        }
        (Query::Services { limit, .. }, Answer::Services(page)) => {
            assert!(page.len() <= *limit as usize);
            assert!(page.windows(2).all(|pair| pair[0].service < pair[1].service), "a list out of order");
        }
        (Query::Service { limit, healthy, tag, .. }, Answer::Service(page)) => {
            assert!(page.instances.len() <= *limit as usize && page.instances.len() <= page.total as usize);
            assert!(page.instances.windows(2).all(|pair| pair[0].instance < pair[1].instance), "a list out of order");
            let ours = |view: &InstanceView| {
                (!healthy || view.health.is_healthy()) && tag.as_ref().is_none_or(|tag| view.spec.tags.contains(tag))
            };
            assert!(page.instances.iter().all(ours), "{page:?} to {query:?}");
        }
        (Query::Instance { instance, .. }, Answer::Instance(view)) => {
            assert!(view.as_ref().is_none_or(|view| view.instance == *instance), "{view:?} to {query:?}");
        }
        (Query::Sample { count, .. }, Answer::Sample(drawn)) => {
            assert!(drawn.len() <= (*count as usize).min(limits::SAMPLE));
            assert!(drawn.iter().all(|view| view.health.is_healthy()), "invariant 13: {drawn:?}");
        }
        (Query::Versions { .. }, Answer::Versions(kept)) => {
            assert!(kept.windows(2).all(|pair| pair[0].version > pair[1].version), "versions out of order");
        }
        (Query::Config { key, version }, Answer::Config(view)) => {
            let fits = |view: &ConfigView| view.path == key.name && version.is_none_or(|at| view.version == at);
            assert!(view.as_ref().is_none_or(fits), "{view:?} to {query:?}");
        }
        (Query::Events { after, patterns, limit }, Answer::Events(Ok(page))) => {
            assert!(page.events.len() <= *limit as usize && page.upto >= *after);
            let ours = |event: &Event| patterns.iter().any(|pattern| pattern.fits(&event.key));
            assert!(page.events.iter().all(ours), "{page:?} to {query:?}");
            let revisions: Vec<Revision> = page.events.iter().map(|event| event.revision).collect();
            assert!(revisions.windows(2).all(|pair| pair[0] < pair[1]), "events out of order");
            assert!(revisions.iter().all(|at| at > after && *at <= page.upto), "{page:?} to {query:?}");
        }
        (Query::Events { after, .. }, Answer::Events(Err(NoEvents::Ahead { now }))) => assert!(now < after),
        (Query::Events { after, .. }, Answer::Events(Err(NoEvents::Compacted { gone, .. }))) => assert!(gone > after),
        (Query::Hooks { limit, .. }, Answer::Hooks(page)) => {
            assert!(page.len() <= *limit as usize);
            assert!(page.windows(2).all(|pair| pair[0].name < pair[1].name), "a list out of order");
        }
        (Query::Hook { key }, Answer::Hook(view)) => {
            assert!(view.as_ref().is_none_or(|view| view.name == key.name), "{view:?} to {query:?}");
        }
        (Query::DeadLetters { .. }, Answer::DeadLetters(_)) => {}
        (Query::Waits { after }, Answer::Waits { waits, .. }) => {
            assert!(waits.iter().all(|wait| after.as_ref().is_none_or(|after| wait.key > *after)));
            assert!(waits.windows(2).all(|pair| pair[0].key <= pair[1].key), "a list out of order");
        }
        (Query::Object { .. }, Answer::Object(_)) | (Query::Session { .. }, Answer::Session(_)) => {}
        _ => panic!("{answer:?} answers another question than {query:?}"),
    }
    fits(Response::Answer(answer));
}
