//! The command line of the one binary.
//!
//! Each command is a room of its own: its arguments, its help with an example, and what it does. What they
//! share is how they fail ([`failure`]), print ([`output`]) and reach a cluster ([`connect`]).
//!
//! # Promises
//! 1. Exit codes mean one thing each; [`failure::Code`] lists them.
//! 2. A failure is one line on stderr; stdout has only what was asked for.
//! 3. Names that other people chose are printed with their control characters escaped.

pub mod args;
pub mod certs;
mod cluster;
mod completions;
mod config;
pub mod connect;
mod elect;
pub mod failure;
pub mod gateway;
pub mod lock;
mod node;
pub mod output;
mod remote;
mod router;
mod service;
mod session;
pub mod signals;
mod stale;
mod telling;
mod view;
mod watch;

pub use cluster::Cluster as ClusterView;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use failure::Failure;

/// A sharded, strongly consistent lock service.
#[derive(Parser, Debug)]
#[command(
    name = "wardlock",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "\
Exit codes: 0 done, 1 error, 2 usage, 75 lock not acquired, 76 lock lost.

Start here:
  wardlock dev
  wardlock lock run orders/42 -- sh -c 'echo token $WARDLOCK_TOKEN'"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Dev(crate::dev::DevArgs),
    Node(Box<node::NodeArgs>),
    Router(router::RouterArgs),
    Certs(certs::CertsArgs),
    Lock(lock::LockArgs),
    Elect(elect::ElectArgs),
    Config(config::ConfigArgs),
    Service(service::ServiceArgs),
    Watch(watch::WatchArgs),
    Session(session::SessionArgs),
    Cluster(cluster::ClusterArgs),
    Completions(completions::CompletionsArgs),
}

/// Reads the command line, does what it says, and answers with the exit code.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Dev(args) => crate::dev::run(&args),
        Command::Node(args) => node::run(*args),
        Command::Router(args) => router::run(args),
        Command::Certs(args) => certs::run(&args),
        Command::Lock(args) => block_on(lock::run(args)),
        Command::Elect(args) => block_on(elect::run(args)),
        Command::Config(args) => block_on(config::run(args)),
        Command::Service(args) => block_on(service::run(args)),
        Command::Watch(args) => block_on(watch::run(args)),
        Command::Session(args) => block_on(session::run(args)),
        Command::Cluster(args) => block_on(cluster::run(args)),
        Command::Completions(args) => completions::run(&args),
    };
    done.unwrap_or_else(|failure| failure.report())
}

/// Runs a command on a runtime of one thread: what it waits for is the network.
pub(crate) fn block_on(command: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| Failure::error(format!("cannot start: {e}")))?;
    let done = runtime.block_on(command);
    // What still waits, such as a read of stdin, must not hold the process up.
    runtime.shutdown_background();
    done
}

/// Starts to log to stderr, as much as `WARDLOCK_LOG` says: without it `info`, and of the consensus library,
/// which has a line for each heartbeat of each group, warnings only. A release build has no more than `info`:
/// the library's finer traces cost processor time even while they are off.
pub(crate) fn log_to_stderr() {
    use std::io::IsTerminal;

    let filter = tracing_subscriber::EnvFilter::try_from_env("WARDLOCK_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,openraft=warn"));
    let ansi = std::io::stderr().is_terminal();
    // A second start, as in tests, keeps the first.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(std::io::stderr).try_init();
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    /// Each command that does something shows how.
    #[test]
    fn every_help_has_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            if command.has_subcommands() {
                command.get_subcommands().for_each(|sub| check(sub, &path));
            } else {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example"), "{path}: no example");
                assert!(help.contains("wardlock "), "{path}: its example is no command line");
                assert!(command.get_about().is_some(), "{path}: says not what it does");
            }
        }
        check(&Cli::command(), "");
    }
}
