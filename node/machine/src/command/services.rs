//! What a shard is told about its services, and what that comes to.

use serde::{Deserialize, Serialize};

use crate::{
    ids::*,
    instance::{Health, InstanceSpec},
};

/// Asks for an instance to be registered, or for what is registered under its id to be replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// Makes a repeat harmless for [`limits::KEY_LIFE`](crate::limits::KEY_LIFE).
    pub request: u128,
    /// The service.
    pub key: Key,
    /// The instance's id in the service, at most [`limits::LABEL_BYTES`](crate::limits::LABEL_BYTES).
    pub instance: Name,
    /// The session with which it goes. It must be attached to this shard.
    pub session: SessionId,
    /// The session was opened for this instance alone, and is to be closed with it by whoever takes it off.
    pub private: bool,
    /// What it says of itself.
    pub spec: InstanceSpec,
    /// How it fares.
    pub health: Health,
}

/// An instance is registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The shard's revision at which it became what it is.
    pub revision: Revision,
    /// When it was registered, by the leader's wall clock.
    pub registered: WallMs,
    /// The private session of what it replaced, where that is another: nobody needs it any more.
    pub replaced: Option<SessionId>,
}

/// An instance is not registered any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deregistered {
    /// The shard's revision of it.
    pub revision: Revision,
    /// Its private session, if it had one: nobody needs it any more.
    pub private: Option<SessionId>,
}
