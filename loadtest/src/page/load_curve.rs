//! Throughput against latency: what each further operation per second costs everybody.
//!
//! Runs that differ in nothing but their load (clients or rate) are joined into one curve. Of a run alone, each
//! second is a mark.

use std::collections::BTreeMap;

use super::{
    axis::Axis,
    plot::{LOOKS, Line, Plot},
    text,
};
use crate::report::{Env, Report, Workload};

/// So many seconds make a picture.
const SECONDS: usize = 5;
/// More marks than these would cover each other.
const MARKS: usize = 600;

/// One run, second by second; none for a short one.
pub(super) fn of_one(report: &Report) -> Option<Plot> {
    let with_figures = || report.series.iter().filter_map(|second| Some((second, second.p99?)));
    let every = with_figures().count().div_ceil(MARKS).max(1);
    let mut probes: Vec<(f64, String)> = Vec::new();
    let mut points = Vec::new();
    for (second, p99) in with_figures().step_by(every) {
        let rate = second.reads as f64 + second.writes as f64;
        points.push((rate, Some(p99)));
        let words = format!("second {}\n{}/s\np99  {}", text::short(second.at), text::number(rate), text::span(p99));
        probes.push((rate, words));
    }
    probes.sort_by(|a, b| a.0.total_cmp(&b.0));
    let highest = points.iter().map(|(rate, _)| *rate).fold(0.0, f64::max);
    let thinned = if every > 1 { format!(" Every {every} seconds.") } else { String::new() };
    (points.len() >= SECONDS).then(|| Plot {
        title: "Throughput against latency",
        caption: format!("p99 of the operations that ended in a second, a mark for each second.{thinned}"),
        x: Axis::from_zero("operations per second", highest),
        y: Axis::latency(points.iter().filter_map(|(_, p99)| *p99).collect::<Vec<_>>().into_iter()),
        lines: vec![Line { name: "a second".to_owned(), look: 0, points, marked: true, joined: false }],
        level: None,
        alarms: Vec::new(),
        probes,
    })
}

/// Several runs, a mark each; none for fewer than two runs with figures.
pub(super) fn of_many(reports: &[Report], names: &[String]) -> Option<Plot> {
    let mut families: BTreeMap<String, Vec<(f64, f64, f64)>> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    let mut probes = Vec::new();
    for (report, name) in reports.iter().zip(names) {
        let (rate, Some(p99)) = (report.throughput_ops_per_s, report.latency_ms.all.p99) else {
            continue;
        };
        let load = report.workload.rate.unwrap_or(f64::from(report.workload.clients));
        let family = family(report);
        if !families.contains_key(&family) {
            order.push(family.clone());
        }
        families.entry(family).or_default().push((load, rate, p99));
        let p50 = text::figure(report.latency_ms.all.p50);
        probes.push((rate, format!("{name}\n{}/s\np99  {}\np50  {p50} ms", text::number(rate), text::span(p99))));
    }
    if probes.len() < 2 {
        return None;
    }
    let left_out = order.len().saturating_sub(LOOKS);
    let title = distinguished(reports);
    let lines: Vec<Line> = order
        .iter()
        .take(LOOKS)
        .enumerate()
        .map(|(look, family)| {
            let mut points = families.remove(family).unwrap_or_default();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            Line {
                name: title(family),
                look,
                points: points.iter().map(|(_, rate, p99)| (*rate, Some(*p99))).collect(),
                marked: true,
                joined: points.len() > 1,
            }
        })
        .collect();
    let highest = lines.iter().flat_map(|line| &line.points).map(|(rate, _)| *rate).fold(0.0, f64::max);
    let y = Axis::latency(
        lines.iter().flat_map(|line| &line.points).filter_map(|(_, p99)| *p99).collect::<Vec<_>>().into_iter(),
    );
    let more = match left_out {
        0 => String::new(),
        _ => format!(" The first {LOOKS} kinds of run; {left_out} more are in the table."),
    };
    Some(Plot {
        title: "Throughput against latency",
        caption: format!("p99 of all operations, a mark for each run; runs that differ only in load are joined.{more}"),
        x: Axis::from_zero("operations per second", highest),
        y,
        lines,
        level: None,
        alarms: Vec::new(),
        probes,
    })
}

/// Everything but the load and the moment, as text.
fn family(report: &Report) -> String {
    let env = Env { started_at: String::new(), target: String::new(), ..report.env.clone() };
    let workload = Workload { rate: None, clients: 0, connections: 0, sessions: 0, ..report.workload.clone() };
    format!(
        "{}\u{1f}{}\u{1f}{}\u{1f}{}\u{1f}{}\u{1f}{}\u{1f}{env:?} {workload:?}",
        env.system,
        env.protocol,
        text::several(u64::from(env.nodes), "node"),
        text::several(u64::from(env.shards), "shard"),
        format_args!("{} % reads", text::short(workload.reads)),
        workload.schedule,
    )
}

/// Names a family by what differs between families, or by its system.
fn distinguished(reports: &[Report]) -> impl Fn(&str) -> String {
    let families: Vec<String> = reports.iter().map(family).collect();
    let part = |family: &str, index: usize| family.split('\u{1f}').nth(index).unwrap_or_default().to_owned();
    let differs: Vec<usize> = (0..6)
        .filter(|index| families.iter().any(|family| part(family, *index) != part(&families[0], *index)))
        .collect();
    move |family| {
        let parts: Vec<String> = differs.iter().map(|index| part(family, *index)).collect();
        if parts.is_empty() { part(family, 0) } else { parts.join(", ") }
    }
}
