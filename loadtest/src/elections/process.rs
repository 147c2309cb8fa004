//! A process with candidates, as who started it sees it.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context, anyhow};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::mpsc,
};

use super::{
    candidates,
    offices::{At, How},
};

/// What a process says.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    /// It has its session.
    Ready { process: u32 },
    /// One of its candidates leads.
    Leads { process: u32, name: String, token: u64, at: At },
    /// One of its candidates leads no more.
    Left { process: u32, name: String, token: u64, at: At, how: How },
    /// It cannot go on.
    Failed { process: u32, why: String },
}

/// See the [module](self).
pub(super) struct Process {
    child: Child,
    stdin: ChildStdin,
}

impl Process {
    /// Starts it. What it says goes to `say`; it ends with this program, whose pipe it reads.
    pub(super) fn start(
        number: u32,
        server: &str,
        certs: &Path,
        ttl: Duration,
        say: mpsc::Sender<Said>,
    ) -> anyhow::Result<Process> {
        let mut command = Command::new(std::env::current_exe().context("this program's own path")?);
        command.arg("candidates").arg("--server").arg(server).arg("--certs").arg(certs);
        command.arg("--ttl").arg(format!("{}ms", ttl.as_millis())).arg("--called").arg(format!("candidates-{number}"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| anyhow!("a process cannot be started: {error}"))?;
        let stdin = child.stdin.take().context("it has no stdin")?;
        let stdout = child.stdout.take().context("it has no stdout")?;
        tokio::spawn(hear(number, stdout, say));
        Ok(Process { child, stdin })
    }

    /// Has it stand in an election.
    pub(super) async fn stand(&mut self, name: &str) -> anyhow::Result<()> {
        self.tell(&format!("stand {name}\n")).await
    }

    /// Has it resign.
    pub(super) async fn resign(&mut self, name: &str) -> anyhow::Result<()> {
        self.tell(&format!("resign {name}\n")).await
    }

    async fn tell(&mut self, line: &str) -> anyhow::Result<()> {
        self.stdin.write_all(line.as_bytes()).await.context("a process with candidates has ended by itself")
    }

    /// Kills it; says when.
    pub(super) async fn kill(&mut self) -> anyhow::Result<At> {
        self.child.start_kill().context("it cannot be killed")?;
        let at = candidates::now();
        self.child.wait().await?;
        Ok(at)
    }
}

async fn hear(process: u32, stdout: ChildStdout, say: mpsc::Sender<Said>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let said = understand(process, &line).unwrap_or(Said::Failed { process, why: line });
        if say.send(said).await.is_err() {
            return;
        }
    }
}

fn understand(process: u32, line: &str) -> Option<Said> {
    let words: Vec<&str> = line.split(' ').collect();
    let how = |word: &str| match word {
        "resigns" => Some(How::Resigned),
        "lost" => Some(How::Lost),
        _ => None,
    };
    match words[..] {
        ["ready"] => Some(Said::Ready { process }),
        [verb, name, token, at] => {
            let (name, token) = (name.to_owned(), token.parse().ok()?);
            let at = Duration::from_nanos(at.parse().ok()?);
            match verb {
                "leads" => Some(Said::Leads { process, name, token, at }),
                _ => Some(Said::Left { process, name, token, at, how: how(verb)? }),
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_says_is_understood_or_its_end() {
        let (name, at) = ("elections/7".to_owned(), Duration::from_nanos(12));
        assert_eq!(understand(3, "ready"), Some(Said::Ready { process: 3 }));
        let leads = Said::Leads { process: 3, name: name.clone(), token: 9, at };
        assert_eq!(understand(3, "leads elections/7 9 12"), Some(leads));
        let left = Said::Left { process: 3, name, token: 9, at, how: How::Resigned };
        assert_eq!(understand(3, "resigns elections/7 9 12"), Some(left));
        for other in ["", "leads elections/7 9", "leads elections/7 x 12", "Error: no session"] {
            assert_eq!(understand(3, other), None, "{other}");
        }
    }
}
