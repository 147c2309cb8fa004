//! Stale reads over a whole cluster on one thread: any replica answers, and none says less than its age.

mod log_support;
mod thread_support;

use std::{sync::Arc, time::Duration};

use thread_support::{Cluster, PATIENCE, acquire, key, open, paused};
use tokio::time::Instant;
use wardlock_machine::{Answer, Command, LockId, Outcome, Query, RangeEpoch, SessionId};
use wardlock_placement::{GroupId, NodeId, hash_name};
use wardlock_router::{
    Client, Error,
    link::{Answered, CallError, Transport},
};
use wardlock_wire::{Body, Lane, Op, Refusal, Response};

const NAME: &str = "orders";

/// A cluster with one lock that is held, and somebody who asks nodes one by one.
struct Held {
    cluster: Cluster,
    client: Client,
    session: SessionId,
    lock_id: LockId,
    group: GroupId,
    direct: Arc<dyn Transport>,
}

impl Held {
    async fn new() -> Held {
        let cluster = Cluster::start().await;
        let client = cluster.client().await;
        let session = open(&client, 600_000).await;
        let outcome = client.write(acquire(&client, session, NAME, 0), PATIENCE).await;
        let Ok(Outcome::Granted(grant)) = outcome else { panic!("{outcome:?}") };
        let map = client.map();
        let group = map.owner(hash_name(&map.hash_key, NAME)).expect("a shard");
        let direct = cluster.hub.attach_client(5_000);
        Held { cluster, client, session, lock_id: grant.lock_id, group, direct }
    }

    async fn ask(&self, node: NodeId, op: Op) -> Answered {
        let epoch = RangeEpoch(self.client.map().groups[&self.group].epoch.0);
        let body = Body::Shard { group: self.group, epoch, patience_ms: 700, op };
        self.direct.call(node, Lane::Client, body).await
    }

    /// Whether the lock is held, as this node has it, and how old that may be.
    async fn stale(&self, node: NodeId, max_age_ms: Option<u32>) -> Result<(bool, Option<u64>), CallError> {
        let query = Query::Object { key: key(NAME) };
        match self.ask(node, Op::Stale { query, max_age_ms }).await? {
            Response::Stale { answer: Answer::Object(object), age_ms } => {
                Ok((object.is_some_and(|object| !object.holders.is_empty()), age_ms))
            }
            other => panic!("{other:?}"),
        }
    }

    async fn release(&mut self) {
        let request = self.client.random_request();
        let release = Command::Release { request, key: key(NAME), lock_id: self.lock_id };
        assert_eq!(self.client.write(release, PATIENCE).await, Ok(Outcome::Released));
    }

    async fn acquire(&mut self) {
        let outcome = self.client.write(acquire(&self.client, self.session, NAME, 0), PATIENCE).await;
        let Ok(Outcome::Granted(grant)) = outcome else { panic!("{outcome:?}") };
        self.lock_id = grant.lock_id;
    }

    fn leader(&self) -> NodeId {
        let leads = |node: &NodeId| {
            let status = self.cluster.hosts[node].0.status();
            status.groups.iter().any(|g| g.group == self.group && g.leader == Some(*node))
        };
        self.cluster.hosts.keys().copied().find(leads).expect("a leader")
    }

    fn follower(&self) -> NodeId {
        let leader = self.leader();
        self.cluster.hosts.keys().copied().find(|node| *node != leader).expect("three nodes")
    }

    fn cut_off(&self, node: NodeId) {
        for other in self.cluster.hosts.keys().filter(|other| **other != node) {
            self.cluster.hub.cut(node, *other);
        }
    }
}

#[test]
fn any_replica_answers_and_without_any_age_it_is_linearizable() {
    paused(async {
        let mut held = Held::new().await;
        for round in 0..20 {
            for node in (1..=3).map(NodeId) {
                assert_eq!(held.stale(node, Some(0)).await, Ok((true, Some(0))), "round {round}, node {node}");
            }
            held.release().await;
            for node in (1..=3).map(NodeId) {
                assert_eq!(held.stale(node, Some(0)).await, Ok((false, Some(0))), "round {round}, node {node}");
            }
            held.acquire().await;
        }
        for node in (1..=3).map(NodeId) {
            let (_, age) = held.stale(node, None).await.expect("an answer");
            assert!(age.is_some_and(|age| age < 1_000), "node {node} was asked just now: {age:?}");
        }
    });
}

#[test]
fn a_replica_that_is_cut_off_says_a_growing_age_and_others_serve_who_wants_less() {
    paused(async {
        let mut held = Held::new().await;
        // The leader, and a follower.
        for cut in [held.leader(), held.follower()] {
            assert_eq!(held.stale(cut, Some(0)).await, Ok((true, Some(0))));
            held.cut_off(cut);
            held.release().await;
            let released = Instant::now();
            let mut before = 0;
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_millis(900)).await;
                let since = released.elapsed().as_millis() as u64;
                let (is_held, age) = held.stale(cut, None).await.expect("it answers");
                let age = age.expect("it knew once");
                assert!(is_held, "node {cut} has not heard of the release");
                assert!(age > since, "released {since} ms ago, and an answer of {age} ms shows a holder");
                assert!(age > before + 850, "the age grows as time goes by: {before}, {age}");
                before = age;
                let refused = held.stale(cut, Some(500)).await;
                assert_eq!(refused, Err(CallError::Refused(Refusal::TooStale)));
                let (query, bound) = (Query::Object { key: key(NAME) }, Duration::from_millis(500));
                let (answer, age) = held.client.read_stale(query, Some(bound), PATIENCE).await.expect("others answer");
                assert_eq!(answer, Answer::Object(None));
                assert!(age.is_some_and(|age| age <= bound), "{age:?}");
            }
            held.cluster.hub.heal();
            held.acquire().await;
        }
    });
}

#[test]
fn without_a_majority_the_age_goes_on_and_after_a_restart_it_is_not_known() {
    paused(async {
        let mut held = Held::new().await;
        let last = held.follower();
        assert_eq!(held.stale(last, Some(0)).await, Ok((true, Some(0))));
        for node in (1..=3).map(NodeId).filter(|node| *node != last) {
            held.cluster.stop_node(node).await;
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        let (is_held, age) = held.stale(last, None).await.expect("it answers alone");
        assert!(is_held && age.is_some_and(|age| (60_000..62_000).contains(&age)), "{age:?}");
        let query = Query::Object { key: key(NAME) };
        let read = held.client.read_stale(query, Some(Duration::from_secs(1)), Duration::from_secs(3)).await;
        assert!(
            matches!(read, Err(Error::TooStale | Error::Unavailable { .. } | Error::Unreachable { .. })),
            "{read:?}"
        );

        held.cluster.stop_node(last).await;
        held.cluster.start_node(last).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        match held.stale(last, None).await {
            Ok((_, age)) => assert_eq!(age, None, "whatever was proven was proven by another process"),
            // It has nothing applied that it could show.
            Err(refused) => assert_eq!(refused, CallError::Refused(Refusal::NoQuorum)),
        }
    });
}

#[test]
fn an_index_is_for_nodes_and_what_must_not_be_stale_is_refused() {
    paused(async {
        let held = Held::new().await;
        let leader = held.leader();
        let index = held.ask(leader, Op::ReadIndex).await;
        assert!(matches!(index, Err(CallError::Refused(Refusal::NotAllowed(_)))), "{index:?}");
        let fence = Query::Fence { checks: Vec::new() };
        let fence = held.ask(leader, Op::Stale { query: fence, max_age_ms: None }).await;
        assert!(matches!(fence, Err(CallError::Refused(Refusal::Malformed(_)))), "{fence:?}");
    });
}

/// One proof serves all who come while it is young.
#[test]
fn many_readers_cost_few_rounds() {
    paused(async {
        let held = Held::new().await;
        let follower = held.follower();
        assert!(held.stale(follower, Some(0)).await.is_ok());
        let before = held.cluster.said.confirms.load(std::sync::atomic::Ordering::Relaxed);
        let began = Instant::now();
        for _ in 0..2_000 {
            let (_, age) = held.stale(follower, Some(1_000)).await.expect("an answer");
            assert!(age.is_some_and(|age| age <= 1_000));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let took = began.elapsed().as_millis() as u64;
        let rounds = held.cluster.said.confirms.load(std::sync::atomic::Ordering::Relaxed) - before;
        assert!(rounds <= 2 * (took / 400 + 2), "{rounds} questions to peers in {took} ms");
    });
}
