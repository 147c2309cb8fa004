//! A session's native request ids.
//!
//! # Promises
//! 1. Numbers are consecutive over the session's life and never repeat.
//! 2. `low` never exceeds a number whose answer somebody may still ask for: a shard forgets answers below
//!    it and refuses requests below it.

use std::{collections::BTreeSet, sync::Arc, sync::Mutex, sync::PoisonError};

use wardlock_machine::RequestId;

/// The requests of one session.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    inner: Mutex<Numbers>,
}

#[derive(Debug, Default)]
struct Numbers {
    last: u64,
    open: BTreeSet<u64>,
}

impl Requests {
    /// Takes the next number. It counts as unanswered until the [`Open`] is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Open {
        let mut numbers = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        numbers.last += 1;
        let seq = numbers.last;
        numbers.open.insert(seq);
        let low = numbers.open.first().copied().unwrap_or(seq);
        assert!(low <= seq, "promise 2: the lowest open request {low} is above {seq}");
        Open { requests: self.clone(), seq, low }
    }
}

/// A request whose answer is still wanted.
#[derive(Debug)]
pub(crate) struct Open {
    requests: Arc<Requests>,
    seq: u64,
    low: u64,
}

impl Open {
    /// Its id; the same for every repeat.
    pub(crate) fn id(&self) -> RequestId {
        RequestId::Native { seq: self.seq, low: self.low }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.requests.inner.lock().unwrap_or_else(PoisonError::into_inner).open.remove(&self.seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_is_the_lowest_unanswered() {
        let requests = Arc::new(Requests::default());
        let first = requests.begin();
        let second = requests.begin();
        assert_eq!(first.id(), RequestId::Native { seq: 1, low: 1 });
        assert_eq!(second.id(), RequestId::Native { seq: 2, low: 1 });
        drop(first);
        let third = requests.begin();
        assert_eq!(third.id(), RequestId::Native { seq: 3, low: 2 });
        assert_eq!(second.id(), RequestId::Native { seq: 2, low: 1 }, "a repeat is the same request");
        drop(second);
        drop(third);
        assert_eq!(requests.begin().id(), RequestId::Native { seq: 4, low: 4 });
    }
}
