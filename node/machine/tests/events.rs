//! Events: their bounds, and what is said when some are no longer kept.

mod damage;

use damage::flip_each_bit;
use wardlock_machine::*;

struct Shard {
    machine: Machine,
    requests: u64,
}

const EVERYTHING: [Kind; 3] = [Kind::Lock, Kind::Election, Kind::Config];

impl Shard {
    fn new() -> Shard {
        let mut shard = Shard { machine: Machine::new(), requests: 0 };
        let (epoch, incarnation) = (RangeEpoch(1), Incarnation(1));
        shard.one(Command::SetRange { first: 0, last: u64::MAX, epoch, incarnation });
        let Outcome::Pending { nonce } = shard.one(Command::Pend { session: session() }) else { panic!() };
        let holder = Holder { client_id: "worker-7".into(), ttl: Millis(10_000), metadata: Metadata::new() };
        shard.one(Command::Confirm { session: session(), nonce, holder });
        shard
    }

    fn one(&mut self, command: Command) -> Outcome {
        let mut outcomes = Vec::new();
        let batch = Batch { at: Stamp(0), wall: WallMs(77), epoch: self.machine.epoch(), commands: vec![command] };
        self.machine.apply(Term(1), batch, &mut outcomes, &mut Effects::default());
        outcomes.remove(0)
    }

    fn request(&mut self) -> RequestId {
        self.requests += 1;
        RequestId::Native { seq: self.requests, low: self.requests }
    }

    /// Two events: a grant and its end.
    fn cycle(&mut self, key: &Key) {
        let request = self.request();
        let value = (key.kind == Kind::Election).then(|| "candidate".to_owned());
        let acquire = Acquire { value, ..Acquire::new(session(), request, key.clone()) };
        let Outcome::Granted(grant) = self.one(Command::Acquire(acquire)) else { panic!() };
        let request = self.request();
        let release = Command::Release { request, key: key.clone(), lock_id: grant.lock_id };
        assert_eq!(self.one(release), Outcome::Released);
    }

    /// Five events: a grant, another's candidacy, what is proclaimed, the end, and the other's grant.
    fn reign(&mut self, key: &Key) {
        let other = SessionId::new(Incarnation(1), 8);
        if let Outcome::Pending { nonce } = self.one(Command::Pend { session: other }) {
            let holder = Holder { client_id: "worker-8".into(), ttl: Millis(10_000), metadata: Metadata::new() };
            self.one(Command::Confirm { session: other, nonce, holder });
        }
        let acquire = |session, request, wait| Acquire {
            value: Some("candidate".to_owned()),
            wait: Millis(wait),
            priority: i32::MIN,
            ..Acquire::new(session, request, key.clone())
        };
        let (first, second) = (self.request(), self.request());
        let Outcome::Granted(grant) = self.one(Command::Acquire(acquire(session(), first, 0))) else { panic!() };
        self.one(Command::Acquire(acquire(other, second, 1_000)));
        let (lock_id, value) = (grant.lock_id, "stage 2".to_owned());
        let request = self.request();
        let proclaimed = self.one(Command::Proclaim { request, key: key.clone(), lock_id, value });
        assert!(matches!(proclaimed, Outcome::Renewed(_)), "{proclaimed:?}");
        let request = self.request();
        assert_eq!(self.one(Command::Release { request, key: key.clone(), lock_id }), Outcome::Released);
    }

    fn put(&mut self, path: &str, value: &[u8]) {
        self.requests += 1;
        let done = self.one(Command::Configure(Configure {
            request: self.requests.into(),
            key: Key::config(name(path)),
            change: Change::Put(Content { content_type: "t/t".into(), value: Blob::new(value) }),
            expected: None,
        }));
        assert!(matches!(done, Outcome::Configured(_)));
    }

    fn events(&self, kinds: &[Kind], after: u64, limit: u32) -> Result<EventPage, NoEvents> {
        let pattern = |kind: &Kind| Pattern { kind: *kind, name: String::new(), prefix: true };
        let query = Query::Events { after: Revision(after), patterns: kinds.iter().map(pattern).collect(), limit };
        let Answer::Events(page) = self.machine.query(&query) else { panic!() };
        page
    }

    fn restored(&self) -> Machine {
        Machine::restore(&self.machine.snapshot()).expect("its own snapshot")
    }
}

fn session() -> SessionId {
    SessionId::new(Incarnation(1), 7)
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn revisions(page: &EventPage) -> Vec<u64> {
    page.events.iter().map(|event| event.revision.0).collect()
}

#[test]
fn every_revision_is_one_event_whatever_its_kind() {
    let mut shard = Shard::new();
    shard.cycle(&Key::lock(name("a")));
    shard.put("a", b"v");
    shard.cycle(&Key::election(name("a")));
    shard.put("b", b"w");
    shard.cycle(&Key::lock(name("a")));
    let page = shard.events(&EVERYTHING, 0, 100).unwrap();
    assert_eq!((revisions(&page), page.upto), ((1..=8).collect(), Revision(8)));
    assert!(page.events.iter().all(|event| event.at == WallMs(77)));
    let What::Granted { holder, value, .. } = &page.events[3].what else { panic!() };
    assert_eq!((holder.as_str(), value.as_deref()), ("worker-7", Some("candidate")));

    // In pages, it is the same, and each page says from where to go on.
    let (mut all, mut after) = (Vec::new(), 0);
    while after < 8 {
        let page = shard.events(&EVERYTHING, after, 3).unwrap();
        all.extend(revisions(&page));
        after = page.upto.0;
    }
    assert_eq!(all, (1..=8).collect::<Vec<_>>());
    assert_eq!(shard.events(&[Kind::Config], 0, 1).unwrap().upto, Revision(3));
    assert_eq!(shard.events(&[Kind::Config], 3, 100).unwrap().upto, Revision(8), "nothing more, up to now");
    assert_eq!(shard.events(&[], 2, 100), Ok(EventPage { events: Vec::new(), upto: Revision(8) }));
    assert_eq!(shard.events(&EVERYTHING, 9, 100), Err(NoEvents::Ahead { now: Revision(8) }));
}

/// Of an election its audience learns in one order who leads, as what, and who would like to.
#[test]
fn a_reign_is_told_in_its_order() {
    let mut shard = Shard::new();
    shard.reign(&Key::election(name("a")));
    let events = shard.events(&[Kind::Election], 0, 100).unwrap().events;
    let told: Vec<&What> = events.iter().map(|event| &event.what).collect();
    let [
        What::Granted { lock_id, .. },
        What::Enrolled { session, holder, value, priority: i32::MIN },
        What::Proclaimed { lock_id: same, holder: leader, value: proclaimed, acquired: WallMs(77) },
        What::Ended { lock_id: gone, reason: EndReason::Released },
        What::Granted { lock_id: next, .. },
    ] = told[..]
    else {
        panic!("{told:?}")
    };
    assert_eq!((lock_id, lock_id), (same, gone));
    assert_eq!((leader.as_str(), proclaimed.as_str()), ("worker-7", "stage 2"));
    assert_eq!((holder.as_str(), value.as_str(), *session), ("worker-8", "candidate", next.session));
    assert_eq!(events.iter().map(|event| event.revision.0).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
}

#[test]
fn locks_push_out_no_other_event_and_what_is_gone_is_said() {
    let mut shard = Shard::new();
    shard.put("a", b"v");
    for _ in 0..limits::LOCK_EVENTS / 2 {
        shard.cycle(&Key::lock(name("a")));
    }
    let last = 1 + limits::LOCK_EVENTS as u64;
    assert_eq!(shard.events(&[Kind::Lock], 1, 1).unwrap().upto, Revision(2), "all are there");
    shard.cycle(&Key::lock(name("a")));
    let (gone, now) = (Revision(3), Revision(last + 2));
    for machine in [shard.machine.clone(), shard.restored()] {
        let shard = Shard { machine, requests: 0 };
        assert_eq!(shard.events(&[Kind::Lock], 2, 9), Err(NoEvents::Compacted { gone, now }));
        assert_eq!(shard.events(&EVERYTHING, 0, 9), Err(NoEvents::Compacted { gone, now }));
        let page = shard.events(&[Kind::Lock], 3, 9).unwrap();
        assert_eq!(revisions(&page), (4..13).collect::<Vec<_>>());
        assert_eq!(revisions(&shard.events(&[Kind::Config, Kind::Election], 0, 9).unwrap()), [1]);
    }
}

#[test]
fn the_others_are_bounded_too_by_number_and_by_bytes() {
    let mut shard = Shard::new();
    for n in 0..limits::EVENTS + 10 {
        shard.put("a", &[n as u8]);
    }
    let now = Revision(limits::EVENTS as u64 + 10);
    assert_eq!(shard.events(&[Kind::Config], 9, 9), Err(NoEvents::Compacted { gone: Revision(10), now }));
    assert_eq!(revisions(&shard.events(&[Kind::Config], 10, 1).unwrap()), [11]);

    let mut shard = Shard::new();
    let long = "n".repeat(limits::NAME_BYTES);
    let fit = limits::EVENT_BYTES / (limits::EVENT_FIXED_BYTES + limits::NAME_BYTES + "t/t".len());
    for _ in 0..fit + 1 {
        shard.put(&long, b"v");
    }
    assert!(fit < limits::EVENTS);
    let now = Revision(fit as u64 + 1);
    assert_eq!(shard.events(&[Kind::Config], 0, 9), Err(NoEvents::Compacted { gone: Revision(1), now }));
    assert_eq!(shard.restored(), shard.machine);
}

/// The state has each value once. It is told with its event while it is there and not too large.
#[test]
fn a_value_is_told_with_its_event_while_it_is_kept() {
    let mut shard = Shard::new();
    shard.put("large", &vec![1; limits::EVENT_VALUE_BYTES + 1]);
    shard.put("a", &vec![2; limits::EVENT_VALUE_BYTES]);
    for n in 0..limits::CONFIG_OLD + 1 {
        shard.put("b", &[n as u8]);
    }
    let told = |shard: &Shard| -> Vec<Option<usize>> {
        let events = shard.events(&[Kind::Config], 0, 3).unwrap().events;
        let value = |event: Event| match event.what {
            What::Configured { value, .. } => value.map(|value| value.len()),
            _ => panic!(),
        };
        events.into_iter().map(value).collect()
    };
    assert_eq!(told(&shard), [None, Some(limits::EVENT_VALUE_BYTES), Some(1)]);
    shard.put("b", b"one more");
    assert_eq!(told(&shard), [None, Some(limits::EVENT_VALUE_BYTES), None], "that version is gone");

    // A page of values fits its frame: it ends early, and says so.
    for n in 0..200 {
        shard.put(&format!("many/{n}"), &vec![3; limits::EVENT_VALUE_BYTES]);
    }
    let (mut all, mut after) = (0, 0);
    while after < shard.machine.revision().0 {
        let page = shard.events(&[Kind::Config], after, 1_000).unwrap();
        let encoded = postcard::to_allocvec(&page).unwrap().len();
        assert!(encoded <= limits::ANSWER_BYTES, "{encoded} bytes");
        all += page.events.len();
        after = page.upto.0;
    }
    assert_eq!(all as u64, shard.machine.revision().0);
}

/// A snapshot of the form before events: of what happened up to then nothing is claimed to be known.
#[test]
fn a_shard_that_knew_no_events_says_so() {
    let mut shard = Shard::new();
    shard.put("a", b"v");
    shard.cycle(&Key::lock(name("a")));
    let mut bytes = shard.machine.snapshot();
    assert_eq!(bytes[0], 4, "the version that has webhooks behind the events");
    bytes[0] = 2;
    let restored: Vec<Machine> = (0..bytes.len()).filter_map(|end| Machine::restore(&bytes[..end]).ok()).collect();
    assert_eq!(restored.len(), 1, "it ends where the configuration does");
    let mut shard = Shard { machine: restored.into_iter().next().unwrap(), requests: 100 };
    let (gone, now) = (Revision(3), Revision(3));
    assert_eq!(shard.events(&[Kind::Config], 2, 9), Err(NoEvents::Compacted { gone, now }));
    shard.put("a", b"w");
    assert_eq!(revisions(&shard.events(&EVERYTHING, 3, 9).unwrap()), [4]);
    assert_eq!(shard.restored(), shard.machine);
}

#[test]
fn damaged_events_are_refused() {
    let mut shard = Shard::new();
    shard.put("a", b"v");
    shard.cycle(&Key::lock(name("a")));
    shard.cycle(&Key::election(name("a")));
    shard.reign(&Key::election(name("b")));
    assert_eq!(shard.restored(), shard.machine);
    flip_each_bit(&shard.machine.snapshot(), |_| {});
}
