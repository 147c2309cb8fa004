//! One webhook's deliverer: moves things between its [`Outbox`], the watch, the target and the log.

use std::{
    future::{Future, pending},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use metrics::{counter, gauge, histogram};
use wardlock_machine::{Advance, Command, Cursor, HookEpoch, HookWork, Key, Name, Outcome, ShardId, limits};
use wardlock_router::{
    Watch, WatchError, WatchToken,
    http::documents,
    random,
    webhook::{Headers, Poster, Target, sign},
};

use super::{
    Desk,
    outbox::{Attempt, Fate, Outbox, Progress},
};
use crate::group::Group;

/// How long results wait to be logged with others.
const LINGER: Duration = Duration::from_millis(500);
/// So many are logged at once.
const RESULTS: usize = 256;
/// How often a cursor is logged that moves although there is nothing to deliver.
const IDLE: Duration = Duration::from_secs(10);
/// How long the logging of progress may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause before it is begun anew.
const PAUSE: Duration = Duration::from_millis(500);
/// How often it is looked whether a watch that could not be opened can be.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How long deliveries that are under way when the node stops may take, that they are not begun anew by the next.
const LAST: Duration = Duration::from_millis(500);

/// Delivers until it is stopped, the desk closes, or there is no such webhook.
pub(super) async fn run(desk: Arc<Desk>, group: Group, name: Name) {
    while !desk.closing.is_cancelled() {
        let Some(work) = group.replica.machine(|machine| machine.hook_work(&name)).flatten() else { return };
        let mut deliverer = Deliverer { desk: &desk, name: &name, epoch: work.epoch };
        match desk.settings.targets.check(&work.url) {
            Ok(target) => deliverer.serve(work, target).await,
            Err(refused) => {
                counter!("wardlock_webhook_deliveries_total", "result" => "refused").increment(1);
                // Told in its view. Only another webhook or another configuration changes that.
                if deliverer.complain(&work, refused.to_string()).await {
                    return desk.closing.cancelled().await;
                }
            }
        }
        desk.closing.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
    }
}

/// One attempt's end.
type Ended = (Attempt, Result<(), String>);
/// The webhook's next change, once progress is logged; `None` where it was not taken for certain.
type Logging = Pin<Box<dyn Future<Output = Option<HookEpoch>> + Send>>;

struct Deliverer<'a> {
    desk: &'a Arc<Desk>,
    name: &'a Name,
    /// The webhook's last change, as far as is known here.
    epoch: HookEpoch,
}

/// How many events are held here, for the gauge.
#[derive(Default)]
struct Outstanding(usize);

impl Outstanding {
    fn set(&mut self, count: usize) {
        gauge!("wardlock_webhook_outstanding").increment(count as f64 - self.0 as f64);
        self.0 = count;
    }
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Deliverer<'_> {
    /// Delivers until something was changed by others, or the desk closes.
    async fn serve(&mut self, work: HookWork, target: Target) {
        let poster = Arc::new(Poster::new(target, self.desk.settings.roots.clone()));
        let HookWork { cursor, dead, again, error, .. } = work.clone();
        let mut outbox = Outbox::new(cursor.clone(), dead, again, error, self.desk.settings.retry_for);
        let mut outstanding = Outstanding::default();
        let opened = self.desk.closing.run_until_cancelled(self.open(&work, &mut outbox)).await.flatten();
        let Some(mut watch) = opened else { return };
        let mut ended: FuturesUnordered<BoxFuture<'static, Ended>> = FuturesUnordered::new();
        let mut logging: Option<Logging> = None;
        let mut logged = cursor;
        let clock = Arc::clone(&self.desk.clock);
        let mut due: Option<Duration> = None;
        let mut idle = clock.now() + IDLE;
        loop {
            let now = clock.now();
            while let Some(attempt) = outbox.next(now) {
                ended.push(self.attempt(&poster, &work, attempt));
            }
            outstanding.set(outbox.outstanding());
            if outbox.results() > 0 && due.is_none() {
                due = Some(now + LINGER);
            }
            if logging.is_none() {
                let many = outbox.results() >= RESULTS;
                let late = due.is_some_and(|due| due <= now);
                if many || late || idle <= now {
                    outbox.position(Cursor::from(&watch.token()));
                    let progress = outbox.progress();
                    if late || many || progress.cursor != logged {
                        logged = progress.cursor.clone();
                        logging = Some(self.log(progress));
                    }
                    (due, idle) = (None, now + IDLE);
                }
            }
            let wake = [outbox.next_wake(), due, Some(idle)].into_iter().flatten().min().unwrap_or(now + IDLE);
            let wake = wake.saturating_sub(now).max(Duration::from_millis(1));
            tokio::select! {
                biased;
                () = self.desk.closing.cancelled() => break,
                epoch = wait(&mut logging) => {
                    logging = None;
                    match epoch {
                        Some(epoch) => {
                            self.epoch = epoch;
                            outbox.logged();
                        }
                        // Begun anew from what was logged.
                        None => return,
                    }
                }
                Some((attempt, result)) = ended.next(), if !ended.is_empty() => {
                    let now = clock.now();
                    self.took(&mut outbox, attempt, result, now);
                    while let Some(Some((attempt, result))) = ended.next().now_or_never() {
                        self.took(&mut outbox, attempt, result, now);
                    }
                }
                told = watch.next(), if outbox.has_room() => {
                    if !self.read(&mut watch, &mut outbox, told) {
                        return;
                    }
                }
                () = tokio::time::sleep(wake) => {}
            }
        }
        let last = async {
            while let Some((attempt, result)) = ended.next().await {
                self.took(&mut outbox, attempt, result, clock.now());
            }
        };
        let _ = tokio::time::timeout(LAST, last).await;
        if logging.is_some() {
            let Some(epoch) = wait(&mut logging).await else { return };
            self.epoch = epoch;
        }
        if outbox.results() > 0 {
            outbox.position(Cursor::from(&watch.token()));
            self.log(outbox.progress()).await;
        }
    }

    /// Opens the watch at the cursor. `None`: the webhook is to be looked at anew.
    async fn open(&mut self, work: &HookWork, outbox: &mut Outbox) -> Option<Watch> {
        let mut since = WatchToken::from(&work.cursor);
        let mut complained = false;
        loop {
            let client = &self.desk.client;
            let watch = work.patterns.iter().cloned().fold(client.watch(), |watch, pattern| watch.pattern(pattern));
            match watch.since(since.clone()).patience(PATIENCE).open().await {
                Ok(watch) => return Some(watch),
                Err(WatchError::Compacted { resume }) => {
                    outbox.gap(Cursor::from(&resume));
                    since = resume;
                }
                Err(WatchError::Cluster(_) | WatchError::Restored) => tokio::time::sleep(PAUSE).await,
                Err(error) => {
                    if !complained && !self.complain(work, error.to_string()).await {
                        return None;
                    }
                    complained = true;
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
            }
        }
    }

    /// Takes in what the watch tells, and what it has ready; false where the cluster is another now.
    fn read(
        &self,
        watch: &mut Watch,
        outbox: &mut Outbox,
        first: Result<wardlock_router::Watched, WatchError>,
    ) -> bool {
        let mut told = Some(first);
        while let Some(next) = told {
            match next {
                Ok(watched) => outbox.read(ShardId(watched.shard.0), (*watched.event).clone()),
                Err(WatchError::Compacted { resume }) => outbox.gap(Cursor::from(&resume)),
                Err(_) => return false,
            }
            told = if outbox.has_room() { watch.next().now_or_never() } else { None };
        }
        true
    }

    fn attempt(&self, poster: &Arc<Poster>, work: &HookWork, attempt: Attempt) -> BoxFuture<'static, Ended> {
        let (poster, clock, turns) = (Arc::clone(poster), Arc::clone(&self.desk.clock), Arc::clone(&self.desk.turns));
        let (name, secret) = (self.name.clone(), work.secret.clone());
        async move {
            // Nobody closes it.
            let _turn = turns.acquire_owned().await;
            let body = Bytes::from(documents::delivery(&name, &attempt.letter).to_string());
            let headers = Headers {
                webhook: name.to_string(),
                delivery: documents::delivery_id(&attempt.letter),
                attempt: attempt.number,
                signature: sign(&secret, clock.wall().0 / 1_000, &body),
            };
            let result = poster.post(&headers, body).await.map_err(|error| error.to_string());
            (attempt, result)
        }
        .boxed()
    }

    fn took(&self, outbox: &mut Outbox, attempt: Attempt, result: Result<(), String>, now: Duration) {
        let fate = outbox.ended(&attempt.lane, result, now, random::within(0.0..1.0));
        let name = match fate {
            Fate::Delivered => "delivered",
            Fate::Retried => "retried",
            Fate::Dead => "dead",
        };
        counter!("wardlock_webhook_deliveries_total", "result" => name).increment(1);
        if let (Fate::Delivered, Some(event)) = (fate, &attempt.letter.event) {
            let lag = self.desk.clock.wall().0.saturating_sub(event.at.0);
            histogram!("wardlock_webhook_lag_seconds").record(lag as f64 / 1_000.0);
        }
    }

    fn log(&self, progress: Progress) -> Logging {
        let Progress { cursor, dead, settled, delivered, failed, error } = progress;
        let (client, key, epoch) = (self.desk.client.clone(), Key::hook(self.name.clone()), self.epoch);
        let advance = Advance { key, epoch, cursor, dead, settled, delivered, failed, error };
        Box::pin(async move {
            match client.write(Command::Advance(advance), PATIENCE).await {
                Ok(Outcome::HookChanged { epoch, .. }) => Some(epoch),
                Ok(outcome) => {
                    tracing::debug!("progress of a webhook was refused: {outcome:?}");
                    None
                }
                Err(error) => {
                    tracing::debug!("progress of a webhook was not logged: {error}");
                    None
                }
            }
        })
    }

    /// Logs why nothing is delivered, unless that is known; false where the webhook is to be looked at anew.
    async fn complain(&mut self, work: &HookWork, mut why: String) -> bool {
        if why.len() > limits::LABEL_BYTES {
            why = why.chars().take(limits::LABEL_BYTES / 4).collect();
        }
        if work.error.as_ref() == Some(&why) {
            return true;
        }
        let progress = Progress { cursor: work.cursor.clone(), error: Some(why), ..Progress::default() };
        match self.log(progress).await {
            Some(epoch) => {
                self.epoch = epoch;
                true
            }
            None => false,
        }
    }
}

async fn wait(logging: &mut Option<Logging>) -> Option<HookEpoch> {
    match logging {
        Some(logging) => logging.await,
        None => pending().await,
    }
}
