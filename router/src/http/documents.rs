//! The API's documents for answers that go another way than HTTP, such as the command line's `-o json`: one
//! vocabulary for both.

use serde::Serialize;
use serde_json::Value;
use wardlock_machine::{
    ConfigView, Configured, Grant, InstanceView, Millis, Name, Object, Revision, ServiceView, SessionView, WallMs,
};

use super::watch::EventView;
use super::{
    config::{Document, Done, Listed},
    render::{Granted, HolderView, LeaderView, LockView, Seconds, SessionDoc},
    services::{InstanceDoc, ServiceDoc},
};
use crate::client::Watched;

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

fn document(of: &impl Serialize) -> Value {
    // Texts, numbers and lists of them: there is nothing in these that JSON cannot say.
    serde_json::to_value(of).unwrap_or_default()
}
