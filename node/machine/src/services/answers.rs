//! What is answered about services.

use std::ops::Bound;

use super::{Instance, Service};
use crate::{
    ids::*,
    limits,
    machine::Machine,
    query::{InstanceView, ServicePage, ServiceView},
    view::Room,
};

impl InstanceView {
    fn size(&self) -> usize {
        // Each text with its length before it.
        let texts = 4 * (self.spec.tags.len() + 2 * self.spec.metadata.len());
        limits::INSTANCE_FIXED_BYTES + self.instance.as_str().len() + self.spec.texts() + texts
    }
}

impl Machine {
    fn service(&self, key: &Key) -> Option<&Service> {
        self.services.services.get(&key.name).filter(|_| key.kind == Kind::Service)
    }

    fn show_instance(&self, id: &Name, instance: &Instance) -> InstanceView {
        let seat = self.ledger.seats.get(&instance.session);
        let seat = seat.expect("invariant 12: who has registered an instance is attached");
        instance.view(id, seat.holder.ttl)
    }

    /// A page of a service's instances, in the order of their ids.
    pub(crate) fn service_page(
        &self,
        key: &Key,
        healthy: bool,
        tag: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> ServicePage {
        let tally = self.service(key).map(|service| service.tally).unwrap_or_default();
        let mut page = ServicePage {
            instances: Vec::new(),
            total: tally.total() as u32,
            healthy: tally.healthy() as u32,
            more: false,
            revision: self.revision(),
        };
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(Name::bound(after)));
        let instances = self.service(key).map(|service| service.instances.range((from, Bound::Unbounded)));
        let wanted = instances.into_iter().flatten().filter(|(_, instance)| {
            let tagged = |tag: &str| instance.spec.tags.iter().any(|has| has == tag);
            (!healthy || instance.health.is_healthy()) && tag.is_none_or(tagged)
        });
        let mut room = Room::default();
        for (id, instance) in wanted {
            let view = self.show_instance(id, instance);
            if page.instances.len() >= limit || !room.take(view.size()) {
                page.more = true;
                break;
            }
            page.instances.push(view);
        }
        page
    }

    /// One instance, if it is registered.
    pub(crate) fn instance(&self, key: &Key, id: &Name) -> Option<InstanceView> {
        let instance = self.service(key)?.instances.get(id)?;
        Some(self.show_instance(id, instance))
    }

    /// At most so many healthy instances, drawn by weight.
    pub(crate) fn sample(&self, key: &Key, count: u32, seed: u64) -> Vec<InstanceView> {
        let count = (count as usize).min(limits::SAMPLE);
        let drawn = self.service(key).map(|service| service.sample(count, seed)).unwrap_or_default();
        drawn.into_iter().map(|(id, instance)| self.show_instance(id, instance)).collect()
    }

    /// A page of the services that have an instance, in the order of their names.
    pub(crate) fn service_list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Vec<ServiceView> {
        let named = self.services.named(prefix, after).take(limit);
        let view = |(name, service): (&Name, &Service)| ServiceView {
            service: name.clone(),
            total: service.tally.total() as u32,
            healthy: service.tally.healthy() as u32,
        };
        named.map(view).collect()
    }
}
