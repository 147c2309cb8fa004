//! The API's documents for answers that go another way than HTTP, such as the command line's `-o json`: one
//! vocabulary for both.

use serde::Serialize;
use serde_json::Value;
use wardlock_machine::{
    ConfigView, Configured, DeadLetter, Grant, HookView, InstanceView, Millis, Name, Object, Revision, ServiceView,
    SessionView, WallMs,
};
use wardlock_placement::GroupId;

use super::watch::EventView;
use super::{
    config::{Document, Done, Listed},
    deadlocks::Deadlocks,
    render::{Granted, HolderView, LeaderView, LockView, Seconds, SessionDoc},
    services::{InstanceDoc, ServiceDoc},
    webhooks::{HookDoc, LetterDoc},
};
use crate::{
    client::Watched,
    deadlock::{Deadlock, Seen},
};

/// What an acquire or a renew answers.
pub fn granted(grant: &Grant) -> Value {
    document(&Granted::from(grant))
}

/// One holder of a lock.
pub fn holder(grant: &Grant) -> Value {
    document(&HolderView::from(grant))
}

/// A lock, with all holders and its queue.
pub fn lock(object: &Object) -> Value {
    document(&LockView::from(object))
}

/// The deadlocks that stand now, as they were found in what was seen.
pub fn deadlocks(found: &[Deadlock], seen: &Seen) -> Value {
    document(&Deadlocks::new(found, seen))
}

/// An election, with its candidates. All `null` where nobody leads.
pub fn leader(object: Option<&Object>) -> Value {
    document(&LeaderView::new(object, object.map_or(Revision::default(), |object| object.revision)))
}

/// A length of time, in seconds.
pub fn seconds(length: Millis) -> Value {
    document(&Seconds(length))
}

/// A session, with when its home's leader last heard of it.
pub fn session(view: &SessionView, heard: Option<WallMs>) -> Value {
    document(&SessionDoc::new(view, heard))
}

/// What a change of the configuration answers.
pub fn configured(path: &Name, done: &Configured) -> Value {
    document(&Done::new(path, done))
}

/// A path of the configuration, with its value.
pub fn config(view: &ConfigView) -> Value {
    document(&Document::new(view))
}

/// One version of a path, without its value.
pub fn config_version(view: &ConfigView) -> Value {
    document(&Listed::from(view))
}

/// An instance of a service.
pub fn instance(service: &Name, view: &InstanceView) -> Value {
    document(&InstanceDoc::new(service, view))
}

/// A service, and how many instances it has.
pub fn service(view: &ServiceView) -> Value {
    document(&ServiceDoc { service: &view.service, total: view.total, healthy: view.healthy })
}

/// Something that happened.
pub fn event(watched: &Watched) -> Value {
    document(&EventView::from(watched))
}

/// The notice that some of what happened is no longer kept.
pub fn gap() -> Value {
    serde_json::json!({ "event": "compacted" })
}

/// What names a delivery of a webhook: the same for each attempt of one event, and for no other event.
pub fn delivery_id(letter: &DeadLetter) -> String {
    match letter.event {
        Some(_) => format!("{}-{}", letter.shard, letter.revision),
        None => format!("gap-{}", letter.revision),
    }
}

/// A webhook, without its secret.
pub fn webhook(view: &HookView) -> Value {
    document(&HookDoc::from(view))
}

/// An event that a webhook's target did not take.
pub fn dead_letter(letter: &DeadLetter) -> Value {
    document(&LetterDoc::from(letter))
}

/// The body of a delivery: what a watch tells of the event, and to whom it is delivered. A repeat is the same to the
/// byte.
pub fn delivery(webhook: &Name, letter: &DeadLetter) -> Value {
    let mut body = match &letter.event {
        Some(told) => event(&Watched { shard: GroupId(letter.shard.0), event: told.clone().into() }),
        None => gap(),
    };
    body["webhookId"] = webhook.as_str().into();
    body["deliveryId"] = delivery_id(letter).into();
    body
}

fn document(of: &impl Serialize) -> Value {
    // Texts, numbers and lists of them: there is nothing in these that JSON cannot say.
    serde_json::to_value(of).unwrap_or_default()
}
