//! A sweep as people read it: a row for each combination, as it is measured.

use crate::sweep_file::Cell;

/// What comes before the first.
pub(super) fn head() -> String {
    format!(
        "{:>5} {:>6} {:>7} {:>7} {:>10} {:>8} {:>8} {:>10} {:>9}  {}\n",
        "NODES", "SHARDS", "CLIENTS", "READS %", "OPS/S", "P50 MS", "P99 MS", "WRITE P99", "SRV µs/OP", "NOTE"
    )
}

/// A combination.
pub(super) fn row(cell: &Cell) -> String {
    let (report, latency) = (&cell.report, &cell.report.latency_ms);
    let or_dash = |figure: Option<f64>| figure.map_or_else(|| "-".to_owned(), |figure| format!("{figure:.2}"));
    let mut notes = Vec::new();
    if report.errors > 0 {
        notes.push(format!("{} errors", report.errors));
    }
    if let Some(limited) = &report.generator.limited {
        notes.push(format!("generator's limit: {limited}"));
    }
    format!(
        "{:>5} {:>6} {:>7} {:>7} {:>10.0} {:>8} {:>8} {:>10} {:>9}  {}\n",
        cell.nodes,
        cell.shards,
        cell.clients,
        cell.reads,
        report.throughput_ops_per_s,
        or_dash(latency.all.p50),
        or_dash(latency.all.p99),
        or_dash(latency.write.p99),
        or_dash(report.server_cpu_us_per_op),
        notes.join("; "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ramp::sample;

    #[test]
    fn a_row_says_what_qualifies_it() {
        let mut report = sample(123_456.0, 5.0);
        (report.errors, report.generator.limited) = (3, Some("its core is full".to_owned()));
        let row = row(&Cell { nodes: 3, shards: 16, clients: 1_000, reads: 80.0, report });
        assert!(row.contains("123456") && row.contains("3 errors; generator's limit: its core is full"), "{row}");
        assert_eq!(head().find("NOTE").map(|at| head()[..at].chars().count()), row.find("3 errors"));
    }
}
