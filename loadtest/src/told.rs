//! What watches were told, against what they must be.
//!
//! # The laws
//! 1. Of one shard, revisions rise, through all that a watch is resumed by.
//! 2. The versions of a path rise by one, none is missing and none comes twice; the tokens of a lock or an election
//!    rise, and a grant ends once, after it was told.
//! 3. Every change and every grant that a client was told of is told to every watch, and all are told the same of it.
//! 4. A gap is told. What was about at that moment can then not be judged for that watch; gaps are counted, and so is
//!    what could be judged.
//!
//! What a watch tells of a path joins the path's own history as well, where its time and its content are checked
//! ([`linear::path`](crate::linear::path)).

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use wardlock_machine::Kind;

/// How many broken laws are kept in words.
const EXAMPLES: usize = 3;

/// What a version or a token stands for: a value, a deletion, a session.
pub(crate) type Content = u128;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Told {
    watches: Vec<BTreeMap<u32, u64>>,
    things: BTreeMap<(Kind, String), Thing>,
    sum: Sum,
}

/// What came of all watches.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Sum {
    pub(crate) watches: usize,
    pub(crate) events: u64,
    /// How often a watch was dropped and resumed by its token.
    pub(crate) resumed: u64,
    pub(crate) gaps: u64,
    /// Histories that a watch was told whole, and those that it was not for a gap.
    pub(crate) whole: u64,
    pub(crate) with_gaps: u64,
    pub(crate) broken: u64,
    /// The first few broken laws, in words.
    pub(crate) examples: Vec<String>,
}

/// A path, a lock or an election.
#[derive(Debug, Default)]
struct Thing {
    /// What clients were told of.
    acknowledged: BTreeMap<u64, Option<Content>>,
    /// What the first watch that came by was told.
    content: BTreeMap<u64, Option<Content>>,
    by: Vec<By>,
    /// Nobody asks about it any more.
    closed: bool,
}

/// What one watch was told of it.
#[derive(Clone, Debug, Default)]
struct By {
    numbers: BTreeSet<u64>,
    /// A grant that has not been told to have ended.
    open: Option<u64>,
    gap: bool,
}

/// Something that a watch told.
#[derive(Clone, Copy, Debug)]
pub(crate) enum News {
    /// A version, or a grant's token, and its content where that was told.
    Made(u64, Option<Content>),
    /// The end of the grant with this token.
    Ended(u64),
}

impl Told {
    pub(crate) fn new(watches: usize) -> Told {
        let sum = Sum { watches, ..Sum::default() };
        Told { watches: vec![BTreeMap::new(); watches], things: BTreeMap::new(), sum }
    }

    pub(crate) fn sum(&self) -> &Sum {
        &self.sum
    }

    fn thing(&mut self, kind: Kind, name: &str) -> &mut Thing {
        let watches = self.watches.len();
        let thing = self.things.entry((kind, name.to_owned())).or_default();
        thing.by.resize(watches, By::default());
        thing
    }

    pub(crate) fn broken(&mut self, why: String) {
        self.sum.broken += 1;
        if self.sum.examples.len() < EXAMPLES {
            self.sum.examples.push(why);
        }
    }

    /// A client was told of a version or a grant.
    pub(crate) fn acknowledged(&mut self, kind: Kind, name: &str, number: u64, content: Option<Content>) {
        let thing = self.thing(kind, name);
        thing.acknowledged.insert(number, content);
        if let Some(other) = thing.content.get(&number).copied() {
            self.agree(kind, name, number, other, content);
        }
    }

    fn agree(&mut self, kind: Kind, name: &str, number: u64, one: Option<Content>, other: Option<Content>) {
        if let (Some(one), Some(other)) = (one, other)
            && one != other
        {
            self.broken(format!("{} {name}: a watch told {one:x} of {number}, which is {other:x}", word(kind)));
        }
    }

    /// A watch was told something. Whether it is the first to be told of this version or grant.
    pub(crate) fn told(
        &mut self,
        watch: usize,
        (shard, revision): (u32, u64),
        (kind, name): (Kind, &str),
        news: News,
    ) -> bool {
        self.sum.events += 1;
        let last = self.watches[watch].insert(shard, revision);
        if let Some(last) = last.filter(|last| *last >= revision) {
            self.broken(format!("law 1: watch {watch} was told revision {revision} of shard {shard} after {last}"));
        }
        let thing = self.thing(kind, name);
        let by = &mut thing.by[watch];
        let wrong = match news {
            News::Made(number, _) => {
                let wrong = match by.numbers.last() {
                    Some(last) if number <= *last => Some(format!("{number} after {last}")),
                    Some(last) if kind == Kind::Config && number != last + 1 && !by.gap => {
                        Some(format!("{number} after {last}, and nothing between"))
                    }
                    _ => by.open.filter(|_| !by.gap).map(|open| format!("{number} while {open} had not ended")),
                };
                by.numbers.insert(number);
                by.open = Some(number).filter(|_| kind != Kind::Config);
                wrong
            }
            News::Ended(token) => {
                let wrong = by.open != Some(token) && !by.gap;
                by.open = None;
                wrong.then(|| format!("the end of {token}, which was not held"))
            }
        };
        let News::Made(number, content) = news else {
            // Of a thing that was settled already only the last end is to come.
            let settled = thing.acknowledged.is_empty() && thing.by.iter().all(|by| by.numbers.is_empty());
            if settled {
                self.things.remove(&(kind, name.to_owned()));
            } else if let Some(wrong) = wrong {
                self.broken(format!("law 2: watch {watch} of {} {name} was told {wrong}", word(kind)));
            }
            return false;
        };
        let known = thing.acknowledged.get(&number).copied();
        let before = thing.content.get(&number).copied();
        if before.is_none_or(|before| before.is_none()) {
            thing.content.insert(number, content);
        }
        for other in [known, before].into_iter().flatten() {
            self.agree(kind, name, number, content, other);
        }
        if let Some(wrong) = wrong {
            self.broken(format!("law 2: watch {watch} of {} {name} was told {wrong}", word(kind)));
        }
        before.is_none()
    }

    /// A watch was told of a gap.
    pub(crate) fn gap(&mut self, watch: usize) {
        self.sum.gaps += 1;
        self.things.values_mut().for_each(|thing| thing.by[watch].gap = true);
    }

    /// A watch was dropped and resumed.
    pub(crate) fn resumed(&mut self) {
        self.sum.resumed += 1;
    }

    /// Nobody asks about it any more.
    pub(crate) fn close(&mut self, kind: Kind, name: &str) {
        self.thing(kind, name).closed = true;
    }

    /// Judges what has been told whole, and forgets it. Says what is missing still of what is closed.
    pub(crate) fn settle(&mut self) -> Vec<String> {
        let mut missing = Vec::new();
        let sum = &mut self.sum;
        self.things.retain(|(kind, name), thing| {
            if !thing.closed {
                return true;
            }
            let lacks = |by: &By| thing.acknowledged.keys().find(|number| !by.numbers.contains(number)).copied();
            let lacking: Vec<(usize, u64)> = thing
                .by
                .iter()
                .enumerate()
                .filter(|(_, by)| !by.gap)
                .filter_map(|(watch, by)| Some((watch, lacks(by)?)))
                .collect();
            let word = word(*kind);
            missing.extend(
                lacking
                    .iter()
                    .map(|(watch, number)| format!("law 3: watch {watch} of {word} {name} was never told of {number}")),
            );
            if lacking.is_empty() {
                let gaps = thing.by.iter().filter(|by| by.gap).count() as u64;
                sum.with_gaps += gaps;
                sum.whole += thing.by.len() as u64 - gaps;
            }
            !lacking.is_empty()
        });
        missing
    }

    /// What was not told to the end is broken.
    pub(crate) fn end(&mut self) {
        self.settle().into_iter().for_each(|missing| self.broken(missing));
    }
}

fn word(kind: Kind) -> &'static str {
    if kind == Kind::Lock {
        "lock"
    } else if kind == Kind::Election {
        "election"
    } else {
        "path"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: (Kind, &str) = (Kind::Config, "a");
    const L: (Kind, &str) = (Kind::Lock, "l");

    fn made(number: u64) -> News {
        News::Made(number, Some(u128::from(number)))
    }

    /// One watch, told of versions 1 and 2 of a path; then this. What is broken at the end.
    fn after(then: impl FnOnce(&mut Told)) -> Vec<String> {
        let mut told = Told::new(2);
        for number in [1, 2] {
            told.acknowledged(A.0, A.1, number, Some(u128::from(number)));
            assert_eq!(
                (0..2).map(|watch| told.told(watch, (1, number), A, made(number))).collect::<Vec<_>>(),
                [true, false]
            );
        }
        then(&mut told);
        told.close(A.0, A.1);
        told.close(L.0, L.1);
        told.end();
        told.sum.examples
    }

    #[test]
    fn what_is_told_once_and_in_order_is_right() {
        assert!(after(|_| {}).is_empty());
        assert!(
            after(|told| {
                told.acknowledged(L.0, L.1, 7, Some(7));
                for watch in 0..2 {
                    told.told(watch, (2, 1), L, made(7));
                    told.told(watch, (2, 2), L, News::Ended(7));
                    // Of this one no client ever heard.
                    told.told(watch, (2, 3), L, made(9));
                }
            })
            .is_empty()
        );
    }

    #[test]
    fn whatever_is_told_wrongly_breaks_a_law() {
        let wrongs: [(&str, fn(&mut Told)); 9] = [
            ("law 1", |told| {
                told.told(0, (1, 2), (Kind::Config, "b"), made(1));
            }),
            ("law 2", |told| {
                told.told(0, (1, 3), A, made(2));
            }),
            ("law 2", |told| {
                told.told(0, (1, 3), A, made(4));
            }),
            ("is 3", |told| {
                told.acknowledged(A.0, A.1, 3, Some(3));
                told.told(0, (1, 3), A, News::Made(3, Some(8)));
                told.told(1, (1, 3), A, made(3));
            }),
            ("of 3, which", |told| {
                told.told(0, (1, 3), A, News::Made(3, Some(8)));
                told.told(1, (1, 3), A, made(3));
            }),
            ("law 3", |told| {
                told.acknowledged(A.0, A.1, 3, None);
                told.told(0, (1, 3), A, made(3));
            }),
            ("law 3", |told| told.acknowledged(L.0, L.1, 1, None)),
            ("law 2", |told| {
                told.told(0, (1, 3), L, made(1));
                told.told(0, (1, 4), L, made(2));
            }),
            ("law 2", |told| {
                told.told(0, (1, 3), L, made(1));
                told.told(0, (1, 4), L, News::Ended(1));
                told.told(0, (1, 5), L, News::Ended(1));
            }),
        ];
        for (law, wrong) in wrongs {
            let broken = after(wrong);
            assert!(broken.first().is_some_and(|first| first.contains(law)), "{law}: {broken:?}");
        }
    }

    #[test]
    fn a_gap_excuses_what_was_about_and_is_counted() {
        let mut told = Told::new(1);
        told.acknowledged(A.0, A.1, 1, None);
        told.gap(0);
        told.told(0, (1, 9), A, made(6));
        told.close(A.0, A.1);
        told.acknowledged(L.0, L.1, 1, None);
        told.told(0, (1, 10), L, made(1));
        told.close(L.0, L.1);
        told.end();
        let Sum { gaps, whole, with_gaps, broken, .. } = *told.sum();
        assert_eq!((gaps, whole, with_gaps, broken), (1, 1, 1, 0), "{:?}", told.sum());
        assert!(told.things.is_empty(), "what is settled is forgotten");
    }
}
