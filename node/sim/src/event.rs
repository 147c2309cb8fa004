//! What happens in a run, as its clients and its operator see it: the checks' input, and the trace's lines.

use std::{fmt, sync::Arc};

use wardlock_machine::{EndReason, Health, LockId, Mode, SessionId, Token};

/// Asks a guard whether its holder may still believe in it.
#[derive(Clone)]
pub struct Believes(Arc<dyn Fn() -> bool + Send + Sync>);

impl Believes {
    /// By this.
    pub fn new(ask: impl Fn() -> bool + Send + Sync + 'static) -> Believes {
        Believes(Arc::new(ask))
    }

    /// Whether the holder believes now.
    pub fn now(&self) -> bool {
        (self.0)()
    }
}

impl fmt::Debug for Believes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("?")
    }
}

/// One request's number, in a run.
pub type Op = u64;

/// What somebody does about a fork, by its name.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Dines {
    Wants(String),
    Has(String),
    /// It was refused; whether it is certain that it does not have it.
    Unwanted(String, bool),
    /// It was refused, for sessions waited for each other in this circle.
    Victim(String, Vec<(SessionId, String)>),
    Lets(String),
    /// Whether it was told that it is free.
    Let(String, bool),
    /// It closes its session.
    Leaves,
}

/// What a watch tells.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Told {
    Granted { token: Token, mode: Mode },
    Ended { token: Token },
    Version { version: u64, deleted: bool, value: Option<String> },
    Registered { instance: String, session: SessionId },
    Deregistered { instance: String, reason: EndReason },
    Health { instance: String, health: Health },
}

/// Something that happened. Names are lock names, paths those of the configuration; `early` says by how many milliseconds of its holder's clock
/// something ended before its time.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Event {
    Opened {
        client: u32,
        session: SessionId,
        ttl: u64,
    },
    Closing {
        client: u32,
        session: SessionId,
    },
    SessionLost {
        client: u32,
        session: SessionId,
        early: u64,
    },
    Asked {
        client: u32,
        session: SessionId,
        op: Op,
        name: String,
        mode: Mode,
        waits: bool,
    },
    Granted {
        client: u32,
        op: Op,
        name: String,
        mode: Mode,
        token: Token,
        /// For how many milliseconds nobody else is granted it once it is lost.
        delay: u64,
        believes: Believes,
    },
    Refused {
        client: u32,
        op: Op,
        name: String,
        why: String,
        /// Whether it is certain that it was not granted.
        known: bool,
    },
    Renewed {
        client: u32,
        name: String,
        token: Token,
        done: bool,
    },
    Releasing {
        client: u32,
        name: String,
        token: Token,
    },
    Released {
        client: u32,
        name: String,
        token: Token,
        done: bool,
    },
    Lost {
        client: u32,
        name: String,
        token: Token,
        early: u64,
    },
    CutOff {
        client: u32,
    },
    HeardAgain {
        client: u32,
    },
    ReadBegan {
        op: Op,
        name: String,
    },
    Read {
        op: Op,
        name: String,
        holders: Vec<LockId>,
    },
    ReadFailed {
        op: Op,
        name: String,
        why: String,
    },
    Standing {
        op: Op,
        client: u32,
        name: String,
    },
    Elected {
        op: Op,
        client: u32,
        name: String,
        token: Token,
    },
    /// A leader has proclaimed its next stage: it counts them from 1.
    Proclaimed {
        op: Op,
        name: String,
        token: Token,
        stage: u32,
    },
    /// A leader makes room for somebody of a higher priority.
    Outranked {
        client: u32,
        name: String,
        token: Token,
    },
    /// By its token, and by the stage that it has proclaimed; 0 before the first.
    LeaderSeen {
        observer: u32,
        name: String,
        leader: Option<(Token, u32)>,
    },
    PathAsked {
        client: u32,
        op: Op,
        path: String,
        expected: Option<u64>,
        deletes: bool,
    },
    PathChanged {
        op: Op,
        path: String,
        version: u64,
        /// `None`: it was deleted.
        value: Option<String>,
    },
    PathMismatch {
        op: Op,
        path: String,
        current: u64,
    },
    PathRefused {
        op: Op,
        path: String,
        why: String,
        /// Whether it is certain that nothing was changed.
        known: bool,
    },
    PathReadBegan {
        op: Op,
        path: String,
    },
    PathRead {
        op: Op,
        path: String,
        /// 0 where it has no value.
        version: u64,
        value: Option<String>,
    },
    PathReadFailed {
        op: Op,
        path: String,
        why: String,
    },
    Registered {
        client: u32,
        op: Op,
        service: String,
        instance: String,
        session: SessionId,
        revision: u64,
        /// Whether its client believes in its session, and has not taken it off.
        believes: Believes,
    },
    NotRegistered {
        client: u32,
        op: Op,
        service: String,
        instance: String,
        why: String,
    },
    InstancesReadBegan {
        op: Op,
        service: String,
    },
    InstancesRead {
        op: Op,
        service: String,
        /// The shard's revision at which they were read.
        revision: u64,
        /// The ids, and at which revision each became what it is.
        ids: Vec<(String, u64)>,
    },
    InstancesReadFailed {
        op: Op,
        service: String,
        why: String,
    },
    /// Somebody watches from here on, to the end.
    WatchOpened {
        watcher: u32,
    },
    Told {
        watcher: u32,
        shard: u32,
        revision: u64,
        name: Arc<str>,
        told: Told,
    },
    WatchBroken {
        watcher: u32,
        why: String,
    },
    StaleBegan {
        op: Op,
        path: String,
        /// In milliseconds.
        max_age: Option<u64>,
    },
    StaleRead {
        op: Op,
        path: String,
        /// 0 where it has no value.
        version: u64,
        value: Option<String>,
        /// In milliseconds.
        age: Option<u64>,
    },
    StaleFailed {
        op: Op,
        path: String,
        why: String,
    },
    /// Somebody who does one thing at a time does something about a fork.
    Dines {
        client: u32,
        session: SessionId,
        what: Dines,
    },
    Fault {
        what: String,
    },
    /// Every fault has ended; the cluster has until the next event of this kind to become well.
    Healed,
    /// It is well again, as far as its operator can see.
    Well,
}

impl Event {
    /// What it is counted as.
    pub fn kind(&self) -> &'static str {
        match self {
            Event::Opened { .. } => "opened",
            Event::Closing { .. } => "closed",
            Event::SessionLost { .. } => "sessions lost",
            Event::Asked { .. } => "asked",
            Event::Granted { .. } => "granted",
            Event::Refused { .. } => "refused",
            Event::Renewed { .. } => "renewed",
            Event::Releasing { .. } => "releasing",
            Event::Released { .. } => "released",
            Event::Lost { .. } => "lost",
            Event::CutOff { .. } => "clients cut off",
            Event::HeardAgain { .. } => "clients heard again",
            Event::ReadBegan { .. } => "reading",
            Event::Read { .. } => "read",
            Event::ReadFailed { .. } => "reads failed",
            Event::Standing { .. } => "standing",
            Event::Elected { .. } => "elected",
            Event::Proclaimed { .. } => "proclaimed",
            Event::Outranked { .. } => "outranked",
            Event::LeaderSeen { .. } => "leaders seen",
            Event::PathAsked { .. } => "paths to change",
            Event::PathChanged { .. } => "paths changed",
            Event::PathMismatch { .. } => "paths changed by others",
            Event::PathRefused { .. } => "paths not changed",
            Event::PathReadBegan { .. } => "paths to read",
            Event::PathRead { .. } => "paths read",
            Event::PathReadFailed { .. } => "paths not read",
            Event::Registered { .. } => "instances registered",
            Event::NotRegistered { .. } => "instances not registered",
            Event::InstancesReadBegan { .. } => "services to list",
            Event::InstancesRead { .. } => "services listed",
            Event::InstancesReadFailed { .. } => "services not listed",
            Event::WatchOpened { .. } => "watches",
            Event::Told { .. } => "told",
            Event::WatchBroken { .. } => "watches broken",
            Event::StaleBegan { .. } => "paths to read stale",
            Event::StaleRead { .. } => "paths read stale",
            Event::StaleFailed { .. } => "paths not read stale",
            Event::Dines { .. } => "dined",
            Event::Fault { .. } => "faults",
            Event::Healed => "healed",
            Event::Well => "well",
        }
    }
}
