//! Drives a Wardlock cluster, measures it and checks what it promises.
//!
//! Each command is a module with its `Options` and a function that runs it; this file only chooses. All of
//! them run on one thread: the generator shares a machine with what it measures.

mod bench;
mod compare;
#[cfg(test)]
mod fixture;
mod load;
mod page;
#[cfg(feature = "peers")]
mod peers;
mod plan;
mod proc;
mod report;
mod run;
mod safety;
mod sweep_file;
mod table;
mod target;
mod workload;

use std::process::ExitCode;

use clap::Parser;

const EXAMPLES: &str = "\
Examples, beside `wardlock dev --processes`:
  wardlock-loadtest run --rate 20000 --duration 20s
  wardlock-loadtest run --closed-loop --clients 256 --json figures.json
  wardlock-loadtest run --profile seed --clients 1000 --duration 20s --json seed.json";

/// Drives a Wardlock cluster, measures it and checks what it promises.
#[derive(Parser)]
#[command(version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Run(Box<run::Options>),
    Report(page::Options),
    Compare(compare::Options),
    Plan(plan::Options),
    /// Starts and ends etcd, ZooKeeper and Redis on this machine, to be measured beside Wardlock.
    #[cfg(feature = "peers")]
    Peers(peers::Options),
}

async fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(options) => run::command(&options).await,
        Command::Report(options) => page::command(&options),
        Command::Compare(options) => compare::command(&options),
        Command::Plan(options) => plan::command(&options),
        #[cfg(feature = "peers")]
        Command::Peers(options) => peers::run(&options).map(|()| ExitCode::SUCCESS),
    }
}

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(dispatch(command)));
    result.unwrap_or_else(|error| {
        eprintln!("wardlock-loadtest: {}", said(&error));
        ExitCode::FAILURE
    })
}

/// An error and its causes, but for those that it names itself.
fn said(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
