//! One group's part of a barrier round: a pure count of whose vote stands.
//!
//! # Invariants
//! 1. There is a quorum only with a majority of voters of *each* half of the membership.
//! 2. Only voters count, each once, and the asking replica among them: its own vote is read by the caller.
//! 3. What was said is not taken back.

use std::collections::BTreeSet;

use openraft::Membership;
use wardlock_machine::planted;
use wardlock_placement::{NodeId, ReplicaId};
pub use wardlock_wire::Standing;
use wardlock_wire::raft::Vote;

use crate::raft::types::Home;

/// Whether a replica whose durable vote is `vote` stands behind the leadership `claim`. Whether the vote
/// is committed is of no matter: it was given, so none of a later term was.
pub fn stands(vote: Option<Vote>, claim: Vote) -> Standing {
    match vote {
        Some(vote) if vote.term == claim.term && vote.replica == claim.replica => Standing::Stands,
        Some(vote) if vote.term > claim.term && planted!("later-votes-confirm") => Standing::Stands,
        Some(vote) if vote.term > claim.term => Standing::Deposed,
        _ => Standing::Unknown,
    }
}

/// Every voter and where it lives.
pub(super) fn voters(members: &Membership<u64, Home>) -> impl Iterator<Item = (ReplicaId, NodeId)> {
    let ids: BTreeSet<u64> = members.get_joint_config().iter().flatten().copied().collect();
    ids.into_iter().filter_map(|id| Some((ReplicaId(id), members.get_node(&id)?.0)))
}

/// The count.
#[derive(Debug)]
pub struct Round {
    /// The voters of each half.
    halves: Vec<BTreeSet<u64>>,
    stand: BTreeSet<u64>,
    deposed: BTreeSet<u64>,
}

impl Round {
    /// Nobody has spoken but the asking replica.
    pub fn new(members: &Membership<u64, Home>, own: ReplicaId) -> Round {
        let halves = members.get_joint_config().clone();
        Round { halves, stand: BTreeSet::from([own.0]), deposed: BTreeSet::new() }
    }

    /// A replica's word.
    pub fn heard(&mut self, replica: ReplicaId, standing: Standing) {
        match standing {
            Standing::Stands => self.stand.insert(replica.0),
            Standing::Deposed => self.deposed.insert(replica.0),
            Standing::Unknown => false,
        };
    }

    /// Whether a quorum stands. A membership without voters has none.
    pub fn has_quorum(&self) -> bool {
        let majority = |half: &BTreeSet<u64>| {
            2 * half.intersection(&self.stand).count() > half.len() || planted!("barrier-without-quorum")
        };
        !self.halves.is_empty() && self.halves.iter().all(majority)
    }

    /// Whether so many have voted in later terms that no quorum is left.
    pub fn is_lost(&self) -> bool {
        let lost = |half: &BTreeSet<u64>| 2 * half.intersection(&self.deposed).count() >= half.len();
        self.halves.iter().any(lost)
    }
}
