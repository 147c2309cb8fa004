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

    /// A client of a closed loop.
    pub(crate) async fn drive(&self, mut client: Client) {
        while !self.ending.load(Ordering::Relaxed) {
            if !self.turn(&mut client, None).await {
                tokio::time::sleep(REST).await;
            }
        }
    }

    /// A client of an open loop, with its number in the pool.
    pub(crate) async fn serve(&self, mut client: Client, number: u32, pool: &Pool) {
        while let Some(due) = pool.next(number).await {
            self.turn(&mut client, Some(due)).await;
        }
    }

    /// One operation, which was due then or is now. Returns whether it was answered.
    async fn turn(&self, client: &mut Client, due: Option<Instant>) -> bool {
        let sent = Instant::now();
        let due = due.unwrap_or(sent);
        let times = || Times { due, sent, done: Instant::now() };
        let work = self.book().choose(client, due, sent);
        let (name, failure) = match work {
            Work::Read { name, before } => match self.target.read(name).await {
                Ok(token) => {
                    self.book().read(name, before, token, times());
                    return true;
                }
                Err(failure) => (Some(name), failure),
            },
            Work::Acquire { session, name, how, asked } => match self.target.acquire(session, name, how).await {
                Ok(acquired) => {
                    self.book().acquired(client, (session, name, how, asked), acquired, times());
                    return true;
                }
                Err(failure) => (Some(name), failure),
            },
            Work::Release { holding, holder, own } => {
                match self.target.release(holding.session, holding.name, holding.grant).await {
                    Ok(held) => {
                        self.book().released(holding.name, holder, held, times());
                        return true;
                    }
                    Err(failure) => {
                        self.book().not_released(client, holding, own, Instant::now());
                        (Some(holding.name), failure)
                    }
                }
            }
            Work::KeepAlive { session } => match self.keep_alive(session, due, true).await {
                Ok(()) => return true,
                Err(failure) => (None, failure),
            },
        };
        self.book().failed(name, &failure, times());
        false
    }

    /// A session's sign of life. One that is gone is opened anew. `counts` is whether it belongs to the load.
    pub(crate) async fn keep_alive(&self, session: u32, due: Instant, counts: bool) -> Result<(), Failure> {
        let sent = Instant::now();
        let alive = self.target.keep_alive(session).await?;
        self.book().kept(session, alive, counts, Times { due, sent, done: Instant::now() });
        if !alive {
            self.open(session).await?;
        }
        Ok(())
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
