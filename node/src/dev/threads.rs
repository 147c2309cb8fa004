//! The nodes as threads of this process, each with a runtime of its own.

use std::thread;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wardlock_placement::NodeId;

use super::plan::Plan;
use crate::{
    cli::failure::{Failure, chain},
    config::Settings,
    node::Node,
};

/// The running threads.
#[derive(Debug)]
pub struct Threads {
    stop: CancellationToken,
    /// A node that has ended, or could not start, says why.
    ends: mpsc::Receiver<(NodeId, String)>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Threads {
    /// Starts every node. Returns before they are ready.
    ///
    /// # Errors
    /// Where a configuration is wrong or the system gives no thread.
    pub fn start(plan: &Plan) -> Result<Threads, Failure> {
        let stop = CancellationToken::new();
        let (tell, ends) = mpsc::channel(plan.nodes.len().max(1));
        let mut threads = Vec::with_capacity(plan.nodes.len());
        for node in &plan.nodes {
            let fields = crate::config::layer(None, &node.fields).map_err(|e| Failure::error(chain(&e)))?;
            let settings = fields.check().map_err(|e| Failure::error(chain(&e)))?;
            let (stop, tell, id) = (stop.clone(), tell.clone(), node.id);
            let body = move || {
                if let Err(why) = run(settings, &stop) {
                    // One slot a node: it never waits.
                    let _ = tell.try_send((id, why));
                }
            };
            let thread = thread::Builder::new().name(format!("node-{id}")).spawn(body);
            threads.push(thread.map_err(|e| Failure::error(format!("cannot start a thread: {e}")))?);
        }
        Ok(Threads { stop, ends, threads })
    }

    /// Resolves when a node has failed, with what to say of it. Never while all is well.
    pub async fn failed(&mut self) -> Failure {
        match self.ends.recv().await {
            Some((node, why)) => Failure::error(format!("node {node}: {why}")),
            None => std::future::pending().await,
        }
    }

    /// Drains every node.
    pub async fn shutdown(self) {
        self.stop.cancel();
        let join = move || self.threads.into_iter().for_each(|thread| drop(thread.join()));
        // A thread that panicked has said so itself.
        let _ = tokio::task::spawn_blocking(join).await;
    }
}

fn run(settings: Settings, stop: &CancellationToken) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(async {
        let node = Node::start(settings).await.map_err(|e| chain(&e))?;
        stop.cancelled().await;
        node.shutdown().await;
        Ok(())
    })
}
