//! Reads that many shards answer together.
//!
//! Each shard's part is linearizable; the whole is not one moment's picture.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::future::try_join_all;
use wardlock_machine::{
    Answer, ConfigView, Incarnation, Key, Name, Object, Query, SessionId, SessionView, Token, limits,
};
use wardlock_placement::GroupId;
use wardlock_wire::{Op, Response};

use super::{Client, WatchToken, call::Work, unexpected, unexpected_answer};
use crate::{Error, routes::Target};

/// A check and its place among all.
type Placed = (usize, (Key, Token));

impl Client {
    /// A page of the cluster's objects, in the order of their names: [`Query::List`] to every shard. At
    /// most [`limits::PAGE`] of them, whatever its limit says.
    pub async fn list(&self, query: Query, patience: Duration) -> Result<Vec<Object>, Error> {
        if !matches!(query, Query::List { .. }) {
            return Err(Error::Malformed("this query is no list of objects".into()));
        }
        match self.page(query, patience).await? {
            Answer::List(page) => Ok(page),
            other => Err(unexpected_answer(other)),
        }
    }

    /// A page of a list ([`Query::List`] or [`Query::Configs`]), as [`Client::read`] answers it, and the token from which
    /// to watch: a watch since then tells everything that happened after its shard's part of the page was read, and
    /// nothing that happened before. Whoever goes on to further pages watches since the token of the first: what happens
    /// between two pages is told, or seen in the later page and told.
    pub async fn page_with_token(&self, query: Query, patience: Duration) -> Result<(Answer, WatchToken), Error> {
        let query = within_bounds(query)?;
        let mut positions = BTreeMap::new();
        let mut pages = Vec::new();
        // The map's that names these shards: a restore between here and there is seen by whoever watches.
        self.ready(patience).await?;
        let incarnation = Incarnation(self.map().incarnation);
        for (group, response) in self.every_shard(&Op::Marked(query.clone()), patience).await? {
            let Response::Marked { revision, answer } = response else { return Err(unexpected(&response)) };
            positions.insert(group, revision);
            pages.push(answer);
        }
        Ok((merged(&query, pages)?, WatchToken { incarnation, positions }))
    }

    /// A page of a list, merged over all shards.
    pub(super) async fn page(&self, query: Query, patience: Duration) -> Result<Answer, Error> {
        let query = within_bounds(query)?;
        let pages = self.every_shard(&Op::Read(query.clone()), patience).await?;
        merged(&query, pages.into_iter().map(|(_, response)| answer(response)).collect::<Result<_, _>>()?)
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
        for (_, response) in self.every_shard(&Op::Read(Query::Sessions { after, limit }), patience).await? {
            match answer(response)? {
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
        let query = Query::Configs { prefix: prefix.to_owned(), after: after.map(str::to_owned), limit };
        match self.page(query, patience).await? {
            Answer::Configs(page) => Ok(page),
            other => Err(unexpected_answer(other)),
        }
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

    async fn every_shard(&self, op: &Op, patience: Duration) -> Result<Vec<(GroupId, Response)>, Error> {
        self.ready(patience).await?;
        let shards: BTreeSet<GroupId> = self.core().routes().shards().collect();
        let asked = shards.into_iter().map(|group| async move {
            let replied = self.core().run(Work::op_for(group, op.clone()), patience).await?;
            Ok((group, replied.response))
        });
        try_join_all(asked).await
    }
}

/// A list that asks for no more than one page.
fn within_bounds(mut query: Query) -> Result<Query, Error> {
    // A shard that cuts its page short would leave a hole in the middle of a longer one.
    match &mut query {
        Query::List { limit, .. } | Query::Configs { limit, .. } => *limit = (*limit).min(limits::PAGE as u32),
        _ => return Err(Error::Malformed("this query is no list".into())),
    }
    match query.is_within_bounds() {
        true => Ok(query),
        false => Err(Error::Malformed("a prefix is at most as long as a name".into())),
    }
}

fn answer(response: Response) -> Result<Answer, Error> {
    match response {
        Response::Answer(answer) => Ok(answer),
        other => Err(unexpected(&other)),
    }
}

/// The shards' pages of a list as one, in its order and cut to its limit.
fn merged(query: &Query, pages: Vec<Answer>) -> Result<Answer, Error> {
    let limit = match query {
        Query::List { limit, .. } | Query::Configs { limit, .. } => *limit as usize,
        _ => 0,
    };
    let (mut objects, mut configs): (Vec<Object>, Vec<ConfigView>) = Default::default();
    for page in pages {
        match (query, page) {
            (Query::List { .. }, Answer::List(page)) => objects.extend(page),
            (Query::Configs { .. }, Answer::Configs(page)) => configs.extend(page),
            (_, other) => return Err(unexpected_answer(other)),
        }
    }
    objects.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    objects.dedup_by(|a, b| a.key == b.key);
    objects.truncate(limit);
    configs.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    configs.dedup_by(|a, b| a.path == b.path);
    configs.truncate(limit);
    Ok(match query {
        Query::Configs { .. } => Answer::Configs(configs),
        _ => Answer::List(objects),
    })
}
