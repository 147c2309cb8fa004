//! Liveness.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};
use wardlock_machine::*;
use wardlock_wire::{KeptAlive, Op, Response};

use super::fake::{Fake, Reply, map, well};
use crate::client::SessionState;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_session_that_is_answered_lives_on() {
    let fake = Fake::new(map(1, 2), |_, _, op| well(op));
    let client = fake.client().await;
    let session = client.session("worker").ttl(9 * SECOND).open().await.expect("open");
    assert_eq!(session.id().incarnation(), Incarnation(7));
    for _ in 0..100 {
        sleep(SECOND).await;
        assert_eq!(session.state(), SessionState::Healthy);
    }
    let beats = fake.ops().iter().filter(|(_, op)| matches!(op, Op::KeepAlive { .. })).count();
    assert!((33..41).contains(&beats), "{beats} signs of life in 100 s at a TTL of 9 s");
    session.close().await.expect("closed");
    assert!(matches!(fake.writes().last(), Some(Command::CloseSession { .. })));
}

#[tokio::test(start_paused = true)]
async fn without_answers_jeopardy_then_loss_before_the_servers_may_grant_anew() {
    let mute = Arc::new(AtomicBool::new(false));
    let silent = mute.clone();
    let fake = Fake::new(map(1, 1), move |_, _, op| match op {
        Op::KeepAlive { .. } if silent.load(Ordering::Relaxed) => Reply::Never,
        _ => well(op),
    });
    let client = fake.client().await;
    let session = client.session("worker").ttl(10 * SECOND).open().await.expect("open");
    sleep(20 * SECOND).await;
    mute.store(true, Ordering::Relaxed);
    let last = fake
        .calls
        .lock()
        .expect("calls")
        .iter()
        .rev()
        .find(|(_, _, op)| matches!(op, Op::KeepAlive { .. }))
        .expect("a beat")
        .0;
    let mut changed = session.changed();
    let token = session.cancelled();
    changed.changed().await.expect("jeopardy");
    assert_eq!(*changed.borrow_and_update(), SessionState::Jeopardy);
    let jeopardy = last.elapsed();
    assert!((4_900..5_000).contains(&jeopardy.as_millis()), "jeopardy {jeopardy:?} after the last answered beat");
    assert!(!token.is_cancelled());
    changed.changed().await.expect("lost");
    assert_eq!(*changed.borrow_and_update(), SessionState::Lost);
    let lost = last.elapsed();
    assert!(
        lost <= Duration::from_millis(9_902),
        "told {lost:?} after the last answered beat: later than 99 % of the TTL"
    );
    assert!(lost >= Duration::from_millis(9_899), "given up early: {lost:?}");
    assert!(token.is_cancelled());
    assert_eq!(session.state(), SessionState::Lost);
    assert!(session.remaining().is_zero());
}

#[tokio::test(start_paused = true)]
async fn an_answer_after_the_deadline_revives_nothing() {
    let fake = Fake::new(map(1, 1), |_, _, op| match op {
        Op::KeepAlive { .. } => Reply::After(20 * SECOND, Ok(Response::KeptAlive(KeptAlive::Alive))),
        _ => well(op),
    });
    let client = fake.client().await;
    let session = client.session("worker").ttl(2 * SECOND).open().await.expect("open");
    sleep(60 * SECOND).await;
    assert_eq!(session.state(), SessionState::Lost);
}

#[tokio::test(start_paused = true)]
async fn validity_counts_from_the_attempt_that_was_answered() {
    let first = AtomicBool::new(true);
    let fake = Fake::new(map(1, 1), move |_, _, op| match op {
        Op::KeepAlive { .. } if first.swap(false, Ordering::Relaxed) => Reply::Never,
        Op::KeepAlive { .. } => Reply::After(SECOND, Ok(Response::KeptAlive(KeptAlive::Alive))),
        _ => well(op),
    });
    let client = fake.client().await;
    let session = client.session("worker").ttl(10 * SECOND).open().await.expect("open");
    let opened = Instant::now();
    let before = session.valid_until();
    sleep(6 * SECOND).await;
    let second = fake
        .calls
        .lock()
        .expect("calls")
        .iter()
        .filter(|(_, _, op)| matches!(op, Op::KeepAlive { .. }))
        .nth(1)
        .expect("two beats")
        .0;
    assert_eq!(session.valid_until().since(before), second - opened, "not from the first, nor from the answer");
}

#[tokio::test(start_paused = true)]
async fn an_ended_session_is_lost_at_once() {
    for end in [KeptAlive::Ended, KeptAlive::Unknown] {
        let fake = Fake::new(map(1, 1), move |_, _, op| match op {
            Op::KeepAlive { .. } => Reply::Now(Ok(Response::KeptAlive(end))),
            _ => well(op),
        });
        let client = fake.client().await;
        let session = client.session("worker").ttl(9 * SECOND).open().await.expect("open");
        let lost = session.cancelled();
        timeout(Duration::from_millis(3_100), lost.cancelled()).await.expect("with the first sign of life");
        assert_eq!(session.state(), SessionState::Lost);
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_closes_the_session() {
    let fake = Fake::new(map(1, 1), |_, _, op| well(op));
    let client = fake.client().await;
    let session = client.session("worker").open().await.expect("open");
    let guard = session.lock("a").acquire().await.expect("granted");
    drop(client);
    drop(session);
    sleep(SECOND).await;
    assert!(guard.is_held(), "a guard is a handle, and keeps the client's tasks going");
    sleep(60 * SECOND).await;
    assert!(guard.is_held());
    drop(guard);
    sleep(SECOND).await;
    let ends: Vec<Command> = fake.writes().into_iter().skip(2).collect();
    assert!(matches!(ends[..], [Command::Release { .. }, Command::CloseSession { .. }]), "{ends:?}");
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), 0, "the tasks end with the last handle");
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_sessions_take_no_task_each() {
    let beats = Arc::new(AtomicU32::new(0));
    let counted = beats.clone();
    let fake = Fake::new(map(1, 16), move |_, _, op| {
        if matches!(op, Op::KeepAlive { .. }) {
            counted.fetch_add(1, Ordering::Relaxed);
        }
        well(op)
    });
    let client = fake.client().await;
    let opening = (0..10_000).map(|n| client.session(format!("worker-{n}")).ttl(9 * SECOND).open());
    let sessions = futures_util::future::join_all(opening).await;
    sleep(30 * SECOND).await;
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    assert!(tasks <= 3, "{tasks} tasks");
    for session in &sessions {
        assert_eq!(session.as_ref().expect("open").state(), SessionState::Healthy);
    }
    let beats = beats.load(Ordering::Relaxed);
    assert!((90_000..130_000).contains(&beats), "{beats} signs of life in 30 s");
}
