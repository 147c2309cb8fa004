//! `wardlock-sim`: runs seeds, many or one.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write},
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use clap::Parser;
use wardlock_sim::{
    crash,
    run::{Settings, run},
    world::Record,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs a whole cluster on one thread under faults, once for each seed, and checks every promise.
#[derive(Parser)]
#[command(
    name = "wardlock-sim",
    version,
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  wardlock-sim --seeds 300\n  wardlock-sim --seed 42 --trace\n  wardlock-sim crash --images 100000"
)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// How many seeds
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first seed. [default: drawn at random, and printed]
    #[arg(long)]
    from: Option<u64>,
    /// Only this seed
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Print all that happens
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Run every seed twice; the traces must be equal
    #[arg(long)]
    twice: bool,
    /// How many nodes. [default: three or five, as the seed decides]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=9))]
    nodes: Option<u32>,
    /// How many seconds of faults, simulated
    #[arg(long, default_value_t = 30)]
    faults_for: u64,
    /// How many seeds at a time. [default: as many as there are cores]
    #[arg(long)]
    jobs: Option<usize>,
    /// Switch a mistake on, in a build that has them
    #[arg(long)]
    plant: Option<String>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Crashes the log after every call to its disk and compares what is found.
    Crash(crash::Args),
}

/// What all seeds came to.
#[derive(Default)]
struct Total {
    counts: BTreeMap<&'static str, u64>,
    simulated: Duration,
    failed: Vec<(u64, Vec<String>)>,
    done: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(Command::Crash(args)) = &args.command {
        return crash::run(args);
    }
    if let Some(name) = &args.plant
        && !wardlock_machine::planted::plant(name)
    {
        eprintln!("this build has no mistakes to switch on: build with RUSTFLAGS='--cfg wardlock_planted'");
        return ExitCode::from(2);
    }
    let settings = Settings { nodes: args.nodes, faults_for: Duration::from_secs(args.faults_for), traced: args.trace };
    let (first, count) = match (args.seed, args.from) {
        (Some(seed), _) => (seed, 1),
        (None, from) => (from.unwrap_or_else(|| u64::from(rand::random::<u32>())), args.seeds.max(1)),
    };
    let jobs = args.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let total = Mutex::new(Total::default());
    let (next, began) = (AtomicU64::new(0), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, count as usize) {
            scope.spawn(|| {
                while let n @ 0.. = next.fetch_add(1, Relaxed)
                    && n < count
                {
                    let seed = first.wrapping_add(n);
                    let (record, simulated) = guarded(seed, &settings, args.twice);
                    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                    add(&mut total, seed, record, simulated, args.trace);
                    progress(&total, count, began);
                }
            });
        }
    });
    let total = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    report(&total, first, began.elapsed())
}

/// Runs a seed; a panic is a violation.
fn guarded(seed: u64, settings: &Settings, twice: bool) -> (Record, Duration) {
    let once = || {
        std::panic::catch_unwind(|| run(seed, settings)).unwrap_or_else(|panic| {
            let said = panic.downcast_ref::<String>().cloned();
            let said = said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned()));
            let what = format!("panic: {}", said.unwrap_or_default());
            (Record { violations: vec![what], ..Record::default() }, Duration::ZERO)
        })
    };
    let (mut record, simulated) = once();
    if twice {
        let (again, _) = once();
        if again != record {
            record.violations.push(format!("two runs differ: {:08x} and {:08x}", record.hash, again.hash));
        }
    }
    (record, simulated)
}

fn add(total: &mut Total, seed: u64, record: Record, simulated: Duration, trace: bool) {
    for (kind, count) in record.counts {
        *total.counts.entry(kind).or_default() += count;
    }
    if trace {
        for line in &record.trace {
            println!("{line}");
        }
        println!("trace {:08x}", record.hash);
    }
    total.simulated += simulated;
    total.done += 1;
    if !record.violations.is_empty() {
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
        eprintln!("seed {seed} fails: {}", record.violations[0]);
        total.failed.push((seed, record.violations));
    }
}

fn progress(total: &Total, count: u64, began: Instant) {
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() {
        let rate = total.done as f64 / began.elapsed().as_secs_f64();
        let line = format!("{} of {count} seeds, {} failed, {rate:.1} seeds/s", total.done, total.failed.len());
        // A terminal that is gone is no reason to stop.
        let _ = write!(stderr, "\r\x1b[K{line}").and_then(|()| stderr.flush());
    }
}

fn report(total: &Total, first: u64, took: Duration) -> ExitCode {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    let count = |kind: &str| total.counts.get(kind).copied().unwrap_or_default();
    let faults: u64 = count("faults");
    println!(
        "{} seeds from {first}, {:.1} simulated hours in {:.0} s: {:.2} seeds/s, {:.0} times as fast as real time",
        total.done,
        total.simulated.as_secs_f64() / 3600.0,
        took.as_secs_f64(),
        total.done as f64 / took.as_secs_f64(),
        total.simulated.as_secs_f64() / took.as_secs_f64(),
    );
    println!("operations:");
    for (kind, count) in total.counts.iter().filter(|(kind, _)| !kind.starts_with("fault")) {
        println!("  {kind:24} {count}");
    }
    println!("faults: {faults}");
    for (kind, count) in &total.counts {
        if let Some(kind) = kind.strip_prefix("fault: ") {
            println!("  {kind:24} {count}");
        }
    }
    for (seed, violations) in &total.failed {
        println!("seed {seed}:");
        for violation in violations.iter().take(5) {
            println!("  {violation}");
        }
    }
    // A run in which little happened proves little.
    let thin = count("granted") < 10 * total.done || faults < total.done;
    if thin && total.failed.is_empty() {
        println!("too little happened: {} grants and {faults} faults", count("granted"));
    }
    println!("{} violations", total.failed.len());
    if total.failed.is_empty() && !thin { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
