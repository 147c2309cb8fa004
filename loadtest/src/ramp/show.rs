//! A ramp as people read it: a row as each step ends, then what it came to.

use std::fmt::Write;

use super::{
    Limit, Ramp, SOAK_SHARE, Step,
    slo::{Slo, unanswered_percent},
};

/// What comes before the first step.
pub(super) fn head(slo: &Slo) -> String {
    let columns = format!(
        "{:>9} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9}  {}",
        "RATE/S", "ANSWERED", "P50 MS", "P99 MS", "P99.9", "MAX", "LOST %", "SRV CORES", "VERDICT"
    );
    format!("objective: {slo}\n\n{columns}\n")
}

/// A step.
pub(super) fn row(step: &Step) -> String {
    let (report, all) = (&step.report, &step.report.latency_ms.all);
    let ms = |ms: Option<f64>| ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.2}"));
    let verdict = match step.verdict.met {
        true => "met".to_owned(),
        false => format!("not met: {}", step.verdict.blame()),
    };
    format!(
        "{:>9.0} {:>9.0} {:>8} {:>8} {:>8} {:>8} {:>8.3} {:>9}  {verdict}\n",
        step.rate_ops_per_s,
        report.throughput_ops_per_s,
        ms(all.p50),
        ms(all.p99),
        ms(all.p999),
        ms(all.max),
        unanswered_percent(report),
        report.server_cpu_cores.map_or_else(|| "-".to_owned(), |cores| format!("{cores:.2}")),
    )
}

/// What it came to.
pub(super) fn verdict(ramp: &Ramp) -> String {
    let mut text = String::from("\n");
    let Some(found) = ramp.found_ops_per_s else {
        let lowest = ramp.steps.iter().map(|step| step.rate_ops_per_s).fold(f64::INFINITY, f64::min);
        let _ = match ramp.limit {
            Limit::Generator => {
                let reason = reason(ramp);
                writeln!(
                    text,
                    "nothing was found: even at {lowest:.0} operations/s this program was at its limit{reason}"
                )
            }
            _ => writeln!(text, "no rate meets {}: even {lowest:.0} operations/s do not", ramp.slo),
        };
        return text;
    };
    let _ = match ramp.limit {
        Limit::Objective => {
            writeln!(text, "{found:.0} operations/s meet {} (within {} %)", ramp.slo, ramp.precision_percent)
        }
        Limit::Generator => writeln!(
            text,
            "at least {found:.0} operations/s meet {}: beyond that this program, not the cluster, was the limit{}; \
             run it on another machine to find more",
            ramp.slo,
            reason(ramp)
        ),
        Limit::Most => writeln!(text, "at least {found:.0} operations/s meet {}: no more was tried (--most)", ramp.slo),
    };
    if let Some(soak) = &ramp.soak {
        let (rate, seconds) = (soak.rate_ops_per_s, soak.report.seconds);
        let _ = match soak.verdict.met {
            true => writeln!(
                text,
                "{rate:.0} operations/s, {:.0} % of that, held for {seconds:.0} s: plan with this",
                SOAK_SHARE * 100.0
            ),
            false => writeln!(
                text,
                "{rate:.0} operations/s, {:.0} % of that, did NOT hold for {seconds:.0} s: {}",
                SOAK_SHARE * 100.0,
                soak.verdict.blame()
            ),
        };
    }
    text
}

/// Why the generator was the limit, as the lowest rate that failed for it says.
fn reason(ramp: &Ramp) -> String {
    let blamed = ramp.steps.iter().filter(|step| step.verdict.generator.is_some());
    let lowest = blamed.min_by(|one, other| one.rate_ops_per_s.total_cmp(&other.rate_ops_per_s));
    lowest.and_then(|step| step.verdict.generator.as_ref()).map_or_else(String::new, |why| format!(" ({why})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ramp::{SCHEMA, Verdict, sample};

    fn step(rate: f64, why: &[&str]) -> Step {
        let why: Vec<String> = why.iter().map(|&why| why.to_owned()).collect();
        Step {
            rate_ops_per_s: rate,
            verdict: Verdict { met: why.is_empty(), why, generator: None },
            report: sample(rate, 5.0),
        }
    }

    fn ramp(found: Option<f64>, limit: Limit, soak: &[&str]) -> Ramp {
        let soak = found.map(|found| step(found * SOAK_SHARE, soak));
        let steps = vec![step(1_000.0, &["p99 12.00 ms"])];
        Ramp {
            schema: SCHEMA,
            slo: "p99<10ms".to_owned(),
            precision_percent: 5.0,
            steps,
            found_ops_per_s: found,
            limit,
            soak,
        }
    }

    #[test]
    fn the_verdict_claims_what_was_measured_and_no_more() {
        let objective = verdict(&ramp(Some(20_000.0), Limit::Objective, &[]));
        assert!(objective.contains("20000 operations/s meet p99<10ms (within 5 %)"), "{objective}");
        assert!(objective.contains("14000 operations/s, 70 % of that, held"), "{objective}");
        let generator = verdict(&ramp(Some(20_000.0), Limit::Generator, &["p99 12.00 ms"]));
        assert!(
            generator.contains("at least 20000") && generator.contains("this program, not the cluster"),
            "{generator}"
        );
        assert!(generator.contains("did NOT hold for 5 s: p99 12.00 ms"), "{generator}");
        assert!(verdict(&ramp(None, Limit::Objective, &[])).contains("even 1000 operations/s do not"));
        assert!(verdict(&ramp(None, Limit::Generator, &[])).contains("this program was at its limit"));
    }

    #[test]
    fn columns_stand_under_their_heads() {
        let slo: Slo = "p99<10ms".parse().unwrap();
        let (head, row) = (head(&slo), row(&step(1_000_000.0, &["p99 12.00 ms"])));
        let at = |text: &str, word: &str| text.lines().last().unwrap().find(word).unwrap_or_else(|| panic!("{text}"));
        assert_eq!(at(&head, "VERDICT"), at(&row, "not met"));
    }
}
