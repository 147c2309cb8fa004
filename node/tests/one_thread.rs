//! A whole cluster on one thread: three hosts over an in-memory transport, logs on in-memory disks,
//! tokio's clock paused. Nothing here knows of sockets, threads or real time; the same host, group,
//! session, placement and log code runs as in a process.

mod log_support;
mod thread_support;

use std::{sync::Arc, time::Duration};

use thread_support::{Cluster, PATIENCE, SHARDS, acquire, ask, holders, key, open, paused};
use tokio::time::Instant;
use wardlock::{disk::log::SharedLog, host::Host};
use wardlock_machine::{Answer, Command, Millis, Outcome, Query};
use wardlock_placement::NodeId;
use wardlock_router::link::{Peer, Replier, Service, memory::Weather};
use wardlock_wire::{Body, KeptAlive, Response};

#[test]
fn three_hosts_on_one_thread_grant_and_release() {
    paused(async {
        let cluster = Cluster::start().await;
        let client = cluster.client().await;
        let session = open(&client, 60_000).await;
        for n in 0..40 {
            let name = format!("orders/{n}");
            let outcome = client.write(acquire(&client, session, &name, 0), PATIENCE).await;
            let Ok(Outcome::Granted(grant)) = outcome else { panic!("{outcome:?}") };
            assert_eq!(holders(&client, &name).await, 1);
            let release =
                Command::Release { request: client.random_request(), key: key(&name), lock_id: grant.lock_id };
            assert_eq!(client.write(release, PATIENCE).await, Ok(Outcome::Released));
            assert_eq!(holders(&client, &name).await, 0);
        }
    });
}

#[test]
fn a_silent_session_ends_everywhere_and_its_locks_pass_on_no_earlier_than_its_ttl() {
    paused(async {
        let cluster = Cluster::start().await;
        let client = cluster.client().await;
        let (silent, waiter) = (open(&client, 10_000).await, open(&client, 120_000).await);
        for n in 0..8 {
            let outcome = client.write(acquire(&client, silent, &format!("n/{n}"), 0), PATIENCE).await;
            assert!(matches!(outcome, Ok(Outcome::Granted(_))), "{outcome:?}");
        }
        assert_eq!(client.keep_alive(silent, PATIENCE).await, Ok(KeptAlive::Alive));
        let spoke = Instant::now();
        let waits = (0..8).map(|n| {
            let command = acquire(&client, waiter, &format!("n/{n}"), 60_000);
            let client = client.clone();
            async move { client.write(command, Duration::from_secs(70)).await }
        });
        for outcome in futures_util::future::join_all(waits).await {
            assert!(matches!(outcome, Ok(Outcome::Granted(_))), "{outcome:?}");
        }
        let waited = spoke.elapsed();
        assert!(waited >= Duration::from_millis(9_999), "granted after {waited:?}, before the TTL was over");
        assert!(waited < Duration::from_secs(11), "granted after {waited:?}, a second after the TTL");
        assert_eq!(client.keep_alive(silent, PATIENCE).await, Ok(KeptAlive::Ended));
    });
}

#[test]
fn a_restarted_node_catches_up_and_leaders_spread_again() {
    paused(async {
        let mut cluster = Cluster::start().await;
        let client = cluster.client().await;
        let session = open(&client, 600_000).await;
        let mut granted = Vec::new();
        for round in 0..3_u32 {
            let victim = NodeId(1 + round);
            cluster.stop_node(victim).await;
            for n in 0..10 {
                let name = format!("{round}/{n}");
                let outcome = client.write(acquire(&client, session, &name, 0), PATIENCE).await;
                assert!(matches!(outcome, Ok(Outcome::Granted(_))), "one node of three is down: {outcome:?}");
                granted.push(name);
            }
            cluster.start_node(victim).await;
            tokio::time::sleep(Duration::from_secs(15)).await;
            let leaders = cluster.leaders();
            let (most, least) = (leaders.values().max().unwrap(), leaders.values().min().unwrap());
            assert!(most - least <= 1, "leaders are not spread after node {victim} came back: {leaders:?}");
            assert_eq!(leaders.values().sum::<usize>(), SHARDS as usize);
        }
        for name in granted {
            assert_eq!(holders(&client, &name).await, 1, "{name} was granted and never released");
        }
    });
}

#[test]
fn without_a_majority_nothing_is_answered_and_all_returns_with_it() {
    paused(async {
        let mut cluster = Cluster::start().await;
        let client = cluster.client().await;
        let session = open(&client, 600_000).await;
        let first = client.write(acquire(&client, session, "kept", 0), PATIENCE).await;
        assert!(matches!(first, Ok(Outcome::Granted(_))), "{first:?}");
        cluster.stop_node(NodeId(1)).await;
        cluster.stop_node(NodeId(2)).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let read = client.read(Query::Object { key: key("kept") }, Duration::from_secs(3)).await;
        assert!(read.is_err(), "a minority answered a linearizable read: {read:?}");
        let write = client.write(acquire(&client, session, "other", 0), Duration::from_secs(3)).await;
        assert!(
            matches!(
                write,
                Err(wardlock_router::Error::Unavailable { .. } | wardlock_router::Error::Unreachable { .. })
            ),
            "{write:?}"
        );
        cluster.start_node(NodeId(1)).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(holders(&client, "kept").await, 1);
        assert_eq!(holders(&client, "other").await, 0);
    });
}

/// The one who is deposed does not know it: it is cut off from the others, not from its clients.
#[test]
fn a_leader_that_was_cut_off_serves_nothing_that_a_later_one_has_changed() {
    paused(async {
        for round in 0..6_u64 {
            let cluster = Cluster::start().await;
            let client = cluster.client().await;
            let session = open(&client, 600_000).await;
            let outcome = client.write(acquire(&client, session, "cut", 0), PATIENCE).await;
            let Ok(Outcome::Granted(grant)) = outcome else { panic!("{outcome:?}") };
            let map = client.map();
            let group = map.owner(wardlock_placement::hash_name(&map.hash_key, "cut")).expect("a shard");
            let leader = |cluster: &Cluster, old: Option<NodeId>| {
                let leads = |(node, (host, _)): (&NodeId, &(Arc<Host>, SharedLog))| {
                    let status = host.status();
                    let leads = status.groups.iter().any(|g| g.group == group && g.leader == Some(*node));
                    (leads && Some(*node) != old).then_some(*node)
                };
                cluster.hosts.iter().find_map(leads)
            };
            let old = leader(&cluster, None).expect("a leader");
            // At another phase of its heartbeats each time.
            tokio::time::sleep(Duration::from_millis(37 * round)).await;
            for other in (1..=3).map(NodeId).filter(|node| *node != old) {
                cluster.hub.cut(old, other);
            }
            let direct = cluster.hub.attach_client(5_000);
            let released = async {
                let release =
                    Command::Release { request: client.random_request(), key: key("cut"), lock_id: grant.lock_id };
                assert_eq!(client.write(release, PATIENCE).await, Ok(Outcome::Released), "by the new leader");
                Instant::now()
            };
            let stale = async {
                let mut served = (0, None);
                for _ in 0..4_000 {
                    let asked = Instant::now();
                    let op = wardlock_wire::Op::Read(Query::Object { key: key("cut") });
                    let epoch = wardlock_machine::RangeEpoch(map.groups[&group].epoch.0);
                    let body = Body::Shard { group, epoch, patience_ms: 1_000, op };
                    let answer = direct.call(old, wardlock_wire::Lane::Client, body);
                    if let Ok(Response::Answer(Answer::Object(Some(_)))) = answer.await {
                        served = (served.0 + 1, Some(asked));
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                served
            };
            let (released, (_, last)) = tokio::join!(released, stale);
            assert!(last.is_none_or(|asked| asked < released), "a read asked at {last:?} missed the release");
            let new = leader(&cluster, Some(old));
            assert!(new.is_some(), "another leads");
        }
    });
}

/// Of four nodes three hold the placement group; the fourth follows the map and hosts shards all the same.
#[test]
fn clusters_of_other_sizes_work() {
    for nodes in [1, 4, 5] {
        paused(async {
            let cluster = Cluster::of(nodes).await;
            let client = cluster.client().await;
            let session = open(&client, 60_000).await;
            for n in 0..20 {
                let outcome = client.write(acquire(&client, session, &format!("n/{n}"), 0), PATIENCE).await;
                assert!(matches!(outcome, Ok(Outcome::Granted(_))), "{nodes} nodes: {outcome:?}");
            }
            let hosting =
                cluster.hosts.values().filter(|(host, _)| host.status().groups.iter().any(|g| g.group.0 != 0));
            assert_eq!(hosting.count(), nodes as usize, "every node of {nodes} hosts shards");
        });
    }
}

/// A proposal that the consensus core refuses in the middle of a term must not leave the leader with a
/// tick, an expiry or a waiter that it believes to be under way.
#[test]
fn a_leader_that_loses_its_majority_for_a_moment_goes_on() {
    for cut in (600..1_100).step_by(100) {
        paused(async {
            let cluster = Cluster::start().await;
            let client = cluster.client().await;
            let waiter = open(&client, 600_000).await;
            let mut waits = Vec::new();
            for n in 0..8 {
                let silent = open(&client, 2_000).await;
                let name = format!("n/{n}");
                let mut first = ask(&client, silent, &name, 0);
                // Half of the grants end with their own lease, half with their session.
                first.lease = (n % 2 == 0).then_some(Millis(1_900));
                let outcome = client.write(Command::Acquire(first), PATIENCE).await;
                assert!(matches!(outcome, Ok(Outcome::Granted(_))), "{outcome:?}");
                let (client, command) = (client.clone(), acquire(&client, waiter, &name, 60_000));
                waits.push(tokio::spawn(async move { client.write(command, Duration::from_secs(70)).await }));
            }
            tokio::time::sleep(Duration::from_millis(1_400)).await;
            for (a, b) in [(1, 2), (1, 3), (2, 3)] {
                cluster.hub.cut(NodeId(a), NodeId(b));
            }
            tokio::time::sleep(Duration::from_millis(cut)).await;
            cluster.hub.heal();
            let healed = Instant::now();
            for wait in waits {
                let outcome = wait.await.expect("no panic");
                assert!(matches!(outcome, Ok(Outcome::Granted(_))), "cut for {cut} ms: {outcome:?}");
            }
            let took = healed.elapsed();
            assert!(took < Duration::from_secs(10), "cut for {cut} ms: the last lock passed on after {took:?}");
        });
    }
}

/// Of four nodes the fourth hears nobody's reports; it hands its leaderships over all the same.
#[test]
fn a_stopping_node_hands_over_and_one_that_stops_with_all_others_does_not_wait() {
    paused(async {
        let mut cluster = Cluster::of(4).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let (leaving, log) = cluster.hosts.remove(&NodeId(4)).expect("it runs");
        let led: Vec<_> = leaving.status().groups.into_iter().filter(|g| g.leader == Some(NodeId(4))).collect();
        assert!(!led.is_empty(), "the leaders are spread");
        leaving.shutdown().await;
        log.close();
        for group in led.iter().map(|status| status.group) {
            let leaders = cluster.hosts.iter().filter(|(node, (host, _))| {
                host.status().groups.iter().any(|status| status.group == group && status.leader == Some(**node))
            });
            assert_eq!(leaders.count(), 1, "nobody leads shard {group} when node 4 has stopped in order");
        }

        let before = Instant::now();
        futures_util::future::join_all(cluster.hosts.values().map(|(host, _)| host.shutdown())).await;
        assert!(before.elapsed() < Duration::from_millis(500), "waited {:?} for nobody", before.elapsed());
    });
}

/// A node that is asked for a newer map and says at once that it has none.
#[derive(Default)]
struct NoNews(std::sync::atomic::AtomicUsize);

impl Service for NoNews {
    fn call(&self, _: &Peer, body: Body, reply: Replier) {
        if matches!(body, Body::Map { .. }) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
        reply.send(Ok(Response::Map(None)));
    }

    fn closed(&self, _: &Peer) {}
}

#[test]
fn whoever_follows_the_map_does_not_ask_in_a_loop() {
    paused(async {
        let mut cluster = Cluster::unstarted(4);
        cluster.hub.set_weather(Weather { delay: Duration::from_millis(1), ..Weather::default() });
        let silent = Arc::new(NoNews::default());
        for node in 1..=3 {
            cluster.hub.attach(NodeId(node), Arc::clone(&silent) as _);
        }
        cluster.start_node(NodeId(4)).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let asked = silent.0.load(std::sync::atomic::Ordering::SeqCst);
        assert!((10..=100).contains(&asked), "asked {asked} times in ten seconds");
    });
}

#[test]
fn the_log_is_cut_by_its_bytes_and_an_idle_group_gets_no_more_snapshots() {
    paused(async {
        let cluster = Cluster::of(1).await;
        let client = cluster.client().await;
        let session = open(&client, 600_000).await;
        // Twenty megabytes in few entries, all in one shard.
        for round in 0..50 {
            let writes = (0..100).map(|n| {
                let mut command = acquire(&client, session, &format!("{{one}}/{round}/{n}"), 0);
                let Command::Acquire(ask) = &mut command else { unreachable!("it was made one") };
                ask.metadata.insert("padding".to_owned(), "x".repeat(4_000));
                client.write(command, PATIENCE)
            });
            for outcome in futures_util::future::join_all(writes).await {
                assert!(matches!(outcome, Ok(Outcome::Granted(_))), "{outcome:?}");
            }
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        let (host, log) = &cluster.hosts[&NodeId(1)];
        assert!(host.status().groups.iter().any(|group| group.snapshot.is_some()), "a snapshot was due");
        assert!(log.bytes() < 14 << 20, "{} bytes of log remain", log.bytes());
        let writes = cluster.disks[&NodeId(1)].1.count();
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(cluster.disks[&NodeId(1)].1.count(), writes, "snapshots of what has not changed");
    });
}
