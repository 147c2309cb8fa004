//! An election's audience over HTTP: who leads and what is proclaimed, one after the other, and what comes of gaps.

use std::{sync::Arc, time::Duration};

use axum::response::Response;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::timeout};
use wardlock_machine::*;
use wardlock_placement::GroupId;
use wardlock_router::{WatchError, WatchToken, Watched, http::Gateway};

use self::http_support::*;

mod http_support;

/// Of the first incarnation, shard 1 at 5.
const TOKEN: &str = "AQEBAQU0k7EF";
const ELECTED: &str = "2025-12-15T10:00:00.000Z";

type Sender = mpsc::UnboundedSender<Result<Watched, WatchError>>;

fn token() -> WatchToken {
    TOKEN.parse().unwrap()
}

/// A watch that the next call opens.
fn opens(fake: &Fake) -> Sender {
    let (sender, events) = mpsc::unbounded_channel();
    fake.watches.lock().unwrap().push_back(Ok(Told { events, token: token() }));
    sender
}

fn event(revision: u64, what: What) -> Result<Watched, WatchError> {
    let at = WallMs(1_765_792_800_000);
    let event = Event { revision: Revision(revision), at, key: Key::election(name("e")), what };
    Ok(Watched { shard: GroupId(1), event: Arc::new(event) })
}

fn granted(revision: u64, token: u64, who: &str) -> Result<Watched, WatchError> {
    let (mode, holder, value) = (Mode::Exclusive, "worker-7".to_owned(), Some(who.to_owned()));
    event(revision, What::Granted { lock_id: lock_id(token), mode, holder, value })
}

fn proclaimed(revision: u64, token: u64, value: &str) -> Result<Watched, WatchError> {
    let (holder, value, acquired) = ("worker-7".to_owned(), value.to_owned(), WallMs(1_765_792_800_000));
    event(revision, What::Proclaimed { lock_id: lock_id(token), holder, value, acquired })
}

fn ended(revision: u64, token: u64) -> Result<Watched, WatchError> {
    event(revision, What::Ended { lock_id: lock_id(token), reason: EndReason::Released })
}

fn leads(token: u64, who: &str, revision: u64) -> Answer {
    Answer::Object(Some(object(Key::election(name("e")), led(token, who), revision)))
}

/// A listener, piece by piece.
struct Listener(axum::body::Body);

async fn observe(gateway: &Gateway<Fake>, last: Option<&str>) -> Response {
    let mut request = request("GET", "/api/v1/leader/e/observe", "");
    if let Some(last) = last {
        request.headers_mut().insert("last-event-id", last.parse().unwrap());
    }
    gateway.handle(request).await
}

impl Listener {
    async fn new(gateway: &Gateway<Fake>, last: Option<&str>) -> Listener {
        let response = observe(gateway, last).await;
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Listener(response.into_body())
    }

    /// The next event's name and document; nothing where only the token moves.
    async fn next(&mut self) -> (String, Value) {
        let frame = timeout(Duration::from_secs(60), self.0.frame()).await.expect("a piece").expect("goes on").unwrap();
        let text = String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap();
        assert!(text.starts_with(&format!("id: {TOKEN}\n")) && text.ends_with("\n\n"), "{text:?}");
        let line = |field: &str| text.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
        (line("event: ").to_owned(), serde_json::from_str(line("data: ")).unwrap_or_default())
    }

    async fn leader(&mut self) -> Value {
        let (event, document) = self.next().await;
        assert_eq!(event, "leader", "{document}");
        document["leaderId"].clone()
    }
}

#[tokio::test]
async fn every_leader_and_every_proclamation_is_told_in_order() {
    let fake = Fake::new();
    let events = opens(&fake);
    fake.answers(leads(1, "one", 3));
    let mut audience = Listener::new(&fake.gateway(), None).await;
    let (kind, first) = audience.next().await;
    assert_eq!((kind.as_str(), &first["candidates"], &first["candidateCount"]), ("leader", &json!([]), &json!(0)));
    assert_eq!(
        (&first["leaderId"], &first["electedAt"], &first["fencingToken"], &first["lockId"], &first["revision"]),
        (&json!("one"), &json!(ELECTED), &json!(1), &json!(lock_id(1).to_string()), &json!(3))
    );
    let pattern = Pattern { kind: Kind::Election, name: "e".into(), prefix: false };
    assert_eq!(*fake.watched.lock().unwrap(), [(vec![pattern], None)]);

    // What the look had in it is not told again.
    events.send(granted(3, 1, "one")).unwrap();
    events.send(proclaimed(5, 1, "one/2")).unwrap();
    events.send(proclaimed(6, 1, "one/3")).unwrap();
    let (_, second) = audience.next().await;
    let document = json!({
        "leaderId": "one/2", "electedAt": ELECTED, "fencingToken": 1, "sessionId": SESSION.to_string(),
        "lockId": lock_id(1).to_string(), "revision": 5,
    });
    assert_eq!(second, document);
    assert_eq!(audience.leader().await, "one/3");

    // Who comes to wait is told; the leader hears of it, too.
    let enrolled = What::Enrolled { session: SESSION, holder: "worker-8".into(), value: "two".into(), priority: -3 };
    events.send(event(7, enrolled)).unwrap();
    let candidate = json!({
        "candidateId": "two", "holder": "worker-8", "sessionId": SESSION.to_string(), "priority": -3,
        "waitingSince": ELECTED,
    });
    assert_eq!(audience.next().await, ("candidate".to_owned(), candidate));

    // A handover is one change, whether its two events come together or not.
    events.send(ended(8, 1)).unwrap();
    events.send(granted(9, 2, "two")).unwrap();
    assert_eq!(audience.leader().await, "two");
    fake.answers(leads(3, "three", 11));
    events.send(ended(10, 2)).unwrap();
    tokio::task::yield_now().await;
    let ((), leader) = tokio::join!(
        async {
            while !fake.answers.lock().unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
            events.send(granted(11, 3, "three")).unwrap();
        },
        audience.leader()
    );
    assert_eq!(leader, "three");

    // Nobody follows.
    fake.answers(Answer::Object(None));
    events.send(ended(12, 3)).unwrap();
    let (kind, nobody) = audience.next().await;
    assert_eq!((kind.as_str(), &nobody["leaderId"], &nobody["electedAt"]), ("leader", &Value::Null, &Value::Null));
    assert_eq!(nobody["revision"], json!(12));
}

#[tokio::test]
async fn who_comes_back_is_told_what_it_missed_and_behind_a_gap_the_leader_as_it_is() {
    let fake = Fake::new();
    let gateway = fake.gateway();
    let events = opens(&fake);
    let mut back = Listener::new(&gateway, Some(TOKEN)).await;
    assert_eq!(back.next().await, (String::new(), Value::Null), "it knows the leader");
    assert_eq!(fake.watched.lock().unwrap().pop().unwrap().1, Some(token()));
    events.send(proclaimed(6, 1, "one/2")).unwrap();
    assert_eq!(back.leader().await, "one/2");

    // A gap in the midst, and events that the look behind it has in it.
    fake.answers(leads(4, "four", 20));
    events.send(Err(WatchError::Compacted { resume: token() })).unwrap();
    events.send(granted(20, 4, "four")).unwrap();
    events.send(proclaimed(21, 4, "four/2")).unwrap();
    assert_eq!(back.leader().await, "four");
    assert_eq!(back.leader().await, "four/2");

    // A gap at the beginning: it was away for too long, or there was a restore.
    fake.watches.lock().unwrap().push_back(Err(WatchError::Compacted { resume: token() }));
    opens(&fake);
    fake.answers(leads(5, "five", 30));
    let mut late = Listener::new(&gateway, Some(TOKEN)).await;
    assert_eq!(late.leader().await, "five");
    assert_eq!(fake.watched.lock().unwrap().pop().unwrap().1, Some(token()), "from where nothing is missing");

    // Behind a restore the stream ends: whoever comes back begins anew.
    events.send(Err(WatchError::Restored)).unwrap();
    assert!(timeout(Duration::from_secs(60), back.0.frame()).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_silent_election_shows_that_the_stream_is_there() {
    let fake = Fake::new();
    let _events = opens(&fake);
    fake.answers(Answer::Object(None));
    let mut audience = Listener::new(&fake.gateway(), None).await;
    assert_eq!(audience.leader().await, Value::Null);
    assert_eq!(audience.next().await, (String::new(), Value::Null));
}

#[tokio::test]
async fn what_makes_no_sense_is_a_plain_refusal() {
    let fake = Fake::new();
    let gateway = fake.gateway();
    for last in ["", "x", "7"] {
        let (status, problem) = document(observe(&gateway, Some(last)).await).await;
        assert_eq!((status, &problem["code"]), (422, &json!("invalid-token")), "{last}");
    }
    fake.watches.lock().unwrap().push_back(Err(WatchError::Token("of another time")));
    assert_eq!(document(observe(&gateway, Some(TOKEN)).await).await.0, 422);
    fake.watches.lock().unwrap().push_back(Err(WatchError::Cluster(wardlock_router::Error::Overloaded)));
    assert_eq!(document(observe(&gateway, None).await).await.0, 503);
}
