//! What can be seen of a shard from outside, as the model says it is, and the comparison with the machine.

use proptest::{prelude::*, test_runner::TestCaseResult};
use wardlock_machine::*;

use crate::{
    locks::{Holding, Waiter},
    model::{AtHome, Model},
    ops::{self, SESSIONS},
};

impl Model {
    fn object(&self, key: &Key, shown: usize) -> Option<Object> {
        let holders: Vec<&Holding> = self.holders(key).collect();
        let queue = self.queue(key);
        let delay = self.delay(key);
        if holders.is_empty() && queue.is_empty() && delay.is_none() {
            return None;
        }
        let waiting = |waiter: &&Waiter| Waiting {
            session: waiter.ask.session,
            holder: self.guest(waiter.ask.session).expect("who waits is attached").holder.client_id.clone(),
            mode: waiter.ask.mode,
            priority: waiter.ask.priority,
            since: waiter.since_wall,
            metadata: self.metadata(&waiter.ask),
            value: waiter.ask.value.clone(),
        };
        Some(Object {
            key: key.clone(),
            holder_count: holders.len() as u32,
            holders: holders.iter().take(shown).map(|held| held.grant.clone()).collect(),
            queue_count: queue.len() as u32,
            queue: queue.iter().take(shown).map(waiting).collect(),
            lock_delay_until: delay.map(|delay| delay.until_wall),
            revision: self.last_change(key),
        })
    }

    /// When the holders of an object last changed, be it there or gone.
    fn last_change(&self, key: &Key) -> Revision {
        self.changes.iter().rev().find(|change| change.0 == *key).map_or(Revision(0), |change| change.1)
    }

    fn session_view(&self, open: &AtHome) -> SessionView {
        let mut shards = open.shards.clone();
        shards.sort();
        SessionView {
            session: open.id,
            client_id: open.holder.client_id.clone(),
            ttl: open.holder.ttl,
            created: open.created,
            metadata: open.holder.metadata.clone(),
            shards,
            closing: open.closing.is_some(),
        }
    }

    fn by_id(&self) -> Vec<&AtHome> {
        let mut home: Vec<&AtHome> = self.home.iter().collect();
        home.sort_by_key(|open| open.id);
        home
    }

    fn query(&self, query: &Query) -> Answer {
        match query {
            Query::Object { key } => Answer::Object(self.object(key, limits::PAGE)),
            Query::List { kind, prefix, held, session, after, limit } => {
                let own = |object: &Object, session: SessionId| {
                    let holds = object.holders.iter().any(|grant| grant.lock_id.session == session);
                    holds || object.queue.iter().any(|waiting| waiting.session == session)
                };
                let mut all: Vec<Object> = ops::keys()
                    .iter()
                    .filter(|key| key.kind == *kind && key.name.as_str().starts_with(prefix.as_str()))
                    .filter(|key| after.as_deref().is_none_or(|after| key.name.as_str() > after))
                    .filter_map(|key| self.object(key, limits::SHOWN))
                    .filter(|object| match held {
                        None => true,
                        Some(true) => object.holder_count > 0,
                        Some(false) => object.holder_count == 0 && object.queue_count > 0,
                    })
                    .filter(|object| session.is_none_or(|session| own(object, session)))
                    .collect();
                all.sort_by(|a, b| a.key.cmp(&b.key));
                all.truncate(*limit as usize);
                Answer::List(all)
            }
            Query::Session { session } => Answer::Session(match self.home.iter().find(|open| open.id == *session) {
                Some(open) => Ok(self.session_view(open)),
                None if self.has_ended(*session) => Err(SessionGone::Ended),
                None => Err(SessionGone::Unknown),
            }),
            Query::Sessions { after, limit } => {
                let home = self.by_id();
                let page = home.iter().filter(|open| after.is_none_or(|after| open.id > after));
                Answer::Sessions(page.take(*limit as usize).map(|open| self.session_view(open)).collect())
            }
            Query::Fence { checks } => {
                let held = |key: &Key, token: Token| self.holders(key).any(|held| held.token() == token);
                Answer::Fence(checks.iter().map(|(key, token)| held(key, *token)).collect())
            }
            Query::Config { .. } | Query::Versions { .. } | Query::Configs { .. } => self.query_config(query),
            Query::Service { .. } | Query::Instance { .. } | Query::Services { .. } => self.query_services(query),
            Query::Events { .. } | Query::Sample { .. } | Query::Waits { .. } => {
                panic!("these are compared by themselves")
            }
            Query::Hook { .. } | Query::Hooks { .. } | Query::DeadLetters { .. } => self.query_hook(query),
        }
    }

    fn attachment(&self, session: SessionId) -> Attachment {
        match self.asking.iter().find(|asking| asking.0 == session) {
            Some((_, nonce)) => Attachment::Pending(*nonce),
            None if self.guest(session).is_some() => Attachment::Attached,
            None => Attachment::None,
        }
    }

    fn counts(&self) -> Counts {
        let [configs, config_bytes, config_old_bytes] = self.count_configs();
        let (services, instances, instance_bytes) = self.count_services();
        let modes = || self.held.iter().map(|held| held.grant.mode);
        Counts {
            exclusive: modes().filter(|mode| *mode == Mode::Exclusive).count() as u64,
            shared: modes().filter(|mode| *mode == Mode::Shared).count() as u64,
            semaphore: modes().filter(|mode| matches!(mode, Mode::Semaphore { .. })).count() as u64,
            waiters: self.waiting.len() as u64,
            serial_waiters: self.waiting.iter().filter(|waiter| self.is_serial(waiter.ask.session)).count() as u64,
            sessions: self.home.iter().filter(|open| open.closing.is_none()).count() as u64,
            grants_total: self.given.len() as u64,
            configs,
            config_bytes,
            config_old_bytes,
            services,
            instances,
            instance_bytes,
            hooks: self.hooks.count(),
        }
    }

    fn keeps_time(&self) -> bool {
        let leases = self.held.iter().any(|held| held.grant.lease.is_some());
        leases || !self.delays.is_empty() || !self.waiting.is_empty()
    }

    /// Whether the machine shows what it must after a command. `dice` picks among the rarer questions.
    pub(crate) fn compare(&self, machine: &Machine, dice: u64) -> TestCaseResult {
        prop_assert_eq!(machine.now(), self.now);
        prop_assert_eq!(machine.range(), self.range);
        prop_assert_eq!(machine.epoch(), self.epoch);
        prop_assert_eq!(machine.incarnation(), self.incarnation);
        prop_assert_eq!(machine.revision(), self.revision);
        prop_assert_eq!(machine.next_deadline(), self.next_end());
        prop_assert_eq!(machine.keeps_time(), self.keeps_time());
        prop_assert_eq!(machine.counts(), self.counts());
        for key in ops::keys() {
            let query = Query::Object { key: key.clone() };
            prop_assert_eq!(machine.query(&query), self.query(&query));
        }
        self.compare_configs(machine, dice)?;
        self.compare_services(machine, dice)?;
        self.compare_hooks(machine, dice)?;
        self.compare_events(machine, dice)?;
        self.compare_waits(machine)?;
        match dice % 4 {
            0 => self.compare_lists(machine, dice / 4),
            1 => self.compare_sessions(machine),
            _ => Ok(()),
        }
    }

    fn compare_lists(&self, machine: &Machine, dice: u64) -> TestCaseResult {
        let pick = |from: u64, of: u64| (dice / from) % of;
        let query = Query::List {
            kind: if pick(1, 3) == 0 { Kind::Election } else { Kind::Lock },
            prefix: ["", "", "a", "b"][pick(3, 4) as usize].into(),
            held: [None, Some(true), Some(false)][pick(12, 3) as usize],
            session: (pick(36, 3) == 0).then(|| ops::session(self.incarnation, pick(108, SESSIONS.into()) as u8)),
            after: [None, None, Some("a".to_owned()), Some("b".to_owned())][pick(540, 4) as usize].clone(),
            limit: [100, 100, 2, 1][pick(2160, 4) as usize],
        };
        prop_assert_eq!(machine.query(&query), self.query(&query), "{:?}", query);

        let recent = self.given.len().saturating_sub(20);
        let tokens = self.given[recent..].iter().map(|lock_id| lock_id.token).chain([Token(0), Token(9_999)]);
        let checks = tokens.flat_map(|token| ops::keys().into_iter().map(move |key| (key, token))).collect();
        let query = Query::Fence { checks };
        prop_assert_eq!(machine.query(&query), self.query(&query), "{:?}", query);
        Ok(())
    }

    fn compare_sessions(&self, machine: &Machine) -> TestCaseResult {
        let mut waiting: Vec<(SessionId, RequestId, Key)> = self
            .waiting
            .iter()
            .map(|waiter| (waiter.ask.session, waiter.ask.request, waiter.ask.key.clone()))
            .collect();
        waiting.sort_by(|a, b| (a.0, &a.2).cmp(&(b.0, &b.2)));
        prop_assert_eq!(machine.waiting().collect::<Vec<_>>(), waiting);

        let mut asking = self.asking.clone();
        asking.sort();
        prop_assert_eq!(machine.pendings().collect::<Vec<_>>(), asking);

        let home = self.by_id();
        let open = home.iter().filter(|open| open.closing.is_none());
        let open: Vec<_> = open.map(|open| (open.id, open.holder.ttl, open.left)).collect();
        prop_assert_eq!(machine.open_sessions().collect::<Vec<_>>(), open);
        let outbox = home.iter().filter_map(|open| Some((open.id, open.closing?, self.session_view(open).shards)));
        prop_assert_eq!(machine.closing().collect::<Vec<_>>(), outbox.collect::<Vec<_>>());

        for limit in [2, 100] {
            let query = Query::Sessions { after: home.first().map(|open| open.id).filter(|_| limit == 2), limit };
            prop_assert_eq!(machine.query(&query), self.query(&query));
        }
        for incarnation in [1, self.incarnation.0, 9] {
            for number in 0..=SESSIONS {
                let session = ops::session(Incarnation(incarnation), number);
                prop_assert_eq!(machine.attachment(session), self.attachment(session));
                prop_assert_eq!(machine.is_ended(session), self.has_ended(session));
                let query = Query::Session { session };
                prop_assert_eq!(machine.query(&query), self.query(&query));
                let known = home.iter().find(|open| open.id == session);
                let open = known.filter(|open| open.closing.is_none());
                prop_assert_eq!(machine.session_ttl(session), open.map(|open| (open.holder.ttl, open.left)));
                let told = known.and_then(|open| Some((open.closing?, self.session_view(open).shards)));
                prop_assert_eq!(machine.closing_shards(session), told);
            }
        }
        Ok(())
    }
}
