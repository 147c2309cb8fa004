//! What requests without a session were answered, for their repeats: bounded by time and by number.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::{ids::*, limits};

/// Answers by request, each kept for [`limits::KEY_LIFE`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Remembered<T> {
    /// The requests, oldest first, and until when each is remembered.
    order: VecDeque<(Stamp, u128)>,
    answers: BTreeMap<u128, T>,
}

impl<T> Default for Remembered<T> {
    fn default() -> Remembered<T> {
        Remembered { order: VecDeque::new(), answers: BTreeMap::new() }
    }
}

impl<T: Copy> Remembered<T> {
    /// What a request was answered, while that is remembered. Forgets what has lived for long enough.
    pub(crate) fn find(&mut self, request: u128, now: Stamp) -> Option<T> {
        while let Some((until, oldest)) = self.order.front().copied()
            && until <= now
        {
            self.order.pop_front();
            self.answers.remove(&oldest);
        }
        self.answers.get(&request).copied()
    }

    /// Keeps an answer; beyond `most` of them the oldest go first.
    pub(crate) fn keep(&mut self, request: u128, answer: T, now: Stamp, most: usize) {
        if self.answers.insert(request, answer).is_none() {
            self.order.push_back((now.after(limits::KEY_LIFE), request));
        }
        if self.order.len() > most
            && let Some((_, oldest)) = self.order.pop_front()
        {
            self.answers.remove(&oldest);
        }
    }

    /// Whether it could have come about; asked of bytes from outside.
    pub(crate) fn is_sound(&self, now: Stamp, most: usize) -> bool {
        let life = now.after(limits::KEY_LIFE);
        let requests: BTreeSet<u128> = self.order.iter().map(|(_, request)| *request).collect();
        self.order.len() <= most
            && self.order.len() == self.answers.len()
            && requests.len() == self.answers.len()
            && self.order.iter().all(|(until, request)| *until <= life && self.answers.contains_key(request))
            && self.order.iter().zip(self.order.iter().skip(1)).all(|(a, b)| a.0 <= b.0)
    }
}
