//! What is right is let pass, what was made wrong is not.

use proptest::prelude::*;

use super::*;
use crate::{
    linear::{Session, Verdict, check},
    workload::Dice,
};

const BUDGET: usize = 200_000;

fn ms(ms: u64) -> At {
    At::from_millis(ms)
}

fn op(invoked: u64, returned: u64, what: What) -> Op<What> {
    Op { session: 1, invoked: ms(invoked), returned: Some(ms(returned)), what }
}

fn lost(invoked: u64, change: Change) -> Op<What> {
    Op { session: 1, invoked: ms(invoked), returned: None, what: What::Asked { change, expected: None } }
}

fn made(change: Change, version: Version) -> What {
    What::Made { change, expected: None, version }
}

fn put(value: Value, version: Version) -> What {
    made(Change::Put(value), version)
}

fn read(version: Version, value: Value) -> What {
    What::Read { found: Some((version, value)) }
}

const NOTHING: What = What::Read { found: None };

fn is_right(ops: &[Op<What>]) -> bool {
    let history = History { name: "a".to_owned(), ops: ops.to_vec(), sessions: BTreeMap::new() };
    match check(&history, BUDGET) {
        Verdict::Linearizable => true,
        Verdict::Violation(text) => {
            assert!(text.contains("path a"), "{text}");
            false
        }
        Verdict::Undecided => panic!("a few operations are decided"),
    }
}

#[test]
fn versions_rise_by_one_and_a_look_finds_the_last() {
    let first = op(0, 10, put(7, 1));
    assert!(is_right(&[]));
    assert!(is_right(&[op(40, 50, read(2, 8)), op(20, 30, put(8, 2)), first.clone()]));
    assert!(!is_right(&[first.clone(), op(20, 30, put(8, 3))]), "a version was left out");
    assert!(!is_right(&[first.clone(), op(20, 30, put(8, 1))]), "a version came twice");
    assert!(!is_right(&[first.clone(), op(20, 30, put(8, 2)), op(40, 50, read(1, 7))]), "a stale look");
    assert!(!is_right(&[first.clone(), op(20, 30, read(1, 8))]), "another's value");
    assert!(!is_right(&[first.clone(), op(20, 30, NOTHING)]), "lost");
    assert!(is_right(&[op(0, 30, put(7, 1)), op(5, 10, NOTHING)]), "it may have come before");
    assert!(!is_right(&[op(0, 10, put(8, 2)), op(20, 30, put(7, 1))]), "not in the order of time");
    assert!(is_right(&[op(0, 10, put(8, 58)), op(20, 30, put(7, 59))]), "a path may count on");
}

#[test]
fn a_change_from_a_version_is_made_from_that_alone() {
    let from = |expected, version| What::Made { change: Change::Put(9), expected: Some(expected), version };
    let first = op(0, 10, put(7, 1));
    assert!(is_right(&[first.clone(), op(20, 30, from(1, 2))]));
    assert!(!is_right(&[first.clone(), op(20, 30, put(8, 2)), op(40, 50, from(1, 3))]));
    assert!(is_right(&[op(0, 10, from(0, 1))]), "where there is no value");
    assert!(!is_right(&[first.clone(), op(20, 30, from(0, 2))]));
    let gone = op(20, 30, made(Change::Delete, 2));
    assert!(is_right(&[first.clone(), gone.clone(), op(40, 50, from(0, 3))]), "it goes on counting");
    assert!(!is_right(&[first.clone(), gone, op(40, 50, from(0, 1))]), "it begins again");
    let refused = |expected, current| op(20, 30, What::Mismatch { expected, current });
    assert!(is_right(&[first.clone(), refused(0, 1)]));
    assert!(!is_right(&[first.clone(), refused(1, 1)]), "it was at that version");
    assert!(!is_right(&[first, refused(3, 2)]), "it never was at that");
}

#[test]
fn what_is_deleted_is_gone_and_a_rollback_brings_back_what_was() {
    let (first, second) = (op(0, 10, put(7, 1)), op(20, 30, put(8, 2)));
    let back = op(40, 50, made(Change::Rollback(1), 3));
    assert!(is_right(&[first.clone(), second.clone(), back.clone(), op(60, 70, read(3, 7))]));
    assert!(!is_right(&[first.clone(), second.clone(), back, op(60, 70, read(3, 8))]));
    let gone = op(20, 30, made(Change::Delete, 2));
    assert!(is_right(&[first.clone(), gone.clone(), op(40, 50, NOTHING)]));
    assert!(!is_right(&[first.clone(), gone.clone(), op(40, 50, made(Change::Delete, 3))]), "deleted twice");
    let missing = |change| op(40, 50, What::Missing { change, expected: None });
    assert!(is_right(&[first.clone(), gone.clone(), missing(Change::Delete), missing(Change::Rollback(2))]));
    assert!(is_right(&[first.clone(), gone.clone(), missing(Change::Rollback(9))]));
    assert!(!is_right(&[first.clone(), gone, missing(Change::Rollback(1))]), "that was kept");
    assert!(!is_right(&[first, second, missing(Change::Delete)]), "there was a value");
}

#[test]
fn what_nobody_knows_may_have_happened_at_any_time_or_never() {
    let first = op(0, 10, put(7, 1));
    let perhaps = lost(20, Change::Put(8));
    for (then, right) in [
        (op(30, 40, read(1, 7)), true),
        (op(30, 40, read(2, 8)), true),
        (op(30, 40, read(3, 8)), false),
        (op(30, 40, put(9, 2)), true),
        (op(30, 40, put(9, 3)), true),
        (op(30, 40, put(9, 4)), false),
    ] {
        assert_eq!(is_right(&[first.clone(), perhaps.clone(), then.clone()]), right, "{then:?}");
    }
    assert!(!is_right(&[first.clone(), lost(50, Change::Put(8)), op(30, 40, read(2, 8))]), "it was sent later");
    let twice = [first.clone(), perhaps.clone(), op(30, 40, read(2, 8)), op(50, 60, put(9, 3)), op(70, 80, read(4, 8))];
    assert!(!is_right(&twice), "a repeat was made twice");
    // Put by nobody knows whom, replaced, and brought back.
    let back =
        [first, perhaps, op(30, 40, put(9, 3)), op(50, 60, made(Change::Rollback(2), 4)), op(70, 80, read(4, 8))];
    assert!(is_right(&back));
}

#[test]
fn a_watch_tells_what_was_made_before() {
    let (first, second) = (op(0, 10, put(7, 1)), op(20, 30, put(8, 2)));
    let told = |at, version, value| op(at, at, What::Told { version, value });
    assert!(is_right(&[first.clone(), second.clone(), told(25, 2, Some(8)), told(90, 1, Some(7))]));
    assert!(!is_right(&[first.clone(), second.clone(), told(15, 2, Some(8))]), "before it was asked for");
    assert!(!is_right(&[first.clone(), second.clone(), told(25, 2, Some(7))]), "another value");
    assert!(!is_right(&[first.clone(), second.clone(), told(25, 2, None)]), "a deletion that nobody made");
    assert!(!is_right(&[first.clone(), second.clone(), told(50, 3, Some(9))]), "a change that nobody made");
    assert!(is_right(&[first, lost(11, Change::Delete), told(25, 2, None), op(30, 40, NOTHING)]));
}

/// A history by clients whose messages take their time, of one true path that takes one operation at a time.
fn simulated(seed: u64, clients: Session, count: usize) -> History<What> {
    let mut dice = Dice::new(seed);
    let mut ops: Vec<(u64, Op<What>)> = Vec::new();
    let mut free = vec![0; clients as usize];
    for number in 0..count as u64 {
        let client = dice.below(free.len() as u64) as usize;
        let invoked = free[client] + dice.below(20);
        let happens = invoked + dice.below(20);
        let returned = happens + dice.below(20);
        free[client] = returned + 1;
        let change = match dice.below(10) {
            0..4 => None,
            4..8 => Some(Change::Put(number + 1)),
            8 => Some(Change::Delete),
            _ => Some(Change::Rollback(1 + dice.below(40))),
        };
        // From 40 on none is expected.
        let expected = Some(dice.below(60)).filter(|expected| *expected < 40);
        let what = change.map_or(NOTHING, |change| What::Asked { change, expected });
        ops.push((
            happens,
            Op { session: client as Session, invoked: ms(invoked), returned: Some(ms(returned)), what },
        ));
    }
    ops.sort_by_key(|(happens, op)| (*happens, op.session));
    // All versions from 1 on.
    let mut truth: Vec<Option<Value>> = Vec::new();
    let mut told = Vec::new();
    for (happens, op) in &mut ops {
        let last = truth.len() as Version;
        let now = truth.last().copied().flatten();
        let at = now.map_or(0, |_| last);
        let What::Asked { change, expected } = op.what else {
            op.what = What::Read { found: now.map(|value| (last, value)) };
            continue;
        };
        // Some wish for the version that there is.
        let expected = expected.map(|expected| if dice.percent(50.0) { at } else { expected });
        let next = match change {
            Change::Put(value) => Some(Some(value)),
            Change::Delete => now.map(|_| None),
            Change::Rollback(to) => truth.get(to as usize - 1).copied().flatten().map(Some),
        };
        op.what = match next {
            _ if expected.is_some_and(|expected| expected != at) => {
                What::Mismatch { expected: expected.unwrap_or_default(), current: at }
            }
            None => What::Missing { change, expected },
            Some(value) => {
                truth.push(value);
                let heard = *happens + dice.below(100);
                told.push(Op { session: 99, ..self::op(heard, heard, What::Told { version: last + 1, value }) });
                What::Made { change, expected, version: last + 1 }
            }
        };
        if dice.percent(6.0) {
            (op.returned, op.what) = (None, What::Asked { change, expected });
        }
    }
    let watched = dice.percent(50.0);
    let ops = ops.into_iter().map(|(_, op)| op).chain(told.into_iter().filter(|_| watched)).collect();
    History { name: "a".to_owned(), ops, sessions: BTreeMap::new() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn what_one_path_answered_is_right_and_one_answer_made_wrong_is_not(seed in any::<u64>(), clients in 1_u32..12) {
        let history = simulated(seed, clients.into(), 150);
        prop_assert_eq!(check(&history, BUDGET), Verdict::Linearizable);
        let made: Vec<usize> = (0..history.ops.len()).filter(|n| matches!(history.ops[*n].what, What::Made { .. })).collect();
        prop_assume!(!made.is_empty());
        let chosen = made[Dice::new(seed).below(made.len() as u64) as usize];
        let mut wrong = history.clone();
        if let What::Made { version, .. } = &mut wrong.ops[chosen].what {
            // Two of one version, or one that is nobody's.
            *version += 1_000;
        }
        prop_assert_ne!(check(&wrong, BUDGET), Verdict::Linearizable);
        let mut stale = history.clone();
        let first = made[0];
        if let What::Made { change: Change::Put(value), version, .. } = history.ops[first].what
            && made.len() > 3
        {
            let end = 100_000;
            stale.ops.push(op(end, end + 1, read(version, value)));
            let verdict = check(&stale, BUDGET);
            prop_assert!(matches!(verdict, Verdict::Violation(_)), "{verdict:?}");
        }
    }
}
