//! What dropped guards, sessions and waits leave behind: releases, closings and cancellations that nobody
//! waits for.
//!
//! Best effort, and bounded twice: so many chores may queue, and so many run at once. A chore that finds
//! the queue full is dropped: what it would have freed ends with its lease or its session. The task
//! outlives the client's last handle until the queue is empty.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::mpsc;
use wardlock_machine::{Command, Key, LockId, RequestId, SessionId};

use super::{
    core::Core,
    requests::{Open, Requests},
};

/// The most chores that wait.
const QUEUE: usize = 16_384;
/// The most chores under way.
const RUNNING: usize = 256;
/// How long one chore tries.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where chores are left.
pub(crate) struct Janitor {
    chores: mpsc::Sender<Chore>,
}

/// Something to be written that nobody waits for.
pub(crate) enum Chore {
    /// A request of an acquire that nobody wants any more. It stays unanswered until this is done.
    Cancel { session: SessionId, request: RequestId, key: Key, open: Option<Open> },
    /// A grant to be given back. Its request is numbered when it is sent, not when it is left: by then a
    /// shard may have seen too many later ones.
    Release { requests: Arc<Requests>, key: Key, lock_id: LockId },
    /// A session that nobody has any more.
    Close { session: SessionId },
}

impl Janitor {
    /// Starts the task.
    pub(crate) fn start(core: Arc<Core>) -> Janitor {
        let (chores, queue) = mpsc::channel(QUEUE);
        tokio::spawn(work(core, queue));
        Janitor { chores }
    }

    /// Leaves a chore. Never blocks.
    pub(crate) fn leave(&self, chore: Chore) {
        if self.chores.try_send(chore).is_err() {
            tracing::warn!("too much to clean up: a dropped lock is left to its lease");
        }
    }
}

async fn work(core: Arc<Core>, mut queue: mpsc::Receiver<Chore>) {
    let mut running = FuturesUnordered::new();
    let mut open = true;
    while open || !running.is_empty() {
        tokio::select! {
            chore = queue.recv(), if open && running.len() < RUNNING => match chore {
                Some(chore) => running.push(one(&core, chore)),
                None => open = false,
            },
            Some(()) = running.next() => {}
        }
    }
}

async fn one(core: &Core, chore: Chore) {
    // Held until the command is answered.
    let (command, _open) = match chore {
        Chore::Cancel { session, request, key, open } => (Command::Cancel { session, request, key }, open),
        Chore::Release { requests, key, lock_id } => {
            let open = requests.begin();
            (Command::Release { request: open.id(), key, lock_id }, Some(open))
        }
        Chore::Close { session } => (Command::CloseSession { session }, None),
    };
    if let Err(error) = core.write(command, PATIENCE).await {
        tracing::debug!(%error, "left to its lease");
    }
}
