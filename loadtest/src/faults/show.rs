//! Faults as people read them.

use std::fmt::Write;

use super::{
    Outcome,
    summary::{BUDGET_S, Fault, Spread, Sum},
};

/// All of it.
pub(super) fn text(outcome: &Outcome) -> String {
    let mut text = format!(
        "\n{:>3} {:<8} {:>4} {:>7} {:>5} {:>10} {:>8} {:>8} {:>8} {:>9} {:>7}\n",
        "", "FAULT", "NODE", "AT S", "LED", "OUT MEDIAN", "P90", "MAX S", "OTHERS", "MISSED", "WELL S"
    );
    for (n, fault) in outcome.faults.iter().enumerate() {
        text += &row(n + 1, fault);
    }
    text += "\nOUT: how long a shard that the node led gave no answer, as its clients saw it. OTHERS: the worst of the other\n\
             shards. MISSED: operations until the next fault that failed or were late. WELL: until all had caught up.\n\n";
    let availability = &outcome.availability;
    let percent = |percent: Option<f64>| percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent:.3} %"));
    let _ = writeln!(
        text,
        "{} of {} operations failed or took longer than {} s: {} available; by the shards' time {}",
        availability.failed_or_late,
        availability.operations,
        outcome.late_s,
        percent(availability.by_operations_percent),
        percent(availability.by_time_percent),
    );
    if let Some(spacing) = outcome.spacing_ms {
        let _ = writeln!(
            text,
            "each shard was asked every {spacing:.0} ms on average: outages cannot be told finer than that"
        );
    }
    let _ = writeln!(
        text,
        "\n99.9 % allows a lock {:.1} min of outage in a month of 30 days. Of such faults that pays for",
        BUDGET_S / 60.0
    );
    for sum in &outcome.sums {
        text += &paid(sum);
    }
    text += "\n";
    for failure in &outcome.failures {
        let _ = writeln!(text, "FAILED: {failure}");
    }
    if outcome.failures.is_empty() {
        text += "no promise was broken and no lock was lost\n";
    }
    text
}

fn seconds(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.2}"))
}

fn row(number: usize, fault: &Fault) -> String {
    let Spread { count, median, p90, max, .. } = fault.outage_s;
    format!(
        "{number:>3} {:<8} {:>4} {:>7.1} {:>5} {:>10} {:>8} {:>8} {:>8} {:>9} {:>7.1}\n",
        fault.kind.name(),
        fault.node,
        fault.at_s,
        count,
        seconds(median),
        seconds(p90),
        seconds(max),
        seconds(fault.others_max_s),
        fault.failed_or_late,
        fault.well_after_s,
    )
}

fn paid(sum: &Sum) -> String {
    let Spread { median, p99, max, .. } = sum.outage_s;
    let many = |count: Option<f64>| count.map_or_else(|| "any number".to_owned(), |count| format!("{count:.0}"));
    format!(
        "  {:<8} median {} s: {} a month; worst {} s: {} a month (p99 {} s, {} faults; an operation that began in one \
         took {} s, p99 {} s, at most {} s)\n",
        sum.kind,
        seconds(median),
        many(sum.allowed_a_month_median),
        seconds(max),
        many(sum.allowed_a_month_worst),
        seconds(p99),
        sum.faults,
        seconds(sum.waits_s.median),
        seconds(sum.waits_s.p99),
        seconds(sum.waits_s.max),
    )
}
