//! Those who look on: readers that ask the same leader as long as it answers, candidates, and observers of elections.

use std::{sync::Arc, time::Duration};

use rand::RngExt;
use tokio::time::sleep;
use wardlock_router::{Client, Connected, LockError, Session, link::Transport};

use super::{Life, Phase, millis, name, read};
use crate::{
    clock::{DRIFT_PPM, Drifting},
    event::Event,
};

/// How long a reader waits for an answer.
const PATIENCE: Duration = Duration::from_millis(700);

/// Stands for election, leads for a while, and steps down.
pub(super) async fn stand(life: &mut Life, session: &Session) {
    let name = election(life.random.random_range(0..2));
    let (wait, keep) = (millis(&mut life.random, 4_000), millis(&mut life.random, 1_500));
    match session.election(&name).candidate(format!("client-{}", life.number)).campaign(wait).await {
        Ok(leads) => {
            let token = leads.fencing_token();
            life.world.tell(Event::Elected { client: life.number, name: name.clone(), token });
            sleep(keep).await;
            // What is not resigned ends with its session.
            let _ = leads.resign().await;
        }
        Err(LockError::AlreadyHeld(_) | LockError::WaitTimeout(_)) => {}
        Err(error) => life.world.note(&format!("client {} is not elected: {error}", life.number)),
    }
}

/// The election with this number.
fn election(number: u32) -> String {
    format!("leads {}", name(number))
}

/// Reads one name after the other, quickly.
pub async fn look_on(mut life: Life, connection: u64) {
    let (client, _own) = connect(&mut life, connection);
    while life.goes_on() {
        let name = name(life.random.random_range(0..life.names));
        read(&client, &life.world, &name, PATIENCE).await;
        sleep(millis(&mut life.random, 60)).await;
    }
}

/// Observes who is elected.
pub async fn observe(mut life: Life, connection: u64) {
    let (client, _own) = connect(&mut life, connection);
    let observer = life.number;
    let name = election(life.random.random_range(0..2));
    let Ok(mut watch) = client.observe_leader(&name) else { return };
    let mut silent = life.phase.clone();
    let seeing = async {
        loop {
            match watch.next().await {
                Ok(leader) => {
                    let token = leader.map(|grant| grant.lock_id.token);
                    life.world.tell(Event::LeaderSeen { observer, name: name.clone(), token });
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

fn connect(life: &mut Life, connection: u64) -> (Client, Arc<dyn Transport>) {
    let clock = Arc::new(Drifting::new(life.random.random_range(-DRIFT_PPM..=DRIFT_PPM)));
    let transport = life.hub.attach_client(connection);
    let connected = Arc::new(Connected(Arc::clone(&transport)));
    (Client::with_clock(connected, life.seeds.iter().cloned(), clock), transport)
}

impl Life {
    fn goes_on(&self) -> bool {
        *self.phase.borrow() != Phase::Silent
    }
}
