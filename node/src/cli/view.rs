//! Locks, elections and sessions as people and programs see them: the API's field names, times as RFC
//! 3339 in UTC.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use wardlock_machine::{Grant, Kind, Metadata, Mode, Object, SessionView, WallMs};

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

/// A mode in the API's words.
pub(super) fn mode(mode: Mode) -> String {
    match mode {
        Mode::Exclusive => "exclusive".to_owned(),
        Mode::Shared => "shared".to_owned(),
        Mode::Semaphore { permits } => format!("semaphore({permits})"),
    }
}

/// One holder, as JSON.
pub(super) fn grant(grant: &Grant) -> Value {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    put("lockId", json!(grant.lock_id.to_string()));
    put("holder", json!(grant.holder));
    put("sessionId", json!(grant.lock_id.session.to_string()));
    put("fencingToken", json!(grant.lock_id.token.0));
    put_mode(&mut put, grant.mode);
    put("acquiredAt", json!(time(grant.acquired)));
    put("expiresAt", json!(grant.expires.map(time)));
    put("sessionTtl", json!(grant.session_ttl.0 as f64 / 1000.0));
    put("waitedMs", json!(grant.waited.0));
    if let Some(value) = &grant.value {
        put("candidateId", json!(value));
    }
    put("metadata", json!(grant.metadata));
    Value::Object(fields)
}

fn put_mode<R>(put: &mut impl FnMut(&str, Value) -> R, mode: Mode) {
    match mode {
        Mode::Semaphore { permits } => {
            put("mode", json!("semaphore"));
            put("permits", json!(permits));
        }
        plain => {
            put("mode", json!(self::mode(plain)));
        }
    }
}

/// A lock or an election, as JSON: the first holder's fields, then all holders and the queue.
pub(super) fn object(object: &Object) -> Value {
    let (name_field, id_field) = match object.key.kind {
        Kind::Lock => ("lockName", "lockId"),
        Kind::Election => ("electionName", "leaderId"),
    };
    let first = object.holders.first();
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    put(name_field, json!(object.key.name.as_str()));
    match object.key.kind {
        Kind::Lock => {
            put(id_field, json!(first.map(|grant| grant.lock_id.to_string())));
            put("holder", json!(first.map(|grant| &grant.holder)));
            put("acquiredAt", json!(first.map(|grant| time(grant.acquired))));
            put("expiresAt", json!(first.and_then(|grant| grant.expires).map(time)));
        }
        Kind::Election => {
            put(id_field, json!(first.and_then(|grant| grant.value.as_ref())));
            put("electedAt", json!(first.map(|grant| time(grant.acquired))));
        }
    }
    put("holders", object.holders.iter().map(grant).collect());
    put("holderCount", json!(object.holder_count));
    let waiting = object.queue.iter().zip(1..).map(|(waiting, position): (_, u32)| {
        let mut fields = Map::new();
        let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
        put("position", json!(position));
        put("sessionId", json!(waiting.session.to_string()));
        put("holder", json!(waiting.holder));
        put_mode(&mut put, waiting.mode);
        put("priority", json!(waiting.priority));
        put("since", json!(time(waiting.since)));
        if let Some(value) = &waiting.value {
            put("candidateId", json!(value));
        }
        put("metadata", json!(waiting.metadata));
        Value::Object(fields)
    });
    put("queue", waiting.collect());
    put("queueCount", json!(object.queue_count));
    put("lockDelayUntil", json!(object.lock_delay_until.map(time)));
    put("revision", json!(object.revision.0));
    Value::Object(fields)
}

/// A session, as JSON.
pub(super) fn session(view: &SessionView, last_heartbeat: Option<WallMs>) -> Value {
    json!({
        "sessionId": view.session.to_string(),
        "clientId": view.client_id,
        "createdAt": time(view.created),
        "lastHeartbeat": last_heartbeat.map(time),
        "ttl": view.ttl.0 as f64 / 1000.0,
        "metadata": view.metadata,
        "closing": view.closing,
    })
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
