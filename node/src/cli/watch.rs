//! `wardlock watch`: what happens, as it happens.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::Value;
use wardlock_machine::{EndReason, Kind, Name, What, limits};
use wardlock_router::{WatchError, WatchToken, Watched, http::documents};

use super::{
    args,
    connect::{PATIENCE, Server},
    failure::Failure,
    output::{self, Format},
    view,
};

/// Print what happens to locks, elections, configurations and services, until interrupted.
#[derive(Args, Debug)]
#[command(after_help = "\
With -o json one document a line, each with the `token` from which another watch goes on behind it: whoever keeps the
last one misses nothing, as long as the shards keep what happened meanwhile. Where they no longer do, a line says so.

Example:
  wardlock watch --config payments/limit
  wardlock watch --service payments
  wardlock watch --prefix payments/ -o json
  wardlock watch --prefix '' --kind lock --kind election
  wardlock watch --lock orders/42 --since AQEBAQU0k7EF")]
pub(super) struct WatchArgs {
    #[command(flatten)]
    server: Server,

    /// A lock.
    #[arg(long = "lock", value_name = "NAME", value_parser = args::name)]
    locks: Vec<Name>,

    /// An election.
    #[arg(long = "election", value_name = "NAME", value_parser = args::name)]
    elections: Vec<Name>,

    /// A path of the configuration.
    #[arg(long = "config", value_name = "PATH", value_parser = args::name)]
    configs: Vec<Name>,

    /// A service.
    #[arg(long = "service", value_name = "NAME", value_parser = args::name)]
    services: Vec<Name>,

    /// Everything whose name starts so; all there is where it is empty.
    #[arg(long = "prefix", value_name = "PREFIX", value_parser = prefix)]
    prefixes: Vec<String>,

    /// With --prefix: only of this kind. [default: every kind]
    #[arg(long = "kind", value_name = "KIND", requires = "prefixes")]
    kinds: Vec<KindArg>,

    /// Go on behind where this token was printed. [default: from now on]
    #[arg(long, value_name = "TOKEN")]
    since: Option<WatchToken>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KindArg {
    Lock,
    Election,
    Config,
    Service,
}

fn prefix(text: &str) -> Result<String, String> {
    match text.len() <= limits::NAME_BYTES {
        true => Ok(text.to_owned()),
        false => Err(format!("a prefix has at most {} bytes", limits::NAME_BYTES)),
    }
}

/// Runs the command.
pub(super) async fn run(args: WatchArgs) -> Result<ExitCode, Failure> {
    let client = args.server.connect().await?;
    let kinds: Vec<Kind> = match &args.kinds[..] {
        [] => vec![Kind::Lock, Kind::Election, Kind::Config, Kind::Service],
        kinds => kinds
            .iter()
            .map(|kind| match kind {
                KindArg::Lock => Kind::Lock,
                KindArg::Election => Kind::Election,
                KindArg::Config => Kind::Config,
                KindArg::Service => Kind::Service,
            })
            .collect(),
    };
    let mut builder = client.watch().patience(PATIENCE);
    for (kind, names) in [
        (Kind::Lock, &args.locks),
        (Kind::Election, &args.elections),
        (Kind::Config, &args.configs),
        (Kind::Service, &args.services),
    ] {
        builder = names.iter().fold(builder, |builder, name| builder.name(kind, name.as_str()));
    }
    for prefix in &args.prefixes {
        builder = kinds.iter().fold(builder, |builder, kind| builder.prefix(*kind, prefix.as_str()));
    }
    if let Some(token) = args.since {
        builder = builder.since(token);
    }
    let mut watch = builder.open().await.map_err(|error| match error {
        WatchError::Compacted { resume } => {
            Failure::error(format!("some events since then are no longer kept; go on with --since {resume}"))
        }
        WatchError::Malformed(why) => {
            Failure::usage(format!("{why}: --lock, --election, --config, --service or --prefix"))
        }
        WatchError::Token(why) => Failure::usage(format!("--since: the token does not fit: {why}")),
        other => Failure::error(other),
    })?;
    loop {
        match watch.next().await {
            Ok(watched) => say(args.server.output, &watched, || watch.token())?,
            Err(WatchError::Compacted { resume }) => {
                let why = "some events were missed and are no longer kept; what follows came after";
                output::complain(&format!("wardlock: {why} {resume}\n"));
            }
            Err(error) => return Err(Failure::error(error)),
        }
    }
}

fn say(output: Format, watched: &Watched, token: impl FnOnce() -> WatchToken) -> Result<(), Failure> {
    if let Format::Json = output {
        let mut document = documents::event(watched);
        document["token"] = token().to_string().into();
        return output::print(&format!("{}\n", Value::to_string(&document)));
    }
    let event = &watched.event;
    let (kind, name) = (event.key.kind.name(), output::printable(event.key.name.as_str()));
    let what = match &event.what {
        What::Granted { lock_id, mode, holder, value } => {
            let who = output::printable(value.as_ref().unwrap_or(holder));
            format!("granted to {who}, {}, token {}", view::mode(*mode), lock_id.token)
        }
        What::Ended { lock_id, reason } => format!("ended, token {}: {}", lock_id.token, reason_text(*reason)),
        What::Configured { version, deleted: true, .. } => format!("deleted, version {version}"),
        What::Configured { version, content_type, size, .. } => {
            format!("put, version {version}, {size} bytes of {}", output::printable(content_type))
        }
        What::Registered { instance, address, port, health, .. } => {
            let (id, at) = (output::printable(instance.as_str()), view::endpoint(address, *port));
            format!("{id} registered at {at}, {}", health.name())
        }
        What::Deregistered { instance, reason } => {
            format!("{} gone: {}", output::printable(instance.as_str()), gone_text(*reason))
        }
        What::Health { instance, health } => {
            format!("{} is {}", output::printable(instance.as_str()), health.name())
        }
        What::Proclaimed { lock_id, value, .. } => {
            format!("proclaimed {}, token {}", output::printable(value), lock_id.token)
        }
        What::Enrolled { value, priority, .. } => {
            format!("is stood for by {}, priority {priority}", output::printable(value))
        }
    };
    output::print(&format!("{} {kind} {name} {what}\n", view::time(event.at)))
}

fn gone_text(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Released => "deregistered",
        other => reason_text(other),
    }
}

fn reason_text(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Released => "released",
        EndReason::LeaseExpired => "its lease ran out",
        EndReason::SessionExpired => "its session ran out",
        EndReason::SessionClosed => "its session was closed",
        EndReason::Broken => "broken by an operator",
        EndReason::Unfetched => "nobody fetched it",
    }
}
