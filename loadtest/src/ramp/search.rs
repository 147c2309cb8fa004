//! Which rate to try next: doubling until one fails, then bisection. A function of what was measured.
//!
//! # Promises
//! 1. A rate is given up only when it failed twice: one bad step on a busy machine decides nothing.
//! 2. The rate found was met, and the next rate above it that was tried, at most the precision away, failed.
//! 3. It ends: the rates that are tried between two bounds are a bounded number.

/// How many times the rate is halved below the first before it is given up: to a thousandth.
const HALVINGS: u32 = 10;

/// How to search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Search {
    /// The first rate, operations per second.
    pub(crate) first: f64,
    /// No rate above this is tried.
    pub(crate) most: f64,
    /// How far apart the highest that was met and the lowest that failed may be in the end, as a ratio.
    pub(crate) precision: f64,
}

/// One rate that was tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tried {
    /// Operations per second.
    pub(crate) rate: f64,
    /// Whether all that is asked for held.
    pub(crate) met: bool,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Next {
    /// Try this rate.
    Try(f64),
    /// The search is over: this is the highest rate that was met, unless none was.
    Done(Option<f64>),
}

impl Search {
    /// What to do after these.
    pub(crate) fn next(&self, tried: &[Tried]) -> Next {
        let times = |rate: f64, met: bool| tried.iter().filter(|tried| tried.rate == rate && tried.met == met).count();
        let best = tried.iter().filter(|tried| tried.met).map(|tried| tried.rate).fold(None, higher);
        // A rate that failed and was met later was met.
        let failed = tried.iter().map(|tried| tried.rate).filter(|rate| best.is_none_or(|best| *rate > best));
        let failed = failed.fold(None, lower);
        if let Some(failed) = failed
            && times(failed, false) < 2
        {
            return Next::Try(failed);
        }
        match (best, failed) {
            (None, None) => Next::Try(self.first.min(self.most)),
            (None, Some(failed)) => match failed <= self.first.min(self.most) / f64::from(1_u32 << HALVINGS) {
                true => Next::Done(None),
                false => Next::Try(failed / 2.0),
            },
            (Some(best), None) if best >= self.most => Next::Done(Some(best)),
            (Some(best), None) => Next::Try((best * 2.0).min(self.most)),
            (Some(best), Some(failed)) if failed <= best * (1.0 + self.precision) => Next::Done(Some(best)),
            (Some(best), Some(failed)) => Next::Try((best + failed) / 2.0),
        }
    }
}

fn higher(one: Option<f64>, other: f64) -> Option<f64> {
    Some(one.map_or(other, |one| one.max(other)))
}

fn lower(one: Option<f64>, other: f64) -> Option<f64> {
    Some(one.map_or(other, |one| one.min(other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEARCH: Search = Search { first: 1_000.0, most: 1_000_000.0, precision: 0.05 };

    /// Searches a system that is asked at the numbers of the step and the rate.
    fn search(search: Search, meets: impl Fn(usize, f64) -> bool) -> (Option<f64>, Vec<Tried>) {
        let mut tried = Vec::new();
        loop {
            match search.next(&tried) {
                Next::Try(rate) => tried.push(Tried { rate, met: meets(tried.len(), rate) }),
                Next::Done(best) => return (best, tried),
            }
            assert!(tried.len() < 60, "promise 3: {tried:?}");
        }
    }

    #[test]
    fn the_limit_is_found_to_the_precision_wherever_it_is() {
        for limit in [1.0, 3.7, 999.0, 1_000.0, 1_001.0, 7_777.0, 123_456.0, 999_999.0] {
            let (best, tried) = search(SEARCH, |_, rate| rate <= limit);
            let best = best.unwrap_or_else(|| panic!("{limit}: {tried:?}"));
            assert!(best <= limit && limit <= best * 1.05, "promise 2: {best} for {limit}");
        }
    }

    #[test]
    fn doubling_comes_first_and_a_failure_is_tried_again() {
        let (best, tried) = search(SEARCH, |_, rate| rate <= 5_000.0);
        let rates: Vec<f64> = tried.iter().map(|tried| tried.rate).collect();
        assert_eq!(rates[..7], [1_000.0, 2_000.0, 4_000.0, 8_000.0, 8_000.0, 6_000.0, 6_000.0]);
        assert_eq!(best, Some(5_000.0));
    }

    #[test]
    fn one_bad_step_decides_nothing() {
        for bad in 0..10 {
            let (best, tried) = search(SEARCH, |step, rate| step != bad && rate <= 50_000.0);
            assert!(best.is_some_and(|best| (47_600.0..=50_000.0).contains(&best)), "{bad}: {tried:?}");
        }
    }

    #[test]
    fn the_ends_are_ends() {
        assert_eq!(search(SEARCH, |_, _| true).0, Some(1_000_000.0));
        let (best, tried) = search(SEARCH, |_, _| false);
        assert_eq!(best, None);
        assert_eq!(tried.len(), 2 * (HALVINGS as usize + 1));
        let low = Search { most: 600.0, ..SEARCH };
        assert_eq!(search(low, |_, _| true), (Some(600.0), vec![Tried { rate: 600.0, met: true }]));
    }
}
