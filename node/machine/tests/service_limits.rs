//! Bounds of services: what happens at them; and what a sample is by chance.

mod damage;

use std::collections::BTreeMap;

use damage::flip_each_bit;
use wardlock_machine::*;

struct Shard {
    machine: Machine,
    requests: u128,
}

impl Shard {
    /// With so many sessions attached.
    fn new(sessions: u128) -> Shard {
        let mut shard = Shard { machine: Machine::new(), requests: 0 };
        let (epoch, incarnation) = (RangeEpoch(1), Incarnation(1));
        shard.one(Command::SetRange { first: 0, last: u64::MAX, epoch, incarnation });
        for session in (0..sessions).map(session) {
            let Outcome::Pending { nonce } = shard.one(Command::Pend { session }) else { panic!() };
            let holder = Holder { client_id: "w".into(), ttl: Millis(10_000), metadata: Metadata::new() };
            shard.one(Command::Confirm { session, nonce, holder });
        }
        shard
    }

    fn all(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        let batch = Batch { at: Stamp(0), wall: WallMs(7), epoch: self.machine.epoch(), commands };
        self.machine.apply(Term(1), batch, &mut outcomes, &mut Effects::default());
        outcomes
    }

    fn one(&mut self, command: Command) -> Outcome {
        self.all(vec![command]).remove(0)
    }

    fn register(&mut self, who: u128, id: &str, spec: InstanceSpec) -> Command {
        self.requests += 1;
        Command::Register(Register {
            request: self.requests,
            key: key(),
            instance: name(id),
            session: session(who),
            private: false,
            spec,
            health: Health::Passing,
        })
    }

    fn page(&self, limit: u32) -> ServicePage {
        let query = Query::Service { key: key(), healthy: false, tag: None, after: None, limit };
        let Answer::Service(page) = self.machine.query(&query) else { panic!() };
        page
    }

    fn sample(&self, count: u32, seed: u64) -> Vec<String> {
        let Answer::Sample(drawn) = self.machine.query(&Query::Sample { key: key(), count, seed }) else { panic!() };
        drawn.into_iter().map(|drawn| drawn.instance.to_string()).collect()
    }

    fn is_restored_the_same(&self) {
        assert_eq!(Machine::restore(&self.machine.snapshot()).as_ref(), Ok(&self.machine));
    }
}

fn session(number: u128) -> SessionId {
    SessionId::new(Incarnation(1), number)
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn key() -> Key {
    Key::service(name("pay"))
}

fn spec() -> InstanceSpec {
    InstanceSpec { address: "10.0.0.1".into(), port: 80, tags: Vec::new(), weight: 1, metadata: Metadata::new() }
}

/// As large as one may be.
fn large() -> InstanceSpec {
    let tags = (0..limits::TAGS).map(|n| format!("{n:02}{}", "t".repeat(limits::LABEL_BYTES - 2))).collect();
    let metadata = Metadata::from([("k".to_owned(), "m".repeat(limits::METADATA_BYTES - 1))]);
    InstanceSpec { tags, metadata, ..spec() }
}

fn is_done(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Registered(_))
}

#[test]
fn every_field_has_its_bound() {
    let mut shard = Shard::new(1);
    let most = shard.register(0, &"i".repeat(limits::LABEL_BYTES), large());
    assert!(most.is_within_bounds() && is_done(&shard.one(most)));
    let long = |parts: usize| vec!["a".repeat(63); parts].join(".");
    let wrong = [
        ("i", InstanceSpec { address: String::new(), ..spec() }),
        ("i", InstanceSpec { address: format!("{}.a", long(4)), ..spec() }),
        ("i", InstanceSpec { address: "a".repeat(64), ..spec() }),
        ("i", InstanceSpec { address: "a b".into(), ..spec() }),
        ("i", InstanceSpec { address: "a..b".into(), ..spec() }),
        ("i", InstanceSpec { address: ".".into(), ..spec() }),
        ("i", InstanceSpec { address: "[::1]".into(), ..spec() }),
        ("i", InstanceSpec { port: 0, ..spec() }),
        ("i", InstanceSpec { tags: vec!["b".into(), "a".into()], ..spec() }),
        ("i", InstanceSpec { tags: vec!["a".into(), "a".into()], ..spec() }),
        ("i", InstanceSpec { tags: vec![String::new()], ..spec() }),
        ("i", InstanceSpec { tags: vec!["t".repeat(limits::LABEL_BYTES + 1)], ..spec() }),
        ("i", InstanceSpec { tags: (100..=100 + limits::TAGS).map(|n| n.to_string()).collect(), ..spec() }),
        ("i", InstanceSpec { metadata: Metadata::from([("k".into(), "m".repeat(limits::METADATA_BYTES))]), ..spec() }),
        (&"i".repeat(limits::LABEL_BYTES + 1), spec()),
    ];
    for (id, spec) in wrong {
        let command = shard.register(0, id, spec);
        assert!(!command.is_within_bounds(), "{command:?}");
        assert_eq!(shard.one(command.clone()), Outcome::Limit(Limit::Field), "{command:?}");
    }
    for address in [long(3), "a.b.".into(), "h_1".into(), "::1".into(), "127.0.0.1".into()] {
        let command = shard.register(0, "i", InstanceSpec { address, ..spec() });
        assert!(is_done(&shard.one(command.clone())), "{command:?}");
    }
    shard.is_restored_the_same();
}

#[test]
fn a_session_has_so_many_instances_and_loses_them_page_by_page() {
    let mut shard = Shard::new(2);
    for page in 0..limits::GRANTS_PER_SESSION / 1_000 {
        let commands = (0..1_000).map(|n| shard.register(0, &format!("{page}-{n}"), spec())).collect();
        assert!(shard.all(commands).iter().all(is_done));
    }
    let more = shard.register(0, "more", spec());
    assert_eq!(shard.one(more), Outcome::Limit(Limit::GrantsPerSession));
    let again = shard.register(0, "0-0", InstanceSpec { port: 81, ..spec() });
    assert!(is_done(&shard.one(again)), "what it has it may change");
    let taken = shard.register(1, "0-1", spec());
    assert!(is_done(&shard.one(taken)), "another takes one over");
    let more = shard.register(0, "more", spec());
    assert!(is_done(&shard.one(more)), "which leaves room for another");
    shard.is_restored_the_same();

    // Ten thousand registrations do not fill the ring of events.
    let pattern = Pattern { kind: Kind::Service, name: "pay".into(), prefix: false };
    let query = Query::Events { after: Revision(0), patterns: vec![pattern], limit: 1 };
    assert!(matches!(shard.machine.query(&query), Answer::Events(Ok(_))), "all of them are there");

    let drop = Command::Drop { session: session(0), reason: EndReason::SessionExpired };
    for page in 1..=limits::GRANTS_PER_SESSION / limits::PAGE {
        assert_eq!(shard.one(drop.clone()), Outcome::Dropped { more: true });
        assert_eq!(shard.page(1).total as usize, limits::GRANTS_PER_SESSION + 1 - page * limits::PAGE);
        shard.is_restored_the_same();
    }
    assert_eq!(shard.one(drop), Outcome::Dropped { more: false });
    let page = shard.page(9);
    assert_eq!((page.total, page.instances[0].session), (1, session(1)), "the other's stays");
    shard.is_restored_the_same();
}

#[test]
fn a_shard_has_so_many_instances() {
    let mut shard = Shard::new(11);
    for who in 0..10 {
        for page in 0..10 {
            let commands = (0..1_000).map(|n| shard.register(who, &format!("{who}-{page}-{n}"), spec())).collect();
            shard.all(commands);
        }
    }
    assert_eq!(shard.machine.counts().instances.total(), limits::INSTANCES as u64);
    let more = shard.register(10, "more", spec());
    assert_eq!(shard.one(more), Outcome::Limit(Limit::Instances));
    let again = shard.register(10, "0-0-0", spec());
    assert!(is_done(&shard.one(again)), "one in the place of another");
    shard.is_restored_the_same();
}

#[test]
fn a_shard_has_so_many_bytes_of_instances() {
    let mut shard = Shard::new(1);
    let mut count = 0;
    let full = loop {
        let command = shard.register(0, &count.to_string(), large());
        match shard.one(command) {
            Outcome::Registered(_) => count += 1,
            other => break other,
        }
    };
    assert_eq!(full, Outcome::Limit(Limit::InstanceBytes));
    let bytes = shard.machine.counts().instance_bytes as usize;
    assert!(bytes <= limits::INSTANCE_BYTES && bytes > limits::INSTANCE_BYTES - 20_000, "{bytes}");
    let again = shard.register(0, "0", InstanceSpec { weight: 9, ..large() });
    assert!(is_done(&shard.one(again)), "one in the place of another");

    // An answer fits its frame, and says where it ends.
    let page = shard.page(limits::PAGE as u32);
    let size = postcard::to_stdvec(&Answer::Service(page.clone())).unwrap().len();
    assert!(page.more && page.instances.len() > 50 && size <= limits::ANSWER_BYTES, "{size}");
    shard.is_restored_the_same();
}

/// The first is drawn by weight, the second of those that are left by weight, and so on.
#[test]
fn a_sample_is_by_weight() {
    let mut shard = Shard::new(1);
    for (id, weight) in [("a", 1), ("b", 2), ("c", 5)] {
        let command = shard.register(0, id, InstanceSpec { weight, ..spec() });
        shard.one(command);
    }
    let (mut first, mut second, draws) = (BTreeMap::<String, u32>::new(), BTreeMap::<String, u32>::new(), 40_000);
    for seed in 0..draws {
        let drawn = shard.sample(2, seed);
        *first.entry(drawn[0].clone()).or_default() += 1;
        *second.entry(drawn.concat()).or_default() += 1;
    }
    let near = |count: u32, share: f64| {
        let (expected, is) = (share * draws as f64, f64::from(count));
        // Six standard deviations.
        assert!((is - expected).abs() < 6.0 * (expected * (1.0 - share)).sqrt(), "{is} of {expected}");
    };
    for (id, share) in [("a", 1.0 / 8.0), ("b", 2.0 / 8.0), ("c", 5.0 / 8.0)] {
        near(first[id], share);
    }
    for (ids, share) in [("ab", 2.0 / 56.0), ("ba", 2.0 / 48.0), ("ca", 5.0 / 24.0), ("cb", 10.0 / 24.0)] {
        near(second[ids], share);
    }
}

#[test]
fn a_sample_has_so_many_at_the_most_and_is_asked_for_so_many() {
    let mut shard = Shard::new(1);
    for n in 0..100 {
        let command = shard.register(0, &n.to_string(), spec());
        shard.one(command);
    }
    assert_eq!(shard.sample(u32::MAX, 1).len(), limits::SAMPLE);
    let query = |count| Query::Sample { key: key(), count, seed: 1 };
    assert!(query(32).is_within_bounds() && !query(33).is_within_bounds());
    assert_eq!(shard.sample(5, 1), shard.sample(32, 1)[..5], "a smaller sample is the begin of a larger");
}

/// What a snapshot says of services is believed only where it could have come about.
#[test]
fn a_damaged_registry_is_refused() {
    let mut shard = Shard::new(2);
    let tagged = InstanceSpec { tags: vec!["a".into(), "b".into()], ..spec() };
    for (who, id, spec) in [(0, "i", tagged.clone()), (1, "j", spec()), (1, "i", tagged)] {
        let command = shard.register(who, id, spec);
        shard.one(command);
    }
    let gone = Command::Deregister { request: 99, key: key(), instance: name("j"), session: None };
    shard.one(gone);
    // Whatever it is, its end leaves nothing.
    flip_each_bit(&shard.machine.snapshot(), |mut machine| {
        let sessions: Vec<SessionId> = machine.attached().collect();
        let drop = |session| Command::Drop { session, reason: EndReason::SessionClosed };
        let commands = sessions.into_iter().map(drop).collect();
        machine.follow(Term(1), Batch { at: machine.now(), wall: WallMs(7), epoch: machine.epoch(), commands });
        assert_eq!(machine.counts().instances, ByHealth::default());
    });
}

/// The form without services and webhooks is read still.
#[test]
fn a_snapshot_of_before_there_were_services_and_webhooks_is_read() {
    let shard = Shard::new(1);
    let mut bytes = shard.machine.snapshot();
    assert_eq!(bytes[0], 4, "the version comes first");
    // No services and no answers; no webhooks, no change of any, no answers.
    assert_eq!(bytes.split_off(bytes.len() - 7), [0; 7]);
    bytes[0] = 3;
    assert_eq!(Machine::restore(&bytes).as_ref(), Ok(&shard.machine));
}
