//! Elections and their audience.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use wardlock_machine::*;
use wardlock_wire::{Op, Response};

use super::fake::{Fake, Reply, grant, map, well};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_candidate_is_the_elections_value() {
    let fake = Fake::new(map(1, 1), |_, _, op| well(op));
    let client = fake.client().await;
    let session = client.session("worker").open().await.expect("open");
    let leadership = session.election("boss").candidate("me").priority(3).campaign(SECOND).await.expect("elected");
    assert_eq!(leadership.grant().value.as_deref(), Some("me"));
    leadership.resign().await.expect("resigned");
    let campaign = fake.writes().into_iter().find_map(|command| match command {
        Command::Acquire(acquire) => Some((acquire.key.kind, acquire.mode, acquire.priority)),
        _ => None,
    });
    assert_eq!(campaign, Some((Kind::Election, Mode::Exclusive, 3)));
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_each_leader_once() {
    // Revisions 1 to 3 have the leaders 10, 10 (a waiter came), 11; then nobody leads.
    let asked = AtomicU64::new(0);
    let fake = Fake::new(map(1, 1), move |_, _, op| {
        let Op::Observe { key, since, wait_ms } = op else { panic!("only observations") };
        let turn = asked.fetch_add(1, Ordering::Relaxed);
        assert_eq!(*wait_ms == 0, turn == 0, "the first question is answered at once");
        assert_eq!(since.0, turn, "each question goes on from the last answer");
        let campaign = Acquire {
            session: SessionId(1),
            request: RequestId::Keyed { key: 0 },
            key: key.clone(),
            mode: Mode::Exclusive,
            lease: None,
            wait: Millis(0),
            priority: 0,
            lock_delay: Millis(0),
            metadata: Metadata::new(),
            value: Some("me".into()),
        };
        let holders = match turn {
            0 | 1 => vec![grant(&campaign, 10, Millis(0))],
            2 => vec![grant(&campaign, 11, Millis(0))],
            _ => Vec::new(),
        };
        let object = Object {
            key: key.clone(),
            holder_count: holders.len() as u32,
            holders,
            queue: Vec::new(),
            queue_count: 0,
            lock_delay_until: None,
            revision: Revision(turn + 1),
        };
        Reply::Now(Ok(Response::Observed { object: Some(object), revision: Revision(turn + 1) }))
    });
    let mut watch = fake.client().await.observe_leader("boss").expect("a name");
    let mut told = Vec::new();
    for _ in 0..3 {
        told.push(watch.next().await.expect("an answer").map(|grant| grant.lock_id.token));
    }
    assert_eq!(told, [Some(Token(10)), Some(Token(11)), None]);
}
