//! A command that runs while something is held, a lock or an office: from its start to when it is given back.

use std::{ffi::OsString, future::Future, io::Write, time::Duration};

use wardlock_machine::{Key, WallMs};
use wardlock_router::{Candidate, Client, Clock, Guard, LockError, Session, client::BootClock};

use super::{
    child::Running,
    signals::Signals,
    supervise::{Order, Supervisor, View},
};
use crate::cli::{failure::Failure, output, remote, view};

/// How often a group is looked at whose leader has ended ahead of it.
const LINGER: Duration = Duration::from_millis(50);
/// How long the last words may take.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// What is held meanwhile, and how.
#[derive(Debug)]
pub struct Duty<'a> {
    /// Where.
    pub client: &'a Client,
    /// What.
    pub key: Key,
    /// What people call it: a lock, an office.
    pub called: &'static str,
    /// How long it outlives its holder's last sign of life.
    pub ttl: Duration,
    /// How long the command may take to end where it is to make room for somebody else.
    pub grace: Duration,
}

/// What became of the command.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// The exit code.
    pub code: u8,
    /// It was told to end because what is held was being lost.
    pub lost: bool,
    /// It was told to end to make room for somebody else.
    pub handed_over: bool,
    /// Somebody sent a signal by which people end commands.
    pub stopped: bool,
}

impl Duty<'_> {
    /// Starts the command, and watches it and what is held until it has ended. Where `challenged` resolves before,
    /// it is told to make room.
    ///
    /// # Errors
    /// Where it cannot be run.
    pub async fn run(
        &self,
        command: &[OsString],
        guard: &Guard,
        challenged: impl Future<Output = Candidate>,
        signals: &mut Signals,
    ) -> Result<Done, Failure> {
        let environment = [
            ("WARDLOCK_NAME", self.key.name.to_string()),
            ("WARDLOCK_TOKEN", guard.fencing_token().to_string()),
            ("WARDLOCK_SESSION", guard.session().id().to_string()),
            ("WARDLOCK_EXPIRES_AT", expires_at(guard)),
        ];
        let child = Running::start(command, &environment)?;
        self.supervise(child, guard, challenged, signals).await
    }

    async fn supervise(
        &self,
        mut child: Running,
        guard: &Guard,
        challenged: impl Future<Output = Candidate>,
        signals: &mut Signals,
    ) -> Result<Done, Failure> {
        let Duty { called, .. } = self;
        let mut supervisor = Supervisor::new(self.ttl);
        let (mut lost, mut handed_over, mut stopped) = (false, false, false);
        let taken = remote::taken(self.client, self.key.clone(), guard.lock_id());
        tokio::pin!(taken, challenged);
        loop {
            // Before the look: what ended after its lock did was not covered by it.
            let ended = child.has_ended();
            let now = BootClock.now().0;
            let view = View { now, valid_until: guard.valid_until().0, lost: lost || !guard.is_held() };
            if let Some(order) = supervisor.look(view) {
                // Before a word is said: nobody may be there to read it.
                child.obey(order);
                drop(say(match (order, supervisor.lost()) {
                    (Order::Terminate, true) => format!("the {called} is being lost; the command is told to end"),
                    (Order::Kill, true) => format!("the {called} is lost; the command is killed"),
                    (Order::Terminate, false) => "the command is told to end".to_owned(),
                    (Order::Kill, false) => "the command did not end in time; it is killed".to_owned(),
                }));
            }
            let mut rest = supervisor.rest(view.now);
            if ended {
                if supervisor.may_bury(|| child.has_company()) {
                    if supervisor.told() {
                        child.obey(Order::Kill);
                    }
                    let code = child.bury().map(|ended| supervisor.exit_code(ended))?;
                    return Ok(Done { code, lost: supervisor.lost(), handed_over, stopped });
                }
                rest = rest.min(LINGER);
            }
            tokio::select! {
                () = child.changed() => {}
                signal = signals.next() => {
                    stopped |= super::signals::ends(signal);
                    child.signal(signal);
                }
                () = guard.lost(), if !lost => lost = true,
                () = &mut taken, if !lost => lost = true,
                challenger = &mut challenged, if !handed_over => {
                    handed_over = true;
                    supervisor.make_room(BootClock.now().0 + self.grace);
                    let (who, priority) = (output::printable(&challenger.candidate), challenger.priority);
                    drop(say(format!("{who} waits for the {called} with priority {priority}")));
                }
                () = tokio::time::sleep(rest) => {}
            }
        }
    }
}

/// How giving something back went.
#[derive(Clone, Copy, Debug)]
pub struct Given {
    /// It was held until then, as far as is known.
    pub held: bool,
    /// A signal came meanwhile.
    pub interrupted: bool,
}

/// Gives back what is held, by `release`, and ends the session, for as long as it takes or until a signal comes; the
/// TTL does the same later.
pub async fn give_back(
    session: Session,
    release: impl Future<Output = Result<(), LockError>>,
    called: &str,
    signals: &mut Signals,
) -> Given {
    let mut held = true;
    let giving = async {
        match release.await {
            Ok(()) => {}
            Err(LockError::Expired | LockError::SessionLost) => held = false,
            Err(e) => {
                let words = say(format!("the {called} was not given back and ends with its session: {e}"));
                let _ = tokio::time::timeout(LAST_WORDS, words).await;
            }
        }
        let _ = session.close().await;
    };
    let interrupted = tokio::select! {
        () = giving => false,
        _ = signals.next() => true,
    };
    Given { held, interrupted }
}

/// Says something on stderr from a thread of its own, so that a pipe which is full or closed holds
/// nothing up. Resolves when it is said.
pub fn say(words: impl Into<String>) -> impl Future<Output = ()> {
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

/// When it would be free if this process ended now, by wall time.
fn expires_at(guard: &Guard) -> String {
    view::time(WallMs(view::wall_now().0.saturating_add(remote::millis(guard.remaining()).0)))
}
