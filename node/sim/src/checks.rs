//! The promises, each a check that listens to all that happens. A check is told of events in their order and of
//! the cluster's state at the end; it says what is wrong, or nothing.

mod asked_for;
mod attachments;
mod configuration;
mod deadlocks;
mod durable;
mod early_end;
mod expiry;
mod fairness;
mod leaders;
mod lock_delay;
mod one_holder;
mod reads;
mod registry;
mod replicas;
mod stale;
mod tokens;
mod told;
mod watches;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use wardlock_machine::{LockId, SessionId};
use wardlock_placement::{GroupId, NodeId};

use crate::event::Event;

/// Since the run's beginning.
pub type At = Duration;
/// What is wrong, or nothing.
pub type Verdict = Result<(), String>;

/// One promise.
pub trait Check: Send {
    /// Its name.
    fn name(&self) -> &'static str;
    /// Something happened.
    fn event(&mut self, at: At, event: &Event) -> Verdict;
    /// The run is over: all faults have ended, the clients ask no more, and later all have fallen silent.
    fn end(&mut self, _: &End) -> Verdict {
        Ok(())
    }
    /// What it has counted, beside the events.
    fn count(&self) -> Option<(&'static str, u64)> {
        None
    }
}

/// One replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaState {
    /// The last entry that it has applied.
    pub applied: u64,
    /// Of its machine's state.
    pub hash: u64,
}

/// What a replica knows of a session at home there.
#[derive(Clone, Debug, Default)]
pub struct Home {
    /// The shards in which the session is known, as its home has it.
    pub shards: BTreeSet<GroupId>,
}

/// The cluster at the end.
#[derive(Clone, Debug, Default)]
pub struct End {
    /// The holders of every name, read when the faults had ended and the holders still believed.
    pub reads: BTreeMap<String, Vec<LockId>>,
    /// Every group's replicas.
    pub replicas: BTreeMap<GroupId, BTreeMap<NodeId, ReplicaState>>,
    /// Where each open session is at home.
    pub homes: BTreeMap<SessionId, Home>,
    /// The shards that each session is attached to, as these have it.
    pub seats: BTreeMap<SessionId, BTreeSet<GroupId>>,
    /// How many shards each node leads.
    pub leads: BTreeMap<NodeId, usize>,
    /// Grants, waiters and sessions that were left when all clients had been silent for long.
    pub left: BTreeMap<GroupId, [u64; 3]>,
    /// And instances of services.
    pub instances: BTreeMap<GroupId, u64>,
}

/// All of them.
pub fn all() -> Vec<Box<dyn Check>> {
    vec![
        Box::<one_holder::OneHolder>::default(),
        Box::<tokens::Tokens>::default(),
        Box::<early_end::EarlyEnd>::default(),
        Box::<reads::Reads>::default(),
        Box::<durable::Durable>::default(),
        Box::<expiry::Expiry>::default(),
        Box::<replicas::Replicas>::default(),
        Box::<attachments::Attachments>::default(),
        Box::<watches::Watches>::default(),
        Box::<fairness::Fairness>::default(),
        Box::<asked_for::AskedFor>::default(),
        Box::<lock_delay::LockDelay>::default(),
        Box::<leaders::Leaders>::default(),
        Box::<configuration::Configuration>::default(),
        Box::<told::Told>::default(),
        Box::<registry::Registry>::default(),
        Box::<stale::Stale>::default(),
        Box::<deadlocks::Deadlocks>::default(),
    ]
}
