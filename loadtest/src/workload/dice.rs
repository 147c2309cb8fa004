//! A small generator of random numbers: a few nanoseconds each, and good enough to spread load.

use std::time::Duration;

/// xorshift64*.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Different seeds give different sequences.
    pub(crate) fn new(seed: u64) -> Dice {
        // SplitMix64's finisher: neighbouring seeds begin far apart. The state must not be 0.
        let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Dice((z ^ (z >> 31)) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// From 0 to below `end`, or 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// From 0 to below 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True in `percent` of 100 cases.
    pub(crate) fn percent(&mut self, percent: f64) -> bool {
        self.unit() * 100.0 < percent
    }

    /// Exponentially distributed with this mean: the gaps of a Poisson process.
    pub(crate) fn exponential(&mut self, mean: Duration) -> Duration {
        Duration::from_secs_f64(mean.as_secs_f64() * -(1.0 - self.unit()).ln())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_evenly_within_bounds() {
        let mut dice = Dice::new(1);
        let mut hits = [0_u32; 10];
        for _ in 0..100_000 {
            hits[dice.below(10) as usize] += 1;
        }
        assert!(hits.iter().all(|hit| (9_500..10_500).contains(hit)), "{hits:?}");
        assert_eq!(dice.below(0), 0);
        let share = (0..100_000).filter(|_| dice.percent(20.0)).count();
        assert!((19_500..20_500).contains(&share), "{share}");
    }

    #[test]
    fn gaps_have_the_mean_asked_for() {
        let mut dice = Dice::new(2);
        let mean = Duration::from_millis(10);
        let sum: Duration = (0..100_000).map(|_| dice.exponential(mean)).sum();
        let got = sum.as_secs_f64() / 100_000.0;
        assert!((got - 0.010).abs() < 0.000_2, "{got}");
    }
}
