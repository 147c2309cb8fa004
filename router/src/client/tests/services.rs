//! Services, over shards whose machines are real.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::timeout;
use wardlock_machine::*;
use wardlock_placement::GroupId;
use wardlock_wire::{Op, Response};

use super::fake::*;
use crate::client::{Client, Endpoint, RegisterError, ServiceWatch, Session};

/// How long a held question is held here where nothing happens.
const HELD: Duration = Duration::from_millis(20);

/// One shard, at which whoever registers is attached at once.
struct Shard(Mutex<Machine>);

impl Shard {
    fn new() -> Arc<Shard> {
        let mut machine = Machine::new();
        let (epoch, incarnation) = (RangeEpoch(1), Incarnation(7));
        machine.follow(Term(1), batch(Command::SetRange { first: 0, last: u64::MAX, epoch, incarnation }));
        Arc::new(Shard(Mutex::new(machine)))
    }

    fn apply(&self, command: Command) -> Outcome {
        let mut outcomes = Vec::new();
        let mut machine = self.0.lock().unwrap();
        machine.apply(Term(1), batch(command), &mut outcomes, &mut Effects::default());
        outcomes.remove(0)
    }

    fn answer(&self, op: &Op) -> Reply {
        let at_once = Duration::from_millis(1);
        match op {
            Op::Write(command) => {
                if let Command::Register(Register { session, .. }) = command
                    && let Outcome::Pending { nonce } = self.apply(Command::Pend { session: *session })
                {
                    let (session, metadata) = (*session, Metadata::new());
                    let holder = Holder { client_id: "w".into(), ttl: Millis(10_000), metadata };
                    self.apply(Command::Confirm { session, nonce, holder });
                }
                Reply::After(at_once, Ok(Response::Outcome(self.apply(command.clone()))))
            }
            Op::Read(query) | Op::Watch { query, .. } => {
                let answer = self.0.lock().unwrap().query(query);
                let idle = matches!(&answer, Answer::Events(Ok(page)) if page.events.is_empty());
                let after = if idle && matches!(op, Op::Watch { .. }) { HELD } else { at_once };
                Reply::After(after, Ok(Response::Answer(answer)))
            }
            other => well(other),
        }
    }

    async fn client(self: &Arc<Shard>) -> (Client, Arc<Fake>) {
        let shard = Arc::clone(self);
        let fake = Fake::new(map(1, 1), move |_, _: GroupId, op| shard.answer(op));
        (fake.client().await, fake)
    }

    /// A registration that is nobody's here.
    fn register(&self, request: u128, session: &Session, id: &str, port: u16) {
        let spec = InstanceSpec { address: "h".into(), port, tags: Vec::new(), weight: 1, metadata: Metadata::new() };
        let done = self.apply(Command::Register(Register {
            request,
            key: key(),
            instance: name(id),
            session: session.id(),
            private: false,
            spec,
            health: Health::Passing,
        }));
        assert!(matches!(done, Outcome::Registered(_)), "{done:?}");
    }
}

fn batch(command: Command) -> Batch {
    Batch { at: Stamp(0), wall: WallMs(0), epoch: RangeEpoch(1), commands: vec![command] }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn key() -> Key {
    Key::service(name("pay"))
}

async fn ids(client: &Client) -> Vec<String> {
    client.service("pay").list().await.unwrap().into_iter().map(|view| view.instance.to_string()).collect()
}

async fn next(watch: &mut ServiceWatch) -> Vec<String> {
    let endpoints = timeout(Duration::from_secs(5), watch.next()).await.expect("it changes").expect("no error");
    endpoints.iter().map(|at: &Endpoint| format!("{}:{}", at.instance, at.port)).collect()
}

#[tokio::test(start_paused = true)]
async fn an_instance_is_registered_reported_on_and_taken_off() {
    let shard = Shard::new();
    let (client, _fake) = shard.client().await;
    let session = client.session("w").open().await.unwrap();
    let registration = session
        .register("pay", "i")
        .address("10.0.0.7")
        .port(8080)
        .tag("b")
        .tag("a")
        .tag("b")
        .weight(3)
        .metadata("zone", "x")
        .open()
        .await
        .unwrap();
    let found = client.service("pay").healthy().tag("b").list().await.unwrap();
    let [view] = &found[..] else { panic!("{found:?}") };
    assert_eq!((view.spec.tags.join(" "), view.spec.weight, view.session), ("a b".to_owned(), 3, session.id()));
    assert_eq!(client.service("pay").instance("i").await.unwrap().as_ref(), Some(view));
    assert_eq!(client.service("pay").sample(9).await.unwrap(), found);
    registration.report(Health::Critical).await.unwrap();
    assert!(client.service("pay").healthy().list().await.unwrap().is_empty());
    assert_eq!(ids(&client).await, ["i"]);
    assert_eq!(client.services("p", None, 9, Duration::from_secs(1)).await.unwrap()[0].healthy, 0);
    registration.deregister().await.unwrap();
    assert!(ids(&client).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_is_dropped_is_taken_off_in_the_background() {
    let shard = Shard::new();
    let (client, _fake) = shard.client().await;
    let session = client.session("w").open().await.unwrap();
    drop(session.register("pay", "i").address("h").port(1).open().await.unwrap());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(ids(&client).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_registered_says_why_and_leaves_nothing() {
    let shard = Shard::new();
    let (client, fake) = shard.client().await;
    let session = client.session("w").open().await.unwrap();
    let refused = session.register("pay", "i").port(1).open().await;
    assert!(matches!(refused, Err(RegisterError::Call(_) | RegisterError::Limit(Limit::Field))), "{refused:?}");
    let refused = session.register("", "i").address("h").port(1).open().await;
    assert!(matches!(refused, Err(RegisterError::Name(_))), "{refused:?}");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(
        !fake.writes().iter().any(|write| matches!(write, Command::Deregister { .. })),
        "there is none to take off"
    );
    // Somebody else has it meanwhile.
    let registration = session.register("pay", "i").address("h").port(1).open().await.unwrap();
    let other = client.session("x").open().await.unwrap();
    let theirs = other.register("pay", "i").address("h").port(2).open().await.unwrap();
    assert_eq!(registration.report(Health::Warning).await, Err(RegisterError::Taken));
    assert_eq!(registration.deregister().await, Err(RegisterError::Taken));
    assert_eq!(ids(&client).await, ["i"]);
    theirs.deregister().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_watch_gives_the_healthy_ones_after_each_change() {
    let shard = Shard::new();
    let (client, _fake) = shard.client().await;
    let session = client.session("w").open().await.unwrap();
    let first = session.register("pay", "a").address("h").port(1).tag("eu").open().await.unwrap();
    let mut watch = client.service("pay").watch().await.unwrap();
    let mut tagged = client.service("pay").tag("eu").watch().await.unwrap();
    assert_eq!((next(&mut watch).await, next(&mut tagged).await), (vec!["a:1".to_owned()], vec!["a:1".to_owned()]));
    shard.register(1_000, &session, "b", 2);
    assert_eq!(next(&mut watch).await, ["a:1", "b:2"]);
    first.report(Health::Critical).await.unwrap();
    assert_eq!((next(&mut watch).await, next(&mut tagged).await), (vec!["b:2".to_owned()], vec![]));
    first.report(Health::Warning).await.unwrap();
    assert_eq!(next(&mut watch).await, ["a:1", "b:2"]);
    shard.register(1_001, &session, "b", 3);
    assert_eq!(next(&mut watch).await, ["a:1", "b:3"]);
    shard.apply(Command::Drop { session: session.id(), reason: EndReason::SessionExpired });
    assert!(next(&mut watch).await.is_empty());
    let quiet = timeout(Duration::from_secs(5), watch.next()).await;
    assert!(quiet.is_err(), "what is told is not told again: {quiet:?}");
}

/// Every list is pages, and the watch begins anew where events went that it had not been told.
#[tokio::test(start_paused = true)]
async fn a_watch_that_missed_events_lists_anew() {
    let shard = Shard::new();
    let (client, _fake) = shard.client().await;
    let session = client.session("w").open().await.unwrap();
    // So that there is a seat.
    let _first = session.register("pay", "first").address("h").port(1).open().await.unwrap();
    for n in 0..2 * limits::PAGE as u128 {
        shard.register(10_000 + n, &session, &format!("i{n:05}"), 7);
    }
    let mut watch = client.service("pay").watch().await.unwrap();
    assert_eq!(next(&mut watch).await.len(), 2 * limits::PAGE + 1, "more than a page");
    for n in 0..limits::EVENTS as u128 + 10 {
        shard.register(100_000 + n, &session, "i00000", 1 + (n % 2) as u16);
    }
    shard.apply(Command::Deregister { request: 99, key: key(), instance: name("i00001"), session: None });
    // It may be told some of it before it finds the gap.
    let last = loop {
        let now = next(&mut watch).await;
        if !now.contains(&"i00001:7".to_owned()) {
            break now;
        }
    };
    assert_eq!(last.len(), 2 * limits::PAGE);
}
