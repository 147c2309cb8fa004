//! The link in memory, on a paused clock.

mod link_common;

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use link_common::Echo;
use tokio::time::Instant;
use wardlock_placement::{GroupId, MapVersion, NodeId};
use wardlock_router::link::{
    CallError, Transport,
    memory::{Hub, Weather},
};
use wardlock_wire::{Body, Lane, Refusal, Response};

const ONE: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);

fn done() -> Body {
    Body::Transfer { group: GroupId(1), to: ONE }
}

fn after(ms: u64) -> Weather {
    Weather { delay: Duration::from_millis(ms), ..Weather::default() }
}

fn pair(hub: &Hub) -> (Arc<dyn Transport>, Arc<dyn Transport>, Arc<Echo>) {
    let heard = Arc::new(Echo::default());
    (hub.attach(ONE, Arc::new(Echo::default())), hub.attach(TWO, heard.clone()), heard)
}

#[tokio::test(start_paused = true)]
async fn calls_pass_after_the_delay_each_way() {
    let hub = Hub::new();
    let (one, two, heard) = pair(&hub);
    hub.set_weather(after(30));
    let start = Instant::now();
    assert_eq!(one.call(TWO, Lane::Urgent, done()).await, Ok(Response::Done));
    assert_eq!(start.elapsed(), Duration::from_millis(60));
    assert_eq!(two.call(TWO, Lane::Urgent, done()).await, Ok(Response::Done));
    assert_eq!(heard.peers.lock().unwrap()[0].node, Some(ONE));
    assert!(matches!(one.call(NodeId(3), Lane::Urgent, done()).await, Err(CallError::NotSent(_))));
}

#[tokio::test(start_paused = true)]
async fn a_client_is_no_node_and_its_end_is_heard() {
    let hub = Hub::new();
    let (_one, _two, heard) = pair(&hub);
    let client = hub.attach_client(77);
    assert_eq!(client.call(TWO, Lane::Client, done()).await, Ok(Response::Done));
    let peer = heard.peers.lock().unwrap()[0].clone();
    assert_eq!((peer.node, peer.connection), (None, 77));
    hub.detach_client(77);
    assert_eq!(*heard.closed.lock().unwrap(), vec![peer]);
    assert!(matches!(client.call(TWO, Lane::Client, done()).await, Err(CallError::NotSent(_))));
}

#[tokio::test(start_paused = true)]
async fn a_cut_loses_calls_and_healing_ends_it() {
    let hub = Hub::new();
    let (one, two, heard) = pair(&hub);
    hub.set_lost_after(Duration::from_secs(1));
    hub.cut_one_way(TWO, ONE);
    // Done, but the answer does not come back.
    assert_eq!(one.call(TWO, Lane::Client, done()).await, Err(CallError::Lost));
    assert_eq!(two.call(ONE, Lane::Client, done()).await, Err(CallError::Lost));
    assert_eq!(heard.calls.load(std::sync::atomic::Ordering::Relaxed), 1);
    hub.heal();
    assert_eq!(one.call(TWO, Lane::Client, done()).await, Ok(Response::Done));
}

#[tokio::test(start_paused = true)]
async fn a_restart_loses_what_waits_and_nothing_else() {
    let hub = Hub::new();
    let (one, _two, heard) = pair(&hub);
    let waiting = one.call(TWO, Lane::Client, Body::Status);
    tokio::task::yield_now().await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(heard.held.lock().unwrap().len(), 1);
    hub.set_weather(after(10));
    let under_way = one.call(TWO, Lane::Client, done());
    let again = Arc::new(Echo::default());
    let _two = hub.attach(TWO, again.clone());
    assert_eq!(waiting.await, Err(CallError::Lost));
    assert_eq!(under_way.await, Err(CallError::Lost));
    // The old process answers into the void; the new one's answers are not mistaken for its.
    heard.held.lock().unwrap().pop().unwrap().send(Ok(Response::Done));
    let fresh = one.call(TWO, Lane::Client, Body::Map { known: MapVersion(9), wait_ms: 0 });
    assert_eq!(fresh.await, Err(CallError::Refused(Refusal::NoReplica { map: MapVersion(9) })));
    assert_eq!(again.calls.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn loss_repeats_with_its_seed() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let hub = Hub::new();
        let (one, _two, _) = pair(&hub);
        hub.set_seed(42);
        hub.set_weather(Weather { lost_ppm: 100_000, ..Weather::default() });
        let answers = join_all((0..500).map(|_| one.call(TWO, Lane::Client, done()))).await;
        let lost = answers.iter().filter(|answer| **answer == Err(CallError::Lost)).count();
        assert!((50..150).contains(&lost), "{lost} of 500 round trips at a tenth each way");
        runs.push(answers);
    }
    assert_eq!(runs[0], runs[1]);
}

#[tokio::test(start_paused = true)]
async fn a_message_may_come_twice_and_its_caller_hears_one_answer() {
    let hub = Hub::new();
    let (one, _two, heard) = pair(&hub);
    hub.set_weather(Weather { twice_ppm: 1_000_000, ..after(5) });
    for round in 1..=3 {
        assert_eq!(one.call(TWO, Lane::Client, done()).await, Ok(Response::Done));
        // The second may come two seconds later.
        tokio::time::sleep(Duration::from_millis(2_100)).await;
        assert_eq!(heard.calls.load(std::sync::atomic::Ordering::Relaxed), 2 * round);
    }
}

#[tokio::test(start_paused = true)]
async fn messages_overtake_one_another_only_where_they_may() {
    for reorders in [false, true] {
        let hub = Hub::new();
        let (one, _two, _) = pair(&hub);
        hub.set_weather(Weather { jitter: Duration::from_millis(50), reorders, ..after(1) });
        let start = Instant::now();
        let calls = (0..50).map(|_| async {
            let answer = one.call(TWO, Lane::Client, done()).await;
            (start.elapsed(), answer)
        });
        let times: Vec<_> = join_all(calls).await.into_iter().map(|(at, _)| at).collect();
        assert_eq!(times.is_sorted(), !reorders, "{times:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_held_back_comes_when_it_is_let_go() {
    let hub = Hub::new();
    let (one, _two, _) = pair(&hub);
    hub.hold(TWO);
    let start = Instant::now();
    let (answer, ()) = tokio::join!(one.call(TWO, Lane::Client, done()), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        hub.heal();
    });
    assert_eq!((answer, start.elapsed()), (Ok(Response::Done), Duration::from_secs(1)));
}
