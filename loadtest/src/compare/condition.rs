//! `--fail-if`: what may not be.
//!
//! # Promises
//! 1. A condition says what fails, of B: `p99>+10%` fails where B's p99 is more than 10 % above A's, `p99>15ms`
//!    where it is above 15 ms, whatever A's.
//! 2. What cannot be read is shown with a caret under the place, and an example that works.
//! 3. A figure that is missing decides nothing: the condition is undecided, neither held nor not.

use std::fmt;

use super::metric::{Metric, NAMES};

/// `METRIC OPERATOR BOUND`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Condition {
    pub(crate) metric: Metric,
    operator: Operator,
    bound: Bound,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Above,
    Below,
    AtLeast,
    AtMost,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Bound {
    /// A's figure times this.
    Relative(f64),
    /// In the metric's unit.
    Absolute(f64),
}

/// Why a condition could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    text: String,
    /// In characters.
    at: usize,
    reason: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unreadable { text, at, reason } = self;
        write!(
            f,
            "{reason}\n\n    {text}\n    {:at$}^\n\nFor example: 'p99>+10%', 'throughput<-5%', 'write.p99>=15ms', 'errors>0'",
            ""
        )
    }
}

impl std::error::Error for Unreadable {}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Condition {
    /// Reads one (promise 2).
    pub(crate) fn parse(text: &str) -> Result<Condition, Unreadable> {
        let unreadable = |byte: usize, reason: String| Unreadable {
            text: text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect(),
            at: text[..byte].chars().count(),
            reason,
        };
        let Some(at) = text.find(['<', '>', '=', '!']) else {
            let reason = "an operator is missing: >, <, >= or <=".to_owned();
            return Err(unreadable(text.trim_end().len(), reason));
        };
        let (name, rest) = text.split_at(at);
        let start = name.len() - name.trim_start().len();
        let metric = Metric::named(name.trim()).ok_or_else(|| {
            let reason = match name.trim() {
                "" => "a metric is missing".to_owned(),
                unknown => format!("{unknown:?} is no metric"),
            };
            unreadable(start, format!("{reason}; there are: {NAMES}"))
        })?;
        let operators =
            [(">=", Operator::AtLeast), ("<=", Operator::AtMost), (">", Operator::Above), ("<", Operator::Below)];
        let Some((symbol, operator)) = operators.into_iter().find(|(symbol, _)| rest.starts_with(symbol)) else {
            return Err(unreadable(at, "no operator: there are >, <, >= and <=".to_owned()));
        };
        let bound_text = &rest[symbol.len()..];
        let bound_at = at + symbol.len() + (bound_text.len() - bound_text.trim_start().len());
        let bound = bound(bound_text.trim(), metric).map_err(|(byte, reason)| unreadable(bound_at + byte, reason))?;
        Ok(Condition { metric, operator, bound, text: text.trim().to_owned() })
    }

    /// Whether it holds of B against A; none where a figure it needs is missing (promise 3).
    pub(crate) fn holds(&self, a: Option<f64>, b: Option<f64>) -> Option<bool> {
        let (b, limit) = (b?, self.limit(a)?);
        Some(match self.operator {
            Operator::Above => b > limit,
            Operator::Below => b < limit,
            Operator::AtLeast => b >= limit,
            Operator::AtMost => b <= limit,
        })
    }

    /// What B is held against.
    pub(crate) fn limit(&self, a: Option<f64>) -> Option<f64> {
        match self.bound {
            Bound::Relative(factor) => a.map(|a| a * factor),
            Bound::Absolute(limit) => Some(limit),
        }
    }
}

/// Reads what stands after the operator, or tells at which byte it fails.
fn bound(text: &str, metric: Metric) -> Result<Bound, (usize, String)> {
    let digits = text.find(|other: char| !other.is_ascii_digit() && !"+-.".contains(other)).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    if number.is_empty() {
        return Err((0, "a number is missing after the operator".to_owned()));
    }
    let value: f64 = number.parse().map_err(|_| (0, format!("{number:?} is no number")))?;
    let suffix = suffix.trim();
    let signed = number.starts_with(['+', '-']);
    if suffix == "%" {
        return match signed {
            true if value >= -100.0 => Ok(Bound::Relative(1.0 + value / 100.0)),
            true => Err((0, "nothing falls by more than 100 %".to_owned())),
            false => Err((0, format!("a share of A's figure needs a sign: +{number}% or -{number}%"))),
        };
    }
    if signed {
        return Err((0, format!("a signed bound is a share of A's figure: write {number}%, or leave the sign out")));
    }
    let factor = metric.unit().factor(suffix).ok_or_else(|| {
        let reason = match metric.unit().suffix() {
            "" => format!("{} is a count: {suffix:?} does not fit", metric.name()),
            unit => format!("{} is in {unit}: {suffix:?} does not fit", metric.name()),
        };
        (digits, reason)
    })?;
    Ok(Bound::Absolute(value * factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(text: &str, a: f64, b: f64) -> bool {
        Condition::parse(text).expect(text).holds(Some(a), Some(b)).expect("both are there")
    }

    #[test]
    fn a_condition_says_what_fails() {
        assert!(holds("p99>+10%", 10.0, 11.01) && !holds("p99>+10%", 10.0, 11.0), "promise 1");
        assert!(holds("throughput < -5%", 100.0, 94.9) && !holds("throughput < -5%", 100.0, 95.1));
        assert!(holds("write.p99>=15ms", 1.0, 15.0) && !holds("write.p99>15ms", 1.0, 15.0));
        assert!(holds("max>0.5s", 9999.0, 501.0) && holds("p50<=250us", 0.0, 0.25));
        assert!(holds("throughput<150K", 0.0, 149_999.0) && holds("server_memory_bytes>200MiB", 0.0, 210e6));
        assert!(holds("errors>0", 0.0, 1.0) && !holds("errors>0", 7.0, 0.0));
        assert!(holds("errors>+10%", 0.0, 1.0), "any error is more than none");
        assert!(!holds("errors>+10%", 0.0, 0.0));
    }

    #[test]
    fn a_missing_figure_decides_nothing() {
        let relative = Condition::parse("p99>+10%").expect("read");
        assert_eq!((relative.holds(None, Some(1.0)), relative.holds(Some(1.0), None)), (None, None), "promise 3");
        let absolute = Condition::parse("p99>10").expect("read");
        assert_eq!(absolute.holds(None, Some(11.0)), Some(true), "A is not asked");
    }

    #[test]
    fn what_cannot_be_read_is_pointed_at() {
        let cases = [
            ("p98>+10%", 0, "no metric"),
            ("p99", 3, "operator is missing"),
            ("p99=10", 3, "no operator"),
            ("p99!=10", 3, "no operator"),
            (">10", 0, "metric is missing"),
            ("p99>", 4, "number is missing"),
            ("p99>10%", 4, "needs a sign"),
            ("p99>+10", 4, "write +10%"),
            ("p99>-101%", 4, "more than 100"),
            ("p99>5.5.5", 4, "no number"),
            ("p99> 15 kg", 7, "is in ms"),
            ("errors>3ms", 8, "is a count"),
            ("p99>ten", 4, "number is missing"),
            ("µ>1", 0, "no metric"),
        ];
        for (text, at, reason) in cases {
            let error = Condition::parse(text).expect_err(text);
            assert_eq!(error.at, at, "{text}: {error}");
            assert!(error.reason.contains(reason), "{text}: {error}");
            assert!(error.to_string().contains("For example"), "promise 2");
        }
        let shown = Condition::parse("p99>10%").expect_err("no sign").to_string();
        assert!(shown.contains("\n    p99>10%\n        ^\n"), "{shown}");
    }
}
