//! What is said of the call that shows deadlocks.

use serde_json::json;

use super::{
    super::{
        locks::spec::SESSION_ID,
        openapi::{Described, get},
    },
    Deadlocks,
};

pub(in super::super) fn calls() -> Vec<Described> {
    let step = |holder: &str, lock: &str| json!({"holder": holder, "sessionId": SESSION_ID, "waitsFor": lock});
    let deadlock = json!({
        "victim": SESSION_ID, "lockName": "b", "since": "2025-12-15T10:00:00.000Z",
        "circle": [step("worker-7", "b"), step("worker-8", "a")], "circleLength": 2,
    });
    let calls = vec![
        get("deadlocks", "/locks:deadlocks", "Lists the deadlocks that stand now")
            .about(
                "Sessions that said `serial` when they were opened and that wait for each other in a circle, over all \
                 shards. The cluster ends each within some two seconds: the waits of the victims are answered by 409 \
                 `deadlock`.",
            )
            .reads()
            .answers::<Deadlocks>(200, "Those that two looks showed.", json!({"deadlocks": [deadlock]})),
    ];
    calls.into_iter().map(|call| call.tag("locks")).collect()
}
