//! Locks and elections as people see them, and as programs do: by the API's documents.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;
use wardlock_machine::{Grant, Kind, Metadata, Mode, Object, WallMs};
use wardlock_router::http::documents;

use super::output::Table;

/// The last moment that RFC 3339 can write.
const LAST_MS: u64 = 253_402_300_799_999;

/// A wall time as text.
pub(super) fn time(at: WallMs) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(at.0.min(LAST_MS))).to_string()
}

/// The wall time now, for people only.
pub(super) fn wall_now() -> WallMs {
    let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallMs(u64::try_from(since.as_millis()).unwrap_or(LAST_MS))
}

/// How long ago, in whole seconds: `3m 20s`.
pub(super) fn age(since: WallMs) -> String {
    let ms = wall_now().0.saturating_sub(since.0);
    humantime::format_duration(Duration::from_secs(ms / 1000)).to_string()
}

/// Where an instance is. An address of version 6 stands in brackets.
pub(super) fn endpoint(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// A mode in the API's words.
pub(super) fn mode(mode: Mode) -> String {
    match mode {
        Mode::Exclusive => "exclusive".to_owned(),
        Mode::Shared => "shared".to_owned(),
        Mode::Semaphore { permits } => format!("semaphore({permits})"),
    }
}

/// What an acquire came to, as JSON; its session may be one that nobody else knows.
pub(super) fn grant(grant: &Grant) -> Value {
    let mut document = documents::granted(grant);
    document["sessionId"] = grant.lock_id.session.to_string().into();
    document
}

/// A lock or an election, as JSON.
pub(super) fn object(object: &Object) -> Value {
    match object.key.kind {
        Kind::Lock | Kind::Config | Kind::Service | Kind::Hook => documents::lock(object),
        Kind::Election => documents::leader(Some(object)),
    }
}

/// Who holds it, as a table.
pub(super) fn holders(object: &Object) -> Table {
    let mut table = Table::new(["HOLDER", "MODE", "TOKEN", "FOR", "EXPIRES", "LOCK ID", "METADATA"]);
    for grant in &object.holders {
        table.row([
            grant.value.clone().unwrap_or_else(|| grant.holder.clone()),
            mode(grant.mode),
            grant.lock_id.token.to_string(),
            age(grant.acquired),
            grant.expires.map_or_else(|| "with its session".to_owned(), time),
            grant.lock_id.to_string(),
            metadata(&grant.metadata),
        ]);
    }
    table
}

/// Who waits, as a table.
pub(super) fn queue(object: &Object) -> Table {
    let mut table = Table::new(["POSITION", "WAITER", "MODE", "PRIORITY", "FOR", "METADATA"]);
    for (waiting, position) in object.queue.iter().zip(1..) {
        let position: u32 = position;
        table.row([
            position.to_string(),
            waiting.value.clone().unwrap_or_else(|| waiting.holder.clone()),
            mode(waiting.mode),
            waiting.priority.to_string(),
            age(waiting.since),
            metadata(&waiting.metadata),
        ]);
    }
    table
}

/// `key=value key=value`.
pub(super) fn metadata(metadata: &Metadata) -> String {
    metadata.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_can_be_written() {
        assert_eq!(time(WallMs(0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(WallMs(u64::MAX)), "9999-12-31T23:59:59.999Z");
    }
}
