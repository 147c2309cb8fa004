//! A process of its own with candidates: what `elections` kills.
//!
//! It has one session and stands where a line on stdin says, `stand NAME`, and resigns where one says `resign NAME`; it
//! says on stdout what becomes of it: `leads NAME TOKEN AT`, `resigns NAME TOKEN AT`, `lost NAME TOKEN AT`, with the time
//! in nanoseconds of the machine's monotonic clock. Who has resigned stands again, and so do all with a new session where
//! theirs is lost. With stdin it ends.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode, rc::Rc, time::Duration};

use anyhow::Context;
use clap::Args;
use tokio::{
    sync::{Notify, mpsc},
    task::LocalSet,
};
use wardlock_router::{LockError, Session};

use super::offices::At;
use crate::run::some_length;

/// How long one campaign waits before it stands anew.
const CAMPAIGN: Duration = Duration::from_secs(600);
/// The pause after a campaign that came to nothing.
const PAUSE: Duration = Duration::from_millis(100);

/// Stands in elections, as it is told on stdin.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[arg(long)]
    server: String,
    #[arg(long)]
    certs: PathBuf,
    #[arg(long, value_parser = some_length)]
    ttl: Duration,
    #[arg(long)]
    called: String,
}

/// Now, by a clock that all processes of this machine share.
pub(super) fn now() -> At {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Says one line, at once.
fn say(verb: &str, name: &str, token: u64, at: At) {
    println!("{verb} {name} {token} {}", at.as_nanos());
}

/// The command.
pub(crate) async fn command(options: &Options) -> anyhow::Result<ExitCode> {
    LocalSet::new().run_until(stand_and_resign(options)).await
}

async fn stand_and_resign(options: &Options) -> anyhow::Result<ExitCode> {
    let client = super::client(&options.server, &options.certs).await?;
    let (tell, mut told) = mpsc::channel(1_000);
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        // Ends with stdin, or when nobody listens any more.
        let mut lines = std::io::stdin().lines().map_while(Result::ok);
        while lines.next().is_some_and(|line| tell.blocking_send(line).is_ok()) {}
    })?;
    let mut standing: BTreeMap<String, Rc<Notify>> = BTreeMap::new();
    let mut is_first = true;
    loop {
        let session = client.session(options.called.as_str()).ttl(options.ttl).open().await.context("no session")?;
        if std::mem::take(&mut is_first) {
            println!("ready");
        }
        for (name, resign) in &standing {
            tokio::task::spawn_local(stand(session.clone(), name.clone(), Rc::clone(resign)));
        }
        let lost = session.cancelled();
        loop {
            let line = tokio::select! {
                line = told.recv() => line,
                // Those who led say so; all stand anew.
                () = lost.cancelled() => break,
            };
            let Some(line) = line else { return Ok(ExitCode::SUCCESS) };
            match line.split_once(' ') {
                Some(("stand", name)) => {
                    let resign = Rc::new(Notify::new());
                    standing.insert(name.to_owned(), Rc::clone(&resign));
                    tokio::task::spawn_local(stand(session.clone(), name.to_owned(), resign));
                }
                Some(("resign", name)) => standing.get(name).into_iter().for_each(|resign| resign.notify_one()),
                _ => anyhow::bail!("it is told {line:?}"),
            }
        }
    }
}

/// Stands in an election for as long as there is a session.
async fn stand(session: Session, name: String, resign: Rc<Notify>) {
    loop {
        let leadership = match session.election(&name).campaign(CAMPAIGN).await {
            Ok(leadership) => leadership,
            Err(LockError::SessionLost) => return,
            Err(_) => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let token = leadership.fencing_token().0;
        say("leads", &name, token, now());
        tokio::select! {
            () = leadership.lost() => say("lost", &name, token, now()),
            () = resign.notified() => {
                say("resigns", &name, token, now());
                // Dropped without an answer, it is given back in the background.
                let _ = leadership.resign().await;
            }
        }
    }
}
