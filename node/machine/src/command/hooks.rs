//! What a shard is told about its webhooks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    ids::*,
    query::{Event, Pattern},
    secret::Secret,
};

/// Up to where a webhook has been told everything: a watch's position in each shard that is watched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The cluster's when the positions were taken.
    pub incarnation: Incarnation,
    /// The last revision of each shard.
    pub positions: BTreeMap<ShardId, Revision>,
}

/// Makes a webhook, or another of one that there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetHook {
    /// Makes a repeat harmless for [`limits::KEY_LIFE`](crate::limits::KEY_LIFE).
    pub request: u128,
    /// Which.
    pub key: Key,
    /// Where to deliver to. Whether that is allowed is the delivering node's to say.
    pub url: String,
    /// What is told.
    pub patterns: Vec<Pattern>,
    /// Signs what is delivered.
    pub secret: Secret,
    /// From where on.
    pub cursor: Cursor,
}

/// An event that a webhook's target did not take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Where it happened.
    pub shard: ShardId,
    /// The event's, or for the notice of a gap the sum of the positions behind it.
    pub revision: Revision,
    /// What happened; `None` for the notice that events are missing here.
    pub event: Option<Event>,
    /// How often it was tried.
    pub attempts: u32,
    /// Why the last attempt failed.
    pub error: String,
    /// When it was given up, by wall time. Set as it is applied.
    pub died: WallMs,
}

/// How far a webhook's deliveries have come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Advance {
    /// Which.
    pub key: Key,
    /// Its last change; of another it is refused.
    pub epoch: HookEpoch,
    /// Everything up to here is delivered or dead.
    pub cursor: Cursor,
    /// What has died since.
    pub dead: Vec<DeadLetter>,
    /// Those dead letters that were to be delivered once more and have been, or have died once more.
    pub settled: Vec<(ShardId, Revision)>,
    /// How many events were delivered since.
    pub delivered: u32,
    /// How many attempts failed since.
    pub failed: u32,
    /// Why the last attempt failed, where it did.
    pub error: Option<String>,
}

/// What is to become of a webhook's dead letters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettleDead {
    /// Makes a repeat harmless for [`limits::KEY_LIFE`](crate::limits::KEY_LIFE).
    pub request: u128,
    /// Of which webhook.
    pub key: Key,
    /// Deliver them once more; else forget them.
    pub redeliver: bool,
}
