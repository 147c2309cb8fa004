//! Those who look on: readers that ask the same leader as long as it answers, candidates, and observers of elections.

use std::{sync::Arc, time::Duration};

use rand::{RngExt, seq::IndexedRandom};
use tokio::time::sleep;
use wardlock_machine::{Answer, Key, Name, Query, RangeEpoch};
use wardlock_placement::{NodeId, hash_name};
use wardlock_router::{Client, Connected, LockError, Session, link::Transport};
use wardlock_wire::{Body, Lane, Op, Response};

use super::{Life, Phase, holders, millis, name, read};
use crate::{
    clock::{DRIFT_PPM, Drifting},
    event::Event,
};

/// How long a reader waits for an answer.
const PATIENCE: Duration = Duration::from_millis(700);

/// Stands for election, leads for a while, proclaims how far it is now and then, and steps down; sooner where somebody
/// of a higher priority waits.
pub(super) async fn stand(life: &mut Life, session: &Session) {
    let name = election(life.random.random_range(0..2));
    let (wait, keep) = (millis(&mut life.random, 4_000), millis(&mut life.random, 1_500));
    let (priority, stages) = (life.random.random_range(0..3), life.random.random_range(0..4));
    let (op, client) = (life.world.op(), life.number);
    life.world.tell(Event::Standing { op, client, name: name.clone() });
    let election = session.election(&name).candidate(format!("client-{client}")).priority(priority);
    match election.campaign(wait).await {
        Ok(leads) => {
            let token = leads.fencing_token();
            life.world.tell(Event::Elected { op, client, name: name.clone(), token });
            let working = async {
                for stage in 1..=stages {
                    sleep(keep / (stages + 1)).await;
                    // What comes after one that failed could not be told from a hole.
                    if leads.proclaim(format!("client-{client}/{stage}")).await.is_err() {
                        break;
                    }
                    life.world.tell(Event::Proclaimed { op, name: name.clone(), token, stage });
                }
                sleep(keep / (stages + 1)).await;
            };
            tokio::select! {
                biased;
                () = working => {}
                _ = leads.outranked() => life.world.tell(Event::Outranked { client, name: name.clone(), token }),
            }
            // What is not resigned ends with its session.
            let _ = leads.resign().await;
        }
        Err(LockError::AlreadyHeld(_) | LockError::WaitTimeout(_)) => {}
        Err(error) => life.world.note(&format!("client {} is not elected: {error}", life.number)),
    }
}

/// How far a leader is, by what it has proclaimed.
fn stage(candidate: &str) -> u32 {
    candidate.split_once('/').map_or(0, |(_, stage)| stage.parse().expect("stages are numbers"))
}

/// The election with this number.
fn election(number: u32) -> String {
    format!("leads {}", name(number))
}

/// Reads one name after the other, quickly: of whoever leads, or of a node that may have led.
pub async fn look_on(mut life: Life) {
    let (client, own) = connect(&mut life);
    while life.goes_on() {
        let number = life.random.random_range(0..life.names);
        if life.random.random_bool(0.2) {
            read(&client, &life.world, &name(number), PATIENCE).await;
        } else {
            read_at(&mut life, &client, &*own, &name(number)).await;
        }
        sleep(millis(&mut life.random, 30)).await;
    }
}

/// Reads a name of some node, whoever leads.
async fn read_at(life: &mut Life, client: &Client, own: &dyn Transport, name: &str) {
    let map = client.map();
    let nodes: Vec<NodeId> = map.nodes.keys().copied().collect();
    let owner = map.owner(hash_name(&map.hash_key, name));
    let (Some(node), Some(group)) = (nodes.choose(&mut life.random), owner) else { return };
    let key = Key::lock(Name::new(name).expect("names are valid"));
    let body = Body::Shard {
        group,
        epoch: RangeEpoch(map.groups[&group].epoch.0),
        patience_ms: PATIENCE.as_millis() as u32,
        op: Op::Read(Query::Object { key }),
    };
    let op = life.world.op();
    life.world.tell(Event::ReadBegan { op, name: name.to_owned() });
    life.world.tell(match own.call(*node, Lane::Client, body).await {
        Ok(Response::Answer(Answer::Object(object))) => {
            Event::Read { op, name: name.to_owned(), holders: holders(object) }
        }
        other => Event::ReadFailed { op, name: name.to_owned(), why: format!("{other:?}") },
    });
}

/// Observes who is elected.
pub async fn observe(mut life: Life) {
    let (client, _own) = connect(&mut life);
    let observer = life.number;
    let name = election(life.random.random_range(0..2));
    let Ok(mut watch) = client.observe_leader(&name) else { return };
    let mut silent = life.phase.clone();
    let seeing = async {
        loop {
            match watch.next().await {
                Ok(leader) => {
                    let leader = leader.map(|leader| (leader.lock_id.token, stage(&leader.candidate)));
                    life.world.tell(Event::LeaderSeen { observer, name: name.clone(), leader });
                }
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    };
    tokio::select! {
        biased;
        _ = silent.wait_for(|phase| *phase == Phase::Silent) => {}
        () = seeing => {}
    }
}

/// A client, and the connection that it goes over.
pub(super) fn connect(life: &mut Life) -> (Client, Arc<dyn Transport>) {
    let clock = Arc::new(Drifting::new(life.random.random_range(-DRIFT_PPM..=DRIFT_PPM)));
    life.connection = life.connection.max(u64::from(life.number));
    let transport = life.hub.attach_client(life.connection);
    let connected = Arc::new(Connected(Arc::clone(&transport)));
    (Client::with_clock(connected, life.seeds.iter().cloned(), clock), transport)
}

impl Life {
    fn goes_on(&self) -> bool {
        *self.phase.borrow() != Phase::Silent
    }
}
