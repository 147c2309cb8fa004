//! Watching: what happens to locks, elections and configurations, over any number of shards.
//!
//! A [`Watch`] tells every event that it was opened for once, those of one object and of one shard in their order.
//! It rides out changes of leaders and lost connections by itself; where it was slower than the shards keep events,
//! it says so ([`WatchError::Compacted`]) and goes on from where it can. Its [token](Watch::token) resumes it
//! elsewhere.
//!
//! All watches of a client share one stream of questions for each shard (`feed`); each has a bounded queue of its own
//! (`queue`), and one that is not emptied delays no other.

mod feed;
mod queue;
mod token;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};

use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, try_join_all},
    stream::FuturesUnordered,
};
use wardlock_machine::*;
use wardlock_placement::{GroupId, hash_tag};
use wardlock_wire::{Op, Response};

pub(crate) use self::feed::Feeds;
pub use self::token::{ParseTokenError, WatchToken};
use self::{
    feed::Feed,
    queue::{Link, Queue},
};
use super::{Client, call::Work, core::Core, unexpected};
use crate::{Error, random, routes::Target};

/// How long the opening may take where the caller says nothing.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one reading of what was missed may take before it is tried again.
const READING: Duration = Duration::from_secs(5);
/// The pause after one that failed.
const PAUSE: Duration = Duration::from_millis(500);
/// How many events are read at once.
const PAGE: u32 = 256;

/// Something that happened, and in which shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Where. Revisions of different shards have nothing to do with each other.
    pub shard: GroupId,
    /// What.
    pub event: Arc<Event>,
}

/// Why a watch cannot be opened, or has a gap.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// Some of what happened is no longer kept: read what is watched anew, and resume from `resume`, which was
    /// current before that.
    #[error("some events that were missed are no longer kept: read anew, and watch on from the new token")]
    Compacted {
        /// Where it can be resumed.
        resume: WatchToken,
    },
    /// The token says that more has happened than has, or lacks a shard that is watched.
    #[error("the token does not belong to this watch: {0}")]
    Token(&'static str),
    /// The cluster was restored from a backup: what was told may not have happened. Open a watch anew.
    #[error("the cluster was restored meanwhile: read anew, and open a watch anew")]
    Restored,
    /// What is asked for is malformed, or more than one watch may have.
    #[error("{0}")]
    Malformed(String),
    /// The cluster cannot be asked.
    #[error(transparent)]
    Cluster(#[from] Error),
}

/// What is to be watched.
#[derive(Clone, Debug)]
#[must_use = "a watch begins by `open`"]
pub struct WatchBuilder {
    client: Client,
    patterns: Vec<Pattern>,
    since: Option<WatchToken>,
    patience: Duration,
}

impl Client {
    /// A watch of what happens from now on, or since a token.
    pub fn watch(&self) -> WatchBuilder {
        WatchBuilder { client: self.clone(), patterns: Vec::new(), since: None, patience: PATIENCE }
    }
}

impl WatchBuilder {
    /// Watches what this pattern fits, too.
    pub fn pattern(mut self, pattern: Pattern) -> Self {
        self.patterns.push(pattern);
        self
    }

    /// Watches the object of this kind and name, too.
    pub fn name(self, kind: Kind, name: impl Into<String>) -> Self {
        self.pattern(Pattern { kind, name: name.into(), prefix: false })
    }

    /// Watches the objects of this kind whose names start so, too; all of them by an empty prefix.
    pub fn prefix(self, kind: Kind, prefix: impl Into<String>) -> Self {
        self.pattern(Pattern { kind, name: prefix.into(), prefix: true })
    }

    /// From where an earlier watch had been told everything. Without it, from now on.
    pub fn since(mut self, token: WatchToken) -> Self {
        self.since = Some(token);
        self
    }

    /// How long the opening may take. [`PATIENCE`] where nothing is said.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Opens it. All that happens after this call began, or since the token, will be told.
    pub async fn open(self) -> Result<Watch, WatchError> {
        let WatchBuilder { client, patterns, since, patience } = self;
        check(&patterns)?;
        client.ready(patience).await?;
        let routes = client.core().routes();
        let incarnation = Incarnation(routes.map().incarnation);
        let mut groups = BTreeSet::new();
        for pattern in &patterns {
            match owner(&routes, pattern) {
                Some(group) => drop(groups.insert(group)),
                None => groups.extend(routes.shards()),
            }
        }
        let known = since.as_ref().filter(|token| token.incarnation == incarnation);
        if let Some(token) = known
            && !groups.iter().all(|group| token.positions.contains_key(group))
        {
            return Err(WatchError::Token("it has nothing of a shard that is watched now"));
        }
        let patterns: Arc<[Pattern]> = patterns.into();
        let asked = groups.iter().map(|group| {
            // There is no revision after the last: the answer is the one that there is now.
            let after = known.map_or(Revision(u64::MAX), |token| token.positions[group]);
            ask(client.core(), *group, after, &patterns, patience)
        });
        let mut parts = Vec::with_capacity(groups.len());
        let mut gap = since.is_some() && known.is_none();
        for (group, answer) in groups.iter().zip(try_join_all(asked).await?) {
            let (position, page, upto) = match answer {
                Ok(page) => (known.map_or(page.upto, |token| token.positions[group]), page.events, page.upto),
                Err(NoEvents::Ahead { .. }) if known.is_some() => {
                    return Err(WatchError::Token("it speaks of what has not happened"));
                }
                Err(NoEvents::Ahead { now }) => (now, Vec::new(), now),
                Err(NoEvents::Compacted { now, .. }) => {
                    gap = true;
                    (now, Vec::new(), now)
                }
            };
            let behind = page.len() >= PAGE as usize;
            let page = page.into();
            parts.push(Mine { group: *group, position, page, upto, reading: false, behind, feed: None });
        }
        if gap {
            // What was read is thrown away: a watch with a hole is none.
            let positions = parts.iter().map(|part| (part.group, part.upto)).collect();
            return Err(WatchError::Compacted { resume: WatchToken { incarnation, positions } });
        }
        let (queue, reading) = (Arc::new(Queue::new(parts.len())), FuturesUnordered::new());
        Ok(Watch { client, incarnation, patterns, queue, parts, reading, turn: 0 })
    }
}

fn check(patterns: &[Pattern]) -> Result<(), WatchError> {
    if patterns.is_empty() {
        return Err(WatchError::Malformed("a watch needs a name or a prefix".into()));
    }
    if patterns.len() > limits::PATTERNS {
        let most = limits::PATTERNS;
        return Err(WatchError::Malformed(format!("one watch has at most {most} names and prefixes")));
    }
    for pattern in patterns {
        if pattern.name.len() > limits::NAME_BYTES || !pattern.prefix && pattern.name.is_empty() {
            let most = limits::NAME_BYTES;
            return Err(WatchError::Malformed(format!("a name has 1 to {most} bytes, a prefix at most {most}")));
        }
    }
    Ok(())
}

/// The one shard in which everything lies that a pattern fits, if there is one.
fn owner(routes: &crate::routes::Routes, pattern: &Pattern) -> Option<GroupId> {
    // All names that start with a whole hash tag have that tag.
    if pattern.prefix && hash_tag(&pattern.name).len() == pattern.name.len() {
        return None;
    }
    let key = Key { kind: pattern.kind, name: Name::new(&pattern.name).ok()? };
    routes.resolve(Target::Key(&key)).map(|(group, _)| group.id)
}

async fn ask(
    core: &Arc<Core>,
    group: GroupId,
    after: Revision,
    patterns: &Arc<[Pattern]>,
    patience: Duration,
) -> Result<Result<EventPage, NoEvents>, Error> {
    let query = Query::Events { after, patterns: patterns.to_vec(), limit: PAGE };
    match core.run(Work::op_for(group, Op::Read(query)), patience).await?.response {
        Response::Answer(Answer::Events(answer)) => Ok(answer),
        other => Err(unexpected(&other)),
    }
}

type Reading = BoxFuture<'static, (usize, Result<EventPage, NoEvents>)>;

/// Tells what happens. Dropped, it ends.
pub struct Watch {
    client: Client,
    incarnation: Incarnation,
    patterns: Arc<[Pattern]>,
    queue: Arc<Queue>,
    parts: Vec<Mine>,
    /// What was missed and is being read.
    reading: FuturesUnordered<Reading>,
    /// Which part is looked at first.
    turn: usize,
}

/// One shard's part of a watch.
struct Mine {
    group: GroupId,
    /// Everything up to here has been told.
    position: Revision,
    /// Read and not told yet.
    page: VecDeque<Event>,
    /// Up to where the page goes.
    upto: Revision,
    reading: bool,
    /// There may be more to read before it is worth to be served by the feed.
    behind: bool,
    feed: Option<(Arc<Feed>, u64)>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({:?}, {} shards)", self.patterns, self.parts.len())
    }
}

impl Watch {
    /// The next event. An error is a gap, and the watch goes on behind it. Dropping the future is harmless: nothing
    /// is lost by that.
    pub async fn next(&mut self) -> Result<Watched, WatchError> {
        loop {
            if self.client.map().incarnation != self.incarnation.0 {
                return Err(WatchError::Restored);
            }
            let count = self.parts.len();
            for part in (self.turn..count).chain(0..self.turn) {
                if let Some(told) = self.take(part) {
                    self.turn = (part + 1) % count;
                    return Ok(told);
                }
            }
            tokio::select! {
                biased;
                Some((part, read)) = self.reading.next() => self.read(part, read)?,
                () = self.queue.wake.notified() => {}
            }
        }
    }

    /// Up to where everything has been told. A watch that is opened since this token tells what comes next.
    pub fn token(&mut self) -> WatchToken {
        for part in &mut self.parts {
            if let (true, false, Some((feed, id))) = (part.page.is_empty(), part.reading, &part.feed)
                && let Some(position) = feed.position(*id, part.position)
            {
                part.position = part.position.max(position);
            }
        }
        let positions: BTreeMap<_, _> = self.parts.iter().map(|part| (part.group, part.position)).collect();
        WatchToken { incarnation: self.incarnation, positions }
    }

    /// The next event of a part, if it is there; else sees to it that it comes.
    fn take(&mut self, number: usize) -> Option<Watched> {
        let part = &mut self.parts[number];
        if let Some(event) = part.page.pop_front() {
            part.position = if part.page.is_empty() { part.upto } else { event.revision };
            return Some(Watched { shard: part.group, event: Arc::new(event) });
        }
        part.position = part.position.max(part.upto);
        if part.reading {
            return None;
        }
        let mut queue = self.queue.lock();
        let (link, empty, from) = queue.state(number);
        let missed = part.position < from && !planted!("watch-takes-the-feed-for-all");
        if missed && (!empty || link == Link::Live) {
            drop(queue);
            self.begin_reading(number);
            return None;
        }
        while let Some(event) = queue.pop(number) {
            // Between the feed's position and one's own there is what one has read already.
            if event.revision > part.position {
                part.position = event.revision;
                return Some(Watched { shard: part.group, event });
            }
        }
        drop(queue);
        if link == Link::Cut {
            self.serve(number);
        }
        None
    }

    /// Has a part that is handed nothing served again: it reads what it missed, and then it is attached.
    fn serve(&mut self, number: usize) {
        let part = &mut self.parts[number];
        if let Some((feed, id)) = part.feed.take() {
            feed.detach(id);
            part.behind = true;
        }
        if part.behind {
            return self.begin_reading(number);
        }
        let feed = self.client.inner.feeds.of(part.group);
        let id = feed.attach(self.client.core(), &self.queue, number, &self.patterns, part.position);
        part.feed = Some((feed, id));
    }

    fn begin_reading(&mut self, number: usize) {
        let part = &mut self.parts[number];
        part.reading = true;
        let (core, patterns) = (Arc::clone(self.client.core()), Arc::clone(&self.patterns));
        let (group, after) = (part.group, part.position);
        let reading = async move {
            loop {
                match ask(&core, group, after, &patterns, READING).await {
                    Ok(answer) => return (number, answer),
                    Err(_) => tokio::time::sleep(random::within(PAUSE / 2..=PAUSE)).await,
                }
            }
        };
        self.reading.push(reading.boxed());
    }

    fn read(&mut self, number: usize, read: Result<EventPage, NoEvents>) -> Result<(), WatchError> {
        let part = &mut self.parts[number];
        part.reading = false;
        let now = match read {
            Ok(page) => {
                part.behind = page.events.len() >= PAGE as usize;
                (part.page, part.upto) = (page.events.into(), page.upto);
                return Ok(());
            }
            Err(NoEvents::Compacted { now, .. } | NoEvents::Ahead { now }) => now,
        };
        // What was handed over meanwhile lies before `now` or is told behind the gap.
        (part.position, part.upto, part.behind) = (now, now, false);
        Err(WatchError::Compacted { resume: self.token() })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for (feed, id) in self.parts.iter_mut().filter_map(|part| part.feed.take()) {
            feed.detach(id);
        }
    }
}
