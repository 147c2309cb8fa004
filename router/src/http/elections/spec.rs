//! What is said of the calls on elections.

#![allow(dead_code, reason = "shapes: what they describe is read field by field")]

use serde_json::{Value, json};
use utoipa::ToSchema;

use super::super::{
    locks::spec::{LOCK_ID, SESSION_ID, TOKEN},
    openapi::{Described, get, post, shapes},
    render::{ElectionView, LeaderView, ProclaimedView, Success},
};

/// Who wants to lead.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
struct Elect {
    /// What it is called when it leads.
    #[schema(value_type = shapes::Label)]
    candidate_id: (),
    #[schema(value_type = shapes::SessionId)]
    session_id: (),
    /// How long it may queue. 0, which it is where it is not said, is answered at once.
    #[schema(value_type = Option<shapes::Wait>)]
    wait: (),
    #[schema(value_type = Option<shapes::Priority>)]
    priority: (),
    #[schema(value_type = Option<shapes::Metadata>)]
    metadata: (),
}

/// Who resigns: one of both.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
struct Resign {
    #[schema(value_type = Option<shapes::LockId>)]
    lock_id: (),
    #[schema(value_type = Option<shapes::SessionId>)]
    session_id: (),
}

/// What a leader proclaims; which leadership, by one of both.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
struct Proclaim {
    /// What it is called from now on, for as long as it leads.
    #[schema(value_type = shapes::Label)]
    value: (),
    #[schema(value_type = Option<shapes::LockId>)]
    lock_id: (),
    #[schema(value_type = Option<shapes::SessionId>)]
    session_id: (),
}

/// A leadership is named by its lock id or by its session.
fn one_of_both() -> Value {
    json!([
        {"properties": {"lockId": {"type": "string"}, "sessionId": {"type": "null"}}, "required": ["lockId"]},
        {"properties": {"lockId": {"type": "null"}, "sessionId": {"type": "string"}}, "required": ["sessionId"]},
    ])
}

pub(in super::super) fn calls() -> Vec<Described> {
    let leader = json!({
        "leaderId": "node-a", "electedAt": "2025-12-15T10:00:00.000Z", "fencingToken": 1042, "sessionId": SESSION_ID,
        "lockId": LOCK_ID, "candidates": [], "candidateCount": 0, "revision": 5,
    });
    let calls = vec![
        post("elect", "/leader/election/{electionName}", "Campaigns in an election")
            .about("Losing is an answer, not an error. To campaign again is answered the same again.")
            .takes::<Elect>(json!({"candidateId": "node-a", "sessionId": SESSION_ID}))
            .writes(true)
            .answers::<ElectionView<'_>>(
                200,
                "Who leads.",
                json!({
                    "isLeader": true, "leaderId": "node-a", "electedAt": "2025-12-15T10:00:00.000Z",
                    "lockId": LOCK_ID, "fencingToken": 1042, "sessionTtl": 10,
                }),
            )
            .refuses(&["cancelled", "id-taken", "mode-mismatch", "request-too-old"])
            .refuses(&["expired", "session-ended", "unknown-session"]),
        get("leader", "/leader/{electionName}", "Shows who leads, and the candidates")
            .reads_as_asked()
            .answers::<LeaderView<'_>>(200, "Somebody leads.", leader.clone())
            .refuses(&["no-leader"]),
        post("resign", "/leader/{electionName}/resign", "Gives a leadership back")
            .about("By lock id as it stands; by session id it is looked up first.")
            .takes::<Resign>(json!({"sessionId": SESSION_ID}))
            .demands("anyOf", one_of_both())
            .writes(true)
            .answers::<Success>(200, "Nobody leads, or the next in the queue.", json!({"success": true}))
            .refuses(&["expired", "foreign-lock-id", "no-leader", "not-leader", "request-too-old"])
            .refuses(&["session-ended", "unknown-session"]),
        post("proclaim", "/leader/{electionName}/proclaim", "Gives a leader another value")
            .about("The audience is told. By lock id as it stands; by session id it is looked up first.")
            .takes::<Proclaim>(json!({"sessionId": SESSION_ID, "value": "node-a:8080"}))
            .demands("anyOf", one_of_both())
            .writes(true)
            .answers::<ProclaimedView<'_>>(
                200,
                "It is called that.",
                json!({
                    "success": true, "leaderId": "node-a:8080", "electedAt": "2025-12-15T10:00:00.000Z",
                    "lockId": LOCK_ID, "fencingToken": 1042,
                }),
            )
            .refuses(&["expired", "foreign-lock-id", "no-leader", "not-leader", "request-too-old"])
            .refuses(&["session-ended", "unknown-session"]),
        get("observe", "/leader/{electionName}/observe", "Tells who leads, as a stream")
            .about(
                "Server-sent events. `leader` says who leads, as the document of the call that shows it: every \
                    leader and every proclamation, and that nobody leads. `candidate` says who comes to wait. It opens \
                    with the leader as it is; whoever comes back with the `id` of the last event as `Last-Event-ID` \
                    misses nothing. It does not end.",
            )
            .header::<shapes::WatchToken>(
                "Last-Event-ID",
                false,
                json!(TOKEN),
                "The id of the last event that was heard.",
            )
            .reads()
            .answers_as(
                200,
                "A stream that does not end.",
                "text/event-stream",
                json!({"type": "string"}),
                json!(format!("id: {TOKEN}\nevent: leader\ndata: {leader}\n\n")),
            )
            .refuses(&["compacted", "invalid-token", "restored", "too-many-watches"]),
    ];
    calls.into_iter().map(|call| call.tag("elections")).collect()
}
