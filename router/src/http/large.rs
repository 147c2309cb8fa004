//! Large values on their way into the cluster: few at a time, first come, first served.
//!
//! What is written together takes turns on the network and on three nodes' disks. A gateway that begins all that it has
//! ends none of it in time, and then nobody knows what has been written. So there is a window of bytes that may be under
//! way. How wide it may be differs by a factor of a hundred between machines, so it is found: it grows while writes are
//! quick and halves when one was slow, as a sender's window does on the network. One write is always under way.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

/// A value up to here is no large one, and waits for none.
pub(super) const SMALL_BYTES: usize = 64 << 10;
/// How wide the window begins, and how narrow it may become.
const NARROWEST: usize = 1 << 20;
/// How wide it may become.
const WIDEST: usize = 32 << 20;
/// A write that takes no longer is quick.
const QUICK: Duration = Duration::from_millis(400);
/// One that takes longer is slow.
const SLOW: Duration = Duration::from_millis(800);

/// The window, and the line before it.
#[derive(Debug)]
pub(super) struct Large {
    /// Whoever holds it is the next to begin; tokio's mutex is fair.
    line: tokio::sync::Mutex<()>,
    window: Mutex<Window>,
    /// Something ended: for the one who is next.
    ended: Notify,
}

#[derive(Debug)]
struct Window {
    wide: usize,
    under_way: usize,
}

/// A write that is under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    large: &'a Large,
    bytes: usize,
    began: Instant,
}

impl Default for Large {
    fn default() -> Large {
        let window = Mutex::new(Window { wide: NARROWEST, under_way: 0 });
        Large { line: tokio::sync::Mutex::default(), window, ended: Notify::new() }
    }
}

impl Large {
    /// Waits until so many bytes may be on their way; `None` where that is not within `patience`.
    pub(super) async fn begin(&self, bytes: usize, patience: Duration) -> Option<Turn<'_>> {
        let wait = async {
            let _next = self.line.lock().await;
            while !self.enter(bytes) {
                self.ended.notified().await;
            }
        };
        timeout(patience, wait).await.ok()?;
        Some(Turn { large: self, bytes, began: Instant::now() })
    }

    fn enter(&self, bytes: usize) -> bool {
        let mut window = self.window();
        let fits = window.under_way == 0 || window.under_way + bytes <= window.wide;
        if fits {
            window.under_way += bytes;
        }
        fits
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let took = self.began.elapsed();
        let mut window = self.large.window();
        window.under_way -= self.bytes;
        if took <= QUICK {
            window.wide = (window.wide + self.bytes / 2).min(WIDEST);
        } else if took > SLOW {
            window.wide = (window.wide / 2).max(NARROWEST);
        }
        drop(window);
        self.large.ended.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const MIB: usize = 1 << 20;
    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn those_who_come_first_begin_first_and_those_who_wait_in_vain_leave() {
        let large = Large::default();
        let first = large.begin(MIB, SECOND).await.expect("one is always let in");
        let mut second = Box::pin(large.begin(MIB, 10 * SECOND));
        assert!(second.as_mut().now_or_never().is_none());
        assert!(large.begin(MIB, SECOND).await.is_none(), "the window is full");
        drop(first);
        let second = second.await.expect("it was next");
        // A small one does not slip past the window either.
        assert!(large.begin(2 * MIB, SECOND).await.is_none());
        drop(second);
        assert_eq!(large.window().under_way, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_window_grows_while_writes_are_quick_and_narrows_when_they_are_slow() {
        let large = Large::default();
        for _ in 0..100 {
            drop(large.begin(MIB, SECOND).await);
        }
        assert_eq!(large.window().wide, WIDEST);
        let mut turns = Vec::new();
        while let Some(turn) = large.begin(MIB, Duration::ZERO).await {
            turns.push(turn);
        }
        assert_eq!(turns.len(), WIDEST / MIB);
        tokio::time::advance(2 * SLOW).await;
        drop(turns);
        assert_eq!(large.window().wide, NARROWEST);
        assert_eq!(large.window().under_way, 0);
        // A value that is wider than the window is written by itself.
        assert!(large.begin(2 * MIB, SECOND).await.is_some());
    }
}
