//! What happened, as histograms and counts.
//!
//! # Promises
//! 1. Latencies are of the operations that were meant to begin within the measurement, however late they
//!    were answered; throughput and the series count the answers given within it.
//! 2. Recording an answer allocates nothing, but once a second.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use crate::report::Second;

/// What an operation turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Acquire,
    Refused,
    QueueWait,
    TimedOut,
    Renew,
    Release,
    KeepAlive,
}

/// How many kinds there are.
const KINDS: usize = 8;
/// Longer ones count as this, microseconds.
const LONGEST: u64 = 3_600_000_000;
/// More kinds of failures are counted together.
const FAILURES: usize = 50;

/// The times of one operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// When it was meant to begin.
    pub(crate) due: Instant,
    pub(crate) sent: Instant,
    pub(crate) done: Instant,
}

/// Histograms by kind.
pub(crate) type Kinds = [Histogram<u64>; KINDS];

/// See the [module](self).
pub(crate) struct Recorder {
    /// The measurement's beginning and end; nothing is recorded without.
    window: Option<(Instant, Instant)>,
    pub(crate) latency: Kinds,
    /// From the send; `None` where that is the same.
    pub(crate) service: Option<Kinds>,
    pub(crate) handoff: Histogram<u64>,
    second: SecondSoFar,
    pub(crate) series: Vec<Second>,
    /// By the index of [`Recorder::new`].
    pub(crate) shards: Vec<Histogram<u64>>,
    /// Answers within the measurement.
    pub(crate) answered: u64,
    /// Answers before, within and after.
    pub(crate) seen: u64,
    pub(crate) failures: BTreeMap<String, u64>,
    pub(crate) contended: u64,
    pub(crate) timed_out: u64,
    pub(crate) lost: u64,
    pub(crate) late: u64,
    pub(crate) worst_lag: Duration,
}

struct SecondSoFar {
    number: u64,
    reads: u64,
    writes: u64,
    errors: u64,
    histogram: Histogram<u64>,
}

/// From a microsecond to [`LONGEST`], with so many significant digits.
fn histogram(digits: u8) -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, digits).expect("the bounds are in order")
}

fn kinds() -> Kinds {
    std::array::from_fn(|_| histogram(3))
}

fn micros(length: Duration) -> u64 {
    u64::try_from(length.as_micros()).unwrap_or(u64::MAX)
}

/// A figure of a histogram, in milliseconds; `None` of an empty one.
pub(crate) fn quantile_ms(histogram: &Histogram<u64>, quantile: f64) -> Option<f64> {
    (!histogram.is_empty()).then(|| histogram.value_at_quantile(quantile) as f64 / 1e3)
}

impl Recorder {
    /// For so many shards; `open` where operations may be sent later than they were due.
    pub(crate) fn new(shards: usize, open: bool) -> Recorder {
        Recorder {
            window: None,
            latency: kinds(),
            service: open.then(kinds),
            handoff: histogram(3),
            second: SecondSoFar { number: 0, reads: 0, writes: 0, errors: 0, histogram: histogram(2) },
            series: Vec::new(),
            shards: (0..shards).map(|_| histogram(2)).collect(),
            answered: 0,
            seen: 0,
            failures: BTreeMap::new(),
            contended: 0,
            timed_out: 0,
            lost: 0,
            late: 0,
            worst_lag: Duration::ZERO,
        }
    }

    /// Begins the measurement.
    pub(crate) fn begin(&mut self, from: Instant, length: Duration) {
        self.window = Some((from, from + length));
    }

    /// Ends the series. Operations that were due in time are still recorded.
    pub(crate) fn end(&mut self) {
        if let Some((from, until)) = self.window {
            let seconds = until.duration_since(from).as_secs_f64().ceil() as u64;
            self.turn_to(seconds);
        }
    }

    /// An operation was answered. `counts` is whether it belongs to the load rather than to its upkeep.
    pub(crate) fn answered(&mut self, kind: Kind, shard: Option<usize>, times: Times, counts: bool) {
        let latency = micros(times.done.saturating_duration_since(times.due));
        if counts {
            self.seen += 1;
            if self.turns_to(times.done) {
                if kind == Kind::Read {
                    self.second.reads += 1
                } else {
                    self.second.writes += 1
                }
                self.second.histogram.saturating_record(latency);
                self.answered += 1;
            }
        }
        if !self.is_due_within(times.due) {
            return;
        }
        match kind {
            Kind::Refused => self.contended += 1,
            Kind::TimedOut => self.timed_out += 1,
            _ => {}
        }
        self.latency[kind as usize].saturating_record(latency);
        if let Some(service) = &mut self.service {
            service[kind as usize].saturating_record(micros(times.done.saturating_duration_since(times.sent)));
        }
        if let Some(shard) = shard.and_then(|shard| self.shards.get_mut(shard)) {
            shard.saturating_record(latency);
        }
    }

    /// An operation failed.
    pub(crate) fn failed(&mut self, kind: &str, due: Instant, now: Instant) {
        if self.turns_to(now) {
            self.second.errors += 1;
        }
        if !self.is_due_within(due) {
            return;
        }
        let known = self.failures.len() < FAILURES || self.failures.contains_key(kind);
        let kind = if known { kind } else { "other" };
        *self.failures.entry(kind.to_owned()).or_default() += 1;
    }

    /// An operation that was due at `due` is sent at `sent`.
    pub(crate) fn sent(&mut self, due: Instant, sent: Instant) {
        let lag = sent.saturating_duration_since(due);
        if lag > Duration::from_millis(1) && self.is_due_within(due) {
            self.late += 1;
            self.worst_lag = self.worst_lag.max(lag);
        }
    }

    /// A lock passed from one client to the next.
    pub(crate) fn handed_off(&mut self, took: Duration, now: Instant) {
        if self.is_due_within(now) {
            self.handoff.saturating_record(micros(took));
        }
    }

    /// A grant or its session was lost.
    pub(crate) fn lost(&mut self, now: Instant) {
        self.lost += u64::from(self.is_due_within(now));
    }

    fn is_due_within(&self, due: Instant) -> bool {
        self.window.is_some_and(|(from, until)| from <= due && due < until)
    }

    /// Turns to the second of the series that `now` is in. Returns whether it is in one.
    fn turns_to(&mut self, now: Instant) -> bool {
        let Some((from, _)) = self.window.filter(|(from, until)| *from <= now && now < *until) else { return false };
        self.turn_to(now.duration_since(from).as_secs());
        true
    }

    fn turn_to(&mut self, number: u64) {
        while self.second.number < number {
            let SecondSoFar { number, reads, writes, errors, histogram } = &mut self.second;
            self.series.push(Second {
                at: *number as f64,
                reads: std::mem::take(reads),
                writes: std::mem::take(writes),
                errors: std::mem::take(errors),
                p50: quantile_ms(histogram, 0.5),
                p99: quantile_ms(histogram, 0.99),
                max: quantile_ms(histogram, 1.0),
            });
            histogram.reset();
            *number += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(start: Instant, due: u64, sent: u64, done: u64) -> Times {
        let at = |ms| start + Duration::from_millis(ms);
        Times { due: at(due), sent: at(sent), done: at(done) }
    }

    #[test]
    fn latency_counts_from_the_intended_start_and_service_from_the_send() {
        let start = Instant::now();
        let mut recorder = Recorder::new(1, true);
        recorder.begin(start, Duration::from_secs(2));
        recorder.answered(Kind::Read, Some(0), times(start, 100, 400, 500), true);
        let ms = |kinds: &Kinds| quantile_ms(&kinds[Kind::Read as usize], 1.0).expect("one value");
        assert!((ms(&recorder.latency) - 400.0).abs() < 1.0);
        assert!((ms(recorder.service.as_ref().expect("open")) - 100.0).abs() < 1.0);
        recorder.sent(start, start + Duration::from_millis(300));
        assert_eq!((recorder.late, recorder.worst_lag), (1, Duration::from_millis(300)));
    }

    #[test]
    fn promise_1_the_window_bounds_what_is_due_and_the_series_what_is_answered() {
        let start = Instant::now();
        let mut recorder = Recorder::new(0, false);
        recorder.answered(Kind::Read, None, times(start, 0, 0, 10), true);
        assert_eq!((recorder.seen, recorder.answered), (1, 0), "the warm-up shows progress");
        recorder.begin(start + Duration::from_secs(1), Duration::from_secs(2));
        // Due before, answered within; due and answered within; due within, answered after.
        recorder.answered(Kind::Acquire, None, times(start, 900, 900, 1_100), true);
        recorder.answered(Kind::Acquire, None, times(start, 1_000, 1_000, 2_500), true);
        recorder.answered(Kind::Acquire, None, times(start, 2_900, 2_900, 9_000), true);
        recorder.failed("timeout", start + Duration::from_millis(1_200), start + Duration::from_millis(2_600));
        recorder.end();
        assert_eq!(recorder.latency[Kind::Acquire as usize].len(), 2);
        assert_eq!((recorder.seen, recorder.answered), (4, 2));
        let shown: Vec<_> = recorder.series.iter().map(|second| (second.at, second.writes, second.errors)).collect();
        assert_eq!(shown, [(0.0, 1, 0), (1.0, 1, 1)]);
        assert_eq!(recorder.failures, BTreeMap::from([("timeout".to_owned(), 1)]));
    }

    #[test]
    fn kinds_of_failures_are_bounded() {
        let start = Instant::now();
        let mut recorder = Recorder::new(0, false);
        recorder.begin(start, Duration::from_secs(1));
        (0..1_000).for_each(|n| recorder.failed(&format!("failure {n}"), start, start));
        assert_eq!(recorder.failures.len(), FAILURES + 1);
        assert_eq!(recorder.failures.values().sum::<u64>(), 1_000);
    }

    #[test]
    fn upkeep_is_measured_but_is_not_load() {
        let start = Instant::now();
        let mut recorder = Recorder::new(0, false);
        recorder.begin(start, Duration::from_secs(1));
        recorder.answered(Kind::KeepAlive, None, times(start, 1, 1, 2), false);
        assert_eq!((recorder.answered, recorder.latency[Kind::KeepAlive as usize].len()), (0, 1));
    }
}
