//! Several runs side by side: their names and one table.

use std::fmt::Write;

use super::text::{count, escape, figure, number, several, short};
use crate::report::Report;

/// A name for each run: whatever differs between the runs, or its system. Alike runs are numbered.
pub(super) fn names(reports: &[Report]) -> Vec<String> {
    let facts: [fn(&Report) -> String; 13] = [
        |report| report.env.system.clone(),
        |report| report.env.protocol.clone(),
        |report| report.workload.kind.clone(),
        |report| several(u64::from(report.env.nodes), "node"),
        |report| several(u64::from(report.env.shards), "shard"),
        |report| several(u64::from(report.workload.clients), "client"),
        |report| report.workload.rate.map_or_else(|| "closed loop".to_owned(), |rate| format!("{}/s", number(rate))),
        |report| format!("{} % reads", short(report.workload.reads)),
        |report| several(report.workload.names, "name"),
        // Mostly a session a client: then it says nothing new.
        |report| match report.workload.sessions == report.workload.clients {
            true => String::new(),
            false => several(u64::from(report.workload.sessions), "session"),
        },
        |report| report.workload.consistency.clone(),
        |report| report.workload.distribution.clone(),
        |report| format!("version {}", report.env.version),
    ];
    let differing: Vec<&fn(&Report) -> String> =
        facts.iter().filter(|fact| reports.iter().any(|report| fact(report) != fact(&reports[0]))).collect();
    let plain: Vec<String> = reports
        .iter()
        .map(|report| match differing.is_empty() {
            true => report.env.system.clone(),
            false => {
                differing.iter().map(|fact| fact(report)).filter(|fact| !fact.is_empty()).collect::<Vec<_>>().join(", ")
            }
        })
        .collect();
    let alike = |name: &String| plain.iter().filter(|other| *other == name).count() > 1;
    plain
        .iter()
        .enumerate()
        .map(|(index, name)| if alike(name) { format!("{name}, run {}", index + 1) } else { name.clone() })
        .collect()
}

/// A row a run.
pub(super) fn table(reports: &[Report], names: &[String]) -> String {
    let mut rows = String::new();
    for (index, (report, name)) in reports.iter().zip(names).enumerate() {
        let latency = &report.latency_ms;
        let flag = |number: u64| if number > 0 { " class=\"bad\"" } else { "" };
        let _ = writeln!(
            rows,
            "<tr><th scope=\"row\"><a href=\"#run-{}\">{}</a></th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{}</td><td>{}</td><td{}>{}</td><td{}>{}</td></tr>",
            index + 1,
            escape(name),
            number(report.throughput_ops_per_s),
            figure(latency.all.p50),
            figure(latency.all.p99),
            figure(latency.all.p999),
            figure(latency.all.max),
            figure(latency.read.p99),
            figure(latency.write.p99),
            figure(report.server_cpu_us_per_op),
            flag(report.errors),
            count(report.errors),
            flag(report.safety_violations),
            count(report.safety_violations),
        );
    }
    format!(
        "<div class=\"scroll\" tabindex=\"0\"><table><caption>Runs side by side</caption><thead><tr><th scope=\"col\">Run</th><th scope=\"col\">ops/s</th><th scope=\"col\">p50</th>\
         <th scope=\"col\">p99</th><th scope=\"col\">p99.9</th><th scope=\"col\">max</th><th scope=\"col\">read p99</th><th scope=\"col\">write p99</th>\
         <th scope=\"col\">µs/op</th><th scope=\"col\">errors</th><th scope=\"col\">violations</th></tr></thead><tbody>\n{rows}</tbody></table></div>\n\
         <p class=\"muted\">Latency in milliseconds from the intended start; µs/op is the CPU of all servers for an operation.</p>\n"
    )
}
