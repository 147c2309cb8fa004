//! What the model says of the configuration.
//!
//! Every version of every path is remembered here for good; what a shard still shows is reckoned from that.

use proptest::{prelude::*, test_runner::TestCaseResult};
use wardlock_machine::*;

use crate::{
    model::{Header, Model},
    ops,
};

/// A version that was ever made.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    path: Name,
    done: Configured,
    /// `None`: a deletion.
    content: Option<Content>,
}

/// The configuration's past.
#[derive(Clone, Debug, Default)]
pub(crate) struct Past {
    made: Vec<Made>,
    /// What each request was answered, and when.
    answered: Vec<(u128, Stamp, Outcome)>,
}

impl Past {
    /// The versions of a path that are kept, newest first.
    fn kept(&self, path: &Name) -> Vec<&Made> {
        let all: Vec<&Made> = self.made.iter().rev().filter(|made| made.path == *path).collect();
        let live = usize::from(all.first().is_some_and(|last| last.content.is_some()));
        all.into_iter().take(live + limits::CONFIG_OLD).collect()
    }

    /// A path's last version, if it is a value.
    fn value(&self, path: &Name) -> Option<&Made> {
        self.kept(path).first().copied().filter(|last| last.content.is_some())
    }

    /// A path's version; 0 where it has no value.
    pub(crate) fn version(&self, path: &Name) -> Version {
        self.value(path).map_or(Version(0), |made| made.done.version)
    }

    /// How many versions a path ever had.
    pub(crate) fn count(&self, path: &Name) -> usize {
        self.made.iter().filter(|made| made.path == *path).count()
    }

    pub(crate) fn has_deletions(&self) -> bool {
        ops::paths().iter().any(|path| self.count(path) > 0 && self.value(path).is_none())
    }

    fn show(made: &Made, with_value: bool) -> ConfigView {
        let value = made.content.as_ref().map(|content| content.value.clone());
        ConfigView {
            path: made.path.clone(),
            version: made.done.version,
            revision: made.done.revision,
            updated: made.done.updated,
            deleted: made.content.is_none(),
            content_type: made.content.as_ref().map(|content| content.content_type.clone()).unwrap_or_default(),
            size: value.as_ref().map_or(0, |value| value.len() as u32),
            value: value.filter(|_| with_value),
        }
    }
}

impl Model {
    pub(crate) fn configure(&mut self, ask: &Configure) -> Outcome {
        let too_large = |content: &Content| {
            content.value.len() > limits::CONFIG_VALUE_BYTES || content.content_type.len() > limits::LABEL_BYTES
        };
        if ask.key.kind != Kind::Config || matches!(&ask.change, Change::Put(content) if too_large(content)) {
            return Outcome::Limit(Limit::Field);
        }
        let remembered = self.past.answered.iter().rev().find(|answered| answered.0 == ask.request);
        if let Some((_, _, done)) = remembered.filter(|(_, at, _)| self.now < at.after(limits::KEY_LIFE)) {
            return done.clone();
        }
        let outcome = self.change_path(ask);
        self.past.answered.push((ask.request, self.now, outcome.clone()));
        outcome
    }

    fn change_path(&mut self, ask: &Configure) -> Outcome {
        let (past, path) = (&mut self.past, &ask.key.name);
        let current = past.version(path);
        if ask.expected.is_some_and(|expected| expected != current) {
            return Outcome::VersionMismatch { current };
        }
        let content = match &ask.change {
            Change::Put(content) => Some(content.clone()),
            Change::Delete if current == Version(0) => return Outcome::NoConfig,
            Change::Delete => None,
            Change::Rollback { to } => {
                let old = past.kept(path).into_iter().find(|made| made.done.version == *to);
                match old.and_then(|made| made.content.clone()) {
                    Some(content) => Some(content),
                    None => return Outcome::NoConfig,
                }
            }
        };
        let version = Version(past.count(path) as u64 + 1);
        self.happened(
            &ask.key,
            What::Configured {
                version,
                deleted: content.is_none(),
                content_type: content.as_ref().map(|content| content.content_type.clone()).unwrap_or_default(),
                size: content.as_ref().map_or(0, |content| content.value.len() as u32),
                value: None,
            },
        );
        let past = &mut self.past;
        let done = Configured { version, revision: self.revision, updated: self.wall };
        past.made.push(Made { path: path.clone(), done, content });
        Outcome::Configured(done)
    }

    /// What a question about the configuration must be answered.
    pub(crate) fn query_config(&self, query: &Query) -> Answer {
        let is_config = |key: &&Key| key.kind == Kind::Config;
        match query {
            Query::Config { key, version } => {
                let kept = Some(key).filter(is_config).map(|key| self.past.kept(&key.name)).unwrap_or_default();
                let found = match version {
                    None => kept.first().copied().filter(|last| last.content.is_some()),
                    Some(version) => kept.into_iter().find(|made| made.done.version == *version),
                };
                Answer::Config(found.map(|made| Past::show(made, true)))
            }
            Query::Versions { key } => {
                let kept = Some(key).filter(is_config).map(|key| self.past.kept(&key.name)).unwrap_or_default();
                Answer::Versions(kept.into_iter().map(|made| Past::show(made, false)).collect())
            }
            Query::Configs { prefix, after, limit } => {
                let mut paths = ops::paths();
                paths.sort();
                paths.retain(|path| path.as_str().starts_with(prefix.as_str()));
                paths.retain(|path| after.as_deref().is_none_or(|after| path.as_str() > after));
                let found = paths.iter().filter_map(|path| self.past.value(path));
                Answer::Configs(found.take(*limit as usize).map(|made| Past::show(made, false)).collect())
            }
            other => panic!("{other:?} is not about the configuration"),
        }
    }

    /// Paths with a value, and what they and the earlier versions count for.
    pub(crate) fn count_configs(&self) -> [u64; 3] {
        let bytes = |made: &Made| {
            let content = made.content.as_ref().map_or(0, |content| content.value.len() + content.content_type.len());
            (limits::CONFIG_ENTRY_BYTES + made.path.as_str().len() + content) as u64
        };
        let paths = ops::paths();
        let values: Vec<&Made> = paths.iter().filter_map(|path| self.past.value(path)).collect();
        let live: u64 = values.iter().copied().map(bytes).sum();
        let all: u64 = paths.iter().flat_map(|path| self.past.kept(path)).map(bytes).sum();
        [values.len() as u64, live, all - live]
    }

    pub(crate) fn compare_configs(&self, machine: &Machine, dice: u64) -> TestCaseResult {
        let ask = |query: Query| -> TestCaseResult {
            prop_assert_eq!(machine.query(&query), self.query_config(&query), "{:?}", query);
            Ok(())
        };
        for path in ops::paths() {
            let last = self.past.count(&path) as u64;
            let key = Key::config(path);
            ask(Query::Config { key: key.clone(), version: None })?;
            if dice % 4 == 2 {
                for version in (0..=last + 1).map(Version) {
                    ask(Query::Config { key: key.clone(), version: Some(version) })?;
                }
                ask(Query::Versions { key })?;
            }
        }
        let prefix = ["", "a", "a/", "z"][(dice / 4 % 4) as usize].to_owned();
        let after = [None, Some("a"), Some("a/b"), Some("b")][(dice / 16 % 4) as usize].map(str::to_owned);
        ask(Query::Configs { prefix, after, limit: [1, 2, 100][(dice / 64 % 3) as usize] })?;
        // A path is no lock, and a lock is no path.
        let name = ops::paths().swap_remove(0);
        prop_assert_eq!(machine.query(&Query::Object { key: Key::config(name.clone()) }), Answer::Object(None));
        ask(Query::Config { key: Key::lock(name), version: None })
    }
}

/// How a path is changed.
#[derive(Clone, Debug)]
pub(crate) struct Act {
    /// Which of the paths.
    on: u8,
    change: Choice,
    /// How far what is expected is from the path's version; or 0, or nothing.
    expected: Expect,
    /// A request that may have been used, or one of its own.
    request: Option<u8>,
}

#[derive(Clone, Debug)]
enum Choice {
    Put(u8),
    TooLong(bool),
    /// A lock's key.
    NoPath,
    Delete,
    /// So many versions before the last.
    Rollback(u8),
}

#[derive(Clone, Debug)]
enum Expect {
    Anything,
    None,
    Near(i8),
}

pub(crate) fn act() -> BoxedStrategy<Act> {
    let change = prop_oneof![
        40 => any::<u8>().prop_map(Choice::Put),
        1 => any::<bool>().prop_map(Choice::TooLong),
        1 => Just(Choice::NoPath),
        8 => Just(Choice::Delete),
        8 => (0..40u8).prop_map(Choice::Rollback),
    ];
    let expected = prop_oneof![
        6 => Just(Expect::Anything),
        1 => Just(Expect::None),
        6 => prop_oneof![4 => Just(0i8), 1 => -2..3i8].prop_map(Expect::Near),
    ];
    // Mostly one path, so that it has a past.
    let on = prop_oneof![3 => Just(0u8), 1 => 0..4u8];
    (on, change, expected, proptest::option::weighted(0.15, 0..12u8))
        .prop_map(|(on, change, expected, request)| Act { on, change, expected, request })
        .boxed()
}

impl Act {
    /// The command; `fresh` names a request that was never used.
    pub(crate) fn command(&self, model: &Model, fresh: u128) -> Command {
        let path = ops::paths().swap_remove(usize::from(self.on));
        let current = model.past.version(&path);
        let content = |content_type: &str, value: &[u8]| {
            Change::Put(Content { content_type: content_type.to_owned(), value: Blob::new(value) })
        };
        let mut key = Key::config(path.clone());
        let change = match self.change {
            Choice::Put(value) => content(["text/plain", "x/y"][usize::from(value % 2)], &vec![value; value.into()]),
            Choice::TooLong(true) => content(&"t".repeat(limits::LABEL_BYTES + 1), b"v"),
            Choice::TooLong(false) => content("t", &vec![0; limits::CONFIG_VALUE_BYTES + 1]),
            Choice::NoPath => {
                key = Key::lock(path.clone());
                content("t", b"v")
            }
            Choice::Delete => Change::Delete,
            Choice::Rollback(back) => {
                Change::Rollback { to: Version((model.past.count(&path) as u64).saturating_sub(back.into())) }
            }
        };
        let expected = match self.expected {
            Expect::Anything => None,
            Expect::None => Some(Version(0)),
            Expect::Near(beside) => Some(Version(current.0.saturating_add_signed(beside.into()))),
        };
        let request = self.request.map_or(fresh, u128::from);
        Command::Configure(Configure { request, key, change, expected })
    }
}

/// A batch's header says nothing of the configuration but when.
#[test]
fn the_model_keeps_what_the_bounds_say() {
    let mut model = Model::default();
    let header = Header { at: Stamp(1), wall: WallMs(1), term: Term(1), epoch: RangeEpoch(0) };
    let put = |request| Configure {
        request,
        key: Key::config(ops::paths().swap_remove(0)),
        change: Change::Put(Content { content_type: "t".into(), value: Blob::new(b"v") }),
        expected: None,
    };
    for request in 0..40 {
        model.step(&header, &Command::Configure(put(request)), &Outcome::Done);
    }
    assert_eq!(model.past.kept(&ops::paths()[0]).len(), limits::CONFIG_OLD + 1);
}
