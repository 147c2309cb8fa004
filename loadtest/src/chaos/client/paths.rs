//! What a client does with the configuration: it looks at a path, and mostly changes it then, often from the version
//! that it has seen. Changes are repeated as acquires are, with the same id and by other ways, until their outcome is
//! known.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use wardlock_machine::{Answer, Blob, Change, Command, Configure, Content, Key, Kind, Outcome, Query, Version};

use super::{ATTEMPT, Actor, Settled, World};
use crate::{
    chaos::book::Name,
    linear::{Op, path},
    workload::Dice,
};

/// No two changes put the same value.
static VALUES: AtomicU64 = AtomicU64::new(1);

/// A value as the configuration has it, and back; 0 is none of ours.
pub(in crate::chaos) fn number(value: &[u8]) -> path::Value {
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl World {
    /// Looks at a path and tells what was seen: its version, 0 where it has no value.
    pub(in crate::chaos) async fn look_at_path(&self, name: Name, by: u128, dice: &mut Dice) -> Option<path::Version> {
        let (key, sent) = {
            let book = self.book();
            (Key { kind: Kind::Config, ..book.key(name) }, book.now())
        };
        let read = self.pool.any(dice).read(Query::Config { key, version: None }, ATTEMPT).await;
        let mut book = self.book();
        let now = book.now();
        let Ok(Answer::Config(view)) = read else {
            book.counts.failed += 1;
            return None;
        };
        let found = view.map(|view| (view.version.0, view.value.map_or(0, |value| number(&value))));
        let what = path::What::Read { found };
        book.record_path(name, Op { session: by, invoked: sent, returned: Some(now), what });
        (book.counts.answered, book.counts.path_reads) = (book.counts.answered + 1, book.counts.path_reads + 1);
        Some(found.map_or(0, |(version, _)| version))
    }
}

impl Actor {
    pub(super) async fn use_a_path(&mut self, by: u128) {
        let name = self.world.book().any_path(&mut self.dice);
        let world = Arc::clone(&self.world);
        let looked = world.look_at_path(name, by, &mut self.dice).await;
        if let Some(version) = looked
            && !self.dice.percent(40.0)
        {
            self.change_path(name, by, version).await;
        }
        self.world.book().paths.leave(name);
    }

    async fn change_path(&mut self, name: Name, by: u128, seen: path::Version) {
        let change = match self.dice.below(20) {
            0..14 => path::Change::Put(VALUES.fetch_add(1, Ordering::Relaxed)),
            14..17 => path::Change::Delete,
            // One that may be, or is yet to be.
            _ => path::Change::Rollback(1 + self.dice.below(seen + 2)),
        };
        let expected = self.dice.percent(50.0).then_some(seen);
        let (key, sent) = {
            let book = self.world.book();
            (Key { kind: Kind::Config, ..book.key(name) }, book.now())
        };
        let ask = Configure {
            request: wardlock_router::random::any(),
            key,
            change: match change {
                path::Change::Put(value) => {
                    let value = Blob::new(value.to_string().as_bytes());
                    Change::Put(Content { content_type: "text/plain".to_owned(), value })
                }
                path::Change::Delete => Change::Delete,
                path::Change::Rollback(to) => Change::Rollback { to: Version(to) },
            },
            expected: expected.map(Version),
        };
        let settled = self.settle(Command::Configure(ask), true).await;
        let mut book = self.world.book();
        let now = book.now();
        let what = match settled {
            Settled::Answer(Outcome::Configured(done)) => {
                book.counts.changed += 1;
                path::What::Made { change, expected, version: done.version.0 }
            }
            Settled::Answer(Outcome::VersionMismatch { current }) => {
                book.counts.mismatched += 1;
                path::What::Mismatch { expected: expected.unwrap_or(0), current: current.0 }
            }
            Settled::Answer(Outcome::NoConfig) => path::What::Missing { change, expected },
            Settled::Nothing | Settled::Answer(_) => {
                book.counts.failed += 1;
                return;
            }
            Settled::Unknown => {
                book.counts.unknown += 1;
                let what = path::What::Asked { change, expected };
                book.record_path(name, Op { session: by, invoked: sent, returned: None, what });
                return;
            }
        };
        book.counts.answered += 1;
        book.record_path(name, Op { session: by, invoked: sent, returned: Some(now), what });
    }
}
