//! What all clients were told, name by name, until it has been checked.
//!
//! A lock name is used for some seconds, by many, and then retired: nobody asks about it anew, and when the last
//! who does has been answered, a last look is taken at it and its whole history goes to the checker. So the
//! memory of a run does not grow with its length, and each verdict is about a history from its very beginning.
//!
//! The online check of [`Safety`] hears of everything as well, at once.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{
    linear::{self, At, History, Op, Session, Verdict},
    safety::{Safety, certain},
    workload::Dice,
};

/// A name is used for at least and at most so long.
const LIFE: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(16));
/// Or until so many operations were about it.
const OPERATIONS: usize = 4_000;
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

/// One lock name of this run; names of a run are numbered.
pub(super) type Name = u64;

/// What is told and asked. Times are since the run began.
pub(super) struct Book {
    began: Instant,
    prefix: String,
    pub(super) safety: Safety,
    /// The names in use.
    current: Vec<Name>,
    names: BTreeMap<Name, Known>,
    next: Name,
    /// The earliest end of each session that there was.
    sessions: BTreeMap<Session, At>,
    /// Each client's present session.
    present: Vec<Session>,
    pub(super) counts: Counts,
}

#[derive(Default)]
struct Known {
    ops: Vec<Op>,
    /// Who is about to ask, waits for an answer or holds it.
    users: u32,
    retired: Option<At>,
    until: At,
}

/// What the clients did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    /// Operations that were answered.
    pub(super) answered: u64,
    pub(super) reads: u64,
    pub(super) grants: u64,
    pub(super) refused: u64,
    pub(super) renewed: u64,
    pub(super) released: u64,
    /// Releases and renewals that came too late.
    pub(super) lost: u64,
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
    pub(super) fn new(names: usize, clients: u32, tag: u64) -> Book {
        let mut book = Book {
            began: Instant::now(),
            prefix: format!("chaos/{tag:x}"),
            safety: Safety::new(PLACES, clients),
            current: vec![0; names],
            names: BTreeMap::new(),
            next: 0,
            sessions: BTreeMap::new(),
            present: vec![0; clients as usize],
            counts: Counts::default(),
        };
        let mut dice = Dice::new(tag);
        for slot in 0..names {
            book.renew_slot(slot, &mut dice);
        }
        book
    }

    pub(super) fn now(&self) -> At {
        self.began.elapsed()
    }

    /// What a name is called.
    pub(super) fn called(&self, name: Name) -> String {
        format!("{}/{name}", self.prefix)
    }

    /// Where the online check keeps it.
    pub(super) fn place(name: Name) -> u64 {
        name % PLACES
    }

    fn renew_slot(&mut self, slot: usize, dice: &mut Dice) {
        let now = self.now();
        let name = self.next;
        self.next += 1;
        let life = LIFE.0 + (LIFE.1 - LIFE.0).mul_f64(dice.unit());
        self.names.insert(name, Known { until: now + life, ..Known::default() });
        self.safety.forget_name(Book::place(name));
        self.current[slot] = name;
    }

    /// Some name in use, to ask about. [`Book::leave`] ends the use.
    pub(super) fn any(&mut self, dice: &mut Dice) -> Name {
        let slot = dice.below(self.current.len() as u64) as usize;
        let now = self.now();
        let known = self.names.get_mut(&self.current[slot]);
        if let Some(known) = known.filter(|known| known.until <= now || known.ops.len() >= OPERATIONS) {
            known.retired = Some(now);
            self.renew_slot(slot, dice);
        }
        let name = self.current[slot];
        if let Some(known) = self.names.get_mut(&name) {
            known.users += 1;
        }
        name
    }

    /// The names in use.
    pub(super) fn in_use(&self) -> Vec<Name> {
        self.current.clone()
    }

    /// Retires every name.
    pub(super) fn retire_all(&mut self) {
        let now = self.now();
        self.names.values_mut().for_each(|known| known.retired = known.retired.or(Some(now)));
    }

    pub(super) fn leave(&mut self, name: Name) {
        if let Some(known) = self.names.get_mut(&name) {
            known.users -= 1;
        }
    }

    pub(super) fn record(&mut self, name: Name, op: Op) {
        if let Some(known) = self.names.get_mut(&name) {
            known.ops.push(op);
        }
    }

    /// Retired names that nobody uses, at most so many: each is to be looked at once more and then closed.
    pub(super) fn closing(&mut self, most: usize) -> Vec<Name> {
        let idle = self.names.iter().filter(|(_, known)| known.retired.is_some() && known.users == 0);
        let names: Vec<Name> = idle.map(|(name, _)| *name).take(most).collect();
        for name in &names {
            if let Some(known) = self.names.get_mut(name) {
                known.users += 1;
            }
        }
        names
    }

    /// The whole history of a name, which is then forgotten.
    pub(super) fn close(&mut self, name: Name) -> History {
        let ops = self.names.remove(&name).unwrap_or_default().ops;
        let sessions = ops.iter().filter_map(|op| Some((op.session, *self.sessions.get(&op.session)?))).collect();
        History { name: self.called(name), ops, sessions }
    }

    /// How many names are not checked yet.
    pub(super) fn open_names(&self) -> usize {
        self.names.len()
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

/// What the checker found.
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
    /// Whether a run is a failed one already.
    pub(super) fn is_bad(&self) -> bool {
        self.violations > 0 || self.undecided > 0
    }
}

/// Checks histories on a thread of its own.
pub(super) struct Checker {
    send: Option<mpsc::SyncSender<History>>,
    found: Arc<Mutex<Checked>>,
    thread: Option<JoinHandle<()>>,
}

impl Checker {
    pub(super) fn start() -> anyhow::Result<Checker> {
        let (send, receive) = mpsc::sync_channel::<History>(WAITING);
        let found: Arc<Mutex<Checked>> = Arc::default();
        let into = Arc::clone(&found);
        let work = move || {
            for history in receive {
                let began = Instant::now();
                let verdict = linear::check(&history, BUDGET);
                let took = began.elapsed().as_secs_f64() * 1e3;
                let mut into = into.lock().unwrap_or_else(PoisonError::into_inner);
                into.histories += 1;
                into.operations += history.ops.len() as u64;
                into.slowest_ms = into.slowest_ms.max(took);
                match verdict {
                    Verdict::Linearizable => {}
                    Verdict::Undecided => into.undecided += 1,
                    Verdict::Violation(text) => {
                        into.violations += 1;
                        if into.examples.len() < EXAMPLES {
                            into.examples.push(text);
                        }
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("checker".to_owned()).spawn(work)?;
        Ok(Checker { send: Some(send), found, thread: Some(thread) })
    }

    /// Takes a history. Where too many wait, it has no verdict: a run that outruns its check has failed.
    pub(super) fn take(&self, history: History) {
        let taken = self.send.as_ref().is_some_and(|send| send.try_send(history).is_ok());
        if !taken {
            self.found.lock().unwrap_or_else(PoisonError::into_inner).undecided += 1;
        }
    }

    /// So far.
    pub(super) fn found(&self) -> Checked {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Everything, once all is checked.
    pub(super) fn end(mut self) -> Checked {
        drop(self.send.take());
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            // Whatever it was about has no verdict.
            self.found.lock().unwrap_or_else(PoisonError::into_inner).undecided += 1;
        }
        self.found()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::What;

    fn op(session: Session, from: u64, to: u64, what: What) -> Op {
        let ms = Duration::from_millis;
        Op { session, invoked: ms(from), returned: Some(ms(to)), what }
    }

    #[test]
    fn a_retired_names_history_is_whole_and_closed_once_nobody_uses_it() {
        let (mut book, mut dice) = (Book::new(1, 1, 7), Dice::new(1));
        let ttl = Duration::from_secs(10);
        book.opened(0, 5, At::ZERO, ttl);
        let name = book.any(&mut dice);
        book.record(name, op(5, 1, 2, What::Granted { token: 1, lease: None }));
        book.record(name, op(6, 3, 4, What::Read { held: None }));
        book.retire_all();
        assert!(book.closing(9).is_empty(), "somebody uses it");
        book.leave(name);
        assert_eq!(book.closing(9), [name]);
        assert!(book.closing(9).is_empty(), "once");
        let history = book.close(name);
        assert_eq!((history.ops.len(), history.sessions.len()), (2, 1));
        let checker = Checker::start().unwrap();
        checker.take(history);
        let found = checker.end();
        assert_eq!((found.histories, found.violations, found.undecided), (1, 1, 0), "a look missed the holder");
    }

    #[test]
    fn a_sign_of_life_of_an_earlier_session_keeps_no_later_one_alive() {
        let (mut book, ttl) = (Book::new(1, 1, 7), Duration::from_secs(10));
        book.opened(0, 5, At::ZERO, ttl);
        book.opened(0, 6, At::ZERO, Duration::ZERO);
        book.alive(0, 5, Duration::from_secs(3), ttl);
        book.session_lost(0, 6);
        assert_eq!(book.safety.violations(), 0, "{:?}", book.safety.examples());
    }
}
