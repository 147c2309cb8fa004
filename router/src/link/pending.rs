//! The calls of one connection that wait for their replies.
//!
//! # Promises
//! 1. Every call that was entered is completed: by its reply, or with [`CallError::Lost`] when the
//!    connection ends.
//! 2. After the end nothing can be entered, so nothing waits for ever.
//! 3. Calls that their callers have forgotten are swept out as the table grows; the table is bounded.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use super::{Answered, CallError};

/// The most calls that wait on one connection.
const CALLS: usize = 1 << 18;

/// The size at which forgotten calls are first swept out.
const SWEEP: usize = 1 << 10;

/// The table.
pub(super) struct Pending(Mutex<Table>);

struct Table {
    open: bool,
    next: u64,
    sweep_at: usize,
    waiting: HashMap<u64, oneshot::Sender<Answered>>,
}

impl Pending {
    pub(super) fn new() -> Pending {
        Pending(Mutex::new(Table { open: true, next: 0, sweep_at: SWEEP, waiting: HashMap::new() }))
    }

    /// Enters a call: its id, and where its answer will come.
    pub(super) fn enter(&self) -> Result<(u64, oneshot::Receiver<Answered>), CallError> {
        let mut table = self.lock();
        if !table.open {
            return Err(CallError::NotSent("the connection is closing".into()));
        }
        if table.waiting.len() >= table.sweep_at {
            table.waiting.retain(|_, waiter| !waiter.is_closed());
            table.sweep_at = SWEEP.max(2 * table.waiting.len()).min(CALLS);
        }
        if table.waiting.len() >= CALLS {
            return Err(CallError::NotSent("too many calls wait for this node".into()));
        }
        let (sender, receiver) = oneshot::channel();
        let id = table.next;
        table.next += 1;
        table.waiting.insert(id, sender);
        Ok((id, receiver))
    }

    /// Takes a call out that never left.
    pub(super) fn withdraw(&self, id: u64) {
        self.lock().waiting.remove(&id);
    }

    /// A reply has come. Replies to calls that are not waiting are nobody's.
    pub(super) fn complete(&self, id: u64, answered: Answered) {
        let waiter = self.lock().waiting.remove(&id);
        if let Some(waiter) = waiter {
            // The caller may have forgotten it.
            let _ = waiter.send(answered);
        }
    }

    /// No new calls; those that wait go on waiting.
    pub(super) fn retire(&self) {
        self.lock().open = false;
    }

    /// The end: whoever waits, lost.
    pub(super) fn end(&self) {
        let mut table = self.lock();
        table.open = false;
        let waiting = std::mem::take(&mut table.waiting);
        drop(table);
        for waiter in waiting.into_values() {
            let _ = waiter.send(Err(CallError::Lost));
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.lock().open
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgotten_calls_are_swept_out() {
        let pending = Pending::new();
        let kept = pending.enter().unwrap();
        for _ in 0..10 * SWEEP {
            drop(pending.enter().unwrap());
        }
        assert!(pending.lock().waiting.len() <= SWEEP);
        pending.end();
        assert_eq!(kept.1.blocking_recv().unwrap(), Err(CallError::Lost));
        assert!(pending.enter().is_err());
    }

    #[test]
    fn the_table_is_bounded() {
        let pending = Pending::new();
        let kept: Vec<_> = (0..CALLS).map(|_| pending.enter().unwrap()).collect();
        assert!(matches!(pending.enter(), Err(CallError::NotSent(_))));
        drop(kept);
        assert!(pending.enter().is_ok());
    }
}
