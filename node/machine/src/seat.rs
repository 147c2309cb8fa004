//! What a shard knows of one session that is attached to it: who it is, what it holds and waits for,
//! and the answers that make its retries harmless.
//!
//! An answer is kept small: what was decided, and the token where there is one. A retry is told the
//! grant as it is *now*, and [`Outcome::Expired`](crate::Outcome::Expired) where it is gone: a client
//! is never told that it holds what it has lost.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::{
    command::{Holder, Mode},
    fields,
    ids::*,
    limits,
    links::Links,
    planted,
    queue::Place,
    rare::Rare,
    table::At,
};

/// Where a seat lies.
pub(crate) type SeatAt = At<SessionId>;

/// A final answer as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Stored {
    Granted(Token),
    AlreadyHeld(Token),
    Held,
    WaitTimeout,
    Cancelled,
    Mismatch(Mode),
    Released,
    Renewed(Token),
    Expired,
    Foreign,
    Deadlock,
}

impl Stored {
    /// The grant that it speaks of.
    pub(crate) fn token(&self) -> Option<Token> {
        match self {
            Stored::Granted(token) | Stored::AlreadyHeld(token) | Stored::Renewed(token) => Some(*token),
            _ => None,
        }
    }
}

/// What is known of a request id.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Recall {
    New,
    Answered(Stored),
    TooOld,
}

/// A keyed answer and when it is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Keyed {
    pub(crate) key: u128,
    pub(crate) until: Stamp,
    pub(crate) stored: Stored,
}

/// The kept answers of one session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Answers {
    /// Native request ids below are never run again.
    floor: u64,
    /// By rising number. They mostly come so: each is added at the end and leaves from the front.
    native: VecDeque<(u64, Stored)>,
    /// Oldest first. A few hundred at the most: a walk along them is cheaper than a second index.
    keyed: Rare<Keyed>,
}

impl Answers {
    /// What is known of `request`. Takes note of what the client no longer waits for.
    pub(crate) fn recall(&mut self, request: RequestId) -> Recall {
        match request {
            RequestId::Native { seq, low } => {
                self.forget_below(low.min(seq));
                match self.index(seq) {
                    Ok(index) if !planted!("dedup-off") => Recall::Answered(self.native[index].1),
                    Err(_) if seq < self.floor && !planted!("old-requests-run-again") => Recall::TooOld,
                    _ => Recall::New,
                }
            }
            RequestId::Keyed { key } => match self.keyed.iter().find(|answer| answer.key == key) {
                Some(answer) => Recall::Answered(answer.stored),
                None => Recall::New,
            },
        }
    }

    /// Where the native answer `seq` is, or would be.
    fn index(&self, seq: u64) -> Result<usize, usize> {
        if self.native.back().is_none_or(|last| last.0 < seq) {
            return Err(self.native.len());
        }
        self.native.binary_search_by_key(&seq, |answer| answer.0)
    }

    fn forget_below(&mut self, low: u64) {
        if low <= self.floor {
            return;
        }
        self.floor = low;
        while self.native.front().is_some_and(|first| first.0 < low) {
            self.native.pop_front();
        }
        // A burst must not pin its memory for good.
        if self.native.capacity() > 64 && self.native.len() < self.native.capacity() / 4 {
            self.native.shrink_to(2 * self.native.len());
        }
    }

    /// Keeps a native answer. Where too many are kept, the lowest goes and the floor rises above it.
    pub(crate) fn keep_native(&mut self, seq: u64, stored: Stored) {
        if seq < self.floor || planted!("no-native-dedup") {
            return;
        }
        let full = self.native.len() >= limits::ANSWERS_PER_SESSION;
        match self.index(seq) {
            Ok(index) => self.native[index].1 = stored,
            // It is the lowest itself.
            Err(0) if full => self.floor = seq + 1,
            Err(index) => {
                let mut index = index;
                if full && let Some((lowest, _)) = self.native.pop_front() {
                    self.floor = lowest + 1;
                    index -= 1;
                }
                if self.native.capacity() == 0 {
                    // Mostly a session waits for one answer at a time.
                    self.native.reserve_exact(1);
                }
                self.native.insert(index, (seq, stored));
            }
        }
    }

    /// Changes a keyed answer in place, if it is kept.
    pub(crate) fn change_keyed(&mut self, key: u128, stored: Stored) -> bool {
        match self.keyed.row_mut().into_iter().flatten().find(|answer| answer.key == key) {
            Some(answer) => {
                answer.stored = stored;
                true
            }
            None => false,
        }
    }

    /// Keeps a new keyed answer, and gives back the oldest where that makes too many.
    pub(crate) fn keep_keyed(&mut self, answer: Keyed) -> Option<Keyed> {
        let row = self.keyed.make();
        row.push_back(answer);
        if row.len() > limits::KEYS_PER_SESSION { row.pop_front() } else { None }
    }

    pub(crate) fn forget_keyed(&mut self, key: u128) -> Option<Keyed> {
        let index = self.keyed.iter().position(|answer| answer.key == key)?;
        self.keyed.row_mut()?.remove(index)
    }

    pub(crate) fn keyed(&self) -> impl Iterator<Item = &Keyed> {
        self.keyed.iter()
    }

    /// Whether the answers could have come about; asked of bytes from outside.
    fn is_sound(&self) -> bool {
        self.native.front().is_none_or(|first| first.0 >= self.floor)
            && self.native.iter().zip(self.native.iter().skip(1)).all(|(a, b)| a.0 < b.0)
            && self.native.len() <= limits::ANSWERS_PER_SESSION
            && self.keyed.len() <= limits::KEYS_PER_SESSION
            && self.keyed.iter().zip(self.keyed.iter().skip(1)).all(|(a, b)| a.until <= b.until)
    }

    fn tokens(&self) -> impl Iterator<Item = Token> {
        let keyed = self.keyed.iter().map(|answer| &answer.stored);
        self.native.iter().map(|(_, stored)| stored).chain(keyed).filter_map(Stored::token)
    }
}

/// A session's presence in this shard.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Seat {
    /// The attempt by which it came in.
    pub(crate) nonce: Nonce,
    pub(crate) holder: Holder,
    /// Its home has told that it ended, and the first page is dropped: it gets nothing new.
    pub(crate) dropping: bool,
    pub(crate) answers: Answers,
    /// The tokens that it released last, oldest first.
    released: VecDeque<Token>,
    /// Index: what it holds.
    #[serde(skip)]
    pub(crate) held: Links<Token>,
    /// Index: what it waits for.
    #[serde(skip)]
    pub(crate) waits: Links<Place>,
    /// Index: the instances that it registered, each a service and an id, in order.
    #[serde(skip)]
    pub(crate) instances: Rare<(Name, Name)>,
}

impl Seat {
    pub(crate) fn new(nonce: Nonce, holder: Holder) -> Seat {
        Seat {
            nonce,
            holder,
            dropping: false,
            answers: Answers::default(),
            released: VecDeque::new(),
            held: Links::default(),
            waits: Links::default(),
            instances: Rare::default(),
        }
    }

    fn has(&self) -> usize {
        self.held.len() + self.waits.len() + self.instances.len()
    }

    pub(crate) fn is_at_limit(&self) -> bool {
        self.has() >= limits::GRANTS_PER_SESSION
    }

    pub(crate) fn is_over_limit(&self) -> bool {
        self.has() > limits::GRANTS_PER_SESSION
    }

    /// Enters an instance, unless it is there.
    pub(crate) fn add_instance(&mut self, service: &Name, id: &Name) {
        let row = self.instances.make();
        let instance = (service.clone(), id.clone());
        if let Err(index) = row.binary_search(&instance) {
            row.insert(index, instance);
        }
    }

    pub(crate) fn remove_instance(&mut self, service: &Name, id: &Name) {
        let index = self.instances.row().and_then(|row| row.binary_search(&(service.clone(), id.clone())).ok());
        let index = index.expect("invariant 6: an instance is in its session's index");
        self.instances.row_mut().map(|row| row.remove(index));
        if self.instances.is_empty() {
            self.instances = Rare::default();
        }
    }

    pub(crate) fn remember_release(&mut self, token: Token) {
        if self.released.len() >= limits::RELEASED_PER_SESSION {
            self.released.pop_front();
        }
        self.released.push_back(token);
    }

    pub(crate) fn has_released(&self, token: Token) -> bool {
        self.released.contains(&token)
    }

    /// Whether the seat could have come about, given the last nonce and token; asked of bytes from outside.
    pub(crate) fn is_sound(&self, nonce: Nonce, token: Token) -> bool {
        self.nonce <= nonce
            && fields::holder(&self.holder)
            && self.released.len() <= limits::RELEASED_PER_SESSION
            && self.released.iter().all(|released| *released <= token)
            && self.answers.tokens().all(|answered| answered <= token)
            && self.answers.is_sound()
    }
}
