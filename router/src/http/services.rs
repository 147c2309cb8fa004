//! Services: instances, registered for as long as a session lives, found by whoever asks.

use serde::Serialize;
use wardlock_machine::{SessionId, What};

use super::render::Text;

/// What an event says of an instance.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventInstance<'a> {
    instance_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<Text<SessionId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

impl<'a> EventInstance<'a> {
    /// Of an event that is about one.
    pub(super) fn of(what: &'a What) -> Option<EventInstance<'a>> {
        let view = |instance: &'a wardlock_machine::Name| EventInstance {
            instance_id: instance.as_str(),
            address: None,
            port: None,
            tags: None,
            weight: None,
            health: None,
            session_id: None,
            reason: None,
        };
        match what {
            What::Registered { instance, session, address, port, tags, weight, health } => Some(EventInstance {
                address: Some(address),
                port: Some(*port),
                tags: Some(tags),
                weight: Some(*weight),
                health: Some(health.name()),
                session_id: Some(Text(*session)),
                ..view(instance)
            }),
            What::Deregistered { instance, reason } => {
                let reason = match reason {
                    wardlock_machine::EndReason::Released => "deregistered",
                    other => other.name(),
                };
                Some(EventInstance { reason: Some(reason), ..view(instance) })
            }
            What::Health { instance, health } => Some(EventInstance { health: Some(health.name()), ..view(instance) }),
            What::Granted { .. } | What::Ended { .. } | What::Configured { .. } => None,
        }
    }
}
