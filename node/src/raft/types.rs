//! The consensus library's types, fixed for this project, and their passage to and from the wire's.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use bytes::Bytes;
use openraft::{Membership, impls::leader_id_std, vote::RaftLeaderId};
use wardlock_machine::Outcome;
use wardlock_placement::{NodeId, ReplicaId};
use wardlock_wire::raft as wire;

/// An encoded batch for the group's state machine. Encoded once by the leader that proposes it; the
/// bytes are shared by the log row, the followers' frames and the apply.
#[derive(Clone, PartialEq, Eq)]
pub struct Proposal(pub Bytes);

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What applying a proposal answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Applied {
    /// The entry was not for the state machine.
    #[default]
    Nothing,
    /// One outcome for each command of the batch, in order.
    Outcomes(Vec<Outcome>),
    /// The placement group's verdict.
    Placement(Result<(), String>),
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Applied::Nothing => f.write_str("nothing"),
            Applied::Outcomes(outcomes) => write!(f, "{} outcomes", outcomes.len()),
            Applied::Placement(Ok(())) => f.write_str("placement changed"),
            Applied::Placement(Err(why)) => write!(f, "placement refused: {why}"),
        }
    }
}

/// Where a replica lives, as the membership records it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Home(pub NodeId);

impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.0)
    }
}

/// One leader a term, as in the Raft paper: a log position is its term and its index.
pub type LeaderId = leader_id_std::LeaderId<u64, u64>;
/// The part of a leader's id that entries keep.
pub type CommittedLeaderId = <LeaderId as RaftLeaderId>::Committed;

openraft::declare_raft_types!(
    /// Every group of every node. Raft's node ids are our replica ids.
    pub Types:
        D = Proposal,
        R = Applied,
        NodeId = u64,
        Node = Home,
        Term = u64,
        LeaderId = LeaderId,
        Vote = openraft::impls::Vote<Self::LeaderId>,
        Entry = openraft::Entry<<Self::LeaderId as openraft::vote::RaftLeaderId>::Committed, Self::Payload>,
        Payload = openraft::EntryPayload<Self::D, Self::NodeId, Self::Node>,
        AsyncRuntime = super::runtime::Runtime,
);

/// A log position.
pub type LogId = openraft::alias::LogIdOf<Types>;
/// A vote.
pub type Vote = openraft::alias::VoteOf<Types>;
/// A log entry.
pub type Entry = openraft::alias::EntryOf<Types>;
/// A membership and where it stands in the log.
pub type StoredMembership = openraft::alias::StoredMembershipOf<Types>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;

/// To the wire's position.
pub fn pos_to_wire(log_id: LogId) -> wire::LogPos {
    wire::LogPos { term: *log_id.leader_id, index: log_id.index }
}

/// From the wire's position.
pub fn pos_from_wire(pos: wire::LogPos) -> LogId {
    LogId { leader_id: CommittedLeaderId::new(pos.term), index: pos.index }
}

/// To the wire's vote.
pub fn vote_to_wire(vote: &Vote) -> wire::Vote {
    wire::Vote { term: vote.leader_id.term, replica: ReplicaId(vote.leader_id.voted_for), committed: vote.committed }
}

/// From the wire's vote.
pub fn vote_from_wire(vote: wire::Vote) -> Vote {
    let leader_id = LeaderId { term: vote.term, voted_for: vote.replica.0 };
    Vote { leader_id, committed: vote.committed }
}

/// To the wire's entry. The payload's bytes are shared, not copied.
pub fn entry_to_wire(entry: &Entry) -> wire::Entry {
    let payload = match &entry.payload {
        openraft::EntryPayload::Blank => wire::Payload::Blank,
        openraft::EntryPayload::Normal(proposal) => wire::Payload::Data(proposal.0.clone()),
        openraft::EntryPayload::Membership(members) => wire::Payload::Members(members_to_wire(members)),
    };
    wire::Entry { pos: pos_to_wire(entry.log_id), payload }
}

/// From the wire's entry. Fails where its membership is impossible.
pub fn entry_from_wire(entry: wire::Entry) -> Result<Entry, String> {
    let payload = match entry.payload {
        wire::Payload::Blank => openraft::EntryPayload::Blank,
        wire::Payload::Data(data) => openraft::EntryPayload::Normal(Proposal(data)),
        wire::Payload::Members(members) => openraft::EntryPayload::Membership(members_from_wire(members)?),
    };
    Ok(Entry { log_id: pos_from_wire(entry.pos), payload })
}

/// To the wire's membership.
pub fn members_to_wire(members: &Membership<u64, Home>) -> wire::Members {
    wire::Members {
        configs: members
            .get_joint_config()
            .iter()
            .map(|config| config.iter().copied().map(ReplicaId).collect())
            .collect(),
        nodes: members.nodes().map(|(id, home)| (ReplicaId(*id), home.0)).collect(),
    }
}

/// From the wire's membership. Fails where a voter has no home or a config is empty.
pub fn members_from_wire(members: wire::Members) -> Result<Membership<u64, Home>, String> {
    let configs: Vec<BTreeSet<u64>> =
        members.configs.into_iter().map(|config| config.into_iter().map(|id| id.0).collect()).collect();
    let nodes: BTreeMap<u64, Home> = members.nodes.into_iter().map(|(id, node)| (id.0, Home(node))).collect();
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|e| e.to_string())
}

/// To the wire's snapshot description.
pub fn snapshot_to_wire(meta: &SnapshotMeta) -> wire::SnapshotMeta {
    wire::SnapshotMeta {
        last: meta.last_log_id.map(pos_to_wire),
        members_at: meta.last_membership.log_id().map(pos_to_wire),
        members: members_to_wire(meta.last_membership.membership()),
    }
}

/// From the wire's snapshot description.
pub fn snapshot_from_wire(meta: wire::SnapshotMeta) -> Result<SnapshotMeta, String> {
    Ok(SnapshotMeta {
        last_log_id: meta.last.map(pos_from_wire),
        last_membership: StoredMembership::new(meta.members_at.map(pos_from_wire), members_from_wire(meta.members)?),
    })
}
