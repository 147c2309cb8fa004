//! The search for an order.
//!
//! A configuration is which operations have happened, and the state of the lock. Whatever may be next is an
//! operation that was sent before the first answer to any other that has not happened yet: that answer's time is
//! the *horizon*. A configuration that was met before is not entered again.
//!
//! Three things keep histories of thousands of operations cheap:
//! 1. What can be observed now and changes nothing is taken at once: whatever order there is, it stays one when
//!    this comes first.
//! 2. Tokens only rise, so of all grants that must have happened only the one with the lowest token can be next.
//! 3. An acquire of unknown outcome that nobody has seen anything of is left out: if it was granted, it was
//!    given back.

use std::collections::HashSet;

use super::{
    At, History, Op, Token, What,
    lock::{Ends, State, Step},
};

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
pub(super) fn search(history: &History, budget: usize) -> Found {
    let all = All::of(history);
    let mut seen = HashSet::new();
    let mut open = vec![Config::default()];
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
struct All<'a> {
    /// What must have happened, in the order in which it was sent.
    certain: Vec<&'a Op>,
    /// What may have, and up to which of the certain ones it matters.
    perhaps: Vec<(&'a Op, usize)>,
    /// Of the certain grants, rising.
    tokens: Vec<Token>,
    ends: Ends,
}

/// See the [module](self).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Config {
    state: State,
    /// All certain operations before this one have happened.
    first: usize,
    /// And of those from it on, these.
    further: Bits,
    /// Of the others, these.
    perhaps: Bits,
}

impl<'a> All<'a> {
    fn of(history: &'a History) -> All<'a> {
        let mut certain: Vec<&Op> = history.ops.iter().filter(|op| op.is_certain()).collect();
        certain.sort_by_key(|op| (op.invoked, op.returned));
        let mut tokens: Vec<Token> = certain.iter().filter_map(|op| granted(op)).collect();
        tokens.sort_unstable();
        // Somebody may have seen a grant that its own client heard nothing of.
        let stranger = |token: Token| tokens.binary_search(&token).is_err();
        // The last that is heard of a session's hidden grant; before it, the grant may matter.
        let told_of = |session| {
            certain.iter().rposition(|op| match op.what {
                What::Refused { by } => by.is_some_and(stranger),
                What::Holds { token } => op.session == session && stranger(token),
                What::Read { held: Some((holder, token)) } => holder == session && stranger(token),
                _ => false,
            })
        };
        let mut perhaps = Vec::new();
        for op in history.ops.iter().filter(|op| !op.is_certain() && op.what.may_change()) {
            let until = match op.what {
                What::Asked => told_of(op.session),
                // What nobody speaks of and nobody was refused for can be left out.
                What::Granted { token, .. } => certain.iter().rposition(|certain| {
                    certain.what == What::Refused { by: None } || certain.what.token() == Some(token)
                }),
                _ => Some(usize::MAX),
            };
            perhaps.extend(until.map(|until| (op, until)));
        }
        All { certain, perhaps, tokens, ends: Ends::of(history) }
    }

    /// The certain operations that may be next, and the horizon; `None` where all have happened.
    fn next(&self, config: &Config) -> Option<(Vec<usize>, At)> {
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
    fn observe(&self, config: &mut Config) -> Option<At> {
        loop {
            let (next, horizon) = self.next(config)?;
            let step = |n: usize| config.state.step(self.certain[n], &self.ends, horizon);
            let observed: Vec<usize> = next.into_iter().filter(|n| matches!(step(*n), Step::Observed)).collect();
            if observed.is_empty() {
                // What cannot happen any more makes no two configurations of one.
                let past = |n: &usize| {
                    let (op, until) = self.perhaps[*n];
                    config.first > until || config.state.is_past(op)
                };
                let past: Vec<usize> = (0..self.perhaps.len()).filter(past).collect();
                past.into_iter().for_each(|n| config.perhaps.set(n));
                return Some(horizon);
            }
            observed.into_iter().for_each(|n| config.happened(n));
        }
    }

    /// Every configuration that may follow; the most likely one last.
    fn expand(&self, config: &Config, horizon: At, into: &mut Vec<Config>) {
        for (n, (op, _)) in self.perhaps.iter().enumerate() {
            if config.perhaps.has(n) || op.invoked > horizon || self.overtakes(config, op) {
                continue;
            }
            if let Step::To(state) = config.state.step(op, &self.ends, horizon) {
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
            if let Step::To(state) = config.state.step(op, &self.ends, horizon) {
                let mut next = Config { state, ..config.clone() };
                next.happened(n);
                into.push(next);
            }
        }
    }

    /// Whether a lower token must have been granted before.
    fn overtakes(&self, config: &Config, op: &Op) -> bool {
        let above = self.tokens.partition_point(|token| *token <= config.state.last());
        granted(op).is_some_and(|token| self.tokens.get(above).is_some_and(|lowest| *lowest < token))
    }
}

fn granted(op: &Op) -> Option<Token> {
    match op.what {
        What::Granted { token, .. } => Some(token),
        _ => None,
    }
}

impl Config {
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
