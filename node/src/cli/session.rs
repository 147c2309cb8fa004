//! `wardlock session`: sessions by hand.

use std::{process::ExitCode, time::Duration};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use wardlock_machine::{Answer, Command, Outcome, SERIAL, SessionGone, SessionId, limits};
use wardlock_router::{Client, http::documents};
use wardlock_wire::KeptAlive;

use super::{
    args,
    connect::{self, PATIENCE, Server},
    failure::{Code, Failure},
    output::{self, Format, Table},
    remote, view,
};

/// Open, show and close sessions.
#[derive(Args, Debug)]
pub(super) struct SessionArgs {
    #[command(flatten)]
    server: Server,

    #[command(subcommand)]
    command: SessionCommand,
}

#[derive(Subcommand, Debug)]
enum SessionCommand {
    Open(Open),
    Ls(Ls),
    Show(Which),
    Keepalive(Which),
    Close(Which),
}

/// Open a session and print its id.
///
/// Nobody keeps it alive: it ends --ttl seconds later, with all that it holds, unless `session keepalive`
/// comes before.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  S=$(wardlock session open --ttl 300) && wardlock lock acquire --session $S deploy/web")]
struct Open {
    /// The client's name for itself, shown as the holder. [default: host:pid]
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,

    /// How long it outlives its last sign of life.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = args::ttl, allow_negative_numbers = true)]
    ttl: Duration,

    /// Why, shown to whoever waits for what it holds.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,

    /// It does one thing at a time: where such sessions wait for each other in a circle, one wait is ended.
    #[arg(long)]
    serial: bool,
}

/// List sessions.
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  wardlock session ls --limit 20")]
struct Ls {
    /// Only ids after this one: where the last page ended.
    #[arg(long, value_name = "ID")]
    after: Option<SessionId>,

    /// At most so many.
    #[arg(long, value_name = "COUNT", default_value_t = limits::PAGE as u32,
          value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// Show a session, keep it alive for another TTL, or close it with all that it holds.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit status: 0, 1 where there is no such session, 76 where it has ended.

Examples:
  wardlock session show $S
  wardlock session keepalive $S
  wardlock session close $S")]
struct Which {
    /// The session, as `open` printed it.
    #[arg(value_name = "ID")]
    session: SessionId,
}

/// Runs the command.
pub(super) async fn run(args: SessionArgs) -> Result<ExitCode, Failure> {
    let output = args.server.output;
    let client = args.server.connect().await?;
    match args.command {
        SessionCommand::Open(open) => {
            let client_id = open.client_id.unwrap_or_else(connect::client_id);
            if client_id.is_empty() || client_id.len() > limits::LABEL_BYTES {
                return Err(Failure::usage(format!("--client-id must have 1 to {} bytes", limits::LABEL_BYTES)));
            }
            let mut metadata = connect::metadata(open.reason.as_deref())?;
            if open.serial {
                metadata.insert(SERIAL.to_owned(), "true".to_owned());
            }
            let session = remote::open(&client, client_id.clone(), open.ttl, metadata).await?;
            let said = json!({
                "sessionId": session.to_string(), "clientId": client_id, "ttl": documents::seconds(remote::millis(open.ttl)),
            });
            remote::say(output, &said, &session.to_string())
        }
        SessionCommand::Ls(ls) => list(&client, &ls, output).await,
        SessionCommand::Show(which) => show(&client, which.session, output).await,
        SessionCommand::Keepalive(which) => {
            match client.keep_alive(which.session, PATIENCE).await.map_err(Failure::error)? {
                KeptAlive::Alive => remote::say(output, &json!({ "success": true }), "alive for another TTL"),
                KeptAlive::Ended => Err(Failure::new(Code::Lost, "the session has ended")),
                KeptAlive::Unknown => Err(Failure::error("there is no such session")),
            }
        }
        SessionCommand::Close(which) => {
            match client
                .write(Command::CloseSession { session: which.session }, PATIENCE)
                .await
                .map_err(Failure::error)?
            {
                Outcome::Done | Outcome::Closing => {
                    remote::say(output, &json!({ "success": true }), "closed; what it held is being released")
                }
                outcome => Err(remote::refused(outcome)),
            }
        }
    }
}

async fn list(client: &Client, ls: &Ls, output: Format) -> Result<ExitCode, Failure> {
    let sessions = client.sessions(ls.after, ls.limit, PATIENCE).await.map_err(Failure::error)?;
    if output == Format::Json {
        let said: Vec<Value> = sessions.iter().map(|view| documents::session(view, None)).collect();
        output::print_json(&json!({ "sessions": said }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new(["SESSION", "CLIENT", "TTL", "FOR", "STATE", "METADATA"]);
    for session in &sessions {
        table.row([
            session.session.to_string(),
            session.client_id.clone(),
            format!("{}s", session.ttl.0 as f64 / 1000.0),
            view::age(session.created),
            if session.closing { "closing" } else { "open" }.to_owned(),
            view::metadata(&session.metadata),
        ]);
    }
    output::print(&table.lines())?;
    if let Some(last) = sessions.last().filter(|_| sessions.len() >= ls.limit as usize) {
        crate::cli::output::complain(&format!("wardlock: there may be more: --after {}\n", last.session));
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(client: &Client, session: SessionId, output: Format) -> Result<ExitCode, Failure> {
    match client.session_view(session, PATIENCE).await.map_err(Failure::error)? {
        (Answer::Session(Ok(session)), heard) => {
            let heard_text = heard.map_or_else(|| "not since the last change of leaders".to_owned(), view::time);
            let mut table = Table::new(["FIELD", "VALUE"]);
            table.row(["session".to_owned(), session.session.to_string()]);
            table.row(["client".to_owned(), session.client_id.clone()]);
            table.row(["ttl".to_owned(), format!("{}s", session.ttl.0 as f64 / 1000.0)]);
            table.row(["opened".to_owned(), view::time(session.created)]);
            table.row(["heard".to_owned(), heard_text]);
            table.row(["state".to_owned(), if session.closing { "closing" } else { "open" }.to_owned()]);
            table.row(["metadata".to_owned(), view::metadata(&session.metadata)]);
            remote::say(output, &documents::session(&session, heard), table.lines().trim_end())
        }
        (Answer::Session(Err(SessionGone::Ended)), _) => Err(Failure::new(Code::Lost, "the session has ended")),
        (Answer::Session(Err(SessionGone::Unknown)), _) => Err(Failure::error("there is no such session")),
        _ => Err(Failure::error("the cluster answered something else")),
    }
}
