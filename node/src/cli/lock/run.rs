//! `wardlock lock run`: a command that runs while a lock is held.

use std::{ffi::OsString, process::ExitCode, time::Duration};

use clap::Args;
use wardlock_machine::{Key, Name};

use super::{
    duty::{self, Duty},
    signals::{self, Signals},
};
use crate::cli::{
    args::{self, How, Wait},
    connect::Server,
    failure::{Code, Failure},
    remote,
};

/// Run a command while holding a lock.
#[derive(Args, Debug)]
#[command(after_help = "\
The command finds WARDLOCK_NAME, WARDLOCK_TOKEN, WARDLOCK_SESSION and WARDLOCK_EXPIRES_AT in its
environment. It runs in a process group of its own; INT, TERM, HUP, QUIT, USR1 and USR2 are passed on to
the group, unless they were ignored at the start, as by nohup. If the lock is about to be lost, the group
gets TERM ahead of the deadline and KILL at it. At a terminal Ctrl-Z is undone: a suspended holder would
keep others waiting.

Exit status: the command's own (128 + N where signal N ended it), 75 if the lock was not acquired, 76 if it
was lost, 126 or 127 if the command cannot be run or found.

A paused or partitioned machine can outlive its lock: have the resource check WARDLOCK_TOKEN.

Examples:
  wardlock lock run nightly-backup -- pg_dump -f /backup/db.sql db
  wardlock lock run -n cron/report -- ./report.sh    # exactly one host, the others exit with 75
  wardlock lock run -w 30 --permits 4 gpu -- ./train")]
pub struct Run {
    /// The lock.
    #[arg(value_parser = args::name)]
    name: Name,

    #[command(flatten)]
    wait: Wait,

    #[command(flatten)]
    how: How,

    /// How long the lock outlives a holder that died, and how long an outage the command survives. Longer
    /// survives more and keeps others waiting longer.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = args::ttl, allow_negative_numbers = true)]
    ttl: Duration,

    /// Why, shown to whoever waits.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,

    /// The command and its arguments; no shell in between.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs the command.
pub async fn run(args: Run, server: &Server) -> Result<ExitCode, Failure> {
    let mut signals = Signals::catch()?;
    let opening = async {
        let client = server.connect().await?;
        let session = remote::open_kept(&client, args.ttl, args.reason.as_deref()).await?;
        Ok::<_, Failure>((client, session))
    };
    let (client, session) = tokio::select! {
        opened = opening => opened?,
        signal = signals.next() => return Ok(ExitCode::from(signals::exit_code(signal))),
    };
    let lock = args.how.on(session.lock(args.name.as_str())).wait(args.wait.length());
    let key = Key::lock(args.name.clone());
    let acquired = tokio::select! {
        acquired = remote::queueing(&client, &key, lock.acquire()) => acquired.map_err(|e| Err(remote::not_held(e))),
        signal = signals.next() => Err(Ok(ExitCode::from(signals::exit_code(signal)))),
    };
    let guard = match acquired {
        Ok(guard) => guard,
        Err(end) => {
            remote::leave(session, signals.next()).await;
            return end;
        }
    };
    let grace = Duration::ZERO;
    let duty = Duty { client: &client, key, called: "lock", ttl: args.ttl, grace };
    let done = duty.run(&args.command, &guard, std::future::pending(), &mut signals).await;
    let given = duty::give_back(session, guard.release(), duty.called, &mut signals).await;
    done.map(|done| ExitCode::from(if given.held { done.code } else { Code::Lost as u8 }))
}
