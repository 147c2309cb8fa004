//! What requests without a session's numbers were answered, so that a repeat finds the answer and is not run again.
//!
//! Refusals are kept as well: whoever was told that nothing was done must not see it done after all, by an earlier
//! attempt of the same request that comes late. An answer lives for [`limits::KEY_LIFE`], and beyond
//! [`limits::KEYS_PER_SHARD`] the oldest go first (invariant 9).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::{ids::Stamp, limits};

/// The answers of one class of requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Requests<A> {
    /// Which were answered, oldest first, and until when that is remembered.
    answered: VecDeque<(Stamp, u128)>,
    /// What they were answered.
    answers: BTreeMap<u128, A>,
}

impl<A> Default for Requests<A> {
    fn default() -> Requests<A> {
        Requests { answered: VecDeque::new(), answers: BTreeMap::new() }
    }
}

impl<A: Copy> Requests<A> {
    /// What a request was answered, while that is remembered.
    pub(crate) fn recall(&mut self, request: u128, now: Stamp) -> Option<A> {
        while let Some((until, first)) = self.answered.front().copied()
            && until <= now
        {
            self.answered.pop_front();
            self.answers.remove(&first);
        }
        self.answers.get(&request).copied()
    }

    /// Remembers what a request is answered.
    pub(crate) fn keep(&mut self, request: u128, now: Stamp, answer: A) {
        if self.answers.insert(request, answer).is_none() {
            self.answered.push_back((now.after(limits::KEY_LIFE), request));
        }
        if self.answered.len() > limits::KEYS_PER_SHARD
            && let Some((_, oldest)) = self.answered.pop_front()
        {
            self.answers.remove(&oldest);
        }
    }

    /// The same requests with answers of another form.
    pub(crate) fn map<B>(self, form: impl Fn(A) -> B) -> Requests<B> {
        let answers = self.answers.into_iter().map(|(request, answer)| (request, form(answer))).collect();
        Requests { answered: self.answered, answers }
    }

    /// Whether they could have come about by now; asked of bytes from outside.
    pub(crate) fn is_sound(&self, now: Stamp) -> bool {
        let life = now.after(limits::KEY_LIFE);
        let requests: BTreeSet<u128> = self.answered.iter().map(|(_, request)| *request).collect();
        self.answered.len() == self.answers.len()
            && self.answered.len() <= limits::KEYS_PER_SHARD
            && requests.len() == self.answers.len()
            && self.answered.iter().all(|(until, request)| *until <= life && self.answers.contains_key(request))
            && self.answered.iter().zip(self.answered.iter().skip(1)).all(|(a, b)| a.0 <= b.0)
    }
}
