//! Circles that are there are found, each with one victim; and whoever is chosen was in one.

use proptest::{collection::vec, prelude::*};
use wardlock_machine::{Incarnation, Key, Name, WallMs};

use super::*;

fn session(number: u32) -> SessionId {
    SessionId::new(Incarnation(1), number.into())
}

/// Session `who` waits in shard `shard`, with this arrival.
fn wait(who: u32, arrival: u64, blockers: Blockers) -> Wait {
    Wait {
        key: Key::lock(Name::new(&format!("lock-{arrival}")).unwrap()),
        session: session(who),
        holder: format!("c{who}"),
        serial: true,
        arrival,
        priority: 0,
        since: WallMs(arrival),
        blockers,
    }
}

fn on(holders: &[u32]) -> Blockers {
    Blockers::All(holders.iter().map(|who| (session(*who), Token(u64::from(*who)))).collect())
}

fn any(holders: &[u32]) -> Blockers {
    Blockers::Any(holders.iter().map(|who| (session(*who), Token(u64::from(*who)))).collect())
}

fn seen(waits: Vec<Wait>) -> Seen {
    let mut seen = Seen::default();
    for wait in waits {
        seen.add(ShardId(1 + (wait.arrival % 3) as u32), vec![wait]);
    }
    seen
}

fn victims(seen: &Seen) -> Vec<SessionId> {
    find(seen).iter().map(|deadlock| seen.0[&deadlock.victim].session).collect()
}

#[test]
fn a_ring_has_one_victim_its_youngest_and_is_named_whole() {
    for length in [2u32, 5, 50, 200] {
        let ring = seen((0..length).map(|who| wait(who, u64::from(who), on(&[(who + 1) % length]))).collect());
        let found = find(&ring);
        assert_eq!(found.len(), 1);
        assert_eq!(ring.0[&found[0].victim].session, session(length - 1));
        assert_eq!(found[0].circle.length, length);
        assert_eq!(found[0].circle.steps.len(), limits::CIRCLE.min(length as usize));
        let named: Vec<SessionId> = found[0].circle.steps.iter().map(|step| step.session).collect();
        let expected: Vec<SessionId> = (0..length).map(|step| session((length - 1 + step) % length)).collect();
        assert_eq!(named, expected[..named.len()], "each waits for the next");
    }
}

#[test]
fn the_lowest_priority_goes_before_the_youngest() {
    let mut waits = vec![wait(0, 10, on(&[1])), wait(1, 11, on(&[2])), wait(2, 12, on(&[0]))];
    waits[0].priority = -3;
    assert_eq!(victims(&seen(waits)), [session(0)]);
}

#[test]
fn whoever_can_still_go_on_is_no_deadlock() {
    // A chain, a semaphore with one holder that works, a delay, a session with two threads.
    assert!(victims(&seen(vec![wait(0, 0, on(&[1])), wait(1, 1, on(&[2]))])).is_empty());
    assert!(victims(&seen(vec![wait(0, 0, any(&[1, 9])), wait(1, 1, on(&[0]))])).is_empty());
    assert!(victims(&seen(vec![wait(0, 0, Blockers::Nobody), wait(1, 1, on(&[0]))])).is_empty());
    let mut threads = vec![wait(0, 0, on(&[1])), wait(1, 1, on(&[0]))];
    threads[1].serial = false;
    assert!(victims(&seen(threads)).is_empty());
    // One of its two waits will end.
    let two = vec![wait(0, 0, on(&[1])), wait(0, 1, on(&[7])), wait(1, 2, on(&[0]))];
    assert!(victims(&seen(two)).is_empty());
}

#[test]
fn whoever_waits_for_any_of_those_who_are_stuck_is_stuck() {
    let waits = vec![wait(0, 0, any(&[1, 2])), wait(1, 1, on(&[0])), wait(2, 2, on(&[0]))];
    assert_eq!(victims(&seen(waits)), [session(2)]);
}

#[test]
fn a_queue_is_part_of_a_circle() {
    // 2 waits for 1 alone, behind 3, who has threads; 1 waits for 2.
    let mut behind = wait(2, 4, Blockers::Waiter(1));
    behind.key = Key::lock(Name::new("lock-1").unwrap());
    let mut first = wait(3, 1, on(&[1]));
    first.serial = false;
    let waits = vec![first, behind, wait(1, 2, on(&[2]))];
    let mut all = Seen::default();
    for wait in waits {
        let shard = if wait.key.name.as_str() == "lock-1" { ShardId(1) } else { ShardId(2) };
        all.add(shard, vec![wait]);
    }
    let found = find(&all);
    assert_eq!(found.len(), 1);
    assert_eq!(all.0[&found[0].victim].session, session(2), "who has threads is no victim");
    assert_eq!(found[0].circle.length, 3);
}

#[test]
fn two_circles_have_two_victims_and_two_in_one_knot_have_one() {
    let apart = vec![wait(0, 0, on(&[1])), wait(1, 1, on(&[0])), wait(2, 2, on(&[3])), wait(3, 3, on(&[2]))];
    assert_eq!(victims(&seen(apart)), [session(3), session(1)]);
    let knot = vec![wait(0, 0, on(&[1, 2])), wait(1, 1, on(&[0])), wait(2, 2, on(&[0]))];
    assert_eq!(victims(&seen(knot)), [session(2)]);
}

#[test]
fn only_what_two_looks_show_alike_stands() {
    let ring = |token: u64, arrival: u64| {
        let mut all = Seen::default();
        all.add(ShardId(1), vec![wait(0, arrival, Blockers::All(vec![(session(1), Token(token))]))]);
        all.add(ShardId(2), vec![wait(1, 7, on(&[0]))]);
        all
    };
    assert_eq!(victims(&stand(&ring(1, 3), ring(1, 3))).len(), 1);
    assert!(victims(&stand(&ring(1, 3), ring(2, 3))).is_empty(), "it was granted anew meanwhile");
    assert!(victims(&stand(&ring(1, 3), ring(1, 4))).is_empty(), "it waits anew");
    assert!(victims(&stand(&Seen::default(), ring(1, 3))).is_empty());
}

/// A world of sessions that do one thing at a time, of which some wait.
fn worlds() -> impl Strategy<Value = Seen> {
    let blockers = prop_oneof![
        5 => vec(0u32..12, 1..4).prop_map(|holders| on(&holders)),
        2 => vec(0u32..12, 1..4).prop_map(|holders| any(&holders)),
        1 => Just(Blockers::Nobody),
    ];
    vec((0u32..12, -1i32..2, prop::bool::weighted(0.9), prop::bool::weighted(0.2), blockers), 0..14).prop_map(|all| {
        let (mut seen, mut last): (Seen, BTreeMap<ShardId, u64>) = Default::default();
        let serial: BTreeMap<u32, bool> = all.iter().map(|(who, _, serial, ..)| (*who, *serial)).collect();
        for (arrival, (who, priority, _, behind, blockers)) in all.into_iter().enumerate() {
            let shard = ShardId(1 + arrival as u32 % 3);
            let before = last.insert(shard, arrival as u64).filter(|_| behind);
            let blockers = match blockers {
                // Nobody waits for itself.
                Blockers::All(of) => {
                    Blockers::All(of.into_iter().filter(|(holder, _)| *holder != session(who)).collect())
                }
                Blockers::Any(of) => {
                    Blockers::Any(of.into_iter().filter(|(holder, _)| *holder != session(who)).collect())
                }
                other => other,
            };
            let mut wait = wait(who, arrival as u64, before.map_or(blockers, Blockers::Waiter));
            (wait.priority, wait.serial) = (priority, serial[&who]);
            seen.add(shard, vec![wait]);
        }
        seen
    })
}

/// Lets all who can go on do so, one after the other, in the plainest way; who is left is deadlocked.
fn left_over(seen: &Seen) -> BTreeSet<WaitId> {
    let mut left: BTreeSet<WaitId> = seen.0.keys().copied().collect();
    loop {
        let works = |who: SessionId| {
            let own: Vec<_> = seen.0.iter().filter(|(_, wait)| wait.session == who).collect();
            own.is_empty() || own.iter().any(|(id, wait)| !wait.serial || !left.contains(id))
        };
        let goes_on = |id: &WaitId| match &seen.0[id].blockers {
            Blockers::Nobody => true,
            Blockers::Waiter(before) => !left.contains(&(id.0, *before)),
            Blockers::All(of) => of.iter().all(|(who, _)| works(*who)),
            Blockers::Any(of) => of.is_empty() || of.iter().any(|(who, _)| works(*who)),
        };
        let Some(next) = left.iter().find(|id| goes_on(id)).copied() else { return left };
        left.remove(&next);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]

    /// Nobody is a victim without a circle of those who can never go on; and where some never can, there is a victim,
    /// after whose going another look finds what is left.
    #[test]
    fn victims_are_those_of_true_circles_and_there_are_enough(world in worlds()) {
        let mut world = world;
        for _ in 0..20 {
            let (found, left) = (find(&world), left_over(&world));
            prop_assert_eq!(found.is_empty(), left.is_empty(), "{:?}", left);
            for deadlock in &found {
                prop_assert!(left.contains(&deadlock.victim));
                let circle = &deadlock.circle;
                prop_assert!(circle.length >= 2 && circle.steps.len() == circle.length as usize);
                prop_assert_eq!(&world.0[&deadlock.victim].key, &circle.steps[0].key);
                for (step, next) in circle.steps.iter().zip(circle.steps.iter().cycle().skip(1)) {
                    let of = |step: &CircleStep| world.0.iter().find(|(_, wait)| wait.key == step.key).expect("it waits");
                    let ((id, wait), (next_id, next)) = (of(step), of(next));
                    prop_assert!(left.contains(id));
                    let waits = match &wait.blockers {
                        Blockers::Nobody => false,
                        Blockers::Waiter(before) => *next_id == (id.0, *before),
                        Blockers::All(of) | Blockers::Any(of) => of.iter().any(|(who, _)| *who == next.session),
                    };
                    prop_assert!(waits, "{step:?} does not wait for {next:?}");
                }
            }
            for deadlock in &found {
                world.0.remove(&deadlock.victim);
            }
        }
        prop_assert!(left_over(&world).is_empty());
    }
}
