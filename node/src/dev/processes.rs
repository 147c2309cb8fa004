//! The nodes as processes, to be killed and started again by hand.
//!
//! Each node's stdin is a pipe whose other end only this process has. However this process ends, even by
//! KILL, the pipe ends with it, and the nodes with the pipe. A node that somebody starts again from a
//! shell is that shell's, and stays. Nothing is started again by itself.

use std::{fs::File, path::Path, process::Stdio, time::Duration};

use tokio::{
    process::{Child, Command},
    sync::{mpsc, watch},
    task::JoinSet,
};
use wardlock_placement::NodeId;

use super::{greeting::restart_command, plan::Plan};
use crate::cli::failure::Failure;

/// How long a node may drain before it is killed.
const DRAIN: Duration = Duration::from_secs(20);

/// The running processes.
#[derive(Debug)]
pub struct Processes {
    /// One for each child.
    watches: JoinSet<()>,
    order: watch::Sender<Order>,
    ends: mpsc::Receiver<(NodeId, String)>,
    lines: Vec<(NodeId, String)>,
}

impl Processes {
    /// Starts every node from its file. Returns before they are ready.
    ///
    /// # Errors
    /// Where a process cannot be started.
    pub fn start(plan: &Plan, program: &Path) -> Result<Processes, Failure> {
        let (tell, ends) = mpsc::channel(plan.nodes.len().max(1));
        let (order, orders) = watch::channel(Order::Run);
        let mut processes = Processes { watches: JoinSet::new(), order, ends, lines: Vec::new() };
        for node in &plan.nodes {
            let log = plan.dir.join(format!("node-{}.log", node.id));
            let child = spawn(program, &plan.file(node.id), &log)?;
            // There is a pid until the child has been waited for.
            let pid = child.id().unwrap_or_default();
            let restart = restart_command(plan, node.id, program);
            processes.lines.push((node.id, format!("node {} is process {pid}; to start it again: {restart}", node.id)));
            let (tell, id, orders) = (tell.clone(), node.id, orders.clone());
            processes.watches.spawn(async move {
                let how = attend(child, orders).await;
                let said = format!("node {id} (process {pid}) ended: {how}; its log is {}", log.display());
                // One slot a node: it never waits.
                let _ = tell.try_send((id, said));
            });
        }
        Ok(processes)
    }

    /// For each node a line with its process and the command that starts it again.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(|(_, line)| line.as_str())
    }

    /// Resolves when a node's process has ended, with what to say of it.
    pub async fn ended(&mut self) -> (NodeId, String) {
        match self.ends.recv().await {
            Some(end) => end,
            None => std::future::pending().await,
        }
    }

    /// How to start that node again.
    pub fn line(&self, node: NodeId) -> &str {
        self.lines.iter().find(|(id, _)| *id == node).map_or("", |(_, line)| line)
    }

    /// Asks every node to drain, and kills what has not ended by then.
    pub async fn shutdown(mut self) {
        self.order.send_replace(Order::Drain);
        let all = async { while self.watches.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, all).await.is_err() {
            crate::cli::output::complain(&format!(
                "wardlock: some nodes did not drain within {} s and are killed\n",
                DRAIN.as_secs()
            ));
            self.order.send_replace(Order::Kill);
            while self.watches.join_next().await.is_some() {}
        }
    }
}

/// What the children are to do.
#[derive(Clone, Copy, Debug)]
enum Order {
    Run,
    /// By the end of stdin, not by TERM: after a Ctrl-C, which the terminal sends to them as well, that
    /// would be the second signal, which does not wait.
    Drain,
    Kill,
}

/// Waits for the child's end and passes orders on to it.
async fn attend(mut child: Child, mut orders: watch::Receiver<Order>) -> String {
    let mut stdin = child.stdin.take();
    loop {
        tokio::select! {
            status = child.wait() => return status.map_or_else(|e| e.to_string(), |status| status.to_string()),
            Ok(()) = orders.changed() => match *orders.borrow_and_update() {
                Order::Run => {}
                Order::Drain => drop(stdin.take()),
                // It may have ended just now, which is all that is wanted.
                Order::Kill => drop(child.start_kill()),
            },
        }
    }
}

fn spawn(program: &Path, config: &Path, log: &Path) -> Result<Child, Failure> {
    let open = || File::options().create(true).append(true).open(log);
    let (out, err) = open()
        .and_then(|file| Ok((file.try_clone()?, file)))
        .map_err(|e| Failure::error(format!("cannot write {}: {e}", log.display())))?;
    let mut command = Command::new(program);
    command.arg("node").arg("--config").arg(config).arg("--exit-with-stdin");
    // What this shell has set for clients must not overrule the files. A mistake made on purpose is for the nodes.
    for (name, _) in std::env::vars_os() {
        let is_for_nodes = name == "WARDLOCK_LOG" || cfg!(wardlock_planted) && name == "WARDLOCK_PLANT";
        if name.to_string_lossy().starts_with("WARDLOCK_") && !is_for_nodes {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::piped()).stdout(out).stderr(err);
    command.spawn().map_err(|e| Failure::error(format!("cannot start {}: {e}", program.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stand-in for a node that reads its stdin to the end, as `--exit-with-stdin` does.
    fn reader(script: &str) -> Child {
        Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap()
    }

    #[tokio::test]
    async fn draining_is_the_end_of_stdin_and_what_does_not_end_is_killed() {
        for (script, last, how) in
            [("cat >/dev/null; exit 7", Order::Drain, "exit status: 7"), ("exec sleep 1000", Order::Kill, "signal: 9")]
        {
            let (order, orders) = watch::channel(Order::Run);
            let attended = tokio::spawn(attend(reader(script), orders));
            order.send_replace(Order::Drain);
            tokio::time::sleep(Duration::from_millis(50)).await;
            order.send_replace(last);
            let said = attended.await.unwrap();
            assert!(said.starts_with(how), "{said}");
        }
    }
}
