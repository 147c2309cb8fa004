//! What of a sweep can be fitted, and how well.
//!
//! # Promises
//! 1. A cell that is not used is counted with the reason.
//! 2. A sweep that is too small, or varies too little, is refused with the sweep that would do.
//! 3. The errors are of cells that the fit did not see: each is predicted from all others.

use std::collections::{BTreeMap, BTreeSet};

use super::model::{Load, Model, Point, REPLICAS};
use crate::sweep_file::{Cell, Sweep};

/// Fewer cells than twice the coefficients of a fit would be explained by anything.
const CELLS: usize = 8;

/// A fitted sweep.
#[derive(Debug)]
pub(super) struct Fitted {
    pub(super) model: Model,
    pub(super) ranges: Ranges,
    /// Relative errors of throughput and of p99, cross-validated.
    pub(super) throughput_error: Error,
    pub(super) p99_error: Error,
    pub(super) cells: usize,
    /// Cells left out, by reason.
    pub(super) left_out: BTreeMap<&'static str, u32>,
    /// Of the machine.
    pub(super) cpu: String,
    pub(super) cores: u32,
}

/// What was measured, lowest and highest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ranges {
    pub(super) nodes: (u32, u32),
    pub(super) shards: (u32, u32),
    /// Percent.
    pub(super) reads: (f64, f64),
    pub(super) in_flight: (f64, f64),
    pub(super) throughput: (f64, f64),
}

/// Relative errors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Error {
    pub(super) median: f64,
    pub(super) worst: f64,
}

const ADVICE: &str = "measure more: vary clients over three values, shards over two and reads over two, for example\n  \
     wardlock-loadtest sweep --shards 4,16,64 --clients 64,256,1000 --reads 0,80,100 --json sweep.json";

/// Fits a sweep, or says why not (promise 2).
pub(super) fn fit(sweep: &Sweep) -> Result<Fitted, String> {
    let mut left_out: BTreeMap<&'static str, u32> = BTreeMap::new();
    let mut used: Vec<(&Cell, Point)> = Vec::new();
    for cell in &sweep.cells {
        match point(cell) {
            Ok(point) => used.push((cell, point)),
            Err(reason) => *left_out.entry(reason).or_default() += 1,
        }
    }
    let reasons: Vec<String> = left_out.iter().map(|(reason, cells)| format!("{cells} {reason}")).collect();
    let unused = if reasons.is_empty() {
        String::new()
    } else {
        format!(" ({} left out: {})", sweep.cells.len() - used.len(), reasons.join(", "))
    };
    if used.len() < CELLS {
        return Err(format!("{} usable cells are too few to fit; {CELLS} are needed{unused}: {ADVICE}", used.len()));
    }
    let distinct = |value: fn(&Cell) -> u32| used.iter().map(|(cell, _)| value(cell)).collect::<BTreeSet<_>>().len();
    if distinct(|cell| cell.clients) < 3 || distinct(|cell| cell.shards) < 2 {
        return Err(format!(
            "the sweep varies too little to fit: {} numbers of clients and {} of shards{unused}: {ADVICE}",
            distinct(|cell| cell.clients),
            distinct(|cell| cell.shards)
        ));
    }
    let env = &used[0].0.report.env;
    if used.iter().any(|(cell, _)| (&cell.report.env.cpu, cell.report.env.cores) != (&env.cpu, env.cores)) {
        return Err(
            "the cells are from different machines: CPU per operation cannot be compared across them; sweep on one"
                .to_owned(),
        );
    }
    let points: Vec<Point> = used.iter().map(|(_, point)| *point).collect();
    let model =
        Model::fit(&points).ok_or_else(|| format!("the cells do not show what a round costs{unused}: {ADVICE}"))?;
    let (throughput_error, p99_error) =
        cross_validate(&points).ok_or_else(|| format!("the fit rests on single cells{unused}: {ADVICE}"))?;
    Ok(Fitted {
        model,
        ranges: ranges(&used),
        throughput_error,
        p99_error,
        cells: points.len(),
        left_out,
        cpu: env.cpu.clone(),
        cores: env.cores,
    })
}

/// A cell as a point, or why it is none (promise 1).
fn point(cell: &Cell) -> Result<Point, &'static str> {
    let report = &cell.report;
    if report.safety_violations > 0 {
        return Err("broke safety");
    }
    if report.workload.rate.is_some() {
        return Err("in an open loop");
    }
    let operations = report.throughput_ops_per_s * report.seconds;
    if operations < 1.0 || report.errors as f64 > 0.01 * operations {
        return Err("with errors above 1 %");
    }
    let (Some(server_us), Some(mean_ms), Some(p99_ms)) =
        (report.server_cpu_us_per_op, report.latency_ms.all.mean, report.latency_ms.all.p99)
    else {
        return Err("without the servers’ CPU or latency");
    };
    let figures = [
        report.throughput_ops_per_s,
        server_us,
        mean_ms,
        p99_ms,
        f64::from(cell.nodes),
        f64::from(cell.shards),
        f64::from(cell.clients),
        f64::from(report.env.cores),
    ];
    if figures.iter().any(|figure| !figure.is_finite() || *figure <= 0.0) || !(0.0..=100.0).contains(&cell.reads) {
        return Err("with impossible figures");
    }
    Ok(Point {
        load: Load {
            replicas: f64::from(cell.nodes).min(REPLICAS),
            shards: f64::from(cell.shards),
            reads: cell.reads / 100.0,
            in_flight: f64::from(cell.clients),
        },
        cores: f64::from(report.env.cores),
        throughput: report.throughput_ops_per_s,
        server_us,
        generator_us: report.generator_cpu_us_per_op.unwrap_or(0.0),
        mean_ms,
        p99_ms,
    })
}

/// Promise 3. None where some cell cannot be left out.
fn cross_validate(points: &[Point]) -> Option<(Error, Error)> {
    let mut throughput = Vec::with_capacity(points.len());
    let mut p99 = Vec::with_capacity(points.len());
    for (left_out, point) in points.iter().enumerate() {
        let others: Vec<Point> =
            points.iter().enumerate().filter(|(index, _)| *index != left_out).map(|(_, point)| *point).collect();
        let (predicted, predicted_p99) = Model::fit(&others)?.closed_loop(&point.load, point.cores);
        throughput.push((predicted / point.throughput - 1.0).abs());
        p99.push((predicted_p99 / point.p99_ms - 1.0).abs());
    }
    Some((Error::of(throughput), Error::of(p99)))
}

impl Error {
    fn of(mut errors: Vec<f64>) -> Error {
        errors.sort_by(f64::total_cmp);
        Error {
            median: errors.get(errors.len() / 2).copied().unwrap_or(f64::INFINITY),
            worst: errors.last().copied().unwrap_or(f64::INFINITY),
        }
    }
}

fn ranges(used: &[(&Cell, Point)]) -> Ranges {
    let whole = |value: fn(&Cell) -> u32| {
        let values = || used.iter().map(|(cell, _)| value(cell));
        (values().min().unwrap_or(0), values().max().unwrap_or(0))
    };
    let real = |value: fn(&Cell) -> f64| {
        let values = || used.iter().map(|(cell, _)| value(cell));
        (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max))
    };
    Ranges {
        nodes: whole(|cell| cell.nodes),
        shards: whole(|cell| cell.shards),
        reads: real(|cell| cell.reads),
        in_flight: real(|cell| f64::from(cell.clients)),
        throughput: real(|cell| cell.report.throughput_ops_per_s),
    }
}
