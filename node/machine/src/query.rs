//! What can be read from a shard, and what comes back. A query changes nothing and is not logged; the
//! shell makes it linearizable before it asks.

use serde::{Deserialize, Serialize};

use crate::{
    blob::Blob,
    command::{Cursor, DeadLetter, EndReason, Grant, Metadata, Mode},
    ids::*,
    instance::*,
    waits::Wait,
};

/// A question to one shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Query {
    /// One lock or election, with its holders and its queue.
    Object {
        /// Which.
        key: Key,
    },
    /// A page of this shard's objects, in the order of their names.
    List {
        /// Locks or elections.
        kind: Kind,
        /// Only names that start so.
        prefix: String,
        /// Only those that somebody holds (`true`) or nobody does but some wait for (`false`).
        held: Option<bool>,
        /// Only those that this session holds or waits for.
        session: Option<SessionId>,
        /// Only names after this one.
        after: Option<String>,
        /// At most so many; capped by the machine.
        limit: u32,
    },
    /// One session, at its home.
    Session {
        /// Which.
        session: SessionId,
    },
    /// A page of the sessions that are at home here, in the order of their ids.
    Sessions {
        /// Only ids after this one.
        after: Option<SessionId>,
        /// At most so many; capped by the machine.
        limit: u32,
    },
    /// Do these tokens belong to grants that are held now?
    Fence {
        /// Each a lock and a token.
        checks: Vec<(Key, Token)>,
    },
    /// One path of the configuration.
    Config {
        /// Which.
        key: Key,
        /// As it was at this version; else as it is now.
        version: Option<Version>,
    },
    /// The versions of a path that are kept.
    Versions {
        /// Which.
        key: Key,
    },
    /// A page of the paths that have a value here, in their order.
    Configs {
        /// Only paths that start so.
        prefix: String,
        /// Only paths after this one.
        after: Option<String>,
        /// At most so many; capped by the machine.
        limit: u32,
    },
    /// A page of what happened, in its order.
    Events {
        /// Only what happened after this revision.
        after: Revision,
        /// Only what one of these fits.
        patterns: Vec<Pattern>,
        /// At most so many; capped by the machine.
        limit: u32,
    },
    /// A page of a service's instances, in the order of their ids.
    Service {
        /// Which service.
        key: Key,
        /// Only healthy ones.
        healthy: bool,
        /// Only those with this tag.
        tag: Option<String>,
        /// Only ids after this one.
        after: Option<String>,
        /// At most so many; capped by the machine.
        limit: u32,
    },
    /// One instance of a service.
    Instance {
        /// Of which service.
        key: Key,
        /// Which.
        instance: Name,
    },
    /// A page of the services that have an instance here, in the order of their names.
    Services {
        /// Only names that start so.
        prefix: String,
        /// Only names after this one.
        after: Option<String>,
        /// At most so many; capped by the machine.
        limit: u32,
    },
    /// Some healthy instances of a service, drawn by weight.
    Sample {
        /// Of which service.
        key: Key,
        /// At most so many, and at most [`limits::SAMPLE`](crate::limits::SAMPLE).
        count: u32,
        /// What chance comes from: the same seed draws the same from the same instances.
        seed: u64,
    },
    /// One webhook.
    Hook {
        /// Which.
        key: Key,
    },
    /// A page of this shard's webhooks, in the order of their ids.
    Hooks {
        /// Only ids after this one.
        after: Option<String>,
        /// At most so many; capped by the machine at [`limits::HOOK_PAGE`](crate::limits::HOOK_PAGE).
        limit: u32,
    },
    /// The dead letters of a webhook.
    DeadLetters {
        /// Which.
        key: Key,
    },
    /// A page of the waiters for those locks for which a session waits that does one thing at a time: of these deadlocks
    /// are made.
    Waits {
        /// Only of locks after this one.
        after: Option<Key>,
    },
}

/// Which objects events are asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pattern {
    /// Of this kind.
    pub kind: Kind,
    /// That are called so, or whose names start so.
    pub name: String,
    /// Which of the two.
    pub prefix: bool,
}

/// The answer to a [`Query`] of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// `None` where nobody holds it, nobody waits and no lock-delay runs.
    Object(Option<Object>),
    /// In the order of names.
    List(Vec<Object>),
    /// `Err` says whether its end is remembered.
    Session(Result<SessionView, SessionGone>),
    /// In the order of ids.
    Sessions(Vec<SessionView>),
    /// One verdict for each check, in order.
    Fence(Vec<bool>),
    /// With its value. `None` where it has none now, or the version asked for is not kept.
    Config(Option<ConfigView>),
    /// Newest first, without values.
    Versions(Vec<ConfigView>),
    /// In the order of paths, without values.
    Configs(Vec<ConfigView>),
    /// In the order of revisions.
    Events(Result<EventPage, NoEvents>),
    /// In the order of ids. Of a service that nobody registered it is empty.
    Service(ServicePage),
    /// `None` where it is not registered.
    Instance(Option<InstanceView>),
    /// In the order of names.
    Services(Vec<ServiceView>),
    /// In the order in which they were drawn, each once.
    Sample(Vec<InstanceView>),
    /// `None` where there is none.
    Hook(Option<HookView>),
    /// In the order of ids.
    Hooks(Vec<HookView>),
    /// Oldest first, those that are to be delivered once more in front, as many as there is room for. `None` where there
    /// is no such webhook.
    DeadLetters(Option<Vec<DeadLetter>>),
    /// Lock by lock, in the order of their names, each lock's next in line first.
    Waits {
        /// Those for which there is room. Of the last lock of a page that has more behind it, all.
        waits: Vec<Wait>,
        /// There are more.
        more: bool,
    },
}

/// A webhook as it is shown: without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookView {
    /// Its id.
    pub name: Name,
    /// Where it delivers to.
    pub url: String,
    /// What it is told. In a list left out where there is no room.
    pub patterns: Vec<Pattern>,
    /// When it was made, by wall time.
    pub created: WallMs,
    /// Its last change, progress included.
    pub epoch: HookEpoch,
    /// How far it has come. In a list left out where there is no room.
    pub cursor: Cursor,
    /// How many dead letters are kept.
    pub dead: u32,
    /// How many of its dead letters are to be delivered once more.
    pub again: u32,
    /// How many events its target took.
    pub delivered: u64,
    /// How many attempts failed.
    pub failed: u64,
    /// How many dead letters were not kept, for want of room.
    pub lost: u64,
    /// Why the last attempt failed, where it did.
    pub error: Option<String>,
}

/// Something that happened to an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The shard's revision of it; no other event of the shard has the same.
    pub revision: Revision,
    /// When, by wall time.
    pub at: WallMs,
    /// To what.
    pub key: Key,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// A lock has one more holder, or an election a leader.
    Granted {
        /// The grant.
        lock_id: LockId,
        /// How it is held.
        mode: Mode,
        /// The holder's client id.
        holder: String,
        /// For elections: the candidate's id.
        value: Option<String>,
    },
    /// A grant has ended.
    Ended {
        /// Which.
        lock_id: LockId,
        /// Why.
        reason: EndReason,
    },
    /// A path of the configuration has a new version.
    Configured {
        /// Which.
        version: Version,
        /// It is a deletion.
        deleted: bool,
        /// What the value is; empty for a deletion.
        content_type: String,
        /// The value's length in bytes.
        size: u32,
        /// The value, where the version is kept still, it has no more than
        /// [`limits::EVENT_VALUE_BYTES`](crate::limits::EVENT_VALUE_BYTES), and there is room. In the state it is
        /// not kept twice.
        value: Option<Blob>,
    },
    /// The leader of an election has given it another value. It leads as before, by the same grant.
    Proclaimed {
        /// The grant.
        lock_id: LockId,
        /// The leader's client id.
        holder: String,
        /// The value from now on.
        value: String,
        /// Since when it leads, by wall time.
        acquired: WallMs,
    },
    /// A candidate waits for its turn to lead an election. Those who wait for a lock are told to nobody.
    Enrolled {
        /// Whose candidate.
        session: SessionId,
        /// The session's client id.
        holder: String,
        /// The candidate's id.
        value: String,
        /// Its priority.
        priority: i32,
    },
    /// An instance of a service is registered, or what was registered under its id is replaced. Its metadata is to be
    /// read.
    Registered {
        /// Which.
        instance: Name,
        /// The session with which it goes.
        session: SessionId,
        /// Where it is.
        address: String,
        /// On which port.
        port: u16,
        /// What it can be chosen by.
        tags: Vec<String>,
        /// Its share of what is sampled.
        weight: u16,
        /// How it fares.
        health: Health,
    },
    /// An instance of a service is not registered any more.
    Deregistered {
        /// Which.
        instance: Name,
        /// Why.
        reason: EndReason,
    },
    /// An instance of a service fares otherwise.
    Health {
        /// Which.
        instance: Name,
        /// How.
        health: Health,
    },
}

/// A page of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventPage {
    /// What happened, in its order.
    pub events: Vec<Event>,
    /// Up to where the page goes: all that was asked for after the one and up to the other is in it.
    pub upto: Revision,
}

/// Why there is no page of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoEvents {
    /// Some that were asked for are no longer kept.
    Compacted {
        /// The last of which that may be said; those after it are there.
        gone: Revision,
        /// The shard's revision now.
        now: Revision,
    },
    /// It was asked for what comes after a revision that the shard has not reached.
    Ahead {
        /// The shard's revision now.
        now: Revision,
    },
}

/// One version of a path of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigView {
    /// Of which.
    pub path: Name,
    /// Which.
    pub version: Version,
    /// The shard's revision when it was made.
    pub revision: Revision,
    /// When it was made, by wall time.
    pub updated: WallMs,
    /// It is a deletion.
    pub deleted: bool,
    /// What the value is; empty for a deletion.
    pub content_type: String,
    /// The value's length in bytes.
    pub size: u32,
    /// The value, where it was asked for.
    pub value: Option<Blob>,
}

/// An instance of a service as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceView {
    /// Which.
    pub instance: Name,
    /// What it says of itself.
    pub spec: InstanceSpec,
    /// The session with which it goes.
    pub session: SessionId,
    /// The session was opened for it alone.
    pub private: bool,
    /// The session's TTL.
    pub ttl: Millis,
    /// How it fares.
    pub health: Health,
    /// When it was registered, by wall time.
    pub registered: WallMs,
    /// The shard's revision when it last changed.
    pub revision: Revision,
}

/// A page of a service's instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePage {
    /// In the order of their ids; bounded by [`limits::ANSWER_BYTES`](crate::limits::ANSWER_BYTES), too.
    pub instances: Vec<InstanceView>,
    /// How many instances the service has in all.
    pub total: u32,
    /// How many of these are healthy.
    pub healthy: u32,
    /// More were asked for than are here: they come after the last one.
    pub more: bool,
    /// The shard's revision: what happens to the service from now on comes after it.
    pub revision: Revision,
}

/// A service that has an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceView {
    /// Which.
    pub service: Name,
    /// How many instances it has in all.
    pub total: u32,
    /// How many of these are healthy.
    pub healthy: u32,
}

/// Why a session cannot be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionGone {
    /// It ended, and that is remembered.
    Ended,
    /// Never heard of, or long forgotten.
    Unknown,
}

/// A lock or an election as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Which.
    pub key: Key,
    /// Who holds it, in the order of their tokens; capped at a page, in lists at
    /// [`limits::SHOWN`](crate::limits::SHOWN), and by [`limits::ANSWER_BYTES`](crate::limits::ANSWER_BYTES).
    pub holders: Vec<Grant>,
    /// How many hold it in all.
    pub holder_count: u32,
    /// Who waits, next in line first; capped as the holders are.
    pub queue: Vec<Waiting>,
    /// How many wait in all.
    pub queue_count: u32,
    /// Until when it stays closed after a loss, by wall time.
    pub lock_delay_until: Option<WallMs>,
    /// The shard's revision when its holders last changed, or what the leader of an election proclaims: what every
    /// event of it up to this one says is in here.
    pub revision: Revision,
}

/// One waiter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Whose.
    pub session: SessionId,
    /// Its client id.
    pub holder: String,
    /// How it wants to hold.
    pub mode: Mode,
    /// Its priority.
    pub priority: i32,
    /// Since when it waits, by wall time.
    pub since: WallMs,
    /// The waiter's metadata.
    pub metadata: Metadata,
    /// For elections: the candidate's id.
    pub value: Option<String>,
}

/// A session as its home's state has it. When it was last heard of is the leader's memory, not this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionView {
    /// Which.
    pub session: SessionId,
    /// The client's own name for itself.
    pub client_id: String,
    /// Its TTL.
    pub ttl: Millis,
    /// When it was opened, by wall time.
    pub created: WallMs,
    /// Its metadata.
    pub metadata: Metadata,
    /// The shards in which it is known.
    pub shards: Vec<ShardId>,
    /// It has ended and its shards are being told.
    pub closing: bool,
}

/// How much of what a shard has, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Exclusive grants held.
    pub exclusive: u64,
    /// Shared grants held.
    pub shared: u64,
    /// Semaphore permits held.
    pub semaphore: u64,
    /// Requests that queue.
    pub waiters: u64,
    /// Those of them whose sessions do one thing at a time, of which deadlocks are made.
    pub serial_waiters: u64,
    /// Open sessions at home here.
    pub sessions: u64,
    /// Grants ever given; never falls.
    pub grants_total: u64,
    /// Paths of the configuration that have a value.
    pub configs: u64,
    /// Their bytes, as [`limits::CONFIG_BYTES`](crate::limits::CONFIG_BYTES) counts them.
    pub config_bytes: u64,
    /// The bytes of earlier versions, as [`limits::CONFIG_OLD_BYTES`](crate::limits::CONFIG_OLD_BYTES) counts them.
    pub config_old_bytes: u64,
    /// Services that have an instance.
    pub services: u64,
    /// Their instances.
    pub instances: ByHealth,
    /// The instances' bytes, as [`limits::INSTANCE_BYTES`](crate::limits::INSTANCE_BYTES) counts them.
    pub instance_bytes: u64,
    /// Webhooks.
    pub hooks: u64,
}

impl Counts {
    /// The count of grants held in a mode.
    pub(crate) fn of_mode(&mut self, mode: Mode) -> &mut u64 {
        match mode {
            Mode::Exclusive => &mut self.exclusive,
            Mode::Shared => &mut self.shared,
            Mode::Semaphore { .. } => &mut self.semaphore,
        }
    }
}
