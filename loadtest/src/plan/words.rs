//! A plan as people read it: the answer first, then its grounds.

use std::fmt::Write;

use super::{
    choose::{self, BUSY, Candidate, Demand},
    sweep::Fitted,
};

/// The whole text.
pub(super) fn plan(fitted: &Fitted, demand: &Demand, candidates: &[Candidate]) -> String {
    let mut text = String::new();
    let Some(last) = candidates.last() else { return text };
    answer(fitted, demand, last, &mut text);
    table(demand, candidates, &mut text);
    if !last.suffices {
        obstacle(fitted, demand, last, &mut text);
    }
    grounds(fitted, &mut text);
    let beyond = choose::extrapolations(&fitted.ranges, demand, last);
    if beyond.is_empty() {
        text.push_str("\nWithin what was measured.\n");
    } else {
        text.push_str("\nThis extrapolates; measure before relying on it:\n");
        beyond.iter().for_each(|words| _ = writeln!(text, "  {words}"));
    }
    assumptions(fitted, demand, &mut text);
    text
}

fn answer(fitted: &Fitted, demand: &Demand, chosen: &Candidate, text: &mut String) {
    let asked = format!(
        "{} operations/s, {} % reads, p99 within {}, {} cores a node",
        rate(demand.load),
        demand.reads,
        time(demand.p99_ms),
        demand.cores_per_node
    );
    let (true, Some(whole), Some(degraded)) = (chosen.suffices, chosen.whole, chosen.degraded) else {
        let _ = writeln!(text, "No cluster of up to {} nodes suffices\n  for {asked}\n", demand.nodes_max);
        return;
    };
    let measured = fitted.ranges.throughput.1;
    let beyond = match chosen.most > measured {
        true => format!(";\n                 more than {} was not measured", rate(measured)),
        false => String::new(),
    };
    let _ = writeln!(
        text,
        "{} nodes, {} shards\n  for {asked}\n\n  \
         expected       p99 {}, mean {}; {:.1} µs of CPU per operation over all nodes\n  \
         one node lost  p99 {}, mean {}; operations alone take {:.0} % of the busiest node (at most {:.0} %)\n  \
         headroom       with one node lost it carries up to {} operations/s within the objective{beyond}\n",
        chosen.nodes,
        chosen.shards,
        time(whole.p99_ms),
        time(whole.mean_ms),
        whole.server_us,
        time(degraded.p99_ms),
        time(degraded.mean_ms),
        100.0 * degraded.busy,
        100.0 * BUSY,
        rate(chosen.most),
    );
}

fn table(demand: &Demand, candidates: &[Candidate], text: &mut String) {
    let _ = writeln!(
        text,
        "{:>7}{:>8}{:>12}{:>16}{:>26}",
        "nodes", "shards", "p99", "p99, one lost", "most within objective/s"
    );
    for candidate in candidates {
        let p99 =
            |state: Option<choose::State>| state.map_or_else(|| "saturated".to_owned(), |state| time(state.p99_ms));
        let _ = writeln!(
            text,
            "{:>7}{:>8}{:>12}{:>16}{:>26}{}",
            candidate.nodes,
            candidate.shards,
            p99(candidate.whole),
            p99(candidate.degraded),
            if candidate.most >= 1.0 { rate(candidate.most) } else { "none".to_owned() },
            if candidate.suffices { "  ← suffices" } else { "" },
        );
    }
    let _ = writeln!(
        text,
        "\n  For each number of nodes the best number of shards. \"One lost\" and \"most\" are with one node down, for {} % reads.",
        demand.reads
    );
}

/// Whether more nodes would help.
fn obstacle(fitted: &Fitted, demand: &Demand, last: &Candidate, text: &mut String) {
    let floor = fitted.model.p99_ms(0.0) * (1.0 + fitted.p99_error.median);
    let _ = match floor > demand.p99_ms {
        true => writeln!(
            text,
            "  More nodes do not help: even without load the p99 is about {}, with the model's error {}.",
            time(fitted.model.p99_ms(0.0)),
            time(floor)
        ),
        false => writeln!(
            text,
            "  {} nodes would carry {} operations/s: raise --nodes-max or --cores-per-node, or allow a longer p99.",
            last.nodes,
            rate(last.most)
        ),
    };
}

fn grounds(fitted: &Fitted, text: &mut String) {
    let [read, write, read_round, write_round] = fitted.model.server;
    let (mean, p99) = (fitted.model.mean, fitted.model.p99);
    let _ = writeln!(
        text,
        "\nThe model, fitted to {} cells measured on {} ({} cores)\n  \
         CPU         a read {read:.2} µs, a write {write:.2} µs on each replica;\n              \
         a round of a shard, on each replica: for reads {read_round:.1} µs, for writes {write_round:.1} µs\n  \
         mean        {:.2} ms + {:.2} × cycle; a cycle is one round of every shard that has work and all\n              \
         operations in flight, so it stretches as 1 / (1 − load / saturation)\n  \
         p99         {:.2} ms + {:.2} × cycle\n  \
         error       of cells it had not seen: throughput {}, p99 {}",
        fitted.cells,
        fitted.cpu,
        fitted.cores,
        mean[0],
        mean[1],
        p99[0],
        p99[1],
        error(fitted.throughput_error),
        error(fitted.p99_error),
    );
    if fitted.throughput_error.median > 0.3 || fitted.p99_error.median > 0.3 {
        text.push_str("              that is a poor fit: take the answer as a first guess and measure it\n");
    }
    for (reason, cells) in &fitted.left_out {
        let _ = writeln!(text, "  left out    {cells} cells {reason}");
    }
}

fn error(error: super::sweep::Error) -> String {
    format!("{:.0} % median, {:.0} % worst", 100.0 * error.median, 100.0 * error.worst)
}

fn assumptions(fitted: &Fitted, demand: &Demand, text: &mut String) {
    let _ = write!(
        text,
        "\nIt assumes that\n  \
         - each node has {} cores of its own like the measured ones ({}); in the sweep all nodes and the generator shared them,\n    \
         the generator's share is fitted apart and left out;\n  \
         - each shard has 3 replicas, leaders are spread evenly, and all work of a shard counts as its leader's:\n    \
         the node that leads most shards sets the pace; a shard keeps at most one core busy;\n  \
         - disks and network are as fast as the measured ones: add a round trip of your network to the latency of a read\n    \
         or a write where it is not loopback;\n  \
         - names spread the load evenly over shards, and the workload is otherwise the sweep's;\n  \
         - the p99 is raised by the model's median error ({:.0} %) before it is held against the objective.\n",
        demand.cores_per_node,
        fitted.cpu,
        100.0 * fitted.p99_error.median,
    );
}

fn rate(rate: f64) -> String {
    match rate {
        _ if rate >= 1e6 => format!("{:.2}M", rate / 1e6),
        _ if rate >= 1e4 => format!("{:.0}K", rate / 1e3),
        _ => format!("{rate:.0}"),
    }
}

fn time(ms: f64) -> String {
    match ms {
        _ if ms < 1.0 => format!("{:.0} µs", ms * 1e3),
        _ if ms < 1e3 => format!("{ms:.1} ms"),
        _ => format!("{:.1} s", ms / 1e3),
    }
}
