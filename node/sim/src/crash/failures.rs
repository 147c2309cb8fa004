//! Each call to the disk fails: for good, or once and then no more. The log stops, says so once, acknowledges
//! nothing after it, and the next start finds all that it had acknowledged.

use std::{fmt, ops::Range};

use super::{
    find::{self, Found},
    record::{LOG, Plan, Recording, SNAPSHOTS, record, seed_of},
    walk::Loss,
};
use crate::disk::{Disk, Failure, Survivors};

/// Failures by their kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct FailureReport {
    struck: [u64; 5],
    in_start: u64,
    starts: u64,
}

const KINDS: [&str; 5] = ["EIO from then on", "EIO once", "ENOSPC from then on", "ENOSPC for a while", "EIO on a read"];

impl FailureReport {
    pub(super) fn add(&mut self, other: &FailureReport) {
        self.struck.iter_mut().zip(other.struck).for_each(|(at, other)| *at += other);
        self.in_start += other.in_start;
        self.starts += other.starts;
    }

    /// What there was too little of.
    pub fn missing(&self) -> Vec<String> {
        let kinds = KINDS.iter().zip(self.struck).filter(|(_, struck)| *struck < 20);
        let mut missing: Vec<String> = kinds.map(|(kind, struck)| format!("{kind}: {struck}, not 20")).collect();
        if self.in_start < 5 {
            missing.push(format!("failures in a start: {}, not 5", self.in_start));
        }
        missing
    }
}

impl fmt::Display for FailureReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, struck) in KINDS.iter().zip(self.struck) {
            writeln!(f, "{kind:>24} {struck:>10}")?;
        }
        write!(
            f,
            "{} of them in a start; {} starts afterwards found all that was acknowledged, and nothing was after it",
            self.in_start, self.starts
        )
    }
}

/// Lets each call, or one of so many, of a recording of this seed fail in every way.
pub fn failures(seed: u64, steps: u64, one_in: u64) -> Result<FailureReport, Loss> {
    let plan = Plan { seed, steps, two_phase: false, restarts: false, failure: None };
    let whole = record(&plan).map_err(|what| Loss { seed, call: None, what, tried: 0 })?;
    let mut report = FailureReport::default();
    for file in [LOG, SNAPSHOTS] {
        let (calls, reads) = (whole.disks[file].count(), whole.disks[file].reads());
        let kinds: [(&dyn Fn(u64) -> Failure, u64); 5] = [
            (&|call| Failure::Io(call..u64::MAX), calls),
            (&|call| Failure::Io(only(call)), calls),
            (&|call| Failure::Full(call..u64::MAX), calls),
            (&|call| Failure::Full(call..call + 8), calls),
            (&|call| Failure::Read(only(call)), reads),
        ];
        for (kind, (failure, calls)) in kinds.iter().enumerate() {
            for call in (seed % one_in..*calls).step_by(one_in as usize) {
                let failure = failure(call);
                let told = format!("{failure:?} on file {file}");
                let plan = Plan { failure: Some((file, failure)), ..plan.clone() };
                let one = record(&plan).and_then(|recording| check(&recording, seed_of(seed, call as usize, 0)));
                match one.map_err(|what| {
                    let tried = report.struck.iter().sum();
                    Loss { seed, call: None, what: format!("{told}: {what}"), tried }
                })? {
                    Struck::No => {}
                    Struck::Start => {
                        report.in_start += 1;
                        report.struck[kind] += 1;
                    }
                    Struck::Work => report.struck[kind] += 1,
                }
                report.starts += STARTS;
            }
        }
    }
    Ok(report)
}

fn only(call: u64) -> Range<u64> {
    call..call + 1
}

/// Images that each failure is followed by.
const STARTS: u64 = 4;

enum Struck {
    /// The workload did not come so far.
    No,
    Start,
    Work,
}

fn check(recording: &Recording, seed: u64) -> Result<Struck, String> {
    let struck = match (recording.struck, recording.fatal.len()) {
        (None, 0) => Struck::No,
        (None, _) => return Err(format!("the log stopped without a failure: {}", recording.fatal.join(", "))),
        // The closing of a file that fails is nobody's loss: all of it was durable before.
        (Some(_), 0) if recording.tally.stops > 0 => Struck::No,
        (Some(_), 0) => return Err("nobody was told of the failure".to_owned()),
        (Some(confirmed), 1) => {
            // The log knows nothing of the snapshots' disk; there the process ends itself.
            let is_logs = matches!(recording.plan.failure, Some((LOG, _)));
            if is_logs && recording.end.confirmed != confirmed {
                let end = recording.end.confirmed;
                return Err(format!("calls up to {end} were confirmed, and the disk failed after {confirmed}"));
            }
            if recording.tally.commits == 0 { Struck::Start } else { Struck::Work }
        }
        (Some(_), _) => return Err(format!("it stopped more than once: {}", recording.fatal.join(", "))),
    };
    // The process is killed and all it wrote is there; or the power goes with it.
    let [log, snapshots] = &recording.disks;
    let (log, snapshots) = (log.kill(), snapshots.kill());
    start([&log, &snapshots], recording, Survivors::All)?;
    start([&log, &snapshots], recording, Survivors::Synced)?;
    for number in 0..STARTS - 2 {
        start([&log, &snapshots], recording, Survivors::Torn(seed ^ number))?;
    }
    Ok(struck)
}

fn start(disks: [&Disk; 2], recording: &Recording, survivors: Survivors) -> Result<(), String> {
    let [log, snapshots] = disks.map(|disk| disk.survive(survivors));
    let found =
        Found { log: find::open_log(&log, &recording.plan.options())?, snapshots: find::open_snapshots(&snapshots)? };
    found.check(&recording.expected, &recording.end).map_err(|what| format!("{survivors:?}: {what}"))
}
