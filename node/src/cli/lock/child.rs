//! The child of `lock run`: a process in a group of its own, the terminal, and the signals between.
//!
//! The whole group is signalled, so that what the child has started is told too. Where stdin is a
//! terminal and this process is in its foreground, the child's group is put there, so that it can read
//! and gets Ctrl-C itself. A child that stops itself at the terminal (Ctrl-Z) is continued at once: a
//! suspended holder would keep others waiting.

use std::{
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{ExitStatus, Stdio},
};

use nix::{
    sys::signal::{SigSet, Signal as Blockable},
    unistd::{Pid as TerminalPid, tcgetpgrp, tcsetpgrp},
};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpgrp, kill_process_group, waitid};
use tokio::signal::unix::{SignalKind, signal};

use super::supervise::{Ended, Order};
use crate::cli::failure::{Code, Failure};

/// The signals that are passed on to the child's group.
const FORWARDED: [Signal; 6] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];

/// Catches the signals that are passed on, from before there is a child: one that comes while the lock
/// is awaited ends the wait, not the process.
#[derive(Debug)]
pub struct Signals {
    caught: tokio::sync::mpsc::Receiver<Signal>,
}

impl Signals {
    /// Starts to catch. Must be called within a runtime.
    ///
    /// # Errors
    /// Where the system refuses a handler.
    pub fn catch() -> Result<Signals, Failure> {
        // Signals of one kind merge while they wait, as the system's own do.
        let (tell, caught) = tokio::sync::mpsc::channel(FORWARDED.len());
        for kind in FORWARDED {
            let mut stream = signal(SignalKind::from_raw(kind.as_raw()))
                .map_err(|e| Failure::error(format!("cannot catch {kind:?}: {e}")))?;
            let tell = tell.clone();
            tokio::spawn(async move { while stream.recv().await.is_some() && tell.send(kind).await.is_ok() {} });
        }
        Ok(Signals { caught })
    }

    /// The next one.
    pub async fn next(&mut self) -> Signal {
        match self.caught.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }
}

/// The running child.
#[derive(Debug)]
pub struct Running {
    child: tokio::process::Child,
    group: Pid,
    changes: tokio::signal::unix::Signal,
    terminal: Option<Terminal>,
}

impl Running {
    /// Starts the command, with these variables added to its environment. No shell in between.
    ///
    /// # Errors
    /// [`Code::NotFound`] or [`Code::CannotRun`].
    pub fn start(command: &[std::ffi::OsString], environment: &[(&str, String)]) -> Result<Running, Failure> {
        let Some((program, arguments)) = command.split_first() else {
            return Err(Failure::usage("there is no command to run"));
        };
        let changes = signal(SignalKind::child()).map_err(Failure::error)?;
        let terminal = Terminal::ours();
        let mut std = std::process::Command::new(program);
        std.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
        std.stdin(Stdio::inherit()).process_group(0);
        let child = tokio::process::Command::from(std).spawn().map_err(|e| {
            let code = if e.kind() == io::ErrorKind::NotFound { Code::NotFound } else { Code::CannotRun };
            Failure::new(code, format!("cannot run {}: {e}", program.to_string_lossy()))
        })?;
        // Nobody has waited for it yet, so it has a number.
        let group = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let group = group.ok_or_else(|| Failure::new(Code::CannotRun, "the child has no process id"))?;
        let running = Running { child, group, changes, terminal };
        running.to_foreground();
        Ok(running)
    }

    /// Passes a signal on to the whole group. The group may be gone already.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.group, signal);
    }

    /// Does what was decided.
    pub fn obey(&self, order: Order) {
        match order {
            Order::Terminate => {
                self.signal(Signal::TERM);
                self.signal(Signal::CONT);
            }
            Order::Kill => self.signal(Signal::KILL),
        }
    }

    /// Waits for the child's end. Cancel-safe.
    ///
    /// # Errors
    /// Where the system does not say how it ended.
    pub async fn ended(&mut self) -> Result<Ended, Failure> {
        loop {
            tokio::select! {
                status = self.child.wait() => {
                    let status = status.map_err(|e| Failure::error(format!("cannot wait for the child: {e}")))?;
                    if let Some(terminal) = &self.terminal {
                        terminal.give_to(terminal.group);
                    }
                    return Ok(how(status));
                }
                _ = self.changes.recv() => self.wake_if_suspended(),
            }
        }
    }

    fn to_foreground(&self) {
        if let Some(terminal) = &self.terminal {
            terminal.give_to(self.group);
            // It may have read before the terminal was its own, and been stopped for it.
            self.signal(Signal::CONT);
        }
    }

    /// Continues a child that the terminal stopped. One that somebody stopped by STOP stays so.
    fn wake_if_suspended(&self) {
        let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
        let Ok(Some(status)) = waitid(WaitId::Pid(self.group), options) else { return };
        let by_terminal = [Signal::TSTP, Signal::TTIN, Signal::TTOU].map(Signal::as_raw);
        if status.stopping_signal().is_some_and(|by| by_terminal.contains(&by)) {
            self.to_foreground();
        }
    }
}

fn how(status: ExitStatus) -> Ended {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ended::Exited(u8::try_from(code & 0xff).unwrap_or(1)),
        (None, Some(signal)) => Ended::Signaled(u8::try_from(signal).unwrap_or(0)),
        (None, None) => Ended::Exited(1),
    }
}

/// The terminal on stdin, while this process's group is in its foreground.
#[derive(Debug)]
struct Terminal {
    /// Ours, to give it back to.
    group: Pid,
}

impl Terminal {
    fn ours() -> Option<Terminal> {
        let group = getpgrp();
        let foreground = tcgetpgrp(io::stdin()).ok()?;
        (foreground.as_raw() == group.as_raw_nonzero().get()).then_some(Terminal { group })
    }

    /// Puts a group into the foreground. From the background that raises TTOU, which would stop this
    /// process, unless it is blocked meanwhile. A terminal that was hung up is no longer anybody's.
    fn give_to(&self, group: Pid) {
        let mut blocked = SigSet::empty();
        blocked.add(Blockable::SIGTTOU);
        if blocked.thread_block().is_ok() {
            let _ = tcsetpgrp(io::stdin(), TerminalPid::from_raw(group.as_raw_nonzero().get()));
            let _ = blocked.thread_unblock();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn sh(script: &str) -> Vec<std::ffi::OsString> {
        ["sh", "-c", script].map(Into::into).to_vec()
    }

    #[tokio::test]
    async fn the_environment_and_the_exit_code_pass() {
        let token = [("WARDLOCK_TOKEN", "42".to_owned())];
        let mut child = Running::start(&sh("exit $WARDLOCK_TOKEN"), &token).unwrap();
        assert_eq!(child.ended().await.unwrap(), Ended::Exited(42));
    }

    #[tokio::test]
    async fn a_command_that_is_not_there_is_127_and_one_that_cannot_run_126() {
        let code = |command: &str| Running::start(&[command.into()], &[]).map(|_| ()).unwrap_err().code;
        assert_eq!(code("/no/such/command"), Code::NotFound);
        assert_eq!(code("/"), Code::CannotRun);
    }

    #[tokio::test]
    async fn a_signal_reaches_the_whole_group() {
        let mut child = Running::start(&sh("sleep 1000 & sleep 1000"), &[]).unwrap();
        let group = child.group;
        tokio::time::sleep(Duration::from_millis(50)).await;
        child.obey(Order::Terminate);
        assert_eq!(child.ended().await.unwrap(), Ended::Signaled(15));
        // Whoever inherits the orphan may take a moment to bury it.
        for _ in 0..100 {
            if rustix::process::test_kill_process_group(group).is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let stat = std::process::Command::new("ps").args(["-eo", "pgid=,stat="]).output().unwrap();
        let own = group.as_raw_nonzero().to_string();
        let alive = String::from_utf8_lossy(&stat.stdout)
            .lines()
            .filter_map(|line| line.split_once(' '))
            .any(|(pgid, stat)| pgid.trim() == own && !stat.trim().starts_with('Z'));
        assert!(!alive, "somebody of the group still runs");
    }

    #[tokio::test]
    async fn what_ignores_term_is_killed() {
        let mut child = Running::start(&sh("trap '' TERM; sleep 1000 & wait; wait"), &[]).unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        child.obey(Order::Terminate);
        child.obey(Order::Kill);
        assert_eq!(child.ended().await.unwrap(), Ended::Signaled(9));
    }
}
