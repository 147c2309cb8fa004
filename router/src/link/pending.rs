//! The calls of one connection that wait for their replies, and until when.
//!
//! A call has a slot in a table, by whose number and turn it is known on the wire; a reply finds it without a
//! search. Whoever waits has its waker there, and its deadline. No call has a timer: one task looks at all
//! deadlines of the table when the earliest of them may have come, and never more often than once in
//! [`GRAIN`]. Deadlines lie much further ahead than answers, so it runs about once per timeout, however many
//! calls are answered meanwhile; it ends when nothing has a deadline. A call costs three short holds of the
//! table's lock and one allocation, the answer's.
//!
//! # Promises
//! 1. Every call that was entered is completed: by its reply, or with [`CallError::Lost`] when the
//!    connection ends.
//! 2. After the end nothing can be entered, so nothing waits for ever.
//! 3. A call that its caller has forgotten frees its slot at once; the table is bounded.
//! 4. A reply to a call that does not wait any more is nobody's, though another call has its slot.
//! 5. A wait with a deadline ends at the deadline or at most [`GRAIN`] and the granularity of timers later.

use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use super::{Answered, CallError};

/// The most calls that wait on one connection.
const CALLS: usize = 1 << SLOT_BITS;
/// The low bits of a call's id are its slot, the others the slot's turn.
const SLOT_BITS: u32 = 18;
/// How much later than its deadline a wait may end.
const GRAIN: Duration = Duration::from_millis(10);

/// The table.
pub(crate) struct Pending {
    /// Changes with the table locked.
    open: AtomicBool,
    table: Mutex<Table>,
    /// There is a deadline before the one that the watch waits for.
    earlier: Notify,
}

#[derive(Default)]
struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// No deadline is earlier.
    next: Option<Instant>,
    /// The task that looks at deadlines runs.
    watched: bool,
}

#[derive(Default)]
struct Slot {
    turn: u64,
    state: State,
}

#[derive(Default)]
enum State {
    #[default]
    Free,
    Waiting {
        waker: Option<Waker>,
        until: Option<Instant>,
    },
    /// The deadline has come; whoever waits has not looked yet.
    Overdue,
    Answered(Box<Answered>),
}

impl Table {
    /// The slot of a call, unless the call is over.
    fn slot(&mut self, id: u64) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(id as usize % CALLS)?;
        (slot.turn == id >> SLOT_BITS).then_some(slot)
    }

    /// Ends a call. What its slot held is for the caller to drop, once the table is unlocked: a waker may run
    /// whatever it likes.
    fn leave(&mut self, id: u64) -> State {
        let Some(slot) = self.slot(id) else { return State::Free };
        slot.turn += 1;
        let left = mem::take(&mut slot.state);
        self.free.push((id as usize % CALLS) as u32);
        left
    }
}

impl Pending {
    pub(crate) fn new() -> Arc<Pending> {
        Arc::new(Pending { open: AtomicBool::new(true), table: Mutex::default(), earlier: Notify::new() })
    }

    /// Enters a call.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<Waiting, CallError> {
        let mut table = self.lock();
        if !self.is_open() {
            return Err(CallError::NotSent("the connection is closing".into()));
        }
        let slot = match table.free.pop() {
            Some(slot) => slot,
            None if table.slots.len() < CALLS => {
                table.slots.push(Slot::default());
                (table.slots.len() - 1) as u32
            }
            None => return Err(CallError::NotSent("too many calls wait for this node".into())),
        };
        let entry = &mut table.slots[slot as usize];
        entry.state = State::Waiting { waker: None, until: None };
        let id = entry.turn << SLOT_BITS | u64::from(slot);
        drop(table);
        Ok(Waiting { pending: self.clone(), id, over: false })
    }

    /// A reply has come: promise 4.
    pub(crate) fn complete(&self, id: u64, answered: Answered) {
        let answered = Box::new(answered);
        let mut table = self.lock();
        let Some(slot) = table.slot(id) else { return };
        if !matches!(slot.state, State::Waiting { .. } | State::Overdue) {
            return;
        }
        let before = mem::replace(&mut slot.state, State::Answered(answered));
        drop(table);
        if let State::Waiting { waker: Some(waker), .. } = before {
            waker.wake();
        }
    }

    /// No new calls; those that wait go on waiting.
    pub(crate) fn retire(&self) {
        let _table = self.lock();
        self.open.store(false, Ordering::Release);
    }

    /// The end: whoever waits, lost.
    pub(crate) fn end(&self) {
        let mut table = self.lock();
        self.open.store(false, Ordering::Release);
        let mut wakers = Vec::new();
        for slot in &mut table.slots {
            if let State::Waiting { waker, .. } = &mut slot.state {
                wakers.extend(waker.take());
                slot.state = State::Answered(Box::new(Err(CallError::Lost)));
            }
        }
        // Nobody waits for a deadline any more: the watch ends.
        table.next = None;
        drop(table);
        self.earlier.notify_one();
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None` where the deadline has come.
    fn poll(self: &Arc<Self>, id: u64, context: &Context<'_>, deadline: Option<Instant>) -> Poll<Option<Answered>> {
        let mut table = self.lock();
        let Some(slot) = table.slot(id) else { return Poll::Ready(Some(Err(CallError::Lost))) };
        let State::Waiting { waker, until } = &mut slot.state else {
            let left = table.leave(id);
            drop(table);
            return Poll::Ready(match left {
                State::Answered(answered) => Some(*answered),
                _ => None,
            });
        };
        let replaced = match waker {
            Some(waker) if waker.will_wake(context.waker()) => None,
            waker => waker.replace(context.waker().clone()),
        };
        *until = deadline;
        let earlier = deadline.is_some_and(|deadline| table.next.is_none_or(|next| deadline < next));
        let mut watched = true;
        if earlier {
            table.next = deadline;
            watched = mem::replace(&mut table.watched, true);
        }
        drop(table);
        drop(replaced);
        if !watched {
            // Not with the table locked: a runtime that is ending drops it at once.
            tokio::spawn(Watch(Some(self.clone())).run());
        } else if earlier {
            self.earlier.notify_one();
        }
        Poll::Pending
    }

    /// Ends the waits whose deadline has come by `now`. Returns the earliest of the others; without any,
    /// nobody watches from here on.
    fn sweep(&self, now: Instant) -> Option<Instant> {
        let mut wakers = Vec::new();
        let mut table = self.lock();
        let mut next: Option<Instant> = None;
        for slot in &mut table.slots {
            let State::Waiting { waker, until: Some(until) } = &mut slot.state else { continue };
            if *until <= now {
                wakers.extend(waker.take());
                slot.state = State::Overdue;
            } else {
                next = Some(next.map_or(*until, |next| next.min(*until)));
            }
        }
        table.next = next;
        table.watched = next.is_some();
        drop(table);
        wakers.into_iter().for_each(Waker::wake);
        next
    }
}

/// The task that looks at the deadlines. Where its runtime ends before them, whoever waits is woken and starts
/// another.
struct Watch(Option<Arc<Pending>>);

impl Watch {
    async fn run(mut self) {
        let Some(pending) = self.0.clone() else { return };
        let mut swept = None;
        loop {
            let next = pending.lock().next;
            let now = Instant::now();
            // A table that is looked at all the time would have no time for calls.
            let wake = next.unwrap_or(now).max(swept.map_or(now, |swept| swept + GRAIN));
            if wake > now {
                let _ = timeout_at(wake, pending.earlier.notified()).await;
                if Instant::now() < wake {
                    continue;
                }
            }
            swept = Some(Instant::now());
            if pending.sweep(Instant::now()).is_none() {
                self.0 = None;
                return;
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(pending) = self.0.take() else { return };
        let mut table = pending.lock();
        (table.watched, table.next) = (false, None);
        let waiting = table.slots.iter_mut().filter_map(|slot| match &mut slot.state {
            State::Waiting { waker, until: Some(_) } => waker.take(),
            _ => None,
        });
        let wakers: Vec<Waker> = waiting.collect();
        drop(table);
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// One call's wait. Dropping it forgets the call.
pub(crate) struct Waiting {
    pending: Arc<Pending>,
    id: u64,
    over: bool,
}

impl Waiting {
    /// What its reply must be called.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The answer; `None` where it has not come by the deadline.
    pub(crate) fn poll(&mut self, context: &Context<'_>, deadline: Option<Instant>) -> Poll<Option<Answered>> {
        let polled = self.pending.poll(self.id, context, deadline);
        self.over |= polled.is_ready();
        polled
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.over {
            let left = self.pending.lock().leave(self.id);
            drop(left);
        }
    }
}

#[cfg(test)]
mod tests;
