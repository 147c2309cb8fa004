//! Those who register instances of services: often under the same few ids, so that one replaces the other; and those
//! who list them.

use std::{sync::Arc, time::Duration};

use rand::RngExt;
use tokio::time::sleep;
use wardlock_machine::{Health, limits};
use wardlock_router::{Client, Registration, Session, SessionState};

use super::{Life, Phase, millis};
use crate::{
    event::{Believes, Event},
    world::World,
};

/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How many services all clients share.
pub const SERVICES: u32 = 3;
/// And how many ids in each.
const INSTANCES: u32 = 4;

/// The service with this number.
pub fn service(number: u32) -> String {
    format!("s/{number}")
}

/// Lists a service.
pub async fn list(client: &Client, world: &World, service: &str, patience: Duration) -> bool {
    let op = world.op();
    world.tell(Event::InstancesReadBegan { op, service: service.to_owned() });
    match client.service(service).patience(patience).page(None, limits::PAGE as u32).await {
        Ok(page) => {
            let ids = page.instances.iter().map(|view| (view.instance.to_string(), view.revision.0)).collect();
            world.tell(Event::InstancesRead { op, service: service.to_owned(), revision: page.revision.0, ids });
            true
        }
        Err(error) => {
            world.tell(Event::InstancesReadFailed { op, service: service.to_owned(), why: error.to_string() });
            false
        }
    }
}

/// Lists a service, or registers an instance of it for a while.
pub(super) async fn serve(life: &mut Life, session: &Session) {
    let random = &mut life.random;
    let service = service(random.random_range(0..SERVICES));
    if random.random_bool(0.4) {
        list(session.client(), &life.world, &service, PATIENCE).await;
        return;
    }
    let instance = format!("i/{}", random.random_range(0..INSTANCES));
    let (keep, reports, drops) = (millis(random, 4_000), random.random_range(0..3), random.random_bool(0.3));
    let world = Arc::clone(&life.world);
    let op = world.op();
    // No two registrations say the same.
    let asked = session.register(service.as_str(), instance.as_str()).address("10.0.0.1").port(80);
    let registration = match asked.metadata("op", op.to_string()).open().await {
        Ok(registration) => Arc::new(registration),
        Err(error) => {
            let why = error.to_string();
            return world.tell(Event::NotRegistered { client: life.number, op, service, instance, why });
        }
    };
    // Whoever has let go of it, or died, believes no more.
    let asked = Arc::downgrade(&registration);
    let believes = Believes::new(move || {
        asked.upgrade().is_some_and(|registration| registration.session().state() != SessionState::Lost)
    });
    world.tell(Event::Registered {
        client: life.number,
        op,
        service: service.clone(),
        instance: instance.clone(),
        session: session.id(),
        revision: registration.registered().revision.0,
        believes,
    });
    for _ in 0..reports {
        sleep(keep / 3).await;
        let health = Health::ALL[life.random.random_range(0..3)];
        // Another may have the id by now, or the answer is lost.
        let _ = registration.report(health).await;
    }
    sleep(keep / 3).await;
    // While all is still nobody takes anything off.
    let _ = life.phase.wait_for(|phase| *phase != Phase::Still).await;
    let Ok(registration) = Arc::try_unwrap(registration) else { return };
    if !drops {
        leave(registration).await;
    }
}

/// Whatever comes of it, it is this client's no more.
async fn leave(registration: Registration) {
    let _ = registration.deregister().await;
}
