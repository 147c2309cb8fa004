//! Services: which instances there are of each, where they are and how they fare.
//!
//! Every instance is bound to a session. One that is to have a TTL of its own has a private session, opened for it
//! alone; so there is one kind of deadline in the whole cluster, watched and checkpointed and expired in one way. When
//! the session's end is told here, its instances go with its grants (invariant 12).
//!
//! The last registration of an id counts, whoever's it is: a process that was started again takes its id back while
//! its former session still runs. From then on the former session's end does not touch it.

use std::{collections::BTreeMap, ops::Bound};

use serde::{Deserialize, Serialize};

use crate::{
    command::*,
    fields,
    ids::*,
    instance::*,
    ledger::Ledger,
    limits,
    query::{InstanceView, What},
    requests::Requests,
};

mod answers;
mod commands;
mod sample;

/// One instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Instance {
    pub(crate) spec: InstanceSpec,
    pub(crate) session: SessionId,
    /// The session was opened for it alone.
    pub(crate) private: bool,
    pub(crate) health: Health,
    /// When it was registered, by wall time.
    pub(crate) registered: WallMs,
    /// The shard's revision when it last changed.
    pub(crate) revision: Revision,
}

impl InstanceSpec {
    /// The bytes of its texts.
    pub(crate) fn texts(&self) -> usize {
        let tags: usize = self.tags.iter().map(String::len).sum();
        let metadata: usize = self.metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
        self.address.len() + tags + metadata
    }

    /// What an instance counts for that says this of itself, where bytes are bounded.
    fn bytes(&self, service: &Name, id: &Name) -> usize {
        limits::INSTANCE_FIXED_BYTES + service.as_str().len() + id.as_str().len() + self.texts()
    }
}

impl Instance {
    fn view(&self, id: &Name, ttl: Millis) -> InstanceView {
        InstanceView {
            instance: id.clone(),
            spec: self.spec.clone(),
            session: self.session,
            private: self.private,
            ttl,
            health: self.health,
            registered: self.registered,
            revision: self.revision,
        }
    }

    /// As it is told to those who watch: all that is needed to use it.
    fn told(&self, id: &Name) -> What {
        What::Registered {
            instance: id.clone(),
            session: self.session,
            address: self.spec.address.clone(),
            port: self.spec.port,
            tags: self.spec.tags.clone(),
            weight: self.spec.weight,
            health: self.health,
        }
    }

    /// The session, where it is the instance's own.
    fn own_session(&self) -> Option<SessionId> {
        Some(self.session).filter(|_| self.private)
    }
}

/// The instances of one service; never none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Service {
    instances: BTreeMap<Name, Instance>,
    /// Index: how many fare how.
    #[serde(skip)]
    tally: ByHealth,
}

/// What a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Kept {
    Registered(Registered),
    Deregistered(Deregistered),
    Reported { revision: Revision },
    NoInstance,
    Foreign,
    Limit(Limit),
}

impl From<Kept> for Outcome {
    fn from(kept: Kept) -> Outcome {
        match kept {
            Kept::Registered(done) => Outcome::Registered(done),
            Kept::Deregistered(done) => Outcome::Deregistered(done),
            Kept::Reported { revision } => Outcome::HealthReported { revision },
            Kept::NoInstance => Outcome::NoInstance,
            Kept::Foreign => Outcome::ForeignInstance,
            Kept::Limit(limit) => Outcome::Limit(limit),
        }
    }
}

/// The services of a shard.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Services {
    services: BTreeMap<Name, Service>,
    requests: Requests<Kept>,
    /// Index: how many instances of all services fare how.
    #[serde(skip)]
    tally: ByHealth,
    /// Index: what they count for.
    #[serde(skip)]
    bytes: usize,
}

impl Services {
    /// How many services have an instance.
    pub(crate) fn len(&self) -> usize {
        self.services.len()
    }

    /// How many instances fare how.
    pub(crate) fn tally(&self) -> ByHealth {
        self.tally
    }

    /// What the instances count for.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn get(&self, service: &Name, id: &Name) -> Option<&Instance> {
        self.services.get(service)?.instances.get(id)
    }

    /// The services that start with `prefix` and come after `after`, in order.
    fn named<'a>(&'a self, prefix: &'a str, after: Option<&str>) -> impl Iterator<Item = (&'a Name, &'a Service)> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(Name::bound(after)),
            _ => Bound::Included(Name::bound(prefix)),
        };
        let starting = self.services.range((from, Bound::Unbounded));
        starting.take_while(move |(name, _)| name.as_str().starts_with(prefix))
    }

    /// Puts an instance in its place, and gives back what was there.
    fn put(&mut self, service: &Name, id: &Name, instance: Instance) -> Option<Instance> {
        let replaced = self.remove(service, id);
        self.count(service, id, &instance);
        let entry = self.services.entry(service.clone()).or_default();
        *entry.tally.of_mut(instance.health) += 1;
        entry.instances.insert(id.clone(), instance);
        replaced
    }

    fn count(&mut self, service: &Name, id: &Name, instance: &Instance) {
        self.bytes += instance.spec.bytes(service, id);
        *self.tally.of_mut(instance.health) += 1;
    }

    fn remove(&mut self, service: &Name, id: &Name) -> Option<Instance> {
        let entry = self.services.get_mut(service)?;
        let instance = entry.instances.remove(id)?;
        *entry.tally.of_mut(instance.health) -= 1;
        // Invariant 8: a service without instances is not stored.
        if entry.instances.is_empty() {
            self.services.remove(service);
        }
        self.bytes -= instance.spec.bytes(service, id);
        *self.tally.of_mut(instance.health) -= 1;
        Some(instance)
    }

    /// Sets how an instance fares, at a revision; it must be there.
    fn fare(&mut self, service: &Name, id: &Name, health: Health, revision: Revision) {
        let entry = self.services.get_mut(service).expect("an instance that was found has a service");
        let instance = entry.instances.get_mut(id).expect("an instance that was found is there");
        *entry.tally.of_mut(instance.health) -= 1;
        *self.tally.of_mut(instance.health) -= 1;
        *entry.tally.of_mut(health) += 1;
        *self.tally.of_mut(health) += 1;
        instance.health = health;
        instance.revision = revision;
    }

    /// Builds the indexes, those of the seats too; the rule that is broken where the state could not have come
    /// about. Asked of bytes from outside.
    pub(crate) fn restore(&mut self, ledger: &mut Ledger) -> Result<(), &'static str> {
        let mut services = std::mem::take(&mut self.services);
        for (service, entry) in &mut services {
            if entry.instances.is_empty() {
                return Err("invariant 8: a service without instances is stored");
            }
            for (id, instance) in &entry.instances {
                if !fields::instance(id, &instance.spec) || instance.revision > ledger.counters.revision {
                    return Err("an instance's fields are out of bounds");
                }
                let Some(seat) = ledger.seats.find(&instance.session) else {
                    return Err("invariant 12: who has registered an instance is not attached");
                };
                ledger.seats[seat].add_instance(service, id);
                if ledger.seats[seat].is_over_limit() {
                    return Err("a session has too much");
                }
                *entry.tally.of_mut(instance.health) += 1;
                self.count(service, id, instance);
            }
        }
        self.services = services;
        match () {
            () if self.tally.total() > limits::INSTANCES as u64 => Err("too many instances are registered"),
            () if self.bytes > limits::INSTANCE_BYTES => Err("the instances are too large"),
            () if !self.requests.is_sound(ledger.counters.now) => Err("what requests of instances were answered"),
            () => Ok(()),
        }
    }
}
