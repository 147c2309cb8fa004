//! When operations are due, and the task that hands them out then.
//!
//! The task sleeps until the next operation is due but never less than half a millisecond: at high rates each
//! wake-up hands out all that became due meanwhile. The kernel's timers are used directly, since those of the
//! runtime have a granularity of a millisecond.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::unix::AsyncFd;

use super::pool::Pool;
use crate::workload::{Dice, Schedule};

/// The shortest sleep.
const NAP: Duration = Duration::from_micros(500);

/// The moments at which operations are due.
pub(crate) struct Dues {
    next: Instant,
    start: Instant,
    gap: Duration,
    number: u64,
    rate: f64,
    dice: Option<Dice>,
}

impl Dues {
    /// From `start` on, so many a second.
    pub(crate) fn new(start: Instant, rate: f64, schedule: Schedule) -> Dues {
        let dice = match schedule {
            Schedule::Fixed => None,
            Schedule::Poisson => Some(Dice::new(0x7061_6365)),
        };
        Dues { next: start, start, gap: Duration::from_secs_f64(1.0 / rate), number: 0, rate, dice }
    }

    fn advance(&mut self) {
        match &mut self.dice {
            // From the start each time: sums of rounded gaps would drift.
            None => {
                self.number += 1;
                self.next = self.start + Duration::from_secs_f64(self.number as f64 / self.rate);
            }
            Some(dice) => self.next += dice.exponential(self.gap),
        }
    }

    /// All that are due by `now`, in order.
    pub(crate) fn until(&mut self, now: Instant) -> impl Iterator<Item = Instant> {
        std::iter::from_fn(move || {
            let due = self.next;
            (due <= now).then(|| {
                self.advance();
                due
            })
        })
    }
}

/// How late the task was woken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lateness {
    pub(crate) worst: Duration,
    /// Wake-ups in all, and those more than 5 ms late.
    pub(crate) wakes: u64,
    pub(crate) late: u64,
}

/// Hands out operations as they become due, until `end`.
pub(crate) async fn pace(pool: &Pool, mut dues: Dues, end: Instant) -> anyhow::Result<Lateness> {
    let timer = Timer::new()?;
    let mut lateness = Lateness::default();
    let mut now = Instant::now();
    loop {
        let wake = dues.next.max(now + NAP).min(end);
        timer.sleep(wake.saturating_duration_since(now)).await?;
        now = Instant::now();
        let late = now.saturating_duration_since(wake);
        lateness.worst = lateness.worst.max(late);
        lateness.wakes += 1;
        lateness.late += u64::from(late > Duration::from_millis(5));
        pool.offer(dues.until(now.min(end)));
        if now >= end {
            return Ok(lateness);
        }
    }
}

/// A timer of the kernel's.
struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    #[expect(deprecated, reason = "an owned descriptor stays open as long as its owner, which is all that is asked")]
    fn new() -> anyhow::Result<Timer> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Timer(AsyncFd::new(rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?)?))
    }

    async fn sleep(&self, length: Duration) -> anyhow::Result<()> {
        // Zero would disarm it.
        let length = length.max(Duration::from_nanos(1));
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec { tv_sec: i64::try_from(length.as_secs())?, tv_nsec: i64::from(length.subsec_nanos()) },
        };
        rustix::time::timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.0.readable().await?;
            let mut fired = [0; 8];
            match ready.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut fired)?)) {
                Ok(read) => return read.map(|_| ()).map_err(Into::into),
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_schedule_does_not_drift() {
        let start = Instant::now();
        let mut dues = Dues::new(start, 3.0, Schedule::Fixed);
        let hour = dues.until(start + Duration::from_secs(3_600)).count();
        assert_eq!(hour, 3 * 3_600 + 1);
        assert!(dues.until(start + Duration::from_secs(3_600)).next().is_none(), "nothing is due twice");
    }

    #[test]
    fn a_poisson_schedule_has_the_rate_and_its_gaps_vary() {
        let start = Instant::now();
        let mut dues = Dues::new(start, 1_000.0, Schedule::Poisson);
        let times: Vec<Instant> = dues.until(start + Duration::from_secs(100)).collect();
        assert!((98_500..101_500).contains(&times.len()), "{}", times.len());
        let short = times.windows(2).filter(|pair| pair[1] - pair[0] < Duration::from_millis(1)).count();
        let share = short as f64 / times.len() as f64;
        assert!((share - 0.632).abs() < 0.02, "{share}");
    }

    #[tokio::test]
    async fn operations_are_handed_out_when_they_are_due() {
        let pool = Pool::new(1, 1_000, Instant::now());
        let start = Instant::now();
        let end = start + Duration::from_millis(50);
        let paced = pace(&pool, Dues::new(start, 1_000.0, Schedule::Fixed), end);
        let served = async {
            let mut due = Vec::new();
            while let Some(at) = pool.next(0).await {
                assert!(at <= Instant::now());
                due.push(at);
            }
            due
        };
        let paced = async {
            let paced = paced.await;
            pool.close();
            paced
        };
        let (paced, served) = tokio::join!(paced, served);
        assert!(paced.expect("a timer").wakes > 0);
        assert!((50..=51).contains(&served.len()), "{}", served.len());
    }
}
