//! The percentile curve: how slow the slowest tenth, hundredth, thousandth … of all operations were.
//!
//! x is one over the share that was slower, logarithmic: each step to the right is ten times rarer. A mean hides
//! what this shows.
//!
//! # Promises
//! 1. The curve is made from whole histograms, never from averaged percentiles.
//! 2. It ends where the count of operations ends: of 1,000 operations no 99.99 % is shown.

use super::{
    axis::Axis,
    plot::{LOOKS, Line, Plot},
    text,
};
use crate::report::{Buckets, Report};

/// One curve's name, and what it is drawn from.
pub(super) struct Curve<'a> {
    pub(super) name: String,
    pub(super) look: usize,
    pub(super) buckets: &'a Buckets,
}

/// The curves of one run: all, reads, writes, handoffs, as far as they occurred.
pub(super) fn of_one(report: &Report) -> Option<Plot> {
    let kinds = [("all", "all", 0), ("read", "reads", 2), ("write", "writes", 3), ("handoff", "handoffs", 1)];
    let curves = kinds.iter().filter_map(|(kind, name, look)| {
        let buckets = report.histograms.get(*kind)?;
        Some(Curve { name: (*name).to_owned(), look: *look, buckets })
    });
    plot(curves.collect(), "Share of operations that were at least as fast as the line, by kind.".to_owned())
}

/// The curve of all operations, run by run.
pub(super) fn of_many(reports: &[Report], names: &[String]) -> Option<Plot> {
    let with_curve =
        || reports.iter().zip(names).filter_map(|(report, name)| Some((report.histograms.get("all")?, name)));
    let left_out = with_curve().count().saturating_sub(LOOKS);
    let curves = with_curve()
        .take(LOOKS)
        .enumerate()
        .map(|(look, (buckets, name))| Curve { name: name.clone(), look, buckets })
        .collect();
    let more = match left_out {
        0 => String::new(),
        _ => format!(" The first {LOOKS} runs; {left_out} more are in the table."),
    };
    plot(curves, format!("All operations, run by run.{more}"))
}

fn plot(curves: Vec<Curve<'_>>, caption: String) -> Option<Plot> {
    let lines: Vec<Line> = curves
        .into_iter()
        .map(|curve| Line {
            name: curve.name,
            look: curve.look,
            points: points(curve.buckets),
            marked: false,
            joined: true,
        })
        .filter(|line| !line.points.is_empty())
        .collect();
    let values: Vec<f64> = lines.iter().flat_map(|line| &line.points).filter_map(|(_, ms)| *ms).collect();
    let rarest = lines.iter().flat_map(|line| &line.points).map(|(x, _)| *x).fold(0.0, f64::max);
    let probes = probes(&lines, rarest);
    (!lines.is_empty()).then(|| Plot {
        title: "Latency by percentile",
        caption,
        x: Axis::percentiles(rarest),
        y: Axis::latency(values.into_iter()),
        lines,
        level: None,
        alarms: Vec::new(),
        probes,
    })
}

/// (one over the share that was slower, milliseconds), thinned to what a screen can show.
fn points(buckets: &Buckets) -> Vec<(f64, Option<f64>)> {
    let pairs = || buckets.us.iter().zip(&buckets.count).filter(|(_, count)| **count > 0);
    let total: f64 = pairs().map(|(_, count)| *count as f64).sum();
    let mut points: Vec<(f64, Option<f64>)> = Vec::new();
    let mut below = 0.0;
    for (us, count) in pairs() {
        let (x, ms) = (total / (total - below).max(1.0), (*us as f64 / 1e3).max(1e-3));
        below += *count as f64;
        let end = total / (total - below).max(1.0);
        let near = points.last().and_then(|(before_x, before)| Some((before_x, (*before)?)));
        // Under half a percent in both directions is less than a pixel.
        if near.is_some_and(|(before_x, before)| end / before_x < 1.005 && ms / before < 1.005) && below < total {
            continue;
        }
        if points.is_empty() {
            points.push((x, Some(ms)));
        }
        points.push((end, Some(ms)));
    }
    points
}

/// What each line says at evenly spread places.
fn probes(lines: &[Line], rarest: f64) -> Vec<(f64, String)> {
    let places = 60;
    (0..=places)
        .map(|index| {
            let x = rarest.max(1.0).powf(f64::from(index) / f64::from(places));
            let mut words = format!("{} %", share(x));
            for line in lines {
                let reached = line.points.iter().find(|(place, _)| *place >= x * 0.9999).and_then(|(_, ms)| *ms);
                if let Some(ms) = reached {
                    words.push_str(&format!("\n{}  {}", line.name, text::span(ms)));
                }
            }
            (x, words)
        })
        .collect()
}

/// `99.95` for one in two thousand: as many digits as tell it from 100.
fn share(x: f64) -> String {
    let digits = x.log10().floor().clamp(0.0, 6.0) as usize;
    format!("{:.digits$}", 100.0 * (1.0 - 1.0 / x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_ends_where_its_count_ends() {
        let buckets = Buckets { us: vec![100, 200, 5_000], count: vec![900, 99, 1] };
        let points = points(&buckets);
        let at = |share: f64| points.iter().find(|(x, _)| *x >= share * 0.999).and_then(|(_, ms)| *ms);
        assert_eq!((at(2.0), at(10.0), at(100.0), at(1000.0)), (Some(0.1), Some(0.1), Some(0.2), Some(0.2)));
        assert_eq!(points.last(), Some(&(1000.0, Some(5.0))), "promise 2: the slowest of a thousand ends the curve");
    }

    #[test]
    fn a_histogram_whose_halves_differ_in_length_or_overflow_is_survived() {
        assert!(points(&Buckets::default()).is_empty());
        assert!(points(&Buckets { us: vec![1, 2], count: vec![0, 0, 7] }).is_empty());
        assert!(!points(&Buckets { us: vec![0, u64::MAX], count: vec![u64::MAX, u64::MAX] }).is_empty());
    }
}
