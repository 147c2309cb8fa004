//! Reports as runs make them, for tests: drawn from distributions, with nothing measured.

use std::collections::BTreeMap;

use crate::report::{Buckets, Env, Figures, Generator, Latencies, Report, SCHEMA, Second, Shard, Workload};

/// What a made-up run is like.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) seed: u64,
    pub(crate) nodes: u32,
    pub(crate) shards: u32,
    pub(crate) clients: u32,
    pub(crate) reads: f64,
    /// Open loop at this rate.
    pub(crate) rate: Option<f64>,
    pub(crate) seconds: u32,
    pub(crate) throughput: f64,
    /// Medians, milliseconds.
    pub(crate) read_ms: f64,
    pub(crate) write_ms: f64,
    /// A second in which a leader is lost.
    pub(crate) stall_at: Option<u32>,
    pub(crate) queues: bool,
}

impl Default for Case {
    fn default() -> Case {
        Case {
            seed: 7,
            nodes: 3,
            shards: 16,
            clients: 1000,
            reads: 80.0,
            rate: None,
            seconds: 60,
            throughput: 205_113.0,
            read_ms: 4.2,
            write_ms: 6.6,
            stall_at: None,
            queues: false,
        }
    }
}

/// A small, known generator of numbers.
struct Dice(u64);

impl Dice {
    /// From 0 to 1.
    fn even(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    /// About normal, mean 0, deviation 1.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.even()).sum::<f64>() - 6.0
    }

    /// A latency around `median`, with the tail that commits have.
    fn latency(&mut self, median: f64) -> f64 {
        let slow = if self.even() < 0.002 { 1.0 + 6.0 * self.even() } else { 1.0 };
        median * (0.28 * self.normal()).exp() * slow
    }
}

/// Latencies in microseconds.
#[derive(Default)]
struct Sample(Vec<u64>);

impl Sample {
    fn figures(&self, weight: f64) -> Figures {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = |share: f64| {
            let index = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
            sorted.get(index).map(|us| *us as f64 / 1e3)
        };
        Figures {
            count: (sorted.len() as f64 * weight) as u64,
            mean: (!sorted.is_empty()).then(|| sorted.iter().sum::<u64>() as f64 / sorted.len() as f64 / 1e3),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: at(1.0),
        }
    }

    fn buckets(&self, weight: f64) -> Buckets {
        let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
        for us in &self.0 {
            // Three significant digits.
            let width = 10_u64.pow((us.max(&1).ilog10()).saturating_sub(2));
            *counts.entry(us.div_ceil(width) * width).or_default() += 1;
        }
        Buckets {
            us: counts.keys().copied().collect(),
            count: counts.values().map(|count| (*count as f64 * weight).ceil() as u64).collect(),
        }
    }
}

/// A run.
pub(crate) fn report(case: &Case) -> Report {
    let mut dice = Dice(case.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let (mut read, mut write, mut acquire, mut release) =
        (Sample::default(), Sample::default(), Sample::default(), Sample::default());
    let mut series = Vec::new();
    let per_second = (72_000 / case.seconds.max(1)).clamp(20, 1200);
    for second in 0..case.seconds {
        let stalled = case.stall_at.is_some_and(|at| (at..at + 2).contains(&second));
        let mut within = Sample::default();
        for _ in 0..per_second {
            let reads = dice.even() * 100.0 < case.reads;
            let mut ms = dice.latency(if reads { case.read_ms } else { case.write_ms });
            if stalled && dice.even() < 0.3 {
                ms += 900.0 * dice.even();
            }
            let us = (ms * 1e3) as u64;
            within.0.push(us);
            match (reads, dice.even() < 0.5) {
                (true, _) => read.0.push(us),
                (false, true) => acquire.0.push(us),
                (false, false) => release.0.push(us),
            }
            if !reads {
                write.0.push(us);
            }
        }
        let figures = within.figures(1.0);
        let answered = case.throughput * if stalled { 0.35 } else { 1.0 + 0.04 * dice.normal() };
        series.push(Second {
            at: f64::from(second + 1),
            reads: (answered * case.reads / 100.0) as u64,
            writes: (answered * (1.0 - case.reads / 100.0)) as u64,
            errors: if stalled { 412 } else { 0 },
            p50: figures.p50,
            p99: figures.p99,
            max: figures.max,
        });
    }
    let all = Sample(read.0.iter().chain(&write.0).copied().collect());
    let weight = case.throughput / f64::from(per_second);
    let handoff = Sample((0..if case.queues { 4000 } else { 0 }).map(|_| (dice.latency(1.4) * 1e3) as u64).collect());
    let latency_ms = Latencies {
        all: all.figures(weight),
        read: read.figures(weight),
        write: write.figures(weight),
        acquire: acquire.figures(weight),
        handoff: handoff.figures(1.0),
        queue_wait: Sample(handoff.0.iter().map(|us| us * 31).collect()).figures(1.0),
        release: release.figures(weight),
        ..Latencies::default()
    };
    let mut histograms = BTreeMap::new();
    for (name, sample) in [("all", &all), ("read", &read), ("write", &write), ("handoff", &handoff)] {
        histograms.insert(name.to_owned(), sample.buckets(weight));
    }
    let errors: u64 = series.iter().map(|second| second.errors).sum();
    let shards = (0..case.shards)
        .map(|id| {
            let ops = case.throughput * f64::from(case.seconds) / f64::from(case.shards) * (0.12 * dice.normal()).exp();
            let median = case.read_ms * (0.05 * dice.normal()).exp();
            let leader = Some(id % case.nodes + 1);
            Shard { id: id + 1, leader, ops: ops as u64, p50: Some(median), p99: Some(median * 2.1) }
        })
        .collect();
    Report {
        schema: SCHEMA,
        env: env(case),
        workload: workload(case),
        seconds: f64::from(case.seconds),
        throughput_ops_per_s: case.throughput,
        offered_ops_per_s: case.rate,
        service_ms: latency_ms.clone(),
        latency_ms,
        server_cpu_us_per_op: Some(7.4),
        server_cpu_cores: Some(7.4e-6 * case.throughput),
        generator_cpu_us_per_op: Some(1.9),
        server_memory_bytes: Some(91_226_112),
        generator: Generator { cpu_cores: Some(1.9e-6 * case.throughput), ..Generator::default() },
        errors,
        errors_by_kind: if errors > 0 { BTreeMap::from([("no quorum".to_owned(), errors)]) } else { BTreeMap::new() },
        contended: 48_211,
        timed_out: 0,
        lost_locks: 0,
        safety_violations: 0,
        safety_examples: Vec::new(),
        series,
        histograms,
        shards,
    }
}

fn env(case: &Case) -> Env {
    Env {
        started_at: "2026-03-02T10:00:00Z".to_owned(),
        version: "0.1.0".to_owned(),
        cpu: "AMD EPYC 7B13".to_owned(),
        cores: 2,
        kernel: "6.1.0-18-amd64".to_owned(),
        memory_bytes: 8_321_499_136,
        system: "wardlock".to_owned(),
        protocol: "quic".to_owned(),
        target: "http://127.0.0.1:7400".to_owned(),
        nodes: case.nodes,
        shards: case.shards,
    }
}

fn workload(case: &Case) -> Workload {
    Workload {
        kind: "mix".to_owned(),
        schedule: if case.rate.is_some() { "poisson" } else { "closed" }.to_owned(),
        rate: case.rate,
        clients: case.clients,
        connections: case.nodes,
        sessions: case.clients,
        names: 1000,
        distribution: "uniform".to_owned(),
        reads: case.reads,
        shared: 0.0,
        hold: "next".to_owned(),
        wait_s: if case.queues { 5.0 } else { 0.0 },
        lease_s: None,
        session_ttl_s: 30.0,
        consistency: "linearizable".to_owned(),
    }
}
