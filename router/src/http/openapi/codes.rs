//! Every code that a refusal can have, and what its reader should do.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// A code: the status that it comes with, and what it means. In the order of the statuses.
pub(super) const CODES: &[(&str, u16, &str)] = &[
    ("no-token", 401, "Send X-Wardlock-Lock and X-Wardlock-Token, once each."),
    ("cross-site", 403, "A browser sent it for a page of another site: those may not call this."),
    ("not-allowed", 403, "The cluster does not allow it to this certificate."),
    ("stale-token", 403, "The token belongs to no grant of the lock that is held now: let nothing pass."),
    ("target-not-allowed", 403, "The configuration of this gateway names no such target of webhooks."),
    ("webhooks-off", 403, "The configuration of this gateway names no target of webhooks at all."),
    ("lock-free", 404, "Nobody holds the lock, and nobody waits for it."),
    ("no-leader", 404, "Nobody leads now."),
    ("no-such-instance", 404, "No instance of this id is registered with the service now."),
    ("no-such-path", 404, "The path has no value."),
    ("no-such-version", 404, "The version is not kept any more, was never made, or is a deletion."),
    ("no-such-webhook", 404, "The webhook was never made, or is deleted."),
    ("unknown-path", 404, "No call has this path."),
    ("unknown-session", 404, "The session was never opened, or ended long ago: open one."),
    ("unknown-shard", 404, "There is no such shard: see /cluster/shards."),
    ("method-not-allowed", 405, "The path takes other methods: see Allow."),
    ("request-timeout", 408, "The body did not arrive in time."),
    ("already-held", 409, "The session holds it by an earlier request; `lockId` says which grant that is."),
    ("cancelled", 409, "The wait was given up, by this request's own sender."),
    (
        "deadlock",
        409,
        "Sessions waited for each other, as `circle` says, and this wait was ended so that the others can \
     go on: give back what you hold, and try again after a pause.",
    ),
    ("foreign-instance", 409, "Another session has registered the instance meanwhile: it is that one's."),
    ("foreign-lock-id", 409, "The lock id is that of another lock."),
    ("held", 409, "Somebody else holds it, and the request did not wait: `holders` says who."),
    ("id-taken", 409, "The Idempotency-Key belongs to another client's session: take a fresh one."),
    ("mode-mismatch", 409, "It is in use in another mode, or with another number of permits."),
    ("not-leader", 409, "The session does not lead; `leaderId` does."),
    ("request-too-old", 409, "The answer of this request is no longer kept: look at the state of things."),
    ("session-bound", 409, "The instance goes with `sessionId`: keep that alive, and say by PUT how it fares."),
    ("version-mismatch", 409, "The path is at `currentVersion`, not at the expectedVersion: read it again."),
    ("wait-timeout", 409, "It was not free within `wait`: `holders` says who has it."),
    ("compacted", 410, "Some events are no longer kept: read what you watch anew, then watch since `resume`."),
    ("expired", 410, "The grant has ended: it ran out, was broken, or its session ended."),
    ("instance-ended", 410, "The instance's time ran out: register it anew."),
    ("restored", 410, "The cluster was restored from a backup: read anew, then watch without a token."),
    ("session-ended", 410, "The session has ended, and what it held is released: open another."),
    ("version-mismatch", 412, "The path is at `currentVersion`, not at that of the header: read it again."),
    ("too-large", 413, "The body, or the value in it, has more bytes than `limit`."),
    ("unsupported-media-type", 415, "Send the body as application/json."),
    ("incomplete-body", 422, "The body ended before its end."),
    ("invalid", 422, "The cluster refused it; `detail` says why."),
    ("invalid-field", 422, "The body's field, the parameter or the header `field` is out of its bounds."),
    ("invalid-json", 422, "The body is no JSON object."),
    ("invalid-name", 422, "The name in the path is none: 1 to 1024 bytes of UTF-8, escaped properly."),
    ("invalid-query", 422, "The query string is not well formed."),
    ("invalid-token", 422, "That is no token of a watch, or none of this one: take one whole, as it was answered."),
    ("missing-field", 422, "The body's field `field` is needed."),
    ("missing-parameter", 422, "A parameter is needed; `detail` says which."),
    ("unknown-field", 422, "The body has a field `field` that the call does not know."),
    ("unknown-parameter", 422, "The query has a parameter `field` that the call does not know."),
    ("quota", 429, "A bound is reached; `limit` says which."),
    ("internal", 500, "The cluster answered what it never should: report it."),
    ("disk-full", 503, "A disk is nearly full: releases go on, what grows waits. Try again after Retry-After."),
    ("not-ready", 503, "The process cannot serve now; `detail` says why."),
    ("overloaded", 503, "Too much is under way, and nothing happened: try again after Retry-After."),
    ("too-many-watches", 503, "This gateway has as many watches as it may: ask another."),
    ("too-stale", 503, "No replica is known to be as fresh as `maxAge`: try again, or ask for less."),
    ("unavailable", 503, "No leader could be reached in time, and nothing happened: try again after Retry-After."),
    ("outcome-unknown", 504, "It may or may not have happened. Repeat it with the same Idempotency-Key, or look."),
];

/// The statuses that a code comes with.
pub(super) fn statuses(code: &str) -> impl Iterator<Item = u16> {
    CODES.iter().filter(move |(known, ..)| *known == code).map(|(_, status, _)| *status)
}

/// What a code means, at a status.
pub(super) fn meaning(code: &str, status: u16) -> &'static str {
    CODES.iter().find(|(known, at, _)| (*known, *at) == (code, status)).map_or("", |(.., meaning)| meaning)
}

/// A refusal for each code, by its name in the document.
pub(super) fn examples() -> Map<String, Value> {
    let example = |(code, status, meaning): &(&str, u16, &str)| {
        let value = json!({
            "type": format!("urn:wardlock:problem:{code}"), "title": code.replace('-', " "), "status": status,
            "detail": meaning, "code": code,
        });
        (format!("{code}-{status}"), json!({"value": value}))
    };
    CODES.iter().map(example).collect()
}

/// The schema of a refusal, and that of its code.
pub(super) fn schemas() -> [(String, Value); 2] {
    let codes: BTreeSet<&str> = CODES.iter().map(|(code, ..)| *code).collect();
    let mut about = "Stable: programs decide by it.\n\n| code | status | |\n|---|---|---|\n".to_owned();
    for (code, status, meaning) in CODES {
        about += &format!("| `{code}` | {status} | {meaning} |\n");
    }
    let code = json!({"type": "string", "enum": codes, "description": about});
    let problem = json!({
        "type": "object",
        "description": "A refusal (RFC 9457). Further members carry what a program can use.",
        "required": ["type", "title", "status", "detail", "code"],
        "properties": {
            "type": {"type": "string", "pattern": "^urn:wardlock:problem:[a-z-]+$"},
            "title": {"type": "string", "description": "The same as `code`, for people."},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string", "description": "What is particular to this time."},
            "code": {"$ref": "#/components/schemas/Code"},
            "success": {"type": "boolean", "const": false},
            "field": {"type": "string", "description": "The field, parameter or header that is wrong."},
            "limit": {"type": ["integer", "string"], "description": "The bound that is reached."},
            "outcome": {"type": "string", "const": "unknown"},
            "holder": {"type": ["string", "null"]},
            "holders": {"type": "array", "items": {"$ref": "#/components/schemas/Holder"}},
            "holderCount": {"type": "integer", "minimum": 0},
            "waiters": {"type": "integer", "minimum": 0},
            "lockDelayUntil": {"type": ["string", "null"], "format": "date-time"},
            "lockId": {"type": "string"},
            "sessionId": {"type": "string"},
            "fencingToken": {"type": "integer", "minimum": 0},
            "mode": {"type": "string"},
            "permits": {"type": ["integer", "null"]},
            "queuePosition": {"type": "integer", "minimum": 0},
            "currentVersion": {"type": "integer", "minimum": 0},
            "leaderId": {"type": ["string", "null"]},
            "resume": {"type": "string", "description": "The token to watch since."},
        },
    });
    [("Code".to_owned(), code), ("Problem".to_owned(), problem)]
}
