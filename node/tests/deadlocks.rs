//! Deadlocks over a whole cluster on one thread: one victim for each circle, soon, and nobody else.

mod log_support;
mod thread_support;

use std::time::Duration;

use futures_util::future::join_all;
use thread_support::{Cluster, paused};
use tokio::time::{Instant, sleep};
use wardlock_router::{Client, Guard, LockError, Session};

/// How soon a deadlock is to be ended.
const SOON: Duration = Duration::from_secs(2);
const WAIT: Duration = Duration::from_secs(60);
/// How long after one another they begin to wait.
const APART: Duration = Duration::from_millis(20);

/// Sessions of which each holds a lock of its own, `{name}/0` and so on: over all shards.
async fn holders(client: &Client, name: &str, count: usize, serial: bool) -> Vec<(Session, Guard)> {
    let holders = (0..count).map(|at| async move {
        let session = client.session(format!("{name}-{at}")).ttl(Duration::from_secs(600));
        let session = if serial { session.serial() } else { session };
        let session = session.open().await.expect("a session");
        let guard = session.lock(&format!("{name}/{at}")).acquire().await.expect("it is free");
        (session, guard)
    });
    join_all(holders).await
}

/// Each waits for the next one's lock; whoever is told of a deadlock gives its own back. How each wait ended, and when.
async fn go_round(name: &str, holders: Vec<(Session, Guard)>) -> Vec<(Result<(), LockError>, Duration)> {
    let (count, began) = (holders.len(), Instant::now());
    let waits = holders.into_iter().enumerate().map(|(at, (session, own))| async move {
        let wanted = format!("{name}/{}", (at + 1) % count);
        // The last to come is the youngest, by its leader's clock.
        sleep(APART * at as u32).await;
        let got = session.lock(&wanted).wait(WAIT).acquire().await;
        let ended = began.elapsed();
        own.release().await.expect("it is held");
        (got.map(drop), ended)
    });
    join_all(waits).await
}

#[test]
fn a_ring_over_many_shards_has_one_victim_soon_and_the_others_go_on() {
    paused(async {
        let cluster = Cluster::start().await;
        let client = cluster.client().await;
        for count in [2, 5, 50] {
            let name = format!("ring-{count}");
            let ended = go_round(&name, holders(&client, &name, count, true).await).await;
            for (at, (how, after)) in ended.into_iter().enumerate() {
                match how {
                    Ok(()) => assert_ne!(at, count - 1, "the youngest is the victim"),
                    Err(LockError::Deadlock(circle)) => {
                        assert_eq!((at, circle.length), (count - 1, count as u32));
                        assert_eq!(circle.steps[0].holder, format!("{name}-{at}"));
                        assert_eq!(circle.steps[1].holder, format!("{name}-0"));
                        let after = after.saturating_sub(APART * (count as u32 - 1));
                        assert!(after < SOON, "told {after:?} after the circle was closed");
                    }
                    Err(error) => panic!("{at} of {count}: {error}"),
                }
            }
            let (left, _) = client.deadlocks(SOON).await.expect("it can be asked");
            assert_eq!(left, []);
        }
    });
}

/// Of a session with threads another may give back what the first one waits for somebody to give back.
#[test]
fn sessions_that_do_many_things_are_let_be() {
    paused(async {
        let cluster = Cluster::start().await;
        let client = cluster.client().await;
        let two = holders(&client, "threads", 2, false).await;
        let (first, second) = (two[0].0.clone(), two[1].0.clone());
        let circle = async {
            let (a, b) = (first.lock("threads/1").wait(WAIT), second.lock("threads/0").wait(WAIT));
            tokio::join!(a.acquire(), b.acquire())
        };
        let another_thread = async {
            sleep(5 * SOON).await;
            for (_, own) in two {
                own.release().await.expect("it is held");
            }
        };
        let ((a, b), ()) = tokio::join!(circle, another_thread);
        assert!(a.is_ok() && b.is_ok(), "{a:?} {b:?}");
    });
}

/// Who waits for somebody that works waits on, however long.
#[test]
fn a_chain_is_no_circle() {
    paused(async {
        let cluster = Cluster::start().await;
        let client = cluster.client().await;
        let mut chain = holders(&client, "chain", 4, true).await;
        let (_worker, last) = chain.pop().expect("there are four");
        let waits = chain.into_iter().enumerate().map(|(at, (session, own))| async move {
            let got = session.lock(&format!("chain/{}", at + 1)).wait(WAIT).acquire().await;
            own.release().await.expect("it is held");
            got.map(drop)
        });
        let work = async {
            sleep(5 * SOON).await;
            last.release().await.expect("it is held");
        };
        let (ended, ()) = tokio::join!(join_all(waits), work);
        assert!(ended.iter().all(Result::is_ok), "{ended:?}");
    });
}
