//! The search for an order.
//!
//! A configuration is which operations have happened, and the state of the object. Whatever may be next is an
//! operation that was sent before the first answer to any other that has not happened yet: that answer's time is
//! the *horizon*. A configuration that was met before is not entered again.
//!
//! Three things keep histories of thousands of operations cheap:
//! 1. What can be observed now and changes nothing is taken at once: whatever order there is, it stays one when
//!    this comes first.
//! 2. Tokens and versions only rise, so of all grants and changes that must have happened only the one with the lowest
//!    can be next.
//! 3. What nobody knows the outcome of is left out from where on it cannot matter any more.

use std::collections::HashSet;

use super::{At, History, Object, Op, Step};

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Order,
    /// There is none.
    None,
    /// It took too many configurations.
    TooMuch,
}

/// Looks for an order of the history, through at most `budget` configurations.
pub(super) fn search<W: Object>(history: &History<W>, budget: usize) -> Found {
    let all = All::of(history);
    let mut seen = HashSet::new();
    let mut open: Vec<Config<W::State>> = W::first(&all.known).into_iter().map(Config::begin).collect();
    while let Some(mut config) = open.pop() {
        let Some(horizon) = all.observe(&mut config) else { return Found::Order };
        if seen.contains(&config) {
            continue;
        }
        if seen.len() >= budget {
            return Found::TooMuch;
        }
        all.expand(&config, horizon, &mut open);
        seen.insert(config);
    }
    Found::None
}

/// A history, made ready.
struct All<'a, W: Object> {
    /// What must have happened, in the order in which it was sent.
    certain: Vec<&'a Op<W>>,
    /// What may have, and up to which of the certain ones it matters.
    perhaps: Vec<(&'a Op<W>, usize)>,
    /// Of the certain ones, rising.
    ranks: Vec<u64>,
    known: W::Known,
}

/// See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Config<S> {
    state: S,
    /// All certain operations before this one have happened.
    first: usize,
    /// And of those from it on, these.
    further: Bits,
    /// Of the others, these.
    perhaps: Bits,
}

impl<'a, W: Object> All<'a, W> {
    fn of(history: &'a History<W>) -> All<'a, W> {
        let mut certain: Vec<&Op<W>> = history.ops.iter().filter(|op| op.is_certain()).collect();
        certain.sort_by_key(|op| (op.invoked, op.returned));
        let mut ranks: Vec<u64> = certain.iter().filter_map(|op| op.what.rank()).collect();
        ranks.sort_unstable();
        let uncertain = history.ops.iter().filter(|op| !op.is_certain() && op.what.may_change());
        let perhaps = uncertain.filter_map(|op| Some((op, W::matters(op, &certain, &ranks)?))).collect();
        All { certain, perhaps, ranks, known: W::know(history) }
    }

    /// The certain operations that may be next, and the horizon; `None` where all have happened.
    fn next(&self, config: &Config<W::State>) -> Option<(Vec<usize>, At)> {
        let (mut next, mut horizon) = (Vec::new(), None);
        for (n, op) in self.certain.iter().enumerate().skip(config.first) {
            if config.further.has(n - config.first) {
                continue;
            }
            if horizon.is_some_and(|horizon| op.invoked > horizon) {
                break;
            }
            next.push(n);
            let returned = op.returned.unwrap_or(At::MAX);
            horizon = Some(horizon.map_or(returned, |horizon: At| horizon.min(returned)));
        }
        // Whatever was sent no later than one of them was sent no later than the first answer.
        horizon.map(|horizon| (next, horizon))
    }

    /// Lets everything happen that changes nothing. Returns the horizon; `None` where all have happened.
    fn observe(&self, config: &mut Config<W::State>) -> Option<At> {
        loop {
            let (next, horizon) = self.next(config)?;
            let step = |n: usize| W::step(&config.state, self.certain[n], &self.known, horizon);
            let observed: Vec<usize> = next.into_iter().filter(|n| matches!(step(*n), Step::Observed)).collect();
            if observed.is_empty() {
                // What cannot happen any more makes no two configurations of one.
                let past = |n: &usize| {
                    let (op, until) = self.perhaps[*n];
                    config.first > until || W::is_past(&config.state, op, &self.known)
                };
                let past: Vec<usize> = (0..self.perhaps.len()).filter(past).collect();
                past.into_iter().for_each(|n| config.perhaps.set(n));
                return Some(horizon);
            }
            observed.into_iter().for_each(|n| config.happened(n));
        }
    }

    /// Every configuration that may follow; the most likely one last.
    fn expand(&self, config: &Config<W::State>, horizon: At, into: &mut Vec<Config<W::State>>) {
        for (n, (op, _)) in self.perhaps.iter().enumerate() {
            if config.perhaps.has(n) || op.invoked > horizon || self.overtakes(config, op) {
                continue;
            }
            if let Step::To(state) = W::step(&config.state, op, &self.known, horizon) {
                let mut next = Config { state, ..config.clone() };
                next.perhaps.set(n);
                into.push(next);
            }
        }
        let (mut next, _) = self.next(config).unwrap_or_default();
        next.sort_by_key(|n| std::cmp::Reverse(self.certain[*n].returned));
        for n in next {
            let op = self.certain[n];
            if self.overtakes(config, op) {
                continue;
            }
            if let Step::To(state) = W::step(&config.state, op, &self.known, horizon) {
                let mut next = Config { state, ..config.clone() };
                next.happened(n);
                into.push(next);
            }
        }
    }

    /// Whether a lower one must have happened before.
    fn overtakes(&self, config: &Config<W::State>, op: &Op<W>) -> bool {
        let above = self.ranks.partition_point(|rank| *rank <= W::last(&config.state));
        op.what.rank().is_some_and(|rank| self.ranks.get(above).is_some_and(|lowest| *lowest < rank))
    }
}

impl<S> Config<S> {
    fn begin(state: S) -> Config<S> {
        Config { state, first: 0, further: Bits::default(), perhaps: Bits::default() }
    }

    fn happened(&mut self, n: usize) {
        self.further.set(n - self.first);
        let whole = self.further.leading();
        self.first += whole;
        self.further.shift(whole);
    }
}

/// A set of small numbers, equal where the numbers are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Bits(Vec<u64>);

impl Bits {
    fn has(&self, n: usize) -> bool {
        self.0.get(n / 64).is_some_and(|word| word >> (n % 64) & 1 == 1)
    }

    fn set(&mut self, n: usize) {
        if self.0.len() <= n / 64 {
            self.0.resize(n / 64 + 1, 0);
        }
        self.0[n / 64] |= 1 << (n % 64);
    }

    /// How many from 0 on are in it without a gap.
    fn leading(&self) -> usize {
        let full = self.0.iter().take_while(|word| **word == u64::MAX).count();
        full * 64 + self.0.get(full).map_or(0, |word| word.trailing_ones() as usize)
    }

    /// Takes `by` from each; those below are left out.
    fn shift(&mut self, by: usize) {
        if by == 0 {
            return;
        }
        self.0.drain(..(by / 64).min(self.0.len()));
        let by = by % 64;
        if by > 0 {
            for n in 0..self.0.len() {
                let above = self.0.get(n + 1).copied().unwrap_or(0);
                self.0[n] = self.0[n] >> by | above << (64 - by);
            }
        }
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_of_bits_is_a_set(mut numbers in prop::collection::btree_set(0_usize..300, 0..200), by in 0_usize..300) {
            let mut bits = Bits::default();
            numbers.iter().for_each(|n| bits.set(*n));
            let leading = (0..).take_while(|n| numbers.contains(n)).count();
            prop_assert_eq!(bits.leading(), leading);
            numbers = numbers.into_iter().filter_map(|n| n.checked_sub(by)).collect();
            bits.shift(by);
            for n in 0..310 {
                prop_assert_eq!(bits.has(n), numbers.contains(&n));
            }
            let mut same = Bits::default();
            numbers.iter().for_each(|n| same.set(*n));
            prop_assert_eq!(bits, same);
        }
    }
}
