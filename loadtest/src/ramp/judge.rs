//! Whether a step was good enough, and whose fault it was where not.

use serde::Serialize;

use super::slo::Slo;
use crate::report::Report;

/// The share of what is due that must be answered while a step lasts: else the backlog grows.
const ANSWERED: f64 = 0.97;
/// So many operations may always be on their way at the end.
const UNDER_WAY: f64 = 10.0;

/// How a step was judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Verdict {
    /// Everything that is asked for held.
    pub(super) met: bool,
    /// What did not.
    pub(super) why: Vec<String>,
    /// Where it did not: why the generator is to blame, if it is.
    pub(super) generator: Option<String>,
}

impl Verdict {
    /// What did not hold and, in a word, whose fault it was.
    pub(super) fn blame(&self) -> String {
        let why = self.why.join(", ");
        if self.generator.is_some() { format!("{why} (the generator's limit)") } else { why }
    }
}

/// Judges a step. One that meets the objective although the generator lags does meet it: lags count against it.
pub(super) fn judge(slo: &Slo, report: &Report) -> Verdict {
    let mut why = slo.broken(report);
    if let Some(offered) = report.offered_ops_per_s {
        let (due, answered) = (offered * report.seconds, report.throughput_ops_per_s * report.seconds);
        if due - answered > UNDER_WAY && answered < ANSWERED * due {
            why.push(format!("only {:.1} % were answered in time", 100.0 * answered / due));
        }
    }
    let generator = report.generator.limited.clone().filter(|_| !why.is_empty());
    Verdict { met: why.is_empty(), why, generator }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ramp::sample;

    fn slo() -> Slo {
        "p99<10ms".parse().unwrap()
    }

    #[test]
    fn a_growing_backlog_is_a_failure_whatever_the_latencies_are() {
        let mut report = sample(10_000.0, 1.0);
        assert_eq!(judge(&slo(), &report), Verdict { met: true, why: Vec::new(), generator: None });
        report.offered_ops_per_s = Some(11_000.0);
        assert_eq!(judge(&slo(), &report).why, ["only 90.9 % were answered in time"]);
        // A few that are under way at the end of a slow step are no backlog.
        let mut slow = sample(10.0, 1.0);
        slow.offered_ops_per_s = Some(11.0);
        assert!(judge(&slo(), &slow).met);
    }

    #[test]
    fn the_generator_is_blamed_only_for_what_failed() {
        let mut report = sample(10_000.0, 1.0);
        report.generator.limited = Some("its core is full".to_owned());
        assert_eq!(judge(&slo(), &report).generator, None);
        report.latency_ms.all.p99 = Some(30.0);
        let verdict = judge(&slo(), &report);
        assert_eq!((verdict.met, verdict.generator.as_deref()), (false, Some("its core is full")));
    }
}
