//! Webhooks, as the leader of their shard delivers them.
//!
//! Beside each replica one task waits until the replica leads. Then it runs one [deliverer](deliver) for each webhook of
//! the shard; it is told whenever one was made, dropped or changed, and looks at the state then, and at no other time.
//! When the leadership ends the deliverers end with it, in the midst of whatever they do: the next leader's begin at
//! the cursor that was logged last, so an event may be delivered twice and none is left out.
//!
//! A node that stops in order ends its deliverers first ([`Desk::close`]): they begin nothing more, and log what the
//! targets have taken, so that the next leaders' do not deliver that again.
//!
//! What is to be told next, and how far that has come, is decided by [`outbox`], which is pure.

mod deliver;
mod outbox;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use wardlock_machine::{HookEpoch, Name};
use wardlock_router::{
    Client,
    webhook::{Roots, Targets},
};

use crate::{clock::Clock, group::Group};

/// The most deliveries that a node has under way.
const DELIVERIES: usize = 256;
/// How long a stopping node's deliverers may take to end. Without a quorum they cannot log anything.
const CLOSE: Duration = Duration::from_secs(2);

/// Whether a replica leads: `None`, or a number that rises whenever its webhooks may have changed.
pub type Leads = Option<u64>;

/// What a node's configuration says of webhooks.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where they may go; nowhere by default.
    pub targets: Targets,
    /// For how long a delivery that fails is tried again before it becomes a dead letter.
    pub retry_for: Duration,
    /// Whom to believe over https; where there is nobody, nothing is sent over it.
    pub roots: Option<Roots>,
}

impl Default for Settings {
    /// Off.
    fn default() -> Settings {
        Settings { targets: Targets::default(), retry_for: Duration::from_secs(3_600), roots: None }
    }
}

/// What all deliverers of a node share.
pub struct Desk {
    settings: Settings,
    client: Client,
    clock: Arc<dyn Clock>,
    /// Who may send now.
    turns: Arc<Semaphore>,
    /// Nothing more is begun.
    closing: CancellationToken,
    deliverers: TaskTracker,
}

impl Desk {
    /// Of a node.
    pub fn new(settings: Settings, client: Client, clock: Arc<dyn Clock>) -> Arc<Desk> {
        Arc::new(Desk {
            settings,
            client,
            clock,
            turns: Arc::new(Semaphore::new(DELIVERIES)),
            closing: CancellationToken::new(),
            deliverers: TaskTracker::new(),
        })
    }

    /// Ends all deliverers, for good: each begins nothing more and logs how far it has come. Whoever still leads when
    /// this begins can log that, so it comes before the leaderships are handed over.
    pub async fn close(&self) {
        self.closing.cancel();
        self.deliverers.close();
        if tokio::time::timeout(CLOSE, self.deliverers.wait()).await.is_err() {
            tracing::warn!("some progress of webhooks is not logged in time: what was delivered last comes once more");
        }
    }
}

/// Delivers for a replica whenever it leads, until it stops.
pub async fn run(desk: Arc<Desk>, group: Group, mut leads: watch::Receiver<Leads>) {
    let mut running: BTreeMap<Name, (HookEpoch, JoinSet<()>)> = BTreeMap::new();
    loop {
        let led = *leads.borrow_and_update();
        let hooks: BTreeMap<Name, HookEpoch> = match led {
            None => BTreeMap::new(),
            Some(_) => {
                let list = |machine: &wardlock_machine::Machine| {
                    machine.hooks().map(|(name, revised)| (name.clone(), revised)).collect()
                };
                group.replica.machine(list).unwrap_or_default()
            }
        };
        // One that was changed begins anew. Dropped, a set ends its task.
        running.retain(|name, (revised, _)| hooks.get(name) == Some(revised));
        for (name, revised) in hooks {
            running.entry(name.clone()).or_insert_with(|| {
                let mut task = JoinSet::new();
                task.spawn(desk.deliverers.track_future(deliver::run(Arc::clone(&desk), group.clone(), name)));
                (revised, task)
            });
        }
        if leads.changed().await.is_err() {
            return;
        }
    }
}
