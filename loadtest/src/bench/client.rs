//! The clients: each does one operation at a time, as the schedule or its own last answer says.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    book::{Book, Client, Work},
    pool::Pool,
    recorder::Times,
};
use crate::target::{Failure, Target};

/// How long a client of a closed loop rests after a failure.
const REST: Duration = Duration::from_millis(10);

/// What all tasks of a bench share. They run on one thread, so the lock is never contended; it is never held
/// over a wait.
pub(crate) struct Load {
    pub(crate) target: Target,
    book: Mutex<Book>,
    /// The clients of a closed loop are to stop.
    ending: AtomicBool,
}

impl Load {
    pub(crate) fn new(target: Target, book: Book) -> Load {
        Load { target, book: Mutex::new(book), ending: AtomicBool::new(false) }
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the clients of a closed loop are to stop.
    pub(crate) fn set_ending(&self, ending: bool) {
        self.ending.store(ending, Ordering::Relaxed);
    }

    /// A client of a closed loop. What is answered is when the next operation begins.
    pub(crate) async fn drive(&self, mut client: Client) {
        let mut now = Instant::now();
        while !self.ending.load(Ordering::Relaxed) {
            let (done, answered) = self.turn(&mut client, now, now).await;
            now = done;
            if !answered {
                tokio::time::sleep(REST).await;
                now = Instant::now();
            }
        }
    }

    /// A client of an open loop, with its number in the pool.
    pub(crate) async fn serve(&self, mut client: Client, number: u32, pool: &Pool) {
        while let Some(due) = pool.next(number).await {
            self.turn(&mut client, due, Instant::now()).await;
        }
    }

    /// One operation, which was due then and begins at `sent`. Returns when it ended, and whether it was
    /// answered.
    async fn turn(&self, client: &mut Client, due: Instant, sent: Instant) -> (Instant, bool) {
        let times = || Times { due, sent, done: Instant::now() };
        let work = self.book().choose(client, due, sent);
        let (name, failure) = match work {
            Work::Read { name, before } => match self.target.read(name).await {
                Ok(token) => {
                    let times = times();
                    self.book().read(name, before, token, times);
                    return (times.done, true);
                }
                Err(failure) => (Some(name), failure),
            },
            Work::Acquire { session, name, how, asked } => match self.target.acquire(session, name, how).await {
                Ok(acquired) => {
                    let times = times();
                    self.book().acquired(client, (session, name, how, asked), acquired, times);
                    return (times.done, true);
                }
                Err(failure) => (Some(name), failure),
            },
            Work::Release { holding, holder, own } => {
                match self.target.release(holding.session, holding.name, holding.grant).await {
                    Ok(held) => {
                        let times = times();
                        self.book().released(holding.name, holder, held, times);
                        return (times.done, true);
                    }
                    Err(failure) => {
                        self.book().not_released(client, holding, own, Instant::now());
                        (Some(holding.name), failure)
                    }
                }
            }
            Work::KeepAlive { session } => match self.keep_alive(session, due, sent, true).await {
                Ok(done) => return (done, true),
                Err(failure) => (None, failure),
            },
        };
        let times = times();
        self.book().failed(name, &failure, times);
        (times.done, false)
    }

    /// A session's sign of life; returns when it was answered. A session that is gone is opened anew. `counts`
    /// is whether it belongs to the load.
    pub(crate) async fn keep_alive(
        &self,
        session: u32,
        due: Instant,
        sent: Instant,
        counts: bool,
    ) -> Result<Instant, Failure> {
        let alive = self.target.keep_alive(session).await?;
        let times = Times { due, sent, done: Instant::now() };
        self.book().kept(session, alive, counts, times);
        if !alive {
            // Boxed, since it is rare and large, and every client has room for what it does.
            Box::pin(self.open(session)).await?;
            return Ok(Instant::now());
        }
        Ok(times.done)
    }

    /// Opens a session.
    pub(crate) async fn open(&self, session: u32) -> Result<(), Failure> {
        let (sent, ttl) = (Instant::now(), self.book().ttl());
        self.target.open(session, ttl).await?;
        let mut book = self.book();
        let sent = book.at(sent);
        book.safety.opened(session, sent, ttl);
        Ok(())
    }
}
