//! Is what the clients of one lock, or of one path of the configuration, were told possible? A checker of
//! linearizability.
//!
//! A history is what clients asked about **one** object and what they were answered, with the times at which they
//! sent and heard. It is linearizable if each operation can be thought to have happened at one instant between
//! the two, so that all of them in that order are what a single correct object would have answered. Locks and paths
//! are objects of their own: a system is linearizable if each one's history is.
//!
//! The search is that of Wing and Gong, with Lowe's memory of configurations seen ([`search`]): it takes any
//! operation that nothing unanswered precedes, and goes back where it gets stuck. What it compares with is an
//! [`Object`]: the lock of [`lock`], the register with versions of [`path`].
//!
//! # What makes it fit a lock service
//! 1. An operation whose outcome is unknown may happen at any time after it was sent, or never.
//! 2. A holding may end by itself, once its session or its lease may have ended: not before a full TTL has
//!    passed since the *sending* of the last sign of life that was acknowledged. A session or a lease that has
//!    ended acknowledges nothing any more, so that each has one earliest end in a whole history.
//! 3. A verdict costs a bounded number of configurations. Where they do not suffice it is
//!    [`Verdict::Undecided`], which is no verdict for anybody: the run has failed.
//!
//! What it does not check: who is served first of those who wait, and that a lease ends at all.

mod lock;
pub(crate) mod path;
mod search;
mod shown;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;
mod window;

use std::{collections::BTreeMap, hash::Hash, time::Duration};

/// A moment, since the run began.
pub(crate) type At = Duration;
/// A session, by its id.
pub(crate) type Session = u128;
/// A fencing token.
pub(crate) type Token = u64;

/// An object, by what it is asked and answers: what a correct one does, one operation at a time.
pub(crate) trait Object: Clone + PartialEq {
    /// What people call it.
    const KIND: &'static str;
    /// The object's state.
    type State: Clone + Eq + Hash;
    /// What is reckoned once for a history.
    type Known;

    /// Reckons it.
    fn know(history: &History<Self>) -> Self::Known;
    /// The states that it may be in at first, the most likely one last.
    fn first(known: &Self::Known) -> Vec<Self::State>;
    /// Whether somebody was told what became of it, where it was answered.
    fn is_told(&self) -> bool;
    /// Whether it may have changed something where nobody knows its outcome; a look is then worth nothing.
    fn may_change(&self) -> bool;
    /// The number that it was given, if it is of those that only rise: of all that must have happened, the lowest is
    /// next.
    fn rank(&self) -> Option<u64>;
    /// The last of those numbers that a state has given.
    fn last(state: &Self::State) -> u64;
    /// The number that it speaks of.
    fn about(&self) -> Option<u64>;
    /// Up to which of the `certain` operations it matters whether `op` happened, of whose outcome nobody knows. `ranks`
    /// are theirs, rising.
    fn matters(op: &Op<Self>, certain: &[&Op<Self>], ranks: &[u64]) -> Option<usize>;
    /// What `op` does where time may have gone on to `horizon`, and no further.
    fn step(state: &Self::State, op: &Op<Self>, known: &Self::Known, horizon: At) -> Step<Self::State>;
    /// Whether `op`, of whose outcome nobody knows, can never happen any more.
    fn is_past(state: &Self::State, op: &Op<Self>, known: &Self::Known) -> bool;
    /// As people read it; `known` says that somebody was told.
    fn words(&self, known: bool) -> String;
}

/// What an operation does to a state.
pub(crate) enum Step<S> {
    /// It cannot happen here.
    Impossible,
    /// It can, and changes nothing. There is no reason to put it off.
    Observed,
    /// It can, and this is then the state.
    To(S),
}

/// One client's operation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Op<W = What> {
    /// Whose it is.
    pub(crate) session: Session,
    /// When it was sent, at the latest when its first attempt was.
    pub(crate) invoked: At,
    /// When it was answered; `None` where nobody knows what became of it.
    pub(crate) returned: Option<At>,
    /// What it was, and what it was answered.
    pub(crate) what: W,
}

/// What a lock is asked, and answers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum What {
    /// An acquire that was granted.
    Granted {
        /// The grant's token.
        token: Token,
        /// The grant's own lease, which ends it even if its session lives.
        lease: Option<Duration>,
    },
    /// An acquire that nobody knows about: perhaps granted, and then held until it is given back unfetched.
    Asked,
    /// An acquire that others were in the way of, at once or to the end of its wait.
    Refused {
        /// One of them, where the answer named any.
        by: Option<Token>,
    },
    /// An acquire that found that its own session held the lock already.
    Holds {
        /// That grant.
        token: Token,
    },
    /// A renewal that was done.
    Renewed {
        /// Of this grant.
        token: Token,
        /// For so long from then on.
        lease: Option<Duration>,
    },
    /// A release that was done; of unknown outcome where it did not return.
    Released {
        /// Of this grant.
        token: Token,
    },
    /// A renewal or a release that heard that there was no such grant any more.
    Lost {
        /// The grant that it was about.
        token: Token,
    },
    /// A look at the lock.
    Read {
        /// Who held it, by session and token.
        held: Option<(Session, Token)>,
    },
}

impl<W: Object> Op<W> {
    /// Whether it must have happened.
    fn is_certain(&self) -> bool {
        self.returned.is_some() && self.what.is_told()
    }
}

/// All that was asked about one object.
#[derive(Clone, Debug)]
pub(crate) struct History<W = What> {
    /// What it is called, for people.
    pub(crate) name: String,
    /// In any order.
    pub(crate) ops: Vec<Op<W>>,
    /// The earliest moment at which each session can have ended. Of one that is not named here nothing is known.
    pub(crate) sessions: BTreeMap<Session, At>,
}

impl<W> Default for History<W> {
    fn default() -> History<W> {
        History { name: String::new(), ops: Vec::new(), sessions: BTreeMap::new() }
    }
}

/// What the search came to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// There is an order.
    Linearizable,
    /// There is none; with the fewest operations that show it, as people read them.
    Violation(String),
    /// The search was given up.
    Undecided,
}

/// Judges a history, at the cost of at most `budget` configurations.
pub(crate) fn check<W: Object>(history: &History<W>, budget: usize) -> Verdict {
    match search::search(history, budget) {
        search::Found::Order => Verdict::Linearizable,
        search::Found::None => Verdict::Violation(shown::text(&window::smallest(history, budget))),
        search::Found::TooMuch => Verdict::Undecided,
    }
}
