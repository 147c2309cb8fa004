//! A report as people read it.

use std::fmt::Write;

use crate::report::{Figures, Report};

/// Kinds of operations, in the order of a lock's life.
type Rows<'a> = [(&'static str, &'a Figures, &'a Figures); 10];

/// The table.
pub(crate) fn write(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = try_write(&mut text, report);
    text
}

fn try_write(to: &mut String, report: &Report) -> std::fmt::Result {
    let Report { env, workload, generator, .. } = report;
    writeln!(
        to,
        "\n{} over {} at {}: {} nodes, {} shards · {} loop, {} clients, {} connections, {} sessions, {} names ({})",
        env.system,
        env.protocol,
        env.target,
        env.nodes,
        env.shards,
        if workload.rate.is_some() { format!("open ({})", workload.schedule) } else { "closed".to_owned() },
        workload.clients,
        workload.connections,
        workload.sessions,
        workload.names,
        workload.distribution,
    )?;
    let offered = report.offered_ops_per_s.map(|rate| format!(" of {rate:.0} due")).unwrap_or_default();
    writeln!(to, "\n  {:.0} operations/s{offered}, over {} s", report.throughput_ops_per_s, report.seconds)?;
    let open = report.workload.rate.is_some();
    write!(to, "\n  {:<26}{:>10}", "latency, ms", "count")?;
    for head in ["p50", "p90", "p99", "p99.9", "p99.99", "max"] {
        write!(to, "{head:>10}")?;
    }
    writeln!(to, "{}", if open { "   service p50 / p99" } else { "" })?;
    for (name, latency, service) in rows(report).into_iter().filter(|(_, latency, _)| latency.count > 0) {
        write!(to, "  {name:<26}{:>10}", latency.count)?;
        for figure in [latency.p50, latency.p90, latency.p99, latency.p999, latency.p9999, latency.max] {
            write!(to, "{:>10}", ms(figure))?;
        }
        match open && name != "handoff" {
            true => writeln!(to, "   {} / {}", ms(service.p50), ms(service.p99))?,
            false => writeln!(to)?,
        }
    }
    if open {
        writeln!(to, "  latency counts from when an operation was due, service from when it was sent")?;
    }
    let or_unknown = |figure: Option<f64>, unit| figure.map_or("unknown".to_owned(), |f| format!("{f:.2} {unit}"));
    writeln!(
        to,
        "\n  servers    {} ({} per operation), {} at most",
        or_unknown(report.server_cpu_cores, "cores"),
        or_unknown(report.server_cpu_us_per_op, "µs"),
        or_unknown(report.server_memory_bytes.map(|bytes| bytes as f64 / 1e6), "MB"),
    )?;
    writeln!(
        to,
        "  generator  {} ({} per operation); {} sent late, at worst by {} ms; {} dropped",
        or_unknown(generator.cpu_cores, "cores"),
        or_unknown(report.generator_cpu_us_per_op, "µs"),
        generator.late,
        ms(Some(generator.worst_lag_ms)),
        generator.dropped,
    )?;
    if let Some(why) = &generator.limited {
        writeln!(to, "             The generator may be the limit: {why}.")?;
    }
    writeln!(
        to,
        "  outcomes   {} errors, {} refused, {} waits timed out, {} locks lost",
        report.errors, report.contended, report.timed_out, report.lost_locks,
    )?;
    for (kind, count) in &report.errors_by_kind {
        writeln!(to, "             {count} × {kind}")?;
    }
    match report.safety_violations {
        0 => writeln!(to, "  safety     no promise was broken"),
        broken => {
            writeln!(to, "  safety     {broken} PROMISES BROKEN")?;
            report.safety_examples.iter().try_for_each(|example| writeln!(to, "             {example}"))
        }
    }
}

fn rows(report: &Report) -> Rows<'_> {
    let (latency, service) = (&report.latency_ms, &report.service_ms);
    [
        ("all", &latency.all, &service.all),
        ("read", &latency.read, &service.read),
        ("write", &latency.write, &service.write),
        ("  acquire, granted at once", &latency.acquire, &service.acquire),
        ("  acquire, refused", &latency.refused, &service.refused),
        ("  acquire, queued", &latency.queue_wait, &service.queue_wait),
        ("  renew", &latency.renew, &service.renew),
        ("  release", &latency.release, &service.release),
        ("handoff", &latency.handoff, &service.handoff),
        ("keep-alive", &latency.keep_alive, &service.keep_alive),
    ]
}

/// Milliseconds with three digits that mean something.
fn ms(figure: Option<f64>) -> String {
    match figure {
        None => "–".to_owned(),
        Some(ms) if ms < 9.995 => format!("{ms:.2}"),
        Some(ms) if ms < 99.95 => format!("{ms:.1}"),
        Some(ms) => format!("{ms:.0}"),
    }
}
