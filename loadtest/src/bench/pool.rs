//! The clients of an open loop, and how operations that are due find one.
//!
//! A client that has nothing to do waits in line. An operation that is due goes to the first in line; where
//! all are busy it waits in a backlog, from which each client that gets ready helps itself. The time at which
//! it was due travels along, so that its wait counts.
//!
//! # Promises
//! 1. No operation goes to two clients, and none is lost but those that are counted as dropped.
//! 2. The backlog is bounded: what is due beyond it drops the oldest, which has waited the longest. So an
//!    overload shows as waits as long as the backlog and as a count, not as silence.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
    time::Instant,
};

/// See the [module](self).
pub(crate) struct Pool(Mutex<Inner>);

struct Inner {
    /// First come, first served, so that all clients have their turns.
    idle: VecDeque<u32>,
    slots: Vec<Slot>,
    backlog: VecDeque<Instant>,
    room: usize,
    /// Only what is due from here on is counted.
    from: Instant,
    counts: Counts,
    closed: bool,
}

/// What became due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) offered: u64,
    /// Of these, those that no client took.
    pub(crate) dropped: u64,
}

#[derive(Clone, Default)]
struct Slot {
    due: Option<Instant>,
    waker: Option<Waker>,
    idle: bool,
}

impl Pool {
    /// For so many clients and so long a backlog. What is due before `from` is not counted.
    pub(crate) fn new(clients: u32, room: usize, from: Instant) -> Pool {
        Pool(Mutex::new(Inner {
            idle: VecDeque::with_capacity(clients as usize),
            slots: vec![Slot::default(); clients as usize],
            backlog: VecDeque::new(),
            room,
            from,
            counts: Counts::default(),
            closed: false,
        }))
    }

    /// Operations are due.
    pub(crate) fn offer(&self, due: impl Iterator<Item = Instant>) {
        let mut inner = self.lock();
        for due in due {
            inner.offer(due);
        }
    }

    /// The next operation for a client: when it was due. `None` once the pool is closed.
    pub(crate) async fn next(&self, client: u32) -> Option<Instant> {
        poll_fn(|context| {
            let mut inner = self.lock();
            let Inner { idle, slots, backlog, closed, .. } = &mut *inner;
            let Some(slot) = slots.get_mut(client as usize) else { return Poll::Ready(None) };
            if let Some(due) = slot.due.take().or_else(|| if slot.idle { None } else { backlog.pop_front() }) {
                return Poll::Ready(Some(due));
            }
            if *closed {
                return Poll::Ready(None);
            }
            if !slot.idle {
                slot.idle = true;
                idle.push_back(client);
            }
            match &mut slot.waker {
                Some(waker) => waker.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
            Poll::Pending
        })
        .await
    }

    /// Ends all waits, and drops what waits in the backlog.
    pub(crate) fn close(&self) -> Counts {
        let mut inner = self.lock();
        inner.closed = true;
        inner.slots.iter_mut().filter_map(|slot| slot.waker.take()).for_each(Waker::wake);
        let left = std::mem::take(&mut inner.backlog);
        left.into_iter().for_each(|due| inner.give_up(due));
        inner.counts
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn offer(&mut self, due: Instant) {
        self.counts.offered += u64::from(due >= self.from);
        if let Some(client) = self.idle.pop_front()
            && let Some(slot) = self.slots.get_mut(client as usize)
        {
            (slot.due, slot.idle) = (Some(due), false);
            // Not taken: the client will come with the same one.
            if let Some(waker) = &slot.waker {
                waker.wake_by_ref();
            }
        } else {
            self.backlog.push_back(due);
            if self.backlog.len() > self.room
                && let Some(oldest) = self.backlog.pop_front()
            {
                self.give_up(oldest);
            }
        }
    }

    fn give_up(&mut self, due: Instant) {
        self.counts.dropped += u64::from(due >= self.from);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn what_is_due_goes_to_the_first_in_line_then_to_the_backlog_then_nowhere() {
        let pool = Pool::new(2, 2, Instant::now());
        let start = Instant::now();
        let due: Vec<Instant> = (0..5).map(|n| start + std::time::Duration::from_millis(n)).collect();
        let (mut first, mut second) = (Box::pin(pool.next(0)), Box::pin(pool.next(1)));
        assert!((&mut second).now_or_never().is_none());
        assert!((&mut first).now_or_never().is_none());
        pool.offer(due.iter().copied());
        assert_eq!(second.now_or_never(), Some(Some(due[0])));
        assert_eq!(first.now_or_never(), Some(Some(due[1])));
        assert_eq!(pool.next(1).now_or_never(), Some(Some(due[3])), "the oldest that was not dropped");
        assert_eq!(pool.close(), Counts { offered: 5, dropped: 2 }, "one found no room, one was left");
        assert_eq!(pool.next(0).now_or_never(), Some(None));
    }

    #[test]
    fn what_was_handed_out_before_the_close_is_still_taken() {
        let pool = Pool::new(1, 0, Instant::now());
        let mut next = Box::pin(pool.next(0));
        assert!((&mut next).now_or_never().is_none());
        let due = Instant::now();
        pool.offer(std::iter::once(due));
        pool.close();
        assert_eq!(next.now_or_never(), Some(Some(due)));
    }
}
