//! Diners: each holds one fork and waits for another, in no order, and gives nothing back while it waits. They get into
//! deadlocks all the time; whoever is told of one gives back what it holds and begins anew.

use std::time::Duration;

use rand::{RngExt, seq::IndexedRandom};
use tokio::time::sleep;
use wardlock_router::{Client, Error, Guard, LockError, Session, SessionState};

use super::{Life, Phase, millis, observers::connect};
use crate::event::{Dines, Event};

/// How many forks there are.
const FORKS: u32 = 4;
/// How long a diner waits for a fork: much longer than a deadlock may last.
const WAIT: Duration = Duration::from_secs(30);

/// Dines to the end of the run.
pub async fn dine(mut life: Life) {
    let (client, _own) = connect(&mut life);
    let mut silent = life.phase.clone();
    tokio::select! {
        biased;
        _ = silent.wait_for(|phase| *phase == Phase::Silent) => {}
        () = meals(&mut life, &client) => {}
    }
    // Its process dies: nothing that it would still say is heard.
    life.hub.detach_client(life.connection);
}

async fn meals(life: &mut Life, client: &Client) {
    loop {
        life.still().await;
        let ttl = Duration::from_millis(life.random.random_range(2_000..6_000));
        let opened = client.session(format!("diner-{}", life.number)).ttl(ttl).serial().open().await;
        let Ok(session) = opened else {
            sleep(Duration::from_millis(200)).await;
            continue;
        };
        let sat_down = life.random.random_range(5..40);
        for _ in 0..sat_down {
            life.still().await;
            if session.state() == SessionState::Lost {
                break;
            }
            meal(life, &session).await;
            sleep(millis(&mut life.random, 300)).await;
        }
        tell(life, &session, Dines::Leaves);
        // What is not closed ends with its TTL.
        let _ = session.close().await;
    }
}

/// Two or three forks, one after the other.
async fn meal(life: &mut Life, session: &Session) {
    let mut forks: Vec<u32> = (0..FORKS).collect();
    let mut held: Vec<(String, Guard)> = Vec::new();
    for _ in 0..life.random.random_range(2..=3) {
        let fork = *forks.choose(&mut life.random).expect("there are more forks than a meal takes");
        forks.retain(|other| *other != fork);
        let name = format!("fork/{fork}");
        tell(life, session, Dines::Wants(name.clone()));
        match session.lock(&name).wait(WAIT).acquire().await {
            Ok(guard) => {
                tell(life, session, Dines::Has(name.clone()));
                held.push((name, guard));
                sleep(millis(&mut life.random, 500)).await;
            }
            Err(error) => {
                let known = !matches!(error, LockError::SessionLost | LockError::Call(Error::OutcomeUnknown));
                tell(
                    life,
                    session,
                    match error {
                        LockError::Deadlock(circle) => {
                            let steps = circle.steps.into_iter().map(|step| (step.session, step.key.name.to_string()));
                            Dines::Victim(name, steps.collect())
                        }
                        _ => Dines::Unwanted(name, known),
                    },
                );
                break;
            }
        }
    }
    for (name, guard) in held {
        tell(life, session, Dines::Lets(name.clone()));
        let done = guard.release().await.is_ok();
        tell(life, session, Dines::Let(name, done));
    }
}

fn tell(life: &Life, session: &Session, what: Dines) {
    life.world.tell(Event::Dines { client: life.number, session: session.id(), what });
}
