//! `wardlock elect run`: a command that runs while this candidate leads.

use std::{ffi::OsString, future, process::ExitCode, time::Duration};

use clap::Args;
use futures_util::FutureExt;
use wardlock_machine::{Key, Name};
use wardlock_router::{Client, LockError};

use super::Candidacy;
use crate::cli::{
    args,
    connect::Server,
    failure::{Code, Failure},
    lock::{
        duty::{self, Duty},
        signals::{self, Signals},
    },
    remote,
};

/// Run a command while leading.
#[derive(Args, Debug)]
#[command(after_help = "\
The command starts on election and has ended before anybody else can lead. It finds WARDLOCK_NAME, WARDLOCK_TOKEN,
WARDLOCK_SESSION and WARDLOCK_EXPIRES_AT in its environment, and is told signals, as by `wardlock lock run`. With
these it may proclaim: wardlock elect proclaim \"$WARDLOCK_NAME\" --session \"$WARDLOCK_SESSION\" VALUE

Where a candidate of a higher priority comes to wait, the group gets TERM, and KILL after --grace seconds; then the
office is handed over.

Exit status: the command's own (128 + N where signal N ended it, TERM for a handover too), 75 if it was not elected,
76 if the office was lost, 126 or 127 if the command cannot be run or found.

Examples:
  wardlock elect run scheduler -- ./scheduler
  wardlock elect run --again --priority 10 scheduler -- ./scheduler   # the preferred host; --again: and back again")]
pub(super) struct Run {
    /// The election.
    #[arg(value_parser = args::name)]
    name: Name,

    #[command(flatten)]
    candidacy: Candidacy,

    /// After the office was lost or handed over, stand again, until INT, TERM, HUP or QUIT comes or the command ends
    /// by itself.
    #[arg(long)]
    again: bool,

    /// Stay in office whoever waits.
    #[arg(long)]
    no_handoff: bool,

    /// How long the command may take to end before the office is handed over.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = args::seconds,
          allow_negative_numbers = true, conflicts_with = "no_handoff")]
    grace: Duration,

    /// The command and its arguments; no shell in between.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// The pause after a candidacy that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// How one candidacy ended.
enum End {
    /// For good.
    Over(Result<ExitCode, Failure>),
    /// The office was lost or handed over.
    Left,
}

/// Runs the command.
pub(super) async fn run(args: Run, server: &Server) -> Result<ExitCode, Failure> {
    let candidate = args.candidacy.id()?;
    let mut signals = Signals::catch()?;
    let client = tokio::select! {
        connected = server.connect() => connected?,
        signal = signals.next() => return Ok(ExitCode::from(signals::exit_code(signal))),
    };
    let mut again = false;
    loop {
        match stand(&args, &candidate, &client, &mut signals, again).await {
            Ok(End::Over(end)) => return end,
            Ok(End::Left) => again = true,
            // Whoever has led once waits for the cluster to come back.
            Err(failure) if again && failure.code == Code::Error => {
                drop(duty::say(format!("{}; trying again", failure.message)));
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    signal = signals.next() => return Ok(ExitCode::from(signals::exit_code(signal))),
                }
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// One candidacy, by a session of its own: from the campaign to the end of the office.
async fn stand(
    args: &Run,
    candidate: &str,
    client: &Client,
    signals: &mut Signals,
    again: bool,
) -> Result<End, Failure> {
    let over = |signal| Ok(End::Over(Ok(ExitCode::from(signals::exit_code(signal)))));
    let key = Key::election(args.name.clone());
    let ttl = args.candidacy.ttl;
    let session = tokio::select! {
        opened = remote::open_kept(client, ttl, None) => opened?,
        signal = signals.next() => return over(signal),
    };
    let election = session.election(args.name.as_str()).candidate(candidate).priority(args.candidacy.priority);
    let campaign = election.campaign(args.candidacy.wait.length());
    let lost = |e| match e {
        // Not turned away: the cluster was out of reach.
        LockError::SessionLost | LockError::Expired if again => Failure::error(e),
        e => remote::not_held(e),
    };
    let elected = tokio::select! {
        elected = remote::queueing(client, &key, campaign) => elected.map_err(|e| Err(lost(e))),
        signal = signals.next() => Err(over(signal)),
    };
    let leadership = match elected {
        Ok(leadership) => leadership,
        Err(end) => {
            remote::leave(session, signals.next()).await;
            return end;
        }
    };
    let challenged = match args.no_handoff {
        true => future::pending().left_future(),
        false => leadership.outranked().right_future(),
    };
    let duty = Duty { client, key, called: "office", ttl, grace: args.grace };
    let done = duty.run(&args.command, &leadership, challenged, signals).await;
    let given = duty::give_back(session, leadership.resign(), duty.called, signals).await;
    let done = match done {
        Ok(done) => done,
        // The command itself is at fault: the next term of office would not help it.
        Err(failure) => return Ok(End::Over(Err(failure))),
    };
    let left = done.lost || done.handed_over || !given.held;
    if args.again && left && !done.stopped && !given.interrupted {
        return Ok(End::Left);
    }
    let code = if given.held { done.code } else { Code::Lost as u8 };
    Ok(End::Over(Ok(ExitCode::from(code))))
}
