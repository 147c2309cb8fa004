//! `sweep`: the same load on clusters of many shapes, for the model that `plan` fits.
//!
//! For each number of nodes and of shards a fresh cluster is started; on it every number of clients and every share
//! of reads is measured. A combination that is measured more than once counts by the run of median throughput.
//!
//! # Promises
//! 1. The file is whole after every combination: an interrupted sweep is of use, and `--resume` continues it.
//! 2. A file that is there is continued or left alone, never begun anew.
//! 3. One file holds one workload: what was measured with another is not added to it.
//! 4. A broken promise of the cluster ends the sweep; that run is not written.

mod grid;
mod show;

use std::{path::Path, process::ExitCode, time::Duration};

use anyhow::{bail, ensure};
use clap::Args;
use tokio::time::Instant;

use self::grid::{Combination, Shape, left, median, of, shapes};
use crate::{
    bench::Bench,
    cluster::{Cluster, Local, interrupt::interruptible},
    load, page,
    report::Report,
    run,
    sweep_file::{self, Cell},
    workload::Kind,
};

const EXAMPLES: &str = "\
Examples:
  wardlock-loadtest sweep --shards 1,4,16,64 --clients 64,256,1000 --reads 80,0 --duration 10s
  wardlock-loadtest sweep --nodes 3,5 --shards 16 --repeat 3 --json nodes.json
  wardlock-loadtest sweep --nodes 3,5 --shards 16 --repeat 3 --json nodes.json --resume";

/// Measures one load over shards, nodes, clients and the share of reads.
///
/// Starts a fresh cluster on this machine for each number of nodes and of shards. A closed loop, unless a rate is
/// given. The file that it writes is what `plan` reads.
///
/// Exit status: 0, or 1 where a measurement failed or a promise was broken.
#[derive(Args, Clone, Debug)]
#[group(id = "sweep")]
#[command(
    after_help = EXAMPLES,
    // What is swept here is one figure there.
    mut_arg("clients", |arg| arg.long("each-clients").hide(true)),
    mut_arg("reads", |arg| arg.long("each-reads").hide(true)),
    mut_arg("target", |arg| arg.hide(true)),
    mut_arg("certs", |arg| arg.hide(true)),
    mut_arg("server_pid", |arg| arg.hide(true)),
    mut_arg("closed_loop", |arg| arg.hide(true)),
    mut_arg("rate", |arg| arg.help("Operations per second, answered or not [default: a closed loop]")),
    mut_arg("json", |arg| arg.default_value("sweep.json").help("The file to write")),
)]
pub(crate) struct Options {
    /// How many nodes.
    #[arg(long, value_name = "COUNT,…", default_value = "3", value_delimiter = ',', help_heading = "Sweep", value_parser = clap::value_parser!(u32).range(1..=9))]
    nodes: Vec<u32>,
    /// How many shards.
    #[arg(long, value_name = "COUNT,…", default_value = "1,4,16,64", value_delimiter = ',', help_heading = "Sweep", value_parser = clap::value_parser!(u32).range(1..=256))]
    shards: Vec<u32>,
    /// How many clients.
    #[arg(id = "all_clients", long = "clients", value_name = "COUNT,…", default_value = "64,256,1000", value_delimiter = ',', help_heading = "Sweep", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    clients: Vec<u32>,
    /// The share of reads.
    #[arg(id = "all_reads", long = "reads", value_name = "PERCENT,…", default_value = "80,0", value_delimiter = ',', help_heading = "Sweep", value_parser = run::percent)]
    reads: Vec<f64>,
    /// How many times each combination is measured; the run of median throughput counts.
    #[arg(long, value_name = "COUNT", default_value_t = 1, help_heading = "Sweep", value_parser = clap::value_parser!(u32).range(1..=99))]
    repeat: u32,
    /// Continue the file: measure what is not in it yet.
    #[arg(long, help_heading = "Sweep")]
    resume: bool,
    #[command(flatten, next_help_heading = "Cluster")]
    local: Local,

    #[command(flatten)]
    load: run::Options,
}

/// A sweep under way.
struct Sweep<'a> {
    options: &'a Options,
    path: &'a Path,
    file: sweep_file::Sweep,
    /// What is still to be measured.
    todo: Vec<(Shape, Vec<Combination>)>,
    /// How long measuring a combination took so far, and starting a cluster.
    each: Duration,
    start: Duration,
}

/// The command.
pub(crate) async fn command(options: &Options) -> anyhow::Result<ExitCode> {
    let Some(path) = options.load.json.as_deref() else { bail!("--json names the file to write") };
    let file = match (path.exists(), options.resume) {
        // One without a combination is what a sweep leaves that could not begin.
        (true, false) if load::sweep(path).is_ok_and(|file| file.cells.is_empty()) => sweep_file::Sweep::new(),
        (true, false) => {
            bail!("{} is there already: continue it with --resume, or name another with --json", path.display())
        }
        (true, true) => load::sweep(path)?,
        (false, true) => bail!("{} is not there: there is nothing to resume", path.display()),
        (false, false) => {
            // Whether it can be written should show now, not after the first measurement.
            let file = sweep_file::Sweep::new();
            file.write(path)?;
            file
        }
    };
    // Only a mix has reads.
    let mixed = options.load.workload.unwrap_or_default() == Kind::Mix;
    let of_each = of(&options.clients, if mixed { &options.reads } else { &[0.0] });
    let mut todo = Vec::new();
    for shape in shapes(&options.nodes, &options.shards) {
        let missing = |each: &&Combination| file.cell(shape.nodes, shape.shards, each.clients, each.reads).is_none();
        let missing: Vec<Combination> = of_each.iter().filter(missing).copied().collect();
        if !missing.is_empty() {
            todo.push((shape, missing));
        }
    }
    let each = (options.load.duration + options.load.warmup) * options.repeat;
    if let Some(html) = &options.load.html {
        run::writable(html)?;
    }
    let mut sweep = Sweep { options, path, file, todo, each, start: Duration::from_secs(4) };
    print!("{}", show::head());
    sweep.file.cells.iter().for_each(|cell| print!("{}", show::row(cell)));
    sweep.run().await?;
    if let Some(html) = &options.load.html {
        let reports: Vec<Report> = sweep.file.cells.iter().map(|cell| cell.report.clone()).collect();
        run::write(html, &page::html(&reports))?;
    }
    let (cells, file) = (sweep.file.cells.len(), path.display());
    println!("\n{cells} combinations in {file}: for a cluster's size ask `wardlock-loadtest plan --sweep {file}`");
    Ok(ExitCode::SUCCESS)
}

impl Sweep<'_> {
    async fn run(&mut self) -> anyhow::Result<()> {
        while !self.todo.is_empty() {
            let (shape, combinations) = self.todo.remove(0);
            let began = Instant::now();
            let mut cluster = interruptible(Cluster::start(&self.options.local, shape.nodes, shape.shards)).await?;
            self.start = began.elapsed();
            let done = interruptible(self.measure(&mut cluster, shape, combinations)).await;
            cluster.end().await;
            if let Err(error) = done {
                let kept = self.file.cells.len();
                bail!("{error}\n{kept} combinations are in {}; --resume continues it", self.path.display());
            }
        }
        Ok(())
    }

    /// Measures all these combinations on one cluster.
    async fn measure(&mut self, cluster: &mut Cluster, shape: Shape, all: Vec<Combination>) -> anyhow::Result<()> {
        let mut load = self.options.load.clone();
        load.closed_loop = load.rate.is_none();
        load.clients = all.iter().map(|one| one.clients).max();
        cluster.aim(&mut load.place);
        let bench = Bench::connect(&load).await?;
        for (n, one) in all.iter().enumerate() {
            let began = Instant::now();
            let mut reports = Vec::new();
            for run in 1..=self.options.repeat {
                self.tell(shape, *one, run, all.len() - n);
                let report = bench.measure(load.rate, one.clients, one.reads, load.duration).await?;
                if let Some(ailing) = cluster.ailing() {
                    bail!("{ailing}");
                }
                if report.safety_violations > 0 {
                    bail!("with {shape}, {one} promises were broken: {}", report.safety_examples.join("; "));
                }
                self.fits(&report)?;
                reports.push(report);
            }
            if let Some(report) = median(reports) {
                let Shape { nodes, shards } = shape;
                let cell = Cell { nodes, shards, clients: one.clients, reads: one.reads, report };
                print!("{}", show::row(&cell));
                self.file.cells.push(cell);
                self.file.write(self.path)?;
            }
            self.each = began.elapsed();
        }
        bench.close().await;
        Ok(())
    }

    /// Promise 3.
    fn fits(&self, report: &Report) -> anyhow::Result<()> {
        let Some(first) = self.file.cells.first() else { return Ok(()) };
        let (before, now) = (grid::unswept(&first.report.workload), grid::unswept(&report.workload));
        ensure!(before == now, "{} is of another workload: {before:?}, not {now:?}", self.path.display());
        if let Some(changed) = grid::moved(&first.report.env, &report.env) {
            eprintln!("note: what {} holds was measured on another machine: {changed}", self.path.display());
        }
        Ok(())
    }

    /// Says on stderr what is measured next and how long all takes.
    fn tell(&self, shape: Shape, one: Combination, run: u32, here: usize) {
        let elsewhere: usize = self.todo.iter().map(|(_, combinations)| combinations.len()).sum();
        let time = left(here + elsewhere, self.each, self.todo.len(), self.start);
        let run =
            if self.options.repeat > 1 { format!(", run {run} of {}", self.options.repeat) } else { String::new() };
        let (done, left) = (self.file.cells.len(), here + elsewhere);
        eprintln!("{} of {}: {shape}, {one}{run}; about {time} left", done + 1, done + left);
    }
}
