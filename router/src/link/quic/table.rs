//! The nodes that this process is connected to, and by which connection it calls each.
//!
//! Both sides of a pair may dial, so for each node there are up to two connections: one dialed by this
//! side and one by the other. Calls take the *preferred* one; the other still carries replies until the
//! side that dialed it closes it.
//!
//! # Invariants
//! 1. A slot holds one connection of each direction at the most: a new one replaces its predecessor,
//!    which its dialer has given up.
//! 2. All connections of a slot are to one process: a hello with another boot number closes the others.
//! 3. Of two connections made at the same time, both sides prefer the one that the lower node dialed.
//!    Of two made at different times they prefer the newer: a peer dials only when it has none.
//! 4. Only its dialer closes the connection that is not preferred, so that never both are closed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, task::AbortHandle};
use wardlock_placement::NodeId;

use super::{Shared, code::Code, connection::Connection};

/// Connections that begin within this of each other were dialed at the same time.
const SAME_TIME: Duration = Duration::from_secs(1);
/// How long a connection that is not preferred is kept for the replies that it still owes.
const GRACE: Duration = Duration::from_secs(1);

pub(super) struct Table {
    me: Option<NodeId>,
    all: Mutex<All>,
}

#[derive(Default)]
struct All {
    slots: BTreeMap<NodeId, Slot>,
    /// By number, clients' too.
    connections: BTreeMap<u64, Arc<Connection>>,
}

#[derive(Default)]
struct Slot {
    dialed: Option<Arc<Connection>>,
    accepted: Option<Arc<Connection>>,
    keeper: Option<Keeper>,
    /// For the keeper: the connections have changed.
    changed: Arc<Notify>,
}

/// The task that dials a node whenever there is no connection to it.
struct Keeper {
    address: String,
    stop: AbortHandle,
}

impl Slot {
    fn side(&mut self, dialed: bool) -> &mut Option<Arc<Connection>> {
        if dialed { &mut self.dialed } else { &mut self.accepted }
    }

    /// By which to call.
    fn current(&self, me: Option<NodeId>, node: NodeId) -> Option<&Arc<Connection>> {
        let dialed = self.dialed.as_ref().filter(|connection| connection.is_open());
        let accepted = self.accepted.as_ref().filter(|connection| connection.is_open());
        match (dialed, accepted) {
            (Some(dialed), Some(accepted)) => Some(preferred(me < Some(node), dialed, accepted)),
            (one, other) => one.or(other),
        }
    }
}

fn preferred<'a>(lower: bool, dialed: &'a Arc<Connection>, accepted: &'a Arc<Connection>) -> &'a Arc<Connection> {
    let apart = dialed.since.max(accepted.since) - dialed.since.min(accepted.since);
    let take_dialed = if apart < SAME_TIME { lower } else { dialed.since > accepted.since };
    if take_dialed { dialed } else { accepted }
}

impl Table {
    pub(super) fn new(me: Option<NodeId>) -> Table {
        Table { me, all: Mutex::default() }
    }

    /// The connection for a call to this node.
    pub(super) fn current(&self, node: NodeId) -> Option<Arc<Connection>> {
        self.lock().slots.get(&node)?.current(self.me, node).cloned()
    }

    pub(super) fn is_connected(&self, node: NodeId) -> bool {
        self.lock().slots.get(&node).is_some_and(|slot| slot.current(self.me, node).is_some())
    }

    /// Every node that is to be, or is, connected, and whether it is.
    pub(super) fn peers(&self) -> Vec<(NodeId, bool)> {
        let all = self.lock();
        all.slots.iter().map(|(node, slot)| (*node, slot.current(self.me, *node).is_some())).collect()
    }

    pub(super) fn connections(&self) -> Vec<Arc<Connection>> {
        self.lock().connections.values().cloned().collect()
    }

    /// A connection has begun.
    pub(super) fn insert(&self, shared: &Arc<Shared>, connection: &Arc<Connection>) {
        let mut all = self.lock();
        all.connections.insert(connection.peer.connection, connection.clone());
        let Some(node) = connection.peer.node else { return };
        let slot = all.slots.entry(node).or_default();
        let replaced = slot.side(connection.dialed).replace(connection.clone());
        let other = slot.side(!connection.dialed);
        let restarted = other.take_if(|other| other.boot != connection.boot);
        let surplus = match (&slot.dialed, &slot.accepted) {
            (Some(dialed), Some(accepted)) => {
                let kept = preferred(self.me < Some(node), dialed, accepted);
                (!Arc::ptr_eq(kept, dialed)).then(|| dialed.clone())
            }
            _ => None,
        };
        slot.changed.notify_one();
        drop(all);
        for old in [replaced, restarted].into_iter().flatten() {
            old.close(Code::Replaced, "a newer connection has taken its place");
        }
        if let Some(surplus) = surplus {
            shared.runtime.spawn(async move {
                tokio::time::sleep(GRACE).await;
                surplus.close(Code::Replaced, "the other connection is preferred");
            });
        }
    }

    /// A connection has ended.
    pub(super) fn remove(&self, connection: &Arc<Connection>) {
        let mut all = self.lock();
        all.connections.remove(&connection.peer.connection);
        let Some(node) = connection.peer.node else { return };
        let Some(slot) = all.slots.get_mut(&node) else { return };
        slot.side(connection.dialed).take_if(|held| Arc::ptr_eq(held, connection));
        slot.changed.notify_one();
        if slot.keeper.is_none() && slot.dialed.is_none() && slot.accepted.is_none() {
            all.slots.remove(&node);
        }
    }

    /// Makes `start` the node's keeper, unless one keeps this address already.
    pub(super) fn keep(&self, node: NodeId, address: String, start: impl FnOnce(Arc<Notify>) -> AbortHandle) {
        let mut all = self.lock();
        let slot = all.slots.entry(node).or_default();
        if slot.keeper.as_ref().is_some_and(|keeper| keeper.address == address) {
            return;
        }
        if let Some(old) = slot.keeper.take() {
            old.stop.abort();
        }
        slot.keeper = Some(Keeper { address, stop: start(slot.changed.clone()) });
    }

    /// Stops keeping the node connected, and closes what this side dialed.
    pub(super) fn forget(&self, node: NodeId) {
        let mut all = self.lock();
        let Some(slot) = all.slots.get_mut(&node) else { return };
        if let Some(keeper) = slot.keeper.take() {
            keeper.stop.abort();
        }
        let dialed = slot.dialed.take();
        if slot.accepted.is_none() {
            all.slots.remove(&node);
        }
        drop(all);
        if let Some(dialed) = dialed {
            dialed.close(Code::Done, "no longer a peer");
        }
    }

    /// Dials nobody any more.
    pub(super) fn stop_keepers(&self) {
        for slot in self.lock().slots.values_mut() {
            if let Some(keeper) = slot.keeper.take() {
                keeper.stop.abort();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
