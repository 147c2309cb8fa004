//! The log under every crash: the same code as in production, over disks that fail.
//!
//! - [`points`]: a workload over both files is recorded call by call; from before each call the node starts from the
//!   image without the unsynced writes, with all of them, and with many torn parts of them, and must find what it
//!   had acknowledged by then.
//! - [`flips`]: every kind of page is damaged, bit by bit, and the damage is noticed or changes nothing.
//! - [`failures`]: each call fails, once or from then on, with `EIO` or `ENOSPC`: nothing is acknowledged after it.
//!
//! Each recording is made from its seed alone, so a seed and the number of a call show a loss again. A campaign
//! that looked at too little of anything fails, too.

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use tokio::time::Instant;

mod failures;
mod find;
mod flips;
mod record;
mod report;
#[cfg(test)]
mod tests;
mod walk;
mod work;

use self::record::{Plan, record};
pub use self::{
    failures::{FailureReport, failures},
    flips::{FlipReport, flips},
    report::Report,
    walk::Loss,
};

/// How much a campaign looks at. Without one of `--images`, `--flips` and `--failures` it does all three.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Images to start from after crashes.
    #[arg(long)]
    images: Option<u64>,
    /// Bits to flip.
    #[arg(long)]
    flips: Option<u64>,
    /// Recordings in which each call fails.
    #[arg(long)]
    failures: Option<u64>,
    /// The first recording's seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only what can be found before this call of the first recording.
    #[arg(long)]
    only: Option<usize>,
    /// Torn images for each call.
    #[arg(long, default_value_t = 8)]
    torn: u64,
    /// Calls of the workload in one recording, about.
    #[arg(long, default_value_t = 200)]
    steps: u64,
    /// Threads; by default as many as there are processors.
    #[arg(long)]
    threads: Option<usize>,
}

const DEFAULT_IMAGES: u64 = 100_000;
const DEFAULT_FLIPS: u64 = 100_000;
const DEFAULT_FAILURES: u64 = 2;

/// Runs the command.
pub fn run(args: &Args) -> ExitCode {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let (seed, call) = walk::at();
        eprintln!("\na panic at seed {seed}, call {call}");
        default(info);
    }));
    let asked = args.images.or(args.flips).or(args.failures).is_some();
    let parts = [
        args.images.or((!asked).then_some(DEFAULT_IMAGES)).map(|images| run_points(args, images)),
        args.flips.or((!asked && args.only.is_none()).then_some(DEFAULT_FLIPS)).map(|count| run_flips(args, count)),
        args.failures
            .or((!asked && args.only.is_none()).then_some(DEFAULT_FAILURES))
            .map(|recordings| run_failures(args, recordings)),
    ];
    if parts.into_iter().flatten().all(|is_right| is_right) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_points(args: &Args, images: u64) -> bool {
    let campaign = Campaign {
        images,
        seed: args.seed,
        torn: args.torn,
        steps: args.steps,
        only: args.only,
        threads: args.threads.unwrap_or_else(processors),
        shows_progress: true,
    };
    let found = points(&campaign);
    eprintln!();
    match found {
        Ok(report) => {
            println!("{report}");
            let missing = if args.only.is_some() { Vec::new() } else { report.missing(images) };
            missing.iter().for_each(|missing| println!("TOO LITTLE: {missing}"));
            missing.is_empty()
        }
        Err(loss) => {
            println!("LOSS: {loss}");
            let only = loss.call.map(|call| format!(" --only {call}")).unwrap_or_default();
            println!(
                "again: wardlock-sim crash --images 1 --seed {} --steps {} --torn {}{only}",
                loss.seed, args.steps, args.torn
            );
            false
        }
    }
}

fn run_flips(args: &Args, count: u64) -> bool {
    match flips(args.seed, count) {
        Ok(report) => {
            println!("{report}");
            let missing = report.missing();
            missing.iter().for_each(|missing| println!("TOO LITTLE: {missing}"));
            missing.is_empty()
        }
        Err(loss) => {
            println!("DAMAGE UNNOTICED: {loss}");
            println!("again: wardlock-sim crash --flips {count} --seed {}", args.seed);
            false
        }
    }
}

fn run_failures(args: &Args, recordings: u64) -> bool {
    let mut all = FailureReport::default();
    for seed in args.seed..args.seed + recordings {
        match failures(seed, 60, 1) {
            Ok(report) => all.add(&report),
            Err(loss) => {
                println!("FAILURE SURVIVED: {loss}");
                println!("again: wardlock-sim crash --failures 1 --seed {seed}");
                return false;
            }
        }
    }
    println!("{all}");
    let missing = all.missing();
    missing.iter().for_each(|missing| println!("TOO LITTLE: {missing}"));
    missing.is_empty()
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// What a search for losses looks at.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// It ends with the recording that brings so many images.
    pub images: u64,
    /// The first recording's seed; the next ones count up.
    pub seed: u64,
    /// Torn images for each call.
    pub torn: u64,
    /// Calls of the workload in one recording, about.
    pub steps: u64,
    /// Only one call of the first recording.
    pub only: Option<usize>,
    /// How many recordings are worked on at once.
    pub threads: usize,
    /// Whether a line on standard error says how far it is.
    pub shows_progress: bool,
}

impl Campaign {
    /// The plan of a recording: half of them commit in two phases.
    fn plan(&self, seed: u64) -> Plan {
        Plan { seed, steps: self.steps, two_phase: seed / 4 % 2 == 1, restarts: true, failure: None }
    }
}

/// Starts from every image that crashes of the recordings could leave. Ends with the first loss.
pub fn points(campaign: &Campaign) -> Result<Report, Loss> {
    let (next, progress) = (AtomicU64::new(campaign.seed), AtomicU64::new(0));
    let (ended, outcome) = (AtomicBool::new(false), Mutex::new(Ok(Report::default())));
    let started = Instant::now();
    let work = || {
        while !ended.load(Relaxed) && (progress.load(Relaxed) < campaign.images || next.load(Relaxed) == campaign.seed)
        {
            let seed = next.fetch_add(1, Relaxed);
            if campaign.only.is_some() && seed > campaign.seed {
                break;
            }
            let found = one(campaign, seed, &progress);
            let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
            match (found, outcome.as_mut()) {
                (Ok(report), Ok(all)) => all.add(&report),
                (Err(loss), Ok(_)) => {
                    *outcome = Err(loss);
                    ended.store(true, Relaxed);
                }
                (_, Err(_)) => {}
            }
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..campaign.threads.max(1)).map(|_| scope.spawn(work)).collect();
        while campaign.shows_progress && workers.iter().any(|worker| !worker.is_finished()) {
            thread::sleep(Duration::from_millis(500));
            show(progress.load(Relaxed), campaign.images, started.elapsed());
        }
    });
    let outcome = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcome.map(|report| report.lasting(started.elapsed()))
}

/// One recording, and all images of it.
fn one(campaign: &Campaign, seed: u64, progress: &AtomicU64) -> Result<Report, Loss> {
    let lost = |what| Loss { seed, call: None, what, tried: progress.load(Relaxed) };
    let recording = record(&campaign.plan(seed)).map_err(|what| lost(format!("while it ran: {what}")))?;
    if let Some(why) = recording.fatal.first() {
        return Err(lost(format!("the log gave up on a disk without fault: {why}")));
    }
    let images = walk::walk(&recording, campaign.torn, campaign.only, progress)?;
    Ok(Report::of(&recording, images))
}

fn show(done: u64, wanted: u64, took: Duration) {
    let rate = done as f64 / took.as_secs_f64().max(0.001);
    let line = format!("{done} of {wanted} images, {rate:.0}/s");
    let mut out = std::io::stderr();
    // A progress line that cannot be written is nobody's loss.
    let _ = if out.is_terminal() { write!(out, "\r{line}    ") } else { Ok(()) };
}
