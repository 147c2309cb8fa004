//! A holder: asks for a lock, keeps it, renews it, gives it back or loses it.

use std::{sync::Arc, time::Duration};

use rand::RngExt;
use tokio::time::sleep;
use wardlock_machine::{Mode, Token};
use wardlock_router::{Error, Guard, LockError, Session, SessionState};

use super::{LOOK, Life, Phase, early, millis, name};
use crate::{
    clock::Drifting,
    event::{Believes, Event, Op},
    world::World,
};

/// Asks for a lock, and if it comes keeps it for a while.
pub(super) async fn hold(life: &mut Life, session: &Session, clock: &Arc<Drifting>) {
    let (world, client) = (Arc::clone(&life.world), life.number);
    let random = &mut life.random;
    let number = random.random_range(0..life.names);
    let name = name(number);
    // Each name has a mode that most ask for.
    let mode = match (number % 4, random.random_range(0..20)) {
        (0..2, _) | (2, 0..4) | (_, 0) => Mode::Exclusive,
        (2, _) => Mode::Shared,
        _ => Mode::Semaphore { permits: 2 },
    };
    let wait = if random.random_bool(0.5) { Duration::ZERO } else { millis(random, 8_000) };
    let lease = random.random_bool(0.5).then(|| Duration::from_secs(1) + millis(random, 4_000));
    let delay = if random.random_bool(0.3) { millis(random, 3_000) } else { Duration::ZERO };
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
    let waits = !wait.is_zero();
    world.tell(Event::Asked { client, session: session.id(), op, name: name.clone(), mode, waits });
    let asking = Asking { client, op, name: &name, world: &world, answered: false };
    let guard = match lock.acquire().await {
        Ok(guard) => Arc::new(guard),
        Err(error) => return asking.refused(&error),
    };
    asking.answered();
    let token = guard.fencing_token();
    // Whoever has let go of it, or died, believes no more.
    let asked = Arc::downgrade(&guard);
    let believes = Believes::new(move || asked.upgrade().is_some_and(|guard| guard.is_held()));
    world.tell(Event::Granted {
        client,
        op,
        name: name.clone(),
        mode,
        token,
        delay: delay.as_millis() as u64,
        believes,
    });
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
    } else if !delay.is_zero() {
        held.stay(delay).await;
    }
}

/// A request without an answer. Whoever drops it has given up.
struct Asking<'a> {
    client: u32,
    op: Op,
    name: &'a str,
    world: &'a World,
    answered: bool,
}

impl Asking<'_> {
    fn answered(mut self) {
        self.answered = true;
    }

    fn refused(mut self, error: &LockError) {
        self.answered = true;
        let unknown =
            matches!(error, LockError::SessionLost | LockError::Expired | LockError::Call(Error::OutcomeUnknown));
        self.tell(error.to_string(), !unknown);
    }

    fn tell(&self, why: String, known: bool) {
        let Asking { client, op, name, .. } = *self;
        self.world.tell(Event::Refused { client, op, name: name.to_owned(), why, known });
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.tell("it gave up".into(), false);
        }
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

    /// Does not notice the loss for a while: dropping the guard would give back what the servers may not have
    /// ended yet.
    async fn stay(self, delay: Duration) {
        let (client, name, token) = (self.client, self.name.clone(), self.token);
        let staying = Staying { world: Arc::clone(&self.world), client, name, token };
        sleep(delay + LOOK).await;
        drop(staying);
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

/// Tells when a lost grant is given back.
struct Staying {
    client: u32,
    name: String,
    token: Token,
    world: Arc<World>,
}

impl Drop for Staying {
    fn drop(&mut self) {
        let Staying { client, name, token, .. } = self;
        self.world.tell(Event::Releasing { client: *client, name: name.clone(), token: *token });
    }
}
