//! A service's healthy instances, kept up to date: what a load balancer needs.
//!
//! The watch is opened first, then the instances are listed, then each event is applied; so nothing is missed. After a
//! gap they are listed anew. Events that the list has in it already are told by their revisions and passed over.

use std::{collections::BTreeMap, time::Duration};

use futures_util::FutureExt;
use wardlock_machine::*;

use super::{
    Client,
    services::Service,
    watch::{Watch, WatchError, Watched},
};

/// A healthy instance, as far as it takes to use it. Its metadata is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Which.
    pub instance: Name,
    /// Where it is: a host name or an IP address.
    pub address: String,
    /// On which port.
    pub port: u16,
    /// What it can be chosen by.
    pub tags: Vec<String>,
    /// Its share of the work, beside the others'.
    pub weight: u16,
    /// How it fares.
    pub health: Health,
}

/// See [`Service::watch`].
#[derive(Debug)]
pub struct ServiceWatch {
    client: Client,
    service: String,
    tag: Option<String>,
    patience: Duration,
    watch: Watch,
    /// Every instance, and the revision at which it became so.
    known: BTreeMap<Name, (Endpoint, Revision)>,
    /// Everything up to here is in the list.
    listed: Revision,
    /// The list must be read first.
    stale: bool,
    /// What was told last.
    told: Option<Vec<Endpoint>>,
}

impl Service<'_> {
    /// Its healthy instances as they are now, and again after each change.
    pub async fn watch(self) -> Result<ServiceWatch, WatchError> {
        let Service { client, service, tag, patience, .. } = self;
        let watch = open(client, &service, patience).await?;
        Ok(ServiceWatch {
            client: client.clone(),
            service: service.into_owned(),
            tag,
            patience,
            watch,
            known: BTreeMap::new(),
            listed: Revision(0),
            stale: true,
            told: None,
        })
    }
}

async fn open(client: &Client, service: &str, patience: Duration) -> Result<Watch, WatchError> {
    client.watch().name(Kind::Service, service).patience(patience).open().await
}

impl ServiceWatch {
    /// The healthy instances in the order of their ids: the first time as they are, from then on after a change of
    /// them. An error is one of the cluster's; the watch goes on at the next call, and misses nothing by it. Dropping
    /// the future is harmless.
    pub async fn next(&mut self) -> Result<Vec<Endpoint>, WatchError> {
        loop {
            if self.stale {
                self.list().await?;
            } else {
                let watched = self.watch.next().await;
                self.take(watched).await?;
            }
            // What has happened already is one change with it.
            while !self.stale
                && let Some(watched) = self.watch.next().now_or_never()
            {
                self.take(watched).await?;
            }
            if self.stale {
                continue;
            }
            let now = self.now();
            if self.told.as_ref() != Some(&now) {
                self.told = Some(now.clone());
                return Ok(now);
            }
        }
    }

    fn now(&self) -> Vec<Endpoint> {
        let wanted = |endpoint: &&Endpoint| {
            endpoint.health.is_healthy() && self.tag.as_ref().is_none_or(|tag| endpoint.tags.contains(tag))
        };
        self.known.values().map(|(endpoint, _)| endpoint).filter(wanted).cloned().collect()
    }

    async fn list(&mut self) -> Result<(), WatchError> {
        let service = self.client.service(self.service.as_str()).patience(self.patience);
        let (instances, revision) = service.pages().await?;
        self.known = instances.into_iter().map(listed).collect();
        (self.listed, self.stale) = (revision, false);
        Ok(())
    }

    async fn take(&mut self, watched: Result<Watched, WatchError>) -> Result<(), WatchError> {
        match watched {
            Ok(watched) => {
                self.apply(&watched.event);
                Ok(())
            }
            Err(WatchError::Compacted { .. }) => {
                self.stale = true;
                Ok(())
            }
            // Another history: nothing that is known need be so.
            Err(WatchError::Restored) => {
                self.stale = true;
                self.watch = open(&self.client, &self.service, self.patience).await?;
                Ok(())
            }
            Err(other) => Err(other),
        }
    }

    fn apply(&mut self, event: &Event) {
        let revision = event.revision;
        let is_new = |known: &BTreeMap<Name, (Endpoint, Revision)>, instance: &Name| {
            revision > known.get(instance).map_or(self.listed, |(_, at)| *at)
        };
        match &event.what {
            What::Registered { instance, address, port, tags, weight, health, .. } if is_new(&self.known, instance) => {
                let endpoint = Endpoint {
                    instance: instance.clone(),
                    address: address.clone(),
                    port: *port,
                    tags: tags.clone(),
                    weight: *weight,
                    health: *health,
                };
                self.known.insert(instance.clone(), (endpoint, revision));
            }
            What::Deregistered { instance, .. } if is_new(&self.known, instance) => {
                self.known.remove(instance);
            }
            What::Health { instance, health } if is_new(&self.known, instance) => {
                if let Some((endpoint, at)) = self.known.get_mut(instance) {
                    (endpoint.health, *at) = (*health, revision);
                }
            }
            _ => {}
        }
    }
}

fn listed(view: InstanceView) -> (Name, (Endpoint, Revision)) {
    let InstanceView { instance, spec, health, revision, .. } = view;
    let InstanceSpec { address, port, tags, weight, .. } = spec;
    (instance.clone(), (Endpoint { instance, address, port, tags, weight, health }, revision))
}
