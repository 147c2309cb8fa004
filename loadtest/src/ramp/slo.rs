//! What counts as good enough: `p99<10ms,errors<0.1%`.
//!
//! A list of conditions, all of which must hold. A latency is one of `mean`, `p50`, `p90`, `p99`, `p999`,
//! `p9999` and `max`, of all operations or, as in `acquire.p99`, of one kind; always from the moment at which the
//! operation was due. `errors` is the share of the operations that were due and got no answer, those that were
//! never sent included.
//!
//! # Promises
//! 1. A condition on something that did not occur does not hold: nothing says that it would.
//! 2. What is printed parses to the same again.

use std::{fmt, str::FromStr};

use crate::report::{Figures, Report};

/// What conditions look like.
const SHAPE: &str = "conditions are like p99<10ms, write.p999<50ms or errors<0.1%, with commas between them";

/// Conditions that must all hold.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Slo(Vec<Condition>);

#[derive(Clone, Debug, PartialEq)]
enum Condition {
    /// A latency, in milliseconds.
    Latency { kind: Kind, point: Point, below_ms: f64 },
    /// A share, in percent.
    Errors { below: f64 },
}

macro_rules! named {
    ($(#[$doc:meta])* $name:ident, $what:literal, $of:ty => $given:ty { $($variant:ident $text:literal $field:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum $name { $($variant),+ }

        impl $name {
            const NAMES: &'static [&'static str] = &[$($text),+];

            fn parse(text: &str) -> Result<$name, String> {
                match text {
                    $($text => Ok($name::$variant),)+
                    _ => Err(format!(concat!("{:?} is no ", $what, "; there are {}"), text, $name::NAMES.join(", "))),
                }
            }

            fn name(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }

            fn of(self, whole: &$of) -> $given {
                match self { $($name::$variant => whole.$field.clone()),+ }
            }
        }
    };
}

named! {
    /// Which operations.
    Kind, "kind of operation", crate::report::Latencies => Figures {
        All "all" all,
        Read "read" read,
        Write "write" write,
        Acquire "acquire" acquire,
        Refused "refused" refused,
        QueueWait "queue_wait" queue_wait,
        Handoff "handoff" handoff,
        Renew "renew" renew,
        Release "release" release,
        KeepAlive "keep_alive" keep_alive,
    }
}

named! {
    /// Which point of their distribution.
    Point, "latency", Figures => Option<f64> {
        Mean "mean" mean,
        P50 "p50" p50,
        P90 "p90" p90,
        P99 "p99" p99,
        P999 "p999" p999,
        P9999 "p9999" p9999,
        Max "max" max,
    }
}

impl Slo {
    /// What does not hold, in words; nothing where all does.
    pub(crate) fn broken(&self, report: &Report) -> Vec<String> {
        self.0.iter().filter_map(|condition| condition.broken(report)).collect()
    }
}

impl Condition {
    fn broken(&self, report: &Report) -> Option<String> {
        match self {
            Condition::Latency { kind, point, below_ms } => match point.of(&kind.of(&report.latency_ms)) {
                Some(ms) if ms < *below_ms => None,
                Some(ms) => Some(format!("{} {ms:.2} ms", named(*kind, *point))),
                None => Some(format!("no {} was measured", named(*kind, *point))),
            },
            Condition::Errors { below } => {
                let errors = unanswered_percent(report);
                (errors >= *below).then(|| format!("errors {errors:.3} %"))
            }
        }
    }

    /// What the condition is about; no two of a list may be about the same.
    fn about(&self) -> String {
        match self {
            Condition::Latency { kind, point, .. } => named(*kind, *point),
            Condition::Errors { .. } => "errors".to_owned(),
        }
    }
}

/// The share of operations that were due and got no answer, in percent.
pub(crate) fn unanswered_percent(report: &Report) -> f64 {
    let lost = (report.errors + report.generator.dropped) as f64;
    let answered = report.latency_ms.all.count as f64;
    if lost == 0.0 { 0.0 } else { 100.0 * lost / (answered + lost) }
}

fn named(kind: Kind, point: Point) -> String {
    match kind {
        Kind::All => point.name().to_owned(),
        kind => format!("{}.{}", kind.name(), point.name()),
    }
}

impl FromStr for Slo {
    type Err = String;

    fn from_str(text: &str) -> Result<Slo, String> {
        let mut slo = Slo(Vec::new());
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let condition: Condition = part.parse()?;
            if slo.0.iter().any(|other| other.about() == condition.about()) {
                return Err(format!("{} is limited twice", condition.about()));
            }
            slo.0.push(condition);
        }
        if slo.0.is_empty() { Err(SHAPE.to_owned()) } else { Ok(slo) }
    }
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Condition, String> {
        let (what, bound) = text.split_once('<').ok_or_else(|| format!("{text:?} has no <: {SHAPE}"))?;
        let (what, bound) = (what.trim(), bound.trim());
        if what == "errors" {
            let percent = bound.strip_suffix('%').ok_or_else(|| format!("errors<{bound}: a share needs a %"))?;
            return Ok(Condition::Errors { below: positive(percent, 100.0)? });
        }
        let (kind, point) = match what.split_once('.') {
            // As it is often written: p99.9.
            Some(("p99", "9")) => (Kind::All, Point::P999),
            Some(("p99", "99")) => (Kind::All, Point::P9999),
            Some((kind, point)) => (Kind::parse(kind)?, Point::parse(point)?),
            None => (Kind::All, Point::parse(what).map_err(|why| format!("{why}, and errors"))?),
        };
        let units = [("us", 0.001), ("µs", 0.001), ("ms", 1.0), ("s", 1_000.0)];
        let unit = units.iter().find_map(|(unit, ms)| Some((bound.strip_suffix(unit)?, ms)));
        let (number, ms) = unit.ok_or_else(|| format!("{what}<{bound}: a latency needs a unit: us, ms or s"))?;
        Ok(Condition::Latency { kind, point, below_ms: positive(number, 86_400_000.0)? * ms })
    }
}

fn positive(text: &str, most: f64) -> Result<f64, String> {
    let number: f64 = text.trim().parse().map_err(|_| format!("{:?} is not a number", text.trim()))?;
    match number > 0.0 && number <= most {
        true => Ok(number),
        false => Err(format!("{} is not above 0 and at most {most}", text.trim())),
    }
}

impl fmt::Display for Slo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, condition) in self.0.iter().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            match condition {
                Condition::Latency { below_ms, .. } => write!(f, "{comma}{}<{below_ms}ms", condition.about())?,
                Condition::Errors { below } => write!(f, "{comma}errors<{below}%")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ramp::sample;

    fn slo(text: &str) -> Slo {
        text.parse().unwrap_or_else(|why| panic!("{text}: {why}"))
    }

    #[test]
    fn what_is_printed_parses_to_the_same_again() {
        for (given, printed) in [
            ("p99<10ms,errors<0.1%", "p99<10ms,errors<0.1%"),
            (" write.p999 < 0.5s , p50<200us,", "write.p999<500ms,p50<0.2ms"),
            ("p99.9<1s", "p999<1000ms"),
            ("all.max<2ms", "max<2ms"),
        ] {
            assert_eq!(slo(given).to_string(), printed);
            assert_eq!(slo(printed), slo(given));
        }
    }

    #[test]
    fn an_error_says_what_would_do() {
        for (given, said) in [
            ("", "conditions are like"),
            ("p99", "no <"),
            ("p95<10ms", "p50, p90, p99"),
            ("p95<10ms", "and errors"),
            ("writes.p99<10ms", "read, write, acquire"),
            ("p99<10", "unit: us, ms or s"),
            ("p99<fastms", "\"fast\" is not a number"),
            ("p99<0ms", "not above 0"),
            ("p99<NaNms", "not above 0"),
            ("errors<0.1", "needs a %"),
            ("errors<200%", "at most 100"),
            ("p99<1ms,p99<2ms", "p99 is limited twice"),
        ] {
            let why = given.parse::<Slo>().expect_err(given);
            assert!(why.contains(said), "{given}: {why}");
        }
    }

    #[test]
    fn each_condition_is_judged_by_its_own_figure() {
        let mut report = sample(1_000.0, 9.0);
        assert!(slo("p99<10ms,errors<0.1%").broken(&report).is_empty());
        assert_eq!(slo("p99<9ms").broken(&report), ["p99 9.00 ms"]);
        // Never sent is not answered.
        (report.errors, report.generator.dropped) = (3, 7);
        report.latency_ms.all.count = 990;
        assert_eq!(slo("p99<10ms,errors<1%").broken(&report), ["errors 1.000 %"]);
        assert!(slo("errors<1.1%").broken(&report).is_empty());
    }

    #[test]
    fn what_did_not_occur_does_not_hold() {
        assert_eq!(slo("renew.p99<10ms").broken(&sample(1_000.0, 1.0)), ["no renew.p99 was measured"]);
    }
}
