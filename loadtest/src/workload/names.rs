//! Which lock an operation is about.
//!
//! Uniform, or by Zipf's law: the k-th most wanted of n names is asked for in proportion to k^-s. Drawing is
//! by rejection-inversion (Hörmann and Derflinger, *Rejection-inversion to generate variates from monotone
//! discrete distributions*, 1996): constant time and no table, whatever the number of names.

use std::{fmt, str::FromStr};

use super::dice::Dice;

/// How requests spread over the names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Distribution {
    /// All alike.
    Uniform,
    /// By Zipf's law with this exponent.
    Zipf(f64),
}

impl FromStr for Distribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Distribution, String> {
        let exponent = match text.split_once(':') {
            None if text == "uniform" => return Ok(Distribution::Uniform),
            None if text == "zipf" => 1.0,
            Some(("zipf", exponent)) => exponent.parse().map_err(|_| format!("{exponent:?} is not a number"))?,
            _ => return Err(format!("{text:?} is neither uniform nor zipf nor zipf:EXPONENT")),
        };
        match (0.01..=10.0).contains(&exponent) {
            true => Ok(Distribution::Zipf(exponent)),
            false => Err(format!("an exponent of {exponent} is not from 0.01 to 10")),
        }
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Distribution::Uniform => f.write_str("uniform"),
            Distribution::Zipf(exponent) => write!(f, "zipf {exponent}"),
        }
    }
}

/// Draws names from 0 to below a count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    count: u64,
    zipf: Option<Zipf>,
}

impl Names {
    /// Of `count` names, at least one.
    pub(crate) fn new(count: u64, distribution: Distribution) -> Names {
        let count = count.max(1);
        let zipf = match distribution {
            Distribution::Uniform => None,
            Distribution::Zipf(exponent) => Some(Zipf::new(count as f64, exponent)),
        };
        Names { count, zipf }
    }

    /// The next; under Zipf's law, name 0 is the most wanted.
    pub(crate) fn draw(&self, dice: &mut Dice) -> u64 {
        match &self.zipf {
            None => dice.below(self.count),
            Some(zipf) => (zipf.draw(dice) as u64).clamp(1, self.count) - 1,
        }
    }
}

/// Ranks from 1 to `count`. The hat is the density x^-s over [k - ½, k + ½], whose integral H has an inverse.
#[derive(Clone, Copy, Debug)]
struct Zipf {
    count: f64,
    exponent: f64,
    /// H at 1½, less the weight of rank 1: the lower end of the draw.
    first: f64,
    /// H at n + ½: the upper end.
    last: f64,
    /// Ranks this near above their draw are taken without looking.
    near: f64,
}

impl Zipf {
    fn new(count: f64, exponent: f64) -> Zipf {
        let mut zipf = Zipf { count, exponent, first: 0.0, last: 0.0, near: 0.0 };
        zipf.first = zipf.integral(1.5) - 1.0;
        zipf.last = zipf.integral(count + 0.5);
        zipf.near = 2.0 - zipf.inverse(zipf.integral(2.5) - zipf.density(2.0));
        zipf
    }

    fn draw(&self, dice: &mut Dice) -> f64 {
        loop {
            let area = self.last + dice.unit() * (self.first - self.last);
            let at = self.inverse(area);
            let rank = at.round().clamp(1.0, self.count);
            if rank - at <= self.near || area >= self.integral(rank + 0.5) - self.density(rank) {
                return rank;
            }
        }
    }

    fn density(&self, x: f64) -> f64 {
        (-self.exponent * x.ln()).exp()
    }

    /// (x^(1-s) - 1) / (1 - s), and ln x where s is 1.
    fn integral(&self, x: f64) -> f64 {
        let (log, power) = (x.ln(), 1.0 - self.exponent);
        if (power * log).abs() < 1e-8 { log } else { (power * log).exp_m1() / power }
    }

    fn inverse(&self, area: f64) -> f64 {
        let power = 1.0 - self.exponent;
        // Rounding must not leave the domain.
        let scaled = (area * power).max(-1.0);
        if scaled.abs() < 1e-8 { area.exp() } else { (scaled.ln_1p() / power).exp() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(names: &Names, draws: u32) -> Vec<u32> {
        let mut dice = Dice::new(3);
        let mut counts = vec![0; names.count as usize];
        for _ in 0..draws {
            counts[names.draw(&mut dice) as usize] += 1;
        }
        counts
    }

    #[test]
    fn zipf_draws_each_rank_as_often_as_the_law_says() {
        for exponent in [0.5, 0.99, 1.0, 1.5, 3.0] {
            let counts = counts(&Names::new(50, Distribution::Zipf(exponent)), 200_000);
            let total: f64 = (1..=50).map(|rank| f64::from(rank).powf(-exponent)).sum();
            for (rank, count) in (1..).zip(counts) {
                let expected = 200_000.0 * f64::from(rank).powf(-exponent) / total;
                let off = (f64::from(count) - expected).abs();
                assert!(off <= 5.0 * expected.sqrt() + 5.0, "s {exponent}, rank {rank}: {count}, not {expected:.0}");
            }
        }
    }

    #[test]
    fn every_name_can_be_drawn_and_none_beyond() {
        assert!(counts(&Names::new(100, Distribution::Uniform), 10_000).iter().all(|count| *count > 0));
        assert_eq!(counts(&Names::new(1, Distribution::Zipf(1.2)), 100), [100]);
        let many = Names::new(10_000_000, Distribution::Zipf(1.0));
        let mut dice = Dice::new(4);
        assert!((0..100_000).map(|_| many.draw(&mut dice)).all(|name| name < 10_000_000));
    }

    #[test]
    fn distributions_are_written_as_words() {
        assert_eq!("uniform".parse(), Ok(Distribution::Uniform));
        assert_eq!("zipf:1.1".parse(), Ok(Distribution::Zipf(1.1)));
        for wrong in ["zipf:", "zipf:0", "zipf:-1", "zipf:x", "normal", "uniform:1", "zipf:NaN"] {
            assert!(wrong.parse::<Distribution>().is_err(), "{wrong}");
        }
    }
}
