//! Who waits for whom, for those who look for deadlocks.
//!
//! A shard sees only its own locks; whoever puts the waits of all shards together sees the circles ([`Wait`] says what is
//! needed for that). Every wait and every grant has a number of its own in its shard, never used again: a wait that two
//! looks show with the same blocker stood all the time between them.
//!
//! A waiter waits for the one in front of it, since queues are FIFO, and the first in line for the holders beside whom it
//! does not fit. Of a semaphore it is enough that one of them goes.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    command::*,
    effects::Cx,
    ids::*,
    limits,
    lock::{Held, Lock},
    machine::Machine,
    planted,
    query::Answer,
    queue::{Place, Waiter},
    seat::Stored,
};

/// The entry of a session's metadata that says that it does one thing at a time: while it waits for a lock, it gives
/// nothing back. Only of such sessions it is certain that a circle of waits never ends by itself. It lies in the
/// metadata because every shard that a session uses has these.
pub const SERIAL: &str = "wardlock/serial";

/// Whether a session says that it does one thing at a time.
pub fn is_serial(metadata: &Metadata) -> bool {
    metadata.get(SERIAL).is_some_and(|says| says == "true")
}

/// One waiter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// What it waits for.
    pub key: Key,
    /// Whose.
    pub session: SessionId,
    /// Its client id.
    pub holder: String,
    /// Its session does one thing at a time.
    pub serial: bool,
    /// The waiter's number in its shard.
    pub arrival: u64,
    /// Its priority.
    pub priority: i32,
    /// Since when, by wall time.
    pub since: WallMs,
    /// Whoever must go first.
    pub blockers: Blockers,
}

/// Whom a waiter waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Blockers {
    /// The waiter of this number, which stands in front of it.
    Waiter(u64),
    /// All of these grants, of which the first [`limits::BLOCKERS`] are here.
    All(Vec<(SessionId, Token)>),
    /// Any of these grants. Empty where there are more than [`limits::BLOCKERS`]: one of so many will go.
    Any(Vec<(SessionId, Token)>),
    /// Nobody: a lock-delay runs, or the tokens are used up.
    Nobody,
}

/// Ends a wait that is part of a deadlock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakDeadlock {
    /// For what.
    pub key: Key,
    /// Whose.
    pub session: SessionId,
    /// The waiter's number; another waiter of the same session is let be.
    pub arrival: u64,
    /// The circle, the victim first.
    pub circle: Circle,
}

/// Sessions that wait for each other, each for the next, the last for the first; of very many the first
/// [`limits::CIRCLE`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Circle {
    /// Who waits for what.
    pub steps: Vec<CircleStep>,
    /// How many steps there are in all.
    pub length: u32,
}

/// One wait of a circle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CircleStep {
    /// Who waits.
    pub session: SessionId,
    /// Its client id.
    pub holder: String,
    /// For what.
    pub key: Key,
}

impl fmt::Display for Circle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.steps.first() else { return f.write_str("its circle is no longer known") };
        let whole = self.length as usize <= self.steps.len();
        for (at, step) in self.steps.iter().enumerate() {
            let next = match self.steps.get(at + 1) {
                Some(next) => &next.holder,
                None if whole => &first.holder,
                None => break,
            };
            let (comma, verb) = if at == 0 { ("", " waits") } else { (", ", "") };
            write!(f, "{comma}{}{verb} for {next} ({})", step.holder, step.key.name)?;
        }
        if whole { Ok(()) } else { write!(f, " and so on: {} in all", self.length) }
    }
}

impl Machine {
    /// A page of the waiters for those locks for which a serial session waits, lock by lock in the order of names, each
    /// lock's next in line first. A circle of waits that is a deadlock goes through no other lock: it comes to a lock by a
    /// serial session that waits there.
    pub(crate) fn waits(&self, after: Option<&Key>) -> Answer {
        if self.ledger.counts.serial_waiters == 0 {
            return Answer::Waits { waits: Vec::new(), more: false };
        }
        let waiting: BTreeSet<&Key> =
            self.ledger.deadlines.waits().filter(|key| after.is_none_or(|after| *key > after)).collect();
        let (mut waits, mut room) = (Vec::new(), limits::ANSWER_BYTES);
        for key in waiting {
            let Some(lock) = self.locks.get(key) else { continue };
            if !lock.queue.iter().any(|waiter| self.ledger.is_serial(&waiter.ask)) {
                continue;
            }
            let begun = waits.len();
            for (waiter, before) in lock.queue.iter().zip(std::iter::once(None).chain(lock.queue.iter().map(Some))) {
                let wait = self.wait(key, lock, waiter, before);
                match room.checked_sub(wait.size()) {
                    Some(left) => room = left,
                    // A lock is shown whole or not at all, unless its queue alone is too long.
                    None if begun > 0 => {
                        waits.truncate(begun);
                        return Answer::Waits { waits, more: true };
                    }
                    None => return Answer::Waits { waits, more: true },
                }
                waits.push(wait);
            }
        }
        Answer::Waits { waits, more: false }
    }

    fn wait(&self, key: &Key, lock: &Lock, waiter: &Waiter, before: Option<&Waiter>) -> Wait {
        let holder = self.ledger.holder(&waiter.ask);
        Wait {
            key: key.clone(),
            session: waiter.ask.session,
            holder: holder.client_id.clone(),
            serial: is_serial(&holder.metadata),
            arrival: waiter.place.arrival,
            priority: waiter.place.priority,
            since: waiter.since_wall,
            blockers: match before {
                Some(before) => Blockers::Waiter(before.place.arrival),
                None if lock.closed.is_some() => Blockers::Nobody,
                None => blockers(lock, waiter.ask.mode),
            },
        }
    }

    /// Takes a waiter out of its queue and tells it why. Whoever found the circle may be late: a waiter that is no
    /// longer there is as good as told.
    pub(crate) fn break_deadlock(&mut self, ask: BreakDeadlock, cx: &mut Cx<'_>) -> Outcome {
        let BreakDeadlock { key, session, arrival, circle } = ask;
        let Some(seat) = self.ledger.seats.find(&session) else { return Outcome::Done };
        let Some(at) = self.locks.find(&key) else { return Outcome::Done };
        let place: Option<Place> = self.ledger.seats[seat]
            .waits
            .get(at)
            .filter(|place| place.arrival == arrival || planted!("any-waiter-is-the-victim"));
        let Some(place) = place else { return Outcome::Done };
        let request = self.with_lock(at, |ledger, spot| {
            let waiter = ledger.leave(spot, place);
            let request = waiter.ask.request;
            cx.settle(session, request, spot.key, || Outcome::Deadlock(circle));
            ledger.advance(spot, cx);
            request
        });
        self.ledger.record(seat, request, Stored::Deadlock);
        Outcome::Done
    }
}

/// The holders beside whom there is no room for one more in a mode.
fn blockers(lock: &Lock, mode: Mode) -> Blockers {
    let named = |held: &Held| (held.ask.session, held.token);
    if let Mode::Semaphore { .. } = mode {
        let all = lock.holder_count() <= limits::BLOCKERS;
        return Blockers::Any(lock.holders().filter(|_| all).map(named).collect());
    }
    if lock.fits(mode) {
        return Blockers::Nobody;
    }
    // At the bound of holders it is enough that one goes.
    if mode == Mode::Shared && lock.is_full() {
        return Blockers::Any(Vec::new());
    }
    Blockers::All(lock.holders().take(limits::BLOCKERS).map(named).collect())
}

impl Wait {
    fn size(&self) -> usize {
        let blockers = match &self.blockers {
            Blockers::All(grants) | Blockers::Any(grants) => grants.len(),
            Blockers::Waiter(_) | Blockers::Nobody => 1,
        };
        64 + self.key.name.as_str().len() + self.holder.len() + 28 * blockers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circle(holders: &[&str], length: u32) -> String {
        let step = |holder: &&str| CircleStep {
            session: SessionId(1),
            holder: (*holder).to_owned(),
            key: Key::lock(Name::new(&format!("{holder}-wants")).unwrap()),
        };
        Circle { steps: holders.iter().map(step).collect(), length }.to_string()
    }

    #[test]
    fn a_circle_reads_as_a_sentence() {
        assert_eq!(circle(&["ann", "bob"], 2), "ann waits for bob (ann-wants), bob for ann (bob-wants)");
        assert_eq!(
            circle(&["ann", "bob", "cyd"], 70),
            "ann waits for bob (ann-wants), bob for cyd (bob-wants) and so on: 70 in all"
        );
        assert_eq!(circle(&[], 0), "its circle is no longer known");
    }
}
