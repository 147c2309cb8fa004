//! Looks at the waiters of all shards.

use std::time::Duration;

use futures_util::future::try_join_all;
use wardlock_machine::{Answer, Query, ShardId, Wait};
use wardlock_placement::GroupId;
use wardlock_wire::{Op, Response};

use super::{Client, call::Work, unexpected};
use crate::{
    Error,
    deadlock::{Deadlock, Seen, find, stand},
};

impl Client {
    /// The waiters of one shard, as its leader has them, in which a deadlock may be.
    pub async fn waits(&self, shard: GroupId, patience: Duration) -> Result<Vec<Wait>, Error> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let ask = Work::op_for(shard, Op::Read(Query::Waits { after: after.take() }));
            match self.core().run(ask, patience).await?.response {
                Response::Answer(Answer::Waits { mut waits, more }) => {
                    all.append(&mut waits);
                    after = all.last().map(|last| last.key.clone()).filter(|_| more);
                }
                other => return Err(unexpected(&other)),
            }
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    /// The deadlocks of the whole cluster that stand now, and what they are made of. Takes two looks at each shard's leader.
    pub async fn deadlocks(&self, patience: Duration) -> Result<(Vec<Deadlock>, Seen), Error> {
        self.ready(patience).await?;
        let before = self.look_for_waits(patience).await?;
        if before.0.is_empty() {
            return Ok(Default::default());
        }
        let standing = stand(&before, self.look_for_waits(patience).await?);
        Ok((find(&standing), standing))
    }

    async fn look_for_waits(&self, patience: Duration) -> Result<Seen, Error> {
        let map = self.map();
        let shards = map.shards().map(|(id, ..)| async move { Ok::<_, Error>((id, self.waits(id, patience).await?)) });
        let mut seen = Seen::default();
        for (shard, waits) in try_join_all(shards).await? {
            seen.add(ShardId(shard.0), waits);
        }
        Ok(seen)
    }
}
