//! What the model says of services: who is registered now, in a row, and what each request was answered.

use proptest::{prelude::*, test_runner::TestCaseResult};
use wardlock_machine::*;

use crate::{
    model::{Model, is_label, is_metadata},
    ops::{self, SESSIONS},
};

/// An instance that is registered.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) service: Name,
    pub(crate) view: InstanceView,
}

/// All that is registered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    pub(crate) listed: Vec<Listed>,
    answered: Vec<(u128, Stamp, Outcome)>,
}

impl Registry {
    /// Who is registered under an id.
    fn of(&self, service: &Name, id: &Name) -> Option<&InstanceView> {
        let found = self.listed.iter().find(|listed| listed.service == *service && listed.view.instance == *id);
        found.map(|listed| &listed.view)
    }

    fn forget(&mut self, service: &Name, id: &Name) {
        self.listed.retain(|listed| !(listed.service == *service && listed.view.instance == *id));
    }

    /// The instances of a service by id.
    fn by_id(&self, service: &Name) -> Vec<InstanceView> {
        let ours = self.listed.iter().filter(|listed| listed.service == *service);
        let mut all: Vec<InstanceView> = ours.map(|listed| listed.view.clone()).collect();
        all.sort_by(|a, b| a.instance.cmp(&b.instance));
        all
    }
}

fn can_be_reached(address: &str) -> bool {
    let dotted = address.trim_end_matches('.').split('.').all(|part| {
        let known = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        !part.is_empty() && part.len() < 64 && part.chars().all(known)
    });
    address.len() < 256 && (dotted || address.parse::<std::net::Ipv6Addr>().is_ok())
}

impl Model {
    /// Runs what names a request, unless that was answered not long ago.
    fn once(&mut self, request: u128, run: impl FnOnce(&mut Model) -> Outcome) -> Outcome {
        let remembered = self.registry.answered.iter().rev().find(|answered| answered.0 == request);
        if let Some((_, _, answer)) = remembered.filter(|(_, at, _)| self.now < at.after(limits::KEY_LIFE)) {
            return answer.clone();
        }
        let outcome = run(self);
        self.registry.answered.push((request, self.now, outcome.clone()));
        outcome
    }

    pub(crate) fn register(&mut self, ask: &Register) -> Outcome {
        let spec = &ask.spec;
        let once = spec.tags.windows(2).all(|pair| pair[0] < pair[1]);
        let tags =
            spec.tags.len() <= limits::TAGS && once && spec.tags.iter().all(|tag| !tag.is_empty() && is_label(tag));
        let named = ask.key.kind == Kind::Service && is_label(ask.instance.as_str());
        if !(named && tags && can_be_reached(&spec.address) && spec.port > 0 && is_metadata(&spec.metadata)) {
            return Outcome::Limit(Limit::Field);
        }
        if self.guest(ask.session).is_none() {
            return Outcome::NotAttached;
        }
        self.once(ask.request, |model| model.list(ask))
    }

    fn list(&mut self, ask: &Register) -> Outcome {
        let (service, id) = (&ask.key.name, &ask.instance);
        let before = self.registry.of(service, id).cloned();
        if let Some(own) = before.as_ref().filter(|before| before.session == ask.session)
            && (&own.spec, own.private) == (&ask.spec, ask.private)
        {
            let registered = own.registered;
            let revision = self.fares(&ask.key, id, ask.health);
            return Outcome::Registered(Registered { revision, registered, replaced: None });
        }
        self.registry.forget(service, id);
        self.happened(
            &ask.key,
            What::Registered {
                instance: id.clone(),
                session: ask.session,
                address: ask.spec.address.clone(),
                port: ask.spec.port,
                tags: ask.spec.tags.clone(),
                weight: ask.spec.weight,
                health: ask.health,
            },
        );
        let view = InstanceView {
            instance: id.clone(),
            spec: ask.spec.clone(),
            session: ask.session,
            private: ask.private,
            ttl: self.guest(ask.session).expect("it is attached").holder.ttl,
            health: ask.health,
            registered: self.wall,
            revision: self.revision,
        };
        self.registry.listed.push(Listed { service: service.clone(), view });
        let replaced = before.filter(|before| before.private && before.session != ask.session);
        let replaced = replaced.map(|before| before.session);
        Outcome::Registered(Registered { revision: self.revision, registered: self.wall, replaced })
    }

    /// How an instance fares from now on, and when that began.
    fn fares(&mut self, key: &Key, id: &Name, health: Health) -> Revision {
        let known = self.registry.of(&key.name, id).expect("it is listed").clone();
        if known.health == health {
            return known.revision;
        }
        self.happened(key, What::Health { instance: id.clone(), health });
        let revision = self.revision;
        let mine = |listed: &&mut Listed| listed.service == key.name && listed.view.instance == *id;
        for listed in self.registry.listed.iter_mut().filter(mine) {
            (listed.view.health, listed.view.revision) = (health, revision);
        }
        revision
    }

    fn strike(&mut self, key: &Key, id: &Name, reason: EndReason) {
        self.registry.forget(&key.name, id);
        self.happened(key, What::Deregistered { instance: id.clone(), reason });
    }

    pub(crate) fn deregister(&mut self, request: u128, key: &Key, id: &Name, session: Option<SessionId>) -> Outcome {
        if key.kind != Kind::Service || !is_label(id.as_str()) {
            return Outcome::Limit(Limit::Field);
        }
        self.once(request, |model| match model.registry.of(&key.name, id).cloned() {
            None => Outcome::NoInstance,
            Some(known) if session.is_some_and(|session| session != known.session) => Outcome::ForeignInstance,
            Some(known) => {
                model.strike(key, id, EndReason::Released);
                let private = known.private.then_some(known.session);
                Outcome::Deregistered(Deregistered { revision: model.revision, private })
            }
        })
    }

    pub(crate) fn report_health(
        &mut self,
        request: u128,
        key: &Key,
        id: &Name,
        session: SessionId,
        health: Health,
    ) -> Outcome {
        if key.kind != Kind::Service || !is_label(id.as_str()) {
            return Outcome::Limit(Limit::Field);
        }
        self.once(request, |model| match model.registry.of(&key.name, id) {
            None => Outcome::NoInstance,
            Some(known) if known.session != session => Outcome::ForeignInstance,
            Some(_) => Outcome::HealthReported { revision: model.fares(key, id, health) },
        })
    }

    /// Nothing that a session has registered outlives it.
    pub(crate) fn drop_instances(&mut self, session: SessionId, reason: EndReason) {
        let own = self.registry.listed.iter().filter(|listed| listed.view.session == session);
        let mut own: Vec<(Name, Name)> =
            own.map(|listed| (listed.service.clone(), listed.view.instance.clone())).collect();
        own.sort();
        for (service, id) in own {
            self.strike(&Key::service(service), &id, reason);
        }
    }

    pub(crate) fn query_services(&self, query: &Query) -> Answer {
        let of = |key: &Key| if key.kind == Kind::Service { self.registry.by_id(&key.name) } else { Vec::new() };
        let count = |of: &[InstanceView]| of.iter().filter(|view| view.health != Health::Critical).count() as u32;
        match query {
            Query::Service { key, healthy, tag, after, limit } => {
                let all = of(key);
                let mut wanted = all.clone();
                wanted.retain(|view| !healthy || view.health != Health::Critical);
                wanted.retain(|view| tag.as_ref().is_none_or(|tag| view.spec.tags.contains(tag)));
                wanted.retain(|view| after.as_deref().is_none_or(|after| view.instance.as_str() > after));
                let more = wanted.len() > *limit as usize;
                wanted.truncate(*limit as usize);
                Answer::Service(ServicePage {
                    instances: wanted,
                    total: all.len() as u32,
                    healthy: count(&all),
                    more,
                    revision: self.revision,
                })
            }
            Query::Instance { key, instance } => {
                Answer::Instance(of(key).into_iter().find(|view| view.instance == *instance))
            }
            Query::Services { prefix, after, limit } => {
                let mut services = ops::services();
                services.sort();
                services.retain(|service| service.as_str().starts_with(prefix.as_str()));
                services.retain(|service| after.as_deref().is_none_or(|after| service.as_str() > after));
                let views = services.into_iter().map(|service| {
                    let all = self.registry.by_id(&service);
                    ServiceView { service, total: all.len() as u32, healthy: count(&all) }
                });
                Answer::Services(views.filter(|view| view.total > 0).take(*limit as usize).collect())
            }
            other => panic!("{other:?} is not about services"),
        }
    }

    /// Services, their instances by health, and their bytes.
    pub(crate) fn count_services(&self) -> (u64, ByHealth, u64) {
        let services = ops::services().iter().filter(|service| !self.registry.by_id(service).is_empty()).count() as u64;
        let fare = |health| self.registry.listed.iter().filter(|listed| listed.view.health == health).count() as u64;
        let texts = |listed: &Listed| {
            let spec = &listed.view.spec;
            let metadata: usize = spec.metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
            let names = listed.service.as_str().len() + listed.view.instance.as_str().len();
            names + spec.address.len() + spec.tags.concat().len() + metadata
        };
        let bytes =
            self.registry.listed.iter().map(|listed| limits::INSTANCE_FIXED_BYTES + texts(listed)).sum::<usize>();
        let by_health = ByHealth {
            passing: fare(Health::Passing),
            warning: fare(Health::Warning),
            critical: fare(Health::Critical),
        };
        (services, by_health, bytes as u64)
    }

    pub(crate) fn compare_services(&self, machine: &Machine, dice: u64) -> TestCaseResult {
        let ask = |query: Query| -> TestCaseResult {
            prop_assert_eq!(machine.query(&query), self.query_services(&query), "{:?}", query);
            Ok(())
        };
        for service in ops::services() {
            let key = Key::service(service);
            ask(Query::Service { key: key.clone(), healthy: false, tag: None, after: None, limit: 100 })?;
            if dice % 4 == 1 {
                let tag = [None, Some("t"), Some("u")][(dice / 4 % 3) as usize].map(str::to_owned);
                let after = [None, Some("i"), Some("ij")][(dice / 12 % 3) as usize].map(str::to_owned);
                let (healthy, limit) = ((dice / 36).is_multiple_of(2), [0, 1, 2, 100][(dice / 72 % 4) as usize]);
                ask(Query::Service { key: key.clone(), healthy, tag, after, limit })?;
                for instance in ops::instances() {
                    ask(Query::Instance { key: key.clone(), instance })?;
                }
                self.compare_sample(machine, &key, dice / 288)?;
            }
        }
        let prefix = ["", "a", "s/", "z"][(dice / 4 % 4) as usize].to_owned();
        let after = [None, Some("a"), Some("s"), Some("s/t")][(dice / 16 % 4) as usize].map(str::to_owned);
        ask(Query::Services { prefix, after, limit: [1, 2, 100][(dice / 64 % 3) as usize] })?;
        // A service is no lock, and a lock is no service.
        let name = ops::services().swap_remove(0);
        prop_assert_eq!(machine.query(&Query::Object { key: Key::service(name.clone()) }), Answer::Object(None));
        ask(Query::Service { key: Key::lock(name), healthy: false, tag: None, after: None, limit: 9 })
    }

    /// Which are drawn is chance; that they may be is not (invariant 14).
    fn compare_sample(&self, machine: &Machine, key: &Key, seed: u64) -> TestCaseResult {
        let mut healthy = self.registry.by_id(&key.name);
        healthy.retain(|view| view.health != Health::Critical);
        for count in [0, 1, 2, 32] {
            let query = Query::Sample { key: key.clone(), count, seed };
            let Answer::Sample(drawn) = machine.query(&query) else { panic!("a sample was asked for") };
            prop_assert_eq!(drawn.len(), healthy.len().min(count as usize));
            for (index, view) in drawn.iter().enumerate() {
                prop_assert!(healthy.contains(view), "{view:?} is not healthy, or not so");
                prop_assert!(!drawn[..index].contains(view), "{view:?} was drawn twice");
            }
            let weighty = healthy.iter().filter(|view| view.spec.weight > 0).count();
            let drawn_weighty = drawn.iter().filter(|view| view.spec.weight > 0).count();
            prop_assert_eq!(drawn_weighty, weighty.min(count as usize), "weight 0 before what has one");
        }
        Ok(())
    }
}

/// What is done to an instance.
#[derive(Clone, Debug)]
pub(crate) struct Act {
    who: u8,
    service: u8,
    instance: u8,
    choice: Choice,
    /// A request that may have been used, or one of its own.
    request: Option<u8>,
}

#[derive(Clone, Debug)]
enum Choice {
    /// How it is described, how it fares, and which bound it breaks, if it is small enough to name one.
    Register {
        spec: u8,
        private: bool,
        health: Health,
        odd: u8,
    },
    /// Whoever's it is, or only one's own.
    Deregister {
        any: bool,
    },
    Report {
        health: Health,
    },
    /// Under a lock's key.
    NoService,
}

fn health() -> impl Strategy<Value = Health> {
    (0..3usize).prop_map(|number| Health::ALL[number])
}

pub(crate) fn act() -> BoxedStrategy<Act> {
    let register = (0..4u8, any::<bool>(), health(), 0..150u8);
    let choice = prop_oneof![
        12 => register.prop_map(|(spec, private, health, odd)| Choice::Register { spec, private, health, odd }),
        3 => any::<bool>().prop_map(|any| Choice::Deregister { any }),
        5 => health().prop_map(|health| Choice::Report { health }),
        1 => Just(Choice::NoService),
    ];
    // Mostly of one service, so that they are in each other's way.
    let service = prop_oneof![3 => Just(0u8), 1 => 0..4u8];
    (0..SESSIONS, service, 0..3u8, choice, proptest::option::weighted(0.1, 0..12u8))
        .prop_map(|(who, service, instance, choice, request)| Act { who, service, instance, choice, request })
        .boxed()
}

fn described(spec: u8) -> InstanceSpec {
    let metadata = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
    InstanceSpec {
        address: ["10.0.0.1", "host.example", "::1", "h-1"][usize::from(spec)].to_owned(),
        port: 8_000 + u16::from(spec),
        tags: [&["t"][..], &["t", "u"], &[], &["u"]][usize::from(spec)].iter().map(|tag| (*tag).to_owned()).collect(),
        weight: [1, 0, 7, 1][usize::from(spec)],
        metadata: metadata([&[][..], &[("zone", "a")], &[], &[("a", "b"), ("c", "d")]][usize::from(spec)]),
    }
}

impl Act {
    /// Whose it is: of a health report or a careful deregistration mostly the one who registered it.
    fn session(&self, model: &Model, service: &Name, id: &Name) -> SessionId {
        let owner = model.registry.of(service, id).map(|view| view.session);
        owner.filter(|_| self.who > 0).unwrap_or(ops::session(model.incarnation, self.who))
    }

    /// The command; `fresh` names a request that was never used.
    pub(crate) fn command(&self, model: &Model, fresh: u128) -> Command {
        let service = ops::services().swap_remove(usize::from(self.service));
        let instance = ops::instances().swap_remove(usize::from(self.instance));
        let request = self.request.map_or(fresh, u128::from);
        let key = Key::service(service.clone());
        match self.choice {
            Choice::Register { spec, private, health, odd } => {
                let mut ask = Register {
                    request,
                    key,
                    instance,
                    session: ops::session(model.incarnation, self.who),
                    private,
                    spec: described(spec),
                    health,
                };
                break_a_bound(&mut ask, odd);
                Command::Register(ask)
            }
            Choice::Deregister { any: true } => Command::Deregister { request, key, instance, session: None },
            Choice::Deregister { any: false } => {
                let session = Some(self.session(model, &service, &instance));
                Command::Deregister { request, key, instance, session }
            }
            Choice::Report { health } => {
                let session = self.session(model, &service, &instance);
                Command::ReportHealth { request, key, instance, session, health }
            }
            Choice::NoService => Command::Deregister { request, key: Key::lock(service), instance, session: None },
        }
    }
}

fn break_a_bound(ask: &mut Register, odd: u8) {
    let spec = &mut ask.spec;
    match odd {
        0 => spec.port = 0,
        1 => spec.address = String::new(),
        2 => spec.address = format!("{}x", "a.".repeat(128)),
        3 => spec.address = "no host".to_owned(),
        4 => spec.tags = vec!["b".to_owned(), "a".to_owned()],
        5 => spec.tags = vec!["a".to_owned(), "a".to_owned()],
        6 => spec.tags = (0..=limits::TAGS).map(|n| format!("{n:03}")).collect(),
        7 => spec.tags = vec!["x".repeat(limits::LABEL_BYTES + 1)],
        8 => spec.metadata = Metadata::from([("k".to_owned(), "m".repeat(limits::METADATA_BYTES))]),
        9 => ask.instance = Name::new(&"i".repeat(limits::LABEL_BYTES + 1)).expect("a name"),
        10 => ask.key = Key::config(ask.key.name.clone()),
        11 => spec.tags = vec![String::new()],
        _ => {}
    }
}
