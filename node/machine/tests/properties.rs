//! Random histories against the numbered invariants of the crate's documentation.
//!
//! The checks look through the public window only: outcomes, effects, queries and snapshots. A small
//! model beside the machine remembers when each lease may end at the earliest.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*};
use wardlock_machine::*;

const SESSIONS: u8 = 4;
const NAMES: [&str; 3] = ["a", "b", "c"];
const EPOCH: RangeEpoch = RangeEpoch(1);

/// A command before it knows which tokens exist.
#[derive(Clone, Debug)]
enum Op {
    Acquire { session: u8, key: u8, mode: u8, lease: u64, wait: u64, priority: i32, delay: u64, request: u8 },
    Release { session: u8, key: u8, pick: u8, request: u8 },
    Renew { session: u8, key: u8, pick: u8, lease: u64, request: u8 },
    Break { key: u8 },
    Cancel { session: u8, key: u8, request: u8 },
    Tick,
    Join { session: u8 },
    Drop { session: u8, expired: bool },
    Open { session: u8 },
    Close { session: u8 },
    Expire { session: u8 },
    Attach { session: u8, shard: u8 },
    Detached { session: u8, shard: u8 },
}

fn op() -> impl Strategy<Value = Op> {
    let s = 0..SESSIONS;
    let k = 0..5u8;
    let r = 0..24u8;
    let length = || prop_oneof![Just(0u64), 1_000..20_000u64];
    prop_oneof![
        10 => (s.clone(), k.clone(), 0..6u8, length(), length(), -1..2i32, length(), r.clone()).prop_map(
            |(session, key, mode, lease, wait, priority, delay, request)| Op::Acquire {
                session, key, mode, lease, wait, priority, delay, request,
            }
        ),
        6 => (s.clone(), k.clone(), any::<u8>(), r.clone())
            .prop_map(|(session, key, pick, request)| Op::Release { session, key, pick, request }),
        3 => (s.clone(), k.clone(), any::<u8>(), length(), r.clone())
            .prop_map(|(session, key, pick, lease, request)| Op::Renew { session, key, pick, lease, request }),
        1 => k.clone().prop_map(|key| Op::Break { key }),
        1 => (s.clone(), k, r).prop_map(|(session, key, request)| Op::Cancel { session, key, request }),
        4 => Just(Op::Tick),
        4 => s.clone().prop_map(|session| Op::Join { session }),
        1 => (s.clone(), any::<bool>()).prop_map(|(session, expired)| Op::Drop { session, expired }),
        1 => s.clone().prop_map(|session| Op::Open { session }),
        1 => s.clone().prop_map(|session| Op::Close { session }),
        1 => s.clone().prop_map(|session| Op::Expire { session }),
        1 => (s.clone(), 0..3u8).prop_map(|(session, shard)| Op::Attach { session, shard }),
        1 => (s, 0..3u8).prop_map(|(session, shard)| Op::Detached { session, shard }),
    ]
}

fn history() -> impl Strategy<Value = Vec<(u64, Op)>> {
    vec((prop_oneof![3 => Just(0u64), 2 => 0..8_000u64], op()), 1..120)
}

fn session(number: u8) -> SessionId {
    SessionId::new(Incarnation(1), 100 + u128::from(number))
}

fn key(number: u8) -> Key {
    match number {
        0..3 => Key::lock(Name::new(NAMES[usize::from(number)]).unwrap()),
        _ => Key::election(Name::new(NAMES[usize::from(number - 3)]).unwrap()),
    }
}

/// Half of the requests are keyed, and few enough numbers that repeats happen.
fn request(number: u8) -> RequestId {
    match number {
        0..12 => RequestId::Keyed { key: number.into() },
        _ => RequestId::Native { seq: number.into(), low: u64::from(number).saturating_sub(6) },
    }
}

fn holder(session: SessionId) -> Holder {
    let metadata = Metadata::from([("host".to_owned(), "h1".to_owned())]);
    Holder { client_id: format!("client-{}", session.0 as u8), ttl: Millis(10_000), metadata }
}

fn some(length: u64) -> Option<Millis> {
    (length > 0).then_some(Millis(length))
}

fn commands(machine: &Machine, op: &Op) -> Vec<Command> {
    let lock_id = |of: u8, on: u8, pick: u8| {
        let held = object(machine, &key(on)).map(|object| object.holders).unwrap_or_default();
        // Mostly a live grant, sometimes any number.
        match held.iter().find(|grant| grant.lock_id.session == session(of)) {
            Some(grant) if pick > 40 => grant.lock_id,
            _ => LockId::new(session(of), Token(u64::from(pick % 40)), &key(on)),
        }
    };
    match op.clone() {
        Op::Acquire { session: of, key: on, mode, lease, wait, priority, delay, request: id } => {
            vec![Command::Acquire(Acquire {
                session: session(of),
                request: request(id),
                key: key(on),
                mode: match mode {
                    _ if on >= 3 => Mode::Exclusive,
                    0..2 => Mode::Exclusive,
                    2..5 => Mode::Shared,
                    _ => Mode::Semaphore { permits: 2 },
                },
                lease: some(lease),
                wait: Millis(wait),
                priority,
                lock_delay: Millis(delay / 4),
                metadata: Metadata::new(),
                value: (on >= 3).then(|| "candidate".to_owned()),
            })]
        }
        Op::Release { session: of, key: on, pick, request: id } => {
            vec![Command::Release { request: request(id), key: key(on), lock_id: lock_id(of, on, pick) }]
        }
        Op::Renew { session: of, key: on, pick, lease, request: id } => vec![Command::Renew {
            request: request(id),
            key: key(on),
            lock_id: lock_id(of, on, pick),
            lease: some(lease),
        }],
        Op::Break { key: on } => vec![Command::Break { key: key(on), reason: "stuck".into() }],
        Op::Cancel { session: of, key: on, request: id } => {
            vec![Command::Cancel { session: session(of), request: request(id), key: key(on) }]
        }
        Op::Tick => vec![Command::Tick],
        Op::Join { session: of } => {
            let session = session(of);
            match machine.attachment(session) {
                Attachment::None => vec![Command::Pend { session }],
                Attachment::Pending(nonce) => vec![Command::Confirm { session, nonce, holder: holder(session) }],
                Attachment::Attached => vec![Command::Pend { session }],
            }
        }
        Op::Drop { session: of, expired } => {
            let reason = if expired { EndReason::SessionExpired } else { EndReason::SessionClosed };
            vec![Command::Drop { session: session(of), reason }]
        }
        Op::Open { session: of } => {
            vec![Command::OpenSession { session: session(of), holder: holder(session(of)) }]
        }
        Op::Close { session: of } => vec![Command::CloseSession { session: session(of) }],
        Op::Expire { session: of } => {
            vec![Command::ExpireSessions { sessions: vec![session(of)], term: Term(1) }]
        }
        Op::Attach { session: of, shard } => {
            vec![Command::Attach { session: session(of), shard: ShardId(shard.into()) }]
        }
        Op::Detached { session: of, shard } => {
            vec![Command::Detached { session: session(of), shard: ShardId(shard.into()) }]
        }
    }
}

fn object(machine: &Machine, key: &Key) -> Option<Object> {
    match machine.query(&Query::Object { key: key.clone() }) {
        Answer::Object(object) => object,
        other => panic!("{other:?}"),
    }
}

fn objects(machine: &Machine) -> Vec<Object> {
    (0..5).filter_map(|number| object(machine, &key(number))).collect()
}

fn apply(machine: &mut Machine, at: u64, commands: Vec<Command>) -> (Vec<Outcome>, Effects) {
    let (mut outcomes, mut effects) = (Vec::new(), Effects::default());
    let batch = Batch { at: Stamp(at), wall: WallMs(at), epoch: EPOCH, commands };
    machine.apply(Term(1), batch, &mut outcomes, &mut effects);
    (outcomes, effects)
}

fn fresh() -> Machine {
    let mut machine = Machine::new();
    let range = Command::SetRange { first: 0, last: u64::MAX, epoch: EPOCH, incarnation: Incarnation(1) };
    apply(&mut machine, 0, vec![range]);
    for number in 0..SESSIONS {
        for _ in 0..2 {
            let join = commands(&machine, &Op::Join { session: number });
            apply(&mut machine, 0, join);
        }
    }
    machine
}

/// Invariant 1, and what a query shows of 8.
fn check_holders(objects: &[Object]) {
    for object in objects {
        let idle = object.holders.is_empty() && object.queue.is_empty() && object.lock_delay_until.is_none();
        assert!(!idle, "invariant 8: {object:?}");
        let modes: Vec<Mode> = object.holders.iter().map(|grant| grant.mode).collect();
        match modes.first() {
            None => {}
            Some(Mode::Exclusive) => assert_eq!(modes.len(), 1, "invariant 1: {object:?}"),
            Some(Mode::Shared) => assert!(modes.iter().all(|mode| *mode == Mode::Shared), "invariant 1: {object:?}"),
            Some(Mode::Semaphore { permits }) => assert!(modes.len() <= *permits as usize, "invariant 1: {object:?}"),
        }
    }
}

/// Invariant 2: what is new in holders has a token above all before.
fn check_tokens(objects: &[Object], before: &BTreeMap<Token, Stamp>, last: Token) -> Token {
    let tokens = objects.iter().flat_map(|object| object.holders.iter().map(|grant| grant.lock_id.token));
    let mut highest = last;
    for token in tokens {
        assert!(before.contains_key(&token) || token > last, "invariant 2: token {token} after {last}");
        highest = highest.max(token);
    }
    highest
}

/// Invariant 4: nobody is granted past somebody who still waits ahead.
fn check_order(before: &[Object], after: &[Object], effects: &Effects) {
    for object in before {
        let still: Vec<SessionId> = after
            .iter()
            .filter(|now| now.key == object.key)
            .flat_map(|now| now.queue.iter().map(|waiting| waiting.session))
            .collect();
        let mut last = 0;
        for settled in effects.settled.iter().filter(|settled| settled.key == object.key) {
            if !matches!(settled.outcome, Outcome::Granted(_)) {
                continue;
            }
            let Some(place) = object.queue.iter().position(|waiting| waiting.session == settled.session) else {
                continue;
            };
            assert!(place >= last, "invariant 4: granted out of order on {}", object.key.name);
            last = place;
            for ahead in &object.queue[..place] {
                // Whoever asks anew with another mode or priority is settled as cancelled and comes last.
                let left = effects.settled.iter().any(|gone| {
                    let own = gone.key == object.key && gone.session == ahead.session;
                    own && !matches!(gone.outcome, Outcome::Granted(_))
                });
                assert!(left || !still.contains(&ahead.session), "invariant 4: overtaken on {}", object.key.name);
            }
        }
    }
}

/// What lease each grant has, and so when a tick may end it.
fn leases(
    objects: &[Object],
    old: &BTreeMap<Token, Stamp>,
    renewed: Option<Token>,
    now: Stamp,
) -> BTreeMap<Token, Stamp> {
    let grants = objects.iter().flat_map(|object| object.holders.iter());
    grants
        .map(|grant| {
            let token = grant.lock_id.token;
            let new = grant.lease.map_or(Stamp(u64::MAX), |lease| now.after(lease));
            let end = old.get(&token).copied().filter(|_| renewed != Some(token)).unwrap_or(new);
            (token, end)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_in_every_history(history in history()) {
        let mut machine = fresh();
        let (mut at, mut last, mut ends) = (0, Token(0), BTreeMap::new());
        for (pass, op) in &history {
            at += pass;
            for command in commands(&machine, op) {
                let before = objects(&machine);
                let revision = machine.revision();
                let (outcomes, effects) = apply(&mut machine, at, vec![command.clone()]);
                let after = objects(&machine);
                prop_assert_eq!(outcomes.len(), 1);
                check_holders(&after);
                last = check_tokens(&after, &ends, last);
                check_order(&before, &after, &effects);

                // Invariant 3: a grant goes by a command of its own, or by a tick at its deadline.
                let held = |token: &Token| {
                    after.iter().any(|object| object.holders.iter().any(|grant| grant.lock_id.token == *token))
                };
                let of_its_own = matches!(
                    command,
                    Command::Release { .. } | Command::Break { .. } | Command::Drop { .. } | Command::Cancel { .. }
                );
                for (token, end) in &ends {
                    let due = command == Command::Tick && *end <= machine.now();
                    prop_assert!(held(token) || of_its_own || due, "invariant 3: {token} went by {command:?}");
                    prop_assert!(!(held(token) && due), "a tick left {token} behind");
                }
                let renewed = match (&command, &outcomes[0]) {
                    (Command::Renew { lock_id, .. }, Outcome::Renewed(grant)) => {
                        // A repeated answer renews nothing: the wall time of the renewal tells it.
                        // It may speak of another grant, which the request's id renewed first.
                        let now = grant.expires.is_none_or(|end| end == WallMs(at).after(grant.lease.unwrap()));
                        (now && grant.lock_id == *lock_id).then_some(lock_id.token)
                    }
                    _ => None,
                };
                ends = leases(&after, &ends, renewed, machine.now());

                // Each revision is one event, and where holders changed there is one of theirs.
                let holders = |objects: &[Object]| -> BTreeMap<Key, Vec<LockId>> {
                    let of = |object: &Object| object.holders.iter().map(|grant| grant.lock_id).collect::<Vec<_>>();
                    let held = objects.iter().filter(|object| !object.holders.is_empty());
                    held.map(|object| (object.key.clone(), of(object))).collect()
                };
                let told: Vec<Event> = machine.happened(revision).cloned().collect();
                prop_assert_eq!(told.len() as u64, machine.revision().0 - revision.0, "invariant 11");
                let (old, new) = (holders(&before), holders(&after));
                for number in 0..5 {
                    let key = key(number);
                    let told = told.iter().any(|event| event.key == key);
                    prop_assert!(told || old.get(&key) == new.get(&key), "invariant 11");
                }
            }
        }
    }

    /// Invariants 5 and 6: a restore builds every index anew and must find what the machine had.
    #[test]
    fn a_restored_machine_is_the_same_and_goes_on_the_same(history in history(), cut in 0..120usize) {
        let mut machine = fresh();
        let mut other = None;
        let mut at = 0;
        for (index, (pass, op)) in history.iter().enumerate() {
            at += pass;
            let commands = commands(&machine, op);
            let done = apply(&mut machine, at, commands.clone());
            if let Some(other) = &mut other {
                prop_assert_eq!(&apply(other, at, commands), &done);
            }
            if index == cut.min(history.len() - 1) {
                let restored = Machine::restore(&machine.snapshot()).expect("its own snapshot");
                prop_assert_eq!(&restored, &machine);
                other = Some(restored);
            }
        }
        let other = other.expect("the cut is within the history");
        prop_assert_eq!(other.hash(), machine.hash());
        prop_assert_eq!(&Machine::restore(&machine.snapshot()).expect("its own snapshot"), &machine);
        prop_assert_eq!(other, machine);
    }

    /// Packing commands into batches changes neither their outcomes nor the state.
    #[test]
    fn a_batch_is_its_commands_one_by_one(ops in vec(op(), 1..60)) {
        let mut machine = fresh();
        let start = machine.clone();
        let (mut all, mut singly) = (Vec::new(), Vec::new());
        for op in &ops {
            for command in commands(&machine, op) {
                all.push(command.clone());
                singly.extend(apply(&mut machine, 5, vec![command]).0);
            }
        }
        let mut batched = start;
        let (outcomes, _) = apply(&mut batched, 5, all);
        prop_assert_eq!(outcomes, singly);
        prop_assert_eq!(batched.hash(), machine.hash());
    }

    /// Whether somebody asks for the answers changes neither the state nor its indexes.
    #[test]
    fn a_follower_comes_to_the_same_state(history in history()) {
        let mut machine = fresh();
        let mut follower = fresh();
        let mut at = 0;
        for (pass, op) in &history {
            at += pass;
            for command in commands(&machine, op) {
                let batch = Batch { at: Stamp(at), wall: WallMs(at), epoch: EPOCH, commands: vec![command.clone()] };
                apply(&mut machine, at, vec![command]);
                follower.follow(Term(1), batch);
            }
        }
        prop_assert_eq!(follower.hash(), machine.hash());
        prop_assert_eq!(follower, machine);
    }

    /// Invariant 9: the same command again answers the same and changes nothing. Only an operator's break
    /// means what it says each time.
    #[test]
    fn a_repeat_changes_nothing(history in history()) {
        let mut machine = fresh();
        let mut at = 0;
        for (pass, op) in &history {
            at += pass;
            for command in commands(&machine, op) {
                let (first, _) = apply(&mut machine, at, vec![command.clone()]);
                if matches!(command, Command::Break { .. }) {
                    continue;
                }
                let mut again = machine.clone();
                let (second, effects) = apply(&mut again, at, vec![command.clone()]);
                prop_assert_eq!(&second, &first, "{:?}", command);
                prop_assert_eq!(effects, Effects::default(), "{:?}", command);
                prop_assert!(again == machine, "{command:?} changed something when repeated");
            }
        }
    }

    /// Invariant 8: when every session is dropped and time has passed, nothing is left.
    #[test]
    fn nothing_leaks(history in history()) {
        let mut machine = fresh();
        let mut at = 0;
        for (pass, op) in &history {
            at += pass;
            let commands = commands(&machine, op);
            apply(&mut machine, at, commands);
        }
        for number in 0..SESSIONS {
            let drop = Command::Drop { session: session(number), reason: EndReason::SessionExpired };
            let (outcomes, _) = apply(&mut machine, at, vec![drop]);
            prop_assert_eq!(&outcomes, &[Outcome::Dropped { more: false }]);
        }
        apply(&mut machine, at + 1_000_000, vec![Command::Tick]);
        prop_assert_eq!(objects(&machine), vec![]);
        prop_assert_eq!(machine.next_deadline(), None);
        prop_assert!(!machine.keeps_time());
        prop_assert_eq!(machine.pendings().count() + machine.waiting().count(), 0);
        let counts = machine.counts();
        prop_assert_eq!(counts.exclusive + counts.shared + counts.semaphore + counts.waiters, 0);
        let sessions = machine.open_sessions().count() + machine.closing().count();
        // But for what happened, which is bounded by itself.
        let every = [Kind::Lock, Kind::Election, Kind::Config];
        let patterns = every.map(|kind| Pattern { kind, name: String::new(), prefix: true }).to_vec();
        let Answer::Events(Ok(past)) = machine.query(&Query::Events { after: Revision(0), patterns, limit: 1_000 })
        else {
            panic!("they are all there")
        };
        prop_assert_eq!(past.upto, machine.revision());
        let past = postcard::to_allocvec(&past).expect("plain data encodes").len();
        prop_assert!(machine.snapshot().len() < past + 100 + sessions * 100 + usize::from(SESSIONS) * 40);
    }

    /// Bytes from disks and peers never panic, and what they restore to works.
    #[test]
    fn damaged_snapshots_are_refused_or_sound(history in history(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut machine = fresh();
        let mut now = 0;
        for (pass, op) in &history {
            now += pass;
            let commands = commands(&machine, op);
            apply(&mut machine, now, commands);
        }
        let mut bytes = machine.snapshot();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(mut restored) = Machine::restore(&bytes) {
            for number in 0..SESSIONS {
                let drop = Command::Drop { session: session(number), reason: EndReason::SessionExpired };
                apply(&mut restored, now, vec![Command::Tick, drop]);
            }
        }
        prop_assert!(Machine::restore(&bytes[..at]).is_err());
    }
}
