//! Bounds of the configuration: what happens at them.

mod damage;

use damage::flip_each_bit;
use wardlock_machine::*;

struct Shard {
    machine: Machine,
    now: u64,
}

impl Shard {
    fn new() -> Shard {
        let mut shard = Shard { machine: Machine::new(), now: 0 };
        let (epoch, incarnation) = (RangeEpoch(1), Incarnation(1));
        shard.one(Command::SetRange { first: 0, last: u64::MAX, epoch, incarnation });
        shard
    }

    fn all(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        let batch = Batch { at: Stamp(self.now), wall: WallMs(self.now), epoch: self.machine.epoch(), commands };
        self.machine.apply(Term(1), batch, &mut outcomes, &mut Effects::default());
        outcomes
    }

    fn one(&mut self, command: Command) -> Outcome {
        self.all(vec![command]).remove(0)
    }
}

fn put(path: &str, request: u128, value: &[u8]) -> Command {
    Command::Configure(Configure {
        request,
        key: Key::config(Name::new(path).unwrap()),
        change: Change::Put(Content { content_type: "t/t".into(), value: Blob::new(value) }),
        expected: None,
    })
}

fn version_of(outcome: &Outcome) -> Version {
    let Outcome::Configured(done) = outcome else { panic!("{outcome:?}") };
    done.version
}

#[test]
fn a_value_has_at_most_a_mebibyte() {
    let mut shard = Shard::new();
    let most = vec![7; limits::CONFIG_VALUE_BYTES];
    assert_eq!(version_of(&shard.one(put("a", 1, &most))), Version(1));
    let more = put("a", 2, &vec![7; most.len() + 1]);
    assert!(!more.is_within_bounds());
    assert_eq!(shard.one(more), Outcome::Limit(Limit::Field));
}

#[test]
fn a_path_keeps_its_last_versions() {
    let mut shard = Shard::new();
    for n in 0..50 {
        shard.one(put("a", n, b"v"));
    }
    let Answer::Versions(kept) = shard.machine.query(&Query::Versions { key: Key::config(Name::new("a").unwrap()) })
    else {
        panic!()
    };
    let numbers: Vec<u64> = kept.iter().map(|view| view.version.0).collect();
    assert_eq!(numbers, (50 - limits::CONFIG_OLD as u64..=50).rev().collect::<Vec<_>>());
}

/// Invariant 10, where even the memory of a deletion goes: the oldest history of a shard makes room.
#[test]
fn a_path_that_was_forgotten_does_not_count_from_one_again() {
    let mut shard = Shard::new();
    for n in 0..9 {
        shard.one(put("first", n, b"v"));
    }
    let key = Key::config(Name::new("first").unwrap());
    let delete = Configure { request: 9, key: key.clone(), change: Change::Delete, expected: None };
    assert_eq!(version_of(&shard.one(Command::Configure(delete))), Version(10));
    let large = vec![1; limits::CONFIG_VALUE_BYTES];
    let enough = limits::CONFIG_OLD_BYTES / limits::CONFIG_VALUE_BYTES;
    for n in 0..enough + 2 {
        shard.one(put("a", 100 + n as u128, &large));
    }
    assert_eq!(shard.machine.query(&Query::Versions { key }), Answer::Versions(Vec::new()), "it is forgotten");
    assert!(shard.machine.counts().config_old_bytes <= limits::CONFIG_OLD_BYTES as u64);
    assert_eq!(version_of(&shard.one(put("first", 1_000, b"v"))), Version(11));
    assert_eq!(version_of(&shard.one(put("other", 1_001, b"v"))), Version(11), "nor does another");
    assert_eq!(Machine::restore(&shard.machine.snapshot()).as_ref(), Ok(&shard.machine));
}

#[test]
fn a_shard_that_is_full_of_values_takes_one_again_when_another_goes() {
    let mut shard = Shard::new();
    let large = vec![1; limits::CONFIG_VALUE_BYTES];
    let fits = limits::CONFIG_BYTES / (limits::CONFIG_VALUE_BYTES + limits::CONFIG_ENTRY_BYTES);
    for n in 0..fits {
        shard.one(put(&format!("p{n:02}"), n as u128, &large));
    }
    assert_eq!(shard.one(put("more", 1_000, &large)), Outcome::Limit(Limit::ConfigBytes));
    assert_eq!(version_of(&shard.one(put("p00", 1_001, &large))), Version(2), "a value may be replaced");
    let key = Key::config(Name::new("p01").unwrap());
    let delete = Configure { request: 1_002, key, change: Change::Delete, expected: None };
    shard.one(Command::Configure(delete));
    assert_eq!(version_of(&shard.one(put("more", 1_003, &large))), Version(1));
}

#[test]
fn a_shard_has_so_many_paths() {
    let mut shard = Shard::new();
    for page in 0..limits::CONFIGS / 1_000 {
        shard.all((0..1_000).map(|n| put(&format!("{page}/{n}"), (page * 1_000 + n) as u128, b"")).collect());
    }
    assert_eq!(shard.machine.counts().configs, limits::CONFIGS as u64);
    assert_eq!(shard.one(put("more", u128::MAX, b"")), Outcome::Limit(Limit::Configs));
    assert_eq!(version_of(&shard.one(put("0/0", u128::MAX - 1, b""))), Version(2));
    // Of the answers the last are remembered, and a restored shard has the same.
    assert_eq!(version_of(&shard.one(put("0/0", u128::MAX - 1, b""))), Version(2));
    assert_eq!(version_of(&shard.one(put("0/1", 1, b""))), Version(2), "its answer made room for others");
    assert_eq!(Machine::restore(&shard.machine.snapshot()).as_ref(), Ok(&shard.machine));
}

/// What a snapshot says of the configuration is believed only where it could have come about.
#[test]
fn a_damaged_configuration_is_refused() {
    let mut shard = Shard::new();
    shard.one(put("a", 1, b"v"));
    shard.one(put("a", 2, b"w"));
    shard.now = 5;
    shard.one(put("b", 3, b"x"));
    flip_each_bit(&shard.machine.snapshot(), |_| {});
}
