//! Capacity planning: how many nodes and shards a load needs, from a sweep that was measured.
//!
//! A small model ([`model`]) is fitted to the sweep's cells: what an operation and a round cost in CPU, and how
//! latency grows towards saturation. It is asked for the smallest cluster that meets the objective with one node
//! lost. The answer comes with the model's error on cells that it had not seen, with its assumptions, and with what
//! lies outside what was measured.
//!
//! # Promises
//! 1. No answer without a fit: a sweep that is too small, varies too little or was measured on different machines is refused.
//! 2. The exit status is 0 where a cluster was found, 1 where none is large enough, 2 where the sweep cannot be used.
//! 3. A mix of reads and writes is not planned for where the sweep had only another mix.
//!
//! The model knows nothing of machines that differ from the measured one, of networks slower than the measured one, or
//! of names of which a few take most of the load.

mod choose;
mod least_squares;
mod model;
mod sweep;
mod words;

use std::{path::PathBuf, process::ExitCode};

use choose::Demand;

use crate::{load, sweep_file::Sweep};

const EXAMPLES: &str = "\
Examples:
  wardlock-loadtest sweep --shards 4,16,64 --clients 64,256,1000 --reads 0,80,100 --json sweep.json
  wardlock-loadtest plan --sweep sweep.json --load 100000 --reads 80 --p99 10ms
  wardlock-loadtest plan --sweep sweep.json --load 500K --reads 95 --p99 5ms --cores-per-node 8

Exit status: 0, 1 where no cluster within --nodes-max suffices, 2 where the sweep cannot be used.";

/// Plans a cluster for a load, from a sweep.
///
/// Prints the nodes and shards that carry the load within the objective even with one node lost, the model's
/// error and its assumptions.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// What `sweep --json` wrote.
    #[arg(long, value_name = "FILE")]
    sweep: PathBuf,
    /// Operations per second to carry: 100000, 100K, 1.5M.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    load: f64,
    /// The share of reads among them.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    reads: f64,
    /// The objective: 99 of 100 operations are answered within this. 10ms, 0.5s.
    #[arg(long, value_name = "TIME", value_parser = milliseconds)]
    p99: f64,
    /// Cores of each node. [default: as many as the measured machine has]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1024))]
    cores_per_node: Option<u32>,
    /// The largest cluster to consider.
    #[arg(long, value_name = "COUNT", default_value_t = 15, value_parser = clap::value_parser!(u32).range(3..=1000))]
    nodes_max: u32,
}

fn rate(text: &str) -> Result<f64, String> {
    let (number, factor) = match text.strip_suffix(['K', 'k']) {
        Some(number) => (number, 1e3),
        None => text.strip_suffix('M').map_or((text, 1.0), |number| (number, 1e6)),
    };
    let rate =
        number.parse::<f64>().map_err(|_| format!("{text:?} is no rate; for example 100000, 100K or 1.5M"))? * factor;
    if (1.0..=1e9).contains(&rate) { Ok(rate) } else { Err("must be from 1 to 1000M operations per second".to_owned()) }
}

fn percent(text: &str) -> Result<f64, String> {
    let share: f64 =
        text.trim_end_matches('%').parse().map_err(|_| format!("{text:?} is no percentage; for example 80"))?;
    if (0.0..=100.0).contains(&share) { Ok(share) } else { Err("must be from 0 to 100".to_owned()) }
}

fn milliseconds(text: &str) -> Result<f64, String> {
    let wrong = || format!("{text:?} is no time; for example 10ms, 500us or 0.5s");
    let units = [("ms", 1.0), ("us", 1e-3), ("µs", 1e-3), ("s", 1e3)];
    let (number, factor) =
        units.into_iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor))).ok_or_else(wrong)?;
    let time = number.trim().parse::<f64>().map_err(|_| wrong())? * factor;
    if (0.001..=600_000.0).contains(&time) { Ok(time) } else { Err("must be from 1us to 600s".to_owned()) }
}

/// Runs it.
pub(crate) fn command(options: &Options) -> anyhow::Result<ExitCode> {
    let planned =
        load::sweep(&options.sweep).map_err(|error| format!("{error:#}")).and_then(|sweep| plan(&sweep, options));
    match planned {
        Ok((text, found)) => {
            print!("{text}");
            Ok(ExitCode::from(u8::from(!found)))
        }
        Err(reason) => {
            eprintln!("wardlock-loadtest: {reason}");
            Ok(ExitCode::from(2))
        }
    }
}

/// What is printed, and whether a cluster was found; or why there is no plan.
fn plan(sweep: &Sweep, options: &Options) -> Result<(String, bool), String> {
    let fitted = sweep::fit(sweep)?;
    let (least, most) = fitted.ranges.reads;
    if most - least < 1.0 && (options.reads - least).abs() > 1.0 {
        return Err(format!(
            "all cells were measured at {least} % reads: what reads and writes cost apart is unknown, so {} % cannot be planned \
             for; sweep with --reads 0,80,100",
            options.reads
        ));
    }
    let demand = Demand {
        load: options.load,
        reads: options.reads,
        p99_ms: options.p99,
        cores_per_node: f64::from(options.cores_per_node.unwrap_or(fitted.cores)),
        nodes_max: options.nodes_max,
    };
    let candidates = choose::candidates(&fitted, &demand);
    let found = candidates.last().is_some_and(|candidate| candidate.suffices);
    Ok((words::plan(&fitted, &demand, &candidates), found))
}

#[cfg(test)]
mod tests;
