//! Two measurements side by side, and what may not have become worse.
//!
//! Each side is one report or several of the same run; of several the median counts, figure by figure, and their
//! spread is printed: a change within A's own spread is noise until measured again.
//!
//! # Promises
//! 1. The exit status is 0 where no condition holds, 1 where one does, 2 where that could not be decided: a
//!    file or a condition that cannot be read, or a figure that is missing.
//! 2. Machines, clusters or workloads that differ are named: then the figures differ for more than one reason.
//! 3. A broken safety promise or a limited generator on either side is named before the conditions.

mod condition;
mod metric;

use std::{fmt::Write, path::PathBuf, process::ExitCode};

use condition::Condition;
use metric::{Metric, SHOWN, Unit};

use crate::{load, report::Report};

const EXAMPLES: &str = "\
Examples:
  wardlock-loadtest compare before.json after.json
  wardlock-loadtest compare main.json branch.json --fail-if 'p99>+10%' --fail-if 'throughput<-5%'
  wardlock-loadtest compare a1.json,a2.json,a3.json b1.json,b2.json,b3.json --fail-if 'write.p99>15ms'

Exit status: 0, 1 where a condition holds, 2 where a file or a condition cannot be read or a figure is missing.";

/// Compares two measurements and fails where the second is worse than allowed.
///
/// A and B are files that `run --json` wrote. Several files of one side, separated by commas, are compared by
/// their medians.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// What was before.
    #[arg(value_name = "A.json[,A2.json…]", value_delimiter = ',', num_args = 1, required = true)]
    a: Vec<PathBuf>,
    /// What is now.
    #[arg(value_name = "B.json[,B2.json…]", value_delimiter = ',', num_args = 1, required = true)]
    b: Vec<PathBuf>,
    /// What may not be, of B: a metric, an operator (> < >= <=) and a share of A's figure (+10%, -5%) or a value
    /// (15ms, 150K). May be repeated.
    #[arg(long = "fail-if", value_name = "CONDITION", value_parser = Condition::parse)]
    fail_if: Vec<Condition>,
}

/// Runs it.
pub(crate) fn command(options: &Options) -> anyhow::Result<ExitCode> {
    let read = |paths: &[PathBuf]| -> anyhow::Result<Vec<Report>> {
        let reports: anyhow::Result<Vec<Vec<Report>>> = paths.iter().map(|path| load::reports(path)).collect();
        Ok(reports?.into_iter().flatten().collect())
    };
    let (a, b) = match read(&options.a).and_then(|a| Ok((a, read(&options.b)?))) {
        Ok(sides) => sides,
        Err(error) => {
            eprintln!("wardlock-loadtest: {error:#}");
            return Ok(ExitCode::from(2));
        }
    };
    let (text, verdict) = compare(&a, &b, &options.fail_if);
    print!("{text}");
    Ok(ExitCode::from(verdict as u8))
}

/// The exit status (promise 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Passed = 0,
    Failed = 1,
    Undecided = 2,
}

/// Everything that is printed, and how it ends.
fn compare(a: &[Report], b: &[Report], conditions: &[Condition]) -> (String, Verdict) {
    let mut text = String::new();
    for warning in warnings(a, b) {
        let _ = writeln!(text, "warning: {warning}");
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(&table(a, b, conditions));
    let mut verdict = Verdict::Passed;
    for condition in conditions {
        let (before, now) = (median(a, condition.metric), median(b, condition.metric));
        let unit = condition.metric.unit();
        let words = match condition.holds(before, now) {
            Some(false) => format!("ok         {condition}"),
            Some(true) => {
                verdict = if verdict == Verdict::Undecided { verdict } else { Verdict::Failed };
                let limit = condition.limit(before).unwrap_or_default();
                format!("FAILED     {condition}: {}, the limit is {}", shown(now, unit), shown(Some(limit), unit))
            }
            None => {
                verdict = Verdict::Undecided;
                let side = if now.is_none() { "B" } else { "A" };
                format!(
                    "UNDECIDED  {condition}: {side} has no {}; it was not measured or did not occur",
                    condition.metric.name()
                )
            }
        };
        let _ = writeln!(text, "{words}");
    }
    (text, verdict)
}

/// A row a figure.
fn table(a: &[Report], b: &[Report], conditions: &[Condition]) -> String {
    let mut metrics = SHOWN.to_vec();
    for condition in conditions {
        if !metrics.contains(&condition.metric) {
            metrics.push(condition.metric);
        }
    }
    let several = a.len() > 1 || b.len() > 1;
    let head =
        |name: &str, count: usize| if count > 1 { format!("{name} (median of {count})") } else { name.to_owned() };
    let mut rows = vec![["".to_owned(), head("A", a.len()), head("B", b.len()), "B / A".to_owned(), "".to_owned()]];
    if several {
        rows[0][4] = "spread of A, of B".to_owned();
    }
    for metric in metrics {
        let (before, now) = (median(a, metric), median(b, metric));
        if before.is_none() && now.is_none() {
            continue;
        }
        let unit = metric.unit();
        let spreads = if several { format!("{}, {}", spread(a, metric), spread(b, metric)) } else { String::new() };
        rows.push([metric.name(), shown(before, unit), shown(now, unit), ratio(before, now), spreads]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [0, 1, 2, 3].map(width);
    let mut text = String::new();
    for [name, before, now, ratio, spread] in &rows {
        let line = format!(
            "{name:<w0$}  {before:>w1$}  {now:>w2$}  {ratio:>w3$}  {spread}",
            w0 = widths[0],
            w1 = widths[1],
            w2 = widths[2],
            w3 = widths[3]
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text.push('\n');
    text
}

/// Promises 2 and 3.
fn warnings(a: &[Report], b: &[Report]) -> Vec<String> {
    let mut warnings = Vec::new();
    for (side, reports) in [("A", a), ("B", b)] {
        let violations = reports.iter().fold(0u64, |sum, report| sum.saturating_add(report.safety_violations));
        if violations > 0 {
            warnings.push(format!("{side} broke safety {violations} times: none of its other figures counts"));
        }
        if let Some(reason) = reports.iter().find_map(|report| report.generator.limited.as_ref()) {
            warnings.push(format!(
                "the generator was the limit in {side} ({reason}): its figures say little about the servers"
            ));
        }
        if let Some(odd) = reports.iter().find(|report| !differences(&reports[0], report).is_empty()) {
            let differing = differences(&reports[0], odd).join("; ");
            warnings.push(format!("the runs of {side} are not of one kind, so their median means little: {differing}"));
        }
    }
    let (Some(a), Some(b)) = (a.first(), b.first()) else {
        return warnings;
    };
    let differing = differences(a, b);
    if !differing.is_empty() {
        warnings.push(format!(
            "A and B were not measured alike, which makes the comparison doubtful: {}",
            differing.join("; ")
        ));
    }
    let (short, long) = (a.seconds.min(b.seconds), a.seconds.max(b.seconds));
    if long > 2.0 * short {
        warnings.push(format!("one run took {long:.0} s, the other {short:.0} s: a longer run sees more of the tail"));
    }
    warnings
}

/// What differs and is no result, in words. The version is not among them: it is what is compared.
fn differences(a: &Report, b: &Report) -> Vec<String> {
    let fields = |report: &Report| -> Vec<(&'static str, String)> {
        let (env, workload) = (&report.env, &report.workload);
        let number = |value: Option<f64>| value.map_or_else(|| "none".to_owned(), |value| value.to_string());
        vec![
            ("cpu", env.cpu.clone()),
            ("cores", env.cores.to_string()),
            ("kernel", env.kernel.clone()),
            // What the kernel keeps for itself varies by a little between boots.
            ("memory", format!("{} MiB", env.memory_bytes >> 20)),
            ("system", env.system.clone()),
            ("protocol", env.protocol.clone()),
            ("nodes", env.nodes.to_string()),
            ("shards", env.shards.to_string()),
            ("kind of load", workload.kind.clone()),
            ("schedule", workload.schedule.clone()),
            ("rate", number(workload.rate)),
            ("clients", workload.clients.to_string()),
            ("connections", workload.connections.to_string()),
            ("sessions", workload.sessions.to_string()),
            ("names", workload.names.to_string()),
            ("distribution", workload.distribution.clone()),
            ("reads", workload.reads.to_string()),
            ("shared", workload.shared.to_string()),
            ("hold", workload.hold.clone()),
            ("wait", workload.wait_s.to_string()),
            ("lease", number(workload.lease_s)),
            ("session TTL", workload.session_ttl_s.to_string()),
            ("consistency", workload.consistency.clone()),
        ]
    };
    let pairs = fields(a).into_iter().zip(fields(b));
    pairs.filter(|((_, a), (_, b))| a != b).map(|((name, a), (_, b))| format!("{name} {a} → {b}")).collect()
}

/// Of those that have the figure.
fn median(reports: &[Report], metric: Metric) -> Option<f64> {
    let mut values: Vec<f64> = reports.iter().filter_map(|report| metric.of(report)).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// `−4 … +7 %` around the median.
fn spread(reports: &[Report], metric: Metric) -> String {
    let values = || reports.iter().filter_map(|report| metric.of(report));
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    match median(reports, metric) {
        Some(median) if median > 0.0 && values().count() > 1 => {
            format!("{:+.0} … {:+.0} %", 100.0 * (low / median - 1.0), 100.0 * (high / median - 1.0))
        }
        _ => "–".to_owned(),
    }
}

fn ratio(before: Option<f64>, now: Option<f64>) -> String {
    match (before, now) {
        (Some(before), Some(now)) if before > 0.0 => {
            format!("{:.2} ({:+.1} %)", now / before, 100.0 * (now / before - 1.0))
        }
        (Some(before), Some(now)) if before == now => "same".to_owned(),
        _ => "–".to_owned(),
    }
}

fn shown(value: Option<f64>, unit: Unit) -> String {
    let Some(value) = value else { return "–".to_owned() };
    let number = match unit {
        Unit::Bytes => return format!("{:.1} MiB", value / 1024.0 / 1024.0),
        Unit::Count => format!("{value}"),
        _ if value >= 1000.0 => format!("{value:.0}"),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    };
    format!("{number} {}", unit.suffix()).trim_end().to_owned()
}

#[cfg(test)]
mod tests;
