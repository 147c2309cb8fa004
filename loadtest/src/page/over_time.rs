//! Latency and throughput, second by second.
//!
//! # Promises
//! 1. A run longer than [`WINDOWS`] seconds is shown in as many windows; a window shows the worst p99 and the
//!    worst maximum of its seconds, the median of their p50s and the mean of their rates: a bad second cannot hide.

use super::{
    axis::Axis,
    plot::{Line, Plot},
    text,
};
use crate::report::{Report, Second};

/// At most so many points a line.
const WINDOWS: usize = 240;

/// Some neighbouring seconds, as one point.
struct Window {
    at: f64,
    reads: f64,
    writes: f64,
    errors: u64,
    p50: Option<f64>,
    p99: Option<f64>,
    max: Option<f64>,
}

/// The two plots; none where the report has no series.
pub(super) fn plots(report: &Report) -> Vec<Plot> {
    let windows = windows(&report.series);
    let Some(end) = windows.last().map(|last| last.at) else {
        return Vec::new();
    };
    let wide = report.series.len().div_ceil(WINDOWS);
    let each = match wide {
        1 => "each second".to_owned(),
        _ => format!("each {wide} seconds, of which the worst p99 and maximum"),
    };
    vec![latency(&windows, end, &each), throughput(report, &windows, end, &each)]
}

fn latency(windows: &[Window], end: f64, each: &str) -> Plot {
    let line = |name: &str, look, figure: fn(&Window) -> Option<f64>| Line {
        name: name.to_owned(),
        look,
        points: windows.iter().map(|window| (window.at, figure(window))).collect(),
        marked: false,
        joined: true,
    };
    let lines = vec![
        line("maximum", 7, |window| window.max),
        line("p99", 1, |window| window.p99),
        line("p50", 0, |window| window.p50),
    ];
    let values = lines.iter().flat_map(|line| &line.points).filter_map(|(_, value)| *value);
    let y = Axis::latency(values.collect::<Vec<_>>().into_iter());
    Plot {
        title: "Latency over time",
        caption: format!("Operations that ended in {each}."),
        x: Axis::time(end),
        y,
        lines,
        level: None,
        alarms: alarms(windows),
        probes: windows
            .iter()
            .map(|window| {
                let figure = |value: Option<f64>| value.map_or_else(|| text::NONE.to_owned(), text::span);
                let words = format!(
                    "{} s\nmaximum  {}\np99  {}\np50  {}{}",
                    text::number(window.at),
                    figure(window.max),
                    figure(window.p99),
                    figure(window.p50),
                    errors(window)
                );
                (window.at, words)
            })
            .collect(),
    }
}

fn throughput(report: &Report, windows: &[Window], end: f64, each: &str) -> Plot {
    let line = |name: &str, look, rate: fn(&Window) -> f64| Line {
        name: name.to_owned(),
        look,
        points: windows.iter().map(|window| (window.at, Some(rate(window)))).collect(),
        marked: false,
        joined: true,
    };
    let lines = vec![
        line("all", 0, |window| window.reads + window.writes),
        line("reads", 2, |window| window.reads),
        line("writes", 3, |window| window.writes),
    ];
    let highest = windows.iter().map(|window| window.reads + window.writes).fold(0.0, f64::max);
    Plot {
        title: "Throughput over time",
        caption: format!("Operations per second that were answered in {}.", each.split(',').next().unwrap_or(each)),
        x: Axis::time(end),
        y: Axis::from_zero("operations per second", highest.max(report.offered_ops_per_s.unwrap_or(0.0))),
        lines,
        level: report.offered_ops_per_s.map(|rate| (rate, format!("offered, {}/s", text::short(rate)))),
        alarms: alarms(windows),
        probes: windows
            .iter()
            .map(|window| {
                let words = format!(
                    "{} s\nall  {}/s\nreads  {}/s\nwrites  {}/s{}",
                    text::number(window.at),
                    text::number(window.reads + window.writes),
                    text::number(window.reads),
                    text::number(window.writes),
                    errors(window)
                );
                (window.at, words)
            })
            .collect(),
    }
}

fn errors(window: &Window) -> String {
    match window.errors {
        0 => String::new(),
        errors => format!("\nerrors  {}", text::count(errors)),
    }
}

fn alarms(windows: &[Window]) -> Vec<f64> {
    windows.iter().filter(|window| window.errors > 0).map(|window| window.at).collect()
}

/// Promise 1.
fn windows(series: &[Second]) -> Vec<Window> {
    let wide = series.len().div_ceil(WINDOWS).max(1);
    series
        .chunks(wide)
        .filter_map(|seconds| {
            let length = seconds.len() as f64;
            let worst = |figure: fn(&Second) -> Option<f64>| seconds.iter().filter_map(figure).reduce(f64::max);
            let mut medians: Vec<f64> = seconds.iter().filter_map(|second| second.p50).collect();
            medians.sort_by(f64::total_cmp);
            Some(Window {
                at: seconds.last()?.at,
                reads: seconds.iter().map(|second| second.reads as f64).sum::<f64>() / length,
                writes: seconds.iter().map(|second| second.writes as f64).sum::<f64>() / length,
                errors: seconds.iter().fold(0, |sum, second| sum.saturating_add(second.errors)),
                p50: medians.get(medians.len() / 2).copied(),
                p99: worst(|second| second.p99),
                max: worst(|second| second.max),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_second_of_an_hour_is_seen() {
        let mut series: Vec<Second> = (0..3600)
            .map(|at| Second {
                at: f64::from(at),
                reads: 80,
                writes: 20,
                p50: Some(1.0),
                p99: Some(3.0),
                ..Second::default()
            })
            .collect();
        series[1777].p99 = Some(900.0);
        series[1777].errors = 4;
        let windows = windows(&series);
        assert!(windows.len() <= WINDOWS, "{} windows", windows.len());
        let bad: Vec<&Window> = windows.iter().filter(|window| window.p99 == Some(900.0)).collect();
        assert_eq!((bad.len(), bad[0].errors, bad[0].p50, bad[0].reads), (1, 4, Some(1.0), 80.0), "promise 1");
    }
}
