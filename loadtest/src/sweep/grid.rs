//! What is measured in which order, and how long it takes: no measuring here.

use std::{fmt, time::Duration};

use crate::report::{Env, Report, Workload};

/// A cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) nodes: u32,
    pub(super) shards: u32,
}

/// A load on it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Combination {
    pub(super) clients: u32,
    /// Percent.
    pub(super) reads: f64,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} nodes, {} shards", self.nodes, self.shards)
    }
}

impl fmt::Display for Combination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} clients, {} % reads", self.clients, self.reads)
    }
}

/// Every cluster once, in the order in which they were named.
pub(super) fn shapes(nodes: &[u32], shards: &[u32]) -> Vec<Shape> {
    pairs(nodes, shards).map(|(nodes, shards)| Shape { nodes, shards }).fold(Vec::new(), once)
}

/// Every load once, in the order in which they were named.
pub(super) fn of(clients: &[u32], reads: &[f64]) -> Vec<Combination> {
    pairs(clients, reads).map(|(clients, reads)| Combination { clients, reads }).fold(Vec::new(), once)
}

fn pairs<A: Copy, B: Copy>(some: &[A], others: &[B]) -> impl Iterator<Item = (A, B)> {
    some.iter().flat_map(move |one| others.iter().map(move |other| (*one, *other)))
}

fn once<T: PartialEq>(mut all: Vec<T>, one: T) -> Vec<T> {
    if !all.contains(&one) {
        all.push(one);
    }
    all
}

/// The run of median throughput; of an even number the slower of the two in the middle.
pub(super) fn median(mut reports: Vec<Report>) -> Option<Report> {
    reports.sort_by(|one, other| one.throughput_ops_per_s.total_cmp(&other.throughput_ops_per_s));
    let middle = reports.len().checked_sub(1)? / 2;
    Some(reports.swap_remove(middle))
}

/// How long so many combinations on so many further clusters take, in words.
pub(super) fn left(combinations: usize, each: Duration, clusters: usize, start: Duration) -> String {
    let seconds = combinations as f64 * each.as_secs_f64() + clusters as f64 * start.as_secs_f64();
    match seconds {
        seconds if seconds < 90.0 => format!("{seconds:.0} s"),
        seconds if seconds < 5_400.0 => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3_600.0),
    }
}

/// A workload without what a sweep varies and what follows from that.
pub(super) fn unswept(workload: &Workload) -> Workload {
    Workload { clients: 0, sessions: 0, reads: 0.0, ..workload.clone() }
}

/// What of the machine differs, if anything.
pub(super) fn moved(before: &Env, now: &Env) -> Option<String> {
    let same = (&before.cpu, before.cores, &before.kernel) == (&now.cpu, now.cores, &now.kernel);
    (!same).then(|| format!("{} with {} cores, Linux {}", before.cpu, before.cores, before.kernel))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ramp::sample;

    #[test]
    fn every_combination_comes_once_and_in_order() {
        let shape = |nodes, shards| Shape { nodes, shards };
        assert_eq!(shapes(&[3, 5, 3], &[1, 4]), [shape(3, 1), shape(3, 4), shape(5, 1), shape(5, 4)]);
        let load = |clients, reads| Combination { clients, reads };
        assert_eq!(
            of(&[64, 256], &[80.0, 0.0, 80.0]),
            [load(64, 80.0), load(64, 0.0), load(256, 80.0), load(256, 0.0)]
        );
    }

    #[test]
    fn the_median_is_a_run_that_was_measured() {
        let of =
            |all: &[f64]| median(all.iter().map(|ops| sample(*ops, 1.0)).collect()).map(|it| it.throughput_ops_per_s);
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[5.0]), Some(5.0));
        assert_eq!(of(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(of(&[9.0, 1.0, 5.0, 7.0]), Some(5.0));
    }

    #[test]
    fn the_time_left_is_in_words_of_its_size() {
        let left =
            |combinations, clusters| left(combinations, Duration::from_secs(12), clusters, Duration::from_secs(4));
        assert_eq!(left(2, 1), "28 s");
        assert_eq!(left(60, 10), "13 min");
        assert_eq!(left(1_000, 0), "3.3 h");
    }

    #[test]
    fn workloads_differ_by_what_is_not_swept() {
        let workload = Workload { clients: 64, reads: 80.0, names: 1_000, ..Workload::default() };
        let swept = Workload { clients: 1_000, reads: 0.0, sessions: 7, ..workload.clone() };
        assert_eq!(unswept(&workload), unswept(&swept));
        assert_ne!(unswept(&workload), unswept(&Workload { names: 7, ..swept }));
    }
}
