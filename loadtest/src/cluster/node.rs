//! One node's process: the first is `wardlock dev`'s child, those started again are this program's own.

use std::{fmt, fs::File, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

use super::clocks;

/// How long a node may take to end after it was told to.
const GONE: Duration = Duration::from_secs(25);

/// A node.
#[derive(Debug)]
pub(super) struct Node {
    id: u32,
    pid: u32,
    /// The shell command that starts it again.
    command: String,
    /// Its own clocks are so many seconds ahead of the machine's, where it has any.
    clock: Option<i64>,
    log: PathBuf,
    /// Where it is this program's child.
    child: Option<Child>,
    paused: bool,
}

impl Node {
    /// A node that runs as another's child, which buries it.
    pub(super) fn of_another(id: u32, pid: u32, command: String, log: PathBuf) -> Node {
        Node { id, pid, command, clock: None, log, child: None, paused: false }
    }

    /// A node that has not been started yet.
    pub(super) fn to_be_started(id: u32, command: String, log: PathBuf) -> Node {
        // No process has this number.
        Node { id, pid: 0, command, clock: None, log, child: None, paused: false }
    }

    /// Gives it clocks of its own from its next start on, so many seconds ahead of the machine's.
    pub(super) fn set_clock(&mut self, ahead: i64) {
        self.clock = Some(ahead);
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends it a signal. One that has ended is not signalled: its number may be another's by now.
    pub(super) fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        if !runs(self.pid) {
            bail!("{self} has ended by itself; its log is {}", self.log.display());
        }
        let pid =
            i32::try_from(self.pid).ok().and_then(Pid::from_raw).with_context(|| format!("{self}: no process"))?;
        kill_process(pid, signal).map_err(|e| anyhow!("{self} cannot be sent {signal:?}: {e}"))?;
        match signal {
            Signal::STOP => self.paused = true,
            Signal::CONT => self.paused = false,
            _ => {}
        }
        Ok(())
    }

    /// Waits until it has ended and is buried, but not for ever.
    pub(super) async fn gone(&mut self) -> anyhow::Result<()> {
        match timeout(GONE, self.ended()).await {
            Ok(()) => Ok(()),
            Err(_) => bail!("{self} did not end within {} s; its log is {}", GONE.as_secs(), self.log.display()),
        }
    }

    /// Resolves when it has ended and is buried.
    pub(super) async fn ended(&mut self) {
        if let Some(child) = &mut self.child {
            // What cannot be waited for is not there any more.
            let _ = child.wait().await;
            self.child = None;
        }
        while runs(self.pid) {
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Starts it again, as a child of this program that ends with it.
    pub(super) fn restart(&mut self) -> anyhow::Result<()> {
        if runs(self.pid) {
            bail!("{self} still runs");
        }
        let log = || File::options().create(true).append(true).open(&self.log);
        let (out, err) =
            log().and_then(|log| Ok((log.try_clone()?, log))).map_err(|e| anyhow!("{}: {e}", self.log.display()))?;
        let mut shell = Command::new("sh");
        let clocks = self.clock.map_or_else(String::new, clocks::prefix);
        shell.arg("-c").arg(format!("exec {clocks}{} --exit-with-stdin", self.command));
        without_settings(&mut shell);
        shell.stdin(Stdio::piped()).stdout(out).stderr(err).process_group(0).kill_on_drop(true);
        let child = shell.spawn().map_err(|e| anyhow!("node {} cannot be started again: {e}", self.id))?;
        // There is a number until the child has been waited for.
        self.pid = child.id().unwrap_or_default();
        self.child = Some(child);
        self.paused = false;
        Ok(())
    }

    /// Resumes it if it was paused and, where it is this program's own, asks it to drain.
    pub(super) fn ask_to_end(&mut self) {
        // It may have ended just now, which is all that is wanted.
        if self.paused {
            let _ = self.signal(Signal::CONT);
        }
        if self.child.is_some() && runs(self.pid) {
            let _ = self.signal(Signal::TERM);
        }
    }

    /// Kills it where it still runs.
    pub(super) async fn kill_for_good(&mut self) {
        let _ = self.signal(Signal::KILL);
        // KILL needs no consent; only a system in trouble takes longer.
        let _ = timeout(Duration::from_secs(2), self.ended()).await;
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} (process {})", self.id, self.pid)
    }
}

/// Whether a process runs. One that nobody has buried yet does not.
pub(super) fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// What this shell has set for clients must not overrule what the cluster is told. A mistake made on purpose is
/// for the cluster; only a build that can make any passes it on.
pub(super) fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let is_for_nodes = name == "WARDLOCK_LOG" || cfg!(wardlock_planted) && name == "WARDLOCK_PLANT";
        if name.to_string_lossy().starts_with("WARDLOCK_") && !is_for_nodes {
            command.env_remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(command: &str) -> (Node, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        // No process has a number so high.
        (Node::of_another(1, 0x7fff_fff0, command.to_owned(), dir.path().join("log")), dir)
    }

    #[tokio::test]
    async fn what_was_started_again_drains_or_is_killed() {
        for (command, drains) in
            [("sleep 1000 #", true), ("sh -c 'trap \"\" TERM; while :; do sleep 0.02; done' #", false)]
        {
            let (mut node, _dir) = node(command);
            node.restart().unwrap();
            sleep(Duration::from_millis(100)).await;
            assert!(runs(node.pid()) && node.restart().is_err());
            let pid = node.pid();
            node.signal(Signal::STOP).unwrap();
            node.ask_to_end();
            assert_eq!(timeout(Duration::from_millis(500), node.ended()).await.is_ok(), drains, "{command}");
            node.kill_for_good().await;
            assert!(!runs(pid));
        }
    }

    #[tokio::test]
    async fn nothing_is_sent_to_a_process_that_is_gone() {
        let (mut node, _dir) = node("true #");
        let error = node.signal(Signal::KILL).unwrap_err().to_string();
        assert!(error.contains("ended by itself"), "{error}");
        node.restart().unwrap();
        node.gone().await.unwrap();
        assert!(node.signal(Signal::TERM).is_err());
    }
}
