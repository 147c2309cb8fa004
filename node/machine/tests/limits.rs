//! Bounds: what happens at them, and that work comes in pages.

use wardlock_machine::*;

struct Shard {
    machine: Machine,
    effects: Effects,
    now: u64,
}

impl Shard {
    fn new() -> Shard {
        let mut shard = Shard { machine: Machine::new(), effects: Effects::default(), now: 0 };
        shard.range(1, 1);
        shard
    }

    fn range(&mut self, epoch: u64, incarnation: u16) {
        self.one(Command::SetRange {
            first: 0,
            last: u64::MAX,
            epoch: RangeEpoch(epoch),
            incarnation: Incarnation(incarnation),
        });
    }

    fn all(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        self.effects = Effects::default();
        let batch = Batch { at: Stamp(self.now), wall: WallMs(self.now), epoch: self.machine.epoch(), commands };
        self.machine.apply(Term(1), batch, &mut outcomes, &mut self.effects);
        outcomes
    }

    fn one(&mut self, command: Command) -> Outcome {
        self.all(vec![command]).remove(0)
    }

    fn join(&mut self, session: SessionId) {
        let Outcome::Pending { nonce } = self.one(Command::Pend { session }) else { panic!("no attempt") };
        assert_eq!(self.one(Command::Confirm { session, nonce, holder: holder() }), Outcome::Done);
    }
}

fn holder() -> Holder {
    Holder { client_id: "c".into(), ttl: Millis(10_000), metadata: Metadata::new() }
}

fn session(number: u64) -> SessionId {
    SessionId::new(Incarnation(1), number.into())
}

fn lock(number: u64) -> Key {
    Key::lock(Name::new(&format!("n{number:06}")).unwrap())
}

fn acquire(session: SessionId, seq: u64, key: Key) -> Acquire {
    Acquire::new(session, RequestId::Native { seq, low: 0 }, key)
}

const S1: SessionId = SessionId(1 << 112 | 1);
const S2: SessionId = SessionId(1 << 112 | 2);

#[test]
fn a_tick_ends_a_page_and_says_that_there_is_more() {
    let mut shard = Shard::new();
    shard.join(S1);
    let leased = |n| Command::Acquire(Acquire { lease: Some(Millis(1_000)), ..acquire(S1, n, lock(n)) });
    shard.all((0..1_500).map(leased).collect());
    shard.now = 1_000;
    shard.one(Command::Tick);
    assert_eq!(shard.effects.lost.len(), limits::PAGE);
    assert!(shard.machine.next_deadline().is_some_and(|at| at <= shard.machine.now()));
    shard.one(Command::Tick);
    assert_eq!(shard.effects.lost.len(), 500);
    assert_eq!(shard.machine.next_deadline(), None);
}

#[test]
fn a_session_is_dropped_by_the_page_and_gets_nothing_new_meanwhile() {
    let mut shard = Shard::new();
    shard.join(S1);
    shard.join(S2);
    shard.all((0..1_500).map(|n| Command::Acquire(acquire(S1, n, lock(n)))).collect());
    let reason = EndReason::SessionClosed;
    assert_eq!(shard.one(Command::Drop { session: S1, reason }), Outcome::Dropped { more: true });
    assert_eq!(shard.machine.attachment(S1), Attachment::None);
    assert_eq!(shard.one(Command::Acquire(acquire(S1, 9_000, lock(0)))), Outcome::NotAttached);
    assert_eq!(shard.one(Command::Pend { session: S1 }), Outcome::Ended);
    assert_eq!(shard.one(Command::Drop { session: S1, reason }), Outcome::Dropped { more: false });
    assert_eq!(shard.machine.counts().exclusive, 0);
    assert!(matches!(shard.one(Command::Pend { session: S1 }), Outcome::Pending { .. }));
}

#[test]
fn a_session_that_is_half_dropped_is_not_granted_what_it_waited_for() {
    let mut shard = Shard::new();
    shard.join(S1);
    shard.join(S2);
    shard.all((0..1_500).map(|n| Command::Acquire(acquire(S1, n, lock(n)))).collect());
    let waits = |n| Command::Acquire(Acquire { wait: Millis(60_000), ..acquire(S2, n, lock(n)) });
    shard.all((0..1_500).map(waits).collect());
    let reason = EndReason::SessionExpired;
    assert_eq!(shard.one(Command::Drop { session: S2, reason }), Outcome::Dropped { more: true });
    let outcome = shard.one(Command::Break { key: lock(1_499), reason: String::new() });
    assert!(matches!(&outcome, Outcome::Broken(grants) if grants.len() == 1), "{outcome:?}");
    let settled: Vec<&Outcome> = shard.effects.settled.iter().map(|settled| &settled.outcome).collect();
    assert_eq!(settled, [&Outcome::Ended]);
    assert_eq!(shard.one(Command::Drop { session: S2, reason }), Outcome::Dropped { more: false });
    assert_eq!(shard.machine.counts().waiters, 0);
}

#[test]
fn a_session_holds_and_waits_for_so_many_and_no_more() {
    let mut shard = Shard::new();
    shard.join(S1);
    let most = limits::GRANTS_PER_SESSION as u64;
    shard.all((0..most).map(|n| Command::Acquire(acquire(S1, n, lock(n)))).collect());
    let over = Outcome::Limit(Limit::GrantsPerSession);
    assert_eq!(shard.one(Command::Acquire(acquire(S1, most, lock(most)))), over);
    let release = Command::Release {
        request: RequestId::Native { seq: most + 1, low: 0 },
        key: lock(7),
        lock_id: LockId::new(S1, Token(8), &lock(7)),
    };
    assert_eq!(shard.one(release), Outcome::Released);
    // The refusal was not kept: the same request may be tried again.
    assert!(matches!(shard.one(Command::Acquire(acquire(S1, most, lock(most)))), Outcome::Granted(_)));
}

#[test]
fn native_answers_are_bounded_and_what_is_forgotten_is_never_run_again() {
    let mut shard = Shard::new();
    shard.join(S1);
    let most = limits::ANSWERS_PER_SESSION as u64;
    shard.all((0..=most).map(|n| Command::Acquire(acquire(S1, n, lock(n)))).collect());
    shard.one(Command::Break { key: lock(0), reason: String::new() });
    assert_eq!(shard.one(Command::Acquire(acquire(S1, 0, lock(0)))), Outcome::TooOld);
    assert!(matches!(shard.one(Command::Acquire(acquire(S1, 1, lock(1)))), Outcome::Granted(_)));
}

#[test]
fn keyed_answers_are_bounded_and_the_oldest_goes_first() {
    let mut shard = Shard::new();
    shard.join(S1);
    shard.join(S2);
    let keyed = |key| Acquire { request: RequestId::Keyed { key }, ..acquire(S1, 0, lock(0)) };
    shard.one(Command::Acquire(acquire(S2, 0, lock(0))));
    for key in 0..=limits::KEYS_PER_SESSION as u128 {
        assert!(matches!(shard.one(Command::Acquire(keyed(key))), Outcome::Held(_)));
    }
    shard.one(Command::Break { key: lock(0), reason: String::new() });
    assert!(matches!(shard.one(Command::Acquire(keyed(1))), Outcome::Held(_)), "this answer is kept");
    assert!(matches!(shard.one(Command::Acquire(keyed(0))), Outcome::Granted(_)), "this one went");
}

#[test]
fn released_lock_ids_are_remembered_and_then_expired() {
    let mut shard = Shard::new();
    shard.join(S1);
    let release = |seq, token| Command::Release {
        request: RequestId::Native { seq, low: 1_000 },
        key: lock(0),
        lock_id: LockId::new(S1, Token(token), &lock(0)),
    };
    let most = limits::RELEASED_PER_SESSION as u64;
    for n in 1..=most + 1 {
        shard.one(Command::Acquire(acquire(S1, 1_000 + 2 * n, lock(0))));
        assert_eq!(shard.one(release(1_001 + 2 * n, n)), Outcome::Released);
    }
    assert_eq!(shard.one(release(5_000, 2)), Outcome::Released);
    assert_eq!(shard.one(release(5_001, 1)), Outcome::Expired);
}

/// What a leader proclaims is in the state, in the events and in every answer: it is as bounded as a candidate's name.
#[test]
fn a_proclamation_is_bounded_and_is_for_elections() {
    let mut shard = Shard::new();
    shard.join(S1);
    let election = Key::election(Name::new("e").unwrap());
    let campaign = Acquire { value: Some("v".into()), ..acquire(S1, 1, election.clone()) };
    let Outcome::Granted(grant) = shard.one(Command::Acquire(campaign)) else { panic!("not elected") };
    let Outcome::Granted(held) = shard.one(Command::Acquire(acquire(S1, 2, lock(0)))) else { panic!("not held") };
    let proclaim = |seq, key: &Key, lock_id, length| Command::Proclaim {
        request: RequestId::Native { seq, low: 0 },
        key: key.clone(),
        lock_id,
        value: "v".repeat(length),
    };
    let revision = shard.machine.revision();
    for command in
        [proclaim(3, &election, grant.lock_id, limits::LABEL_BYTES + 1), proclaim(4, &lock(0), held.lock_id, 1)]
    {
        assert!(!command.is_within_bounds());
        assert_eq!(shard.one(command), Outcome::Limit(Limit::Field));
    }
    assert_eq!(shard.machine.revision(), revision);
    let longest = proclaim(3, &election, grant.lock_id, limits::LABEL_BYTES);
    assert!(longest.is_within_bounds());
    let Outcome::Renewed(same) = shard.one(longest) else { panic!("not proclaimed") };
    assert_eq!((same.lock_id, same.value.map(|value| value.len())), (grant.lock_id, Some(limits::LABEL_BYTES)));
    assert_eq!(Machine::restore(&shard.machine.snapshot()), Ok(shard.machine));
}

#[test]
fn tokens_end_below_what_json_carries() {
    let mut shard = Shard::new();
    shard.join(S1);
    shard.range(2, u16::MAX);
    let wait = Acquire { wait: Millis(5), ..acquire(S1, 1, lock(0)) };
    assert_eq!(shard.one(Command::Acquire(wait)), Outcome::Limit(Limit::Tokens));
    assert_eq!(Machine::restore(&shard.machine.snapshot()), Ok(shard.machine));
}

#[test]
fn ended_sessions_are_remembered_up_to_a_number() {
    let mut shard = Shard::new();
    let most = limits::ENDED_SESSIONS as u64;
    for number in 0..=most {
        shard.all(vec![
            Command::OpenSession { session: session(number), holder: holder() },
            Command::CloseSession { session: session(number) },
        ]);
    }
    assert!(!shard.machine.is_ended(session(0)));
    assert!(shard.machine.is_ended(session(1)));
    assert!(shard.machine.is_ended(session(most)));
    assert_eq!(shard.machine.counts().sessions, 0);
}

#[test]
fn the_outbox_and_the_checkpoints_are_there_for_a_new_leader() {
    let mut shard = Shard::new();
    let open = |session| Command::OpenSession { session, holder: holder() };
    shard.all(vec![open(S1), open(S2), Command::Attach { session: S1, shard: ShardId(3) }]);
    shard.one(Command::Checkpoint { sessions: vec![(S2, Some(Millis(4_000))), (session(9), None)] });
    assert_eq!(shard.machine.session_ttl(S2), Some((Millis(10_000), Some(Millis(4_000)))));
    shard.one(Command::ExpireSessions { sessions: vec![S1], term: Term(1) });
    let outbox: Vec<_> = shard.machine.closing().collect();
    assert_eq!(outbox, [(S1, EndReason::SessionExpired, vec![ShardId(3)])]);
    assert_eq!(shard.machine.closing_shards(S1), Some((EndReason::SessionExpired, vec![ShardId(3)])));
    assert_eq!(shard.machine.closing_shards(S2), None);
    assert_eq!(shard.machine.session_ttl(S1), None);
    assert_eq!(shard.machine.open_sessions().map(|open| open.0).collect::<Vec<_>>(), [S2]);
}

#[test]
fn a_snapshot_keeps_its_form() {
    let mut shard = Shard::new();
    shard.join(S1);
    shard.join(S2);
    shard.one(Command::OpenSession { session: S1, holder: holder() });
    shard.one(Command::Acquire(Acquire { lease: Some(Millis(1_000)), ..acquire(S1, 1, lock(1)) }));
    shard.one(Command::Acquire(Acquire { wait: Millis(1_000), ..acquire(S2, 1, lock(1)) }));
    let bytes = shard.machine.snapshot();
    assert_eq!(bytes[0], 4, "the version comes first");
    assert_eq!(
        shard.machine.hash(),
        3_325_709_752_292_782_764,
        "the form changed: raise the version, and read the old one"
    );

    let mut newer = bytes.clone();
    newer[0] = 5;
    assert_eq!(Machine::restore(&newer), Err(RestoreError::Version(5)));
    // The forms before had no events, and before that no configuration: no paths, no floor, no answers, in two orders.
    let older = |version: u8| {
        let mut older = bytes.clone();
        older[0] = version;
        let whole = (0..older.len()).filter(|end| Machine::restore(&older[..*end]).is_ok());
        let [end] = whole.collect::<Vec<_>>()[..] else { panic!("it has more than one end") };
        (end, Machine::restore(&older[..end]).unwrap())
    };
    let ((second, with), (first, without)) = (older(2), older(1));
    assert_eq!(bytes[first..second], [0; 4]);
    assert_eq!(with, without);
    let query = Query::Object { key: lock(1) };
    assert_eq!(with.query(&query), shard.machine.query(&query));
    let mut longer = bytes;
    longer.push(0);
    assert_eq!(Machine::restore(&longer), Err(RestoreError::Trailing(1)));
    assert!(Machine::restore(&[]).is_err());
}

/// Tokens count for each shard: the same session may hold the same token in two. A lock id that came from
/// the other shard must not end this one's grant.
#[test]
fn a_lock_id_of_another_lock_is_foreign_even_where_session_and_token_agree() {
    let mut shard = Shard::new();
    shard.join(S1);
    let outcome = shard.one(Command::Acquire(acquire(S1, 1, lock(1))));
    let Outcome::Granted(grant) = outcome else { panic!("{outcome:?}") };
    let elsewhere = LockId::new(S1, grant.lock_id.token, &lock(2));
    let release = |seq, lock_id| Command::Release { request: RequestId::Native { seq, low: 0 }, key: lock(1), lock_id };
    assert_eq!(shard.one(release(2, elsewhere)), Outcome::Foreign);
    assert_eq!(shard.one(release(3, grant.lock_id)), Outcome::Released);
}

/// An acquire whose answer was lost finds its grant however many answers came since: otherwise nobody would
/// know of the grant while its session lives.
#[test]
fn a_retried_acquire_finds_its_grant_below_the_floor() {
    let mut shard = Shard::new();
    shard.join(S1);
    let first = acquire(S1, 1, lock(0));
    let outcome = shard.one(Command::Acquire(first.clone()));
    let Outcome::Granted(grant) = outcome else { panic!("{outcome:?}") };
    for seq in 2..limits::ANSWERS_PER_SESSION as u64 + 10 {
        let lock_id = LockId::new(S1, Token(900_000), &lock(1));
        let request = RequestId::Native { seq, low: 1 };
        shard.one(Command::Release { request, key: lock(1), lock_id });
    }
    let retried = shard.one(Command::Acquire(first));
    assert!(matches!(&retried, Outcome::Granted(same) if same.lock_id == grant.lock_id), "{retried:?}");
    let other = acquire(S1, 2, lock(0));
    assert_eq!(shard.one(Command::Acquire(other)), Outcome::TooOld, "another forgotten request is refused");
}

/// The bound of a frame on the lane to clients is 4 MiB. What does not fit is answered by no outcome at all.
#[test]
fn an_answer_full_of_metadata_fits_its_frame_and_counts_what_it_leaves_out() {
    const MANY: u64 = 600;
    let metadata = |of: &str| -> Metadata { (0..32).map(|n| (format!("{of}{n:02}"), "x".repeat(125))).collect() };
    let (mut shard, shared) = (Shard::new(), Key::lock(Name::new(&"s".repeat(limits::NAME_BYTES)).unwrap()));
    for number in 0..MANY {
        let holder = Holder { client_id: "c".repeat(256), ttl: Millis(10_000), metadata: metadata("a") };
        let session = session(number);
        let opened = shard.one(Command::OpenSession { session, holder: holder.clone() });
        assert!(matches!(opened, Outcome::Opened { .. }), "{opened:?}");
        let Outcome::Pending { nonce } = shard.one(Command::Pend { session }) else { panic!("no attempt") };
        assert_eq!(shard.one(Command::Confirm { session, nonce, holder }), Outcome::Done);
        let own = Key::lock(Name::new(&format!("{number:0>1024}")).unwrap());
        for (seq, (mode, key)) in [(Mode::Shared, shared.clone()), (Mode::Exclusive, own)].into_iter().enumerate() {
            let asked = Acquire { mode, metadata: metadata("b"), ..acquire(session, seq as u64 + 1, key) };
            assert!(matches!(shard.one(Command::Acquire(asked)), Outcome::Granted(_)));
        }
    }
    let fits = |size: usize| assert!(((1 << 20)..(4 << 20)).contains(&size), "{size} bytes");
    let list =
        Query::List { kind: Kind::Lock, prefix: "0".into(), held: None, session: None, after: None, limit: 1_000 };
    let sessions = Query::Sessions { after: None, limit: 1_000 };
    for query in [Query::Object { key: shared.clone() }, list, sessions] {
        let answer = shard.machine.query(&query);
        fits(postcard::to_stdvec(&answer).unwrap().len());
        match answer {
            Answer::Object(object) => {
                let object = object.unwrap();
                assert_eq!(object.holder_count, MANY as u32);
                assert!(object.holders.iter().all(|grant| grant.metadata.len() == 64));
            }
            Answer::List(page) => {
                assert_eq!(page.len(), MANY as usize);
                assert!(page.iter().all(|object| object.holders.len() == 1), "each shows who holds it");
                assert_eq!(page[0].holders[0].metadata.len(), 64);
            }
            Answer::Sessions(page) => {
                assert_eq!(page.len(), MANY as usize);
                assert_eq!(page[0].metadata.len(), 32);
            }
            other => panic!("{other:?}"),
        }
    }
    let Outcome::Broken(grants) = shard.one(Command::Break { key: shared.clone(), reason: "r".into() }) else {
        panic!("not broken")
    };
    fits(postcard::to_stdvec(&Outcome::Broken(grants.clone())).unwrap().len());
    assert!(!grants.is_empty());
    assert_eq!(shard.machine.query(&Query::Object { key: shared }), Answer::Object(None), "all were thrown out");
}
