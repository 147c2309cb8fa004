//! The population: clients as applications are, over the public client library. They open sessions, acquire, wait,
//! hold, renew, release and read; they fall asleep past their TTL, and die.

use std::{sync::Arc, time::Duration};

use rand::{RngExt, rngs::StdRng};
use tokio::{sync::watch, time::sleep};
use wardlock_machine::{Key, Mode, Name, Query, Token};
use wardlock_router::{Client, Connected, Guard, LockError, Session, SessionState, client::Boot, link::memory::Hub};

use crate::{
    clock::{DRIFT_PPM, Drifting},
    event::{Believes, Event},
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
    /// The names that all clients share.
    pub names: u32,
    /// Where all is told.
    pub world: Arc<World>,
    /// What it is to do.
    pub phase: watch::Receiver<Phase>,
    /// Its choices.
    pub random: StdRng,
}

/// The name with this number. Names of elections and of locks do not meet.
pub fn name(number: u32) -> String {
    format!("n/{number}")
}

/// Reads the holders' tokens of a name.
pub async fn read(client: &Client, world: &World, name: &str, patience: Duration) -> Option<Vec<Token>> {
    let op = world.op();
    world.tell(Event::ReadBegan { op, name: name.to_owned() });
    let key = Key::lock(Name::new(name).expect("names are valid"));
    match client.read(Query::Object { key }, patience).await {
        Ok(wardlock_machine::Answer::Object(object)) => {
            let holders: Vec<Token> =
                object.into_iter().flat_map(|object| object.holders).map(|grant| grant.lock_id.token).collect();
            world.tell(Event::Read { op, name: name.to_owned(), holders: holders.clone() });
            Some(holders)
        }
        other => {
            world.tell(Event::ReadFailed { op, name: name.to_owned(), why: format!("{other:?}") });
            None
        }
    }
}

/// A client's life, until the phase is [`Phase::Silent`].
pub async fn live(mut life: Life) {
    let clock = Arc::new(Drifting::new(life.random.random_range(-DRIFT_PPM..=DRIFT_PPM)));
    let mut connection = u64::from(life.number) * 1_000;
    while *life.phase.borrow() != Phase::Silent {
        connection += 1;
        let transport = life.hub.attach_client(connection);
        let connected = Arc::new(Connected(transport));
        let client = Client::with_clock(connected, life.seeds.iter().cloned(), Arc::clone(&clock) as _);
        let mut silent = life.phase.clone();
        tokio::select! {
            biased;
            _ = silent.wait_for(|phase| *phase == Phase::Silent) => {}
            () = incarnation(&mut life, &client, &clock) => {}
        }
        // Its process dies: nothing that it would still say is heard.
        life.hub.detach_client(connection);
        drop(client);
    }
}

/// From one start of the client's process to its end.
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

async fn use_session(life: &mut Life, session: &Session, clock: &Arc<Drifting>) -> Ends {
    let rounds = life.random.random_range(3..30);
    for _ in 0..rounds {
        life.still().await;
        if session.state() == SessionState::Lost {
            return Ends::Closes;
        }
        match life.random.random_range(0..100) {
            0..70 => hold(life, session, clock).await,
            70..90 => {
                let name = name(life.random.random_range(0..life.names));
                read(session.client(), &life.world, &name, Duration::from_secs(3)).await;
            }
            90..94 => sleep(Duration::from_millis(life.random.random_range(0..3_000))).await,
            94..96 => return Ends::Dies,
            _ => sleep(Duration::from_millis(life.random.random_range(0..100))).await,
        }
    }
    Ends::Closes
}

/// Asks for a lock, and if it comes keeps it for a while.
async fn hold(life: &mut Life, session: &Session, clock: &Arc<Drifting>) {
    let (world, client) = (Arc::clone(&life.world), life.number);
    let random = &mut life.random;
    let number = random.random_range(0..life.names);
    let name = name(number);
    // Each name has a mode that most ask for.
    let mode = match (number % 4, random.random_range(0..20)) {
        (_, 0) => Mode::Exclusive,
        (0..2, _) => Mode::Exclusive,
        (2, _) => Mode::Shared,
        _ => Mode::Semaphore { permits: 2 },
    };
    let wait = if random.random_bool(0.5) { Duration::ZERO } else { millis(random, 8_000) };
    let lease = random.random_bool(0.5).then(|| Duration::from_secs(1) + millis(random, 4_000));
    let delay = if random.random_bool(0.1) { millis(random, 1_000) } else { Duration::ZERO };
    let keep = millis(random, 3_000);
    let (renews, drops) = (random.random_bool(0.3), random.random_bool(0.15));
    let mut lock = session.lock(&name).wait(wait).lock_delay(delay);
    lock = match mode {
        Mode::Exclusive => lock,
        Mode::Shared => lock.shared(),
        Mode::Semaphore { permits } => lock.permits(permits),
    };
    if let Some(lease) = lease {
        lock = lock.lease(lease);
    }
    let op = world.op();
    world.tell(Event::Asked { client, op, name: name.clone(), mode, waits: !wait.is_zero() });
    let guard = match lock.acquire().await {
        Ok(guard) => Arc::new(guard),
        Err(error) => {
            let why = match error {
                LockError::Call(error) => format!("call: {error}"),
                other => format!("{other}"),
            };
            world.tell(Event::Refused { client, op, name, why });
            return;
        }
    };
    let token = guard.fencing_token();
    // Whoever has let go of it, or died, believes no more.
    let asked = Arc::downgrade(&guard);
    let believes = Believes::new(move || asked.upgrade().is_some_and(|guard| guard.is_held()));
    world.tell(Event::Granted { client, op, name: name.clone(), mode, token, believes });
    let held = Held { client, name, token, guard, clock: Arc::clone(clock), world };
    let mut phase = life.phase.clone();
    let kept = async {
        sleep(keep / 2).await;
        if renews {
            let done = held.guard.renew(lease).await.is_ok();
            held.world.tell(Event::Renewed { client, name: held.name.clone(), token, done });
        }
        sleep(keep / 2).await;
        // While all is still nobody gives anything back.
        let _ = phase.wait_for(|phase| *phase != Phase::Still).await;
    };
    if !held.lost_before(kept).await {
        held.give_back(drops).await;
    }
}

struct Held {
    client: u32,
    name: String,
    token: Token,
    guard: Arc<Guard>,
    clock: Arc<Drifting>,
    world: Arc<World>,
}

/// How often a holder looks until when its grant is valid: what moves it last may be missed by so much.
const LOOK: Duration = Duration::from_millis(50);

impl Held {
    /// Whether the grant is lost before the work is done.
    async fn lost_before(&self, work: impl Future<Output = ()>) -> bool {
        let watched = async {
            let mut known = self.guard.valid_until();
            let lost = self.guard.lost();
            tokio::pin!(lost);
            loop {
                tokio::select! {
                    biased;
                    () = &mut lost => return known,
                    () = sleep(LOOK) => known = known.max(self.guard.valid_until()),
                }
            }
        };
        tokio::select! {
            biased;
            known = watched => {
                // A session that its client has lost takes its grants along; that is looked at with the session.
                let early = match self.guard.session().state() {
                    SessionState::Lost => 0,
                    _ => early(known, &self.clock),
                };
                let (client, name, token) = (self.client, self.name.clone(), self.token);
                self.world.tell(Event::Lost { client, name, token, early });
                true
            }
            () = work => false,
        }
    }

    async fn give_back(self, drops: bool) {
        let Held { client, name, token, guard, world, .. } = self;
        world.tell(Event::Releasing { client, name: name.clone(), token });
        // Nobody else has one: the checks only ask.
        let done = match Arc::into_inner(guard) {
            Some(guard) if !drops => guard.release().await.is_ok(),
            _ => false,
        };
        world.tell(Event::Released { client, name, token, done });
    }
}

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
    /// Waits until there is something to do.
    async fn still(&mut self) {
        // The operator outlives the clients.
        let _ = self.phase.wait_for(|phase| *phase == Phase::Busy).await;
    }
}
