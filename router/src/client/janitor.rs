//! What dropped guards, sessions and waits leave behind: releases, closings and withdrawals that nobody
//! waits for.
//!
//! Best effort, and bounded twice: so many chores may queue, and so many run at once. A chore that finds
//! the queue full is dropped: what it would have freed ends with its lease or its session. The task
//! outlives the client's last handle until the queue is empty.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::mpsc;
use wardlock_machine::{Acquire, Command, Key, LockId, Millis, Outcome, RequestId, SessionId};

use super::{
    core::Core,
    requests::{Open, Requests},
};
use crate::{Error, random};

/// The most chores that wait.
const QUEUE: usize = 16_384;
/// The most chores under way.
const RUNNING: usize = 256;
/// How long one chore tries.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where chores are left.
pub(crate) struct Janitor {
    chores: mpsc::Sender<Chore>,
    /// The queue was full at the last chore: said once, not for each.
    full: AtomicBool,
}

/// Something to be written that nobody waits for.
pub(crate) enum Chore {
    /// A request that nobody wants any more. It counts as unanswered until this is done.
    Withdraw { acquire: Box<Acquire>, open: Option<Open> },
    /// A grant to be given back. Its request is numbered when it is sent, not when it is left: by then a
    /// shard may have seen too many later ones.
    Release { requests: Arc<Requests>, key: Key, lock_id: LockId },
    /// A command that may be sent as it is.
    Write { command: Box<Command> },
    /// A session that nobody has any more.
    Close { session: SessionId },
}

impl Janitor {
    /// Starts the task.
    pub(crate) fn start(core: Arc<Core>) -> Janitor {
        let (chores, queue) = mpsc::channel(QUEUE);
        tokio::spawn(work(core, queue));
        Janitor { chores, full: AtomicBool::new(false) }
    }

    /// Leaves a chore. Never blocks.
    pub(crate) fn leave(&self, chore: Chore) {
        let full = self.chores.try_send(chore).is_err();
        if full && !self.full.swap(full, Ordering::Relaxed) {
            tracing::warn!("too much to clean up: dropped locks are left to their leases");
        } else if !full {
            self.full.store(false, Ordering::Relaxed);
        }
    }
}

async fn work(core: Arc<Core>, mut queue: mpsc::Receiver<Chore>) {
    let mut running = FuturesUnordered::new();
    let mut open = true;
    while open || !running.is_empty() {
        tokio::select! {
            biased;
            chore = queue.recv(), if open && running.len() < RUNNING => match chore {
                Some(chore) => running.push(one(&core, chore)),
                None => open = false,
            },
            Some(()) = running.next() => {}
        }
    }
}

async fn one(core: &Core, chore: Chore) {
    let done = match chore {
        // The request is held open until all of it is done.
        Chore::Withdraw { acquire, open: _open } => withdraw(core, *acquire).await,
        Chore::Release { requests, key, lock_id } => {
            let open = requests.begin();
            write(core, Command::Release { request: open.id(), key, lock_id }).await.map(drop)
        }
        Chore::Write { command } => write(core, *command).await.map(drop),
        Chore::Close { session } => write(core, Command::CloseSession { session }).await.map(drop),
    };
    if let Err(error) = done {
        tracing::debug!(%error, "left to its lease");
    }
}

/// Takes a request back, wherever it got to. Cancelling takes it out of the queue. Then the *same* request
/// is asked without waiting, which tells what became of it: a grant whose answer was lost is told again,
/// and given back. One that had not arrived yet is settled by this, so that it grants nothing later.
async fn withdraw(core: &Core, mut acquire: Acquire) -> Result<(), Error> {
    let (session, request, key) = (acquire.session, acquire.request, acquire.key.clone());
    write(core, Command::Cancel { session, request, key: key.clone() }).await?;
    acquire.wait = Millis(0);
    if let Outcome::Granted(grant) = write(core, Command::Acquire(acquire)).await? {
        // A release is known by its lock id, whatever its request is called.
        let request = RequestId::Keyed { key: random::any() };
        write(core, Command::Release { request, key, lock_id: grant.lock_id }).await?;
    }
    Ok(())
}

async fn write(core: &Core, command: Command) -> Result<Outcome, Error> {
    core.write(command, PATIENCE).await
}
