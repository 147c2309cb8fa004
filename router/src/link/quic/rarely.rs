//! A log line that a peer can provoke is written once in a while, not as often as the peer likes.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const PAUSE: Duration = Duration::from_secs(5);

pub(super) struct Rarely(Mutex<Option<Instant>>);

impl Rarely {
    pub(super) fn new() -> Rarely {
        Rarely(Mutex::new(None))
    }

    /// Whether it is time again.
    pub(super) fn may_speak(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let may = last.is_none_or(|last| last.elapsed() >= PAUSE);
        if may {
            *last = Some(Instant::now());
        }
        may
    }
}
