//! `wardlock webhook`: what happens, told to a URL.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use wardlock_machine::{
    Answer, Command, Cursor, HookView, Key, Kind, Name, Outcome, Query, Secret, SetHook, SettleDead, limits,
};
use wardlock_router::{Client, WatchToken, http::documents, random, webhook};

use super::{
    args,
    connect::{PATIENCE, Server},
    failure::Failure,
    output::{self, Format, Table},
    remote, view,
};

/// Have what happens told to a URL: signed, at least once, in order per name.
#[derive(Args, Debug)]
pub(super) struct WebhookArgs {
    #[command(flatten)]
    server: Server,

    #[command(subcommand)]
    command: WebhookCommand,
}

#[derive(Subcommand, Debug)]
enum WebhookCommand {
    Add(Box<Add>),
    Ls(Ls),
    Show(Show),
    Rm(Rm),
    Dead(Dead),
    Redrive(Redrive),
}

/// Make a webhook, and print its id and its secret; nobody tells the secret again.
///
/// The nodes deliver to targets that their `webhook_targets` allows, and to no other: `show` says where that is in the
/// way.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  wardlock webhook add https://hooks.example.com/wardlock --config payments/limit
  wardlock webhook add https://hooks.example.com/wardlock --prefix payments/ --kind lock")]
struct Add {
    /// Where to deliver to.
    #[arg(value_name = "URL")]
    url: String,

    /// A lock.
    #[arg(long = "lock", value_name = "NAME", value_parser = args::name)]
    locks: Vec<Name>,

    /// An election.
    #[arg(long = "election", value_name = "NAME", value_parser = args::name)]
    elections: Vec<Name>,

    /// A path of the configuration.
    #[arg(long = "config", value_name = "PATH", value_parser = args::name)]
    configs: Vec<Name>,

    /// Everything whose name starts so; all there is where it is empty.
    #[arg(long = "prefix", value_name = "PREFIX")]
    prefixes: Vec<String>,

    /// With --prefix: only of this kind. [default: every kind]
    #[arg(long = "kind", value_name = "KIND", requires = "prefixes")]
    kinds: Vec<KindArg>,

    /// The secret by which deliveries are signed. [default: 64 random digits]
    #[arg(long, env = "WARDLOCK_WEBHOOK_SECRET", value_name = "TEXT", hide_env_values = true)]
    secret: Option<String>,

    /// Deliver what came behind this token of a watch. [default: from now on]
    #[arg(long, value_name = "TOKEN")]
    since: Option<WatchToken>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KindArg {
    Lock,
    Election,
    Config,
}

impl From<KindArg> for Kind {
    fn from(kind: KindArg) -> Kind {
        match kind {
            KindArg::Lock => Kind::Lock,
            KindArg::Election => Kind::Election,
            KindArg::Config => Kind::Config,
        }
    }
}

/// List webhooks.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  wardlock webhook ls")]
struct Ls {
    /// Only ids after this one: where the last page ended.
    #[arg(long, value_name = "ID")]
    after: Option<String>,

    /// At most so many.
    #[arg(long, value_name = "COUNT", default_value_t = limits::HOOK_PAGE as u32,
          value_parser = clap::value_parser!(u32).range(1..=limits::HOOK_PAGE as i64))]
    limit: u32,
}

/// Show a webhook: how far it has come, and what is in its way.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  wardlock webhook show $ID -o json")]
struct Show {
    /// The webhook, as `add` printed it.
    #[arg(value_name = "ID", value_parser = args::name)]
    id: Name,
}

/// Delete a webhook, with its dead letters.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  wardlock webhook rm $ID")]
struct Rm {
    /// The webhook, as `add` printed it.
    #[arg(value_name = "ID", value_parser = args::name)]
    id: Name,
}

/// List the events that a webhook's target did not take.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  wardlock webhook dead $ID -o json
  wardlock webhook dead $ID --forget")]
struct Dead {
    /// The webhook, as `add` printed it.
    #[arg(value_name = "ID", value_parser = args::name)]
    id: Name,

    /// Forget them.
    #[arg(long)]
    forget: bool,
}

/// Have a webhook's dead letters delivered once more.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  wardlock webhook redrive $ID")]
struct Redrive {
    /// The webhook, as `add` printed it.
    #[arg(value_name = "ID", value_parser = args::name)]
    id: Name,
}

/// Runs the command.
pub(super) async fn run(args: WebhookArgs) -> Result<ExitCode, Failure> {
    let output = args.server.output;
    let client = args.server.connect().await?;
    match args.command {
        WebhookCommand::Add(add) => make(&client, *add, output).await,
        WebhookCommand::Ls(ls) => list(&client, &ls, output).await,
        WebhookCommand::Show(show) => {
            let Answer::Hook(found) = read(&client, Query::Hook { key: Key::hook(show.id) }).await? else {
                return Err(other());
            };
            let found = found.ok_or_else(missing)?;
            remote::say(output, &documents::webhook(&found), table(std::slice::from_ref(&found)).lines().trim_end())
        }
        WebhookCommand::Rm(rm) => {
            let drop = Command::DropHook { request: random::any(), key: Key::hook(rm.id) };
            change(&client, drop).await?;
            remote::say(output, &json!({ "success": true }), "deleted")
        }
        WebhookCommand::Dead(dead) if dead.forget => settle(&client, dead.id, false, output).await,
        WebhookCommand::Dead(dead) => letters(&client, dead.id, output).await,
        WebhookCommand::Redrive(redrive) => settle(&client, redrive.id, true, output).await,
    }
}

fn other() -> Failure {
    Failure::error("the cluster answered something else")
}

fn missing() -> Failure {
    Failure::error("there is no such webhook")
}

async fn read(client: &Client, query: Query) -> Result<Answer, Failure> {
    client.read(query, PATIENCE).await.map_err(Failure::error)
}

/// How many dead letters a change was about.
async fn change(client: &Client, command: Command) -> Result<u32, Failure> {
    match client.write(command, PATIENCE).await.map_err(Failure::error)? {
        Outcome::HookChanged { letters, .. } => Ok(letters),
        Outcome::NoHook => Err(missing()),
        outcome => Err(remote::refused(outcome)),
    }
}

async fn make(client: &Client, add: Add, output: Format) -> Result<ExitCode, Failure> {
    let mut watch = client.watch().patience(PATIENCE);
    let mut patterns = Vec::new();
    for (kind, names) in [(Kind::Lock, &add.locks), (Kind::Election, &add.elections), (Kind::Config, &add.configs)] {
        let pattern = |name: &Name| wardlock_machine::Pattern { kind, name: name.to_string(), prefix: false };
        patterns.extend(names.iter().map(pattern));
    }
    let kinds: Vec<Kind> = match &add.kinds[..] {
        [] => vec![Kind::Lock, Kind::Election, Kind::Config],
        kinds => kinds.iter().map(|kind| (*kind).into()).collect(),
    };
    for prefix in &add.prefixes {
        let pattern = |kind: &Kind| wardlock_machine::Pattern { kind: *kind, name: prefix.clone(), prefix: true };
        patterns.extend(kinds.iter().map(pattern));
    }
    watch = patterns.iter().cloned().fold(watch, |watch, pattern| watch.pattern(pattern));
    if let Some(token) = add.since {
        watch = watch.since(token);
    }
    // By a watch that is opened: so its patterns and its token are known to be good, and where now is.
    let mut opened = watch.open().await.map_err(Failure::error)?;
    let cursor = Cursor::from(&opened.token());
    drop(opened);
    let (id, secret) = (webhook::new_id(), add.secret.unwrap_or_else(webhook::new_secret));
    let key = Key::hook(Name::new(&id).map_err(Failure::error)?);
    let (request, shown) = (random::any(), secret.clone());
    let made = Command::SetHook(SetHook { request, key, url: add.url, patterns, secret: Secret::new(secret), cursor });
    if !made.is_within_bounds() {
        let (min, max) = (limits::HOOK_SECRET_BYTES_MIN, limits::HOOK_SECRET_BYTES);
        let url = limits::HOOK_URL_BYTES;
        return Err(Failure::usage(format!("a URL has at most {url} bytes, a secret {min} to {max}")));
    }
    change(client, made).await?;
    let said = json!({ "webhookId": id, "secret": shown });
    remote::say(output, &said, &format!("{id}\nsecret {shown}"))
}

async fn list(client: &Client, ls: &Ls, output: Format) -> Result<ExitCode, Failure> {
    let found = client.hooks(ls.after.as_deref(), ls.limit, PATIENCE).await.map_err(Failure::error)?;
    if output == Format::Json {
        let said: Vec<Value> = found.iter().map(documents::webhook).collect();
        output::print_json(&json!({ "webhooks": said }))?;
        return Ok(ExitCode::SUCCESS);
    }
    output::print(&table(&found).lines())?;
    if let Some(last) = found.last().filter(|_| found.len() >= ls.limit as usize) {
        output::complain(&format!("wardlock: there may be more: --after {}\n", last.name));
    }
    Ok(ExitCode::SUCCESS)
}

fn table(found: &[HookView]) -> Table {
    let mut table = Table::new(["WEBHOOK", "URL", "FOR", "DELIVERED", "FAILED", "DEAD", "LAST ERROR"]);
    for hook in found {
        table.row([
            hook.name.to_string(),
            hook.url.clone(),
            view::age(hook.created),
            hook.delivered.to_string(),
            hook.failed.to_string(),
            format!("{}", u64::from(hook.dead) + u64::from(hook.again)),
            hook.error.clone().unwrap_or_default(),
        ]);
    }
    table
}

async fn letters(client: &Client, id: Name, output: Format) -> Result<ExitCode, Failure> {
    let Answer::DeadLetters(found) = read(client, Query::DeadLetters { key: Key::hook(id) }).await? else {
        return Err(other());
    };
    let found = found.ok_or_else(missing)?;
    let said: Vec<Value> = found.iter().map(documents::dead_letter).collect();
    let mut table = Table::new(["DELIVERY", "KIND", "NAME", "ATTEMPTS", "DIED", "ERROR"]);
    for letter in &found {
        let (kind, name) = match &letter.event {
            Some(event) => (event.key.kind.name(), event.key.name.to_string()),
            None => ("gap", String::new()),
        };
        let died = view::time(letter.died);
        let delivery = documents::delivery_id(letter);
        table.row([delivery, kind.to_owned(), name, letter.attempts.to_string(), died, letter.error.clone()]);
    }
    remote::say(output, &json!({ "deadLetters": said }), table.lines().trim_end())
}

async fn settle(client: &Client, id: Name, redeliver: bool, output: Format) -> Result<ExitCode, Failure> {
    let ask = SettleDead { request: random::any(), key: Key::hook(id), redeliver };
    let letters = change(client, Command::SettleDead(ask)).await?;
    let done = if redeliver { "are delivered once more" } else { "are forgotten" };
    let said = json!({ "success": true, "deadLetters": letters });
    remote::say(output, &said, &format!("{letters} dead letters {done}"))
}
