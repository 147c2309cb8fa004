//! The clock that holders' deadlines run on.
//!
//! The standard library's monotonic clock stands still while a machine is suspended; the shards' clocks
//! do not. A holder that slept would wake up believing in a lease that ended long ago. So deadlines are
//! points of `CLOCK_BOOTTIME`. Timers still sleep on the runtime's clock; whoever waits for a point of
//! this clock looks again at least every [`LOOK`], so that a wake-up from suspension is noticed soon.
//! Whoever *asks* always gets the truth of the moment.

use std::{fmt, ops::Add, sync::Arc, time::Duration};

/// How long a wait for a point of this clock may go without looking at it.
pub(crate) const LOOK: Duration = Duration::from_millis(500);

/// A point in time: how long since this machine started, suspensions included. Means nothing elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Boot(pub Duration);

impl Boot {
    /// How long from `earlier` until this; zero where `earlier` is not earlier.
    pub fn since(self, earlier: Boot) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Boot {
    type Output = Boot;

    fn add(self, by: Duration) -> Boot {
        Boot(self.0.saturating_add(by))
    }
}

/// Tells the time since the machine started.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Now. Never runs backwards.
    fn now(&self) -> Boot;
}

/// The system's `CLOCK_BOOTTIME`.
#[derive(Clone, Copy, Debug, Default)]
pub struct BootClock;

impl Clock for BootClock {
    fn now(&self) -> Boot {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Boot(Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0)))
    }
}

/// How long a span that a server measures as `span` surely lasts by this machine's clock: 1 % less, for
/// clocks that run at different speeds.
pub fn less_drift(span: Duration) -> Duration {
    span - span / 100
}

/// Returns once `when` has come. `when` is asked again each time, because it may move.
pub(crate) async fn reached(clock: &Arc<dyn Clock>, when: impl Fn() -> Boot) {
    loop {
        let left = when().since(clock.now());
        if left.is_zero() {
            return;
        }
        // Timers have a granularity of a millisecond, and the two clocks need not tick together.
        tokio::time::sleep(left.min(LOOK).max(Duration::from_millis(1))).await;
    }
}
