//! `wardlock elect`: leader elections.

use std::{process::ExitCode, time::Duration};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use wardlock_machine::{Grant, Key, LockId, Name, limits};
use wardlock_router::LockError;

use super::{
    args::{self, Wait},
    connect::{self, Server},
    failure::{Code, Failure},
    output::{self, Format},
    remote,
    signals::Stop,
    view,
};

/// Stand in an election, or watch one.
#[derive(Args, Debug)]
pub(super) struct ElectArgs {
    #[command(flatten)]
    server: Server,

    #[command(subcommand)]
    command: ElectCommand,
}

#[derive(Subcommand, Debug)]
enum ElectCommand {
    Campaign(Campaign),
    Observe(Observe),
    Leader(Leader),
    Resign(Resign),
}

/// Stand, and lead until INT or TERM comes.
#[derive(Args, Debug)]
#[command(after_help = "\
Prints a line when elected and ends when told to, giving the leadership back.

Exit status: 0 after a signal to the leader, 128 + N after signal N before the election, 75 not elected, 76 the
leadership was lost.

Example:
  wardlock elect campaign scheduler --candidate web1")]
struct Campaign {
    /// The election.
    #[arg(value_parser = args::name)]
    name: Name,

    /// How observers see this candidate. [default: host:pid]
    #[arg(long, value_name = "ID")]
    candidate: Option<String>,

    #[command(flatten)]
    wait: Wait,

    /// How long the leadership outlives a leader that died.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = args::ttl, allow_negative_numbers = true)]
    ttl: Duration,

    /// Candidates of a higher priority go first.
    #[arg(long, value_name = "NUMBER", default_value_t = 0, allow_negative_numbers = true)]
    priority: i32,
}

/// Print the leader now, and each new one, until interrupted.
#[derive(Args, Debug)]
#[command(after_help = "\
With -o json one document a line; `leaderId` is null while nobody leads.

Example:
  wardlock elect observe scheduler -o json")]
struct Observe {
    /// The election.
    #[arg(value_parser = args::name)]
    name: Name,
}

/// Print who leads.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit status: 0, or 1 where nobody leads.

Example:
  wardlock elect leader scheduler")]
struct Leader {
    /// The election.
    #[arg(value_parser = args::name)]
    name: Name,
}

/// Give back a leadership.
#[derive(Args, Debug)]
#[command(after_help = "\
`wardlock elect campaign` resigns by itself when it is told to end. This is for one that was won elsewhere.

Example:
  wardlock elect resign scheduler 0001b2…-1042-05f6a3c1")]
struct Resign {
    /// The election.
    #[arg(value_parser = args::name)]
    name: Name,

    /// The grant: `elect leader` shows it.
    #[arg(value_name = "LOCK_ID")]
    lock_id: LockId,
}

/// Runs the command.
pub(super) async fn run(args: ElectArgs) -> Result<ExitCode, Failure> {
    let server = &args.server;
    match args.command {
        ElectCommand::Campaign(campaign) => self::campaign(campaign, server).await,
        ElectCommand::Observe(observe) => self::observe(observe, server).await,
        ElectCommand::Leader(leader) => {
            let object = remote::object(&server.connect().await?, Key::election(leader.name)).await?;
            let led = object.filter(|object| !object.holders.is_empty());
            remote::show(led.as_ref(), server.output, view::holders, "nobody leads")
        }
        ElectCommand::Resign(resign) => {
            let client = server.connect().await?;
            remote::release(&client, Key::election(resign.name), resign.lock_id, server.output).await
        }
    }
}

async fn campaign(args: Campaign, server: &Server) -> Result<ExitCode, Failure> {
    let candidate = args.candidate.unwrap_or_else(connect::client_id);
    if candidate.is_empty() || candidate.len() > limits::LABEL_BYTES {
        return Err(Failure::usage(format!("--candidate must have 1 to {} bytes", limits::LABEL_BYTES)));
    }
    let mut stop = Stop::catch().map_err(Failure::error)?;
    let opening = async {
        let client = server.connect().await?;
        let session = remote::open_kept(&client, args.ttl, None).await?;
        Ok::<_, Failure>((client, session))
    };
    let (client, session) = tokio::select! {
        opened = opening => opened?,
        signal = stop.wait() => return Ok(ExitCode::from(128 + signal)),
    };
    let key = Key::election(args.name.clone());
    let election = session.election(args.name.as_str()).candidate(candidate.as_str()).priority(args.priority);
    let campaign = election.campaign(args.wait.length());
    let elected = tokio::select! {
        elected = remote::queueing(&client, &key, campaign) => elected.map_err(|e| Err(remote::not_held(e))),
        signal = stop.wait() => Err(Ok(ExitCode::from(128 + signal))),
    };
    let leadership = match elected {
        Ok(leadership) => leadership,
        Err(end) => {
            remote::leave(session, stop.wait()).await;
            return end;
        }
    };
    let end = match say_leader(server.output, Some(leadership.grant())) {
        Err(unsaid) => Some(unsaid),
        Ok(()) => tokio::select! {
            () = leadership.lost() => Some(Failure::new(Code::Lost, "the leadership is lost")),
            () = remote::taken(&client, key, leadership.lock_id()) => {
                Some(Failure::new(Code::Lost, "the leadership is lost"))
            }
            _ = stop.wait() => None,
        },
    };
    if let Some(failure) = end {
        drop(leadership);
        remote::leave(session, stop.wait()).await;
        return Err(failure);
    }
    let resigned = stop.drain(leadership.resign(), || ()).await;
    // Its TTL ends the session where this fails.
    let _ = stop.drain(session.close(), || ()).await;
    match resigned {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(LockError::Expired | LockError::SessionLost) => Err(Failure::new(Code::Lost, "the leadership was lost")),
        Err(e) => Err(Failure::error(e)),
    }
}

async fn observe(args: Observe, server: &Server) -> Result<ExitCode, Failure> {
    let client = server.connect().await?;
    let mut watch = client.observe_leader(args.name.as_str()).map_err(Failure::error)?;
    loop {
        match watch.next().await {
            Ok(leader) => say_leader(server.output, leader.as_ref())?,
            Err(e) => {
                crate::cli::output::complain(&format!("wardlock: {e}; trying again\n"));
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

fn say_leader(output: Format, leader: Option<&Grant>) -> Result<(), Failure> {
    match (output, leader) {
        (Format::Json, leader) => {
            let said = json!({
                "leaderId": leader.and_then(|grant| grant.value.as_ref()),
                "electedAt": leader.map(|grant| view::time(grant.acquired)),
                "fencingToken": leader.map(|grant| grant.lock_id.token.0),
                "lockId": leader.map(|grant| grant.lock_id.to_string()),
            });
            output::print(&format!("{}\n", Value::to_string(&said)))
        }
        (Format::Table, Some(grant)) => {
            let who = grant.value.as_deref().unwrap_or(&grant.holder);
            let since = view::time(grant.acquired);
            output::print(&format!("{} leads since {since}, token {}\n", output::printable(who), grant.lock_id.token))
        }
        (Format::Table, None) => output::print("nobody leads\n"),
    }
}
