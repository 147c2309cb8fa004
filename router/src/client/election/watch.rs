//! The audience of one election: who leads, and what the leader proclaims, one after the other.

use futures_util::FutureExt;
use wardlock_machine::{Key, Kind, Name};

use super::{
    super::{Client, Watch, WatchError},
    PATIENCE,
    office::{Leader, News, Office},
};
use crate::Error;

impl Client {
    /// Watches who leads, from now on.
    pub fn observe_leader(&self, name: &str) -> Result<LeaderWatch, Error> {
        let key = Name::new(name).map(Key::election).map_err(|error| Error::Malformed(error.to_string()))?;
        Ok(LeaderWatch { client: self.clone(), key, watch: None, office: Office::new(), due: false })
    }
}

/// Tells who leads and what it proclaims, one after another: every leader and every proclamation, each once, as long
/// as the shard keeps what happened meanwhile. After a gap it tells the leader as it is now.
#[derive(Debug)]
pub struct LeaderWatch {
    client: Client,
    key: Key,
    /// `None` before the first question.
    watch: Option<Watch>,
    office: Office,
    /// A look is due: at the beginning, and after a gap.
    due: bool,
}

impl LeaderWatch {
    /// The leader now, at the first call; then each new one and each of its proclamations, or `None` when nobody
    /// leads. After an error it may be called again and misses nothing. Dropping the future is harmless.
    pub async fn next(&mut self) -> Result<Option<Leader>, Error> {
        loop {
            let Some(watch) = &mut self.watch else {
                let opening = self.client.watch().name(Kind::Election, self.key.name.as_str()).patience(PATIENCE);
                // What happens from here on is told, and a look says how things were before.
                self.watch = Some(opening.open().await.map_err(failed)?);
                (self.office, self.due) = (Office::new(), true);
                continue;
            };
            if self.due {
                let object = self.client.object(self.key.clone(), PATIENCE).await?;
                self.due = false;
                return Ok(self.office.look(object.as_ref()));
            }
            let next = match self.office.is_vacant() {
                false => Some(watch.next().await),
                true => watch.next().now_or_never(),
            };
            match next {
                Some(Ok(watched)) => {
                    if let Some(News::Leader(leader)) = self.office.hear(&watched.event) {
                        return Ok(Some(leader));
                    }
                }
                Some(Err(WatchError::Compacted { .. })) => self.due = true,
                Some(Err(WatchError::Restored)) => self.watch = None,
                Some(Err(error)) => return Err(failed(error)),
                None => {
                    let object = self.client.object(self.key.clone(), PATIENCE).await?;
                    if self.office.settle(object.as_ref()) {
                        return Ok(None);
                    }
                }
            }
        }
    }
}

/// A watch that cannot be opened, as a call that failed.
pub(super) fn failed(error: WatchError) -> Error {
    match error {
        WatchError::Cluster(error) => error,
        other => Error::Malformed(other.to_string()),
    }
}
