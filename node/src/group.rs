//! One replica of a shard, as the node runs it.
//!
//! Requests arrive in an [`Inbox`]; one task per group, the [`runner`], takes all that is there at a
//! time. Its writes become one entry of the log, its linearizable reads share one round of the leader
//! with a majority. While a round is under way, the next batch forms: batches grow by themselves under
//! load and stay at one when idle.
//!
//! What a leader remembers and does not log (session deadlines, who waits on which connection, which
//! homes are being asked) lives in [`leader::Leader`]. It is made when the first entry of the leader's
//! term is applied, from the machine's state alone, and thrown away when the leadership ends.

mod calls;
pub mod errands;
pub mod freshness;
pub mod inbox;
pub mod leader;
pub mod runner;
pub mod sessions;
pub mod waiters;
pub mod watches;
pub mod weight;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use wardlock_placement::{GroupId, ReplicaId};
use wardlock_router::link::Replier;
use wardlock_wire::Op;

pub use self::{freshness::Freshness, inbox::Inbox};
use crate::{
    disk::log::GroupLog,
    raft::{Raft, store::Replica},
};

/// An operation of a client or of another shard, as it came from the network.
pub struct Ask {
    /// What.
    pub op: Op,
    /// When, by the node's clock, nobody waits for the answer any more.
    pub until: Duration,
    /// Who is answered.
    pub reply: Replier,
}

/// A handle on a running replica.
#[derive(Clone)]
pub struct Group {
    /// Which group.
    pub id: GroupId,
    /// Which of its replicas this is.
    pub replica_id: ReplicaId,
    /// The consensus core.
    pub raft: Raft,
    /// The applied state.
    pub replica: Arc<Replica>,
    /// Its log, which knows its durable vote.
    pub log: GroupLog,
    /// Where requests go.
    pub inbox: Arc<Inbox>,
    /// How old the applied state may be, and the stale reads that wait for it to be younger.
    pub freshness: Arc<Mutex<Freshness<Replier>>>,
}
