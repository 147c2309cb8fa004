//! `wardlock elect`: leader elections.

mod run;

use std::{process::ExitCode, time::Duration};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use wardlock_machine::{Command, Key, LockId, Name, Outcome, Revision, SessionId, limits};
use wardlock_router::{Leader as Leads, LockError};

use super::{
    args::{self, Wait},
    connect::{self, PATIENCE, Server},
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
    Run(run::Run),
    Campaign(Campaign),
    Observe(Observe),
    Leader(Leader),
    Proclaim(Proclaim),
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

    #[command(flatten)]
    candidacy: Candidacy,
}

/// How somebody stands.
#[derive(Args, Debug)]
struct Candidacy {
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

impl Candidacy {
    /// How observers see it.
    fn id(&self) -> Result<String, Failure> {
        let id = self.candidate.clone().unwrap_or_else(connect::client_id);
        if id.is_empty() || id.len() > limits::LABEL_BYTES {
            return Err(Failure::usage(format!("--candidate must have 1 to {} bytes", limits::LABEL_BYTES)));
        }
        Ok(id)
    }
}

/// Print the leader now, each new one and what it proclaims, until interrupted.
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

/// Give an election another value while leading: its audience is told, the leader and its token stay.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit status: 0 proclaimed, 76 where the leadership has ended.

Examples:
  wardlock elect proclaim scheduler --lock-id 0001b2…-1042-05f6a3c1 'web1 ready'
  wardlock elect run scheduler -- sh -c \
    'wardlock elect proclaim \"$WARDLOCK_NAME\" --session \"$WARDLOCK_SESSION\" ready; exec ./scheduler'")]
struct Proclaim {
    /// The election.
    #[arg(value_parser = args::name)]
    name: Name,

    /// What observers see as the leader from now on.
    #[arg(value_name = "VALUE")]
    value: String,

    #[command(flatten)]
    office: Office,
}

/// Which leadership is meant.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Office {
    /// This grant: `elect leader` shows it.
    #[arg(long, value_name = "ID")]
    lock_id: Option<LockId>,

    /// Whatever grant this session leads by.
    #[arg(long, value_name = "ID")]
    session: Option<SessionId>,
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
        ElectCommand::Run(run) => run::run(run, server).await,
        ElectCommand::Campaign(campaign) => self::campaign(campaign, server).await,
        ElectCommand::Observe(observe) => self::observe(observe, server).await,
        ElectCommand::Leader(leader) => {
            let object = remote::object(&server.connect().await?, Key::election(leader.name)).await?;
            let led = object.filter(|object| !object.holders.is_empty());
            remote::show(led.as_ref(), server.output, view::holders, "nobody leads")
        }
        ElectCommand::Proclaim(proclaim) => self::proclaim(proclaim, server).await,
        ElectCommand::Resign(resign) => {
            let client = server.connect().await?;
            remote::release(&client, Key::election(resign.name), resign.lock_id, server.output).await
        }
    }
}

async fn campaign(args: Campaign, server: &Server) -> Result<ExitCode, Failure> {
    let (candidate, candidacy) = (args.candidacy.id()?, args.candidacy);
    let mut stop = Stop::catch().map_err(Failure::error)?;
    let opening = async {
        let client = server.connect().await?;
        let session = remote::open_kept(&client, candidacy.ttl, None).await?;
        Ok::<_, Failure>((client, session))
    };
    let (client, session) = tokio::select! {
        opened = opening => opened?,
        signal = stop.wait() => return Ok(ExitCode::from(128 + signal)),
    };
    let key = Key::election(args.name.clone());
    let election = session.election(args.name.as_str()).candidate(candidate.as_str()).priority(candidacy.priority);
    let campaign = election.campaign(candidacy.wait.length());
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
    let end = match say_leader(server.output, Some(&Leads::of(leadership.grant(), Revision::default()))) {
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

async fn proclaim(args: Proclaim, server: &Server) -> Result<ExitCode, Failure> {
    if args.value.is_empty() || args.value.len() > limits::LABEL_BYTES {
        return Err(Failure::usage(format!("VALUE must have 1 to {} bytes", limits::LABEL_BYTES)));
    }
    let client = server.connect().await?;
    let key = Key::election(args.name);
    let lock_id = match (args.office.lock_id, args.office.session) {
        (Some(lock_id), _) => lock_id,
        (None, session) => {
            let object = remote::object(&client, key.clone()).await?;
            let leader = object.and_then(|object| object.holders.into_iter().next());
            let own = leader.filter(|leader| Some(leader.lock_id.session) == session);
            own.ok_or_else(|| Failure::new(Code::Lost, "the session does not lead"))?.lock_id
        }
    };
    let command = Command::Proclaim { request: client.random_request(), key, lock_id, value: args.value };
    match client.write(command, PATIENCE).await.map_err(Failure::error)? {
        Outcome::Renewed(grant) => say_leader(server.output, Some(&Leads::of(&grant, Revision::default()))),
        outcome => Err(remote::refused(outcome)),
    }?;
    Ok(ExitCode::SUCCESS)
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

fn say_leader(output: Format, leader: Option<&Leads>) -> Result<(), Failure> {
    match (output, leader) {
        (Format::Json, leader) => {
            let said = json!({
                "leaderId": leader.map(|leader| leader.candidate.as_str()),
                "electedAt": leader.map(|leader| view::time(leader.elected)),
                "fencingToken": leader.map(|leader| leader.lock_id.token.0),
                "lockId": leader.map(|leader| leader.lock_id.to_string()),
            });
            output::print(&format!("{}\n", Value::to_string(&said)))
        }
        (Format::Table, Some(Leads { candidate, elected, lock_id, .. })) => {
            let since = view::time(*elected);
            output::print(&format!("{} leads since {since}, token {}\n", output::printable(candidate), lock_id.token))
        }
        (Format::Table, None) => output::print("nobody leads\n"),
    }
}
