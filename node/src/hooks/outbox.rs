//! What a webhook's target is to be told next, and how far that has come. Pure: events and results come in, attempts
//! and progress go out; the time is told, and so is the luck by which pauses are spread.
//!
//! # Invariants
//! 1. Of one key one delivery is under way at a time, and the next begins when that one is delivered, or is logged as
//!    dead: so whoever begins anew tells no event for the first time behind a later one of its key.
//! 2. The cursor never passes an event that is neither delivered nor told as dead with the same progress.
//! 3. A key that fails keeps no other from being told, as long as there is room in the window.
//! 4. What is held is bounded: by [`WINDOW`] events, by [`WINDOW_BYTES`], and by [`LANES`] deliveries under way.
//!
//! A gap is a wall: what came before it is told before it, and what comes behind it after.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use wardlock_machine::{Cursor, DeadLetter, Event, Key, Revision, ShardId, WallMs, limits, planted};

/// The most events that are read and neither delivered nor dead.
pub(super) const WINDOW: usize = 1_024;
/// The most bytes of these.
const WINDOW_BYTES: usize = 4 << 20;
/// The most deliveries under way.
pub(super) const LANES: usize = 64;
/// The most bytes of dead letters that one progress carries.
const DEAD_BYTES: usize = 256 << 10;
/// The first pause after a failure; it doubles with each.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// Which event a letter is about.
type Id = (ShardId, Revision);
/// What is told in order: the events of one key; `None` is the notice of a gap.
type Lane = Option<Key>;

/// Something to be told.
#[derive(Clone, Debug)]
struct Letter {
    letter: DeadLetter,
    /// It died once and is told again: the cursor has passed it.
    again: bool,
}

/// The letters of one lane; the first is tried.
#[derive(Debug, Default)]
struct Row {
    letters: VecDeque<Letter>,
    /// When the first was first tried.
    since: Option<Duration>,
    under_way: bool,
    /// The one before the first has died, and that is not logged yet.
    held: bool,
}

/// A delivery to begin now.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Attempt {
    /// To be given back with the result.
    pub(super) lane: Lane,
    /// What.
    pub(super) letter: DeadLetter,
    /// From 1.
    pub(super) number: u32,
}

/// What a result came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Delivered,
    Retried,
    Dead,
}

/// What has come about since the last progress.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Progress {
    pub(super) cursor: Cursor,
    pub(super) dead: Vec<DeadLetter>,
    pub(super) settled: Vec<Id>,
    pub(super) delivered: u32,
    pub(super) failed: u32,
    pub(super) error: Option<String>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    retry_for: Duration,
    rows: BTreeMap<Lane, Row>,
    /// Lanes whose first letter may be tried, in the order in which they became so.
    ready: VecDeque<Lane>,
    /// Lanes whose first letter has failed, by when it is tried again.
    paused: BTreeSet<(Duration, Lane)>,
    under_way: usize,
    /// What is read and not done, by shard.
    open: BTreeMap<ShardId, BTreeSet<Revision>>,
    open_count: usize,
    open_bytes: usize,
    /// Up to where was read.
    read: Cursor,
    /// A gap that is to be told, and from where on it is read behind it.
    gap: Option<Cursor>,
    /// Events that had died before this outbox was made.
    dead_before: BTreeSet<Id>,
    /// What has come about and is not logged.
    news: Progress,
    results: usize,
    /// Lanes that are held by what has died since the last progress, and by what died before it.
    held: Vec<Lane>,
    logging: Vec<Lane>,
}

impl Outbox {
    /// From a cursor on. `dead` lies behind it and is not told; `again` is, ahead of all.
    pub(super) fn new(
        cursor: Cursor,
        dead: impl IntoIterator<Item = Id>,
        again: impl IntoIterator<Item = DeadLetter>,
        error: Option<String>,
        retry_for: Duration,
    ) -> Outbox {
        let mut outbox = Outbox {
            retry_for,
            rows: BTreeMap::new(),
            ready: VecDeque::new(),
            paused: BTreeSet::new(),
            under_way: 0,
            open: BTreeMap::new(),
            open_count: 0,
            open_bytes: 0,
            read: cursor,
            gap: None,
            dead_before: dead.into_iter().collect(),
            news: Progress { error, ..Progress::default() },
            results: 0,
            held: Vec::new(),
            logging: Vec::new(),
        };
        for letter in again {
            // It may lie behind the cursor still, and is read anew then.
            outbox.dead_before.insert(letter.id());
            let lane = letter.event.as_ref().map(|event| event.key.clone());
            outbox.put(lane, Letter { letter, again: true });
        }
        outbox
    }

    /// Whether there is room for another event.
    pub(super) fn has_room(&self) -> bool {
        self.gap.is_none() && self.open_count < WINDOW && self.open_bytes < WINDOW_BYTES
    }

    /// How many events are read and neither delivered nor dead.
    pub(super) fn outstanding(&self) -> usize {
        self.open_count
    }

    /// An event was read.
    pub(super) fn read(&mut self, shard: ShardId, event: Event) {
        let (revision, lane) = (event.revision, Some(event.key.clone()));
        if self.dead_before.contains(&(shard, revision)) {
            return;
        }
        let letter = letter(shard, revision, Some(event));
        if self.open.entry(shard).or_default().insert(revision) {
            self.open_count += 1;
            self.open_bytes += letter.weight();
            self.put(lane, Letter { letter, again: false });
        }
    }

    /// Up to where has been read: every event up to there has come by [`Outbox::read`].
    pub(super) fn position(&mut self, cursor: Cursor) {
        if self.gap.is_none() {
            self.read = cursor;
        }
    }

    /// Some events are missing; what comes next comes behind `resume`.
    pub(super) fn gap(&mut self, resume: Cursor) {
        let first = self.gap.replace(resume).is_none();
        if first {
            self.tell_gap();
        }
    }

    /// Once all that came before a gap is done, the notice of it is next.
    fn tell_gap(&mut self) {
        if self.open_count > 0 || self.rows.contains_key(&None) {
            return;
        }
        if let Some(resume) = &self.gap {
            let sum = resume.positions.values().fold(0u64, |sum, at| sum.saturating_add(at.0));
            let letter = letter(ShardId(0), Revision(sum), None);
            self.put(None, Letter { letter, again: false });
        }
    }

    fn put(&mut self, lane: Lane, letter: Letter) {
        let row = self.rows.entry(lane.clone()).or_default();
        row.letters.push_back(letter);
        if row.letters.len() == 1 && !row.held || planted!("hook-two-of-a-key") {
            self.ready.push_back(lane);
        }
    }

    /// A delivery to begin now, if one may.
    pub(super) fn next(&mut self, now: Duration) -> Option<Attempt> {
        while let Some((until, lane)) = self.paused.first().cloned()
            && until <= now
        {
            self.paused.pop_first();
            self.ready.push_back(lane);
        }
        // What has died waits here until it is logged: no more of it than one progress carries, and those under way.
        let news: usize = self.news.dead.iter().map(DeadLetter::weight).sum();
        let full = self.news.dead.len() + self.news.settled.len() + LANES > limits::DEAD_LETTERS || news > DEAD_BYTES;
        if self.under_way >= LANES || full {
            return None;
        }
        let lane = self.ready.pop_front()?;
        let row = self.rows.get_mut(&lane)?;
        let first = row.letters.front_mut()?;
        assert!(!row.under_way || planted!("hook-two-of-a-key"), "invariant 1: two deliveries of {lane:?}");
        first.letter.attempts += 1;
        row.since.get_or_insert(now);
        row.under_way = true;
        self.under_way += 1;
        Some(Attempt { number: first.letter.attempts, letter: first.letter.clone(), lane })
    }

    /// A delivery has ended. `luck`, from 0 to 1, spreads the pauses.
    pub(super) fn ended(&mut self, lane: &Lane, result: Result<(), String>, now: Duration, luck: f64) -> Fate {
        self.under_way = self.under_way.saturating_sub(1);
        self.results += 1;
        let Some(row) = self.rows.get_mut(lane) else { return Fate::Delivered };
        row.under_way = false;
        let Some(first) = row.letters.front_mut() else { return Fate::Delivered };
        let fate = match result {
            Ok(()) => {
                self.news.delivered += 1;
                self.news.error = None;
                Fate::Delivered
            }
            Err(error) => {
                let error: String = within_bounds(error);
                self.news.failed += 1;
                self.news.error = Some(error.clone());
                first.letter.error = error;
                let pause = pause(first.letter.attempts, luck);
                let spent = now.saturating_sub(row.since.unwrap_or(now));
                if spent + pause <= self.retry_for {
                    self.paused.insert((now + pause, lane.clone()));
                    return Fate::Retried;
                }
                Fate::Dead
            }
        };
        row.since = None;
        let Some(done) = row.letters.pop_front() else { return fate };
        if fate == Fate::Dead {
            row.held = true;
            self.held.push(lane.clone());
        } else {
            self.go_on(lane);
        }
        self.done(done, fate);
        fate
    }

    /// The next of a lane may begin.
    fn go_on(&mut self, lane: &Lane) {
        let Some(row) = self.rows.get_mut(lane) else { return };
        row.held = false;
        match row.letters.is_empty() {
            true => drop(self.rows.remove(lane)),
            false => self.ready.push_back(lane.clone()),
        }
    }

    fn done(&mut self, Letter { letter, again }: Letter, fate: Fate) {
        let id = letter.id();
        if again {
            self.news.settled.push(id);
        } else if letter.event.is_none() {
            if let Some(resume) = self.gap.take() {
                self.read = resume;
            }
        } else if fate == Fate::Delivered {
            self.close(id, letter.weight() - letter.error.len());
        }
        // A dead one stays open until it is told as dead (invariant 2).
        if fate == Fate::Dead {
            self.news.dead.push(letter);
        }
        self.tell_gap();
    }

    fn close(&mut self, (shard, revision): Id, bytes: usize) {
        let Some(open) = self.open.get_mut(&shard) else { return };
        if open.remove(&revision) {
            self.open_count -= 1;
            self.open_bytes -= bytes.min(self.open_bytes);
        }
        if open.is_empty() {
            self.open.remove(&shard);
        }
    }

    /// When there is something to begin although nothing has come.
    pub(super) fn next_wake(&self) -> Option<Duration> {
        self.paused.first().map(|(until, _)| *until)
    }

    /// How many deliveries have ended since the last progress.
    pub(super) fn results(&self) -> usize {
        self.results
    }

    /// Up to where everything is delivered or dead.
    fn cursor(&self) -> Cursor {
        let mut cursor = self.read.clone();
        if planted!("hook-cursor-passes-undelivered") {
            return cursor;
        }
        for (shard, open) in &self.open {
            if let (Some(first), Some(position)) = (open.first(), cursor.positions.get_mut(shard)) {
                *position = (*position).min(Revision(first.0.saturating_sub(1)));
            }
        }
        cursor
    }

    /// What has come about since the last time, to be logged. What is lost of it is delivered again by whoever begins
    /// anew.
    pub(super) fn progress(&mut self) -> Progress {
        self.results = 0;
        self.logging.append(&mut self.held);
        let error = self.news.error.clone();
        let mut news = std::mem::replace(&mut self.news, Progress { error, ..Progress::default() });
        for letter in &news.dead {
            self.close(letter.id(), letter.weight() - letter.error.len());
        }
        news.cursor = self.cursor();
        for (shard, open) in &self.open {
            let passed = news.cursor.positions.get(shard).zip(open.first()).is_some_and(|(at, first)| at >= first);
            assert!(!passed, "invariant 2: the cursor passes what is not delivered in shard {shard}");
        }
        self.tell_gap();
        news
    }

    /// The last progress is logged.
    pub(super) fn logged(&mut self) {
        for lane in std::mem::take(&mut self.logging) {
            self.go_on(&lane);
        }
        self.tell_gap();
    }
}

fn letter(shard: ShardId, revision: Revision, event: Option<Event>) -> DeadLetter {
    DeadLetter { shard, revision, event, attempts: 0, error: String::new(), died: WallMs(0) }
}

fn within_bounds(mut error: String) -> String {
    let mut end = error.len().min(limits::LABEL_BYTES);
    while !error.is_char_boundary(end) {
        end -= 1;
    }
    error.truncate(end);
    error
}

/// Doubles from [`PAUSE_MIN`] to [`PAUSE_MAX`], of which `luck` takes up to a half.
fn pause(attempts: u32, luck: f64) -> Duration {
    let whole = PAUSE_MIN.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(PAUSE_MAX);
    whole.mul_f64(1.0 - 0.5 * luck.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests;
