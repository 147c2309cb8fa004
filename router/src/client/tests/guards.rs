//! Locks that are held.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};
use wardlock_machine::*;
use wardlock_wire::{Op, Response};

use super::fake::{Fake, Reply, grant, map, outcome, well};
use crate::{
    Error,
    client::{LockError, Session},
    link::CallError,
};

const SECOND: Duration = Duration::from_secs(1);

async fn session(fake: &Arc<Fake>) -> Session {
    fake.client().await.session("worker").ttl(60 * SECOND).open().await.expect("open")
}

#[tokio::test(start_paused = true)]
async fn a_lease_counts_from_the_sending_less_drift() {
    let fake = Fake::new(map(1, 1), |_, _, op| match op {
        Op::Write(Command::Acquire(acquire)) => {
            let grant = grant(acquire, 5, Millis(0));
            Reply::After(SECOND, Ok(Response::Outcome(Outcome::Granted(grant))))
        }
        _ => well(op),
    });
    let session = session(&fake).await;
    let sent = Instant::now();
    let guard = session.lock("a").lease(10 * SECOND).acquire().await.expect("granted");
    assert_eq!(guard.fencing_token(), Token(5));
    assert_eq!(sent.elapsed() + guard.remaining(), Duration::from_millis(9_900));
    guard.lost().await;
    assert!(sent.elapsed() <= Duration::from_millis(9_902), "{:?}", sent.elapsed());
    assert!(!guard.is_held());
    assert!(matches!(guard.renew(10 * SECOND).await, Err(LockError::Expired)), "promise 2");
}

#[tokio::test(start_paused = true)]
async fn a_queued_grants_lease_counts_from_the_sending_and_the_wait() {
    let fake = Fake::new(map(1, 1), |_, _, op| match op {
        Op::Write(Command::Acquire(acquire)) => {
            let grant = grant(acquire, 1, Millis(20_000));
            Reply::After(25 * SECOND, Ok(Response::Outcome(Outcome::Granted(grant))))
        }
        _ => well(op),
    });
    let session = session(&fake).await;
    let sent = Instant::now();
    let guard = session.lock("a").wait(30 * SECOND).lease(10 * SECOND).acquire().await.expect("granted");
    assert_eq!(sent.elapsed() + guard.remaining(), Duration::from_millis(29_700), "(20 s + 10 s) less 1 %");
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_comes_after_its_lease_is_no_grant() {
    let fake = Fake::new(map(1, 1), |_, _, op| match op {
        Op::Write(Command::Acquire(acquire)) => {
            Reply::After(SECOND, Ok(Response::Outcome(Outcome::Granted(grant(acquire, 1, Millis(0))))))
        }
        _ => well(op),
    });
    let session = session(&fake).await;
    let late = session.lock("a").lease(SECOND / 2).acquire().await;
    assert!(matches!(late, Err(LockError::Expired)), "{late:?}");
    sleep(SECOND).await;
    assert!(matches!(fake.writes().last(), Some(Command::Release { .. })), "what is left of it is given back");
}

#[tokio::test(start_paused = true)]
async fn renewals_move_the_end_and_a_shorter_one_shortens_before_it_is_answered() {
    let answers = AtomicU32::new(0);
    let fake = Fake::new(map(1, 1), move |_, _, op| match op {
        Op::Write(Command::Renew { lock_id, lease, .. }) if answers.fetch_add(1, Ordering::Relaxed) == 0 => {
            let mut renewed = grant(&blank(), 1, Millis(0));
            (renewed.lock_id, renewed.lease) = (*lock_id, *lease);
            outcome(Outcome::Renewed(renewed))
        }
        Op::Write(Command::Renew { .. }) => Reply::Never,
        _ => well(op),
    });
    let session = session(&fake).await;
    let guard = session.lock("a").lease(10 * SECOND).acquire().await.expect("granted");
    sleep(5 * SECOND).await;
    guard.renew(20 * SECOND).await.expect("renewed");
    assert_eq!(guard.remaining(), Duration::from_millis(19_800));
    assert!(timeout(Duration::from_millis(10), guard.renew(2 * SECOND)).await.is_err());
    assert!(guard.remaining() < 2 * SECOND, "{:?}", guard.remaining());
}

fn blank() -> Acquire {
    Acquire {
        session: SessionId(0),
        request: RequestId::Keyed { key: 0 },
        key: super::fake::key("a"),
        mode: Mode::Exclusive,
        lease: None,
        wait: Millis(0),
        priority: 0,
        lock_delay: Millis(0),
        metadata: Metadata::new(),
        value: None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_guard_without_a_lease_ends_with_its_session() {
    let fake = Fake::new(map(1, 1), |_, _, op| match op {
        Op::KeepAlive { .. } => Reply::Never,
        _ => well(op),
    });
    let session = session(&fake).await;
    let began = Instant::now();
    let guard = session.lock("a").acquire().await.expect("granted");
    assert_eq!(guard.valid_until(), session.valid_until());
    guard.lost().await;
    assert!(began.elapsed() <= Duration::from_millis(59_402), "{:?}", began.elapsed());
    assert!(matches!(session.lock("b").acquire().await, Err(LockError::SessionLost)));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_wait_is_cancelled_and_stays_unanswered_until_then() {
    let fake = Fake::new(map(1, 1), |_, _, op| match op {
        Op::Write(Command::Acquire(acquire)) if acquire.key.name.as_str() == "busy" => Reply::Never,
        Op::Write(Command::Cancel { .. }) => Reply::After(SECOND, Ok(Response::Outcome(Outcome::Cancelled))),
        _ => well(op),
    });
    let session = session(&fake).await;
    let waiting = session.lock("busy").wait(60 * SECOND).acquire();
    assert!(timeout(SECOND, waiting).await.is_err());
    let _other = session.lock("free").acquire().await.expect("granted");
    sleep(2 * SECOND).await;
    let _third = session.lock("third").acquire().await.expect("granted");
    let writes = fake.writes();
    let request = |name: &str| {
        writes.iter().find_map(|command| match command {
            Command::Acquire(acquire) if acquire.key.name.as_str() == name => Some(acquire.request),
            _ => None,
        })
    };
    assert_eq!(request("busy"), Some(RequestId::Native { seq: 1, low: 1 }));
    assert_eq!(request("free"), Some(RequestId::Native { seq: 2, low: 1 }), "the cancelled one may still be asked for");
    assert_eq!(request("third"), Some(RequestId::Native { seq: 3, low: 3 }));
    let cancels: Vec<_> = writes.iter().filter(|command| matches!(command, Command::Cancel { .. })).collect();
    assert!(
        matches!(cancels[..], [Command::Cancel { request, .. }] if *request == RequestId::Native { seq: 1, low: 1 }),
        "{cancels:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_nobody_knows_is_cancelled_and_what_did_not_happen_is_not() {
    let fake = Fake::new(map(1, 1), |_, _, op| match op {
        Op::Write(Command::Acquire(acquire)) => match acquire.key.name.as_str() {
            "lost" => Reply::Now(Err(CallError::Lost)),
            _ => Reply::Now(Err(CallError::NotSent("no connection".into()))),
        },
        _ => well(op),
    });
    let session = session(&fake).await;
    let never = session.lock("never").acquire().await;
    assert!(matches!(never, Err(LockError::Call(Error::Unreachable { .. }))), "{never:?}");
    let lost = session.lock("lost").acquire().await;
    assert!(matches!(lost, Err(LockError::Call(Error::OutcomeUnknown))), "{lost:?}");
    sleep(SECOND).await;
    let cancelled = fake.writes().into_iter().filter_map(|command| match command {
        Command::Cancel { key, .. } => Some(key.name.to_string()),
        _ => None,
    });
    assert_eq!(cancelled.collect::<Vec<_>>(), ["lost"]);
}

#[tokio::test(start_paused = true)]
async fn a_release_that_was_not_run_is_sent_anew() {
    let tries = AtomicU32::new(0);
    let fake = Fake::new(map(1, 1), move |_, _, op| match op {
        Op::Write(Command::Release { .. }) if tries.fetch_add(1, Ordering::Relaxed) == 0 => outcome(Outcome::TooOld),
        _ => well(op),
    });
    let session = session(&fake).await;
    // What users do: from a task of their own.
    let task = tokio::spawn(async move { session.lock("a").acquire().await.expect("granted").release().await });
    let released = task.await.expect("no panic");
    assert!(matches!(released, Err(LockError::Call(Error::OutcomeUnknown))), "{released:?}");
    sleep(SECOND).await;
    let requests = fake.writes().into_iter().filter_map(|command| match command {
        Command::Release { request, .. } => Some(request),
        _ => None,
    });
    let numbers = [RequestId::Native { seq: 2, low: 2 }, RequestId::Native { seq: 3, low: 3 }];
    assert_eq!(requests.collect::<Vec<_>>(), numbers);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_can_give_a_lease_and_its_end_is_told() {
    let fake = Fake::new(map(1, 1), |_, _, op| match op {
        Op::Write(Command::Renew { lock_id, lease, .. }) => {
            let mut renewed = grant(&blank(), 1, Millis(0));
            (renewed.lock_id, renewed.lease) = (*lock_id, *lease);
            outcome(Outcome::Renewed(renewed))
        }
        _ => well(op),
    });
    let session = session(&fake).await;
    let guard = session.lock("a").acquire().await.expect("granted");
    let lost = tokio::spawn(guard.lost());
    sleep(SECOND).await;
    let renewed = Instant::now();
    guard.renew(10 * SECOND).await.expect("renewed");
    lost.await.expect("no panic");
    assert!((9_900..9_903).contains(&renewed.elapsed().as_millis()), "{:?}", renewed.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_lost_session_ends_its_waits() {
    let fake = Fake::new(map(1, 1), |_, _, op| match op {
        Op::KeepAlive { .. } => Reply::Now(Ok(Response::KeptAlive(wardlock_wire::KeptAlive::Ended))),
        Op::Write(Command::Acquire(_)) => Reply::Never,
        _ => well(op),
    });
    let session = session(&fake).await;
    let waiting = session.lock("a").wait(600 * SECOND).acquire().await;
    assert!(matches!(waiting, Err(LockError::SessionLost)), "{waiting:?}");
}

#[tokio::test(start_paused = true)]
async fn a_release_that_fails_or_is_dropped_goes_on_in_the_background() {
    let tries = AtomicU32::new(0);
    let fake = Fake::new(map(1, 1), move |_, _, op| match op {
        Op::Write(Command::Release { .. }) if tries.fetch_add(1, Ordering::Relaxed) == 0 => Reply::Never,
        _ => well(op),
    });
    let session = session(&fake).await;
    let guard = session.lock("a").acquire().await.expect("granted");
    let lost = guard.lost();
    assert!(timeout(SECOND, guard.release()).await.is_err());
    lost.await;
    sleep(SECOND).await;
    let releases = fake.writes().iter().filter(|command| matches!(command, Command::Release { .. })).count();
    assert_eq!(releases, 2);
}
