//! The population: clients as applications are, over the public client library. They open sessions, acquire, wait,
//! hold, renew, release and read, change the configuration, several things at once; they fall asleep past their TTL, and die. Some stand for
//! election, and some only look on.

pub mod diners;
mod holder;
pub mod instances;
pub mod observers;
pub mod paths;
pub mod stale;
pub mod watchers;

use std::{sync::Arc, time::Duration};

use futures_util::future;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{sync::watch, time::sleep};
use wardlock_machine::{Key, LockId, Name, Object, Query};
use wardlock_router::{Client, Connected, Session, SessionState, client::Boot, link::memory::Hub};

use crate::{
    clock::{DRIFT_PPM, Drifting},
    event::Event,
    world::World,
};

/// What the clients are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Everything.
    Busy,
    /// Keep what they hold and ask for nothing more.
    Still,
    /// They are gone.
    Silent,
}

/// What a client is made of.
pub struct Life {
    /// Its number, from 1.
    pub number: u32,
    /// The network.
    pub hub: Hub,
    /// Where it looks for the map.
    pub seeds: Vec<String>,
    /// How many names all clients share.
    pub names: u32,
    /// Where all is told.
    pub world: Arc<World>,
    /// What it is to do.
    pub phase: watch::Receiver<Phase>,
    /// Its choices.
    pub random: StdRng,
    /// Its connection to the network.
    pub connection: u64,
}

/// The name with this number.
pub fn name(number: u32) -> String {
    format!("n/{number}")
}

/// Reads who holds a name.
pub async fn read(client: &Client, world: &World, name: &str, patience: Duration) -> Option<Vec<LockId>> {
    let op = world.op();
    world.tell(Event::ReadBegan { op, name: name.to_owned() });
    let key = Key::lock(Name::new(name).expect("names are valid"));
    match client.read(Query::Object { key }, patience).await {
        Ok(wardlock_machine::Answer::Object(object)) => {
            let holders = holders(object);
            world.tell(Event::Read { op, name: name.to_owned(), holders: holders.clone() });
            Some(holders)
        }
        other => {
            world.tell(Event::ReadFailed { op, name: name.to_owned(), why: format!("{other:?}") });
            None
        }
    }
}

fn holders(object: Option<Object>) -> Vec<LockId> {
    object.into_iter().flat_map(|object| object.holders).map(|grant| grant.lock_id).collect()
}

/// A client's life, until the phase is [`Phase::Silent`].
pub async fn live(mut life: Life) {
    let clock = Arc::new(Drifting::new(life.random.random_range(-DRIFT_PPM..=DRIFT_PPM)));
    life.connection = u64::from(life.number) * 1_000;
    while *life.phase.borrow() != Phase::Silent {
        life.connection += 1;
        let transport = life.hub.attach_client(life.connection);
        let connected = Arc::new(Connected(transport));
        let client = Client::with_clock(connected, life.seeds.iter().cloned(), Arc::clone(&clock) as _);
        let mut silent = life.phase.clone();
        tokio::select! {
            biased;
            _ = silent.wait_for(|phase| *phase == Phase::Silent) => {}
            () = incarnation(&mut life, &client, &clock) => {}
        }
        // Its process dies: nothing that it would still say is heard.
        life.hub.detach_client(life.connection);
        drop(client);
    }
}

/// From one start of a client's process to its end.
async fn incarnation(life: &mut Life, client: &Client, clock: &Arc<Drifting>) {
    if client.ready(Duration::from_secs(20)).await.is_err() {
        return;
    }
    let sessions = life.random.random_range(1..=4);
    for _ in 0..sessions {
        life.still().await;
        let ttl = Duration::from_millis(life.random.random_range(1_500..6_000));
        let opened = client.session(format!("client-{}", life.number)).ttl(ttl).open().await;
        let Ok(session) = opened else {
            sleep(Duration::from_millis(200)).await;
            continue;
        };
        life.world.tell(Event::Opened { client: life.number, session: session.id(), ttl: ttl.as_millis() as u64 });
        let watching = tokio::spawn(watch_session(life.number, session.clone(), Arc::clone(clock), life.world.clone()));
        let ends = use_session(life, &session, clock).await;
        if ends == Ends::Closes && session.state() != SessionState::Lost {
            watching.abort();
            life.world.tell(Event::Closing { client: life.number, session: session.id() });
            // What is not closed ends with its TTL.
            let _ = session.close().await;
        }
        watching.abort();
        if ends == Ends::Dies {
            return;
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Ends {
    Closes,
    Dies,
}

/// Does several things at once, until the first of them is done with the session.
async fn use_session(life: &mut Life, session: &Session, clock: &Arc<Drifting>) -> Ends {
    let width = life.random.random_range(1..=4);
    let lanes = (0..width).map(|_| {
        let life = life.branch();
        Box::pin(lane(life, session, clock))
    });
    future::select_all(lanes.collect::<Vec<_>>()).await.0
}

/// Nobody hears the client for a while, and it hears nobody.
async fn cut_off(life: &mut Life) {
    let _muted = Muted::new(life);
    sleep(Duration::from_millis(life.random.random_range(500..8_000))).await;
}

/// Until it is dropped.
struct Muted {
    hub: Hub,
    world: Arc<World>,
    connection: u64,
    client: u32,
}

impl Muted {
    fn new(life: &Life) -> Muted {
        life.world.tell(Event::CutOff { client: life.number });
        life.hub.mute_client(life.connection);
        let (hub, world) = (life.hub.clone(), Arc::clone(&life.world));
        Muted { hub, world, connection: life.connection, client: life.number }
    }
}

impl Drop for Muted {
    fn drop(&mut self) {
        self.hub.unmute_client(self.connection);
        self.world.tell(Event::HeardAgain { client: self.client });
    }
}

async fn lane(mut life: Life, session: &Session, clock: &Arc<Drifting>) -> Ends {
    let rounds = life.random.random_range(3..30);
    for _ in 0..rounds {
        life.still().await;
        if session.state() == SessionState::Lost {
            return Ends::Closes;
        }
        match life.random.random_range(0..100) {
            0..58 => holder::hold(&mut life, session, clock).await,
            58..66 => paths::change(&mut life, session.client()).await,
            66..74 => observers::stand(&mut life, session).await,
            74..84 => instances::serve(&mut life, session).await,
            84..90 => {
                let name = name(life.random.random_range(0..life.names));
                read(session.client(), &life.world, &name, Duration::from_secs(3)).await;
            }
            90..92 => sleep(Duration::from_millis(life.random.random_range(0..3_000))).await,
            92..94 => cut_off(&mut life).await,
            94..96 => return Ends::Dies,
            _ => sleep(Duration::from_millis(life.random.random_range(0..100))).await,
        }
    }
    Ends::Closes
}

/// How often a holder looks until when something is valid: what moves it last may be missed by so much.
const LOOK: Duration = Duration::from_millis(50);

/// By how many milliseconds something ended before its holder had to reckon with it.
fn early(valid_until: Boot, clock: &Drifting) -> u64 {
    valid_until.since(wardlock_router::Clock::now(clock)).as_millis() as u64
}

/// Tells when a session is lost that nobody closed.
async fn watch_session(client: u32, session: Session, clock: Arc<Drifting>, world: Arc<World>) {
    let (lost, mut known) = (session.cancelled(), session.valid_until());
    while lost.run_until_cancelled(sleep(LOOK)).await.is_some() {
        known = known.max(session.valid_until());
    }
    world.tell(Event::SessionLost { client, session: session.id(), early: early(known, &clock) });
}

fn millis(random: &mut StdRng, below: u64) -> Duration {
    Duration::from_millis(random.random_range(0..below))
}

impl Life {
    /// The same, with choices of its own.
    fn branch(&mut self) -> Life {
        Life {
            number: self.number,
            hub: self.hub.clone(),
            seeds: self.seeds.clone(),
            names: self.names,
            world: Arc::clone(&self.world),
            phase: self.phase.clone(),
            connection: self.connection,
            random: StdRng::seed_from_u64(self.random.random()),
        }
    }

    /// Waits until there is something to do.
    async fn still(&mut self) {
        // The operator outlives the clients.
        let _ = self.phase.wait_for(|phase| *phase == Phase::Busy).await;
    }
}
