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

/// What a leader proclaims, and which leader: one of both.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
struct Proclaim {
    /// What observers see as the leader from now on.
    #[schema(value_type = shapes::Label)]
    value: (),
    #[schema(value_type = Option<shapes::LockId>)]
    lock_id: (),
    #[schema(value_type = Option<shapes::SessionId>)]
    session_id: (),
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
            .reads()
            .answers::<LeaderView<'_>>(200, "Somebody leads.", leader.clone())
            .may_be_stale()
            .refuses(&["no-leader"]),
        post("resign", "/leader/{electionName}/resign", "Gives a leadership back")
            .about("By lock id as it stands; by session id it is looked up first.")
            .takes::<Resign>(json!({"sessionId": SESSION_ID}))
            .demands("anyOf", one_of_both(&[]))
            .writes(true)
            .answers::<Success>(200, "Nobody leads, or the next in the queue.", json!({"success": true}))
            .refuses(&["expired", "foreign-lock-id", "no-leader", "not-leader", "request-too-old"])
            .refuses(&["session-ended", "unknown-session"]),
        post("proclaim", "/leader/{electionName}/proclaim", "Gives an election another value while its leader leads")
            .about(
                "Observers see it as `leaderId`; the term of office and its fencing token stay. By lock id as it \
                    stands; by session id it is looked up first.",
            )
            .takes::<Proclaim>(json!({"value": "node-a: ready", "sessionId": SESSION_ID}))
            .demands("anyOf", one_of_both(&["value"]))
            .writes(true)
            .answers::<ProclaimedView<'_>>(
                200,
                "That is what observers see.",
                json!({
                    "success": true, "leaderId": "node-a: ready", "electedAt": "2025-12-15T10:00:00.000Z",
                    "lockId": LOCK_ID, "fencingToken": 1042,
                }),
            )
            .refuses(&["expired", "foreign-lock-id", "no-leader", "not-leader", "request-too-old"])
            .refuses(&["session-ended", "unknown-session"]),
        get("observe", "/leader/{electionName}/observe", "Tells who leads, as a stream")
            .about(
                "Server-sent events: `leader`, whose data is the document that shows who leads, for each leader and \
                    each proclamation, in order; `candidate` where somebody comes to wait. It opens with the leader as \
                    it is; after `Last-Event-ID`, with what has happened since. It does not end.",
            )
            .header::<shapes::WatchToken>(
                "Last-Event-ID",
                false,
                json!(TOKEN),
                "The id of the last event that was heard.",
            )
            .refuses(&["invalid-token", "too-many-watches"])
            .reads()
            .answers_as(
                200,
                "A stream that does not end.",
                "text/event-stream",
                json!({"type": "string"}),
                json!(format!("id: {TOKEN}\nevent: leader\ndata: {leader}\n\n")),
            ),
    ];
    calls.into_iter().map(|call| call.tag("elections")).collect()
}

/// Which leadership is meant, beside what is needed in any case.
fn one_of_both(needed: &[&str]) -> Value {
    let by = |this: &str, other: &str| {
        let needed: Vec<&str> = needed.iter().copied().chain([this]).collect();
        json!({"properties": {this: {"type": "string"}, other: {"type": "null"}}, "required": needed})
    };
    json!([by("lockId", "sessionId"), by("sessionId", "lockId")])
}
