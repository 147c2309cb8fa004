//! `wardlock node`: one node of a cluster.

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory};

use super::{
    failure::{Code, Failure, chain},
    output,
    signals::{Stop, orphaned},
};
use crate::{
    config::{self, Fields, Settings},
    node::Node,
};

/// One node of a cluster.
#[derive(Args, Debug)]
#[command(after_help = "\
A flag wins over its environment variable, that over the file, that over the default.

Example:
  wardlock node --config /etc/wardlock/wardlock.toml --node 2")]
pub(super) struct NodeArgs {
    /// The configuration file (TOML). Its fields are the flags below, with `_` for `-`.
    #[arg(long, env = "WARDLOCK_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Print the configuration as it is in effect, and exit.
    #[arg(long)]
    pub print_config: bool,

    /// Stop when stdin ends: how `wardlock dev --processes` takes its nodes along, even when killed.
    #[arg(long, hide = true)]
    pub exit_with_stdin: bool,

    /// The settings.
    #[command(flatten)]
    pub fields: Fields,
}

impl NodeArgs {
    fn layered(&self) -> Result<Fields, config::Error> {
        let names: Vec<String> = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
        config::check_environment(names.iter().map(String::as_str), &variables())?;
        config::layer(self.config.as_deref(), &self.fields)
    }
}

/// Every environment variable that `wardlock node` reads.
fn variables() -> BTreeSet<String> {
    let command = super::Cli::command();
    let node = command.find_subcommand("node");
    let args = node.into_iter().flat_map(|node| node.get_arguments());
    args.filter_map(|arg| arg.get_env()).map(|name| name.to_string_lossy().into_owned()).collect()
}

/// Runs the command.
pub(super) fn run(args: NodeArgs) -> Result<ExitCode, Failure> {
    let usage = |e: config::Error| Failure::new(Code::Usage, chain(&e));
    let fields = args.layered().map_err(usage)?;
    if args.print_config {
        let text = fields.clone().effective().to_toml();
        output::print(&text)?;
        fields.check().map_err(usage)?;
        return Ok(ExitCode::SUCCESS);
    }
    let settings = fields.check().map_err(usage)?;
    super::log_to_stderr();
    super::block_on(serve(settings, args.exit_with_stdin))
}

async fn serve(settings: Settings, exit_with_stdin: bool) -> Result<ExitCode, Failure> {
    let mut stop = Stop::catch().map_err(Failure::error)?;
    let ended = orphaned(exit_with_stdin);
    let id = settings.node;
    let node = Node::start(settings).await.map_err(|e| Failure::error(chain(&e)))?;
    tokio::pin!(ended);
    tokio::select! {
        () = node.ready() => tracing::info!(node = %id, "ready"),
        _ = stop.wait() => return drain(node, &mut stop).await,
        () = &mut ended => return drain(node, &mut stop).await,
    }
    tokio::select! {
        _ = stop.wait() => {}
        () = &mut ended => {}
    }
    drain(node, &mut stop).await
}

async fn drain(node: Node, stop: &mut Stop) -> Result<ExitCode, Failure> {
    tracing::info!("draining; a second signal stops at once");
    stop.drain(node.shutdown(), || ()).await;
    Ok(ExitCode::SUCCESS)
}
