//! What the model says of webhooks: a row of them, each with a row of letters.

use proptest::{prelude::*, test_runner::TestCaseResult};
use wardlock_machine::*;

use crate::model::Model;

/// A webhook that is there.
#[derive(Clone, Debug)]
struct There {
    made: SetHook,
    created: WallMs,
    epoch: HookEpoch,
    revised: HookEpoch,
    /// In the order in which they died, each with whether it is to be delivered once more.
    letters: Vec<(bool, DeadLetter)>,
    delivered: u64,
    failed: u64,
    error: Option<String>,
}

/// The webhooks of a shard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hooks {
    there: Vec<There>,
    /// How many changes there were.
    changes: u64,
    /// What each request was answered, and when.
    answered: Vec<(u128, Stamp, Outcome)>,
}

/// The ids of webhooks, one of them called as a lock is.
fn ids() -> Vec<Name> {
    ["a", "h1", "h2"].map(|id| Name::new(id).expect("a name")).to_vec()
}

impl Hooks {
    fn find(&self, id: &Name) -> Option<&There> {
        self.there.iter().find(|there| there.made.key.name == *id)
    }

    fn position(&self, id: &Name) -> Option<usize> {
        self.there.iter().position(|there| there.made.key.name == *id)
    }

    pub(crate) fn count(&self) -> u64 {
        self.there.len() as u64
    }

    pub(crate) fn has_letters(&self) -> bool {
        self.there.iter().any(|there| !there.letters.is_empty())
    }

    fn changed(&mut self) -> HookEpoch {
        self.changes += 1;
        HookEpoch(self.changes)
    }
}

impl There {
    fn letters(&self, again: bool) -> impl Iterator<Item = &DeadLetter> {
        self.letters.iter().filter(move |letter| letter.0 == again).map(|letter| &letter.1)
    }

    fn view(&self) -> HookView {
        HookView {
            name: self.made.key.name.clone(),
            url: self.made.url.clone(),
            patterns: self.made.patterns.clone(),
            created: self.created,
            epoch: self.epoch,
            cursor: self.made.cursor.clone(),
            dead: self.letters(false).count() as u32,
            again: self.letters(true).count() as u32,
            delivered: self.delivered,
            failed: self.failed,
            lost: 0,
            error: self.error.clone(),
        }
    }

    /// Not behind what it was, shard by shard.
    fn forward(&mut self, to: &Cursor) {
        let mine = &mut self.made.cursor;
        if to.incarnation > mine.incarnation {
            *mine = to.clone();
        }
        for (shard, position) in &to.positions {
            let known = mine.positions.get(shard).copied().unwrap_or_default();
            mine.positions.insert(*shard, known.max(*position));
        }
    }
}

fn is_hook(ask: &SetHook) -> bool {
    let named = |pattern: &Pattern| pattern.kind != Kind::Hook && (pattern.prefix || !pattern.name.is_empty());
    ask.key.kind == Kind::Hook
        && !ask.url.is_empty()
        && !ask.patterns.is_empty()
        && ask.patterns.iter().all(named)
        && ask.secret.expose().len() >= 16
}

impl Model {
    /// A request that is remembered is answered as it was; else `run` decides.
    fn hook_once(&mut self, request: u128, run: impl FnOnce(&mut Model) -> Outcome) -> Outcome {
        let known = self.hooks.answered.iter().rev().find(|answered| answered.0 == request);
        if let Some((_, _, outcome)) = known.filter(|(_, at, _)| self.now < at.after(limits::KEY_LIFE)) {
            return outcome.clone();
        }
        let before = self.hooks.changes;
        let outcome = run(self);
        self.hooks.answered.push((request, self.now, outcome.clone()));
        self.effects.hooks |= self.hooks.changes != before;
        outcome
    }

    pub(crate) fn set_hook(&mut self, ask: &SetHook) -> Outcome {
        if !is_hook(ask) {
            return Outcome::Limit(Limit::Field);
        }
        self.hook_once(ask.request, |model| {
            let epoch = model.hooks.changed();
            let at = match model.hooks.position(&ask.key.name) {
                Some(at) => at,
                None => {
                    let (made, created) = (ask.clone(), model.wall);
                    let letters = Vec::new();
                    let [delivered, failed] = [0, 0];
                    let there = There { made, created, epoch, revised: epoch, letters, delivered, failed, error: None };
                    model.hooks.there.push(there);
                    model.hooks.there.len() - 1
                }
            };
            let there = &mut model.hooks.there[at];
            (there.made, there.epoch, there.revised, there.error) = (ask.clone(), epoch, epoch, None);
            Outcome::HookChanged { epoch, letters: 0 }
        })
    }

    pub(crate) fn drop_hook(&mut self, request: u128, key: &Key) -> Outcome {
        if key.kind != Kind::Hook {
            return Outcome::Limit(Limit::Field);
        }
        self.hook_once(request, |model| match model.hooks.position(&key.name) {
            None => Outcome::NoHook,
            Some(at) => {
                let gone = model.hooks.there.remove(at);
                let letters = gone.letters(false).count() as u32;
                Outcome::HookChanged { epoch: model.hooks.changed(), letters }
            }
        })
    }

    pub(crate) fn settle_dead(&mut self, ask: &SettleDead) -> Outcome {
        if ask.key.kind != Kind::Hook {
            return Outcome::Limit(Limit::Field);
        }
        self.hook_once(ask.request, |model| {
            let Some(at) = model.hooks.position(&ask.key.name) else { return Outcome::NoHook };
            let letters = model.hooks.there[at].letters(false).count() as u32;
            if letters > 0 {
                let epoch = model.hooks.changed();
                let there = &mut model.hooks.there[at];
                (there.epoch, there.revised) = (epoch, epoch);
                match ask.redeliver {
                    // Behind those that are to be delivered once more already.
                    true => {
                        there.letters.sort_by_key(|letter| !letter.0);
                        there.letters.iter_mut().for_each(|letter| letter.0 = true);
                    }
                    false => there.letters.retain(|letter| letter.0),
                }
            }
            Outcome::HookChanged { epoch: model.hooks.there[at].epoch, letters }
        })
    }

    pub(crate) fn advance(&mut self, ask: &Advance) -> Outcome {
        let whole = |letter: &DeadLetter| letter.event.as_ref().is_none_or(|event| event.revision == letter.revision);
        let error = ask.error.as_ref().is_none_or(|error| error.len() <= limits::LABEL_BYTES);
        if ask.key.kind != Kind::Hook || !ask.dead.iter().all(whole) || !error {
            return Outcome::Limit(Limit::Field);
        }
        let Some(at) = self.hooks.position(&ask.key.name) else { return Outcome::NoHook };
        let current = self.hooks.there[at].epoch;
        if current != ask.epoch {
            return Outcome::StaleHook { current };
        }
        if ask.cursor.incarnation < self.hooks.there[at].made.cursor.incarnation {
            return Outcome::Limit(Limit::Field);
        }
        let (epoch, wall) = (self.hooks.changed(), self.wall);
        let there = &mut self.hooks.there[at];
        there.forward(&ask.cursor);
        there.letters.retain(|(again, letter)| !(*again && ask.settled.contains(&(letter.shard, letter.revision))));
        for letter in &ask.dead {
            let id = |letter: &DeadLetter| (letter.shard, letter.revision);
            if !there.letters.iter().any(|other| id(&other.1) == id(letter)) {
                there.letters.push((false, DeadLetter { died: wall, ..letter.clone() }));
            }
        }
        there.delivered += u64::from(ask.delivered);
        there.failed += u64::from(ask.failed);
        there.error = ask.error.clone();
        there.epoch = epoch;
        Outcome::HookChanged { epoch, letters: 0 }
    }

    /// What a question about webhooks must be answered.
    pub(crate) fn query_hook(&self, query: &Query) -> Answer {
        let find = |key: &Key| self.hooks.find(&key.name).filter(|_| key.kind == Kind::Hook);
        match query {
            Query::Hook { key } => Answer::Hook(find(key).map(There::view)),
            Query::Hooks { after, limit } => {
                let mut views: Vec<HookView> = self.hooks.there.iter().map(There::view).collect();
                views.sort_by(|a, b| a.name.cmp(&b.name));
                views.retain(|view| after.as_deref().is_none_or(|after| view.name.as_str() > after));
                views.truncate(*limit as usize);
                Answer::Hooks(views)
            }
            Query::DeadLetters { key } => Answer::DeadLetters(find(key).map(|there| {
                let all = there.letters(true).chain(there.letters(false));
                all.cloned().collect()
            })),
            other => panic!("{other:?} is not about webhooks"),
        }
    }

    pub(crate) fn compare_hooks(&self, machine: &Machine, dice: u64) -> TestCaseResult {
        let mut revised: Vec<(Name, HookEpoch)> =
            self.hooks.there.iter().map(|there| (there.made.key.name.clone(), there.revised)).collect();
        revised.sort();
        prop_assert_eq!(machine.hooks().map(|(id, epoch)| (id.clone(), epoch)).collect::<Vec<_>>(), revised);
        let ask = |query: Query| -> TestCaseResult {
            prop_assert_eq!(machine.query(&query), self.query_hook(&query), "{:?}", query);
            Ok(())
        };
        for id in ids() {
            let key = Key::hook(id.clone());
            ask(Query::Hook { key: key.clone() })?;
            if dice % 2 == 1 {
                ask(Query::DeadLetters { key })?;
                ask(Query::DeadLetters { key: Key::lock(id.clone()) })?;
                let work = machine.hook_work(&id);
                let expected = self.hooks.find(&id).map(|there| {
                    let position = |shard: ShardId| there.made.cursor.positions.get(&shard).copied();
                    let behind =
                        |letter: &&(bool, DeadLetter)| position(letter.1.shard).is_none_or(|p| letter.1.revision > p);
                    let mut dead: Vec<_> = there
                        .letters
                        .iter()
                        .filter(behind)
                        .map(|(_, letter)| (letter.shard, letter.revision))
                        .collect();
                    dead.sort();
                    HookWork {
                        epoch: there.epoch,
                        revised: there.revised,
                        url: there.made.url.clone(),
                        patterns: there.made.patterns.clone(),
                        secret: there.made.secret.clone(),
                        cursor: there.made.cursor.clone(),
                        dead,
                        again: there.letters(true).cloned().collect(),
                        error: there.error.clone(),
                    }
                });
                let sorted = work.map(|mut work| {
                    work.dead.sort();
                    work
                });
                prop_assert_eq!(sorted, expected);
            }
        }
        let after = [None, Some("a"), Some("h1"), Some("z")][(dice / 2 % 4) as usize].map(str::to_owned);
        ask(Query::Hooks { after, limit: [1, 2, 100][(dice / 8 % 3) as usize] })
    }
}

/// What is done about a webhook.
#[derive(Clone, Debug)]
pub(crate) struct Act {
    on: u8,
    what: Choice,
    /// A request that may have been used, or one of its own.
    request: Option<u8>,
}

#[derive(Clone, Debug)]
enum Choice {
    Set {
        url: u8,
        positions: [u8; 2],
    },
    /// Breaks a bound.
    Odd(u8),
    Drop,
    Settle(bool),
    Advance {
        late: u8,
        older: bool,
        by: [i8; 2],
        dead: Vec<u8>,
        settled: bool,
        counts: u8,
        odd: u8,
    },
}

pub(crate) fn act() -> BoxedStrategy<Act> {
    let advance = (
        prop_oneof![8 => Just(0u8), 1 => 1..3u8],
        prop::bool::weighted(0.05),
        [-2..9i8, -2..9i8],
        proptest::collection::vec(0..12u8, 0..3),
        any::<bool>(),
        any::<u8>(),
        0..40u8,
    );
    let what = prop_oneof![
        12 => (any::<u8>(), [0..9u8, 0..9u8]).prop_map(|(url, positions)| Choice::Set { url, positions }),
        1 => (0..7u8).prop_map(Choice::Odd),
        3 => Just(Choice::Drop),
        6 => any::<bool>().prop_map(Choice::Settle),
        40 => advance.prop_map(|(late, older, by, dead, settled, counts, odd)| {
            Choice::Advance { late, older, by, dead, settled, counts, odd }
        }),
    ];
    // Mostly one of them, so that it has a past.
    let on = prop_oneof![3 => Just(1u8), 1 => 0..3u8];
    (on, what, proptest::option::weighted(0.15, 0..12u8))
        .prop_map(|(on, what, request)| Act { on, what, request })
        .boxed()
}

/// Of an event of a row that is always the same.
fn letter(number: u8, wrong: bool) -> DeadLetter {
    let (shard, revision) = (ShardId(1 + u32::from(number % 2)), Revision(u64::from(number)));
    let key = Key::config(Name::new("a/b").expect("a name"));
    let what = What::Configured {
        version: Version(1),
        deleted: false,
        content_type: "t".into(),
        size: 3,
        value: Some(Blob::new(&[number; 3])),
    };
    let event = Event { revision: Revision(revision.0 + u64::from(wrong)), at: WallMs(7), key, what };
    let event = Some(event).filter(|_| number != 11);
    DeadLetter { shard, revision, event, attempts: 8, error: format!("status 50{}", number % 10), died: WallMs(0) }
}

impl Act {
    /// The command; `fresh` names a request that was never used.
    pub(crate) fn command(&self, model: &Model, fresh: u128) -> Command {
        let request = self.request.map_or(fresh, u128::from);
        let id = ids().swap_remove(usize::from(self.on));
        let (key, there) = (Key::hook(id.clone()), model.hooks.find(&id));
        let cursor = |at: [u64; 2]| Cursor {
            incarnation: Incarnation(2),
            positions: [(ShardId(1), Revision(at[0])), (ShardId(2), Revision(at[1]))].into(),
        };
        let set = |url: u8, positions: [u8; 2]| SetHook {
            request,
            key: key.clone(),
            url: format!("https://h.example/{url}"),
            patterns: vec![Pattern {
                kind: Kind::Config,
                name: format!("p{}", url % 3),
                prefix: url.is_multiple_of(2),
            }],
            secret: Secret::new(format!("a secret of its own {url}")),
            cursor: cursor(positions.map(u64::from)),
        };
        match &self.what {
            Choice::Set { url, positions } => Command::SetHook(set(*url, *positions)),
            Choice::Odd(bound) => {
                let mut ask = set(0, [0, 0]);
                match bound {
                    0 => ask.key = Key::lock(id),
                    1 => ask.url.clear(),
                    2 => ask.patterns.clear(),
                    3 => ask.patterns = vec![Pattern { kind: Kind::Lock, name: String::new(), prefix: false }],
                    4 => ask.patterns = vec![Pattern { kind: Kind::Hook, name: String::new(), prefix: true }],
                    5 => ask.secret = Secret::new("fifteen letters"),
                    _ => return Command::DropHook { request, key: Key::config(id) },
                }
                Command::SetHook(ask)
            }
            Choice::Drop => Command::DropHook { request, key },
            Choice::Settle(redeliver) => Command::SettleDead(SettleDead { request, key, redeliver: *redeliver }),
            Choice::Advance { late, older, by, dead, settled, counts, odd } => {
                let epoch = there.map_or(HookEpoch(1), |there| there.epoch);
                let position =
                    |shard| there.and_then(|there| there.made.cursor.positions.get(&ShardId(shard)).copied());
                let at = |shard: u32, by: i8| position(shard).unwrap_or_default().0.saturating_add_signed(by.into());
                let mut cursor = cursor([at(1, by[0]), at(2, by[1])]);
                cursor.incarnation.0 -= u16::from(*older);
                let again = there.into_iter().flat_map(|there| there.letters(true)).filter(|_| *settled);
                Command::Advance(Advance {
                    key,
                    epoch: HookEpoch(epoch.0.saturating_sub((*late).into())),
                    cursor,
                    dead: dead.iter().map(|number| letter(*number, *odd == 0)).collect(),
                    settled: again.take(2).map(|letter| (letter.shard, letter.revision)).collect(),
                    delivered: u32::from(counts / 16),
                    failed: u32::from(counts % 16),
                    error: match odd {
                        1 => Some("e".repeat(limits::LABEL_BYTES + 1)),
                        2..20 => Some(format!("status 50{}", odd % 10)),
                        _ => None,
                    },
                })
            }
        }
    }
}
