//! Routing and retrying.

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;
use wardlock_machine::*;
use wardlock_placement::{GroupId, MapVersion, NodeId, hash_name};
use wardlock_wire::{Op, Refusal, Response};

use super::fake::{Fake, Reply, grant, key, map, outcome, refuse};
use crate::{Error, client::Client, link::CallError};

const SECOND: Duration = Duration::from_secs(1);

fn acquire(client: &Client, name: &str) -> Command {
    Command::Acquire(Acquire {
        session: client.new_session_id(),
        request: client.random_request(),
        key: key(name),
        mode: Mode::Exclusive,
        lease: None,
        wait: Millis(0),
        priority: 0,
        lock_delay: Millis(0),
        metadata: Metadata::new(),
        value: None,
    })
}

fn granted(op: &Op) -> Reply {
    match op {
        Op::Write(Command::Acquire(acquire)) => outcome(Outcome::Granted(grant(acquire, 1, Millis(0)))),
        _ => outcome(Outcome::Done),
    }
}

#[tokio::test(start_paused = true)]
async fn a_hint_is_followed_at_once_and_remembered() {
    let fake = Fake::new(map(1, 1), |node, _, op| match node {
        NodeId(3) => granted(op),
        _ => refuse(Refusal::NotLeader { hint: Some(NodeId(3)) }),
    });
    let client = fake.client().await;
    let began = Instant::now();
    assert!(matches!(client.write(acquire(&client, "a"), SECOND).await, Ok(Outcome::Granted(_))));
    assert_eq!(began.elapsed(), Duration::ZERO);
    client.write(acquire(&client, "b"), SECOND).await.expect("granted");
    let nodes: Vec<NodeId> = fake.ops().into_iter().map(|(node, _)| node).collect();
    assert_eq!(nodes, [NodeId(1), NodeId(3), NodeId(3)]);
}

#[tokio::test(start_paused = true)]
async fn hints_in_a_circle_do_not_spin() {
    let fake = Fake::new(map(1, 1), |node, _, _| refuse(Refusal::NotLeader { hint: Some(NodeId(3 - node.0.min(2))) }));
    let client = fake.client().await;
    let error = client.write(acquire(&client, "a"), SECOND).await.expect_err("nobody leads");
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(fake.ops().len() < 150, "{} calls in a second", fake.ops().len());
}

#[tokio::test(start_paused = true)]
async fn a_shard_without_leader_is_given_up_after_five_seconds() {
    let fake = Fake::new(map(1, 1), |_, _, _| refuse(Refusal::NoQuorum));
    let client = fake.client().await;
    let began = Instant::now();
    let error = client.write(acquire(&client, "a"), 60 * SECOND).await.expect_err("no leader");
    assert!(matches!(error, Error::Unavailable { retry_after, .. } if retry_after == SECOND), "{error:?}");
    assert!((5 * SECOND..6 * SECOND).contains(&began.elapsed()), "{:?}", began.elapsed());
    let asked: std::collections::BTreeSet<NodeId> = fake.ops().into_iter().map(|(node, _)| node).collect();
    assert_eq!(asked.len(), 3, "every replica was asked");
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_asked_for_elsewhere_with_the_same_request() {
    let fake = Fake::new(map(1, 1), |node, _, op| match node {
        NodeId(1) => Reply::Now(Err(CallError::Lost)),
        NodeId(2) => refuse(Refusal::OutcomeUnknown),
        _ => granted(op),
    });
    let client = fake.client().await;
    let command = acquire(&client, "a");
    assert!(matches!(client.write(command.clone(), SECOND).await, Ok(Outcome::Granted(_))));
    assert_eq!(fake.writes(), vec![command; 3]);
}

#[tokio::test(start_paused = true)]
async fn what_may_have_happened_is_unknown_and_what_did_not_is_unavailable() {
    let lost = Fake::new(map(1, 1), |node, _, _| match node {
        NodeId(2) => Reply::Now(Err(CallError::Lost)),
        _ => refuse(Refusal::NotLeader { hint: None }),
    });
    let client = lost.client().await;
    let began = Instant::now();
    assert_eq!(client.write(acquire(&client, "a"), 8 * SECOND).await, Err(Error::OutcomeUnknown));
    assert!(began.elapsed() > 7_800 * SECOND / 1_000, "its answer is worth all of the patience");
    // A read changes nothing, whatever became of it.
    let read = client.read(Query::Object { key: key("a") }, SECOND).await;
    assert!(matches!(read, Err(Error::Unavailable { .. })), "{read:?}");

    let unreached = Fake::new(map(1, 1), |_, _, _| Reply::Now(Err(CallError::NotSent("no connection".into()))));
    let client = unreached.client().await;
    let error = client.write(acquire(&client, "a"), SECOND).await;
    assert!(matches!(error, Err(Error::Unreachable { .. })), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn no_attempt_is_sent_that_nobody_has_time_to_hear() {
    let fake = Fake::new(map(1, 1), |_, _, _| refuse(Refusal::NotLeader { hint: None }));
    let client = fake.client().await;
    for patience in (1..40).map(|n| Duration::from_millis(n * 7)) {
        let deadline = Instant::now() + patience;
        let error = client.write(acquire(&client, "a"), patience).await.expect_err("nobody leads");
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        assert!(fake.calls.lock().expect("calls").last().expect("a call").0 < deadline);
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_told_at_once_unless_something_may_have_happened() {
    let fake = Fake::new(map(1, 1), |_, _, _| refuse(Refusal::DiskFull));
    let client = fake.client().await;
    assert_eq!(client.write(acquire(&client, "a"), SECOND).await, Err(Error::DiskFull));
    assert_eq!(fake.ops().len(), 1);

    let fake = Fake::new(map(1, 1), |node, _, _| match node {
        NodeId(1) => Reply::Now(Err(CallError::Lost)),
        _ => refuse(Refusal::DiskFull),
    });
    let client = fake.client().await;
    assert_eq!(client.write(acquire(&client, "a"), SECOND).await, Err(Error::OutcomeUnknown));
}

#[tokio::test(start_paused = true)]
async fn a_break_is_not_repeated() {
    let fake = Fake::new(map(1, 1), |_, _, _| Reply::Now(Err(CallError::Lost)));
    let client = fake.client().await;
    let command = Command::Break { key: key("a"), reason: "stuck".into() };
    assert_eq!(client.write(command, SECOND).await, Err(Error::OutcomeUnknown));
    assert_eq!(fake.ops().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_left_for_the_next_replica() {
    let fake = Fake::new(map(1, 1), |node, _, op| if node == NodeId(1) { Reply::Never } else { granted(op) });
    let client = fake.client().await;
    let began = Instant::now();
    assert!(matches!(client.write(acquire(&client, "a"), 10 * SECOND).await, Ok(Outcome::Granted(_))));
    assert!((1_500..1_600).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_waiting_acquire_is_not_taken_for_silence() {
    let fake = Fake::new(map(1, 1), |_, _, op| match op {
        Op::Write(Command::Acquire(acquire)) => {
            let grant = grant(acquire, 1, Millis(20_000));
            Reply::After(20 * SECOND, Ok(Response::Outcome(Outcome::Granted(grant))))
        }
        _ => Reply::Never,
    });
    let client = fake.client().await;
    let Command::Acquire(mut waiting) = acquire(&client, "a") else { panic!("made above") };
    waiting.wait = Millis(30_000);
    assert!(matches!(client.write(Command::Acquire(waiting), 35 * SECOND).await, Ok(Outcome::Granted(_))));
    assert_eq!(fake.ops().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stale_map_is_fetched_once_however_many_calls_it_misled() {
    let newer = map(2, 2);
    let owners = Arc::new(newer.clone());
    let fake = Fake::new(map(1, 1), move |_, group, op| {
        let Op::Write(command) = op else { panic!("only writes") };
        let name = command.key().expect("keyed").name.as_str();
        match owners.owner(hash_name(&owners.hash_key, name)) == Some(group) {
            true => granted(op),
            false => refuse(Refusal::StaleEpoch { current: RangeEpoch(2), map: MapVersion(2) }),
        }
    });
    let client = fake.client().await;
    let before = fake.map_fetches.load(Ordering::Relaxed);
    *fake.map.lock().expect("map") = newer;
    let calls = (0..200).map(|n| client.write(acquire(&client, &format!("lock-{n}")), SECOND));
    for outcome in futures_util::future::join_all(calls).await {
        assert!(matches!(outcome, Ok(Outcome::Granted(_))), "{outcome:?}");
    }
    assert_eq!(client.map().version, MapVersion(2));
    let fetches = fake.map_fetches.load(Ordering::Relaxed) - before;
    assert!(fetches <= 3, "{fetches} fetches of the map");
}

fn object(name: &str) -> Object {
    Object {
        key: key(name),
        holders: Vec::new(),
        holder_count: 0,
        queue: Vec::new(),
        queue_count: 0,
        lock_delay_until: None,
        revision: Revision(1),
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_is_one_page_over_all_shards() {
    let fake = Fake::new(map(1, 4), |_, group, op| {
        let Op::Read(Query::List { limit, .. }) = op else { panic!("only lists") };
        let names = (0..*limit).map(|n| object(&format!("{:04}", n * 4 + group.0)));
        Reply::Now(Ok(Response::Answer(Answer::List(names.collect()))))
    });
    let client = fake.client().await;
    let query =
        Query::List { kind: Kind::Lock, prefix: String::new(), held: None, session: None, after: None, limit: 10 };
    let page = client.list(query, SECOND).await.expect("a page");
    let names: Vec<&str> = page.iter().map(|object| object.key.name.as_str()).collect();
    assert_eq!(names, ["0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010"]);
}

#[tokio::test(start_paused = true)]
async fn fence_verdicts_keep_the_order_of_the_checks() {
    let shards = Arc::new(Mutex::new(std::collections::BTreeSet::<GroupId>::new()));
    let seen = shards.clone();
    let fake = Fake::new(map(1, 4), move |_, group, op| {
        let Op::Read(Query::Fence { checks }) = op else { panic!("only fences") };
        assert!(checks.len() <= limits::FENCE_CHECKS);
        seen.lock().expect("shards").insert(group);
        let verdicts = checks.iter().map(|(_, token)| token.0 % 3 == 0).collect();
        Reply::Now(Ok(Response::Answer(Answer::Fence(verdicts))))
    });
    let client = fake.client().await;
    let checks = (0..1_000).map(|n| (Name::new(&format!("lock-{n}")).expect("short"), Token(n))).collect();
    let verdicts = client.fence(checks, SECOND).await.expect("verdicts");
    assert_eq!(verdicts, (0..1_000).map(|n| n % 3 == 0).collect::<Vec<_>>());
    assert_eq!(shards.lock().expect("shards").len(), 4);
}
