//! `wardlock lock run`: a command that runs while a lock is held.

use std::{ffi::OsString, io::Write, process::ExitCode, time::Duration};

use clap::Args;
use wardlock_machine::{Key, Name, WallMs};
use wardlock_router::{Client, Clock, Guard, LockError, Session, client::BootClock};

use super::{
    child::Running,
    signals::{self, Signals},
    supervise::{Order, Supervisor, View},
};
use crate::cli::{
    args::{self, How, Wait},
    connect::Server,
    failure::{Code, Failure},
    remote, view,
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

/// How often a group is looked at whose leader has ended ahead of it.
const LINGER: Duration = Duration::from_millis(50);
/// How long the last words may take.
const LAST_WORDS: Duration = Duration::from_millis(200);

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
    let environment = [
        ("WARDLOCK_NAME", args.name.to_string()),
        ("WARDLOCK_TOKEN", guard.fencing_token().to_string()),
        ("WARDLOCK_SESSION", session.id().to_string()),
        ("WARDLOCK_EXPIRES_AT", expires_at(&guard)),
    ];
    let code = match Running::start(&args.command, &environment) {
        Ok(child) => supervise(child, &client, &guard, args.ttl, &mut signals).await,
        Err(failure) => Err(failure),
    };
    let held = give_back(session, guard, &mut signals).await;
    code.map(|code| ExitCode::from(if held { code } else { Code::Lost as u8 }))
}

/// Watches child and lock until the child has ended, and answers with the exit code.
async fn supervise(
    mut child: Running,
    client: &Client,
    guard: &Guard,
    ttl: Duration,
    signals: &mut Signals,
) -> Result<u8, Failure> {
    let mut supervisor = Supervisor::new(ttl);
    let mut lost = false;
    let key = Key::lock(Name::new(guard.name()).map_err(Failure::error)?);
    let taken = remote::taken(client, key, guard.lock_id());
    tokio::pin!(taken);
    loop {
        // Before the look: what ended after its lock did was not covered by it.
        let ended = child.has_ended();
        let view = View { now: BootClock.now().0, valid_until: guard.valid_until().0, lost: lost || !guard.is_held() };
        if let Some(order) = supervisor.look(view) {
            // Before a word is said: nobody may be there to read it.
            child.obey(order);
            drop(say(match order {
                Order::Terminate => "the lock is being lost; the command is told to end",
                Order::Kill => "the lock is lost; the command is killed",
            }));
        }
        let mut rest = supervisor.rest(view.now);
        if ended {
            if supervisor.may_bury(|| child.has_company()) {
                if supervisor.lost() {
                    child.obey(Order::Kill);
                }
                return child.bury().map(|ended| supervisor.exit_code(ended));
            }
            rest = rest.min(LINGER);
        }
        tokio::select! {
            () = child.changed() => {}
            signal = signals.next() => child.signal(signal),
            () = guard.lost(), if !lost => lost = true,
            () = &mut taken, if !lost => lost = true,
            () = tokio::time::sleep(rest) => {}
        }
    }
}

/// Releases the lock and ends the session, for as long as it takes or until a signal comes; the TTL does
/// the same later. Answers whether the lock was held until then, as far as is known.
async fn give_back(session: Session, guard: Guard, signals: &mut Signals) -> bool {
    let mut held = true;
    let giving = async {
        match guard.release().await {
            Ok(()) => {}
            Err(LockError::Expired | LockError::SessionLost) => held = false,
            Err(e) => {
                let words = say(format!("the lock was not released and ends with its session: {e}"));
                let _ = tokio::time::timeout(LAST_WORDS, words).await;
            }
        }
        let _ = session.close().await;
    };
    tokio::select! {
        () = giving => {}
        _ = signals.next() => {}
    }
    held
}

/// Says something on stderr from a thread of its own, so that a pipe which is full or closed holds
/// nothing up. Resolves when it is said.
fn say(words: impl Into<String>) -> impl Future<Output = ()> {
    let words = words.into();
    let (said, heard) = tokio::sync::oneshot::channel();
    let saying = std::thread::Builder::new().spawn(move || {
        let _ = writeln!(std::io::stderr(), "wardlock: {words}");
        let _ = said.send(());
    });
    async move {
        if saying.is_ok() {
            let _ = heard.await;
        }
    }
}

/// When the lock would be free if this process ended now, by wall time.
fn expires_at(guard: &Guard) -> String {
    view::time(WallMs(view::wall_now().0.saturating_add(remote::millis(guard.remaining()).0)))
}
