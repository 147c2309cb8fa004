//! `wardlock service`: instances of services, registered and found.

mod register;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use wardlock_machine::{Command, Deregistered, InstanceView, Key, Name, Outcome, limits};
use wardlock_router::{Endpoint, WatchError, http::documents, random};

use super::{
    args,
    connect::{PATIENCE, Server},
    failure::Failure,
    output::{self, Format, Table},
    remote, view,
};

/// Register instances of services, and find them.
#[derive(Args, Debug)]
pub(super) struct ServiceArgs {
    #[command(flatten)]
    server: Server,

    #[command(subcommand)]
    command: ServiceCommand,
}

#[derive(Subcommand, Debug)]
enum ServiceCommand {
    Register(Box<register::Register>),
    Ls(Ls),
    Show(Show),
    Deregister(Deregister),
    Watch(Watch),
}

/// List the services that have an instance.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  wardlock service ls web.")]
struct Ls {
    /// Only names that start so.
    #[arg(default_value = "")]
    prefix: String,

    /// Only names after this one: where the last page ended.
    #[arg(long, value_name = "NAME")]
    after: Option<String>,

    /// At most so many.
    #[arg(long, value_name = "COUNT", default_value_t = limits::PAGE as u32,
          value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// Which of a service's instances.
#[derive(Args, Debug)]
struct Wanted {
    /// The service.
    #[arg(value_parser = args::name)]
    name: Name,

    /// Only instances with this tag.
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
}

/// Show the instances of a service.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit status: 0, or 1 where there is no such instance.

Examples:
  wardlock service show payments --healthy --tag eu
  wardlock service show payments -o json | jq -r '.instances[] | \"\\(.address):\\(.port)\"'")]
struct Show {
    #[command(flatten)]
    wanted: Wanted,

    /// Only healthy instances: passing or warning.
    #[arg(long)]
    healthy: bool,
}

/// Take an instance off.
#[derive(Args, Debug)]
#[command(after_help = "\
`wardlock service register` takes its instance off by itself when it is told to end. This is for one that somebody else
left. Whoever keeps it registered may register it anew.

Exit status: 0, or 1 where there is no such instance.

Example:
  wardlock service deregister payments web-1:8080")]
struct Deregister {
    /// The service.
    #[arg(value_parser = args::name)]
    name: Name,

    /// The instance.
    #[arg(value_parser = args::name)]
    id: Name,
}

/// Print the healthy instances of a service now, and again after each change, until interrupted.
#[derive(Args, Debug)]
#[command(after_help = "\
With -o json one document a line. `wardlock watch --service NAME` prints each change instead.

Example:
  wardlock service watch payments --tag eu")]
struct Watch {
    #[command(flatten)]
    wanted: Wanted,
}

/// Runs the command.
pub(super) async fn run(args: ServiceArgs) -> Result<ExitCode, Failure> {
    let server = &args.server;
    match args.command {
        ServiceCommand::Register(register) => register::run(*register, server).await,
        ServiceCommand::Ls(ls) => list(ls, server).await,
        ServiceCommand::Show(show) => self::show(show, server).await,
        ServiceCommand::Deregister(deregister) => self::deregister(deregister, server).await,
        ServiceCommand::Watch(watch) => self::watch(watch, server).await,
    }
}

async fn list(args: Ls, server: &Server) -> Result<ExitCode, Failure> {
    let client = server.connect().await?;
    let found = client.services(&args.prefix, args.after.as_deref(), args.limit, PATIENCE).await;
    let found = found.map_err(Failure::error)?;
    match server.output {
        Format::Json => {
            let services: Vec<Value> = found.iter().map(documents::service).collect();
            output::print_json(&json!({ "services": services }))?;
        }
        Format::Table => {
            let mut table = Table::new(["SERVICE", "HEALTHY", "INSTANCES"]);
            for service in &found {
                table.row([service.service.to_string(), service.healthy.to_string(), service.total.to_string()]);
            }
            output::print(&table.lines())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(args: Show, server: &Server) -> Result<ExitCode, Failure> {
    let Show { wanted: Wanted { name, tag }, healthy } = args;
    let client = server.connect().await?;
    let mut service = client.service(name.as_str()).patience(PATIENCE);
    if healthy {
        service = service.healthy();
    }
    if let Some(tag) = tag {
        service = service.tag(tag);
    }
    let found = service.list().await.map_err(Failure::error)?;
    match server.output {
        Format::Json => {
            let instances: Vec<Value> = found.iter().map(|view| documents::instance(&name, view)).collect();
            output::print_json(&json!({ "service": name.as_str(), "instances": instances }))?;
        }
        Format::Table if found.is_empty() => return Err(Failure::error("there is no such instance")),
        Format::Table => output::print(&table(&found).lines())?,
    }
    Ok(ExitCode::from(u8::from(found.is_empty())))
}

fn table(found: &[InstanceView]) -> Table {
    let mut table = Table::new(["ID", "ADDRESS", "HEALTH", "WEIGHT", "TAGS", "FOR", "TTL", "BOUND TO", "METADATA"]);
    for found in found {
        let spec = &found.spec;
        let metadata: Vec<String> = spec.metadata.iter().map(|(key, value)| format!("{key}={value}")).collect();
        table.row([
            found.instance.to_string(),
            view::endpoint(&spec.address, spec.port),
            found.health.name().to_owned(),
            spec.weight.to_string(),
            spec.tags.join(","),
            view::age(found.registered),
            format!("{}s", found.ttl.0 as f64 / 1000.0),
            if found.private { "its ttl".to_owned() } else { found.session.to_string() },
            metadata.join(" "),
        ]);
    }
    table
}

async fn deregister(args: Deregister, server: &Server) -> Result<ExitCode, Failure> {
    let client = server.connect().await?;
    let (key, instance) = (Key::service(args.name), args.id);
    let command = Command::Deregister { request: random::any(), key, instance, session: None };
    match client.write(command, PATIENCE).await.map_err(Failure::error)? {
        Outcome::Deregistered(Deregistered { revision, private }) => {
            if let Some(session) = private {
                // Where this fails the session runs out.
                let _ = client.write(Command::CloseSession { session }, PATIENCE).await;
            }
            let document = json!({ "success": true, "revision": revision.0 });
            remote::say(server.output, &document, "deregistered")
        }
        Outcome::NoInstance => Err(Failure::error("there is no such instance")),
        other => Err(remote::refused(other)),
    }
}

async fn watch(args: Watch, server: &Server) -> Result<ExitCode, Failure> {
    let Wanted { name, tag } = args.wanted;
    let client = server.connect().await?;
    let mut service = client.service(name.as_str()).patience(PATIENCE);
    if let Some(tag) = tag {
        service = service.tag(tag);
    }
    let mut watch = service.watch().await.map_err(Failure::error)?;
    loop {
        match watch.next().await {
            Ok(endpoints) => say(server.output, &name, &endpoints)?,
            Err(WatchError::Cluster(error)) => {
                output::complain(&format!("wardlock: {error}; trying again\n"));
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
            Err(other) => return Err(Failure::error(other)),
        }
    }
}

fn say(output: Format, service: &Name, endpoints: &[Endpoint]) -> Result<(), Failure> {
    if let Format::Json = output {
        let instances: Vec<Value> = endpoints.iter().map(endpoint).collect();
        let document = json!({ "service": service.as_str(), "instances": instances });
        return output::print(&format!("{document}\n"));
    }
    let texts: Vec<String> = endpoints
        .iter()
        .map(|at| {
            let warning = if at.health == wardlock_machine::Health::Warning { " (warning)" } else { "" };
            format!("{} at {}{warning}", output::printable(at.instance.as_str()), view::endpoint(&at.address, at.port))
        })
        .collect();
    let now = view::time(view::wall_now());
    output::print(&format!("{now} {} healthy: {}\n", endpoints.len(), texts.join(", ")))
}

fn endpoint(endpoint: &Endpoint) -> Value {
    json!({
        "instanceId": endpoint.instance.as_str(),
        "address": endpoint.address,
        "port": endpoint.port,
        "tags": endpoint.tags,
        "weight": endpoint.weight,
        "health": endpoint.health.name(),
    })
}
