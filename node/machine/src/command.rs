//! What a shard can be told to do, and what it answers.
//!
//! A leader packs many commands into one [`Batch`], with one stamp; the batch is one entry of the
//! shard's log. `apply` gives one [`Outcome`] for each command, in order.

mod config;
mod hooks;
mod services;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::{config::*, hooks::*, services::*};
use crate::{
    ids::*,
    instance::Health,
    waits::{BreakDeadlock, Circle},
};

/// What people attach to a session or a grant: host, pid, user, reason, trace id.
pub type Metadata = BTreeMap<String, String>;

/// One log entry of a shard: commands proposed together by one leader at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// The shard's clock as the leader reckoned it.
    pub at: Stamp,
    /// Wall time, for the fields that people read.
    pub wall: WallMs,
    /// The range epoch under which the leader checked that the names belong here. If the shard's range
    /// has changed since, every command that names a key or opens a session is answered
    /// [`Outcome::StaleEpoch`].
    pub epoch: RangeEpoch,
    /// What to do, in order.
    pub commands: Vec<Command>,
}

/// How a lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// One holder.
    Exclusive,
    /// Any number of shared holders, no exclusive one.
    Shared,
    /// At most `permits` holders at once, one permit each. All holders and waiters of a lock name the
    /// same number; another is answered [`Outcome::Mismatch`].
    Semaphore {
        /// The number of permits.
        permits: u32,
    },
}

/// Asks for a lock or campaigns in an election.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Acquire {
    /// Who asks. It must be attached to this shard.
    pub session: SessionId,
    /// Makes a repeat harmless.
    pub request: RequestId,
    /// What is asked for.
    pub key: Key,
    /// How it is to be held. Elections are exclusive.
    pub mode: Mode,
    /// The grant's own lease; without one it lives as long as its session.
    pub lease: Option<Millis>,
    /// How long to queue; zero tries once.
    pub wait: Millis,
    /// Waiters of a higher priority go first; FIFO within one.
    pub priority: i32,
    /// How long the lock stays closed after this grant was lost (expired or its session ended) rather
    /// than released.
    pub lock_delay: Millis,
    /// Shown to whoever looks or waits. It overlays the session's own.
    pub metadata: Metadata,
    /// For elections: the candidate's id, which is the election's value while it leads.
    pub value: Option<String>,
}

impl Acquire {
    /// The plainest request: exclusive, tried once, held as long as the session lives.
    pub fn new(session: SessionId, request: RequestId, key: Key) -> Acquire {
        Acquire {
            session,
            request,
            key,
            mode: Mode::Exclusive,
            lease: None,
            wait: Millis(0),
            priority: 0,
            lock_delay: Millis(0),
            metadata: Metadata::new(),
            value: None,
        }
    }
}

/// What the home tells a shard about a session that attaches to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The client's own name for itself; answered as `holder`.
    pub client_id: String,
    /// The session's TTL.
    pub ttl: Millis,
    /// The session's metadata.
    pub metadata: Metadata,
}

/// Why a grant or a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EndReason {
    /// Its holder gave it back.
    Released,
    /// Its own lease ran out.
    LeaseExpired,
    /// Its session ran out.
    SessionExpired,
    /// Its session was closed by the client.
    SessionClosed,
    /// An operator broke it.
    Broken,
    /// It was granted to a waiter whose client never fetched it.
    Unfetched,
}

impl EndReason {
    /// Its name, in answers and metrics.
    pub fn name(self) -> &'static str {
        match self {
            EndReason::Released => "released",
            EndReason::LeaseExpired => "lease-expired",
            EndReason::SessionExpired => "session-expired",
            EndReason::SessionClosed => "session-closed",
            EndReason::Broken => "broken",
            EndReason::Unfetched => "unfetched",
        }
    }
}

/// All that can be done to a shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    // The shard itself. Proposed by its leader only.
    /// Gives the shard its range of the hash space, inclusive at both ends, and its epoch.
    SetRange {
        /// First hash of the range.
        first: u64,
        /// Last hash of the range.
        last: u64,
        /// Must exceed the present epoch, else nothing changes.
        epoch: RangeEpoch,
        /// The cluster's incarnation.
        incarnation: Incarnation,
    },
    /// Moves the clock and ends what is due: leases, waits, lock-delays, old keyed answers.
    Tick,

    // Sessions, at home.
    /// Opens a session. A repeat with the same id and client answers the same.
    OpenSession {
        /// The new session's id.
        session: SessionId,
        /// Who it is.
        holder: Holder,
    },
    /// The client ends its session: it starts to close.
    CloseSession {
        /// Which.
        session: SessionId,
    },
    /// The leader saw these sessions' deadlines pass in `term`. Refused where the entry's own log term
    /// is another: a new leader owes each session a full TTL.
    ExpireSessions {
        /// Which.
        sessions: Vec<SessionId>,
        /// The leader's term when it watched the deadlines pass.
        term: Term,
    },
    /// Records how much of their TTL silent sessions have left, so that a series of failovers cannot
    /// keep a dead client alive. `None` clears the record of one that spoke again.
    Checkpoint {
        /// Which, and what is left.
        sessions: Vec<(SessionId, Option<Millis>)>,
    },
    /// A shard asks whether it may let the session in; the home remembers the attachment.
    Attach {
        /// Which session.
        session: SessionId,
        /// The asking shard.
        shard: ShardId,
    },
    /// A shard has dropped all that a closing session had there.
    Detached {
        /// Which session.
        session: SessionId,
        /// The shard that dropped it.
        shard: ShardId,
    },

    // Sessions, at a shard that they use.
    /// First use of this shard by a session: remember that its home is being asked.
    Pend {
        /// Which.
        session: SessionId,
    },
    /// The home said yes to the attempt `nonce`.
    Confirm {
        /// Which session.
        session: SessionId,
        /// Which attempt.
        nonce: Nonce,
        /// What the home knows of it.
        holder: Holder,
    },
    /// The home said no to the attempt `nonce`.
    Unpend {
        /// Which session.
        session: SessionId,
        /// Which attempt.
        nonce: Nonce,
    },
    /// The home tells that the session has ended: drop its grants, waiters, candidacies, attachment and
    /// pending attempt. A page at a time; `Outcome::Dropped { more }` says whether to send it again.
    Drop {
        /// Which.
        session: SessionId,
        /// Why: it ran out or was closed.
        reason: EndReason,
    },

    // Locks and elections.
    /// Asks for a lock, or campaigns.
    Acquire(Acquire),
    /// Gives a grant back.
    Release {
        /// Makes a repeat harmless.
        request: RequestId,
        /// Of what.
        key: Key,
        /// Which grant.
        lock_id: LockId,
    },
    /// Extends a grant's lease to `lease` from now. Same token.
    Renew {
        /// Makes a repeat harmless.
        request: RequestId,
        /// Of what.
        key: Key,
        /// Which grant.
        lock_id: LockId,
        /// The new lease; `None` repeats the length that the grant has.
        lease: Option<Millis>,
    },
    /// An operator's forced release of every holder.
    Break {
        /// Of what.
        key: Key,
        /// Why; kept in the answer and the audit log.
        reason: String,
    },
    /// Takes a waiter out of the queue, or gives back a grant that it got meanwhile and that nobody
    /// fetched.
    Cancel {
        /// Whose.
        session: SessionId,
        /// The request that waits.
        request: RequestId,
        /// For what.
        key: Key,
    },

    /// Changes a path of the configuration.
    Configure(Configure),

    /// The leader of an election gives it another value. Same term of office, same token.
    Proclaim {
        /// Makes a repeat harmless.
        request: RequestId,
        /// Of which election.
        key: Key,
        /// By which grant it leads.
        lock_id: LockId,
        /// What observers see as the leader from now on.
        value: String,
    },

    // Services.
    /// Registers an instance of a service.
    Register(Register),
    /// Takes an instance of a service off.
    Deregister {
        /// Makes a repeat harmless for [`limits::KEY_LIFE`](crate::limits::KEY_LIFE).
        request: u128,
        /// The service.
        key: Key,
        /// Which of its instances.
        instance: Name,
        /// Only if it is this session's.
        session: Option<SessionId>,
    },
    /// Says how an instance fares.
    ReportHealth {
        /// Makes a repeat harmless for [`limits::KEY_LIFE`](crate::limits::KEY_LIFE).
        request: u128,
        /// The service.
        key: Key,
        /// Which of its instances.
        instance: Name,
        /// Whose it is.
        session: SessionId,
        /// How it fares.
        health: Health,
    },

    // Webhooks.
    /// Makes a webhook.
    SetHook(SetHook),
    /// Ends a webhook; its dead letters go with it.
    DropHook {
        /// Makes a repeat harmless for [`limits::KEY_LIFE`](crate::limits::KEY_LIFE).
        request: u128,
        /// Which.
        key: Key,
    },
    /// Logs how far a webhook has come. Said by its shard's leader only.
    Advance(Advance),
    /// Has a webhook's dead letters delivered once more, or forgets them.
    SettleDead(SettleDead),

    /// Ends a wait that is part of a deadlock. Said by whoever sees the waits of all shards, the placement group's
    /// leader.
    BreakDeadlock(BreakDeadlock),
}

impl Command {
    /// Whether clients may send it. The rest is said by leaders to their own shard or by one shard to
    /// another, over a node's certificate only.
    pub fn is_public(&self) -> bool {
        matches!(
            self,
            Command::OpenSession { .. }
                | Command::CloseSession { .. }
                | Command::Acquire(_)
                | Command::Release { .. }
                | Command::Renew { .. }
                | Command::Break { .. }
                | Command::Cancel { .. }
                | Command::Configure(_)
                | Command::Proclaim { .. }
                | Command::Register(_)
                | Command::Deregister { .. }
                | Command::ReportHealth { .. }
                | Command::SetHook(_)
                | Command::DropHook { .. }
                | Command::SettleDead(_)
        )
    }

    /// Whether it makes the shard's state larger; these are refused while the disk is nearly full.
    pub fn grows(&self) -> bool {
        match self {
            Command::OpenSession { .. } | Command::Acquire(_) | Command::Pend { .. } | Command::Attach { .. } => true,
            Command::Configure(ask) => ask.change != Change::Delete,
            Command::Register(_) | Command::SetHook(_) => true,
            _ => false,
        }
    }

    /// The session that this command is about, if it is about one.
    pub fn session(&self) -> Option<SessionId> {
        match self {
            Command::OpenSession { session, .. }
            | Command::CloseSession { session }
            | Command::Attach { session, .. }
            | Command::Detached { session, .. }
            | Command::Pend { session }
            | Command::Confirm { session, .. }
            | Command::Unpend { session, .. }
            | Command::Drop { session, .. }
            | Command::Cancel { session, .. }
            | Command::ReportHealth { session, .. } => Some(*session),
            Command::BreakDeadlock(ask) => Some(ask.session),
            Command::Acquire(acquire) => Some(acquire.session),
            Command::Release { lock_id, .. } | Command::Renew { lock_id, .. } | Command::Proclaim { lock_id, .. } => {
                Some(lock_id.session)
            }
            Command::Register(ask) => Some(ask.session),
            Command::Deregister { session, .. } => *session,
            Command::SetRange { .. }
            | Command::Tick
            | Command::ExpireSessions { .. }
            | Command::Checkpoint { .. }
            | Command::Configure(_)
            | Command::Break { .. }
            | Command::SetHook(_)
            | Command::DropHook { .. }
            | Command::Advance(_)
            | Command::SettleDead(_) => None,
        }
    }

    /// The key whose shard must apply this, where the command belongs to a key rather than to a session.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Command::Acquire(acquire) => Some(&acquire.key),
            Command::Configure(ask) => Some(&ask.key),
            Command::Release { key, .. }
            | Command::Renew { key, .. }
            | Command::Break { key, .. }
            | Command::Cancel { key, .. }
            | Command::Proclaim { key, .. }
            | Command::Deregister { key, .. }
            | Command::ReportHealth { key, .. }
            | Command::DropHook { key, .. } => Some(key),
            Command::Register(ask) => Some(&ask.key),
            Command::SetHook(ask) => Some(&ask.key),
            Command::Advance(ask) => Some(&ask.key),
            Command::SettleDead(ask) => Some(&ask.key),
            Command::BreakDeadlock(ask) => Some(&ask.key),
            _ => None,
        }
    }
}

/// One holding of a lock, as it is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Its name.
    pub lock_id: LockId,
    /// The holder's client id.
    pub holder: String,
    /// How it is held.
    pub mode: Mode,
    /// Its own lease, if it has one.
    pub lease: Option<Millis>,
    /// The session's TTL.
    pub session_ttl: Millis,
    /// When it was granted, by the leader's wall clock.
    pub acquired: WallMs,
    /// When its lease ends, by the same clock; `None` where it lives as long as its session.
    pub expires: Option<WallMs>,
    /// How long it queued.
    pub waited: Millis,
    /// For elections: the candidate's id, or what it has proclaimed since.
    pub value: Option<String>,
    /// The holder's metadata.
    pub metadata: Metadata,
    /// The shard's revision at which it was granted.
    pub revision: Revision,
}

/// Who is in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocked {
    /// The holders, at most a few.
    pub holders: Vec<Grant>,
    /// How many holders there are in all.
    pub holder_count: u32,
    /// How many wait.
    pub waiters: u32,
    /// Until when the lock stays closed after a loss, by wall time.
    pub lock_delay_until: Option<WallMs>,
}

/// Decided by `apply`, identical on every replica. An answer, not an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Done, and there is nothing to say.
    Done,
    /// The lock is held now.
    Granted(Grant),
    /// The session held it already, by another request; this is that grant. There is no re-entrance.
    AlreadyHeld(Grant),
    /// The request queues; a later apply settles it.
    Queued {
        /// From 1, the next in line.
        position: u32,
    },
    /// Somebody else holds it, and the request did not ask to wait.
    Held(Blocked),
    /// The wait ended without a grant.
    WaitTimeout(Blocked),
    /// The request was taken back by its client, or another request of the same session took its place.
    Cancelled,
    /// Other holders or waiters use this semaphore with another number of permits, or this lock in a
    /// mode that is no semaphore's.
    Mismatch {
        /// The mode in use.
        mode: Mode,
    },
    /// The grant was given back.
    Released,
    /// The grant goes on, with the lease that was asked for or the value that was proclaimed.
    Renewed(Grant),
    /// The grant is no longer there: it ran out, was broken, or its session ended. Nothing changed. A
    /// retried acquire or renewal is answered so too, where what it was once granted has gone meanwhile,
    /// by release too: nobody is told that it holds what it does not.
    Expired,
    /// The lock id does not belong to this lock: a different name, or no grant of this shard's.
    Foreign,
    /// The holders that were thrown out, at most a page of them and
    /// [`limits::ANSWER_BYTES`](crate::limits::ANSWER_BYTES); empty where the lock was free.
    Broken(Vec<Grant>),
    /// The session is open.
    Opened {
        /// When it was opened, by wall time.
        created: WallMs,
    },
    /// The session id is in use by another client.
    IdTaken,
    /// The session ends; its shards are being told.
    Closing,
    /// The session has ended, and that is remembered.
    Ended,
    /// No such session here.
    UnknownSession,
    /// The session is not attached to this shard: its home must be asked first.
    NotAttached,
    /// The home let the shard in.
    Attached(Holder),
    /// The attempt to attach is on record.
    Pending {
        /// Its name.
        nonce: Nonce,
    },
    /// The session's things here are gone, or a page of them.
    Dropped {
        /// Whether there is more to drop.
        more: bool,
    },
    /// The range changed after the leader checked; nothing was done.
    StaleEpoch {
        /// The range's epoch now.
        current: RangeEpoch,
    },
    /// The entry's log term is not the one in which the deadlines were watched; nothing was done.
    StaleTerm,
    /// The request id is below what is kept; nothing was done.
    TooOld,
    /// A bound of the shard is reached; nothing was done.
    Limit(Limit),
    /// The path has a new version.
    Configured(Configured),
    /// The path's version is not the expected one; nothing was done.
    VersionMismatch {
        /// The version now; 0 where the path has no value.
        current: Version,
    },
    /// The path has no value to delete, or the version to roll back to is not kept or was a deletion.
    NoConfig,
    /// The instance is registered.
    Registered(Registered),
    /// The instance is registered no more.
    Deregistered(Deregistered),
    /// How the instance fares is on record.
    HealthReported {
        /// The shard's revision at which the instance became what it is.
        revision: Revision,
    },
    /// No instance of this id is registered; nothing was done.
    NoInstance,
    /// The instance is registered by another session; nothing was done.
    ForeignInstance,
    /// The webhook is as it was asked to be.
    HookChanged {
        /// The change's number.
        epoch: HookEpoch,
        /// How many dead letters it was about.
        letters: u32,
    },
    /// The webhook was changed meanwhile; nothing was done.
    StaleHook {
        /// Its last change.
        current: HookEpoch,
    },
    /// No such webhook here.
    NoHook,
    /// The wait was part of a circle of sessions that wait for each other, and was ended so that the others can go on.
    /// A repeat is told so without the circle.
    Deadlock(Circle),
}

/// Which bound was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Limit {
    /// Holders of one lock.
    Holders,
    /// Waiters of one lock.
    Waiters,
    /// Grants and waiters of one session in one shard.
    GrantsPerSession,
    /// Sessions of one home shard.
    Sessions,
    /// Fencing tokens below 2⁵³.
    Tokens,
    /// A field is larger or smaller than its bound allows.
    Field,
    /// Paths of one shard that have a value.
    Configs,
    /// The bytes of one shard's configuration.
    ConfigBytes,
    /// Instances of one shard's services.
    Instances,
    /// The bytes of these.
    InstanceBytes,
    /// Webhooks of one shard.
    Hooks,
    /// Their bytes.
    HookBytes,
}

/// What an apply did besides answering its own commands. The leader's shell acts on it; followers drop it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Waiters whose request is now answered, in order.
    pub settled: Vec<Settled>,
    /// Grants that ended otherwise than by release, for the metrics.
    pub lost: Vec<EndReason>,
    /// Sessions that were opened, in order.
    pub opened: Vec<SessionId>,
    /// Sessions that started to close, with the reason.
    pub closing: Vec<(SessionId, EndReason)>,
    /// Sessions whose end every attached shard has acknowledged.
    pub ended: Vec<SessionId>,
    /// Some webhook was made, dropped or changed otherwise than by progress: whoever delivers looks anew.
    pub hooks: bool,
}

/// The answer to a request that had queued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Whose request.
    pub session: SessionId,
    /// Which.
    pub request: RequestId,
    /// For what.
    pub key: Key,
    /// Its final answer.
    pub outcome: Outcome,
}
