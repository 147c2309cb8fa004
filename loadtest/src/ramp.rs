//! `ramp`: the highest rate that is good enough, found and then held.
//!
//! Each step is an open loop at one rate, judged by the [`Slo`]; [`Search`] says which rate comes next. What is
//! found is then borne in a soak, at [`SOAK_SHARE`] of it: a rate that holds for seconds at the limit says little
//! about hours, and nobody should plan to run there.
//!
//! # Promises
//! 1. A step that fails while the generator was its own limit is said to be the generator's failure: the cluster
//!    can do at least what was found, and nothing is claimed beyond.
//! 2. A broken promise of the cluster ends the ramp: no rate is worth it.
//! 3. A cluster that it started is ended, however the ramp ends.

mod judge;
mod search;
mod show;
mod slo;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use self::{
    judge::{Verdict, judge},
    search::{Next, Search, Tried},
    slo::Slo,
};
use crate::{
    bench::Bench,
    cluster::{Cluster, Local, interrupt::interruptible},
    page,
    report::Report,
    run,
};

/// The version of the document's form.
const SCHEMA: u32 = 1;
/// How much of what was found the soak asks for.
const SOAK_SHARE: f64 = 0.7;
/// Where the search begins, unless a rate is given.
const FIRST: f64 = 1_000.0;

const EXAMPLES: &str = "\
Examples:
  wardlock-loadtest ramp --cluster --nodes 3 --shards 16
  wardlock-loadtest ramp --target http://127.0.0.1:7400 --slo 'write.p99<15ms,errors<0.01%' --json ramp.json
  wardlock-loadtest ramp --cluster --reads 0 --rate 5000 --step 10s --soak 2m";

/// Finds the highest rate that meets an objective, then holds 70 % of it for a while.
///
/// The rate is doubled until a step fails, then bisected; a rate is given up only when it failed twice. A step
/// that fails because this program is at its own limit is said to be that.
///
/// Exit status: 0, or 1 where no rate meets the objective, the soak does not, or a promise was broken.
#[derive(Args, Clone, Debug)]
#[group(id = "ramp")]
#[command(
    after_help = EXAMPLES,
    mut_arg("duration", |arg| arg.long("step").default_value("5s").help("How long each rate is measured")),
    mut_arg("warmup", |arg| arg.long("settle").default_value("1s").help("How long each rate is borne before that")),
    mut_arg("rate", |arg| arg.help("The first rate, operations per second [default: 1000]")),
    mut_arg("closed_loop", |arg| arg.hide(true)),
)]
pub(crate) struct Options {
    /// What is good enough: latencies (mean, p50, p90, p99, p999, p9999, max; of one kind as in acquire.p99) and
    /// the share of operations without an answer.
    #[arg(long, value_name = "CONDITIONS", default_value = "p99<10ms,errors<0.1%")]
    slo: Slo,
    /// How close to the limit to come.
    #[arg(long, value_name = "PERCENT", default_value = "5%", value_parser = precision)]
    precision: f64,
    /// The highest rate to try, operations per second.
    #[arg(long, value_name = "OPS", default_value = "1000000", value_parser = run::positive)]
    most: f64,
    /// How long the soak at 70 % of what was found takes; 0 for none.
    #[arg(long, value_name = "LENGTH", default_value = "30s", value_parser = run::length)]
    soak: Duration,

    /// Start a cluster on this machine, and end it afterwards; in place of --target.
    #[arg(long, help_heading = "Cluster")]
    cluster: bool,
    /// Its nodes.
    #[arg(long, value_name = "COUNT", default_value_t = 3, requires = "cluster", help_heading = "Cluster", value_parser = clap::value_parser!(u32).range(1..=9))]
    nodes: u32,
    /// Its shards.
    #[arg(long, value_name = "COUNT", default_value_t = 16, requires = "cluster", help_heading = "Cluster", value_parser = clap::value_parser!(u32).range(1..=256))]
    shards: u32,
    #[command(flatten, next_help_heading = "Cluster")]
    local: Local,

    #[command(flatten)]
    load: run::Options,
}

/// From 0.5 % to 50 %, as a ratio.
fn precision(text: &str) -> Result<f64, String> {
    let percent: f64 =
        text.trim_end_matches('%').trim().parse().map_err(|_| format!("{text:?} is not a percentage"))?;
    match (0.5..=50.0).contains(&percent) {
        true => Ok(percent / 100.0),
        false => Err(format!("{text} is not from 0.5 % to 50 %")),
    }
}

/// What a ramp came to.
#[derive(Debug, Serialize)]
struct Ramp {
    schema: u32,
    /// What was asked for.
    slo: String,
    precision_percent: f64,
    /// In the order in which they were measured.
    steps: Vec<Step>,
    /// The highest rate that met the objective.
    found_ops_per_s: Option<f64>,
    /// What kept it from being higher.
    limit: Limit,
    /// The measurement at 70 % of it.
    soak: Option<Step>,
}

/// One rate, measured and judged.
#[derive(Debug, Serialize)]
struct Step {
    rate_ops_per_s: f64,
    #[serde(flatten)]
    verdict: Verdict,
    report: Report,
}

/// What ends a ramp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Limit {
    /// The objective: higher rates do not meet it.
    Objective,
    /// This program: it cannot send faster.
    Generator,
    /// `--most`: no higher rate was tried.
    Most,
}

/// The command.
pub(crate) async fn command(options: &Options) -> anyhow::Result<ExitCode> {
    if options.load.closed_loop {
        bail!("a ramp is made of open loops: --closed-loop has no rate to raise");
    }
    let files = [&options.load.json, &options.load.html].into_iter().flatten();
    files.map(PathBuf::as_path).try_for_each(run::writable)?;
    let mut load = options.load.clone();
    let mut cluster = None;
    if options.cluster {
        let started = interruptible(Cluster::start(&options.local, options.nodes, options.shards)).await?;
        started.aim(&mut load.place);
        cluster = Some(started);
    }
    let ramped = interruptible(ramp(options, &load, cluster.as_mut())).await;
    if let Some(cluster) = cluster {
        cluster.end().await;
    }
    let ramp = ramped?;
    print!("{}", show::verdict(&ramp));
    if let Some(file) = &options.load.json {
        run::write(file, &serde_json::to_string(&ramp)?)?;
    }
    if let Some(file) = &options.load.html {
        let all = ramp.steps.iter().chain(&ramp.soak).map(|step| step.report.clone());
        run::write(file, &page::html(&all.collect::<Vec<_>>()))?;
    }
    let good = ramp.found_ops_per_s.is_some() && ramp.soak.as_ref().is_none_or(|soak| soak.verdict.met);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn ramp(options: &Options, load: &run::Options, mut cluster: Option<&mut Cluster>) -> anyhow::Result<Ramp> {
    let bench = Bench::connect(load).await?;
    let plan = bench.plan().clone();
    let search = Search { first: load.rate.unwrap_or(FIRST), most: options.most, precision: options.precision };
    let mut measure = async |rate: f64, duration| {
        let report = bench.measure(Some(rate), plan.clients, plan.reads, duration).await?;
        if let Some(ailing) = cluster.as_mut().and_then(|cluster| cluster.ailing()) {
            bail!("{ailing}");
        }
        if report.safety_violations > 0 {
            bail!("at {rate:.0} operations/s promises were broken: {}", report.safety_examples.join("; "));
        }
        let step = Step { rate_ops_per_s: rate, verdict: judge(&options.slo, &report), report };
        print!("{}", show::row(&step));
        Ok(step)
    };
    print!("{}", show::head(&options.slo));
    let mut steps: Vec<Step> = Vec::new();
    let found = loop {
        let tried: Vec<Tried> =
            steps.iter().map(|step| Tried { rate: step.rate_ops_per_s, met: step.verdict.met }).collect();
        match search.next(&tried) {
            Next::Try(rate) => steps.push(measure(rate, plan.duration).await?),
            Next::Done(found) => break found,
        }
    };
    let soak = match found.filter(|_| !options.soak.is_zero()) {
        Some(found) => {
            println!("\nsoak at {:.0} % of it, {} s", SOAK_SHARE * 100.0, options.soak.as_secs_f64());
            Some(measure(found * SOAK_SHARE, options.soak).await?)
        }
        None => None,
    };
    bench.close().await;
    let limit = limit(&steps, found, options.most);
    let slo = options.slo.to_string();
    Ok(Ramp {
        schema: SCHEMA,
        slo,
        precision_percent: options.precision * 100.0,
        steps,
        found_ops_per_s: found,
        limit,
        soak,
    })
}

/// What kept the rate from being higher: the lowest that failed says it.
fn limit(steps: &[Step], found: Option<f64>, most: f64) -> Limit {
    if found.is_some_and(|found| found >= most) {
        return Limit::Most;
    }
    let above = steps.iter().filter(|step| !step.verdict.met && found.is_none_or(|found| step.rate_ops_per_s > found));
    let lowest = above.min_by(|one, other| one.rate_ops_per_s.total_cmp(&other.rate_ops_per_s));
    match lowest.is_some_and(|step| step.verdict.generator.is_some()) {
        true => Limit::Generator,
        false => Limit::Objective,
    }
}

/// A report of so many operations a second with this p99, for tests.
#[cfg(test)]
pub(crate) fn sample(throughput: f64, p99_ms: f64) -> crate::report::Report {
    use crate::report::{Env, Figures, Generator, Latencies, Report, SCHEMA, Workload};
    let seconds = 5.0;
    let all = Figures {
        count: (throughput * seconds) as u64,
        mean: Some(p99_ms / 4.0),
        p50: Some(p99_ms / 5.0),
        p90: Some(p99_ms / 2.0),
        p99: Some(p99_ms),
        p999: Some(p99_ms * 2.0),
        p9999: Some(p99_ms * 3.0),
        max: Some(p99_ms * 4.0),
    };
    let latencies = Latencies { all, ..Latencies::default() };
    Report {
        schema: SCHEMA,
        env: Env::default(),
        workload: Workload::default(),
        seconds,
        throughput_ops_per_s: throughput,
        offered_ops_per_s: Some(throughput),
        latency_ms: latencies.clone(),
        service_ms: latencies,
        server_cpu_us_per_op: None,
        server_cpu_cores: None,
        generator_cpu_us_per_op: None,
        server_memory_bytes: None,
        generator: Generator::default(),
        errors: 0,
        errors_by_kind: Default::default(),
        contended: 0,
        timed_out: 0,
        lost_locks: 0,
        safety_violations: 0,
        safety_examples: Vec::new(),
        series: Vec::new(),
        histograms: Default::default(),
        shards: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(rate: f64, met: bool, generator: bool) -> Step {
        let generator = generator.then(|| "its core is full".to_owned());
        Step { rate_ops_per_s: rate, verdict: Verdict { met, why: Vec::new(), generator }, report: sample(rate, 1.0) }
    }

    #[test]
    fn the_generator_is_blamed_where_the_lowest_failure_was_its_own() {
        let steps = [step(1_000.0, true, false), step(4_000.0, false, false), step(2_000.0, false, true)];
        assert_eq!(limit(&steps, Some(1_000.0), 1e6), Limit::Generator);
        let steps = [step(1_000.0, true, true), step(4_000.0, false, true), step(2_000.0, false, false)];
        assert_eq!(limit(&steps, Some(1_000.0), 1e6), Limit::Objective);
        assert_eq!(limit(&steps[..1], Some(1_000.0), 1_000.0), Limit::Most);
    }

    #[test]
    fn a_precision_is_a_percentage() {
        assert_eq!(precision("5%"), Ok(0.05));
        assert_eq!(precision("10"), Ok(0.1));
        for wrong in ["", "%", "0", "99%", "x", "NaN"] {
            assert!(precision(wrong).is_err(), "{wrong}");
        }
    }
}
