//! Elections and their audience.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::timeout;
use wardlock_machine::*;
use wardlock_wire::{Op, Response};

use super::fake::{Fake, Reply, map, well};
use crate::client::{Client, LeaderWatch, LockError};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_candidate_is_the_elections_value() {
    let fake = Fake::new(map(1, 1), |_, _, op| well(op));
    let client = fake.client().await;
    let session = client.session("worker").open().await.expect("open");
    let leadership = session.election("boss").candidate("me").priority(3).campaign(SECOND).await.expect("elected");
    assert_eq!(leadership.grant().value.as_deref(), Some("me"));
    leadership.resign().await.expect("resigned");
    let campaign = fake.writes().into_iter().find_map(|command| match command {
        Command::Acquire(acquire) => Some((acquire.key.kind, acquire.mode, acquire.priority)),
        _ => None,
    });
    assert_eq!(campaign, Some((Kind::Election, Mode::Exclusive, 3)));
}

/// One shard whose machine is real.
struct Shard(Mutex<Machine>);

impl Shard {
    fn new() -> Arc<Shard> {
        let shard = Shard(Mutex::new(Machine::new()));
        let (epoch, incarnation) = (RangeEpoch(1), Incarnation(7));
        shard.apply(Command::SetRange { first: 0, last: u64::MAX, epoch, incarnation });
        Arc::new(shard)
    }

    fn apply(&self, command: Command) -> Outcome {
        let batch = Batch { at: Stamp(0), wall: WallMs(5), epoch: RangeEpoch(1), commands: vec![command] };
        let mut outcomes = Vec::new();
        self.0.lock().unwrap().apply(Term(1), batch, &mut outcomes, &mut Effects::default());
        outcomes.remove(0)
    }

    fn attach(&self, session: SessionId) {
        if let Outcome::Pending { nonce } = self.apply(Command::Pend { session }) {
            let holder = Holder { client_id: "worker".into(), ttl: Millis(10_000), metadata: Metadata::new() };
            self.apply(Command::Confirm { session, nonce, holder });
        }
    }

    fn answer(&self, op: &Op) -> Reply {
        let soon = |response| Reply::After(Duration::from_millis(1), Ok(response));
        let (query, held) = match op {
            Op::Write(command) => {
                if let Command::Acquire(acquire) = command {
                    self.attach(acquire.session);
                }
                return soon(Response::Outcome(self.apply(command.clone())));
            }
            Op::KeepAlive { .. } => return well(op),
            Op::Read(query) => (query, 1),
            Op::Watch { query, .. } => (query, 20),
            Op::Marked(_) | Op::Stale { .. } | Op::ReadIndex => panic!("elections are read from their leader"),
        };
        let answer = self.0.lock().unwrap().query(query);
        match &answer {
            Answer::Events(Ok(page)) if page.events.is_empty() => {
                Reply::After(Duration::from_millis(held), Ok(Response::Answer(answer)))
            }
            _ => soon(Response::Answer(answer)),
        }
    }

    async fn client(self: &Arc<Shard>) -> Client {
        let shard = Arc::clone(self);
        Fake::new(map(1, 1), move |_, _, op| shard.answer(op)).client().await
    }

    /// Somebody else's candidate, who waits or leads.
    fn stands(&self, number: u64, priority: i32) -> Outcome {
        let session = SessionId::new(Incarnation(7), number.into());
        self.attach(session);
        let request = RequestId::Keyed { key: number.into() };
        self.apply(Command::Acquire(Acquire {
            wait: Millis(60_000),
            priority,
            value: Some(format!("candidate-{number}")),
            ..Acquire::new(session, request, boss())
        }))
    }

    fn goes(&self, number: u64) {
        let (session, request) =
            (SessionId::new(Incarnation(7), number.into()), RequestId::Keyed { key: number.into() });
        self.apply(Command::Cancel { session, request, key: boss() });
    }

    fn resigns(&self, number: u64, token: u64) {
        let session = SessionId::new(Incarnation(7), number.into());
        let lock_id = LockId::new(session, Token(token), &boss());
        let request = RequestId::Keyed { key: u128::from(number) << 32 | u128::from(token) };
        assert_eq!(self.apply(Command::Release { request, key: boss(), lock_id }), Outcome::Released);
    }
}

fn boss() -> Key {
    Key::election(Name::new("boss").unwrap())
}

async fn told(watch: &mut LeaderWatch) -> Option<(u64, String)> {
    let leader = timeout(10 * SECOND, watch.next()).await.expect("told in time").expect("an answer");
    leader.map(|leader| (leader.lock_id.token.0, leader.candidate))
}

fn leads(token: u64, who: &str) -> Option<(u64, String)> {
    Some((token, who.to_owned()))
}

#[tokio::test(start_paused = true)]
async fn an_audience_is_told_every_leader_and_every_proclamation_in_order() {
    let shard = Shard::new();
    let client = shard.client().await;
    let mut watch = client.observe_leader("boss").expect("a name");
    assert_eq!(told(&mut watch).await, None);
    let session = client.session("worker").open().await.expect("open");
    let leadership = session.election("boss").candidate("me").campaign(SECOND).await.expect("elected");
    leadership.proclaim("me/2").await.expect("proclaimed");
    leadership.proclaim("me/3").await.expect("proclaimed");
    assert_eq!(leadership.fencing_token(), Token(1), "the same term of office");
    assert!(matches!(shard.stands(8, 0), Outcome::Queued { .. }));
    leadership.resign().await.expect("resigned");
    // Those who come and go while nobody looks are told all the same; that a handover leaves it to nobody is not.
    shard.resigns(8, 2);
    assert!(matches!(shard.stands(9, 0), Outcome::Granted(_)));
    for expected in [leads(1, "me"), leads(1, "me/2"), leads(1, "me/3"), leads(2, "candidate-8")] {
        assert_eq!(told(&mut watch).await, expected);
    }
    assert_eq!(told(&mut watch).await, leads(3, "candidate-9"));
    shard.resigns(9, 3);
    assert_eq!(told(&mut watch).await, None);
    assert!(timeout(10 * SECOND, watch.next()).await.is_err(), "that is told once");

    // Who comes now is told who leads now, and as what.
    shard.stands(10, 0);
    let mut late = client.observe_leader("boss").expect("a name");
    assert_eq!(told(&mut late).await, leads(4, "candidate-10"));
    assert_eq!(told(&mut watch).await, leads(4, "candidate-10"));
    assert!(timeout(10 * SECOND, late.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn behind_a_gap_an_audience_is_told_the_leader_as_it_is() {
    let shard = Shard::new();
    let client = shard.client().await;
    shard.stands(8, 0);
    let mut watch = client.observe_leader("boss").expect("a name");
    assert_eq!(told(&mut watch).await, leads(1, "candidate-8"));
    shard.resigns(8, 1);
    shard.stands(9, 0);
    // So much else that these are no longer kept.
    for number in 0..limits::EVENTS as u128 {
        let change = Change::Put(Content { content_type: "t/t".into(), value: Blob::new(b"v") });
        let key = Key::config(Name::new("path").unwrap());
        shard.apply(Command::Configure(Configure { request: 1 << 64 | number, key, change, expected: None }));
    }
    assert_eq!(told(&mut watch).await, leads(2, "candidate-9"));
    shard.resigns(9, 2);
    assert_eq!(told(&mut watch).await, None);
}

#[tokio::test(start_paused = true)]
async fn who_leads_no_more_proclaims_nothing_and_knows_it() {
    let shard = Shard::new();
    let client = shard.client().await;
    let session = client.session("worker").open().await.expect("open");
    let leadership = session.election("boss").campaign(SECOND).await.expect("elected");
    let long = "v".repeat(limits::LABEL_BYTES + 1);
    assert!(matches!(leadership.proclaim(long).await, Err(LockError::Limit(Limit::Field))));
    assert!(leadership.is_held());
    shard.apply(Command::Break { key: boss(), reason: "a test".into() });
    shard.stands(8, 0);
    assert_eq!(leadership.proclaim("mine").await, Err(LockError::Expired));
    assert!(!leadership.is_held());
    timeout(SECOND, leadership.lost()).await.expect("it is lost");
    assert_eq!(leadership.proclaim("mine").await, Err(LockError::Expired));
    let leader = client.leader("boss", SECOND).await.expect("an answer").expect("a leader");
    assert_eq!(leader.value.as_deref(), Some("candidate-8"));
}

#[tokio::test(start_paused = true)]
async fn a_leader_learns_who_outranks_it_and_nobody_else() {
    let shard = Shard::new();
    let client = shard.client().await;
    let session = client.session("worker").open().await.expect("open");
    let leadership = session.election("boss").priority(3).campaign(SECOND).await.expect("elected");
    let mut outranked = Box::pin(leadership.outranked());
    shard.stands(8, 3);
    shard.stands(9, -7);
    assert!(timeout(SECOND, &mut outranked).await.is_err());
    // One that has gone again when it is looked for.
    shard.stands(10, 4);
    shard.goes(10);
    assert!(timeout(10 * SECOND, &mut outranked).await.is_err(), "nobody who waits outranks it");
    shard.stands(11, 5);
    let challenger = timeout(SECOND, outranked).await.expect("at once");
    assert_eq!((challenger.candidate.as_str(), challenger.priority), ("candidate-11", 5));
    // Whoever asks while somebody waits is told so.
    assert_eq!(timeout(SECOND, leadership.outranked()).await.expect("at once"), challenger);
    leadership.resign().await.expect("resigned");
    let leader = client.leader("boss", SECOND).await.expect("an answer").expect("a leader");
    assert_eq!(leader.value.as_deref(), Some("candidate-11"), "the highest leads");
}
