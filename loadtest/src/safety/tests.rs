//! Planted violations are seen, and what a correct system may do is not accused.

use super::*;

const NAME: u64 = 5;

fn at(seconds: f64) -> At {
    Duration::from_secs_f64(seconds)
}

/// Sessions 0 to 3, opened at 0 s for 10 s.
fn checker() -> Safety {
    let mut safety = Safety::new(10, 4);
    (0..4).for_each(|session| safety.opened(session, at(0.0), at(10.0)));
    safety
}

fn grant(session: u32, token: u64) -> Granted {
    Granted { session, name: NAME, token, shared: false, lease: None }
}

impl Safety {
    /// Asked for and granted at once.
    fn take(&mut self, granted: Granted, now: f64) {
        let asked = self.asking(granted.session, granted.name, at(now));
        self.granted(asked, granted, at(now));
    }
}

#[test]
fn an_orderly_life_is_no_violation() {
    let mut safety = checker();
    safety.take(grant(0, 1), 1.0);
    let read = safety.reading(NAME, at(1.5));
    safety.was_read(NAME, read, Some(1), at(1.6));
    assert!(safety.releasing(NAME, 1).is_some());
    safety.take(grant(1, 2), 2.0);
    safety.releasing(NAME, 2);
    for session in 0..3 {
        safety.take(Granted { shared: true, ..grant(session, 3 + u64::from(session)) }, 3.0);
    }
    assert_eq!(safety.violations(), 0, "{:?}", safety.examples());
}

#[test]
fn two_holders_at_once_are_seen() {
    let mut safety = checker();
    safety.take(grant(0, 1), 1.0);
    safety.take(grant(1, 2), 2.0);
    assert_eq!(safety.violations(), 1, "exclusive after exclusive");

    let mut safety = checker();
    safety.take(grant(0, 1), 1.0);
    safety.take(Granted { shared: true, ..grant(1, 2) }, 2.0);
    assert_eq!(safety.violations(), 1, "shared after exclusive");

    let mut safety = checker();
    safety.take(Granted { shared: true, ..grant(0, 1) }, 1.0);
    safety.take(Granted { shared: true, ..grant(1, 2) }, 1.0);
    assert_eq!(safety.violations(), 0);
    safety.take(grant(2, 3), 2.0);
    assert_eq!(safety.violations(), 1, "exclusive after shared");
    assert!(safety.examples()[0].contains("name 5"), "{:?}", safety.examples());
}

#[test]
fn a_token_that_does_not_rise_is_seen() {
    for second in [1, 2] {
        let mut safety = checker();
        safety.take(grant(0, 2), 1.0);
        safety.releasing(NAME, 2);
        safety.take(grant(1, second), 2.0);
        assert_eq!(safety.violations(), 1, "token {second} after token 2");
    }
    // Both were asked for before either was granted.
    let mut safety = checker();
    let (first, second) = (safety.asking(0, NAME, at(1.0)), safety.asking(1, NAME, at(1.0)));
    safety.granted(first, grant(0, 2), at(1.1));
    safety.releasing(NAME, 2);
    safety.granted(second, grant(1, 1), at(1.2));
    assert_eq!(safety.violations(), 1);
}

#[test]
fn shared_grants_may_be_answered_in_any_order() {
    let mut safety = checker();
    let (first, second) = (safety.asking(0, NAME, at(1.0)), safety.asking(1, NAME, at(1.0)));
    safety.granted(second, Granted { shared: true, ..grant(1, 2) }, at(1.1));
    safety.granted(first, Granted { shared: true, ..grant(0, 1) }, at(1.2));
    assert_eq!(safety.violations(), 0, "{:?}", safety.examples());
}

#[test]
fn a_lock_may_pass_on_once_its_session_or_lease_may_have_ended() {
    let mut safety = checker();
    safety.take(grant(0, 1), 1.0);
    safety.alive(1, at(9.0));
    safety.take(grant(1, 2), 9.95);
    assert_eq!(safety.violations(), 0, "the session's TTL, less 1 %, has passed");

    let mut safety = checker();
    let leased = Granted { lease: Some(at(2.0)), ..grant(0, 1) };
    safety.take(leased, 1.0);
    safety.take(grant(1, 2), 3.5);
    assert_eq!(safety.violations(), 0, "its lease has passed");

    let mut safety = checker();
    safety.take(leased, 1.0);
    safety.renewed(NAME, 1, at(2.0), at(2.0));
    safety.take(grant(1, 2), 3.5);
    assert_eq!(safety.violations(), 1, "it was renewed");
}

#[test]
fn a_late_answer_about_a_holding_that_is_over_accuses_nobody() {
    let mut safety = checker();
    let late = safety.asking(0, NAME, at(1.0));
    let leased = |session, token| Granted { lease: Some(at(1.0)), ..grant(session, token) };
    safety.take(leased(1, 2), 3.0);
    safety.granted(late, leased(0, 1), at(3.5));
    assert_eq!(safety.violations(), 0, "{:?}", safety.examples());
    assert!(safety.reading(NAME, at(3.6)).is_some_and(|holder| holder.token == 2), "the living holder stands");
}

#[test]
fn a_session_that_ends_early_is_seen() {
    let mut safety = checker();
    safety.session_lost(0, at(9.95));
    assert_eq!(safety.violations(), 0, "in time");
    safety.alive(1, at(5.0));
    safety.session_lost(1, at(12.0));
    assert_eq!(safety.violations(), 1, "its last sign of life was sent at 5 s");
    safety.opened(1, at(12.0), at(10.0));
    safety.session_lost(1, at(13.0));
    assert_eq!(safety.violations(), 2, "its next life counts from its own beginning");
}

#[test]
fn a_lock_that_is_lost_early_is_seen() {
    let mut safety = checker();
    safety.take(Granted { lease: Some(at(4.0)), ..grant(0, 1) }, 1.0);
    let holder = safety.releasing(NAME, 1);
    safety.was_lost(NAME, holder, at(2.0));
    assert_eq!(safety.violations(), 1);

    let mut safety = checker();
    safety.take(Granted { lease: Some(at(4.0)), ..grant(0, 1) }, 1.0);
    safety.renewal_lost(NAME, 1, at(4.99));
    assert_eq!(safety.violations(), 0, "in time");

    let mut safety = checker();
    safety.take(grant(0, 1), 1.0);
    safety.renewal_lost(NAME, 1, at(2.0));
    assert_eq!(safety.violations(), 1, "it lives as long as its session");
}

#[test]
fn a_lost_session_takes_its_locks_with_it() {
    let mut safety = checker();
    safety.take(grant(0, 1), 1.0);
    safety.session_lost(0, at(11.0));
    safety.opened(0, at(11.0), at(10.0));
    safety.alive(1, at(11.0));
    safety.take(grant(1, 2), 12.0);
    assert_eq!(safety.violations(), 0, "the new life of session 0 does not hold what the old one held");
}

#[test]
fn a_stale_read_is_seen() {
    let mut safety = checker();
    safety.take(grant(0, 3), 1.0);
    let before = safety.reading(NAME, at(2.0));
    safety.was_read(NAME, before, None, at(2.1));
    safety.was_read(NAME, before, Some(2), at(2.1));
    assert_eq!(safety.violations(), 2);
    // The release overtakes the read: either answer is right.
    safety.releasing(NAME, 3);
    safety.was_read(NAME, before, None, at(2.2));
    assert_eq!(safety.violations(), 2);
}

#[test]
fn a_name_used_anew_and_a_session_that_closes_accuse_nobody() {
    let mut safety = checker();
    safety.take(grant(0, 5), 1.0);
    safety.forget_name(NAME);
    safety.take(grant(1, 1), 2.0);
    safety.closing(1);
    safety.take(grant(2, 2), 3.0);
    safety.session_lost(1, at(3.5));
    assert_eq!(safety.violations(), 0, "{:?}", safety.examples());
    safety.take(grant(3, 3), 4.0);
    assert_eq!(safety.violations(), 1, "session 2 holds it");
}
