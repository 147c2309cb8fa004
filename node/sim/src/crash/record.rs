//! Runs the workload over two disks and records every call to them, with what may be expected at its time.
//!
//! A node's life ends in a clean stop or in a power cut at some call, which may fall into the next recovery. All
//! of it happens on one thread and depends on the seed alone. While the writer is at the disk the workload goes
//! on, as other threads do in production.

use std::{
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use wardlock::disk::{
    OnFatal,
    log::{GroupLog, LogStats, LogWriter, Options, SharedLog},
    snapshots::Snapshots,
};
use wardlock_placement::GroupId;

use super::{
    find::{self, Expected},
    work::{Did, GROUPS, Moment, Todo, Work},
};
use crate::disk::{Call, Disk, Failure, Image, PAGE, Random, Survivors};

/// The log's disk, and that of the snapshots.
pub(crate) const LOG: usize = 0;
pub(crate) const SNAPSHOTS: usize = 1;

/// A test's journal has few pages, so that it is full often.
const JOURNAL_PAGES: u32 = 16;
/// The most calls between two steps that are made while the writer is at the disk.
const AMID: u32 = 6;
/// Where the database begins in the log's file.
pub(crate) const BEHIND: u64 = (1 + JOURNAL_PAGES as u64) * PAGE as u64;

/// What was being done when a call was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Point {
    JournalWrite,
    JournalSync,
    DatabaseWrite,
    DatabaseSync,
    DatabaseLength,
    Recovery,
    Stop,
    SnapshotWrite,
    SnapshotSync,
}

impl Point {
    pub(crate) const ALL: [Point; 9] = [
        Point::JournalWrite,
        Point::JournalSync,
        Point::DatabaseWrite,
        Point::DatabaseSync,
        Point::DatabaseLength,
        Point::Recovery,
        Point::Stop,
        Point::SnapshotWrite,
        Point::SnapshotSync,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Point::JournalWrite => "journal write",
            Point::JournalSync => "journal sync",
            Point::DatabaseWrite => "database write",
            Point::DatabaseSync => "database sync",
            Point::DatabaseLength => "database length",
            Point::Recovery => "recovery",
            Point::Stop => "clean stop",
            Point::SnapshotWrite => "snapshot write",
            Point::SnapshotSync => "snapshot sync",
        }
    }
}

/// A mutation of one of the disks, or what lies on both after a power cut.
pub(crate) enum What {
    Call(usize, Call),
    PowerOff([Image; 2]),
}

/// In the order in which they happened.
pub(crate) struct Event {
    pub(crate) what: What,
    pub(crate) point: Point,
    /// What could be found just before it.
    pub(crate) moment: Moment,
}

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) steps: u64,
    pub(crate) two_phase: bool,
    /// Whether lives end, by a stop or a power cut, before all steps are made.
    pub(crate) restarts: bool,
    /// What goes wrong on which disk.
    pub(crate) failure: Option<(usize, Failure)>,
}

impl Plan {
    /// Few rows and little slack, so that moves and deletions happen all the time. The journal's rows move on
    /// after each commit, after some, or when it is full.
    pub(crate) fn options(&self) -> Options {
        Options {
            // Without a cache pages are read again each time, which gives other calls a place amid a commit.
            cache_bytes: if self.seed.is_multiple_of(3) { 0 } else { 1 << 20 },
            settle_every: [1, 3, 12, 40][(self.seed % 4) as usize],
            journal_pages: JOURNAL_PAGES,
            linger: Duration::ZERO,
            max_rows: 8,
            slack_bytes: 4 << 10,
            queue_bytes: 64 << 10,
            two_phase: self.two_phase,
        }
    }
}

/// What happened, in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) did: Did,
    pub(crate) commits: u64,
    pub(crate) journal_commits: u64,
    pub(crate) database_commits: u64,
    pub(crate) moves: u64,
    pub(crate) stops: u64,
    pub(crate) cuts: u64,
    pub(crate) cuts_in_recovery: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Tally) {
        self.did.add(&other.did);
        self.commits += other.commits;
        self.journal_commits += other.journal_commits;
        self.database_commits += other.database_commits;
        self.moves += other.moves;
        self.stops += other.stops;
        self.cuts += other.cuts;
        self.cuts_in_recovery += other.cuts_in_recovery;
    }
}

/// A run, call by call.
pub(crate) struct Recording {
    pub(crate) plan: Plan,
    pub(crate) base: [Image; 2],
    pub(crate) events: Vec<Event>,
    pub(crate) expected: Expected,
    /// What can be found after the last call.
    pub(crate) end: Moment,
    pub(crate) disks: [Disk; 2],
    pub(crate) tally: Tally,
    /// Why the log stopped by itself, each time that it said so.
    pub(crate) fatal: Vec<String>,
    /// What was confirmed when the failure struck; none if it did not.
    pub(crate) struck: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Opening,
    Running,
    Closing,
}

struct Run {
    work: Work,
    plan: Plan,
    events: Vec<Event>,
    disks: [Disk; 2],
    phase: Phase,
    /// Counts restarts: calls of a life before this one do not count.
    life: u32,
    /// So many calls from now the power goes.
    cut_in: Option<u64>,
    /// The disks of the next life, once the power has gone.
    next: Option<[Disk; 2]>,
    /// Calls that may still be made amid the writer's before the next step: it would never come to an end else.
    amid_left: u32,
    in_journal: bool,
    dirty_database: bool,
    tally: Tally,
    fatal: Vec<String>,
    struck: Option<usize>,
}

type Shared = Arc<Mutex<Run>>;

fn locked(run: &Shared) -> MutexGuard<'_, Run> {
    run.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Run {
    /// A call is about to be made.
    fn see(&mut self, life: u32, file: usize, call: &Call) {
        if life != self.life || self.next.is_some() {
            return;
        }
        if !matches!(call, Call::Read(..)) {
            let moment = self.work.moment();
            let point = self.point(file, call);
            if self.cut_in == Some(0) {
                return self.cut(moment, point);
            }
            self.cut_in = self.cut_in.map(|calls| calls - 1);
            self.events.push(Event { what: What::Call(file, call.clone()), point, moment });
        }
        let strikes = match (&self.plan.failure, call) {
            (Some((at, Failure::Io(calls))), call) if !matches!(call, Call::Read(..)) => {
                *at == file && calls.contains(&self.disks[file].count())
            }
            (Some((at, Failure::Full(calls))), Call::Write(..) | Call::Len(_)) => {
                let disk = &self.disks[file];
                let grows = !matches!(call, Call::Len(len) if *len <= disk.size() as u64);
                *at == file && grows && calls.contains(&disk.count())
            }
            (Some((at, Failure::Read(calls))), Call::Read(..)) => {
                *at == file && calls.contains(&self.disks[file].reads())
            }
            _ => false,
        };
        if strikes && self.struck.is_none() {
            self.struck = Some(self.work.moment().confirmed);
        }
        // Reads are rare but where a group is moved, amid the very commit that looks at its marks.
        let one_in = if matches!(call, Call::Read(..)) { 2 } else { 8 };
        if self.phase == Phase::Running && file == LOG && self.amid_left > 0 && self.work.one_in(one_in) {
            self.amid_left -= 1;
            self.work.step_amid();
        }
    }

    fn point(&mut self, file: usize, call: &Call) -> Point {
        match (self.phase, file, call) {
            (Phase::Opening, ..) => Point::Recovery,
            (Phase::Closing, ..) => Point::Stop,
            (Phase::Running, SNAPSHOTS, Call::Sync) => Point::SnapshotSync,
            (Phase::Running, SNAPSHOTS, _) => Point::SnapshotWrite,
            (Phase::Running, _, Call::Write(at, _)) => {
                self.in_journal = *at < BEHIND;
                self.dirty_database |= !self.in_journal;
                if self.in_journal { Point::JournalWrite } else { Point::DatabaseWrite }
            }
            (Phase::Running, _, Call::Sync) if self.in_journal => {
                self.tally.journal_commits += 1;
                Point::JournalSync
            }
            (Phase::Running, _, Call::Sync) => {
                self.tally.database_commits += u64::from(std::mem::take(&mut self.dirty_database));
                Point::DatabaseSync
            }
            (Phase::Running, ..) => Point::DatabaseLength,
        }
    }

    fn cut(&mut self, moment: Moment, point: Point) {
        let survivors = match self.work.below(4) {
            0 => Survivors::Synced,
            1 => Survivors::All,
            _ => Survivors::Torn(self.work.below(u64::MAX)),
        };
        let next = [self.disks[LOG].power_off(survivors), self.disks[SNAPSHOTS].power_off(survivors)];
        let images = [next[LOG].image(), next[SNAPSHOTS].image()];
        self.next = Some(next);
        self.events.push(Event { what: What::PowerOff(images), point, moment });
        self.tally.cuts += 1;
        self.tally.cuts_in_recovery += u64::from(self.phase == Phase::Opening);
    }

    /// Nothing happens any more in this life.
    fn is_over(&self) -> bool {
        self.next.is_some() || !self.fatal.is_empty() || self.work.broken.is_some()
    }

    fn waits_for(&self, group: usize) -> bool {
        self.work.is_voting(group) && !self.is_over()
    }

    fn end_life(&mut self) {
        self.life += 1;
        if let Some(next) = self.next.take() {
            self.disks = next;
        }
        self.phase = Phase::Opening;
        self.cut_in = None;
    }
}

/// Empty files, as a start leaves them before they take their names: the same ones for all recordings.
static EMPTY: LazyLock<[Image; 2]> = LazyLock::new(|| {
    let log = Disk::default();
    let options = Options { journal_pages: JOURNAL_PAGES, ..Options::default() };
    drop(SharedLog::open(log.clone(), options, Arc::new(|_| ())).expect("an empty disk takes a log"));
    let snapshots = Disk::default();
    let db = redb::Database::builder().create_with_backend(snapshots.clone()).expect("an empty disk takes a database");
    db.close().expect("and it closes");
    [log.image(), snapshots.image()]
});

/// Runs the plan.
pub(crate) fn record(plan: &Plan) -> Result<Recording, String> {
    let base = EMPTY.clone();
    let disks = [Disk::from(base[LOG].clone()), Disk::from(base[SNAPSHOTS].clone())];
    if let Some((file, failure)) = &plan.failure {
        disks[*file].fail(failure.clone());
    }
    let run = Arc::new(Mutex::new(Run {
        work: Work::new(plan.seed),
        plan: plan.clone(),
        events: Vec::new(),
        disks,
        phase: Phase::Opening,
        life: 0,
        cut_in: None,
        next: None,
        amid_left: 0,
        in_journal: false,
        dirty_database: false,
        tally: Tally::default(),
        fatal: Vec::new(),
        struck: None,
    }));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.map_err(|e| e.to_string())?.block_on(lives(&run))?;
    let mut done = locked(&run);
    let end = done.work.moment();
    if let Some(broken) = done.work.broken.take() {
        return Err(broken);
    }
    done.tally.did = done.work.did;
    let events = std::mem::take(&mut done.events);
    let expected = Expected::new(&done.work);
    let (disks, tally) = (done.disks.clone(), done.tally);
    let fatal = std::mem::take(&mut done.fatal);
    Ok(Recording { plan: plan.clone(), base, events, expected, end, disks, tally, fatal, struck: done.struck })
}

async fn lives(run: &Shared) -> Result<(), String> {
    let mut left = locked(run).plan.steps;
    while left > 0 {
        let steps = begin_life(run, left);
        let Some((log, writer, snapshots)) = open(run)? else {
            if !locked(run).fatal.is_empty() {
                return Ok(());
            }
            locked(run).end_life();
            continue;
        };
        let writer = tokio::spawn(writer.run());
        locked(run).phase = Phase::Running;
        left -= life(run, steps, &snapshots).await;
        {
            let mut run = locked(run);
            run.work.leave();
            run.phase = Phase::Closing;
        }
        let stats = log.stats();
        drop(log);
        writer.await.map_err(|e| e.to_string())?;
        drop(snapshots);
        let mut run = locked(run);
        run.work.hear();
        count(&mut run.tally, &stats);
        if !run.fatal.is_empty() || run.work.broken.is_some() {
            return Ok(());
        }
        if run.next.is_none() {
            run.tally.stops += 1;
            if run.work.waits() {
                return Err("the log has stopped and some calls have no answer".to_owned());
            }
        }
        run.end_life();
    }
    Ok(())
}

fn count(tally: &mut Tally, stats: &LogStats) {
    tally.commits += stats.commits;
    tally.moves += stats.resets;
}

/// Chooses how long the next life lasts and how it ends.
fn begin_life(run: &Shared, left: u64) -> u64 {
    let mut this = locked(run);
    let steps = if this.plan.restarts { (20 + this.work.below(80)).min(left) } else { left };
    if this.plan.restarts && !this.work.one_in(3) {
        let within = if this.work.one_in(3) { 30 } else { 300 };
        this.cut_in = Some(this.work.below(within));
    }
    let life = this.life;
    for file in [LOG, SNAPSHOTS] {
        let weak = Arc::downgrade(run);
        this.disks[file].watch(Arc::new(move |call| {
            if let Some(run) = weak.upgrade() {
                locked(&run).see(life, file, call);
            }
        }));
    }
    steps
}

/// Starts the node. None: the power went meanwhile, or the disk failed.
fn open(run: &Shared) -> Result<Option<(SharedLog, LogWriter, Snapshots)>, String> {
    let (disks, options) = {
        let this = locked(run);
        (this.disks.clone(), this.plan.options())
    };
    let weak = Arc::downgrade(run);
    let on_fatal: OnFatal = Arc::new(move |why| {
        if let Some(run) = weak.upgrade() {
            let mut run = locked(&run);
            // A power cut says nothing of the log.
            if run.next.is_none() {
                run.fatal.push(why.to_owned());
            }
        }
    });
    let log = SharedLog::open(disks[LOG].clone(), options, on_fatal).map_err(|e| e.to_string());
    let snapshots = match &log {
        Ok(_) => Snapshots::open(disks[SNAPSHOTS].clone(), 0).map_err(|e| e.to_string()),
        Err(error) => Err(error.clone()),
    };
    let (log, writer, snapshots) = match (log, snapshots) {
        (Ok((log, writer)), Ok(snapshots)) if locked(run).next.is_none() => (log, writer, snapshots),
        (log, snapshots) => {
            let error = log.err().or(snapshots.err());
            let mut this = locked(run);
            return match error {
                _ if this.next.is_some() => Ok(None),
                Some(error) if this.struck.is_some() => {
                    this.fatal.push(error);
                    Ok(None)
                }
                error => Err(format!("a start fails: {}", error.unwrap_or_default())),
            };
        }
    };
    let found = find::read(&log, &snapshots);
    let mut this = locked(run);
    let found = match found {
        Err(error) if this.struck.is_some() => {
            this.fatal.push(error);
            return Ok(None);
        }
        found => found?,
    };
    let moment = this.work.moment();
    found.check(&Expected::new(&this.work), &moment)?;
    let logs: Vec<GroupLog> = (0..GROUPS as u32).map(|group| log.group(GroupId(group))).collect();
    let saved: Vec<_> = found.snapshots.groups.iter().map(find::saved).collect();
    this.work.adopt(&found.log.groups, &saved, logs);
    drop(this);
    Ok(Some((log, writer, snapshots)))
}

/// Makes up to so many steps; answers how many it made.
async fn life(run: &Shared, steps: u64, snapshots: &Snapshots) -> u64 {
    for made in 0..steps {
        let todo = {
            let mut run = locked(run);
            if run.is_over() {
                return made.max(1);
            }
            run.amid_left = AMID;
            run.work.step(false)
        };
        match todo {
            Todo::Nothing => {}
            Todo::Vote(group) => {
                while locked(run).waits_for(group) {
                    tokio::time::sleep(Duration::from_micros(100)).await;
                    locked(run).work.hear();
                }
            }
            Todo::Save { group, saved, purge } => {
                locked(run).work.begin_save(group, &saved);
                let answer = snapshots.save(GroupId(group as u32), &saved.meta(), &saved.data());
                let mut run = locked(run);
                match answer {
                    Ok(()) => run.work.end_save(group, purge),
                    Err(_) if run.next.is_some() => {}
                    Err(error) => run.fatal.push(error.to_string()),
                }
            }
        }
        let yields = locked(run).work.below(4);
        for _ in 0..yields {
            tokio::task::yield_now().await;
        }
        locked(run).work.hear();
    }
    steps
}

/// A seed for the torn images of one call.
pub(crate) fn seed_of(recording: u64, call: usize, number: u64) -> u64 {
    Random::new(recording.wrapping_mul(0x0100_0003) ^ (call as u64) << 20 ^ number).any()
}
