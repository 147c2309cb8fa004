//! What is said of the calls on sessions.

#![allow(dead_code, reason = "shapes: what they describe is read field by field")]

use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    super::{
        locks::spec::SESSION_ID,
        openapi::{Described, delete, get, post, shapes},
        render::{SessionDoc, Success},
    },
    Accepted, Kept, Sessions,
};

/// Who a session is.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
struct OpenSession {
    /// The client's own name for itself: the `holder` of what it holds.
    #[schema(value_type = shapes::Label)]
    client_id: (),
    /// How long it lives without a sign of life; 10 where it is not said.
    #[schema(value_type = Option<shapes::Ttl>)]
    ttl: (),
    #[schema(value_type = Option<shapes::Metadata>)]
    metadata: (),
    /// It does one thing at a time: while it waits for a lock, it gives nothing back. Circles of such sessions are
    /// deadlocks, and are ended. Kept in its metadata, as `wardlock/serial`.
    #[schema(value_type = Option<bool>)]
    serial: (),
}

pub(in super::super) fn calls() -> Vec<Described> {
    let calls = vec![
        post("open_session", "/sessions", "Opens a session")
            .takes::<OpenSession>(json!({"clientId": "worker-7", "ttl": 10, "metadata": {"host": "a1"}}))
            .writes(true)
            .answers::<SessionDoc<'_>>(201, "It lives; keep it alive.", session())
            .with_header(201, "Location", true, json!({"type": "string"}), "Its own path.")
            .refuses(&["id-taken", "session-ended"]),
        post("keep_alive", "/sessions/{sessionId}/keepalive", "Keeps a session alive")
            .about("Once in a third of its TTL is a good measure.")
            .takes_nothing()
            .reads()
            .answers::<Kept>(200, "It lives for another TTL.", json!({"success": true, "sessionId": SESSION_ID}))
            .refuses(&["session-ended", "unknown-session"]),
        get("session", "/sessions/{sessionId}", "Shows a session")
            .reads_as_asked()
            .answers::<SessionDoc<'_>>(200, "With what its home's leader remembers.", session())
            .refuses(&["session-ended", "unknown-session"]),
        delete("close_session", "/sessions/{sessionId}", "Ends a session and frees what it holds")
            .about("To end it again is no error.")
            .writes(false)
            .answers::<Success>(200, "Every shard has released what it held there.", json!({"success": true}))
            .answers::<Accepted>(
                202,
                "It has ended; some shard has not released yet what it held there.",
                json!({"success": true, "state": "closing"}),
            )
            .refuses(&["unknown-session"]),
        get("sessions", "/sessions", "Lists the open sessions")
            .about("In the order of their ids, over all shards; without `lastHeartbeat`.")
            .pages::<shapes::SessionId>(json!(SESSION_ID))
            .reads_as_asked()
            .answers::<Sessions<'_>>(200, "A page.", json!({"sessions": [session()], "next": null})),
    ];
    calls.into_iter().map(|call| call.tag("sessions")).collect()
}

fn session() -> Value {
    json!({
        "sessionId": SESSION_ID, "clientId": "worker-7", "createdAt": "2025-12-15T10:00:00.000Z",
        "lastHeartbeat": "2025-12-15T10:00:00.000Z", "ttl": 10, "state": "open", "metadata": {"host": "a1"}, "shards": [1],
    })
}
