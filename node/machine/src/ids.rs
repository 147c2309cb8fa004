//! Identities and times, a newtype each: two bare integers in a signature would be a bug in waiting.
//!
//! Everything here is small, `Copy` where it can be, ordered, and has one text form that round-trips
//! through `Display` and `FromStr`.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::limits;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A shard's clock, in milliseconds since the shard was born. Not wall time: it advances only by
    /// the stamps that leaders log, so it stands still while a shard has no leader.
    Stamp(u64)
);
number!(
    /// Wall time in milliseconds since the Unix epoch. A field for people; nothing is decided by it.
    WallMs(u64)
);
number!(
    /// A length of time in milliseconds.
    Millis(u64)
);
number!(
    /// A fencing token: one per grant, from one counter per shard, only ever rising, always below 2⁵³
    /// so that JSON carries it whole.
    Token(u64)
);
number!(
    /// A shard's event counter: rises with every visible change.
    Revision(u64)
);
number!(
    /// Counts the changes of one configuration path, from 1. None ever means two values. 0 is what a path without a
    /// value has.
    Version(u64)
);
number!(
    /// Counts the changes of a shard's webhooks; no two changes have the same.
    HookEpoch(u64)
);
number!(
    /// Names one attempt of a session to attach to a shard.
    Nonce(u64)
);
number!(
    /// A slice of the hash space. The placement map numbers shards from 1; 0 is the placement group.
    ShardId(u32)
);
number!(
    /// Raised by a shard's own log whenever its range changes.
    RangeEpoch(u64)
);
number!(
    /// Raft leadership, as the entry's own log position carries it.
    Term(u64)
);
number!(
    /// Of the whole cluster; raised by a restore. Session ids carry it.
    Incarnation(u16)
);

impl Stamp {
    /// The stamp `by` later, saturating: a lease of the largest length never wraps into the past.
    pub fn after(self, by: Millis) -> Stamp {
        Stamp(self.0.saturating_add(by.0))
    }

    /// How long from `earlier` to `self`; zero where `earlier` is not earlier.
    pub fn since(self, earlier: Stamp) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

impl WallMs {
    /// The wall time `by` later, saturating.
    pub fn after(self, by: Millis) -> WallMs {
        WallMs(self.0.saturating_add(by.0))
    }
}

/// Why a text is not the id it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseIdError(pub &'static str);

/// A client's identity and liveness: 16 bits of incarnation, then 112 random bits. Never reused.
///
/// The text form is 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub u128);

impl SessionId {
    /// Builds an id from the cluster's incarnation and randomness of the caller's.
    pub fn new(incarnation: Incarnation, random: u128) -> SessionId {
        SessionId((u128::from(incarnation.0) << 112) | (random & ((1 << 112) - 1)))
    }

    /// The incarnation in which this session was opened.
    pub fn incarnation(self) -> Incarnation {
        Incarnation((self.0 >> 112) as u16)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for SessionId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<SessionId, ParseIdError> {
        let digits = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !digits {
            return Err(ParseIdError("a session id is 32 lower-case hexadecimal digits"));
        }
        u128::from_str_radix(text, 16)
            .map(SessionId)
            .map_err(|_| ParseIdError("a session id is 32 lower-case hexadecimal digits"))
    }
}

/// What a lock id says of its lock: a 32-bit FNV-1a hash of the key. Tokens count for each shard, so one
/// session may hold grants of the same token in two shards; by this their ids differ, and an id sent with
/// another lock's name is seen to be foreign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyTag(pub u32);

impl KeyTag {
    /// Of a key.
    pub fn of(key: &Key) -> KeyTag {
        let kind = match key.kind {
            Kind::Lock => 0,
            Kind::Election => 1,
            Kind::Config => 2,
            Kind::Service => 3,
            Kind::Hook => 4,
        };
        let bytes = [kind].into_iter().chain(key.name.as_str().bytes());
        KeyTag(bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)))
    }
}

/// Names one grant. It carries its session, so that a retried release finds its answer, its token, which
/// no other grant of the shard has, and what tells its lock from those of other shards.
///
/// The text form is `SESSION-TOKEN-TAG`, for example `0000…9f3c-1042-05f6a3c1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LockId {
    /// Whose grant it is.
    pub session: SessionId,
    /// Its fencing token.
    pub token: Token,
    /// Of which lock.
    pub tag: KeyTag,
}

impl LockId {
    /// The id of `session`'s grant of `key` with this token.
    pub fn new(session: SessionId, token: Token, key: &Key) -> LockId {
        LockId { session, token, tag: KeyTag::of(key) }
    }
}

impl fmt::Display for LockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{:08x}", self.session, self.token, self.tag.0)
    }
}

impl FromStr for LockId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<LockId, ParseIdError> {
        const WRONG: ParseIdError = ParseIdError("a lock id is SESSION-TOKEN-TAG, as acquire answered it");
        let (session, rest) = text.split_once('-').ok_or(WRONG)?;
        let (token, tag) = rest.split_once('-').ok_or(WRONG)?;
        let plain =
            !token.is_empty() && token.bytes().all(|b| b.is_ascii_digit()) && (token == "0" || !token.starts_with('0'));
        let hex = tag.len() == 8 && tag.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !plain || !hex {
            return Err(WRONG);
        }
        Ok(LockId {
            session: session.parse().map_err(|_| WRONG)?,
            token: Token(token.parse().map_err(|_| WRONG)?),
            tag: KeyTag(u32::from_str_radix(tag, 16).map_err(|_| WRONG)?),
        })
    }
}

/// A name, opaque once decoded: 1 to [`limits::NAME_BYTES`] bytes of UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Name(Arc<str>);

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It has no bytes.
    #[error("a name must not be empty")]
    Empty,
    /// It has too many.
    #[error("a name may have at most {max} bytes, this one has {0}", max = limits::NAME_BYTES)]
    TooLong(usize),
}

impl Name {
    /// Checks the length and takes the text.
    pub fn new(text: &str) -> Result<Name, NameError> {
        match text.len() {
            0 => Err(NameError::Empty),
            n if n > limits::NAME_BYTES + usize::from(crate::planted!("name-one-too-long")) => {
                Err(NameError::TooLong(n))
            }
            _ => Ok(Name(Arc::from(text))),
        }
    }

    /// A bound for ranges over names: any text, even none. It never becomes the name of an object.
    pub(crate) fn bound(text: &str) -> Name {
        Name(Arc::from(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl RequestId {
    /// Whether both name one request. A native retry may carry a higher `low` than the first attempt.
    pub fn is_same(&self, other: &RequestId) -> bool {
        match (self, other) {
            (RequestId::Native { seq: a, .. }, RequestId::Native { seq: b, .. }) => a == b,
            (RequestId::Keyed { key: a }, RequestId::Keyed { key: b }) => a == b,
            _ => false,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    /// Names from the network and the disk pass the same check as names from people.
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Name, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a name of 1 to {} bytes", limits::NAME_BYTES)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Name, E> {
                Name::new(text).map_err(E::custom)
            }
        }
        from.deserialize_str(Visitor)
    }
}

/// What kind of object a name names. The hash ignores it, so that all that shares a name shares a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A lock.
    Lock,
    /// An election: an exclusive lock with a value and an audience.
    Election,
    /// A configuration's path.
    Config,
    /// A service: its instances.
    Service,
    /// A webhook, by its id.
    Hook,
}

impl Kind {
    /// Its name, in the API and for people.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Lock => "lock",
            Kind::Election => "election",
            Kind::Config => "config",
            Kind::Service => "service",
            Kind::Hook => "webhook",
        }
    }
}

/// The full name of an object in a shard.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// What it is.
    pub kind: Kind,
    /// How it is called.
    pub name: Name,
}

impl Key {
    /// The key of the lock called `name`.
    pub fn lock(name: Name) -> Key {
        Key { kind: Kind::Lock, name }
    }

    /// The key of the election called `name`.
    pub fn election(name: Name) -> Key {
        Key { kind: Kind::Election, name }
    }

    /// The key of the configuration at the path `name`.
    pub fn config(name: Name) -> Key {
        Key { kind: Kind::Config, name }
    }

    /// The key of the service called `name`.
    pub fn service(name: Name) -> Key {
        Key { kind: Kind::Service, name }
    }

    /// The key of the webhook of the id `name`.
    pub fn hook(name: Name) -> Key {
        Key { kind: Kind::Hook, name }
    }
}

/// Makes a write idempotent: a repeat with the same id finds the first one's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RequestId {
    /// Of a native client: consecutive over its session's life, with the lowest number that the client
    /// still waits for. Answers below `low` are forgotten, and a request below it is refused.
    Native {
        /// This request's number.
        seq: u64,
        /// The lowest number still unanswered when this was sent.
        low: u64,
    },
    /// Of an HTTP caller: a hash of its `Idempotency-Key`, or random where it sent none. Kept for
    /// [`limits::KEY_LIFE`], bounded per session.
    Keyed {
        /// The hash.
        key: u128,
    },
}
