//! The figures of one run, in words and tables.
//!
//! # Promises
//! 1. Latencies are those from the intended start; where the schedule was open, those from the send stand beside them.
//! 2. A kind that did not occur is named as such and has no row.

use std::fmt::Write;

use super::text::{NONE, bytes, count, escape, figure, number, several, short};
use crate::report::{Figures, Latencies, Report};

/// What happened that makes a run's figures wrong, doubtful or bad, worst first.
pub(super) fn warnings(report: &Report) -> String {
    let mut html = String::new();
    if report.safety_violations > 0 {
        let examples: String =
            report.safety_examples.iter().map(|example| format!("<li>{}</li>", escape(example))).collect();
        let _ = write!(
            html,
            "<div class=\"banner bad\" role=\"note\"><strong>Failed: {}.</strong> Mutual exclusion, the order of tokens or the \
             length of a lease was broken. No other figure of this run counts.<ul>{examples}</ul></div>",
            several(report.safety_violations, "safety violation")
        );
    }
    if let Some(reason) = &report.generator.limited {
        let _ = write!(
            html,
            "<div class=\"banner warn\" role=\"note\"><strong>The generator was the limit:</strong> {}. The servers may do \
             better than this.</div>",
            escape(reason)
        );
    }
    if report.generator.dropped > 0 {
        let _ = write!(
            html,
            "<div class=\"banner warn\" role=\"note\"><strong>{} never sent</strong> although due: too many were under way. \
             Their latency is in no figure.</div>",
            several(report.generator.dropped, "operation")
        );
    }
    if report.lost_locks > 0 {
        let _ = write!(
            html,
            "<div class=\"banner warn\" role=\"note\"><strong>{} lost</strong>: held no longer when the client came to release.</div>",
            several(report.lost_locks, "lock")
        );
    }
    html
}

/// The figures one looks at first.
pub(super) fn headline(report: &Report) -> String {
    let all = &report.latency_ms.all;
    let attempts = report.throughput_ops_per_s * report.seconds + report.errors as f64;
    let errors = match report.errors {
        0 => "none".to_owned(),
        errors => format!("{} %", number(100.0 * errors as f64 / attempts.max(1.0))),
    };
    let offered = match report.offered_ops_per_s {
        Some(rate) => format!("of {} offered", number(rate)),
        None => "closed loop".to_owned(),
    };
    let cores = report
        .server_cpu_cores
        .map_or_else(|| "of all servers".to_owned(), |cores| format!("{} cores busy", number(cores)));
    let (safety, bad) = match report.safety_violations {
        0 => ("mutual exclusion held", ""),
        _ => ("the run failed", " bad"),
    };
    let of = |kind: &Figures| figure(kind.p99);
    let tile = |name: &str, value: &str, unit: &str, note: &str, class: &str| {
        let unit = if value == NONE { "" } else { unit };
        format!(
            "<div class=\"tile{class}\"><dt>{name}</dt><dd><b>{value}</b> {unit}</dd><dd class=\"note\">{}</dd></div>",
            escape(note)
        )
    };
    let latency = &report.latency_ms;
    let mut html = "<dl class=\"headline\">".to_owned();
    html.push_str(&tile("Throughput", &number(report.throughput_ops_per_s), "ops/s", &offered, ""));
    html.push_str(&tile("Latency p50", &figure(all.p50), "ms", &format!("mean {}", figure(all.mean)), ""));
    let note = format!("reads {}, writes {}", of(&latency.read), of(&latency.write));
    html.push_str(&tile("Latency p99", &figure(all.p99), "ms", &note, ""));
    html.push_str(&tile("Latency p99.9", &figure(all.p999), "ms", &format!("maximum {}", figure(all.max)), ""));
    html.push_str(&tile("Server CPU", &figure(report.server_cpu_us_per_op), "µs/op", &cores, ""));
    let warn = if report.errors > 0 { " warn" } else { "" };
    html.push_str(&tile("Errors", &count(report.errors), "", &errors, warn));
    html.push_str(&tile("Safety violations", &count(report.safety_violations), "", safety, bad));
    html.push_str("</dl>\n");
    html
}

/// A row a kind of operation.
pub(super) fn kinds(report: &Report) -> String {
    let open = report.offered_ops_per_s.is_some();
    let mut rows = String::new();
    let mut absent = Vec::new();
    for ((name, meaning, figures), (_, _, service)) in
        by_kind(&report.latency_ms).into_iter().zip(by_kind(&report.service_ms))
    {
        if figures.count == 0 {
            absent.push(name.to_lowercase());
            continue;
        }
        let rate = figures.count as f64 / report.seconds;
        let _ = write!(
            rows,
            "<tr><th scope=\"row\" title=\"{meaning}\">{name}</th><td>{}</td><td>{}</td>",
            count(figures.count),
            number(rate)
        );
        for value in [figures.mean, figures.p50, figures.p90, figures.p99, figures.p999, figures.p9999, figures.max] {
            let _ = write!(rows, "<td>{}</td>", figure(value));
        }
        if open {
            let _ = write!(rows, "<td class=\"apart\">{}</td><td>{}</td>", figure(service.p50), figure(service.p99));
        }
        rows.push_str("</tr>\n");
    }
    if rows.is_empty() {
        return "<p class=\"muted\">No operation was answered.</p>".to_owned();
    }
    let service = match open {
        true => {
            "<th scope=\"col\" class=\"apart\" title=\"from the send\">service p50</th><th scope=\"col\" title=\"from the send\">service p99</th>"
        }
        false => "",
    };
    let absent = match absent.is_empty() {
        true => String::new(),
        false => format!(" Did not occur: {}.", absent.join(", ")),
    };
    let basis = match open {
        true => "Latency counts from the moment at which an operation was meant to start, service time from its send.",
        false => "A closed loop: an operation starts when the one before it has ended, and waits for nothing else.",
    };
    format!(
        "<div class=\"scroll\" tabindex=\"0\"><table><caption>Latency by kind, milliseconds</caption><thead><tr><th scope=\"col\">Kind</th><th scope=\"col\">count</th>\
         <th scope=\"col\">per s</th><th scope=\"col\">mean</th><th scope=\"col\">p50</th><th scope=\"col\">p90</th><th scope=\"col\">p99</th>\
         <th scope=\"col\">p99.9</th><th scope=\"col\">p99.99</th><th scope=\"col\">max</th>{service}</tr></thead><tbody>\n{rows}</tbody></table></div>\n\
         <p class=\"muted\">{basis}{absent}</p>\n"
    )
}

fn by_kind(latencies: &Latencies) -> [(&'static str, &'static str, &Figures); 10] {
    [
        ("All", "all that follow but keep-alives", &latencies.all),
        ("Read", "a lock’s state", &latencies.read),
        ("Write", "acquires, renewals, releases", &latencies.write),
        ("Acquire", "granted at once", &latencies.acquire),
        ("Refused", "found the lock held and did not wait", &latencies.refused),
        ("Queue wait", "waited in the queue until granted", &latencies.queue_wait),
        ("Handoff", "from a release to the grant of the next in the queue", &latencies.handoff),
        ("Renew", "a lease was extended", &latencies.renew),
        ("Release", "a lock was given back", &latencies.release),
        ("Keep-alive", "a session was kept", &latencies.keep_alive),
    ]
}

/// Where it ran and what was asked for.
pub(super) fn circumstances(report: &Report) -> String {
    let (env, workload) = (&report.env, &report.workload);
    let list = |title: &str, items: Vec<(&str, String)>| {
        let items: String =
            items.iter().map(|(name, value)| format!("<dt>{name}</dt><dd>{}</dd>", escape(value))).collect();
        format!("<section><h3>{title}</h3><dl class=\"facts\">{items}</dl></section>")
    };
    let seconds = |length: f64| format!("{} s", short(length));
    let asked = vec![
        ("Kind", workload.kind.clone()),
        (
            "Schedule",
            match workload.rate {
                Some(rate) => format!("{}, {} operations/s", workload.schedule, number(rate)),
                None => workload.schedule.clone(),
            },
        ),
        (
            "Clients",
            format!(
                "{} over {}",
                count(u64::from(workload.clients)),
                several(u64::from(workload.connections), "connection")
            ),
        ),
        ("Sessions", format!("{}, TTL {}", count(u64::from(workload.sessions)), seconds(workload.session_ttl_s))),
        ("Names", format!("{}, {}", count(workload.names), workload.distribution)),
        ("Reads", format!("{} %, {}", short(workload.reads), workload.consistency)),
        ("Shared mode", format!("{} % of acquires", short(workload.shared))),
        (
            "Hold",
            match workload.hold.as_str() {
                "next" => "until the client’s next write".to_owned(),
                mean => format!("{mean} ms on average"),
            },
        ),
        (
            "Wait in the queue",
            if workload.wait_s > 0.0 {
                format!("up to {}", seconds(workload.wait_s))
            } else {
                "none: tries once".to_owned()
            },
        ),
        ("Lease", workload.lease_s.map_or_else(|| "as long as the session".to_owned(), seconds)),
        ("Measured", seconds(report.seconds)),
    ];
    let place = vec![
        ("System", format!("{} over {}", env.system, env.protocol)),
        ("Cluster", format!("{}, {}", several(u64::from(env.nodes), "node"), several(u64::from(env.shards), "shard"))),
        ("Target", env.target.clone()),
        ("CPU", format!("{}, {}", env.cpu, several(u64::from(env.cores), "core"))),
        ("Memory", bytes(env.memory_bytes)),
        ("Kernel", env.kernel.clone()),
        ("Started", env.started_at.clone()),
        ("Version", env.version.clone()),
    ];
    let generator = &report.generator;
    let cores = |cores: Option<f64>| cores.map_or_else(|| NONE.to_owned(), |cores| format!("{} cores", number(cores)));
    let per_op = |us: Option<f64>| us.map_or_else(String::new, |us| format!(", {} µs/op", number(us)));
    let mut account = vec![
        ("Servers’ CPU", format!("{}{}", cores(report.server_cpu_cores), per_op(report.server_cpu_us_per_op))),
        ("Largest server", report.server_memory_bytes.map_or_else(|| NONE.to_owned(), bytes)),
        ("Generator’s CPU", format!("{}{}", cores(generator.cpu_cores), per_op(report.generator_cpu_us_per_op))),
        ("Late sends", format!("{}, worst {} ms", count(generator.late), number(generator.worst_lag_ms))),
        ("Never sent", count(generator.dropped)),
        ("Found held", count(report.contended)),
        ("Waits timed out", count(report.timed_out)),
        ("Locks lost", count(report.lost_locks)),
    ];
    account
        .extend(report.errors_by_kind.iter().map(|(kind, errors)| ("Error", format!("{} × {kind}", count(*errors)))));
    format!(
        "<div class=\"circumstances\">{}{}{}</div>\n",
        list("Workload", asked),
        list("Environment", place),
        list("Account", account)
    )
}
