//! `wardlock-sim`: runs seeds, one or many, and crash campaigns.

use std::process::ExitCode;

use clap::Parser;
use wardlock_sim::crash;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Proof by simulation.
#[derive(Parser)]
#[command(name = "wardlock-sim")]
enum Command {
    /// Crashes the log after every call to its disk and compares what is found.
    Crash(crash::Args),
}

fn main() -> ExitCode {
    match Command::parse() {
        Command::Crash(args) => crash::run(&args),
    }
}
