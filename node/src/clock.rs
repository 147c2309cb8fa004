//! Where time comes from. Everything that decides by time is given a [`Clock`]; only `main`'s wiring
//! makes a real one.

use std::{sync::Arc, time::Duration};

use wardlock_machine::WallMs;
use wardlock_router::client::BootClock;

/// Two clocks: one that only rises, for deciding, and one that people read.
pub trait Clock: Send + Sync + 'static {
    /// Time since some fixed moment of this boot, counting on while the machine is suspended.
    fn now(&self) -> Duration;

    /// Wall time.
    fn wall(&self) -> WallMs;
}

/// The machine's own clocks: `CLOCK_BOOTTIME` and the wall clock.
pub struct SystemClock;

impl SystemClock {
    /// For sharing.
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(SystemClock)
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        wardlock_router::Clock::now(&BootClock).0
    }

    fn wall(&self) -> WallMs {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        WallMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}
