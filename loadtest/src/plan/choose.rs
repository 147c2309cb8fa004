//! How many nodes and shards a load needs.
//!
//! # Promises
//! 1. What is chosen meets the objective with one node lost: the others carry the load, with the shards that the
//!    busiest of them then leads.
//! 2. Predictions are raised by the model's median error before they are held against the objective.
//! 3. Work that no batching saves may take at most [`BUSY`] of the busiest node.

use super::{
    model::{Load, Model, REPLICAS},
    sweep::{Fitted, Ranges},
};

/// Of a node's cores, after the loss of another.
pub(super) const BUSY: f64 = 0.8;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    /// Operations per second.
    pub(super) load: f64,
    /// Percent.
    pub(super) reads: f64,
    pub(super) p99_ms: f64,
    pub(super) cores_per_node: f64,
    pub(super) nodes_max: u32,
}

/// One cluster, and what the model expects of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) nodes: u32,
    pub(super) shards: u32,
    /// With all nodes; none where they cannot carry the load.
    pub(super) whole: Option<State>,
    /// With one node lost.
    pub(super) degraded: Option<State>,
    /// The highest load within the objective with one node lost; 0 where none is.
    pub(super) most: f64,
    pub(super) suffices: bool,
}

/// A cluster under a load.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    pub(super) p99_ms: f64,
    pub(super) mean_ms: f64,
    /// The share of saturation: what operations, without rounds, take of the busiest node's cores.
    pub(super) busy: f64,
    pub(super) server_us: f64,
    pub(super) in_flight: f64,
}

/// For each number of nodes from three, its best number of shards, up to and with the first that suffices.
pub(super) fn candidates(fitted: &Fitted, demand: &Demand) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    for nodes in 3..=demand.nodes_max {
        // A node that leads nothing is of no use; where so many shards were not measured, the most that were.
        let most = fitted.ranges.shards.1;
        let best = shard_counts(&fitted.ranges)
            .filter(|shards| *shards >= nodes || *shards == most)
            .map(|shards| candidate(fitted, demand, nodes, shards))
            .max_by(|a, b| a.most.total_cmp(&b.most).then(b.shards.cmp(&a.shards)));
        candidates.extend(best);
        if best.is_some_and(|best| best.suffices) {
            break;
        }
    }
    candidates
}

/// The measured range, by powers of two, and its ends.
fn shard_counts(ranges: &Ranges) -> impl Iterator<Item = u32> {
    let (low, high) = ranges.shards;
    let powers = (0..31).map(|power| 1u32 << power).filter(move |shards| (low + 1..high).contains(shards));
    std::iter::once(low).chain(powers).chain((high > low).then_some(high))
}

fn candidate(fitted: &Fitted, demand: &Demand, nodes: u32, shards: u32) -> Candidate {
    let margin = 1.0 + fitted.p99_error.median;
    let with = |nodes: u32, load: f64| state(&fitted.model, demand, nodes, shards, load);
    let meets = |state: &State| state.p99_ms * margin <= demand.p99_ms && state.busy <= BUSY;
    let degraded = with(nodes - 1, demand.load);
    // More load is never faster: the highest that meets the objective is found by halving.
    let (mut low, mut high) = (0.0, 1e9);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        match with(nodes - 1, middle).filter(meets) {
            Some(_) => low = middle,
            None => high = middle,
        }
    }
    let suffices = degraded.as_ref().is_some_and(meets);
    Candidate { nodes, shards, whole: with(nodes, demand.load), degraded, most: low, suffices }
}

/// The cluster under an open load; none where it is saturated.
fn state(model: &Model, demand: &Demand, nodes: u32, shards: u32, load: f64) -> Option<State> {
    let led_by_busiest = f64::from(shards.div_ceil(nodes));
    let even = f64::from(shards) / f64::from(nodes);
    // All of a shard's work counts as its leader's: the busiest leader sets the pace.
    let led = f64::from(nodes) * demand.cores_per_node * even / led_by_busiest;
    // A shard does one thing after the other: it keeps one core busy at the most.
    let cores = led.min(f64::from(shards));
    let shape = Load { replicas: REPLICAS, shards: f64::from(shards), reads: demand.reads / 100.0, in_flight: 1.0 };
    let (in_flight, cycle, busy) = model.open_loop(&shape, load, cores)?;
    Some(State {
        p99_ms: model.p99_ms(cycle),
        mean_ms: model.mean_ms(cycle),
        busy,
        server_us: model.server_us(&Load { in_flight, ..shape }),
        in_flight,
    })
}

/// What lies outside what was measured, in words.
pub(super) fn extrapolations(ranges: &Ranges, demand: &Demand, chosen: &Candidate) -> Vec<String> {
    let mut words = Vec::new();
    let mut beyond = |what: &str, value: f64, (low, high): (f64, f64)| {
        if value < low * 0.999 || value > high * 1.001 {
            words.push(format!("{what} {value:.0} lies outside the measured {low:.0} to {high:.0}"));
        }
    };
    let whole = |(low, high): (u32, u32)| (f64::from(low), f64::from(high));
    beyond("nodes:", f64::from(chosen.nodes), whole(ranges.nodes));
    beyond("reads, percent:", demand.reads, ranges.reads);
    beyond("load, operations/s:", demand.load, (0.0, ranges.throughput.1));
    if let Some(state) = chosen.degraded {
        beyond("operations in flight with a node lost:", state.in_flight, ranges.in_flight);
    }
    words
}
