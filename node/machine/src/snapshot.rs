//! The machine as bytes, and back.
//!
//! A snapshot is a version and the state without its indexes, in postcard's form: equal states give
//! equal bytes. Restoring builds the indexes anew and checks that the state could have come about; bytes
//! come from disks and peers, so nothing here panics on them.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use serde::{Deserialize, Serialize};

use crate::{
    command::Mode,
    config::{Configs, ConfigsBefore},
    events::Events,
    fields,
    ids::*,
    ledger::{Counters, Ledger},
    limits,
    lock::{Ask, Lock, Short},
    locks::{LockAt, Locks},
    machine::Machine,
    planted,
    seat::{Answers, Seat},
    services::Services,
    session::Home,
};

/// The version of the form. The first had no configuration, the second no events and kept
/// no refusals, the third no services; all are read still.
const VERSION: u16 = 4;

/// Why bytes are not a machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Another version of the form.
    #[error("a snapshot of version {0}, where 1 to {VERSION} are known")]
    Version(u16),
    /// Not the form at all.
    #[error("the snapshot cannot be decoded: {0}")]
    Decode(#[from] postcard::Error),
    /// There is more after the end.
    #[error("the snapshot has {0} bytes after its end")]
    Trailing(usize),
    /// The form of a state that cannot come about.
    #[error("the snapshot breaks a rule: {0}")]
    Broken(&'static str),
}

/// Locks and seats are written in the order of their keys: that of their tables differs between replicas.
#[derive(Serialize)]
struct Image<'a> {
    counters: &'a Counters,
    locks: Vec<(&'a Key, &'a Lock)>,
    pending: &'a BTreeMap<SessionId, Nonce>,
    seats: Vec<(&'a SessionId, Cow<'a, Seat>)>,
    home: &'a Home,
    configs: &'a Configs,
    events: &'a Events,
    services: &'a Services,
}

/// Field for field an [`Image`], but for what came to it later and lies behind.
#[derive(Deserialize)]
struct Restored {
    counters: Counters,
    locks: Vec<(Key, Lock)>,
    pending: BTreeMap<SessionId, Nonce>,
    seats: Vec<(SessionId, Box<Seat>)>,
    home: Home,
}

impl Machine {
    /// The state as bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        let ledger = &self.ledger;
        let image = Image {
            counters: &ledger.counters,
            locks: self.locks.sorted(),
            pending: &ledger.pending,
            seats: ledger.seats.sorted().into_iter().map(|(id, seat)| (id, written(seat))).collect(),
            home: &self.home,
            configs: &self.configs,
            events: &ledger.events,
            services: &self.services,
        };
        postcard::to_stdvec(&(VERSION, image)).expect("plain data in memory always encodes")
    }

    /// The state that [`Machine::snapshot`] wrote.
    pub fn restore(bytes: &[u8]) -> Result<Machine, RestoreError> {
        let (version, rest) = postcard::take_from_bytes::<u16>(bytes)?;
        if !(1..=VERSION).contains(&version) {
            return Err(RestoreError::Version(version));
        }
        let (restored, rest) = postcard::take_from_bytes::<Restored>(rest)?;
        let (mut configs, rest) = match version {
            1 => (Configs::default(), rest),
            2 => {
                let (before, rest) = postcard::take_from_bytes::<ConfigsBefore>(rest)?;
                (before.into(), rest)
            }
            _ => postcard::take_from_bytes::<Configs>(rest)?,
        };
        let (mut events, rest) = match version {
            1 | 2 => (Events::unknown(restored.counters.revision), rest),
            _ if planted!("events-forgotten-by-a-restore") => {
                (Events::default(), postcard::take_from_bytes::<Events>(rest)?.1)
            }
            _ => postcard::take_from_bytes::<Events>(rest)?,
        };
        let (mut services, rest) = match version {
            1..=3 => (Services::default(), rest),
            _ => postcard::take_from_bytes::<Services>(rest)?,
        };
        if !rest.is_empty() {
            return Err(RestoreError::Trailing(rest.len()));
        }
        let Restored { counters, locks, pending, seats, mut home } = restored;
        let total = counters.grants_total;
        ensure(events.restore(counters.revision), "the events")?;
        let mut ledger = Ledger { counters, pending, events, ..Ledger::default() };
        check_counters(&ledger.counters)?;
        check_seats(seats, &mut ledger)?;
        let locks = check_locks(locks, &mut ledger)?;
        ensure(home.restore(), "the sessions at home")?;
        ensure(configs.restore(ledger.counters.revision, ledger.counters.now), "the configurations")?;
        services.restore(&mut ledger).map_err(RestoreError::Broken)?;
        ensure(total >= ledger.grants.len() as u64, "fewer grants were given than are held")?;
        Ok(Machine { locks, ledger, home, configs, services })
    }

    /// A digest of the state: equal states, equal digests.
    pub fn hash(&self) -> u64 {
        // FNV-1a: fixed for ever, unlike the standard library's hashers, and no secret is needed.
        self.snapshot()
            .iter()
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
    }
}

/// A seat as it is written: as it is.
fn written(seat: &Seat) -> Cow<'_, Seat> {
    if planted!("dedup-not-in-snapshot") {
        let mut lacking = seat.clone();
        lacking.answers = Answers::default();
        return Cow::Owned(lacking);
    }
    Cow::Borrowed(seat)
}

fn ensure(holds: bool, what: &'static str) -> Result<(), RestoreError> {
    if holds { Ok(()) } else { Err(RestoreError::Broken(what)) }
}

fn check_counters(counters: &Counters) -> Result<(), RestoreError> {
    ensure(counters.token.0 < limits::TOKEN_END, "invariant 2: the last token is not below 2⁵³")?;
    // Counters of this size are never reached by counting; beyond it the next step might overflow.
    let counted = [counters.revision.0, counters.nonce.0, counters.arrival, counters.grants_total];
    ensure(counted.into_iter().all(|count| count < 1 << 62), "a counter is too high")?;
    ensure(counters.range.is_none_or(|range| range.0 <= range.1), "the range ends before it starts")?;
    ensure(counters.vanished <= counters.revision, "an object vanished at a revision to come")
}

fn rising<K: Ord, V>(pairs: &[(K, V)]) -> bool {
    pairs.windows(2).all(|pair| pair[0].0 < pair[1].0)
}

fn check_seats(seats: Vec<(SessionId, Box<Seat>)>, ledger: &mut Ledger) -> Result<(), RestoreError> {
    let Counters { nonce, token, now, .. } = ledger.counters;
    ensure(rising(&seats), "the seats are out of order")?;
    ensure(seats.len() + ledger.pending.len() <= limits::ATTACHMENTS, "too many sessions are attached")?;
    for (session, seat) in seats {
        ensure(seat.is_sound(nonce, token), "a seat is not as one can be")?;
        let mut keys = BTreeSet::new();
        for answer in seat.answers.keyed() {
            ensure(keys.insert(answer.key), "a keyed answer is kept twice")?;
            ensure(answer.until <= now.after(limits::KEY_LIFE), "a keyed answer lives too long")?;
            ledger.deadlines.add_answer(answer.until, session, answer.key);
        }
        ledger.seats.insert(session, seat);
    }
    for (session, pending) in &ledger.pending {
        ensure(*pending <= nonce, "a pending nonce was never drawn")?;
        ensure(ledger.seats.find(session).is_none(), "a session is pending and attached")?;
    }
    ensure(ledger.deadlines.answer_count() <= limits::KEYS_PER_SHARD, "too many keyed answers are kept")
}

/// Checks each lock before it enters the indexes, which assert.
fn check_locks(stored: Vec<(Key, Lock)>, ledger: &mut Ledger) -> Result<Locks, RestoreError> {
    let Counters { token, now, revision, arrival, .. } = ledger.counters;
    ensure(rising(&stored), "the locks are out of order")?;
    let mut arrivals = BTreeSet::new();
    let mut locks = Locks::default();
    for (key, mut lock) in stored {
        if planted!("queue-order-lost-on-restore") {
            lock.queue.turn_round();
        }
        ensure(!lock.is_idle(), "invariant 8: an idle lock is stored")?;
        ensure(lock.is_sound(), "invariants 1, 2, 4: holders or waiters that cannot be together")?;
        ensure(lock.revision <= revision, "a lock changed at a revision to come")?;
        if let Some(closed) = &lock.closed {
            ensure(closed.until <= now.after(limits::LEASE_MAX), "a lock-delay is too long")?;
            ledger.deadlines.add_delay(closed.until, &key);
        }
        let at = locks.enter(key, lock);
        let (key, lock) = locks.entry_mut(at);
        for held in lock.holders.iter_mut() {
            check_ask(at, key, &mut held.ask, ledger)?;
            let granted = held.token > Token(0) && held.token <= token || crate::planted!("restored-token-unchecked");
            ensure(granted, "invariant 2: a token was never granted")?;
            ensure(ledger.grants.find(&held.token).is_none(), "invariant 2: a token was granted twice")?;
            ensure(held.tag == KeyTag::of(key), "invariant 2: a grant is of another key")?;
            ensure(held.from <= now && held.revision <= revision, "a grant is of the future")?;
            ledger.index_grant(at, key, held);
        }
        for waiter in lock.queue.iter_mut() {
            check_ask(at, key, &mut waiter.ask, ledger)?;
            let known = waiter.place.arrival <= arrival && arrivals.insert(waiter.place.arrival);
            ensure(known, "invariant 4: a waiter's place is not its own")?;
            ensure(waiter.since <= now && waiter.until <= now.after(limits::LEASE_MAX), "a wait is too long")?;
            ledger.index_wait(at, key, waiter);
        }
    }
    for (_, seat) in ledger.seats.sorted() {
        ensure(!seat.is_over_limit(), "a session has too much")?;
    }
    if planted!("tokens-from-what-is-held") {
        ledger.counters.token = ledger.grants.sorted().last().map_or(Token(0), |grant| *grant.0);
    }
    Ok(locks)
}

/// Checks a request that holds or waits, and finds its seat.
fn check_ask(at: LockAt, key: &Key, ask: &mut Ask, ledger: &Ledger) -> Result<(), RestoreError> {
    let seat = ledger.seats.find(&ask.session);
    ask.seat = seat.ok_or(RestoreError::Broken("invariant 5: who holds or waits is not attached"))?;
    let seat = &ledger.seats[ask.seat];
    let once = seat.held.get(at).is_none() && seat.waits.get(at).is_none();
    ensure(once, "a session holds or waits for one lock twice")?;
    let value = ask.value().map_or(key.kind == Kind::Lock, |value| fields::label(value));
    let metadata = ask.extra.as_ref().is_none_or(|extra| fields::metadata(&extra.metadata));
    let mode: Mode = ask.mode;
    let lengths = fields::lease(ask.lease.map(Short::millis)) && ask.lock_delay.millis() <= limits::LEASE_MAX;
    ensure(value && metadata && lengths && fields::mode(key.kind, mode), "a grant's fields are out of bounds")
}
