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

use nix::unistd::{Pid as TerminalPid, tcgetpgrp, tcsetpgrp};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpgrp, kill_process_group, waitid};
use tokio::signal::unix::{SignalKind, signal};

use super::{
    signals::{STOPPING, with_ttou, without_ttou},
    supervise::{Ended, Order},
};
use crate::cli::failure::{Code, Failure};

/// The running child. Dropped before it is [buried](Running::bury), its group is killed.
#[derive(Debug)]
pub struct Running {
    child: std::process::Child,
    group: Pid,
    changes: tokio::signal::unix::Signal,
    terminal: Option<Terminal>,
    /// The group's number may be somebody else's from here on.
    buried: bool,
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
        let child = with_ttou(|| std.spawn()).flatten().map_err(|e| {
            let code = if e.kind() == io::ErrorKind::NotFound { Code::NotFound } else { Code::CannotRun };
            Failure::new(code, format!("cannot run {}: {e}", program.to_string_lossy()))
        })?;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let group = group.ok_or_else(|| Failure::new(Code::CannotRun, "the child has no process id"))?;
        let running = Running { child, group, changes, terminal, buried: false };
        running.to_foreground();
        Ok(running)
    }

    /// Passes a signal on to the whole group. The group may be gone already.
    pub fn signal(&self, signal: Signal) {
        if !self.buried {
            let _ = kill_process_group(self.group, signal);
        }
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

    /// Waits until something may have changed. Cancel-safe.
    pub async fn changed(&mut self) {
        self.changes.recv().await;
        self.wake_if_suspended();
    }

    /// Whether the child itself has ended. It stays unburied, so that its group keeps its number.
    pub fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // What cannot be asked about is gone: burying it tells why.
        !matches!(waitid(WaitId::Pid(self.group), options), Ok(None))
    }

    /// Whether somebody else of its group still runs. Where the system does not tell, nobody does.
    pub fn has_company(&self) -> bool {
        let Ok(processes) = std::fs::read_dir("/proc") else { return false };
        let group = self.group.as_raw_nonzero().to_string();
        processes.flatten().any(|process| {
            let number = process.file_name();
            let other = number.as_encoded_bytes().iter().all(u8::is_ascii_digit) && *number != *group;
            other && std::fs::read(process.path().join("stat")).is_ok_and(|stat| runs_in(&stat, &group))
        })
    }

    /// Buries a child that has ended and takes the terminal back.
    ///
    /// # Errors
    /// Where the system does not say how it ended.
    pub fn bury(mut self) -> Result<Ended, Failure> {
        let status = self.child.wait().map_err(|e| Failure::error(format!("cannot wait for the child: {e}")))?;
        self.buried = true;
        Ok(how(status))
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
        if status.stopping_signal().is_some_and(|by| STOPPING.map(Signal::as_raw).contains(&by)) {
            self.to_foreground();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        if let Some(terminal) = &self.terminal {
            terminal.give_to(terminal.group);
        }
    }
}

/// Whether `/proc/…/stat` shows a living process of this group: `pid (name) state parent group …`. A name
/// may contain anything.
fn runs_in(stat: &[u8], group: &str) -> bool {
    let Some(name_ends) = stat.iter().rposition(|byte| *byte == b')') else { return false };
    let mut fields = stat[name_ends + 1..].split(|byte| *byte == b' ').skip(1);
    let (state, of) = (fields.next(), fields.nth(1));
    of == Some(group.as_bytes()) && !matches!(state, Some(b"Z" | b"X"))
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
        let _ = without_ttou(|| tcsetpgrp(io::stdin(), TerminalPid::from_raw(group.as_raw_nonzero().get())));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{super::signals::Signals, *};

    async fn end(mut child: Running) -> Ended {
        while !child.has_ended() {
            child.changed().await;
        }
        child.bury().unwrap()
    }

    async fn patiently(what: &str, holds: impl Fn() -> bool) {
        for _ in 0..500 {
            if holds() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it did not come to pass: {what}");
    }

    fn sh(script: &str) -> Vec<std::ffi::OsString> {
        ["sh", "-c", script].map(Into::into).to_vec()
    }

    #[tokio::test]
    async fn the_environment_and_the_exit_code_pass() {
        let token = [("WARDLOCK_TOKEN", "42".to_owned())];
        let child = Running::start(&sh("exit $WARDLOCK_TOKEN"), &token).unwrap();
        assert_eq!(end(child).await, Ended::Exited(42));
    }

    #[tokio::test]
    async fn a_command_that_is_not_there_is_127_and_one_that_cannot_run_126() {
        let code = |command: &str| Running::start(&[command.into()], &[]).map(|_| ()).unwrap_err().code;
        assert_eq!(code("/no/such/command"), Code::NotFound);
        assert_eq!(code("/"), Code::CannotRun);
    }

    #[tokio::test]
    async fn a_signal_reaches_the_whole_group() {
        let child = Running::start(&sh("sleep 1000 & sleep 1000"), &[]).unwrap();
        let group = child.group;
        tokio::time::sleep(Duration::from_millis(50)).await;
        child.obey(Order::Terminate);
        assert_eq!(end(child).await, Ended::Signaled(15));
        patiently("the whole group ends", || !anybody(group)).await;
    }

    #[tokio::test]
    async fn what_ignores_term_is_killed() {
        let child = Running::start(&sh("trap '' TERM; sleep 1000 & wait; wait"), &[]).unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        child.obey(Order::Terminate);
        child.obey(Order::Kill);
        assert_eq!(end(child).await, Ended::Signaled(9));
    }

    #[tokio::test]
    async fn a_child_that_has_ended_keeps_its_groups_number_until_it_is_buried() {
        let child = Running::start(&sh("sh -c 'trap \"\" TERM; while :; do sleep 0.05; done' & exit 4"), &[]).unwrap();
        let group = child.group;
        patiently("the child ends", || child.has_ended()).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        child.obey(Order::Terminate);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(child.has_company(), "TERM is ignored");
        child.obey(Order::Kill);
        patiently("the company ends", || !child.has_company()).await;
        assert_eq!(child.bury().unwrap(), Ended::Exited(4));
        assert!(!anybody(group));
    }

    #[tokio::test]
    async fn a_child_that_is_dropped_is_killed_with_its_group() {
        let child = Running::start(&sh("trap '' TERM; sleep 1000 & wait"), &[]).unwrap();
        let group = child.group;
        patiently("the child runs", || child.has_company()).await;
        drop(child);
        patiently("the whole group ends", || !anybody(group)).await;
    }

    #[tokio::test]
    async fn the_terminal_stops_the_child_at_most() {
        let _signals = Signals::catch().unwrap();
        for stop in STOPPING {
            // Where it is not caught, this process stands still here.
            rustix::process::kill_process(rustix::process::getpid(), stop).unwrap();
        }
        // Bits 19 to 21: TSTP, TTIN and TTOU are neither blocked nor ignored.
        let script = r#"mask() { sed -n "s/^$1:\s*/0x/p" /proc/self/status; }
            exit $(( (($(mask SigBlk) | $(mask SigIgn)) & 0x380000) != 0 ))"#;
        let child = Running::start(&sh(script), &[]).unwrap();
        assert_eq!(end(child).await, Ended::Exited(0));
    }

    #[test]
    fn a_living_member_of_a_group_is_told_from_others() {
        assert!(runs_in(b"12 (sh) S 1 7 7 0 -1", "7"));
        assert!(runs_in(b"12 (a) Z 1 8) R 1 7 7 0 -1", "7"));
        assert!(!runs_in(b"12 (sh) Z 1 7 7 0 -1", "7"));
        assert!(!runs_in(b"12 (sh) S 7 1 7 0 -1", "7"));
        assert!(!runs_in(b"12 (sh", "7"));
    }

    /// Whether somebody of a group runs; whoever inherits orphans may take a moment to bury them.
    fn anybody(group: Pid) -> bool {
        let own = group.as_raw_nonzero().to_string();
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let mut stats = processes.flat_map(|process| std::fs::read(process.path().join("stat")));
        stats.any(|stat| runs_in(&stat, &own))
    }
}
