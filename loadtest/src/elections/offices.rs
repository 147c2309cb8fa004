//! Terms of office: who is in one, and whether ever two are.

use std::{collections::BTreeMap, time::Duration};

use crate::faults::Spread;

/// A moment of the one clock of this machine.
pub(super) type At = Duration;

/// How an office was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// The leader's process was killed.
    Killed,
    /// The leader resigned.
    Resigned,
    /// The leader lost its session.
    Lost,
}

/// One term.
#[derive(Clone, Copy, Debug)]
struct Term {
    process: u32,
    token: u64,
    from: At,
    left: Option<(At, How)>,
}

/// All terms of all elections.
#[derive(Debug, Default)]
pub(super) struct Offices(BTreeMap<String, Vec<Term>>);

impl Offices {
    /// A candidate of this process was told at this moment that it leads.
    pub(super) fn leads(&mut self, process: u32, name: &str, token: u64, from: At) {
        let terms = self.0.entry(name.to_owned()).or_default();
        terms.push(Term { process, token, from, left: None });
    }

    /// From this moment on a leader did not take itself for one any more.
    pub(super) fn left(&mut self, name: &str, token: u64, at: At, how: How) {
        let terms = self.0.get_mut(name).into_iter().flatten();
        if let Some(term) = terms.into_iter().find(|term| term.token == token && term.left.is_none()) {
            term.left = Some((at, how));
        }
    }

    /// A process was killed, and with it all its leaders.
    pub(super) fn killed(&mut self, process: u32, at: At) {
        let terms = self.0.values_mut().flatten().filter(|term| term.process == process && term.left.is_none());
        terms.for_each(|term| term.left = Some((at, How::Killed)));
    }

    /// The process that an election's leader is in.
    pub(super) fn leader(&self, name: &str) -> Option<u32> {
        self.0.get(name)?.iter().rev().find(|term| term.left.is_none()).map(|term| term.process)
    }

    /// How many elections have a leader.
    pub(super) fn led(&self) -> usize {
        self.0.values().filter(|terms| terms.iter().any(|term| term.left.is_none())).count()
    }

    /// The elections that a process leads.
    pub(super) fn led_by(&self, process: u32) -> Vec<&str> {
        self.0.keys().filter(|name| self.leader(name) == Some(process)).map(String::as_str).collect()
    }

    /// How many terms there were.
    pub(super) fn terms(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Each election and its terms' tokens.
    pub(super) fn by_election(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = u64>)> {
        self.0.iter().map(|(name, terms)| (name.as_str(), terms.iter().map(|term| term.token)))
    }

    /// What is wrong, by the times at which things were told.
    pub(super) fn judge(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (name, terms) in &mut self.0 {
            terms.sort_by_key(|term| term.from);
            for (one, next) in terms.iter().zip(terms.iter().skip(1)) {
                if next.token <= one.token {
                    wrong.push(format!("{name}: term {} came after term {}", next.token, one.token));
                }
                if one.left.is_none_or(|(at, _)| at > next.from) {
                    wrong.push(format!("{name}: two in office, by terms {} and {}", one.token, next.token));
                }
            }
        }
        wrong
    }

    /// From how each office was left so to the next term.
    pub(super) fn handoffs(&self, how: How) -> Spread {
        let next = |terms: &[Term]| -> Vec<f64> {
            let pairs = terms.iter().zip(terms.iter().skip(1));
            let of = pairs.filter_map(|(one, next)| {
                one.left.filter(|(_, left)| *left == how).map(|(at, _)| next.from.saturating_sub(at).as_secs_f64())
            });
            of.collect()
        };
        Spread::of(self.0.values().flat_map(|terms| next(terms)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> At {
        Duration::from_secs(seconds)
    }

    #[test]
    fn one_term_after_the_other_is_right_however_late_it_is_heard_of() {
        let mut offices = Offices::default();
        offices.leads(0, "a", 1, s(1));
        // What the next was told is heard before the resignation that it followed.
        offices.leads(1, "a", 3, s(5));
        offices.left("a", 1, s(4), How::Resigned);
        assert_eq!((offices.led(), offices.leader("a"), offices.led_by(1).len()), (1, Some(1), 1));
        offices.killed(1, s(6));
        assert_eq!(offices.led(), 0);
        offices.leads(0, "a", 9, s(9));
        assert!(offices.judge().is_empty());
        assert_eq!((offices.handoffs(How::Resigned).max, offices.handoffs(How::Killed).max), (Some(1.0), Some(3.0)));
    }

    #[test]
    fn two_in_office_and_a_term_that_does_not_rise_are_seen() {
        let mut offices = Offices::default();
        offices.leads(0, "a", 1, s(1));
        offices.leads(1, "a", 2, s(5));
        assert!(offices.judge()[0].contains("two in office"));
        offices.left("a", 1, s(6), How::Lost);
        assert!(offices.judge()[0].contains("two in office"));
        let mut offices = Offices::default();
        offices.leads(0, "a", 2, s(1));
        offices.killed(0, s(2));
        offices.leads(1, "a", 2, s(5));
        assert!(offices.judge()[0].contains("came after"));
    }
}
