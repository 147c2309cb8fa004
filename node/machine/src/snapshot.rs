//! The machine as bytes, and back.
//!
//! A snapshot is a version and the state without its indexes, in postcard's form: equal states give
//! equal bytes. Restoring builds the indexes anew and checks that the state could have come about; bytes
//! come from disks and peers, so nothing here panics on them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    command::Mode,
    fields,
    ids::*,
    ledger::{Counters, Ledger},
    limits,
    lock::{Ask, Lock},
    machine::Machine,
    seat::Seat,
    session::Home,
};

/// The version of the form.
const VERSION: u16 = 1;

/// Why bytes are not a machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// Another version of the form.
    #[error("a snapshot of version {0}, where {VERSION} is known")]
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

#[derive(Serialize)]
struct Image<'a> {
    counters: &'a Counters,
    locks: &'a BTreeMap<Key, Lock>,
    pending: &'a BTreeMap<SessionId, Nonce>,
    seats: &'a BTreeMap<SessionId, Box<Seat>>,
    home: &'a Home,
}

/// Field for field an [`Image`].
#[derive(Deserialize)]
struct Restored {
    counters: Counters,
    locks: BTreeMap<Key, Lock>,
    pending: BTreeMap<SessionId, Nonce>,
    seats: BTreeMap<SessionId, Box<Seat>>,
    home: Home,
}

impl Machine {
    /// The state as bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        let ledger = &self.ledger;
        let image = Image {
            counters: &ledger.counters,
            locks: &self.locks,
            pending: &ledger.pending,
            seats: &ledger.seats,
            home: &self.home,
        };
        postcard::to_stdvec(&(VERSION, image)).expect("plain data in memory always encodes")
    }

    /// The state that [`Machine::snapshot`] wrote.
    pub fn restore(bytes: &[u8]) -> Result<Machine, RestoreError> {
        let (version, rest) = postcard::take_from_bytes::<u16>(bytes)?;
        if version != VERSION {
            return Err(RestoreError::Version(version));
        }
        let (restored, rest) = postcard::take_from_bytes::<Restored>(rest)?;
        if !rest.is_empty() {
            return Err(RestoreError::Trailing(rest.len()));
        }
        let Restored { counters, locks, pending, seats, mut home } = restored;
        let total = counters.grants_total;
        let mut ledger = Ledger { counters, pending, seats, ..Ledger::default() };
        check_counters(&ledger.counters)?;
        check_seats(&mut ledger)?;
        check_locks(&locks, &mut ledger)?;
        ensure(home.restore(), "the sessions at home")?;
        ensure(total >= ledger.grants.len() as u64, "fewer grants were given than are held")?;
        Ok(Machine { locks, ledger, home })
    }

    /// A digest of the state: equal states, equal digests.
    pub fn hash(&self) -> u64 {
        // FNV-1a: fixed for ever, unlike the standard library's hashers, and no secret is needed.
        self.snapshot()
            .iter()
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
    }
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

fn check_seats(ledger: &mut Ledger) -> Result<(), RestoreError> {
    let Counters { nonce, token, now, .. } = ledger.counters;
    ensure(ledger.seats.len() + ledger.pending.len() <= limits::ATTACHMENTS, "too many sessions are attached")?;
    for (session, pending) in &ledger.pending {
        ensure(*pending <= nonce, "a pending nonce was never drawn")?;
        ensure(!ledger.seats.contains_key(session), "a session is pending and attached")?;
    }
    for (session, seat) in &ledger.seats {
        ensure(seat.is_sound(nonce, token), "a seat is not as one can be")?;
        let mut keys = BTreeSet::new();
        for answer in seat.answers.keyed() {
            ensure(keys.insert(answer.key), "a keyed answer is kept twice")?;
            ensure(answer.until <= now.after(limits::KEY_LIFE), "a keyed answer lives too long")?;
            ledger.deadlines.add_answer(answer.until, *session, answer.key);
        }
    }
    ensure(ledger.deadlines.answer_count() <= limits::KEYS_PER_SHARD, "too many keyed answers are kept")
}

/// Checks each lock before it enters the indexes, which assert.
fn check_locks(locks: &BTreeMap<Key, Lock>, ledger: &mut Ledger) -> Result<(), RestoreError> {
    let Counters { token, now, revision, arrival, .. } = ledger.counters;
    let mut arrivals = BTreeSet::new();
    for (key, lock) in locks {
        ensure(!lock.is_idle(), "invariant 8: an idle lock is stored")?;
        ensure(lock.is_sound(), "invariants 1, 2, 4: holders or waiters that cannot be together")?;
        ensure(lock.revision <= revision, "a lock changed at a revision to come")?;
        if let Some(closed) = lock.closed {
            ensure(closed.until <= now.after(limits::LEASE_MAX), "a lock-delay is too long")?;
            ledger.deadlines.add_delay(closed.until, key);
        }
        for held in lock.holders() {
            check_ask(key, &held.ask, ledger)?;
            ensure(held.token > Token(0) && held.token <= token, "invariant 2: a token was never granted")?;
            ensure(!ledger.grants.contains_key(&held.token), "invariant 2: a token was granted twice")?;
            ensure(held.from <= now && held.revision <= revision, "a grant is of the future")?;
            ledger.index_grant(key, held);
        }
        for waiter in lock.queue.iter() {
            check_ask(key, &waiter.ask, ledger)?;
            let known = waiter.place.arrival <= arrival && arrivals.insert(waiter.place.arrival);
            ensure(known, "invariant 4: a waiter's place is not its own")?;
            ensure(waiter.since <= now && waiter.until <= now.after(limits::LEASE_MAX), "a wait is too long")?;
            ledger.index_wait(key, waiter);
        }
    }
    for seat in ledger.seats.values() {
        ensure(seat.held.len() + seat.waits.len() <= limits::GRANTS_PER_SESSION, "a session has too much")?;
    }
    Ok(())
}

fn check_ask(key: &Key, ask: &Ask, ledger: &Ledger) -> Result<(), RestoreError> {
    let seat = ledger.seats.get(&ask.session);
    let seat = seat.ok_or(RestoreError::Broken("invariant 5: who holds or waits is not attached"))?;
    let once = !seat.held.contains_key(key) && !seat.waits.contains_key(key);
    ensure(once, "a session holds or waits for one lock twice")?;
    let value = ask.value().map_or(key.kind == Kind::Lock, |value| fields::label(value));
    let metadata = ask.extra.as_ref().is_none_or(|extra| fields::metadata(&extra.metadata));
    let mode: Mode = ask.mode;
    let lengths = fields::lease(ask.lease) && ask.lock_delay <= limits::LEASE_MAX;
    ensure(value && metadata && lengths && fields::mode(key.kind, mode), "a grant's fields are out of bounds")
}
