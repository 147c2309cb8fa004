//! `wardlock lock`: locks by name.

pub mod child;
pub mod duty;
pub mod run;
pub mod signals;
pub mod supervise;

use std::{process::ExitCode, time::Duration};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use wardlock_machine::*;
use wardlock_router::{Client, http::documents};

use super::{
    args::{self, How, Wait},
    connect::{self, PATIENCE, Server},
    failure::Failure,
    output::{self, Format},
    remote,
    stale::{self, Freshness},
    view,
};

/// Hold, show and break locks.
#[derive(Args, Debug)]
pub struct LockArgs {
    #[command(flatten)]
    server: Server,

    #[command(subcommand)]
    command: LockCommand,
}

#[derive(Subcommand, Debug)]
enum LockCommand {
    Run(run::Run),
    Acquire(Acquiring),
    Release(Given),
    Renew(Renewing),
    Ls(Listing),
    Who(Named),
    Queue(Named),
    Break(Breaking),
    Deadlocks(Deadlocks),
}

/// List the deadlocks that stand now.
///
/// Sessions that were opened as ones that do one thing at a time (`wardlock session open --serial`) and wait for each
/// other in a circle. The cluster ends each within some two seconds: the youngest wait of the lowest priority is refused.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  wardlock lock deadlocks")]
struct Deadlocks {}

/// Acquire a lock and leave it held.
///
/// Without --session a new session is opened, which nobody keeps alive once this command has ended: the
/// lock lapses --ttl seconds later, unless `wardlock session keepalive` is called before, again and again.
/// To hold a lock for as long as a command runs, use `wardlock lock run`.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit status: 0 acquired, 75 taken by somebody else.

Example:
  wardlock lock acquire -n --ttl 120 deploy/web && ./deploy.sh")]
struct Acquiring {
    /// The lock.
    #[arg(value_parser = args::name)]
    name: Name,

    #[command(flatten)]
    wait: Wait,

    #[command(flatten)]
    how: How,

    /// Acquire it for this session, which somebody keeps alive.
    #[arg(long, value_name = "ID", conflicts_with = "ttl")]
    session: Option<SessionId>,

    /// The TTL of the session that is opened.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = args::ttl, allow_negative_numbers = true)]
    ttl: Duration,

    /// A lease of the lock's own, at most as long as its session lives.
    #[arg(long, value_name = "SECONDS", value_parser = args::lease, allow_negative_numbers = true)]
    timeout: Option<Duration>,

    /// Why, shown to whoever waits.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Give a lock back.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit status: 0 released, 76 where it was no longer held: others may have held it since.

Example:
  wardlock lock release deploy/web 0001b2…-1042-05f6a3c1")]
struct Given {
    /// The lock.
    #[arg(value_parser = args::name)]
    name: Name,

    /// The grant, as `acquire` printed it.
    #[arg(value_name = "LOCK_ID")]
    lock_id: LockId,
}

/// Extend a lock's own lease; the token stays.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit status: 0 extended, 76 where it was no longer held.

Example:
  wardlock lock renew deploy/web 0001b2…-1042-05f6a3c1 --timeout 60")]
struct Renewing {
    #[command(flatten)]
    grant: Given,

    /// How long from now. [default: as long as before]
    #[arg(long, value_name = "SECONDS", value_parser = args::lease, allow_negative_numbers = true)]
    timeout: Option<Duration>,
}

/// List locks.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  wardlock lock ls --prefix orders/ --held")]
struct Listing {
    /// Only names that start so.
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,

    /// Only locks that somebody holds.
    #[arg(long)]
    held: bool,

    /// At most so many.
    #[arg(long, value_name = "COUNT", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,

    #[command(flatten)]
    freshness: Freshness,
}

/// Show who holds a lock, or who waits for it.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit status: 0, or 1 where there is nobody to show.

Examples:
  wardlock lock who deploy/web
  wardlock lock who deploy/web --stale --max-age 2
  wardlock lock queue deploy/web")]
struct Named {
    /// The lock.
    #[arg(value_parser = args::name)]
    name: Name,

    #[command(flatten)]
    freshness: Freshness,
}

impl Named {
    async fn look(self, client: &Client) -> Result<Option<Object>, Failure> {
        match self.freshness.read(client, Query::Object { key: Key::lock(self.name) }).await? {
            Answer::Object(object) => Ok(object),
            _ => Err(stale::other()),
        }
    }
}

/// Take a lock from all its holders, by force.
///
/// They are told, but a holder that is paused or cut off may still write: have the resource check the
/// fencing token, which rises.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  wardlock lock break deploy/web --reason 'host web3 burnt down'")]
struct Breaking {
    /// The lock.
    #[arg(value_parser = args::name)]
    name: Name,

    /// Why; kept beside the command in the shard's log.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Runs the command.
pub async fn run(args: LockArgs) -> Result<ExitCode, Failure> {
    let server = &args.server;
    let output = server.output;
    match args.command {
        LockCommand::Run(run) => run::run(run, server).await,
        LockCommand::Acquire(acquiring) => acquire(&server.connect().await?, acquiring, output).await,
        LockCommand::Release(given) => {
            let client = server.connect().await?;
            remote::release(&client, Key::lock(given.name), given.lock_id, output).await
        }
        LockCommand::Renew(renewing) => renew(&server.connect().await?, renewing, output).await,
        LockCommand::Ls(listing) => list(&server.connect().await?, listing, output).await,
        LockCommand::Who(named) => {
            let object = named.look(&server.connect().await?).await?;
            remote::show(object.as_ref(), output, view::holders, "nobody holds it")
        }
        LockCommand::Queue(named) => {
            let object = named.look(&server.connect().await?).await?;
            let waited = object.filter(|object| object.queue_count > 0);
            remote::show(waited.as_ref(), output, view::queue, "nobody waits")
        }
        LockCommand::Deadlocks(Deadlocks {}) => deadlocks(&server.connect().await?, output).await,
        LockCommand::Break(breaking) => break_lock(&server.connect().await?, breaking, output).await,
    }
}

async fn acquire(client: &Client, args: Acquiring, output: Format) -> Result<ExitCode, Failure> {
    let opened = match args.session {
        Some(_) => None,
        None => Some(
            remote::open(client, connect::client_id(), args.ttl, connect::metadata(args.reason.as_deref())?).await?,
        ),
    };
    let session = args.session.or(opened).ok_or_else(|| Failure::error("there is no session"))?;
    let acquire = Acquire {
        session,
        request: client.random_request(),
        key: Key::lock(args.name),
        mode: args.how.mode(),
        lease: args.timeout.map(remote::millis),
        wait: remote::millis(args.wait.length()),
        priority: 0,
        lock_delay: Millis(0),
        metadata: connect::metadata(args.reason.as_deref())?,
        value: None,
    };
    let key = acquire.key.clone();
    let waiting = client.write(Command::Acquire(acquire), args.wait.length() + PATIENCE);
    let waiting = remote::queueing(client, &key, waiting);
    // A session of our own has to outlive the wait; from the grant on it lapses.
    let outcome = match opened {
        Some(session) => remote::while_kept_alive(client, session, args.ttl, waiting).await,
        None => waiting.await.map_err(Failure::error),
    };
    let held = match outcome {
        Ok(Outcome::Granted(grant) | Outcome::AlreadyHeld(grant)) => Ok(grant),
        Ok(outcome) => Err(remote::refused(outcome)),
        Err(failure) => Err(failure),
    };
    let grant = match (held, opened) {
        (Ok(grant), _) => grant,
        (Err(failure), Some(session)) => {
            remote::close_quietly(client, session).await;
            return Err(failure);
        }
        (Err(failure), None) => return Err(failure),
    };
    match output {
        Format::Json => output::print_json(&view::grant(&grant))?,
        Format::Table => {
            let mut text = format!("lock id  {}\ntoken    {}\n", grant.lock_id, grant.lock_id.token);
            if opened.is_some() {
                let ttl = args.ttl.as_secs_f64();
                text += &format!("session  {session}, which ends in {ttl} s unless kept alive:\n");
                text += &format!("         wardlock session keepalive {session}\n");
            }
            output::print(&text)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn renew(client: &Client, args: Renewing, output: Format) -> Result<ExitCode, Failure> {
    let command = Command::Renew {
        request: client.random_request(),
        key: Key::lock(args.grant.name),
        lock_id: args.grant.lock_id,
        lease: args.timeout.map(remote::millis),
    };
    match client.write(command, PATIENCE).await.map_err(Failure::error)? {
        Outcome::Renewed(grant) => {
            let until = grant.expires.map_or_else(|| "as long as its session".to_owned(), view::time);
            remote::say(output, &view::grant(&grant), &format!("held until {until}"))
        }
        outcome => Err(remote::refused(outcome)),
    }
}

async fn list(client: &Client, args: Listing, output: Format) -> Result<ExitCode, Failure> {
    let held = args.held.then_some(true);
    let query =
        Query::List { kind: Kind::Lock, prefix: args.prefix, held, session: None, after: None, limit: args.limit };
    let Answer::List(objects) = args.freshness.read(client, query).await? else { return Err(stale::other()) };
    if output == Format::Json {
        let locks: Vec<Value> = objects.iter().map(view::object).collect();
        output::print_json(&json!({ "locks": locks }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = output::Table::new(["NAME", "HOLDER", "MODE", "HOLDERS", "WAITERS", "TOKEN", "FOR"]);
    for object in &objects {
        let first = object.holders.first();
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        table.row([
            object.key.name.to_string(),
            or_dash(first.map(|grant| grant.holder.clone())),
            or_dash(first.map(|grant| view::mode(grant.mode))),
            object.holder_count.to_string(),
            object.queue_count.to_string(),
            or_dash(first.map(|grant| grant.lock_id.token.to_string())),
            or_dash(first.map(|grant| view::age(grant.acquired))),
        ]);
    }
    output::print(&table.lines())?;
    if objects.len() >= args.limit as usize {
        crate::cli::output::complain("wardlock: there may be more; see --limit\n");
    }
    Ok(ExitCode::SUCCESS)
}

async fn deadlocks(client: &Client, output: Format) -> Result<ExitCode, Failure> {
    let (found, seen) = client.deadlocks(PATIENCE).await.map_err(Failure::error)?;
    if output == Format::Json {
        output::print_json(&documents::deadlocks(&found, &seen))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = output::Table::new(["VICTIM", "WAITS FOR", "FOR", "LENGTH", "CIRCLE"]);
    for deadlock in &found {
        let Some(wait) = seen.0.get(&deadlock.victim) else { continue };
        let (circle, length) = (deadlock.circle.to_string(), deadlock.circle.length.to_string());
        table.row([wait.holder.clone(), wait.key.name.to_string(), view::age(wait.since), length, circle]);
    }
    output::print(&table.lines())?;
    Ok(ExitCode::SUCCESS)
}

async fn break_lock(client: &Client, args: Breaking, output: Format) -> Result<ExitCode, Failure> {
    if args.reason.is_empty() || args.reason.len() > limits::LABEL_BYTES {
        return Err(Failure::usage(format!("--reason must have 1 to {} bytes", limits::LABEL_BYTES)));
    }
    let command = Command::Break { key: Key::lock(args.name), reason: args.reason };
    match client.write(command, PATIENCE).await.map_err(Failure::error)? {
        Outcome::Broken(grants) if grants.is_empty() => Err(Failure::error("nobody holds it")),
        Outcome::Broken(grants) => {
            let names = grants.iter().map(|grant| grant.holder.as_str()).collect::<Vec<_>>().join(", ");
            let said: Vec<Value> = grants.iter().map(documents::holder).collect();
            remote::say(
                output,
                &json!({ "success": true, "broken": said }),
                &format!("taken from {}", output::printable(&names)),
            )
        }
        outcome => Err(remote::refused(outcome)),
    }
}
