//! Reads that many shards answer together.
//!
//! Each shard's part is linearizable; the whole is not one moment's picture.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::future::try_join_all;
use wardlock_machine::{
    Answer, ConfigView, HookView, Incarnation, Key, Name, Object, Query, Revision, ServiceView, SessionId, SessionView,
    Token, limits,
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

    /// A page of a list ([`Query::is_list`]), as [`Client::read`] answers it, and the token from which
    /// to watch: a watch since then tells everything that happened after its shard's part of the page was read, and
    /// nothing that happened before. Whoever goes on to further pages watches since the token of the first: what happens
    /// between two pages is told, or seen in the later page and told.
    pub async fn page_with_token(&self, query: Query, patience: Duration) -> Result<(Answer, WatchToken), Error> {
        // The map's that names these shards: a restore between here and there is seen by whoever watches.
        self.ready(patience).await?;
        let incarnation = Incarnation(self.map().incarnation);
        if let Query::Service { key, .. } = &query {
            let routes = self.core().routes();
            let owner = routes.resolve(Target::Key(key)).map(|(group, _)| group.id);
            let owner = owner.ok_or_else(|| Error::unavailable("no shard has this service"))?;
            let (revision, answer) =
                marked(self.core().run(Work::op_for(owner, Op::Marked(query)), patience).await?.response)?;
            return Ok((answer, WatchToken { incarnation, positions: [(owner, revision)].into() }));
        }
        let query = within_bounds(query)?;
        let mut positions = BTreeMap::new();
        let mut pages = Vec::new();
        for (group, response) in self.every_shard(&Op::Marked(query.clone()), patience).await? {
            let (revision, answer) = marked(response)?;
            positions.insert(group, revision);
            pages.push(answer);
        }
        Ok((merge(&query, pages)?, WatchToken { incarnation, positions }))
    }

    /// A page over all shards, as [`Client::read`] answers it.
    pub(super) async fn page(&self, query: Query, patience: Duration) -> Result<Answer, Error> {
        let query = within_bounds(query)?;
        let pages = self.every_shard(&Op::Read(query.clone()), patience).await?;
        let pages = pages.into_iter().map(|(_, response)| match response {
            Response::Answer(answer) => Ok(answer),
            other => Err(unexpected(&other)),
        });
        merge(&query, pages.collect::<Result<_, _>>()?)
    }

    /// A page of the cluster's sessions, in the order of their ids.
    pub async fn sessions(
        &self,
        after: Option<SessionId>,
        limit: u32,
        patience: Duration,
    ) -> Result<Vec<SessionView>, Error> {
        match self.page(Query::Sessions { after, limit }, patience).await? {
            Answer::Sessions(page) => Ok(page),
            other => Err(unexpected_answer(other)),
        }
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

    /// A page of the services that have an instance and whose names start with `prefix`, in the order of their names.
    /// At most [`limits::PAGE`] of them, whatever `limit` says.
    pub async fn services(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
        patience: Duration,
    ) -> Result<Vec<ServiceView>, Error> {
        let query = Query::Services { prefix: prefix.to_owned(), after: after.map(str::to_owned), limit };
        match self.page(query, patience).await? {
            Answer::Services(page) => Ok(page),
            other => Err(unexpected_answer(other)),
        }
    }

    /// A page of the cluster's webhooks, in the order of their ids. At most [`limits::HOOK_PAGE`] of them, whatever
    /// `limit` says.
    pub async fn hooks(&self, after: Option<&str>, limit: u32, patience: Duration) -> Result<Vec<HookView>, Error> {
        match self.page(Query::Hooks { after: after.map(str::to_owned), limit }, patience).await? {
            Answer::Hooks(page) => Ok(page),
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

fn marked(response: Response) -> Result<(Revision, Answer), Error> {
    match response {
        Response::Marked { revision, answer } => Ok((revision, answer)),
        other => Err(unexpected(&other)),
    }
}

/// A page that asks each shard for no more than it gives in one: a shard that cuts its own short would leave a hole in
/// the middle of a longer one.
pub(super) fn within_bounds(mut query: Query) -> Result<Query, Error> {
    match &mut query {
        Query::List { limit, .. }
        | Query::Sessions { limit, .. }
        | Query::Configs { limit, .. }
        | Query::Services { limit, .. } => *limit = (*limit).min(limits::PAGE as u32),
        Query::Hooks { limit, .. } => *limit = (*limit).min(limits::HOOK_PAGE as u32),
        _ => return Err(Error::Malformed("this query is no page over all shards".into())),
    }
    match query.is_within_bounds() {
        true => Ok(query),
        false => Err(Error::Malformed("a prefix is at most as long as a name".into())),
    }
}

/// The shards' pages as one, in its order and cut to its limit.
pub(super) fn merge(query: &Query, pages: Vec<Answer>) -> Result<Answer, Error> {
    /// Rows in the order of their keys, none twice: a name that moves between shards may be in both.
    fn rows<T, K: Ord>(
        pages: Vec<Answer>,
        limit: u32,
        rows: impl Fn(Answer) -> Result<Vec<T>, Error>,
        key: impl Fn(&T) -> K,
    ) -> Result<Vec<T>, Error> {
        let mut all = Vec::new();
        for page in pages {
            all.extend(rows(page)?);
        }
        all.sort_by_cached_key(&key);
        all.dedup_by_key(|row| key(row));
        all.truncate(limit as usize);
        Ok(all)
    }
    macro_rules! rows {
        ($limit:ident, $answer:ident, $key:expr) => {{
            let page = |answer| match answer {
                Answer::$answer(page) => Ok(page),
                other => Err(unexpected_answer(other)),
            };
            rows(pages, *$limit, page, $key).map(Answer::$answer)
        }};
    }
    match query {
        Query::List { limit, .. } => rows!(limit, List, |row| row.key.clone()),
        Query::Sessions { limit, .. } => rows!(limit, Sessions, |row| row.session),
        Query::Configs { limit, .. } => rows!(limit, Configs, |row| row.path.clone()),
        Query::Services { limit, .. } => rows!(limit, Services, |row| row.service.clone()),
        Query::Hooks { limit, .. } => rows!(limit, Hooks, |row| row.name.clone()),
        _ => Err(Error::Malformed("this query is no page over all shards".into())),
    }
}
