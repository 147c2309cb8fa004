//! What an operation costs and how long it takes, as a function of the cluster and of its load.
//!
//! # The idea
//! Rounds cost, operations hardly do: a shard answers all reads that wait for it with one round, and all writes with
//! another. With `n` operations in flight over `s` shards, `s·(1 − e^(−n/s))` shards have work; each does one round
//! for its share of the `n`. So
//!
//! ```text
//! CPU per operation = reads·c_read + writes·replicas·c_write
//!                   + replicas·(c_read_round·(shards reading) + c_write_round·(shards writing)) / n
//! ```
//!
//! and latency goes in cycles: one round of every shard that has work, and the operations in flight:
//!
//! ```text
//! cycle   = (CPU of a cycle's rounds + n·CPU of an operation without its rounds) / cores
//! latency = base + factor·cycle,  for the mean and, with a base and factor of its own, for the p99
//! ```
//!
//! With `throughput × mean latency = n` (Little's law) both loops follow. In a closed loop `n` is the number of
//! clients, and the throughput is what comes out. In an open loop the load is given, and solving for `n` yields
//! latency that is inflated by `1 / (1 − load / saturation)`, where saturation is the load at which the operations
//! alone, without rounds, would take all cores.
//!
//! # Promises
//! 1. Coefficients are costs and delays: none is negative.
//! 2. The generator's own CPU, which shares the measured machine, is fitted apart and left out of plans.

use super::least_squares::{self, FEATURES, Row, dot};

/// Replicas of a shard, where there are nodes enough.
pub(super) const REPLICAS: f64 = 3.0;

/// A cell of a sweep as the model sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub(super) load: Load,
    pub(super) cores: f64,
    /// Operations per second.
    pub(super) throughput: f64,
    /// CPU per operation, microseconds: of all servers and of the generator.
    pub(super) server_us: f64,
    pub(super) generator_us: f64,
    pub(super) mean_ms: f64,
    pub(super) p99_ms: f64,
}

/// What is asked of a cluster, and its form.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Load {
    pub(super) replicas: f64,
    pub(super) shards: f64,
    /// 0 … 1.
    pub(super) reads: f64,
    /// Operations in flight.
    pub(super) in_flight: f64,
}

/// The fitted coefficients.
#[derive(Clone, Copy, Debug)]
pub(super) struct Model {
    /// Microseconds: a read; a write, per replica; a read round and a write round, per replica.
    pub(super) server: [f64; FEATURES],
    /// Microseconds: an operation; a shard's share of a cycle.
    pub(super) generator: [f64; FEATURES],
    /// Milliseconds, and cycles: of the mean and of the p99.
    pub(super) mean: [f64; FEATURES],
    pub(super) p99: [f64; FEATURES],
}

/// Work in microseconds of CPU.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    /// Of an operation alone.
    operation: f64,
    /// Of one round of every shard that has work.
    rounds: f64,
}

impl Load {
    /// Shards with at least one of `share` of the operations in flight.
    fn active(&self, share: f64) -> f64 {
        self.shards * (1.0 - (-share * self.in_flight / self.shards).exp())
    }

    fn server_features(&self) -> [f64; FEATURES] {
        let writes = 1.0 - self.reads;
        let rounds = |share| self.replicas * self.active(share) / self.in_flight;
        [self.reads, writes * self.replicas, rounds(self.reads), rounds(writes)]
    }

    fn generator_features(&self) -> [f64; FEATURES] {
        [1.0, (self.active(self.reads) + self.active(1.0 - self.reads)) / self.in_flight, 0.0, 0.0]
    }
}

impl Work {
    /// Milliseconds of a cycle.
    pub(super) fn cycle_ms(&self, in_flight: f64, cores: f64) -> f64 {
        (self.rounds + in_flight * self.operation) / cores / 1e3
    }
}

impl Model {
    /// None where the points do not show what a round costs.
    pub(super) fn fit(points: &[Point]) -> Option<Model> {
        let rows = |features: fn(&Load) -> [f64; FEATURES], figure: fn(&Point) -> f64| -> Vec<Row> {
            points.iter().map(|point| Row { features: features(&point.load), figure: figure(point) }).collect()
        };
        let server = least_squares::fit(&rows(Load::server_features, |point| point.server_us))?;
        let measured: Vec<Point> = points.iter().copied().filter(|point| point.generator_us > 0.0).collect();
        let generator = measured
            .iter()
            .map(|point| Row { features: point.load.generator_features(), figure: point.generator_us })
            .collect::<Vec<_>>();
        let generator = least_squares::fit(&generator).unwrap_or_default();
        let mut model = Model { server, generator, mean: [0.0; FEATURES], p99: [0.0; FEATURES] };
        let latency = |figure: fn(&Point) -> f64| {
            let row = |point: &Point| {
                let cycle = model.measured_work(&point.load).cycle_ms(point.load.in_flight, point.cores);
                Row { features: [1.0, cycle, 0.0, 0.0], figure: figure(point) }
            };
            least_squares::fit(&points.iter().map(row).collect::<Vec<_>>())
        };
        let (mean, p99) = (latency(|point| point.mean_ms)?, latency(|point| point.p99_ms)?);
        (model.mean, model.p99) = (mean, p99);
        let explains = server[2] + server[3] > 0.0 && model.mean[1] > 0.0 && model.p99[1] > 0.0;
        explains.then_some(model)
    }

    /// CPU of all servers for one operation, microseconds.
    pub(super) fn server_us(&self, load: &Load) -> f64 {
        dot(&load.server_features(), &self.server)
    }

    /// The servers' work alone (promise 2).
    pub(super) fn server_work(&self, load: &Load) -> Work {
        let [read, write, read_round, write_round] = load.server_features();
        let [read_us, write_us, read_round_us, write_round_us] = self.server;
        Work {
            operation: read * read_us + write * write_us,
            rounds: load.in_flight * (read_round * read_round_us + write_round * write_round_us),
        }
    }

    /// With the generator's, as on the measured machine.
    fn measured_work(&self, load: &Load) -> Work {
        let Work { operation, rounds } = self.server_work(load);
        let [_, shards, ..] = load.generator_features();
        Work { operation: operation + self.generator[0], rounds: rounds + load.in_flight * shards * self.generator[1] }
    }

    pub(super) fn mean_ms(&self, cycle_ms: f64) -> f64 {
        self.mean[0] + self.mean[1] * cycle_ms
    }

    pub(super) fn p99_ms(&self, cycle_ms: f64) -> f64 {
        self.p99[0] + self.p99[1] * cycle_ms
    }

    /// Throughput and p99 of a closed loop of `load.in_flight` clients on the measured machine.
    pub(super) fn closed_loop(&self, load: &Load, cores: f64) -> (f64, f64) {
        let cycle = self.measured_work(load).cycle_ms(load.in_flight, cores);
        (1e3 * load.in_flight / self.mean_ms(cycle), self.p99_ms(cycle))
    }

    /// An open loop of `rate` operations per second: operations in flight, cycle, and the share of saturation. `shape` is
    /// the cluster, its operations in flight not looked at. None from saturation on.
    pub(super) fn open_loop(&self, shape: &Load, rate: f64, cores: f64) -> Option<(f64, f64, f64)> {
        let [base, factor, ..] = self.mean;
        let operation = self.server_work(&Load { in_flight: 1.0, ..*shape }).operation;
        let inflation = rate * operation * factor / cores / 1e6;
        // Where the fit has the CPU wait less than the work is long, the work is the bound.
        let share = inflation.max(rate * operation / cores / 1e6);
        if share >= 0.99 {
            return None;
        }
        // More in flight keep more shards busy, at most all: from below, this rises to its limit.
        let mut in_flight = 1e-3;
        for _ in 0..200 {
            let rounds = self.server_work(&Load { in_flight, ..*shape }).rounds;
            let next = (rate / 1e3 * (base + factor * rounds / cores / 1e3) / (1.0 - inflation)).max(1e-3);
            let change = next / in_flight - 1.0;
            in_flight = next;
            if change < 1e-6 {
                break;
            }
        }
        let cycle = self.server_work(&Load { in_flight, ..*shape }).cycle_ms(in_flight, cores);
        Some((in_flight, cycle, share))
    }
}
