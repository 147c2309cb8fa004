//! Bounds of webhooks: what happens at them.

mod damage;

use damage::flip_each_bit;
use wardlock_machine::*;

struct Shard {
    machine: Machine,
    now: u64,
    requests: u128,
}

impl Shard {
    fn new() -> Shard {
        let mut shard = Shard { machine: Machine::new(), now: 0, requests: 0 };
        let (epoch, incarnation) = (RangeEpoch(1), Incarnation(1));
        shard.one(Command::SetRange { first: 0, last: u64::MAX, epoch, incarnation });
        shard
    }

    fn one(&mut self, command: Command) -> Outcome {
        let mut outcomes = Vec::new();
        let epoch = self.machine.epoch();
        let batch = Batch { at: Stamp(self.now), wall: WallMs(self.now), epoch, commands: vec![command] };
        self.machine.apply(Term(1), batch, &mut outcomes, &mut Effects::default());
        outcomes.remove(0)
    }

    fn request(&mut self) -> u128 {
        self.requests += 1;
        self.requests
    }

    fn set(&mut self, id: &str, change: impl FnOnce(&mut SetHook)) -> Outcome {
        let mut ask = SetHook {
            request: self.request(),
            key: hook(id),
            url: "http://h".into(),
            patterns: vec![Pattern { kind: Kind::Lock, name: String::new(), prefix: true }],
            secret: Secret::new("s".repeat(limits::HOOK_SECRET_BYTES_MIN)),
            cursor: Cursor::default(),
        };
        change(&mut ask);
        let command = Command::SetHook(ask);
        let sound = command.is_within_bounds();
        let outcome = self.one(command);
        assert_eq!(sound, outcome != Outcome::Limit(Limit::Field), "what is checked before is what is checked again");
        outcome
    }

    fn view(&self, id: &str) -> HookView {
        let Answer::Hook(Some(view)) = self.machine.query(&Query::Hook { key: hook(id) }) else { panic!("{id}") };
        view
    }

    fn advance(&mut self, id: &str, change: impl FnOnce(&mut Advance)) -> Outcome {
        let mut ask = Advance {
            key: hook(id),
            epoch: self.view(id).epoch,
            cursor: Cursor::default(),
            dead: Vec::new(),
            settled: Vec::new(),
            delivered: 0,
            failed: 0,
            error: None,
        };
        change(&mut ask);
        self.one(Command::Advance(ask))
    }

    fn letters(&self, id: &str) -> Vec<DeadLetter> {
        let Answer::DeadLetters(Some(all)) = self.machine.query(&Query::DeadLetters { key: hook(id) }) else {
            panic!("{id}")
        };
        all
    }

    fn check(&self) {
        assert_eq!(Machine::restore(&self.machine.snapshot()).as_ref(), Ok(&self.machine));
    }
}

fn hook(id: &str) -> Key {
    Key::hook(Name::new(id).unwrap())
}

fn letter(revision: u64, value: usize) -> DeadLetter {
    let what = What::Configured {
        version: Version(1),
        deleted: false,
        content_type: "t".into(),
        size: value as u32,
        value: Some(Blob::new(&vec![7; value])),
    };
    let key = Key::config(Name::new("a").unwrap());
    let event = Some(Event { revision: Revision(revision), at: WallMs(1), key, what });
    let (shard, revision) = (ShardId(1), Revision(revision));
    DeadLetter { shard, revision, event, attempts: 8, error: "status 500".into(), died: WallMs(0) }
}

fn is_field(outcome: &Outcome) -> bool {
    *outcome == Outcome::Limit(Limit::Field)
}

#[test]
fn each_field_has_its_bound() {
    let mut shard = Shard::new();
    let pattern = |kind, name: usize| Pattern { kind, name: "n".repeat(name), prefix: false };
    let full = |count: usize| Cursor {
        incarnation: Incarnation(1),
        positions: (0..count as u32).map(|shard| (ShardId(shard), Revision(1))).collect(),
    };
    assert!(!is_field(&shard.set("a", |ask| ask.url = "u".repeat(limits::HOOK_URL_BYTES))));
    assert!(is_field(&shard.set("a", |ask| ask.url = "u".repeat(limits::HOOK_URL_BYTES + 1))));
    assert!(is_field(&shard.set("a", |ask| ask.url = "http://h/ a".into())));
    assert!(!is_field(
        &shard.set("a", |ask| ask.patterns = vec![pattern(Kind::Lock, limits::NAME_BYTES); limits::PATTERNS])
    ));
    assert!(is_field(&shard.set("a", |ask| ask.patterns = vec![pattern(Kind::Lock, limits::NAME_BYTES + 1)])));
    assert!(is_field(&shard.set("a", |ask| ask.patterns = vec![pattern(Kind::Lock, 1); limits::PATTERNS + 1])));
    assert!(is_field(&shard.set("a", |ask| ask.patterns = vec![pattern(Kind::Hook, 1)])));
    assert!(!is_field(&shard.set("a", |ask| ask.secret = Secret::new("s".repeat(limits::HOOK_SECRET_BYTES)))));
    assert!(is_field(&shard.set("a", |ask| ask.secret = Secret::new("s".repeat(limits::HOOK_SECRET_BYTES + 1)))));
    assert!(is_field(&shard.set("a", |ask| ask.secret = Secret::new("s".repeat(limits::HOOK_SECRET_BYTES_MIN - 1)))));
    assert!(!is_field(&shard.set("a", |ask| ask.cursor = full(limits::HOOK_SHARDS))));
    assert!(is_field(&shard.set("a", |ask| ask.cursor = full(limits::HOOK_SHARDS + 1))));

    let other = Cursor { incarnation: Incarnation(1), positions: [(ShardId(u32::MAX), Revision(1))].into() };
    shard.set("a", |ask| ask.cursor = full(limits::HOOK_SHARDS));
    assert!(is_field(&shard.advance("a", |ask| ask.cursor = other)), "its cursor speaks of enough shards");
    assert!(is_field(&shard.advance("a", |ask| ask.dead = vec![letter(1, 0); limits::DEAD_LETTERS + 1])));
    assert!(is_field(&shard.advance("a", |ask| ask.dead = vec![letter(1, limits::EVENT_VALUE_BYTES + 1)])));
    assert!(is_field(&shard.advance("a", |ask| ask.settled = vec![Default::default(); limits::DEAD_LETTERS + 1])));
    assert!(is_field(&shard.advance("a", |ask| ask.error = Some("e".repeat(limits::LABEL_BYTES + 1)))));
    shard.check();
}

#[test]
fn the_oldest_dead_letters_make_room_and_are_counted() {
    let mut shard = Shard::new();
    shard.set("a", |_| ());
    for page in 0..2 {
        let dead = (0..200).map(|n| letter(1 + page * 200 + n, 10)).collect();
        shard.advance("a", |ask| ask.dead = dead);
    }
    let view = shard.view("a");
    assert_eq!((view.dead as usize, view.lost), (limits::DEAD_LETTERS, 400 - limits::DEAD_LETTERS as u64));
    assert_eq!(shard.letters("a")[0].revision, Revision(401 - limits::DEAD_LETTERS as u64));
    // And where they are large, fewer.
    let dead = (0..100).map(|n| letter(1_000 + n, limits::EVENT_VALUE_BYTES)).collect();
    shard.advance("a", |ask| ask.dead = dead);
    let most = limits::DEAD_BYTES / limits::EVENT_VALUE_BYTES;
    assert!((most - 4..most).contains(&(shard.view("a").dead as usize)), "{}", shard.view("a").dead);
    shard.check();
}

#[test]
fn a_shard_has_so_much_room_for_dead_letters() {
    let mut shard = Shard::new();
    let hooks = limits::DEAD_BYTES_PER_SHARD / limits::DEAD_BYTES;
    for n in 0..hooks + 2 {
        shard.set(&format!("h{n}"), |_| ());
        let dead = (0..70).map(|n| letter(1 + n, limits::EVENT_VALUE_BYTES)).collect();
        shard.advance(&format!("h{n}"), |ask| ask.dead = dead);
    }
    let last = shard.view(&format!("h{}", hooks + 1));
    assert!(last.dead < 70 && last.lost > 0, "{last:?}");
    shard.check();
    let first = SettleDead { request: shard.request(), key: hook("h0"), redeliver: false };
    assert!(matches!(shard.one(Command::SettleDead(first)), Outcome::HookChanged { letters: 60.., .. }));
    shard.advance(&last.name.to_string(), |ask| ask.dead = (0..9).map(|n| letter(500 + n, 16_000)).collect());
    assert!(shard.letters(last.name.as_str()).iter().any(|letter| letter.revision == Revision(508)));
    shard.check();
}

#[test]
fn a_shard_has_so_many_webhooks_and_so_many_bytes_of_them() {
    let mut shard = Shard::new();
    for n in 0..limits::HOOKS {
        assert!(matches!(shard.set(&format!("h{n}"), |_| ()), Outcome::HookChanged { .. }));
    }
    assert_eq!(shard.set("more", |_| ()), Outcome::Limit(Limit::Hooks));
    assert!(matches!(shard.set("h0", |_| ()), Outcome::HookChanged { .. }), "one that is there may be changed");
    let long = || vec![Pattern { kind: Kind::Lock, name: "n".repeat(1_000), prefix: true }; limits::PATTERNS];
    let full = (0..limits::HOOKS)
        .find(|n| shard.set(&format!("h{n}"), |ask| ask.patterns = long()) == Outcome::Limit(Limit::HookBytes));
    assert!(full.is_some_and(|n| n > 100), "{full:?}");
    let (request, key) = (shard.request(), hook("h1"));
    shard.one(Command::DropHook { request, key });
    let id = format!("h{}", full.unwrap());
    assert!(matches!(shard.set(&id, |ask| ask.patterns = long()), Outcome::HookChanged { .. }), "there is room again");
    let Answer::Hooks(page) = shard.machine.query(&Query::Hooks { after: None, limit: u32::MAX }) else { panic!() };
    assert_eq!(page.len(), limits::HOOK_PAGE, "a list is a page");
    shard.check();
}

/// What a snapshot says of webhooks is believed only where it could have come about, and no flip makes it panic.
#[test]
fn a_damaged_webhook_is_refused() {
    let mut shard = Shard::new();
    shard.set("a", |ask| ask.cursor.positions = [(ShardId(1), Revision(3))].into());
    shard.advance("a", |ask| ask.dead = vec![letter(4, 2), letter(5, 2)]);
    let again = SettleDead { request: shard.request(), key: hook("a"), redeliver: true };
    shard.one(Command::SettleDead(again));
    shard.advance("a", |ask| ask.dead = vec![letter(6, 2)]);
    flip_each_bit(&shard.machine.snapshot(), |_| {});
}

/// Neither what a person reads nor what a shard answers has the secret in it.
#[test]
fn a_secret_is_told_to_nobody() {
    let canary = "canary-0123456789abcdef";
    let mut shard = Shard::new();
    shard.set("a", |ask| ask.secret = Secret::new(canary));
    let ask = SetHook {
        request: 1,
        key: hook("a"),
        url: "http://h".into(),
        patterns: Vec::new(),
        secret: Secret::new(canary),
        cursor: Cursor::default(),
    };
    let work = shard.machine.hook_work(&Name::new("a").unwrap()).unwrap();
    assert_eq!(work.secret.expose(), canary, "whoever signs is given it");
    let answers =
        [Query::Hook { key: hook("a") }, Query::Hooks { after: None, limit: 9 }, Query::DeadLetters { key: hook("a") }];
    let answers = answers.map(|query| format!("{:?}", shard.machine.query(&query)));
    for text in [format!("{:?}", shard.machine), format!("{ask:?}"), format!("{work:?}"), answers.concat()] {
        assert!(!text.contains(canary), "{text}");
    }
}
