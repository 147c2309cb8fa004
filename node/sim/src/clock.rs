//! Clocks that drift, and wall clocks that somebody sets.
//!
//! The clock that decides does not jump here: `CLOCK_BOOTTIME` counts on while a machine is suspended, as everybody
//! else's does, and one that ran ahead by itself would be broken beyond what leases can bear.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use wardlock::clock::Clock;
use wardlock_machine::WallMs;
use wardlock_router::client::Boot;

/// How far from the truth a clock may run, in parts of a million: two of them stay within the one percent that
/// holders allow for.
pub const DRIFT_PPM: i64 = 4_000;

/// The wall clock when a run begins.
const WALL: u64 = 1_700_000_000_000;

/// One machine's clock: it runs at a rate of its own, and its wall clock may be set.
#[derive(Debug)]
pub struct Drifting {
    begun: Instant,
    ppm: i64,
    wall: Mutex<i64>,
}

impl Drifting {
    /// Begins now, so many parts of a million fast.
    pub fn new(ppm: i64) -> Drifting {
        Drifting { begun: Instant::now(), ppm, wall: Mutex::default() }
    }

    /// Somebody set the wall clock, by so many milliseconds.
    pub fn set_wall(&self, by: i64) {
        *self.wall.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }

    fn read(&self) -> (Duration, u64) {
        let wall = *self.wall.lock().unwrap_or_else(PoisonError::into_inner);
        let nanos = self.begun.elapsed().as_nanos() as i128;
        let drifted = nanos + nanos * i128::from(self.ppm) / 1_000_000;
        let now = Duration::from_nanos(drifted as u64);
        (now, (WALL + now.as_millis() as u64).saturating_add_signed(wall))
    }
}

impl Clock for Drifting {
    fn now(&self) -> Duration {
        self.read().0
    }

    fn wall(&self) -> WallMs {
        WallMs(self.read().1)
    }
}

impl wardlock_router::Clock for Drifting {
    fn now(&self) -> Boot {
        Boot(self.read().0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_keeps_its_rate_whatever_its_wall_clock_says() {
        let fast = Drifting::new(DRIFT_PPM);
        tokio::time::advance(Duration::from_secs(1_000)).await;
        assert_eq!(Clock::now(&fast), Duration::from_secs(1_004));
        fast.set_wall(-3_600_000);
        assert_eq!(Clock::now(&fast), Duration::from_secs(1_004));
        assert_eq!(fast.wall(), WallMs(WALL + 1_004_000 - 3_600_000));
    }
}
