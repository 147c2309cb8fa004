//! Drives a Wardlock cluster and measures it.
//!
//! `wardlock-loadtest run` is a closed loop: so many clients, each with one operation under way at a
//! time, all in this process and over one connection per node, as a router's clients would be. A client
//! reads a lock's state (linearizably) or, for the other share, acquires a lock and later releases it.
//! Latency is from the call to its answer; what a closed loop cannot show (how long operations would wait
//! at a fixed arrival rate) it does not claim.

#[cfg(feature = "peers")]
mod peers;
mod report;
mod run;

use std::process::ExitCode;

use clap::Parser;

const EXAMPLE: &str = "\
Example, beside `wardlock dev`:
  wardlock-loadtest run --clients 1000 --duration 10 --json figures.json";

/// Drives a Wardlock cluster and measures it.
#[derive(Parser)]
#[command(
    version,
    arg_required_else_help = true,
    after_help = EXAMPLE
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Runs a closed loop of clients and prints throughput and latency.
    ///
    /// Each client has one operation under way at a time: it reads a lock's state, linearizably, or acquires
    /// a lock that nobody holds and releases it with its next write. Exit status: 0, or 1 where the run
    /// failed or two clients held one lock at once.
    #[command(after_help = EXAMPLE)]
    Run(run::Options),
    /// Starts and ends etcd, ZooKeeper and Redis on this machine, to be measured beside Wardlock.
    #[cfg(feature = "peers")]
    Peers(peers::Options),
}

fn main() -> ExitCode {
    let options = match Arguments::parse().command {
        Command::Run(options) => options,
        #[cfg(feature = "peers")]
        Command::Peers(options) => {
            return match peers::run(&options) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("wardlock-loadtest: {error:#}");
                    ExitCode::FAILURE
                }
            };
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run::run(&options)));
    match result {
        Ok(report) => {
            print!("{}", report.table());
            if let Some(file) = &options.json
                && let Err(error) = std::fs::write(file, report.json())
            {
                eprintln!("wardlock-loadtest: {} cannot be written: {error}", file.display());
                return ExitCode::FAILURE;
            }
            match report.safety_violations {
                0 => ExitCode::SUCCESS,
                _ => ExitCode::FAILURE,
            }
        }
        Err(error) => {
            // Errors of the client print their causes themselves.
            eprintln!("wardlock-loadtest: {error}");
            ExitCode::FAILURE
        }
    }
}
