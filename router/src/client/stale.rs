//! Stale reads: from any replica of a shard, without its leader where that is possible, each with its age.
//!
//! A read goes to a replica at random, so that all share the load, and to the next where that one does not answer,
//! has no replica any more, or cannot show that it is young enough. Each is given a part of the caller's patience:
//! one that is cut off must not use it up.

use std::{collections::BTreeSet, time::Duration};

use futures_util::{
    FutureExt,
    future::{BoxFuture, try_join_all},
};
use tokio::time::Instant;
use wardlock_machine::{Answer, Query};
use wardlock_placement::{GroupId, MapVersion};
use wardlock_wire::{Lane, Op, Response};

use super::{
    Client,
    call::{Call, FOREVER, Next, PAUSE_MAX, Work, millis, read_from},
    core::Core,
    fan, unexpected,
};
use crate::{Error, random, routes::Target};

/// How long the first replicas may take; twice as long in each round after.
const TURN: Duration = Duration::from_millis(400);
/// How much longer a replica's word is waited for than it was told to wait.
const GRACE: Duration = Duration::from_millis(50);

/// An answer, and how old it may be in milliseconds.
type Aged = (Answer, Option<u64>);

impl Client {
    /// Reads from any replica. All that was acknowledged before the call, less the age that comes with the answer, is
    /// in it; `None` says that the replica does not know its age. With `max_age` no answer is older, and
    /// [`Error::TooStale`] where no replica can show that in time; zero makes the read linearizable. A page over all
    /// shards is as old as its oldest part.
    ///
    /// ```no_run
    /// # async fn example(client: wardlock_router::Client) -> Result<(), wardlock_router::Error> {
    /// use std::time::Duration;
    /// use wardlock_machine::{Key, Name, Query};
    ///
    /// let query = Query::Object { key: Key::lock(Name::new("orders/42").expect("a name")) };
    /// let (answer, age) = client.read_stale(query, Some(Duration::from_millis(500)), Duration::from_secs(2)).await?;
    /// println!("{answer:?}, at most {age:?} old");
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_stale(
        &self,
        query: Query,
        max_age: Option<Duration>,
        patience: Duration,
    ) -> BoxFuture<'_, Result<(Answer, Option<Duration>), Error>> {
        let max_age_ms = max_age.map(millis);
        let reading = async move {
            if matches!(query, Query::Events { .. } | Query::Fence { .. }) {
                return Err(Error::Malformed("events are watched, and fences checked: neither may be stale".into()));
            }
            if !query.is_within_bounds() {
                return Err(Error::Malformed("it asks for more than one question may".into()));
            }
            let (answer, age) = match read_from(&query) {
                Some(_) => self.core().stale(None, &query, max_age_ms, patience).await?,
                None => self.stale_page(query, max_age_ms, patience).await?,
            };
            Ok((answer, age.map(Duration::from_millis)))
        };
        reading.boxed()
    }

    async fn stale_page(&self, query: Query, max_age_ms: Option<u32>, patience: Duration) -> Result<Aged, Error> {
        let query = fan::within_bounds(query)?;
        self.ready(patience).await?;
        let shards: BTreeSet<GroupId> = self.core().routes().shards().collect();
        let asked = shards.into_iter().map(|shard| self.core().stale(Some(shard), &query, max_age_ms, patience));
        let (answers, ages): (Vec<Answer>, Vec<Option<u64>>) = try_join_all(asked).await?.into_iter().unzip();
        // Where one part's age is not known, the whole page's is not.
        let oldest = ages.into_iter().try_fold(0, |oldest, age| age.map(|age: u64| age.max(oldest)));
        Ok((fan::merge(&query, answers)?, oldest))
    }

    /// Up to which index of its log a group's leader has applied, by a read round that begins after the call. Nodes
    /// only.
    pub async fn read_index(&self, group: GroupId, patience: Duration) -> Result<u64, Error> {
        match self.core().run(Work::op_for(group, Op::ReadIndex), patience).await?.response {
            Response::ReadIndex(index) => Ok(index),
            other => Err(unexpected(&other)),
        }
    }
}

impl Core {
    /// Asks one replica after the other: of the shard that is named, or of the one that the query is about.
    async fn stale(
        &self,
        shard: Option<GroupId>,
        query: &Query,
        max_age_ms: Option<u32>,
        patience: Duration,
    ) -> Result<Aged, Error> {
        let deadline = Instant::now() + patience.min(FOREVER);
        let mut call = Call::new(deadline, PAUSE_MAX, "no shard map yet");
        let mut work = Work::op(Op::Stale { query: query.clone(), max_age_ms });
        let (mut next, mut tries, mut turn) = (None, 0, TURN);
        loop {
            let routes = self.routes();
            let target = shard.map(Target::Group).or_else(|| read_from(query));
            let Some((group, epoch)) = target.and_then(|target| routes.resolve(target)) else {
                self.wait_for_map(routes.map().version, None, deadline).await;
                call.rest(Next::Other).await?;
                continue;
            };
            let replicas = &group.replicas;
            let any = || replicas.get(random::within(0..replicas.len().max(1))).copied();
            let Some(asked) = next.take().filter(|node| replicas.contains(node)).or_else(any) else {
                return Err(Error::unavailable("the shard has no replicas"));
            };
            let now = Instant::now();
            let turns = turn.min(deadline.saturating_duration_since(now));
            let reply = self.dialer.ask(asked, Lane::Client, work.address(group.id, epoch, turns));
            let known = routes.map().version;
            let then = match reply.by(deadline.min(now + turns + GRACE)).await {
                Some(Ok(Response::Stale { answer, age_ms })) => return Ok((answer, age_ms)),
                Some(Ok(other)) => return Err(unexpected(&other)),
                Some(Err(error)) => call.judge(error, &work, group, asked, known)?,
                None => call.unknown(&work, "the node stays silent")?,
            };
            next = group.next(asked);
            tries += 1;
            if tries % replicas.len() == 0 {
                turn *= 2;
            }
            if let Next::Map(version) = then {
                self.wait_for_map(MapVersion(version.0.saturating_sub(1)), Some(asked), deadline).await;
            }
            call.rest(Next::Other).await?;
        }
    }
}
