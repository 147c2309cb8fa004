//! Drives a Wardlock cluster, measures it and checks what it promises.
//!
//! Each command is a module with its `Options` and a function that runs it; this file only chooses. All of
//! them run on one thread: the generator shares a machine with what it measures.

mod bench;
mod chaos;
mod cluster;
mod compare;
mod config;
mod deadlocks;
mod elections;
mod faults;
#[cfg(test)]
mod fixture;
mod linear;
mod load;
mod page;
#[cfg(feature = "peers")]
mod peers;
mod plan;
mod proc;
mod progress;
mod ramp;
mod report;
mod run;
mod safety;
mod services;
mod sweep;
mod sweep_file;
mod table;
mod target;
mod through;
mod told;
mod trial;
mod watch;
mod webhooks;
mod workload;

use std::process::ExitCode;

use clap::Parser;

/// Requests and answers come and go by the hundred thousand a second, of many sizes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EXAMPLES: &str = "\
Examples, beside `wardlock dev --processes`:
  wardlock-loadtest run --rate 20000 --duration 20s
  wardlock-loadtest run --closed-loop --clients 256 --json figures.json
  wardlock-loadtest run --profile seed --clients 1000 --duration 20s --json seed.json
  wardlock-loadtest watch --watchers 1000 --rate 200

These start a cluster of their own:
  wardlock-loadtest ramp --cluster --slo 'p99<10ms,errors<0.1%'
  wardlock-loadtest sweep --shards 1,4,16,64 --clients 64,256,1000
  wardlock-loadtest faults --kills 3 --pauses 3 --cuts 3 --rolling 1
  wardlock-loadtest chaos --duration 60s
  wardlock-loadtest watch-through --changes 100000 --failovers 10 --reconnects 3
  wardlock-loadtest config --fill 10000
  wardlock-loadtest elections --elections 100
  wardlock-loadtest services --instances 10000 --kill 1000
  wardlock-loadtest deadlocks --rings 2,5,50";

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
    Ramp(Box<ramp::Options>),
    Sweep(Box<sweep::Options>),
    Faults(Box<faults::Options>),
    Chaos(Box<chaos::Options>),
    Watch(Box<watch::Options>),
    Webhooks(Box<webhooks::Options>),
    WatchThrough(Box<through::Options>),
    Config(Box<config::Options>),
    Elections(Box<elections::Options>),
    #[command(hide = true)]
    Candidates(elections::candidates::Options),
    Services(Box<services::Options>),
    Deadlocks(Box<deadlocks::Options>),
    #[command(hide = true)]
    Instances(services::instances::Options),
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
        Command::Ramp(options) => ramp::command(&options).await,
        Command::Sweep(options) => sweep::command(&options).await,
        Command::Faults(options) => faults::command(&options).await,
        Command::Chaos(options) => chaos::command(&options).await,
        Command::Watch(options) => watch::command(&options).await,
        Command::Webhooks(options) => webhooks::command(&options).await,
        Command::WatchThrough(options) => through::command(&options).await,
        Command::Config(options) => config::command(&options).await,
        Command::Elections(options) => elections::command(&options).await,
        Command::Candidates(options) => elections::candidates::command(&options).await,
        Command::Services(options) => services::command(&options).await,
        Command::Deadlocks(options) => deadlocks::command(&options).await,
        Command::Instances(options) => services::instances::command(&options).await,
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_commands_fit_together() {
        Arguments::command().debug_assert();
    }
}
