//! `wardlock service register`: an instance that is registered as long as this process or its command runs.
//!
//! Unlike a lock, a registration may be taken up again: where the session was lost in a long outage a new one is opened
//! and the instance is registered anew, and the command runs on.

use std::{ffi::OsString, process::ExitCode, time::Duration};

use clap::{Args, ValueEnum};
use serde_json::json;
use wardlock_machine::{Health, InstanceSpec, Metadata, Name, limits};
use wardlock_router::{Client, RegisterError, Registration};

use crate::cli::{
    args,
    connect::{self, Server},
    failure::Failure,
    lock::{
        child::Running,
        signals::{self, Signals},
        supervise::Ended,
    },
    output::{self, Format},
    remote, view,
};

/// The pause before the instance is registered anew.
const AGAIN: Duration = Duration::from_secs(1);

/// Register an instance, and keep it registered until INT or TERM comes, or while a command runs.
#[derive(Args, Debug)]
#[command(after_help = "\
With a command, INT, TERM, HUP, QUIT, USR1 and USR2 are passed on to its process group, and the instance is taken off
when it has ended. The command finds WARDLOCK_SERVICE and WARDLOCK_INSTANCE in its environment. If this process dies,
the instance is gone --ttl seconds later, and a second at most. The last to register an ID has it.

Exit status: the command's own (128 + N where signal N ended it), or 0 after a signal without one; 126 or 127 if the
command cannot be run or found.

Examples:
  wardlock service register web --address 10.0.0.7 --port 8080 --tag eu -- ./server --listen :8080
  wardlock service register payments --id db-1 --address db-1.internal --port 5432 --weight 3 --meta zone=a")]
pub struct Register {
    /// The service.
    #[arg(value_parser = args::name)]
    name: Name,

    /// The instance's id in the service. [default: host:pid]
    #[arg(long, value_name = "ID", value_parser = id)]
    id: Option<Name>,

    /// Where it is: a host name or an IP address.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    address: String,

    /// On which port.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,

    /// A tag by which it can be chosen; may come more than once.
    #[arg(long = "tag", value_name = "TAG", value_parser = tag)]
    tags: Vec<String>,

    /// Its share of the work beside the others'. 0: only where nothing else is left.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    weight: u16,

    /// Shown to whoever looks; may come more than once.
    #[arg(long = "meta", value_name = "KEY=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,

    /// How it fares.
    #[arg(long, value_enum, default_value_t)]
    health: HealthArg,

    /// How long it outlives this process, if that dies.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = args::ttl, allow_negative_numbers = true)]
    ttl: Duration,

    /// The command and its arguments; no shell in between.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum HealthArg {
    #[default]
    Passing,
    Warning,
    Critical,
}

impl From<HealthArg> for Health {
    fn from(health: HealthArg) -> Health {
        match health {
            HealthArg::Passing => Health::Passing,
            HealthArg::Warning => Health::Warning,
            HealthArg::Critical => Health::Critical,
        }
    }
}

fn id(text: &str) -> Result<Name, String> {
    match text.len() <= limits::LABEL_BYTES {
        true => args::name(text),
        false => Err(format!("an id has at most {} bytes", limits::LABEL_BYTES)),
    }
}

fn address(text: &str) -> Result<String, String> {
    match InstanceSpec::is_address(text) {
        true => Ok(text.to_owned()),
        false => Err("not a host name or an IP address; the port goes with --port".to_owned()),
    }
}

fn tag(text: &str) -> Result<String, String> {
    match (1..=limits::LABEL_BYTES).contains(&text.len()) {
        true => Ok(text.to_owned()),
        false => Err(format!("a tag has 1 to {} bytes", limits::LABEL_BYTES)),
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it must be KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// What is to be registered.
struct Wanted {
    service: Name,
    id: Name,
    spec: InstanceSpec,
    health: Health,
    ttl: Duration,
}

impl Wanted {
    fn of(args: &Register) -> Result<Wanted, Failure> {
        let id = match &args.id {
            Some(id) => id.clone(),
            None => Name::new(&connect::client_id()).map_err(Failure::error)?,
        };
        let mut tags = args.tags.clone();
        tags.sort_unstable();
        tags.dedup();
        if tags.len() > limits::TAGS {
            return Err(Failure::usage(format!("--tag may come at most {} times", limits::TAGS)));
        }
        let metadata: Metadata = args.metadata.iter().cloned().collect();
        let bytes: usize = metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
        if metadata.len() > limits::METADATA_ENTRIES || bytes > limits::METADATA_BYTES {
            let (entries, bytes) = (limits::METADATA_ENTRIES, limits::METADATA_BYTES);
            return Err(Failure::usage(format!("--meta may have at most {entries} entries and {bytes} bytes")));
        }
        let spec = InstanceSpec { address: args.address.clone(), port: args.port, tags, weight: args.weight, metadata };
        Ok(Wanted { service: args.name.clone(), id, spec, health: args.health.into(), ttl: args.ttl })
    }

    async fn register(&self, client: &Client) -> Result<Registration, Failure> {
        let session = remote::open_kept(client, self.ttl, None).await?;
        let spec = &self.spec;
        let new = session.register(self.service.as_str(), self.id.as_str());
        let new = new.address(spec.address.as_str()).port(spec.port).weight(spec.weight).health(self.health);
        let new = spec.tags.iter().fold(new, |new, tag| new.tag(tag.as_str()));
        let new = spec.metadata.iter().fold(new, |new, (key, value)| new.metadata(key.as_str(), value.as_str()));
        new.open().await.map_err(Failure::error)
    }

    /// The same, as often as it takes.
    async fn register_again(&self, client: &Client) -> Registration {
        loop {
            match self.register(client).await {
                Ok(registration) => return registration,
                Err(failure) => {
                    output::complain(&format!("wardlock: not registered: {}; trying again\n", failure.message))
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Keeps the instance registered; never ends.
    async fn keep(&self, client: &Client, registration: &mut Registration) {
        loop {
            registration.session().cancelled().cancelled().await;
            output::complain("wardlock: the session was lost; the instance is registered anew\n");
            *registration = self.register_again(client).await;
        }
    }

    fn say(&self, output: Format, registration: &Registration) -> Result<(), Failure> {
        let session = registration.session().id();
        let (service, id) = (self.service.as_str(), self.id.as_str());
        let at = view::endpoint(&self.spec.address, self.spec.port);
        if let Format::Json = output {
            let document = json!({
                "success": true, "service": service, "instanceId": id, "sessionId": session.to_string(),
            });
            return output::print(&format!("{document}\n"));
        }
        output::print(&format!("registered {} of {} at {at}\n", output::printable(id), output::printable(service)))
    }
}

/// Runs the command.
pub(super) async fn run(args: Register, server: &Server) -> Result<ExitCode, Failure> {
    let wanted = Wanted::of(&args)?;
    let mut signals = Signals::catch()?;
    let opening = async {
        let client = server.connect().await?;
        let registration = wanted.register(&client).await?;
        Ok::<_, Failure>((client, registration))
    };
    let (client, mut registration) = tokio::select! {
        opened = opening => opened?,
        signal = signals.next() => return Ok(ExitCode::from(signals::exit_code(signal))),
    };
    let code = match args.command.is_empty() {
        true => match wanted.say(server.output, &registration) {
            Ok(()) => {
                tokio::select! {
                    () = wanted.keep(&client, &mut registration) => {}
                    _ = signals.next() => {}
                }
                Ok(0)
            }
            Err(unsaid) => Err(unsaid),
        },
        false => {
            let environment =
                [("WARDLOCK_SERVICE", wanted.service.to_string()), ("WARDLOCK_INSTANCE", wanted.id.to_string())];
            match Running::start(&args.command, &environment) {
                Ok(child) => accompany(child, &wanted, &client, &mut registration, &mut signals).await,
                Err(failure) => Err(failure),
            }
        }
    };
    take_off(registration, &mut signals).await;
    code.map(ExitCode::from)
}

/// Keeps the instance registered until the child has ended, and answers with the exit code.
async fn accompany(
    mut child: Running,
    wanted: &Wanted,
    client: &Client,
    registration: &mut Registration,
    signals: &mut Signals,
) -> Result<u8, Failure> {
    let keeping = wanted.keep(client, registration);
    tokio::pin!(keeping);
    while !child.has_ended() {
        tokio::select! {
            () = child.changed() => {}
            signal = signals.next() => child.signal(signal),
            () = &mut keeping => {}
        }
    }
    Ok(match child.bury()? {
        Ended::Exited(code) => code,
        Ended::Signaled(signal) => signal.saturating_add(128),
    })
}

/// Takes the instance off and ends its session, for as long as it takes or until a signal comes; the TTL does the same
/// later.
async fn take_off(registration: Registration, signals: &mut Signals) {
    let session = registration.session().clone();
    let leaving = async {
        match registration.deregister().await {
            Ok(()) | Err(RegisterError::SessionLost | RegisterError::Taken) => {}
            Err(error) => output::complain(&format!("wardlock: the instance goes with its session: {error}\n")),
        }
        let _ = session.close().await;
    };
    tokio::select! {
        () = leaving => {}
        _ = signals.next() => {}
    }
}
