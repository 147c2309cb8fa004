//! What all clients were told, name by name, until it has been checked: of locks and elections, and of paths of the
//! configuration ([`Shelf`]); and what watches told of them ([`Told`]).
//!
//! The online check of [`Safety`] hears of all locks and elections as well, at once.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde::Serialize;
use wardlock_machine::{Key, Kind, Name as ObjectName};

use super::shelf::Shelf;
use crate::{
    linear::{self, At, History, Op, Session, Verdict, What, path},
    safety::{Safety, certain},
    told::{Content, Told},
    workload::Dice,
};

/// Of so many names of locks one is an election.
const ELECTIONS: Name = 4;
/// How many names the online check tells apart. A name's place is another's only long after its end.
const PLACES: u64 = 4_096;
/// How many configurations a verdict may cost.
const BUDGET: usize = 300_000;
/// How many violations are kept in words.
const EXAMPLES: usize = 3;
/// How many histories may wait for their verdict.
const WAITING: usize = 256;
/// Sessions are forgotten when they may have ended so long ago: longer than any name is open. All histories of
/// a session that is not known take it to have ended at any time.
const FORGOTTEN: Duration = Duration::from_secs(300);
/// How many are opened between two such times.
const OPENED: u64 = 1_000;

/// One name of this run, by its number: those of locks and elections are numbered together, those of paths by
/// themselves.
pub(super) type Name = u64;

/// What is told and asked. Times are since the run began.
pub(super) struct Book {
    began: Instant,
    prefix: String,
    pub(super) safety: Safety,
    /// Of locks and elections.
    pub(super) locks: Shelf<What>,
    pub(super) paths: Shelf<path::What>,
    pub(super) told: Told,
    /// The earliest end of each session that there was.
    sessions: BTreeMap<Session, At>,
    /// Each client's present session.
    present: Vec<Session>,
    pub(super) counts: Counts,
}

/// What the clients did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    /// Operations that were answered.
    pub(super) answered: u64,
    pub(super) reads: u64,
    pub(super) grants: u64,
    /// Of these, of elections.
    pub(super) elected: u64,
    pub(super) refused: u64,
    pub(super) renewed: u64,
    pub(super) released: u64,
    /// Releases and renewals that came too late.
    pub(super) lost: u64,
    /// Looks at paths, changes of paths, and changes that were refused, since the path was another.
    pub(super) path_reads: u64,
    pub(super) changed: u64,
    pub(super) mismatched: u64,
    /// Operations that nobody knows the outcome of.
    pub(super) unknown: u64,
    /// Operations that were refused, and so did not happen.
    pub(super) failed: u64,
    /// Requests that were repeated elsewhere because their answer was lost.
    pub(super) repeated: u64,
    pub(super) sessions: u64,
    pub(super) expired: u64,
    pub(super) died: u64,
    /// Clients that said nothing for longer than their TTL.
    pub(super) paused: u64,
}

impl Book {
    /// Of so many names at once, of paths as of locks, so many clients and so many watches.
    pub(super) fn new(names: usize, clients: u32, watches: usize, tag: u64) -> Book {
        let mut dice = Dice::new(tag);
        Book {
            began: Instant::now(),
            prefix: format!("chaos/{tag:x}/"),
            safety: Safety::new(PLACES, clients),
            locks: Shelf::new(names, At::ZERO, &mut dice),
            paths: Shelf::new(names, At::ZERO, &mut dice),
            told: Told::new(watches),
            sessions: BTreeMap::new(),
            present: vec![0; clients as usize],
            counts: Counts::default(),
        }
    }

    pub(super) fn now(&self) -> At {
        self.began.elapsed()
    }

    /// What all names start with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// What a name is called.
    pub(super) fn called(&self, name: Name) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Which name is called so.
    pub(super) fn number(&self, called: &str) -> Option<Name> {
        called.strip_prefix(&self.prefix)?.parse().ok()
    }

    /// Whether a name is an election's.
    pub(super) fn is_election(name: Name) -> bool {
        name % ELECTIONS == 0
    }

    /// The key of a lock or an election.
    pub(super) fn key(&self, name: Name) -> Key {
        Key { kind: kind(name), name: ObjectName::new(&self.called(name)).expect("short and not empty") }
    }

    /// Where the online check keeps it.
    pub(super) fn place(name: Name) -> u64 {
        name % PLACES
    }

    /// Some lock or election in use, to ask about. [`Shelf::leave`] ends the use.
    pub(super) fn any_lock(&mut self, dice: &mut Dice) -> Name {
        let (name, is_new) = self.locks.any(self.began.elapsed(), dice);
        if is_new {
            self.safety.forget_name(Book::place(name));
        }
        name
    }

    /// Some path in use. [`Shelf::leave`] ends the use.
    pub(super) fn any_path(&mut self, dice: &mut Dice) -> Name {
        self.paths.any(self.began.elapsed(), dice).0
    }

    /// Something was asked about a lock or an election.
    pub(super) fn record(&mut self, name: Name, op: Op) {
        if let (Some(_), What::Granted { token, .. }) = (op.returned, &op.what) {
            let called = self.called(name);
            self.told.acknowledged(kind(name), &called, *token, Some(op.session));
            self.counts.elected += u64::from(Book::is_election(name));
        }
        self.locks.record(name, op);
    }

    /// Something was asked about a path.
    pub(super) fn record_path(&mut self, name: Name, op: Op<path::What>) {
        if let (Some(_), path::What::Made { change, version, .. }) = (op.returned, op.what) {
            let called = self.called(name);
            let content = match change {
                path::Change::Put(value) => Some(content(Some(value))),
                path::Change::Delete => Some(content(None)),
                // What it was is a matter of the path's history.
                path::Change::Rollback(_) => None,
            };
            self.told.acknowledged(Kind::Config, &called, version, content);
        }
        self.paths.record(name, op);
    }

    /// Retires every name.
    pub(super) fn retire_all(&mut self) {
        self.locks.retire_all();
        self.paths.retire_all();
    }

    /// How many names are not checked yet.
    pub(super) fn open_names(&self) -> usize {
        self.locks.open_names() + self.paths.open_names()
    }

    /// The whole history of a lock or an election, which is then forgotten.
    pub(super) fn close(&mut self, name: Name) -> History {
        let ops = self.locks.close(name);
        let sessions = ops.iter().filter_map(|op| Some((op.session, *self.sessions.get(&op.session)?))).collect();
        let called = self.called(name);
        self.told.close(kind(name), &called);
        History { name: called, ops, sessions }
    }

    /// The same of a path.
    pub(super) fn close_path(&mut self, name: Name) -> History<path::What> {
        let called = self.called(name);
        self.told.close(Kind::Config, &called);
        History { name: called, ops: self.paths.close(name), sessions: BTreeMap::new() }
    }

    /// A client's session was opened by a request that was sent at `sent`.
    pub(super) fn opened(&mut self, client: u32, session: Session, sent: At, ttl: Duration) {
        self.present[client as usize] = session;
        self.sessions.insert(session, sent + certain(ttl));
        self.safety.opened(client, sent, ttl);
        self.counts.sessions += 1;
        if self.counts.sessions.is_multiple_of(OPENED) {
            let now = self.now();
            self.sessions.retain(|_, until| *until + FORGOTTEN > now);
        }
    }

    /// Whether a session may have ended, as far as its client can know.
    pub(super) fn may_have_ended(&self, session: Session) -> bool {
        self.sessions.get(&session).is_none_or(|until| *until <= self.now())
    }

    /// A sign of life that was sent at `sent` was acknowledged.
    pub(super) fn alive(&mut self, client: u32, session: Session, sent: At, ttl: Duration) {
        let until = self.sessions.entry(session).or_default();
        *until = (*until).max(sent + certain(ttl));
        if self.present[client as usize] == session {
            self.safety.alive(client, sent);
        }
    }

    /// A session was said to be gone.
    pub(super) fn session_lost(&mut self, client: u32, session: Session) {
        self.counts.expired += 1;
        if self.present[client as usize] == session {
            let now = self.now();
            self.safety.session_lost(client, now);
        }
    }

    /// A client asks to end its session: from now on it may end.
    pub(super) fn closes(&mut self, client: u32, session: Session) {
        let now = self.now();
        if let Some(until) = self.sessions.get_mut(&session) {
            *until = (*until).min(now);
        }
        if self.present[client as usize] == session {
            self.safety.closing(client);
        }
    }
}

/// What a name of a lock or an election names.
fn kind(name: Name) -> Kind {
    if Book::is_election(name) { Kind::Election } else { Kind::Lock }
}

/// What a version of a path stands for, among all that watches tell.
pub(super) fn content(value: Option<path::Value>) -> Content {
    value.map_or(0, |value| u128::from(value) + 1)
}

/// What the checker found of locks and elections, or of paths.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Checked {
    /// Whole histories of names, and the operations in them.
    pub(super) histories: u64,
    pub(super) operations: u64,
    pub(super) violations: u64,
    pub(super) undecided: u64,
    /// The longest that a verdict took, milliseconds.
    pub(super) slowest_ms: f64,
    /// The first few violations, in words.
    pub(super) examples: Vec<String>,
}

impl Checked {
    fn add(&mut self, operations: usize, verdict: Verdict, took: Duration) {
        self.histories += 1;
        self.operations += operations as u64;
        self.slowest_ms = self.slowest_ms.max(took.as_secs_f64() * 1e3);
        match verdict {
            Verdict::Linearizable => {}
            Verdict::Undecided => self.undecided += 1,
            Verdict::Violation(text) => {
                self.violations += 1;
                if self.examples.len() < EXAMPLES {
                    self.examples.push(text);
                }
            }
        }
    }
}

/// What the checker found.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Found {
    pub(super) locks: Checked,
    pub(super) paths: Checked,
}

impl Found {
    /// Whether a run is a failed one already.
    pub(super) fn is_bad(&self) -> bool {
        [&self.locks, &self.paths].iter().any(|checked| checked.violations > 0 || checked.undecided > 0)
    }
}

/// A whole history.
pub(super) enum Whole {
    Lock(History),
    Path(History<path::What>),
}

/// Checks histories on a thread of its own.
pub(super) struct Checker {
    send: Option<mpsc::SyncSender<Whole>>,
    found: Arc<Mutex<Found>>,
    thread: Option<JoinHandle<()>>,
}

impl Checker {
    pub(super) fn start() -> anyhow::Result<Checker> {
        let (send, receive) = mpsc::sync_channel::<Whole>(WAITING);
        let found: Arc<Mutex<Found>> = Arc::default();
        let into = Arc::clone(&found);
        let work = move || {
            for whole in receive {
                let began = Instant::now();
                let (operations, verdict) = match &whole {
                    Whole::Lock(history) => (history.ops.len(), linear::check(history, BUDGET)),
                    Whole::Path(history) => (history.ops.len(), linear::check(history, BUDGET)),
                };
                let took = began.elapsed();
                let mut into = into.lock().unwrap_or_else(PoisonError::into_inner);
                let checked = match whole {
                    Whole::Lock(_) => &mut into.locks,
                    Whole::Path(_) => &mut into.paths,
                };
                checked.add(operations, verdict, took);
            }
        };
        let thread = std::thread::Builder::new().name("checker".to_owned()).spawn(work)?;
        Ok(Checker { send: Some(send), found, thread: Some(thread) })
    }

    /// Takes a history. Where too many wait, it has no verdict: a run that outruns its check has failed.
    pub(super) fn take(&self, whole: Whole) {
        let taken = self.send.as_ref().is_some_and(|send| send.try_send(whole).is_ok());
        if !taken {
            self.found.lock().unwrap_or_else(PoisonError::into_inner).locks.undecided += 1;
        }
    }

    /// So far.
    pub(super) fn found(&self) -> Found {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Everything, once all is checked.
    pub(super) fn end(mut self) -> Found {
        drop(self.send.take());
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            // Whatever it was about has no verdict.
            self.found.lock().unwrap_or_else(PoisonError::into_inner).locks.undecided += 1;
        }
        self.found()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(session: Session, from: u64, to: u64, what: What) -> Op {
        let ms = Duration::from_millis;
        Op { session, invoked: ms(from), returned: Some(ms(to)), what }
    }

    #[test]
    fn a_retired_names_history_is_whole_and_closed_once_nobody_uses_it() {
        let (mut book, mut dice) = (Book::new(1, 1, 1, 7), Dice::new(1));
        let ttl = Duration::from_secs(10);
        book.opened(0, 5, At::ZERO, ttl);
        let name = book.any_lock(&mut dice);
        book.record(name, op(5, 1, 2, What::Granted { token: 1, lease: None }));
        book.record(name, op(6, 3, 4, What::Read { held: None }));
        book.retire_all();
        assert!(book.locks.closing(9).is_empty(), "somebody uses it");
        book.locks.leave(name);
        assert_eq!(book.locks.closing(9), [name]);
        assert!(book.locks.closing(9).is_empty(), "once");
        let history = book.close(name);
        assert_eq!((history.ops.len(), history.sessions.len()), (2, 1));
        let checker = Checker::start().unwrap();
        checker.take(Whole::Lock(history));
        let found = checker.end().locks;
        assert_eq!((found.histories, found.violations, found.undecided), (1, 1, 0), "a look missed the holder");
        assert!(book.told.settle().iter().any(|missing| missing.contains("never told of 1")), "no watch told of it");
    }

    #[test]
    fn a_paths_history_is_checked_as_one() {
        let (mut book, mut dice) = (Book::new(1, 1, 1, 7), Dice::new(1));
        let name = book.any_path(&mut dice);
        assert_eq!(book.number(&book.called(name)), Some(name));
        let ms = Duration::from_millis;
        let made = |at, version| {
            let what = path::What::Made { change: path::Change::Put(9), expected: None, version };
            Op { session: 1, invoked: ms(at), returned: Some(ms(at)), what }
        };
        book.record_path(name, made(1, 1));
        book.record_path(name, made(2, 3));
        let checker = Checker::start().unwrap();
        checker.take(Whole::Path(book.close_path(name)));
        let found = checker.end();
        assert!(found.is_bad() && found.paths.violations == 1, "a version was left out");
    }

    #[test]
    fn a_sign_of_life_of_an_earlier_session_keeps_no_later_one_alive() {
        let (mut book, ttl) = (Book::new(1, 1, 1, 7), Duration::from_secs(10));
        book.opened(0, 5, At::ZERO, ttl);
        book.opened(0, 6, At::ZERO, Duration::ZERO);
        book.alive(0, 5, Duration::from_secs(3), ttl);
        book.session_lost(0, 6);
        assert_eq!(book.safety.violations(), 0, "{:?}", book.safety.examples());
    }
}
