//! The ids of numbered sessions, and the numbers of their requests.
//!
//! # Promises
//! 1. A session's request numbers are consecutive and never repeat.
//! 2. `low` never exceeds a number whose answer is still awaited: a shard forgets answers below it and refuses
//!    requests below it.

use std::sync::{Mutex, PoisonError};

use wardlock_machine::{RequestId, SessionId};

use super::Failure;

/// All sessions of a target, by number. A lock is held for a few instructions and never over a wait.
pub(crate) struct Seats(Box<[Mutex<Seat>]>);

#[derive(Default)]
struct Seat {
    id: Option<SessionId>,
    last: u64,
    /// The lowest unanswered.
    open: Option<u64>,
    /// The other unanswered ones, in rising order.
    later: Vec<u64>,
}

impl Seat {
    /// The next request, and the lowest unanswered one.
    fn begin(&mut self) -> (u64, u64) {
        self.last += 1;
        match self.open {
            None => self.open = Some(self.last),
            Some(_) => self.later.push(self.last),
        }
        (self.last, self.open.unwrap_or(self.last))
    }

    fn end(&mut self, seq: u64) {
        if self.open == Some(seq) {
            self.open = if self.later.is_empty() { None } else { Some(self.later.remove(0)) };
        } else if let Ok(at) = self.later.binary_search(&seq) {
            self.later.remove(at);
        }
    }
}

impl Seats {
    /// Room for `count`, none of them open.
    pub(crate) fn new(count: u32) -> Seats {
        Seats((0..count).map(|_| Mutex::default()).collect())
    }

    /// Gives session number `session` an id.
    pub(crate) fn set(&self, session: u32, id: SessionId) -> Result<(), Failure> {
        self.with(session, |seat| *seat = Seat { id: Some(id), ..Seat::default() })
    }

    /// Its id.
    pub(crate) fn id(&self, session: u32) -> Result<SessionId, Failure> {
        self.with(session, |seat| seat.id)?.ok_or_else(|| Failure::new("session not open"))
    }

    /// Its next request. It counts as unanswered until it is dropped.
    pub(crate) fn begin(&self, session: u32) -> Result<Request<'_>, Failure> {
        self.with(session, |seat| {
            let id = seat.id?;
            let (seq, low) = seat.begin();
            Some(Request { seats: self, number: session, session: id, seq, low })
        })?
        .ok_or_else(|| Failure::new("session not open"))
    }

    fn with<T>(&self, session: u32, act: impl FnOnce(&mut Seat) -> T) -> Result<T, Failure> {
        let seat = self.0.get(session as usize).ok_or_else(|| Failure::new("session out of range"))?;
        Ok(act(&mut seat.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// A request whose answer is awaited.
pub(crate) struct Request<'a> {
    seats: &'a Seats,
    number: u32,
    /// Whose it is.
    pub(crate) session: SessionId,
    seq: u64,
    low: u64,
}

impl Request<'_> {
    /// Its id; the same for every repeat.
    pub(crate) fn id(&self) -> RequestId {
        RequestId::Native { seq: self.seq, low: self.low }
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        // A session that was opened anew meanwhile counts its requests from the beginning.
        let _ = self.seats.with(self.number, |seat| {
            if seat.id == Some(self.session) {
                seat.end(self.seq);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn native(request: &Request<'_>) -> (u64, u64) {
        match request.id() {
            RequestId::Native { seq, low } => (seq, low),
            RequestId::Keyed { .. } => panic!("requests are numbered"),
        }
    }

    #[test]
    fn numbers_are_consecutive_and_low_is_the_lowest_unanswered() {
        let seats = Seats::new(1);
        assert!(seats.begin(0).is_err(), "not open yet");
        seats.set(0, SessionId(7)).expect("in range");
        let first = seats.begin(0).expect("open");
        let second = seats.begin(0).expect("open");
        assert_eq!((native(&first), native(&second)), ((1, 1), (2, 1)));
        drop(first);
        assert_eq!(native(&seats.begin(0).expect("open")), (3, 2));
        drop(second);
        assert_eq!(native(&seats.begin(0).expect("open")), (4, 4));
        assert!(seats.begin(1).is_err(), "out of range");
    }

    #[test]
    fn an_old_request_does_not_answer_one_of_the_session_opened_anew() {
        let seats = Seats::new(1);
        seats.set(0, SessionId(7)).expect("in range");
        let old = seats.begin(0).expect("open");
        seats.set(0, SessionId(8)).expect("in range");
        let new = seats.begin(0).expect("open");
        drop(old);
        assert_eq!(native(&seats.begin(0).expect("open")), (2, 1));
        drop(new);
    }
}
