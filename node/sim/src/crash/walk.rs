//! Goes through a recording call by call and starts from every image that a crash could leave there.

use std::{
    cell::Cell,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use openraft::{
    storage::{IOFlushed, RaftLogStorage},
    type_config::TypeConfigExt,
};
use wardlock::{disk::log::SharedLog, raft::types::Types};
use wardlock_placement::GroupId;

use super::{
    find::{self, Found, LogFound, SnapshotsFound},
    record::{LOG, Point, Recording, SNAPSHOTS, What, seed_of},
    work::{GROUPS, Moment, View, entry},
};
use crate::disk::{Call, Disk, Image, Layers, Survivors};

/// One image in so many is also cut in its recovery, and one written on.
const DEEP: u64 = 256;

/// A promise that was broken, and how to see it again.
#[derive(Clone, Debug)]
pub struct Loss {
    /// The recording's seed.
    pub seed: u64,
    /// The number of the call in it, where it is one call's.
    pub call: Option<usize>,
    /// What is wrong.
    pub what: String,
    /// How many images, or bits, or failures, were tried until then.
    pub tried: u64,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}", self.seed)?;
        if let Some(call) = self.call {
            write!(f, ", before call {call}")?;
        }
        write!(f, ": {} (number {} that was tried)", self.what, self.tried + 1)
    }
}

/// Images by what had just been done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Images {
    pub(crate) at: [u64; Point::ALL.len()],
    pub(crate) calls: u64,
    /// Recoveries that were cut, too.
    pub(crate) cut_again: u64,
    /// Images that were written on, and started from once more.
    pub(crate) went_on: u64,
}

impl Images {
    pub(crate) fn add(&mut self, other: &Images) {
        self.at.iter_mut().zip(other.at).for_each(|(at, other)| *at += other);
        self.calls += other.calls;
        self.cut_again += other.cut_again;
        self.went_on += other.went_on;
    }

    pub(crate) fn all(&self) -> u64 {
        self.at.iter().sum()
    }
}

thread_local! {
    /// Where this thread is, for the last words of a panic.
    static AT: Cell<(u64, usize)> = const { Cell::new((0, 0)) };
}

/// The seed and the call that this thread looks at.
pub(crate) fn at() -> (u64, usize) {
    AT.get()
}

/// Starts from every image of the recording, or from those before one call, and so many torn ones for each call.
pub(crate) fn walk(
    recording: &Recording,
    torn: u64,
    only: Option<usize>,
    progress: &AtomicU64,
) -> Result<Images, Loss> {
    let mut walk = Walk {
        recording,
        layers: [Layers::new(recording.base[LOG].clone()), Layers::new(recording.base[SNAPSHOTS].clone())],
        log: None,
        snapshots: None,
        images: Images::default(),
        progress,
    };
    let mut done = Point::Recovery;
    let ends = recording.events.iter().map(|event| (Some(event), &event.moment)).chain([(None, &recording.end)]);
    for (call, (event, moment)) in ends.enumerate() {
        if only.is_none_or(|only| only == call) {
            AT.set((recording.plan.seed, call));
            walk.crash(call, done, moment, torn).map_err(|what| Loss {
                seed: recording.plan.seed,
                call: Some(call),
                what: format!("after a {}: {what}", done.name()),
                tried: progress.load(Relaxed),
            })?;
            walk.images.calls += 1;
        }
        let Some(event) = event else { break };
        done = event.point;
        match &event.what {
            What::Call(file, call) => walk.apply(*file, call),
            What::PowerOff(images) => {
                walk.layers = [Layers::new(images[LOG].clone()), Layers::new(images[SNAPSHOTS].clone())];
                (walk.log, walk.snapshots) = (None, None);
            }
        }
    }
    Ok(walk.images)
}

struct Walk<'a> {
    recording: &'a Recording,
    layers: [Layers; 2],
    /// What a disk that is all synced holds, until it changes.
    log: Option<LogFound>,
    snapshots: Option<SnapshotsFound>,
    images: Images,
    progress: &'a AtomicU64,
}

impl Walk<'_> {
    fn apply(&mut self, file: usize, call: &Call) {
        self.layers[file].apply(call);
        match file {
            LOG => self.log = None,
            _ => self.snapshots = None,
        }
    }

    fn crash(&mut self, call: usize, done: Point, moment: &Moment, torn: u64) -> Result<(), String> {
        let sectors: usize = self.layers.iter().map(Layers::torn_sectors).sum();
        // Few sectors have few subsets.
        let torn = if sectors < 4 { torn.min((1 << sectors) - 1) } else { torn };
        let torn = (0..torn).map(|number| Survivors::Torn(seed_of(self.recording.plan.seed, call, number)));
        let whole: &[Survivors] =
            if sectors == 0 { &[Survivors::Synced] } else { &[Survivors::Synced, Survivors::All] };
        for survivors in whole.iter().copied().chain(torn) {
            self.start(call, survivors, moment).map_err(|what| format!("{survivors:?}: {what}"))?;
            self.images.at[done as usize] += 1;
            self.progress.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    fn start(&mut self, call: usize, survivors: Survivors, moment: &Moment) -> Result<(), String> {
        let expected = &self.recording.expected;
        let options = self.recording.plan.options();
        let log = match &self.log {
            Some(log) => log.clone(),
            None => {
                let image = self.layers[LOG].survive(survivors);
                let log = find::open_log(&image, &options)?;
                let number = self.images.all() + call as u64;
                if number.is_multiple_of(DEEP) {
                    self.cut_again(&image, &log, number)?;
                } else if number % DEEP == DEEP / 2 {
                    self.go_on(&image, &log)?;
                }
                if self.layers[LOG].is_clean() {
                    self.log = Some(log.clone());
                }
                log
            }
        };
        let snapshots = match &self.snapshots {
            Some(snapshots) => snapshots.clone(),
            None => {
                let snapshots = find::open_snapshots(&self.layers[SNAPSHOTS].survive(survivors))?;
                if self.layers[SNAPSHOTS].is_clean() {
                    self.snapshots = Some(snapshots.clone());
                }
                snapshots
            }
        };
        Found { log, snapshots }.check(expected, moment)
    }

    /// The power goes in the recovery, at each of its calls: the next finds the same.
    fn cut_again(&mut self, image: &Image, found: &LogFound, number: u64) -> Result<(), String> {
        let disk = Disk::from(image.clone());
        let calls = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&calls);
        disk.watch(Arc::new(move |call| {
            if !matches!(call, Call::Read(..)) {
                seen.lock().expect("nobody panics here").push(call.clone());
            }
        }));
        let options = self.recording.plan.options();
        // With the clean stop that follows.
        drop(SharedLog::open(disk.clone(), options.clone(), find::never()).map_err(|e| e.to_string())?);
        let calls = std::mem::take(&mut *calls.lock().expect("nobody panics here"));
        let mut layers = Layers::new(image.clone());
        for (at, call) in calls.iter().enumerate() {
            layers.apply(call);
            for survivors in [Survivors::Synced, Survivors::Torn(seed_of(number, at, 0))] {
                let again = find::open_log(&layers.survive(survivors), &options)
                    .map_err(|what| format!("cut again after call {at} of the recovery, {survivors:?}: {what}"))?;
                if again != *found {
                    return Err(format!(
                        "cut again after call {at} of the recovery, {survivors:?}: it found {found:?} and then {again:?}"
                    ));
                }
                self.images.cut_again += 1;
                self.progress.fetch_add(1, Relaxed);
            }
        }
        Ok(())
    }

    /// The survivor writes on, enough to move groups and to delete rows, and starts once more.
    fn go_on(&mut self, image: &Image, found: &LogFound) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let disk = Disk::from(image.clone());
        let options = self.recording.plan.options();
        let wanted = runtime.map_err(|e| e.to_string())?.block_on(async {
            let (log, writer) =
                SharedLog::open(disk.clone(), options.clone(), find::never()).map_err(|e| e.to_string())?;
            let writer = tokio::spawn(writer.run());
            let mut wanted = found.clone();
            for _ in 0..6 {
                for (group, (view, _)) in wanted.groups.iter_mut().enumerate() {
                    let last = view.entries.last().map(|entry| entry.log_id).or(view.purged);
                    let next = entry(99, last.map_or(0, |last| last.index + 1), 700);
                    view.entries.push(next.clone());
                    let (done, durable) = Types::oneshot();
                    let mut log = log.group(GroupId(group as u32));
                    log.append([next], IOFlushed::signal(done)).await.map_err(|e| e.to_string())?;
                    durable.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
                }
            }
            drop(log);
            writer.await.map_err(|e| e.to_string())?;
            Ok::<_, String>(wanted)
        })?;
        let again = find::open_log(&disk.image(), &options).map_err(|what| format!("written on: {what}"))?;
        let views = |found: &LogFound| -> Vec<View> { found.groups.iter().map(|(view, _)| view.clone()).collect() };
        if views(&again) != views(&wanted) || again.groups.len() != GROUPS {
            return Err(format!("written on, it should hold {wanted:?}, it holds {again:?}"));
        }
        self.images.went_on += 1;
        Ok(())
    }
}
