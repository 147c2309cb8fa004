//! What is right is let pass, what was made wrong is not, and small histories are judged as by trying everything.

use proptest::prelude::*;

use super::{simulated::history, *};

const BUDGET: usize = 200_000;

fn ms(ms: u64) -> At {
    Duration::from_millis(ms)
}

fn op(session: Session, invoked: u64, returned: u64, what: What) -> Op {
    Op { session, invoked: ms(invoked), returned: Some(ms(returned)), what }
}

fn granted(token: Token) -> What {
    What::Granted { token, lease: None }
}

fn read(held: Option<(Session, Token)>) -> What {
    What::Read { held }
}

/// Sessions 1 to 3 live to 1 s at least.
fn of(ops: &[Op]) -> History {
    History { name: "a".to_owned(), ops: ops.to_vec(), sessions: (1..4).map(|session| (session, ms(1_000))).collect() }
}

fn is_right(ops: &[Op]) -> bool {
    match check(&of(ops), BUDGET) {
        Verdict::Linearizable => true,
        Verdict::Violation(text) => {
            assert!(text.contains("session"), "{text}");
            false
        }
        Verdict::Undecided => panic!("a few operations are decided"),
    }
}

#[test]
fn one_after_the_other_in_order_is_right_and_in_another_order_is_not() {
    let take = op(1, 0, 10, granted(1));
    let give = op(1, 20, 30, What::Released { token: 1 });
    let next = op(2, 40, 50, granted(2));
    assert!(is_right(&[]));
    assert!(is_right(&[next.clone(), give.clone(), take.clone()]));
    assert!(!is_right(&[take.clone(), next]), "the first had not given it back");
    assert!(!is_right(&[give, op(2, 0, 10, granted(2))]), "nobody was granted token 1");
    assert!(!is_right(&[op(1, 0, 10, granted(2)), op(2, 2_000, 2_010, granted(1))]), "a token that falls");
    assert!(!is_right(&[op(1, 0, 10, granted(2)), op(2, 2_000, 2_010, granted(2))]), "a token twice");
}

#[test]
fn what_overlaps_may_have_happened_in_either_order() {
    let take = op(1, 0, 100, granted(1));
    for (from, held, right) in
        [(20, None, true), (20, Some((1, 1)), true), (110, None, false), (110, Some((1, 1)), true)]
    {
        assert_eq!(is_right(&[take.clone(), op(2, from, from + 10, read(held))]), right, "{from} {held:?}");
    }
    // But two who look one after the other do not see time go back.
    let (new, old) = (op(2, 20, 30, read(Some((1, 1)))), op(3, 40, 50, read(None)));
    assert!(!is_right(&[take, new, old]));
}

#[test]
fn a_stale_look_is_wrong_however_late_the_answer_of_the_write() {
    let take = op(1, 0, 10, granted(1));
    let give = op(1, 20, 500, What::Released { token: 1 });
    let next = op(2, 30, 40, granted(2));
    assert!(is_right(&[take.clone(), give.clone(), next.clone(), op(3, 50, 60, read(Some((2, 2))))]));
    assert!(!is_right(&[take, give, next, op(3, 50, 60, read(Some((1, 1))))]));
}

#[test]
fn an_unknown_outcome_is_open_to_the_end_and_may_be_nothing() {
    let take = op(1, 0, 10, granted(1));
    let give = Op { returned: None, ..op(1, 20, 0, What::Released { token: 1 }) };
    for (at, held, right) in [(30, Some((1, 1)), true), (900, None, true), (900, Some((1, 1)), true), (15, None, false)]
    {
        assert_eq!(is_right(&[take.clone(), give.clone(), op(2, at, at + 2, read(held))]), right, "{at} {held:?}");
    }
    // Seen once as done it stays done.
    assert!(!is_right(&[take, give, op(2, 30, 40, read(None)), op(2, 50, 60, read(Some((1, 1))))]));

    let asked = Op { returned: None, ..op(1, 0, 0, What::Asked) };
    assert!(is_right(&[asked.clone(), op(2, 900, 910, read(Some((1, 7)))), op(2, 920, 930, read(None))]));
    assert!(is_right(&[asked.clone(), op(2, 900, 910, granted(1))]));
    assert!(!is_right(&[asked.clone(), op(2, 10, 20, read(Some((3, 7))))]), "session 3 had not asked");
    assert!(!is_right(&[asked.clone(), op(2, 10, 20, granted(8)), op(3, 30, 40, read(Some((1, 7))))]));
    // It may have been in somebody's way, but only once.
    let refused = |at| op(2, at, at + 2, What::Refused { by: None });
    let free = |at| op(3, at, at + 2, read(None));
    assert!(!is_right(&[Op { invoked: ms(50), ..asked.clone() }, refused(10)]), "it was not sent yet");
    assert!(is_right(&[asked.clone(), refused(10), refused(20), free(30)]));
    assert!(!is_right(&[asked.clone(), refused(10), free(20), refused(30)]), "it was given back");
    assert!(is_right(&[asked.clone(), asked.clone(), refused(10), free(20), refused(30)]), "or another was");
    let (take, give) = (op(3, 20, 22, granted(5)), op(3, 30, 32, What::Released { token: 5 }));
    assert!(!is_right(&[asked.clone(), refused(10), take, give, refused(40)]));
    // Its own session is told which grant it has, and gives it back.
    let holds = op(1, 50, 60, What::Holds { token: 7 });
    let give = op(1, 70, 80, What::Released { token: 7 });
    assert!(is_right(&[asked, holds.clone(), give]));
    assert!(!is_right(&[holds]));
}

#[test]
fn a_holding_ends_by_itself_when_it_may_and_not_before() {
    let take = op(1, 0, 10, granted(1));
    assert!(is_right(&[take.clone(), op(2, 990, 1_001, granted(2))]));
    assert!(!is_right(&[take.clone(), op(2, 980, 990, granted(2))]), "session 1 lives to 1 s");
    assert!(!is_right(&[take.clone(), op(2, 900, 910, read(None))]));
    assert!(!is_right(&[take.clone(), op(1, 900, 910, What::Lost { token: 1 })]), "an early end");
    assert!(is_right(&[take.clone(), op(1, 1_900, 1_910, What::Lost { token: 1 })]));
    assert!(is_right(&[take.clone(), op(1, 1_900, 1_910, What::Released { token: 1 })]), "it need not end");
    assert!(is_right(&[take, op(9, 2_000, 2_010, granted(3)), op(2, 2_020, 2_030, read(None))]), "9 is not known");

    let lease = |token| What::Granted { token, lease: Some(ms(100)) };
    let leased = op(1, 0, 10, lease(1));
    assert!(is_right(&[leased.clone(), op(2, 90, 101, granted(2))]));
    assert!(!is_right(&[leased.clone(), op(2, 90, 99, granted(2))]));
    let renew = op(1, 50, 60, What::Renewed { token: 1, lease: Some(ms(100)) });
    assert!(!is_right(&[leased.clone(), renew.clone(), op(2, 90, 149, granted(2))]));
    assert!(is_right(&[leased.clone(), renew.clone(), op(2, 90, 151, granted(2))]));
    assert!(!is_right(&[leased, renew, op(1, 140, 145, What::Lost { token: 1 })]));
}

#[test]
fn a_refusal_needs_somebody_in_the_way() {
    let take = op(1, 10, 20, granted(1));
    for (by, right) in [(None, true), (Some(1), true), (Some(2), false)] {
        assert_eq!(is_right(&[take.clone(), op(2, 30, 40, What::Refused { by })]), right, "{by:?}");
    }
    assert!(!is_right(&[take.clone(), op(2, 0, 5, What::Refused { by: None })]));
    assert!(is_right(&[take, op(2, 0, 15, What::Refused { by: None })]));
}

#[test]
fn a_violation_shows_only_what_makes_it() {
    let mut right = history(3, 6, 400);
    let last = right.ops.iter().filter_map(|op| op.returned).max().expect("some were answered");
    let at = |ms_after: u64| last + ms(60_000 + ms_after);
    let late = |session, from, until, what| Op { session, invoked: at(from), returned: Some(at(until)), what };
    right.sessions.insert(77, at(100_000));
    right.ops.extend([late(77, 0, 5, granted(9_000)), late(78, 10, 15, granted(9_001))]);
    let verdict = check(&right, BUDGET);
    let Verdict::Violation(text) = verdict else { panic!("two hold it at once: {verdict:?}") };
    assert!(text.contains("token 9000") && text.contains("token 9001"), "{text}");
    assert!(text.lines().count() < 12, "the other {} operations are not to be read:\n{text}", right.ops.len());
}

#[test]
fn what_takes_too_long_is_undecided() {
    assert_eq!(check(&history(1, 8, 300), 3), Verdict::Undecided);
}

#[test]
fn thousands_of_operations_of_a_hundred_users_are_decided_by_few_configurations() {
    let many = history(11, 100, 5_000);
    assert!(many.ops.len() > 4_000, "{}", many.ops.len());
    assert_eq!(check(&many, 20_000), Verdict::Linearizable);
}

/// The verdict by trying every order and every moment at which a holding may end.
fn by_trying_everything(history: &History) -> bool {
    #[derive(Clone)]
    struct Lock {
        last: Token,
        holder: Option<(Session, Token, At)>,
    }
    fn go(history: &History, left: &[usize], lock: &Lock, now: At) -> bool {
        if left.iter().all(|n| history.ops[*n].returned.is_none()) {
            return true;
        }
        // Time goes on until the holding ends.
        if let Some((_, _, ends)) = lock.holder
            && go(history, left, &Lock { holder: None, ..lock.clone() }, now.max(ends))
        {
            return true;
        }
        left.iter().any(|n| {
            let op = &history.ops[*n];
            let at = now.max(op.invoked);
            if op.returned.is_some_and(|returned| returned < at) {
                return false;
            }
            let mut next = lock.clone();
            let held = lock.holder.map(|(session, token, _)| (session, token));
            let possible = match op.what {
                What::Granted { token, lease } => {
                    let session = history.sessions.get(&op.session).copied().unwrap_or_default();
                    let ends = lease.map_or(session, |lease| session.min(op.invoked + lease));
                    next = Lock { last: token, holder: Some((op.session, token, ends)) };
                    held.is_none() && token > lock.last
                }
                What::Released { token } => {
                    next.holder = None;
                    held.is_some_and(|held| held.1 == token)
                }
                What::Lost { token } => held.is_none_or(|held| held.1 != token),
                What::Read { held: seen } => held == seen,
                What::Refused { by } => held.is_some_and(|held| by.is_none_or(|by| by == held.1)),
                What::Holds { token } => held == Some((op.session, token)),
                What::Asked | What::Renewed { .. } => false,
            };
            let rest: Vec<usize> = left.iter().copied().filter(|other| other != n).collect();
            possible && go(history, &rest, &next, at)
        })
    }
    let all: Vec<usize> = (0..history.ops.len()).collect();
    go(history, &all, &Lock { last: 0, holder: None }, At::ZERO)
}

fn any_what() -> impl Strategy<Value = What> {
    let token = 1..4_u64;
    prop_oneof![
        4 => (token.clone(), prop::option::of(5..30_u64))
            .prop_map(|(token, lease)| What::Granted { token, lease: lease.map(ms) }),
        3 => token.clone().prop_map(|token| What::Released { token }),
        1 => token.clone().prop_map(|token| What::Lost { token }),
        2 => prop::option::of((1..3_u128, token.clone())).prop_map(|held| What::Read { held }),
        1 => prop::option::of(token.clone()).prop_map(|by| What::Refused { by }),
        1 => token.prop_map(|token| What::Holds { token }),
    ]
}

fn any_op() -> impl Strategy<Value = Op> {
    (1..3_u128, 0..60_u64, prop::option::weighted(0.85, 0..40_u64), any_what()).prop_map(
        |(session, invoked, took, what)| Op {
            session,
            invoked: ms(invoked),
            returned: took.map(|took| ms(invoked + took)),
            what,
        },
    )
}

/// The operations of a right history by which something certain can be broken.
struct Certain<'a> {
    /// A grant, its release, and that nobody can doubt that it was held between the two.
    held: (&'a Op, &'a Op),
}

/// A grant that was answered before its release was sent, both answered, while its session and lease lived.
fn certainly_held<'a>(history: &'a History, pick: &mut crate::workload::Dice) -> Option<Certain<'a>> {
    let mut found = Vec::new();
    for grant in &history.ops {
        let What::Granted { token, lease } = grant.what else { continue };
        let release = history.ops.iter().find(|op| op.what == What::Released { token } && op.returned.is_some());
        let (Some(release), Some(answered)) = (release, grant.returned) else { continue };
        let session = history.sessions.get(&grant.session).copied().unwrap_or_default();
        let until = lease.map_or(session, |lease| session.min(grant.invoked + lease));
        if release.invoked > answered + ms(4) && until > release.invoked {
            found.push((grant, release));
        }
    }
    let held = *found.get(pick.below(found.len() as u64) as usize)?;
    Some(Certain { held })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_one_lock_answered_is_right(seed in any::<u64>(), users in 1..12_usize, ops in 1..250_usize) {
        let history = history(seed, users, ops);
        prop_assert_eq!(check(&history, BUDGET), Verdict::Linearizable);
    }

    #[test]
    fn a_few_operations_are_judged_as_by_trying_everything(ops in prop::collection::vec(any_op(), 1..7), until in (0..80_u64, 0..80_u64)) {
        let sessions = [(1, ms(until.0)), (2, ms(until.1))].into();
        let history = History { name: "a".to_owned(), ops, sessions };
        let right = by_trying_everything(&history);
        match check(&history, BUDGET) {
            Verdict::Linearizable => prop_assert!(right),
            Verdict::Violation(text) => prop_assert!(!right, "{}", text),
            Verdict::Undecided => prop_assert!(false, "undecided"),
        }
    }

    #[test]
    fn one_wrong_answer_is_found(seed in any::<u64>(), kind in 0..6_u32) {
        let right = history(seed, 5, 150);
        let mut pick = crate::workload::Dice::new(seed);
        let Some(Certain { held: (grant, release) }) = certainly_held(&right, &mut pick) else { return Ok(()) };
        let (What::Granted { token, .. }, Some(answered), Some(released)) = (&grant.what, grant.returned, release.returned)
        else { return Ok(()) };
        let mut wrong = right.clone();
        let stranger = |invoked: At, returned: At, what| Op { session: 999, invoked, returned: Some(returned), what };
        let within = |what| stranger(answered + ms(1), answered + ms(2), what);
        let after = |what| stranger(released + ms(1), released + ms(2), what);
        match kind {
            // A look that misses a holder, and one that sees one long gone.
            0 => wrong.ops.push(within(What::Read { held: None })),
            1 => wrong.ops.push(after(What::Read { held: Some((grant.session, *token)) })),
            // A second holder, a token used twice.
            2 => wrong.ops.push(within(granted(1_000_000))),
            3 => wrong.ops.push(after(granted(*token))),
            // A holder that is told too early that it has lost the lock.
            4 => wrong.ops.push(Op { session: grant.session, ..within(What::Lost { token: *token }) }),
            // Two grants one after the other, with their answers swapped.
            _ => {
                let later = right.ops.iter().position(|op| {
                    matches!(op.what, What::Granted { token: other, .. } if other > *token) && op.invoked > released
                });
                let first = right.ops.iter().position(|op| op == grant);
                let (Some(later), Some(first)) = (later, first) else { return Ok(()) };
                if wrong.ops[later].returned.is_none() { return Ok(()) }
                let what = wrong.ops[later].what.clone();
                wrong.ops[later].what = std::mem::replace(&mut wrong.ops[first].what, what);
            }
        }
        let verdict = check(&wrong, BUDGET);
        prop_assert!(matches!(verdict, Verdict::Violation(_)), "{kind}: {verdict:?}");
    }
}
