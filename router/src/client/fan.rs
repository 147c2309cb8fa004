//! Reads that many shards answer together.
//!
//! Each shard's part is linearizable; the whole is not one moment's picture.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::future::try_join_all;
use wardlock_machine::{
    Answer, ConfigView, Key, Name, Object, Query, ServiceView, SessionId, SessionView, Token, limits,
};
use wardlock_placement::GroupId;
use wardlock_wire::{Op, Response};

use super::{Client, call::Work, unexpected, unexpected_answer};
use crate::{Error, routes::Target};

/// A check and its place among all.
type Placed = (usize, (Key, Token));

impl Client {
    /// A page of the cluster's objects, in the order of their names: [`Query::List`] to every shard. At
    /// most [`limits::PAGE`] of them, whatever its limit says.
    pub async fn list(&self, query: Query, patience: Duration) -> Result<Vec<Object>, Error> {
        let Query::List { kind, prefix, held, session, after, limit } = query else {
            return Err(Error::Malformed("this query is no list of objects".into()));
        };
        // A shard that cuts its page short would leave a hole in the middle of a longer one.
        let limit = limit.min(limits::PAGE as u32);
        let query = Query::List { kind, prefix, held, session, after, limit };
        let mut all = Vec::new();
        for answer in self.every_shard(&query, patience).await? {
            match answer {
                Answer::List(page) => all.extend(page),
                other => return Err(unexpected_answer(other)),
            }
        }
        all.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        all.dedup_by(|a, b| a.key == b.key);
        all.truncate(limit as usize);
        Ok(all)
    }

    /// A page of the cluster's sessions, in the order of their ids.
    pub async fn sessions(
        &self,
        after: Option<SessionId>,
        limit: u32,
        patience: Duration,
    ) -> Result<Vec<SessionView>, Error> {
        let limit = limit.min(limits::PAGE as u32);
        let mut all = Vec::new();
        for answer in self.every_shard(&Query::Sessions { after, limit }, patience).await? {
            match answer {
                Answer::Sessions(page) => all.extend(page),
                other => return Err(unexpected_answer(other)),
            }
        }
        all.sort_unstable_by_key(|view| view.session);
        all.dedup_by_key(|view| view.session);
        all.truncate(limit as usize);
        Ok(all)
    }

    /// A page of the configuration's paths that have a value and start with `prefix`, in their order and without
    /// their values. At most [`limits::PAGE`] of them, whatever `limit` says.
    pub async fn configs(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
        patience: Duration,
    ) -> Result<Vec<ConfigView>, Error> {
        let limit = limit.min(limits::PAGE as u32);
        let query = Query::Configs { prefix: prefix.to_owned(), after: after.map(str::to_owned), limit };
        if !query.is_within_bounds() {
            return Err(Error::Malformed("a prefix is at most as long as a name".into()));
        }
        let mut all = Vec::new();
        for answer in self.every_shard(&query, patience).await? {
            match answer {
                Answer::Configs(page) => all.extend(page),
                other => return Err(unexpected_answer(other)),
            }
        }
        all.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        all.dedup_by(|a, b| a.path == b.path);
        all.truncate(limit as usize);
        Ok(all)
    }

    /// A page of the services that have an instance and whose names start with `prefix`, in the order of their names.
    /// At most [`limits::PAGE`] of them, whatever `limit` says.
    pub async fn services(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
        patience: Duration,
    ) -> Result<Vec<ServiceView>, Error> {
        let limit = limit.min(limits::PAGE as u32);
        let query = Query::Services { prefix: prefix.to_owned(), after: after.map(str::to_owned), limit };
        if !query.is_within_bounds() {
            return Err(Error::Malformed("a prefix is at most as long as a name".into()));
        }
        let mut all = Vec::new();
        for answer in self.every_shard(&query, patience).await? {
            match answer {
                Answer::Services(page) => all.extend(page),
                other => return Err(unexpected_answer(other)),
            }
        }
        all.sort_unstable_by(|a, b| a.service.cmp(&b.service));
        all.dedup_by(|a, b| a.service == b.service);
        all.truncate(limit as usize);
        Ok(all)
    }

    /// Whether each token belongs to a grant of the lock of that name that is held now; in order.
    pub async fn fence(&self, checks: Vec<(Name, Token)>, patience: Duration) -> Result<Vec<bool>, Error> {
        self.fence_keys(checks.into_iter().map(|(name, token)| (Key::lock(name), token)).collect(), patience).await
    }

    /// The same for locks and elections.
    pub async fn fence_keys(&self, checks: Vec<(Key, Token)>, patience: Duration) -> Result<Vec<bool>, Error> {
        let routes = self.core().routes();
        let mut verdicts = vec![false; checks.len()];
        // Without a map all is one part, and its call waits for the map. Where a range changes meanwhile,
        // the shard refuses the part, and a repeat parts anew.
        let mut parts: BTreeMap<Option<GroupId>, Vec<Placed>> = BTreeMap::new();
        for (place, check) in checks.into_iter().enumerate() {
            let owner = routes.resolve(Target::Key(&check.0)).map(|(group, _)| group.id);
            parts.entry(owner).or_default().push((place, check));
        }
        let asked = parts.values().flat_map(|part| part.chunks(limits::FENCE_CHECKS)).map(|part| async move {
            let checks = part.iter().map(|(_, check)| check.clone()).collect();
            match self.read(Query::Fence { checks }, patience).await? {
                Answer::Fence(held) if held.len() == part.len() => Ok((part, held)),
                other => Err(unexpected_answer(other)),
            }
        });
        for (part, held) in try_join_all(asked).await? {
            for ((place, _), held) in part.iter().zip(held) {
                verdicts[*place] = held;
            }
        }
        Ok(verdicts)
    }

    async fn every_shard(&self, query: &Query, patience: Duration) -> Result<Vec<Answer>, Error> {
        self.ready(patience).await?;
        let shards: BTreeSet<GroupId> = self.core().routes().shards().collect();
        let asked = shards.into_iter().map(|group| async move {
            match self.core().run(Work::op_for(group, Op::Read(query.clone())), patience).await?.response {
                Response::Answer(answer) => Ok(answer),
                other => Err(unexpected(&other)),
            }
        });
        try_join_all(asked).await
    }
}
