//! The messages: calls and their replies.
//!
//! A connection carries a few long-lived streams, one for each [`Lane`] and direction. Every frame
//! holds one [`Message`]. A call is answered by the reply with its id, in any order; the ids are the
//! caller's, unique on its connection.

use serde::{Deserialize, Serialize};
use wardlock_machine::{Answer, Command, Outcome, Query, RangeEpoch, Revision, SessionId, WallMs};
use wardlock_placement::{GroupId, MapVersion, NodeId, ReplicaId, ShardMap};

use crate::raft::{RaftReply, RaftRequest, Vote};

/// The version of everything in this crate. Nodes refuse a peer with another.
pub const VERSION: u16 = 4;

/// What a client says that takes whichever cluster its certificate lets it into.
pub const ANY_CLUSTER: &str = "";

/// Which stream of a connection a message takes. What must not wait has a lane of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Lane {
    /// Heartbeats, votes, leadership transfers, reports: small and urgent.
    Urgent = 0,
    /// Log entries.
    Append = 1,
    /// What clients and routers ask.
    Client = 2,
    /// Snapshots: large, rare.
    Bulk = 3,
}

impl Lane {
    /// Every lane, in the order of its number.
    pub const ALL: [Lane; 4] = [Lane::Urgent, Lane::Append, Lane::Client, Lane::Bulk];

    /// The lane of this number.
    pub fn from_number(number: u8) -> Option<Lane> {
        Lane::ALL.get(usize::from(number)).copied()
    }
}

/// One frame's content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// The first on every connection, from either side, on the urgent lane.
    Hello(Hello),
    /// A question.
    Call {
        /// The caller's.
        id: u64,
        /// What is asked.
        body: Body,
    },
    /// Its answer.
    Reply {
        /// The call's.
        id: u64,
        /// What is answered.
        result: Result<Response, Refusal>,
    },
}

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`] of the speaker.
    pub version: u16,
    /// The cluster that the speaker belongs to or wants.
    pub cluster: String,
    /// The speaker's node id; `None` for clients and routers. The certificate must say the same.
    pub node: Option<NodeId>,
    /// Drawn when the speaker's process started: tells a restarted peer from a reconnecting one.
    pub boot: u64,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Body {
    /// One replica to another.
    Raft {
        /// Their group.
        group: GroupId,
        /// Who asks.
        from: ReplicaId,
        /// Who is meant. A node that hosts another replica of the group refuses.
        to: ReplicaId,
        /// What.
        request: RaftRequest,
    },
    /// An operation on a shard, to its leader.
    Shard {
        /// Which.
        group: GroupId,
        /// The range epoch by which the sender routed; zero where it routes by session or by group alone.
        epoch: RangeEpoch,
        /// How long the sender waits, in milliseconds from the arrival.
        patience_ms: u32,
        /// What.
        op: Op,
    },
    /// The shard map, if it is newer than this; otherwise as soon as it is, or after `wait_ms`.
    Map {
        /// The sender's.
        known: MapVersion,
        /// How long to hold the question, in milliseconds.
        wait_ms: u32,
    },
    /// What every node tells the placement leader every second or so.
    Report(Report),
    /// Tells a node to hand the leadership of a group to another node.
    Transfer {
        /// Which group.
        group: GroupId,
        /// To which node.
        to: NodeId,
    },
    /// What this node knows of itself and its groups, for `/cluster`.
    Status,
    /// Whether these leaderships still stand, as far as the votes of the replicas here go. Nodes only.
    Confirm(Vec<Claim>),
}

/// A leadership that its holder wants confirmed by another replica of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The group.
    pub group: GroupId,
    /// The replica that is asked.
    pub to: ReplicaId,
    /// The vote that the leader holds.
    pub vote: Vote,
}

/// A replica's word on a [`Claim`], by its durable vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// It has voted for this leader in this term, and for nobody later.
    Stands,
    /// It has voted in a later term.
    Deposed,
    /// Neither, or the replica is not here.
    Unknown,
}

/// An operation on a shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Op {
    /// Something to log.
    Write(Command),
    /// Something to read, linearizably.
    Read(Query),
    /// A session's sign of life, to its home.
    KeepAlive {
        /// Which.
        session: SessionId,
    },
    /// What happened, as soon as there is something to tell, or up to where there was nothing after `wait_ms`. It is
    /// [`Query::Events`] without a read round: what is answered is true, and may be late.
    Watch {
        /// A [`Query::Events`].
        query: Query,
        /// How long to hold the question, in milliseconds.
        wait_ms: u32,
    },
    /// Something to read from whichever replica is asked, as far as it has applied. The answer says how old it may
    /// be.
    Stale {
        /// What; not events, and no fences.
        query: Query,
        /// How old at the most, in milliseconds, counted back from when the question came; 0 makes it linearizable.
        /// `None`: whatever is there.
        max_age_ms: Option<u32>,
    },
    /// Up to where the leader has applied, by a read round that begins after the question came. Nodes only.
    ReadIndex,
    /// A page of a list as [`Op::Read`] answers it, and the shard's revision in the same state: from there a watch
    /// tells all that happens behind the page. It is no query inside a query, since whoever decodes a nest must go as
    /// deep as its sender likes.
    Marked(Query),
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Response {
    /// To [`Body::Raft`].
    Raft(RaftReply),
    /// To [`Op::Write`].
    Outcome(Outcome),
    /// To [`Op::Read`] and [`Op::Watch`].
    Answer(Answer),
    /// To [`Op::Read`] of a session, with what only its home's leader remembers.
    Session {
        /// What the state says.
        answer: Answer,
        /// When it was last heard of.
        last_heartbeat: Option<WallMs>,
    },
    /// To [`Op::KeepAlive`].
    KeptAlive(KeptAlive),
    /// To [`Body::Map`]; `None` where there is no newer.
    Map(Option<ShardMap>),
    /// To [`Body::Status`].
    Status(Status),
    /// To [`Body::Report`] and [`Body::Transfer`].
    Done,
    /// To [`Body::Confirm`], a word for each claim, in order.
    Confirmed(Vec<Standing>),
    /// To [`Op::Stale`].
    Stale {
        /// As this replica has it.
        answer: Answer,
        /// All that was acknowledged so many milliseconds before the question came is in the answer. `None`: this
        /// replica does not know.
        age_ms: Option<u64>,
    },
    /// To [`Op::ReadIndex`]: the index of the log's last entry that the leader has applied.
    ReadIndex(u64),
    /// To [`Op::Marked`].
    Marked {
        /// The shard's, in the state that the answer is of.
        revision: Revision,
        /// What [`Op::Read`] answers.
        answer: Answer,
    },
}

/// The answer to a keep-alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeptAlive {
    /// Its full TTL runs from when the keep-alive was sent.
    Alive,
    /// It has ended or is ending.
    Ended,
    /// No such session here.
    Unknown,
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Who.
    pub node: NodeId,
    /// How others reach it.
    pub addresses: wardlock_placement::Node,
    /// The groups that it leads.
    pub leads: Vec<GroupId>,
    /// Those of them in which a deadlock may be: a session waits there that does one thing at a time.
    pub waits: Vec<GroupId>,
}

/// A node's view, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Who answers.
    pub node: NodeId,
    /// Its software's version.
    pub version: String,
    /// Each of its groups.
    pub groups: Vec<GroupStatus>,
}

/// One replica, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// The replica here.
    pub replica: ReplicaId,
    /// Its term.
    pub term: u64,
    /// The leader's node, as far as this replica knows.
    pub leader: Option<NodeId>,
    /// The end of its log.
    pub last_log: Option<u64>,
    /// How far it has applied.
    pub applied: Option<u64>,
    /// How far its snapshot goes.
    pub snapshot: Option<u64>,
    /// On the leader: how far each member has the log.
    pub matched: Vec<(NodeId, Option<u64>)>,
}

/// Declined before it was proposed: nothing happened, ask elsewhere or later. The one exception says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// This replica does not lead the group.
    #[error("not the leader")]
    NotLeader {
        /// Who does, as far as it knows.
        hint: Option<NodeId>,
    },
    /// The group has no leader that reaches a majority.
    #[error("no leader reaches a majority of the shard's replicas")]
    NoQuorum,
    /// The name is outside the shard's range.
    #[error("the shard's range has changed")]
    StaleEpoch {
        /// The epoch of the range now.
        current: RangeEpoch,
        /// The version of the map in which the refusing node knows it.
        map: MapVersion,
    },
    /// This node hosts no replica of the group.
    #[error("this node has no replica of the shard")]
    NoReplica {
        /// The version of the refusing node's map.
        map: MapVersion,
    },
    /// Its queue is full.
    #[error("overloaded")]
    Overloaded,
    /// The disk is nearly full; what makes the state larger waits.
    #[error("the disk is nearly full")]
    DiskFull,
    /// The certificate does not allow this.
    #[error("not allowed: {0}")]
    NotAllowed(String),
    /// The message makes no sense.
    #[error("malformed: {0}")]
    Malformed(String),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
    /// **Not** a plain refusal: the write was proposed, and its answer is lost. Repeat it with the same
    /// request id.
    #[error("the outcome is unknown: repeat with the same request id")]
    OutcomeUnknown,
    /// This replica cannot show in time that its state is as young as was asked for. Another may.
    #[error("the replica's state may be older than that")]
    TooStale,
}
