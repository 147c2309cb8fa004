//! What the model says of events: everything that ever happened, in a row.

use proptest::{prelude::*, test_runner::TestCaseResult};
use wardlock_machine::*;

use crate::{model::Model, ops};

impl Model {
    /// One more revision, and what it is.
    pub(crate) fn happened(&mut self, key: &Key, what: What) {
        self.revision.0 += 1;
        self.events.push(Event { revision: self.revision, at: self.wall, key: key.clone(), what });
    }

    fn query_events(&self, after: Revision, patterns: &[Pattern], limit: usize) -> Answer {
        if after > self.revision {
            return Answer::Events(Err(NoEvents::Ahead { now: self.revision }));
        }
        let fits = |event: &Event| {
            patterns.iter().any(|pattern| {
                let name = event.key.name.as_str();
                let named = name == pattern.name || pattern.prefix && name.starts_with(&pattern.name);
                event.key.kind == pattern.kind && named
            })
        };
        let all: Vec<&Event> = self.events.iter().filter(|event| event.revision > after && fits(event)).collect();
        let events: Vec<Event> = all.iter().take(limit).map(|event| self.told(event)).collect();
        let upto = match events.last() {
            Some(last) if events.len() < all.len() => last.revision,
            None if !all.is_empty() => after,
            _ => self.revision,
        };
        Answer::Events(Ok(EventPage { events, upto }))
    }

    /// With the value that a configuration was given, while that is kept.
    fn told(&self, event: &Event) -> Event {
        let mut event = event.clone();
        if let What::Configured { version, value, .. } = &mut event.what {
            let query = Query::Config { key: event.key.clone(), version: Some(*version) };
            let Answer::Config(kept) = self.query_config(&query) else { panic!("a version was asked for") };
            *value = kept.and_then(|kept| kept.value);
        }
        event
    }

    pub(crate) fn compare_events(&self, machine: &Machine, dice: u64) -> TestCaseResult {
        let pick = |from: u64, of: u64| dice / from % of;
        let mut patterns = Vec::new();
        for (at, kind) in [(1, Kind::Lock), (5, Kind::Election), (25, Kind::Config), (125, Kind::Service)] {
            let names = ops::keys().into_iter().map(|key| key.name).chain(ops::paths()).chain(ops::services());
            let names: Vec<Name> = names.collect();
            let name = names[pick(625, names.len() as u64) as usize].to_string();
            match pick(at, 5) {
                0 => patterns.push(Pattern { kind, name: String::new(), prefix: true }),
                1 => patterns.push(Pattern { kind, name: name.chars().take(1).collect(), prefix: true }),
                2 => patterns.push(Pattern { kind, name, prefix: false }),
                _ => {}
            }
        }
        let back = [0, 1, 3, 20, u64::MAX][pick(7, 5) as usize];
        let limit = [1, 2, 7, 1_000][pick(35, 4) as usize];
        for after in [Revision(self.revision.0.saturating_sub(back)), Revision(self.revision.0 + 1)] {
            let query = Query::Events { after, patterns: patterns.clone(), limit };
            let expected = self.query_events(after, &patterns, limit as usize);
            prop_assert_eq!(machine.query(&query), expected, "{:?}", query);
        }
        Ok(())
    }
}
