//! When two machines are the same: their states are, and so are their indexes (invariant 6), whatever
//! places things have in their tables.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    config::Configs, deadlines::Deadlines, ids::*, machine::Machine, query::Counts, queue::Place, services::Services,
    session::Home,
};

/// The indexes, by keys instead of places.
#[derive(PartialEq)]
struct Indexes<'a> {
    grants: BTreeMap<Token, &'a Key>,
    held: BTreeSet<(SessionId, &'a Key, Token)>,
    waits: BTreeSet<(SessionId, &'a Key, Place)>,
    deadlines: &'a Deadlines,
    counts: Counts,
    home: &'a Home,
    configs: &'a Configs,
    services: &'a Services,
    instances: BTreeSet<(SessionId, &'a (Name, Name))>,
}

impl Machine {
    fn indexes(&self) -> Indexes<'_> {
        let key = |at| self.locks.entry(at).0;
        let seats = self.ledger.seats.sorted();
        let held = seats.iter().flat_map(|(id, seat)| seat.held.iter().map(|(at, token)| (**id, key(at), token)));
        let waits = seats.iter().flat_map(|(id, seat)| seat.waits.iter().map(|(at, place)| (**id, key(at), place)));
        let instances = seats.iter().flat_map(|(id, seat)| seat.instances.iter().map(|instance| (**id, instance)));
        Indexes {
            grants: self.ledger.grants.sorted().into_iter().map(|(token, at)| (*token, key(*at))).collect(),
            held: held.collect(),
            waits: waits.collect(),
            deadlines: &self.ledger.deadlines,
            counts: self.ledger.counts,
            home: &self.home,
            configs: &self.configs,
            services: &self.services,
            instances: instances.collect(),
        }
    }
}

/// For tests: O(n log n).
impl PartialEq for Machine {
    fn eq(&self, other: &Machine) -> bool {
        self.snapshot() == other.snapshot() && self.indexes() == other.indexes()
    }
}
