//! The outbox against random histories: at least once, in order for each name, through restarts.

use proptest::prelude::*;
use wardlock_machine::{Incarnation, LockId, Mode, Name, SessionId, Token, What};

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

fn key(name: &str) -> Key {
    Key::lock(Name::new(name).unwrap())
}

fn event(name: &str, revision: u64) -> Event {
    let key = key(name);
    let lock_id = LockId::new(SessionId(1), Token(revision), &key);
    let what = What::Granted { lock_id, mode: Mode::Exclusive, holder: "h".into(), value: None };
    Event { revision: Revision(revision), at: WallMs(1), key, what }
}

fn cursor(positions: &[(u32, u64)]) -> Cursor {
    let positions = positions.iter().map(|(shard, at)| (ShardId(*shard), Revision(*at))).collect();
    Cursor { incarnation: Incarnation(1), positions }
}

fn outbox(retry_for: Duration) -> Outbox {
    Outbox::new(cursor(&[(1, 0), (2, 0)]), [], [], None, retry_for)
}

/// The revisions of all that may begin now.
fn begin(outbox: &mut Outbox, now: u64) -> Vec<u64> {
    std::iter::from_fn(|| outbox.next(Duration::from_secs(now))).map(|attempt| attempt.letter.revision.0).collect()
}

fn end(outbox: &mut Outbox, name: &str, result: Result<(), &str>, now: u64) -> Fate {
    outbox.ended(&Some(key(name)), result.map_err(str::to_owned), Duration::from_secs(now), 0.0)
}

#[test]
fn the_events_of_a_key_are_told_one_after_the_other() {
    let mut outbox = outbox(HOUR);
    for (name, revision) in [("a", 1), ("a", 2), ("b", 3), ("a", 4)] {
        outbox.read(ShardId(1), event(name, revision));
    }
    assert_eq!(begin(&mut outbox, 0), [1, 3], "the first of each key");
    assert_eq!(end(&mut outbox, "a", Ok(()), 1), Fate::Delivered);
    assert_eq!(begin(&mut outbox, 1), [2]);
    assert_eq!(begin(&mut outbox, 1), [] as [u64; 0]);
}

#[test]
fn a_key_that_fails_waits_and_the_others_do_not() {
    let mut outbox = outbox(HOUR);
    for (name, revision) in [("a", 1), ("a", 2), ("b", 3), ("b", 4)] {
        outbox.read(ShardId(1), event(name, revision));
    }
    begin(&mut outbox, 0);
    assert_eq!(end(&mut outbox, "a", Err("status 500"), 0), Fate::Retried);
    end(&mut outbox, "b", Ok(()), 0);
    assert_eq!(begin(&mut outbox, 0), [4]);
    assert_eq!(outbox.next_wake(), Some(Duration::from_secs(1)));
    let again = outbox.next(Duration::from_secs(1)).unwrap();
    assert_eq!((again.letter.revision, again.number), (Revision(1), 2));
    assert_eq!(end(&mut outbox, "a", Err("status 500"), 1), Fate::Retried);
    assert_eq!(outbox.next_wake(), Some(Duration::from_secs(3)), "the pause doubles");
}

#[test]
fn the_cursor_stays_before_what_is_not_done() {
    let mut outbox = outbox(HOUR);
    for (name, revision) in [("a", 3), ("b", 5), ("c", 7)] {
        outbox.read(ShardId(1), event(name, revision));
    }
    outbox.position(cursor(&[(1, 9), (2, 4)]));
    begin(&mut outbox, 0);
    assert_eq!(outbox.progress().cursor, cursor(&[(1, 2), (2, 4)]));
    end(&mut outbox, "b", Ok(()), 0);
    let progress = outbox.progress();
    assert_eq!((progress.cursor, progress.delivered), (cursor(&[(1, 2), (2, 4)]), 1), "the one before is not done");
    end(&mut outbox, "a", Ok(()), 0);
    assert_eq!(outbox.progress().cursor, cursor(&[(1, 6), (2, 4)]));
    end(&mut outbox, "c", Ok(()), 0);
    assert_eq!(outbox.progress().cursor, cursor(&[(1, 9), (2, 4)]), "and what was read and fits nothing");
}

#[test]
fn what_is_given_up_is_told_as_dead_with_the_cursor_that_passes_it() {
    let mut outbox = outbox(Duration::from_secs(2));
    outbox.read(ShardId(1), event("a", 1));
    outbox.read(ShardId(1), event("a", 2));
    outbox.position(cursor(&[(1, 2)]));
    begin(&mut outbox, 0);
    assert_eq!(end(&mut outbox, "a", Err("status 500"), 0), Fate::Retried);
    begin(&mut outbox, 1);
    assert_eq!(end(&mut outbox, "a", Err("status 503"), 1), Fate::Dead, "the next would come after two seconds");
    assert_eq!(begin(&mut outbox, 1), [] as [u64; 0], "whoever begins anew would tell it behind the next");
    let progress = outbox.progress();
    outbox.logged();
    assert_eq!(begin(&mut outbox, 1), [2], "and the key goes on");
    assert_eq!(progress.cursor, cursor(&[(1, 1)]));
    let [dead] = &progress.dead[..] else { panic!("{progress:?}") };
    assert_eq!((dead.revision, dead.attempts, dead.error.as_str()), (Revision(1), 2, "status 503"));
    assert_eq!(progress.failed, 2);
    assert_eq!(outbox.progress().dead, [], "once");
}

#[test]
fn the_window_is_bounded() {
    let mut outbox = outbox(HOUR);
    let mut revision = 0;
    while outbox.has_room() {
        revision += 1;
        outbox.read(ShardId(1), event(&format!("k{revision}"), revision));
    }
    assert_eq!(revision as usize, WINDOW);
    assert_eq!(begin(&mut outbox, 0).len(), LANES, "and so is what is under way");
    end(&mut outbox, "k1", Ok(()), 0);
    assert!(outbox.has_room());
}

#[test]
fn dead_letters_wait_for_no_more_than_one_progress_carries() {
    let mut outbox = outbox(Duration::ZERO);
    let mut told = BTreeSet::new();
    for revision in 1..=1_000 {
        outbox.read(ShardId(1), event(&format!("k{revision}"), revision));
    }
    outbox.position(cursor(&[(1, 1_000)]));
    for round in 0..100 {
        let begun: Vec<Attempt> = std::iter::from_fn(|| outbox.next(Duration::from_secs(round))).collect();
        for attempt in &begun {
            let fate = outbox.ended(&attempt.lane, Err("x".repeat(300)), Duration::from_secs(round), 0.5);
            assert_eq!(fate, Fate::Dead);
        }
        if begun.is_empty() {
            let progress = outbox.progress();
            outbox.logged();
            assert!(progress.dead.len() <= limits::DEAD_LETTERS);
            assert!(progress.dead.iter().all(|letter| letter.error.len() == limits::LABEL_BYTES));
            told.extend(progress.dead.iter().map(|letter| letter.revision.0));
        }
    }
    assert_eq!(told.len(), 1_000);
}

#[test]
fn a_gap_is_told_behind_what_came_before_and_ahead_of_what_comes_after() {
    let mut outbox = outbox(HOUR);
    outbox.read(ShardId(1), event("a", 1));
    outbox.position(cursor(&[(1, 1), (2, 0)]));
    outbox.gap(cursor(&[(1, 50), (2, 9)]));
    assert!(!outbox.has_room(), "nothing is read meanwhile");
    assert_eq!(begin(&mut outbox, 0), [1]);
    assert_eq!(outbox.progress().cursor, cursor(&[(1, 0), (2, 0)]));
    end(&mut outbox, "a", Ok(()), 0);
    assert_eq!(outbox.progress().cursor, cursor(&[(1, 1), (2, 0)]), "the gap is not told yet");
    let notice = outbox.next(Duration::ZERO).unwrap();
    assert_eq!((notice.lane.clone(), notice.letter.event, notice.letter.revision), (None, None, Revision(59)));
    assert_eq!(outbox.ended(&None, Ok(()), Duration::ZERO, 0.0), Fate::Delivered);
    assert_eq!(outbox.progress().cursor, cursor(&[(1, 50), (2, 9)]));
    assert!(outbox.has_room());
}

#[test]
fn what_died_before_is_not_told_but_on_demand() {
    let again = DeadLetter { attempts: 8, ..letter(ShardId(1), Revision(4), Some(event("a", 4))) };
    let dead = [(ShardId(1), Revision(4)), (ShardId(1), Revision(5))];
    let mut outbox = Outbox::new(cursor(&[(1, 3)]), dead, [again], Some("status 500".into()), HOUR);
    for revision in 4..7 {
        outbox.read(ShardId(1), event("a", revision));
    }
    outbox.position(cursor(&[(1, 6)]));
    assert_eq!(begin(&mut outbox, 0), [4]);
    assert_eq!(outbox.progress().error.as_deref(), Some("status 500"), "it is the last that is known");
    end(&mut outbox, "a", Ok(()), 0);
    let progress = outbox.progress();
    assert_eq!((progress.settled, progress.error), (vec![(ShardId(1), Revision(4))], None));
    assert_eq!(progress.cursor, cursor(&[(1, 5)]));
    assert_eq!(begin(&mut outbox, 0), [6]);
}

/// What a target saw, whatever happened to each attempt and however often whoever delivers began anew.
#[derive(Debug, Default)]
struct Seen {
    /// The last revision of each key that was taken.
    last: BTreeMap<Key, u64>,
    taken: BTreeSet<u64>,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// At least once, and in order per key, across restarts from whatever was logged.
    #[test]
    fn every_event_is_delivered_or_dead_in_order_per_key(
        keys in proptest::collection::vec(0..4u8, 1..40),
        steps in proptest::collection::vec((0..10u8, any::<prop::sample::Index>(), 0.0..1.0f64), 1..300),
        retry in 0..8u64,
    ) {
        let events: Vec<Event> =
            (1..).zip(&keys).map(|(revision, name)| event(&format!("k{name}"), revision)).collect();
        let all = events.len() as u64;
        let (mut logged, mut dead) = (cursor(&[(1, 0)]), BTreeMap::new());
        let mut seen = Seen::default();
        let make = |logged: &Cursor, dead: &BTreeMap<Id, DeadLetter>| {
            Outbox::new(logged.clone(), dead.keys().copied(), [], None, Duration::from_secs(retry))
        };
        let mut outbox = make(&logged, &dead);
        let (mut next, mut under_way, mut now) = (0usize, Vec::<Attempt>::new(), 0u64);
        for (step, pick, luck) in steps {
            now += 1;
            match step {
                0..=3 if next < events.len() && outbox.has_room() => {
                    outbox.read(ShardId(1), events[next].clone());
                    next += 1;
                    outbox.position(cursor(&[(1, next as u64)]));
                }
                0..=6 if !under_way.is_empty() => {
                    let attempt = under_way.swap_remove(pick.index(under_way.len()));
                    let works = luck < 0.7;
                    if works {
                        let (key, at) = (attempt.lane.clone().unwrap(), attempt.letter.revision.0);
                        let last = seen.last.entry(key).or_default();
                        // An older one comes only where it came before: a repeat after a restart.
                        prop_assert!(at > *last || seen.taken.contains(&at), "{at} after {last}");
                        *last = at;
                        seen.taken.insert(at);
                    }
                    let result = if works { Ok(()) } else { Err("status 500".to_owned()) };
                    outbox.ended(&attempt.lane, result, Duration::from_secs(now), luck);
                }
                7 => {
                    let progress = outbox.progress();
                    logged = progress.cursor;
                    dead.extend(progress.dead.into_iter().map(|letter| (letter.id(), letter)));
                    outbox.logged();
                }
                8 if luck < 0.2 => {
                    // What was on its way into the log may get lost.
                    let _ = outbox.progress();
                    // Another leader: what was under way may still have been taken, and nobody will ever know.
                    outbox = make(&logged, &dead);
                    under_way.clear();
                    next = logged.positions[&ShardId(1)].0 as usize;
                }
                _ => {
                    while let Some(attempt) = outbox.next(Duration::from_secs(now)) {
                        let twice = under_way.iter().any(|other| other.lane == attempt.lane);
                        prop_assert!(!twice, "invariant 1: {attempt:?}");
                        under_way.push(attempt);
                    }
                }
            }
            let done = logged.positions[&ShardId(1)].0;
            for at in 1..=done {
                let known = seen.taken.contains(&at) || dead.contains_key(&(ShardId(1), Revision(at)));
                prop_assert!(known, "invariant 2: {at} was passed by {done}");
            }
        }
        // With a target that takes everything from now on, all that is left is told.
        for _ in 0..20 * all + 40 {
            now += 600;
            while next < events.len() && outbox.has_room() {
                outbox.read(ShardId(1), events[next].clone());
                next += 1;
                outbox.position(cursor(&[(1, next as u64)]));
            }
            while let Some(attempt) = outbox.next(Duration::from_secs(now)) {
                under_way.push(attempt);
            }
            for attempt in under_way.drain(..) {
                seen.taken.insert(attempt.letter.revision.0);
                outbox.ended(&attempt.lane, Ok(()), Duration::from_secs(now), 0.0);
            }
            let progress = outbox.progress();
            dead.extend(progress.dead.into_iter().map(|letter| (letter.id(), letter)));
            logged = progress.cursor;
            outbox.logged();
        }
        prop_assert_eq!(logged.positions[&ShardId(1)].0, all);
        let told = (1..=all).all(|at| seen.taken.contains(&at) || dead.contains_key(&(ShardId(1), Revision(at))));
        prop_assert!(told);
    }
}
