//! Raft's own messages and log entries, as types of ours.
//!
//! The consensus library's types are never serialized: a field that it adds would break the log and
//! rolling upgrades. These are what lies on disk and travels between nodes; the node converts at the
//! edge. Payload bytes are encoded once, by the leader, and shared from there to every follower's
//! frame and to the log row.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use wardlock_placement::{NodeId, ReplicaId};

/// Where an entry stands in a group's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogPos {
    /// The term in which it was proposed.
    pub term: u64,
    /// Its index.
    pub index: u64,
}

/// A vote: for whom, in which term, and whether a quorum gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// The term.
    pub term: u64,
    /// The candidate or leader.
    pub replica: ReplicaId,
    /// A quorum has granted it: its holder leads.
    pub committed: bool,
}

/// One log entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it stands.
    pub pos: LogPos,
    /// What it says.
    pub payload: Payload,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Payload {
    /// A new leader's first entry.
    Blank,
    /// An encoded batch for the group's state machine.
    Data(Bytes),
    /// A change of the group's members.
    Members(Members),
}

/// A membership: one config, or two while it changes, and where each replica lives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// The voters; a decision needs a majority of each set.
    pub configs: Vec<BTreeSet<ReplicaId>>,
    /// Every member, learners too.
    pub nodes: BTreeMap<ReplicaId, NodeId>,
}

/// A request from one replica of a group to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RaftRequest {
    /// Entries, or none: a heartbeat.
    Append {
        /// The leader's vote.
        vote: Vote,
        /// What precedes the entries.
        prev: Option<LogPos>,
        /// How far the leader has committed.
        commit: Option<LogPos>,
        /// In order, without holes.
        entries: Vec<Entry>,
    },
    /// Asks for a vote.
    Vote {
        /// The candidate's.
        vote: Vote,
        /// The end of its log.
        last: Option<LogPos>,
        /// The leader itself asked it to campaign.
        transfer: bool,
    },
    /// Asks whether a vote would be given; changes nothing.
    PreVote {
        /// The hypothetical vote.
        vote: Vote,
        /// The end of the asker's log.
        last: Option<LogPos>,
    },
    /// Tells a follower to campaign now.
    Transfer {
        /// The leader's vote.
        from: Vote,
        /// Whom it wants as its successor.
        to: ReplicaId,
        /// The log that the successor must have.
        last: Option<LogPos>,
    },
    /// A whole snapshot.
    Snapshot {
        /// The leader's vote.
        vote: Vote,
        /// What it covers.
        meta: SnapshotMeta,
        /// The state machine's own bytes.
        data: Bytes,
    },
}

/// What a snapshot covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotMeta {
    /// The last entry that is in it.
    pub last: Option<LogPos>,
    /// Where the membership stands that it carries.
    pub members_at: Option<LogPos>,
    /// That membership.
    pub members: Members,
}

/// The answer to a [`RaftRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RaftReply {
    /// All entries are in the log, or the heartbeat was heard.
    Appended,
    /// Entries up to here are in the log.
    AppendedTo(Option<LogPos>),
    /// The follower's log lacks what precedes the entries.
    Conflict,
    /// The follower has voted higher.
    HigherVote(Vote),
    /// To a vote or a pre-vote.
    Voted {
        /// The voter's own vote now.
        vote: Vote,
        /// Whether it was given.
        granted: bool,
        /// The end of the voter's log.
        last: Option<LogPos>,
    },
    /// The successor campaigns.
    Transferring,
    /// It does not, because.
    TransferRefused(String),
    /// The follower's vote after it took the snapshot.
    Installed(Vote),
}
