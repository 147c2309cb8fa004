//! Values that several commands take, each checked where it is read.

use std::time::Duration;

use wardlock_machine::{Mode, Name, limits};
use wardlock_router::Lock;

/// A name of a lock or an election.
pub fn name(text: &str) -> Result<Name, String> {
    Name::new(text).map_err(|e| e.to_string())
}

/// Seconds, fractions allowed, up to the longest wait there is.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| format!("{text:?} is not a number of seconds"))?;
    let most = limits::LEASE_MAX.0 / 1000;
    if !(0.0..=most as f64).contains(&seconds) {
        return Err(format!("{text} is not from 0 to {most} seconds"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// The TTL of a session, in seconds.
pub fn ttl(text: &str) -> Result<Duration, String> {
    within(text, limits::SESSION_TTL_MIN.0, limits::SESSION_TTL_MAX.0)
}

/// The lease of a lock, in seconds.
pub fn lease(text: &str) -> Result<Duration, String> {
    within(text, limits::LEASE_MIN.0, limits::LEASE_MAX.0)
}

fn within(text: &str, min_ms: u64, max_ms: u64) -> Result<Duration, String> {
    let length = seconds(text)?;
    if !(Duration::from_millis(min_ms)..=Duration::from_millis(max_ms)).contains(&length) {
        return Err(format!("{text} is not from {} to {} seconds", min_ms as f64 / 1000.0, max_ms as f64 / 1000.0));
    }
    Ok(length)
}

/// How a lock is to be held.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct How {
    /// Hold it together with other shared holders, but with no exclusive one.
    #[arg(long)]
    shared: bool,

    /// Hold one of N permits: up to N hold it at once. All who use the lock must name the same N.
    #[arg(long, value_name = "N", conflicts_with = "shared",
          value_parser = clap::value_parser!(u32).range(1..=limits::HOLDERS as i64))]
    permits: Option<u32>,
}

impl How {
    /// Asks for `lock` so.
    pub fn on(self, lock: Lock<'_>) -> Lock<'_> {
        match self.mode() {
            Mode::Exclusive => lock,
            Mode::Shared => lock.shared(),
            Mode::Semaphore { permits } => lock.permits(permits),
        }
    }

    /// The mode that was asked for.
    pub fn mode(self) -> Mode {
        match (self.permits, self.shared) {
            (Some(permits), _) => Mode::Semaphore { permits },
            (None, true) => Mode::Shared,
            (None, false) => Mode::Exclusive,
        }
    }
}

/// How long to queue.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Wait {
    /// Do not wait: where it is taken, exit with 75 at once.
    #[arg(short = 'n', long)]
    no_wait: bool,

    /// Wait at most that long, then exit with 75. Without -n and -w it waits as long as it takes.
    #[arg(short = 'w', long, value_name = "SECONDS", value_parser = seconds, conflicts_with = "no_wait",
          allow_negative_numbers = true)]
    wait: Option<Duration>,
}

impl Wait {
    /// The longest time to queue.
    pub fn length(self) -> Duration {
        match (self.no_wait, self.wait) {
            (true, _) => Duration::ZERO,
            (false, Some(wait)) => wait,
            (false, None) => Duration::from_millis(limits::LEASE_MAX.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_bounded_and_may_have_fractions() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        for wrong in ["", "-1", "NaN", "inf", "1e300", "5s"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
        assert!(ttl("0.5").is_err(), "below the shortest TTL");
        assert_eq!(ttl("1"), Ok(Duration::from_secs(1)));
        assert!(lease("0.05").is_err(), "below the shortest lease");
    }
}
