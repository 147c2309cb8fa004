//! A plot's axes: where a value lies, and which values are written beside it.
//!
//! # Promises
//! 1. A value is placed within 0 … 1, whatever it is: an axis never draws outside its frame.
//! 2. An axis always has a span, even over one value or none.

use super::text;

/// One axis.
pub(super) struct Axis {
    /// What is measured, with its unit.
    pub(super) label: &'static str,
    pub(super) ticks: Vec<Tick>,
    low: f64,
    high: f64,
    log: bool,
}

/// A value that is written.
pub(super) struct Tick {
    pub(super) value: f64,
    /// Empty for a faint line between the written ones.
    pub(super) text: String,
}

/// The shares at which a percentile curve is read.
const SHARES: [(f64, &str); 7] = [
    (2.0, "50 %"),
    (10.0, "90 %"),
    (100.0, "99 %"),
    (1e3, "99.9 %"),
    (1e4, "99.99 %"),
    (1e5, "99.999 %"),
    (1e6, "99.9999 %"),
];

impl Axis {
    /// From zero to a round number above `high`.
    pub(super) fn from_zero(label: &'static str, high: f64) -> Axis {
        let high = if high > 0.0 { high.min(1e18) * 1.04 } else { 1.0 };
        let step = round_step(high / 5.0);
        let steps = (high / step).ceil();
        let ticks = (0..=steps as u32).map(|index| Tick::new(f64::from(index) * step, text::short)).collect();
        Axis { label, ticks, low: 0.0, high: steps * step, log: false }
    }

    /// Seconds of a run, written in minutes where it is long.
    pub(super) fn time(end: f64) -> Axis {
        let end = end.clamp(1.0, 1e9);
        let steps = [1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 21600.0];
        let step = steps.into_iter().find(|step| end / step <= 8.0).unwrap_or_else(|| round_step(end / 6.0));
        let write = |at: f64| match end < 180.0 {
            true => format!("{at:.0}"),
            false => format!("{:.0}:{:02.0}", (at / 60.0).floor(), at % 60.0),
        };
        let ticks = (0..=(end / step) as u32).map(|index| Tick::new(f64::from(index) * step, write)).collect();
        let label = if end < 180.0 { "seconds since the start" } else { "minutes since the start" };
        Axis { label, ticks, low: 0.0, high: end, log: false }
    }

    /// Milliseconds from `low` to `high`, logarithmic.
    pub(super) fn latency(values: impl Iterator<Item = f64>) -> Axis {
        let (mut low, mut high) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|value| value.is_finite()) {
            let value = value.clamp(1e-3, 1e7);
            (low, high) = (low.min(value), high.max(value));
        }
        if high == 0.0 {
            (low, high) = (0.1, 10.0);
        }
        let low = around(low * 0.98, false);
        let high = around((high * 1.02).max(low * 4.0), true);
        let decades = (high / low).log10();
        let mut ticks = Vec::new();
        let mut decade = 10_f64.powf(low.log10().floor());
        while decade <= high * 1.001 {
            for mantissa in [1.0, 2.0, 5.0] {
                let value = decade * mantissa;
                if value < low * 0.999 || value > high * 1.001 {
                    continue;
                }
                let written = mantissa == 1.0 || decades <= 3.1;
                ticks.push(Tick { value, text: if written { text::tick(value) } else { String::new() } });
            }
            decade *= 10.0;
        }
        Axis { label: "latency, log scale", ticks, low, high, log: true }
    }

    /// One over the share that is slower, logarithmic, up to the most extreme share that `count` values can show.
    pub(super) fn percentiles(count: f64) -> Axis {
        let high = count.clamp(100.0, 1e6);
        let ticks = SHARES
            .iter()
            .filter(|(value, _)| *value <= high * 1.001)
            .map(|(value, text)| Tick { value: *value, text: (*text).to_owned() })
            .collect();
        Axis { label: "share of operations that were at least as fast", ticks, low: 1.0, high, log: true }
    }

    /// Where `value` lies between the ends (promise 1).
    pub(super) fn place(&self, value: f64) -> f64 {
        let share = match self.log {
            true => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) }
    }
}

impl Tick {
    fn new(value: f64, write: impl Fn(f64) -> String) -> Tick {
        Tick { value, text: write(value) }
    }
}

/// The next of 1, 2, 2.5, 5 × 10ⁿ that is not below `step`.
fn round_step(step: f64) -> f64 {
    let decade = 10_f64.powf(step.log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0]
        .map(|mantissa| mantissa * decade)
        .into_iter()
        .find(|round| *round >= step * 0.999)
        .unwrap_or(step)
}

/// `value` rounded, up or down, to one of 1, 2, 5 × 10ⁿ.
fn around(value: f64, up: bool) -> f64 {
    let decade = 10_f64.powf(value.log10().floor());
    let mantissa = value / decade;
    let rounds = [1.0, 2.0, 5.0, 10.0];
    let round = match up {
        true => rounds.into_iter().find(|round| *round >= mantissa * 0.999),
        false => rounds.into_iter().rev().find(|round| *round <= mantissa * 1.001),
    };
    round.unwrap_or(1.0) * decade
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_leaves_the_frame() {
        let axes = [
            Axis::from_zero("x", 0.0),
            Axis::from_zero("x", f64::MAX),
            Axis::time(1.0),
            Axis::time(90_000.0),
            Axis::latency(std::iter::empty()),
            Axis::latency([0.0, 5e9].into_iter()),
            Axis::percentiles(1.0),
        ];
        for axis in axes {
            assert!(axis.high > axis.low, "promise 2");
            assert!((2..60).contains(&axis.ticks.len()), "{} ticks", axis.ticks.len());
            for value in [f64::NEG_INFINITY, -1.0, 0.0, 1e-9, 3.0, 1e300, f64::INFINITY, f64::NAN] {
                assert!((0.0..=1.0).contains(&axis.place(value)), "promise 1: {value}");
            }
            for tick in &axis.ticks {
                assert!(axis.place(tick.value).is_finite());
            }
        }
    }

    #[test]
    fn a_latency_axis_ends_at_round_numbers() {
        let axis = Axis::latency([0.31, 7.9, 44.0].into_iter());
        assert_eq!((axis.low, axis.high), (0.2, 50.0));
        let written: Vec<&str> = axis.ticks.iter().map(|tick| tick.text.as_str()).collect();
        assert_eq!(written, ["200 µs", "500 µs", "1 ms", "2 ms", "5 ms", "10 ms", "20 ms", "50 ms"]);
    }
}
