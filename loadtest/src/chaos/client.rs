//! One client's life: it opens a session, asks for locks, holds, renews and gives them back, and looks at others'; it
//! stands in elections and resigns; it reads and changes the configuration ([`paths`]).
//!
//! Now and then it misbehaves as clients do: it says nothing for longer than its TTL and then goes on as if it
//! held its lock still; it dies and leaves everything behind; it loses an answer and repeats the request, with
//! the same id, by another way. It tells the [`Book`] what it sent and heard, and nothing that it did not hear.

mod paths;

pub(super) use self::paths::number;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};
use wardlock_machine::{
    Acquire, Answer, Command, Holder, Key, LockId, Metadata, Millis, Name as LockName, Outcome, Query, RequestId,
    SessionId, Token,
};
use wardlock_router::Error;
use wardlock_wire::KeptAlive;

use super::{
    book::{Book, Name},
    pool::Pool,
};
use crate::{
    linear::{At, Op, What},
    safety::{Granted, certain},
    workload::Dice,
};

/// How long a request is repeated until its outcome is known.
const PERSISTENCE: Duration = Duration::from_secs(20);
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(3);
/// So many percent of what a client does is about the configuration.
const PATHS: f64 = 35.0;
/// The pause before a queued request asks for its answer again, and after a refusal.
const PAUSE: Duration = Duration::from_millis(50);

/// What all clients share.
pub(super) struct World {
    pub(super) pool: Pool,
    book: Mutex<Book>,
    /// Clients finish what they are at.
    pub(super) stop: AtomicBool,
    pub(super) ttl: Duration,
    /// The pause between what one client does, on average.
    pub(super) think: Duration,
}

impl World {
    pub(super) fn new(pool: Pool, book: Book, ttl: Duration, think: Duration) -> World {
        World { pool, book: Mutex::new(book), stop: AtomicBool::new(false), ttl, think }
    }

    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Looks at a name and tells what was seen.
    pub(super) async fn look(&self, name: Name, by: u128, dice: &mut Dice) -> Option<Option<(u128, Token)>> {
        let (key, sent, before) = {
            let book = self.book();
            let now = book.now();
            (book.key(name), now, book.safety.reading(Book::place(name), now))
        };
        let read = self.pool.any(dice).read(Query::Object { key }, ATTEMPT).await;
        let mut book = self.book();
        let now = book.now();
        let Ok(Answer::Object(object)) = read else {
            book.counts.failed += 1;
            return None;
        };
        let grant = object.and_then(|object| object.holders.into_iter().next());
        if let Some(grant) = grant.as_ref().filter(|grant| grant.value != value(name, &grant.holder)) {
            let (called, leader) = (book.called(name), grant.value.as_deref().unwrap_or("nobody"));
            book.told.broken(format!("{called}, held by {}, names {leader} as its leader", grant.holder));
        }
        let held = grant.map(|held| held.lock_id);
        let held = held.map(|id| (id.session.0, id.token));
        let seen = held.map(|(session, token)| (session, token.0));
        book.safety.was_read(Book::place(name), before, seen.map(|(_, token)| token), now);
        book.record(name, Op { session: by, invoked: sent, returned: Some(now), what: What::Read { held: seen } });
        (book.counts.answered, book.counts.reads) = (book.counts.answered + 1, book.counts.reads + 1);
        Some(held)
    }
}

/// What an election says of its leader; a lock says nothing.
fn value(name: Name, client: &str) -> Option<String> {
    Book::is_election(name).then(|| format!("{client} leads"))
}

/// The key of a lock.
pub(super) fn key(name: &str) -> Key {
    Key::lock(LockName::new(name).expect("short and not empty"))
}

fn millis(length: Duration) -> Millis {
    Millis(length.as_millis() as u64)
}

/// What became of a request.
enum Settled {
    Answer(Outcome),
    /// Nothing happened, for sure.
    Nothing,
    Unknown,
}

/// An open session.
struct Life {
    id: SessionId,
    /// It sends no signs of life.
    silent: AtomicBool,
    over: AtomicBool,
}

/// Whether a client goes on with its session.
#[derive(PartialEq)]
enum Then {
    GoesOn,
    Dies,
}

/// One client.
pub(super) struct Actor {
    number: u32,
    world: Arc<World>,
    dice: Dice,
    seq: u64,
}

impl Actor {
    pub(super) fn new(number: u32, world: Arc<World>, seed: u64) -> Actor {
        let dice = Dice::new(seed ^ u64::from(number).wrapping_mul(0x9e37_79b9));
        Actor { number, world, dice, seq: 0 }
    }

    /// Lives, in one session after another, until the world stops.
    pub(super) async fn live(mut self) {
        while !self.world.stopped() {
            let Some(life) = self.open().await else { continue };
            let keeper = tokio::spawn(keep(Arc::clone(&self.world), Arc::clone(&life), self.number));
            self.use_it(&life).await;
            life.over.store(true, Ordering::Relaxed);
            // It would only find that out.
            keeper.abort();
        }
    }

    async fn open(&mut self) -> Option<Arc<Life>> {
        let world = Arc::clone(&self.world);
        let id = world.pool.any(&mut self.dice).new_session_id();
        let holder = Holder { client_id: self.client_id(), ttl: millis(world.ttl), metadata: Metadata::new() };
        let sent = world.book().now();
        match self.settle(Command::OpenSession { session: id, holder }, false).await {
            Settled::Answer(Outcome::Opened { .. }) => {
                world.book().opened(self.number, id.0, sent, world.ttl);
                self.seq = 0;
                Some(Arc::new(Life { id, silent: AtomicBool::new(false), over: AtomicBool::new(false) }))
            }
            _ => {
                sleep(PAUSE).await;
                None
            }
        }
    }

    fn client_id(&self) -> String {
        format!("chaos-{}", self.number)
    }

    async fn use_it(&mut self, life: &Arc<Life>) {
        while !self.world.stopped() && !life.over.load(Ordering::Relaxed) {
            sleep(self.dice.exponential(self.world.think)).await;
            if self.dice.percent(PATHS) {
                self.use_a_path(life.id.0).await;
                continue;
            }
            let name = self.world.book().any_lock(&mut self.dice);
            let then = if self.dice.percent(40.0) {
                let world = Arc::clone(&self.world);
                world.look(name, life.id.0, &mut self.dice).await;
                Then::GoesOn
            } else {
                self.take_and_give(life, name).await
            };
            self.world.book().locks.leave(name);
            if then == Then::Dies {
                self.world.book().counts.died += 1;
                if self.dice.percent(30.0) {
                    // Some do it in order. A sign of life that is under way means nothing any more.
                    life.over.store(true, Ordering::Relaxed);
                    self.world.book().closes(self.number, life.id.0);
                    self.settle(Command::CloseSession { session: life.id }, false).await;
                }
                return;
            }
        }
    }

    fn request(&mut self) -> RequestId {
        self.seq += 1;
        RequestId::Native { seq: self.seq, low: self.seq }
    }

    /// Sends a request until its outcome is known; sometimes the first answer is lost on the way.
    async fn settle(&mut self, command: Command, may_lose: bool) -> Settled {
        let until = Instant::now() + PERSISTENCE;
        let world = Arc::clone(&self.world);
        let wait = match &command {
            Command::Acquire(acquire) => Duration::from_millis(acquire.wait.0),
            _ => Duration::ZERO,
        };
        let mut perhaps = false;
        // Whoever takes the request does not know that nobody hears the answer.
        let mut deaf = (may_lose && self.dice.percent(10.0)).then(|| Duration::from_millis(1 + self.dice.below(60)));
        loop {
            let write = world.pool.any(&mut self.dice).write(command.clone(), ATTEMPT + wait);
            let written = match deaf.take() {
                Some(after) => timeout(after, write).await.unwrap_or(Err(Error::OutcomeUnknown)),
                None => write.await,
            };
            let late = Instant::now() >= until;
            match written {
                Ok(Outcome::Queued { .. }) if late => return Settled::Unknown,
                // It may be granted while nobody asks.
                Ok(Outcome::Queued { .. }) => perhaps = true,
                Ok(outcome) => return Settled::Answer(outcome),
                Err(Error::OutcomeUnknown) if late => return Settled::Unknown,
                Err(Error::OutcomeUnknown) => {
                    world.book().counts.repeated += 1;
                    perhaps = true;
                    // Some take their time, so that a lease may end between the two.
                    if self.dice.percent(20.0) {
                        sleep(Duration::from_millis(self.dice.below(2_500))).await;
                    }
                    continue;
                }
                Err(_) if !perhaps => return Settled::Nothing,
                Err(_) if late => return Settled::Unknown,
                Err(_) => {}
            }
            sleep(PAUSE).await;
        }
    }

    fn record(&self, name: Name, life: &Life, sent: At, returned: Option<At>, what: What) {
        self.world.book().record(name, Op { session: life.id.0, invoked: sent, returned, what });
    }

    async fn take_and_give(&mut self, life: &Arc<Life>, name: Name) -> Then {
        let lease = self.dice.percent(30.0).then(|| Duration::from_millis(400 + self.dice.below(2_000)));
        let wait = match self.dice.percent(40.0) {
            true => Duration::from_millis(50 + self.dice.below(1_500)),
            false => Duration::ZERO,
        };
        let key = self.world.book().key(name);
        let acquire = Acquire {
            lease: lease.map(millis),
            wait: millis(wait),
            value: value(name, &self.client_id()),
            ..Acquire::new(life.id, self.request(), key.clone())
        };
        let (sent, asked) = {
            let book = self.world.book();
            let now = book.now();
            (now, book.safety.asking(self.number, Book::place(name), now))
        };
        let settled = self.settle(Command::Acquire(acquire), true).await;
        let now = self.world.book().now();
        let outcome = match settled {
            Settled::Answer(outcome) => outcome,
            Settled::Nothing => {
                self.world.book().counts.failed += 1;
                return Then::GoesOn;
            }
            Settled::Unknown => {
                self.world.book().counts.unknown += 1;
                self.record(name, life, sent, None, What::Asked);
                return Then::Dies;
            }
        };
        self.world.book().counts.answered += 1;
        let token = match outcome {
            Outcome::Granted(grant) => {
                let token = grant.lock_id.token.0;
                self.record(name, life, sent, Some(now), What::Granted { token, lease: lease.map(certain) });
                let granted = Granted { session: self.number, name: Book::place(name), token, shared: false, lease };
                let mut book = self.world.book();
                book.safety.granted(asked, granted, now);
                book.counts.grants += 1;
                grant.lock_id.token
            }
            Outcome::AlreadyHeld(grant) => {
                let token = grant.lock_id.token;
                self.record(name, life, sent, Some(now), What::Holds { token: token.0 });
                token
            }
            Outcome::Held(blocked) | Outcome::WaitTimeout(blocked) => {
                let by = blocked.holders.first().map(|held| held.lock_id.token.0);
                self.record(name, life, sent, Some(now), What::Refused { by });
                self.world.book().counts.refused += 1;
                return Then::GoesOn;
            }
            // Granted and lost before the answer, or the session is gone: a repeat may have been the first's.
            _ => {
                self.record(name, life, sent, None, What::Asked);
                return Then::GoesOn;
            }
        };
        self.hold(life, name, &key, token, lease).await
    }

    async fn hold(&mut self, life: &Arc<Life>, name: Name, key: &Key, token: Token, lease: Option<Duration>) -> Then {
        let lock_id = LockId::new(life.id, token, key);
        match self.dice.below(100) {
            0..82 => sleep(self.dice.exponential(Duration::from_millis(12))).await,
            82..94 => {
                sleep(Duration::from_millis(50 + self.dice.below(500))).await;
                let world = Arc::clone(&self.world);
                world.look(name, life.id.0, &mut self.dice).await;
            }
            94..97 => {
                self.world.book().counts.paused += 1;
                life.silent.store(true, Ordering::Relaxed);
                sleep(self.world.ttl.mul_f64(0.6 + 1.6 * self.dice.unit())).await;
                life.silent.store(false, Ordering::Relaxed);
            }
            _ => return Then::Dies,
        }
        if lease.is_some() && self.dice.percent(60.0) {
            let sent = self.world.book().now();
            let renew = Command::Renew { request: self.request(), key: key.clone(), lock_id, lease: lease.map(millis) };
            let settled = self.settle(renew, true).await;
            let now = self.world.book().now();
            match settled {
                Settled::Answer(Outcome::Renewed(_)) => {
                    let renewed = What::Renewed { token: token.0, lease: lease.map(certain) };
                    self.record(name, life, sent, Some(now), renewed);
                    let mut book = self.world.book();
                    book.safety.renewed(Book::place(name), token.0, sent, lease.unwrap_or_default());
                    (book.counts.answered, book.counts.renewed) = (book.counts.answered + 1, book.counts.renewed + 1);
                }
                Settled::Answer(Outcome::Expired | Outcome::Foreign) => {
                    self.record(name, life, sent, Some(now), What::Lost { token: token.0 });
                    let mut book = self.world.book();
                    book.safety.renewal_lost(Book::place(name), token.0, now);
                    (book.counts.answered, book.counts.lost) = (book.counts.answered + 1, book.counts.lost + 1);
                    return Then::GoesOn;
                }
                // Whatever came of it, it took nothing away.
                Settled::Answer(_) | Settled::Nothing | Settled::Unknown => {}
            }
        }
        self.give_back(life, name, key, lock_id).await
    }

    async fn give_back(&mut self, life: &Arc<Life>, name: Name, key: &Key, lock_id: LockId) -> Then {
        let token = lock_id.token.0;
        let (sent, holder) = {
            let mut book = self.world.book();
            (book.now(), book.safety.releasing(Book::place(name), token))
        };
        let release = Command::Release { request: self.request(), key: key.clone(), lock_id };
        let mut settled = self.settle(release.clone(), true).await;
        for _ in 0..100 {
            if !matches!(settled, Settled::Nothing) {
                break;
            }
            sleep(PAUSE * 4).await;
            settled = self.settle(release.clone(), false).await;
        }
        let mut book = self.world.book();
        let now = book.now();
        let (returned, what) = match settled {
            Settled::Answer(Outcome::Released) => {
                book.counts.released += 1;
                (Some(now), What::Released { token })
            }
            Settled::Answer(Outcome::Expired | Outcome::Foreign) => {
                book.counts.lost += 1;
                book.safety.was_lost(Book::place(name), holder, now);
                if book.may_have_ended(life.id.0) {
                    // A first attempt may have done it; that it did was forgotten with the session.
                    let what = What::Released { token };
                    book.record(name, Op { session: life.id.0, invoked: sent, returned: None, what });
                }
                (Some(now), What::Lost { token })
            }
            _ => {
                book.counts.unknown += 1;
                (None, What::Released { token })
            }
        };
        book.counts.answered += u64::from(returned.is_some());
        book.record(name, Op { session: life.id.0, invoked: sent, returned, what });
        if returned.is_some() { Then::GoesOn } else { Then::Dies }
    }
}

/// Sends signs of life, and notes when a session is said to be gone.
async fn keep(world: Arc<World>, life: Arc<Life>, number: u32) {
    let mut dice = Dice::new(life.id.0 as u64);
    while !life.over.load(Ordering::Relaxed) {
        sleep(world.ttl / 3).await;
        if life.silent.load(Ordering::Relaxed) {
            continue;
        }
        let sent = world.book().now();
        let client = world.pool.any(&mut dice);
        match timeout(world.ttl, client.keep_alive(life.id, world.ttl)).await {
            _ if life.over.load(Ordering::Relaxed) => {}
            Ok(Ok(KeptAlive::Alive)) => world.book().alive(number, life.id.0, sent, world.ttl),
            Ok(Ok(KeptAlive::Ended | KeptAlive::Unknown)) => {
                world.book().session_lost(number, life.id.0);
                life.over.store(true, Ordering::Relaxed);
            }
            // Another comes soon.
            Ok(Err(_)) | Err(_) => {}
        }
    }
}
