//! One bit of one file is flipped, or one sector zeroed, in every kind of page. The start or the read refuses,
//! or all contents are as they were: never others.
//!
//! One exception is known, and bounded here. After a crash, what is damaged in the last commit of a file can look
//! like a commit that never finished. It is rolled back then, that one and no more. A file that was closed has none.
//!
//! Which bytes a start reads is not asserted but seen: the disk notes its reads. Damage elsewhere must change
//! nothing.

use std::{
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use wardlock::disk::{
    log::{Options, SharedLog},
    snapshots::Snapshots,
};

use super::{
    find::{self, Found},
    record::{BEHIND, LOG, Plan, Point, Recording, SNAPSHOTS, What, record, seed_of},
    walk::Loss,
};
use crate::disk::{Call, Disk, Image, Layers, PAGE, Random, SECTOR, Survivors};

/// What a damaged byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    LogHeader,
    /// A record of the journal that the database does not hold yet; the last of them is the last commit.
    Record,
    LastRecord,
    /// Older records, and pages never used.
    JournalRest,
    /// The byte that says which commit slot counts.
    GodByte,
    /// Magic number, page and region sizes.
    Geometry,
    NewerSlot,
    OlderSlot,
    HeaderRest,
    Branch,
    Leaf,
    /// Pages that no start reads.
    Free,
}

impl Kind {
    const ALL: [Kind; 12] = [
        Kind::LogHeader,
        Kind::Record,
        Kind::LastRecord,
        Kind::JournalRest,
        Kind::GodByte,
        Kind::Geometry,
        Kind::NewerSlot,
        Kind::OlderSlot,
        Kind::HeaderRest,
        Kind::Branch,
        Kind::Leaf,
        Kind::Free,
    ];

    fn name(self) -> &'static str {
        match self {
            Kind::LogHeader => "log header",
            Kind::Record => "journal record",
            Kind::LastRecord => "journal, last record",
            Kind::JournalRest => "journal, the rest",
            Kind::GodByte => "redb god byte",
            Kind::Geometry => "redb geometry",
            Kind::NewerSlot => "redb slot, newer",
            Kind::OlderSlot => "redb slot, older",
            Kind::HeaderRest => "redb header, the rest",
            Kind::Branch => "redb branch",
            Kind::Leaf => "redb leaf",
            Kind::Free => "redb free page",
        }
    }
}

/// What came of the damage to one kind of page.
#[derive(Clone, Copy, Debug, Default)]
struct Outcomes {
    refused: u64,
    /// By an assertion of the storage engine, as builds with assertions do.
    panicked: u64,
    harmless: u64,
    unread: u64,
    rolled_back: u64,
}

impl Outcomes {
    fn all(&self) -> u64 {
        self.refused + self.panicked + self.harmless + self.unread + self.rolled_back
    }

    fn add(&mut self, other: &Outcomes) {
        self.refused += other.refused;
        self.panicked += other.panicked;
        self.harmless += other.harmless;
        self.unread += other.unread;
        self.rolled_back += other.rolled_back;
    }
}

/// Outcomes by file, commit phases and kind.
#[derive(Clone, Debug, Default)]
pub struct FlipReport {
    outcomes: BTreeMap<(usize, bool, Kind), Outcomes>,
    victims: u64,
    sectors: u64,
}

impl FlipReport {
    fn add(&mut self, other: &FlipReport) {
        for (kind, outcomes) in &other.outcomes {
            self.outcomes.entry(*kind).or_default().add(outcomes);
        }
        self.victims += other.victims;
        self.sectors += other.sectors;
    }

    fn sum(&self, is_meant: impl Fn(usize, Kind) -> bool) -> Outcomes {
        let mut sum = Outcomes::default();
        let meant = self.outcomes.iter().filter(|((file, _, kind), _)| is_meant(*file, *kind));
        meant.for_each(|(_, outcomes)| sum.add(outcomes));
        sum
    }

    /// All damage that was done.
    pub fn damaged(&self) -> u64 {
        self.sum(|_, _| true).all()
    }

    /// What there was too little of: each kind of page in each file, damaged and noticed.
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for kind in Kind::ALL {
            for file in [LOG, SNAPSHOTS] {
                let in_database =
                    !matches!(kind, Kind::LogHeader | Kind::Record | Kind::LastRecord | Kind::JournalRest);
                // Snapshots are few and stand in a handful of leaves.
                if file == SNAPSHOTS && (!in_database || kind == Kind::Branch) {
                    continue;
                }
                let outcomes = self.sum(|at, of| at == file && of == kind);
                let can_be_noticed =
                    !matches!(kind, Kind::JournalRest | Kind::OlderSlot | Kind::HeaderRest | Kind::Free);
                let noticed = outcomes.refused + outcomes.panicked + outcomes.rolled_back;
                if outcomes.all() < 8 || (can_be_noticed && kind != Kind::GodByte && noticed * 50 < outcomes.all()) {
                    missing.push(format!("{} of {}: {outcomes:?}", kind.name(), file_name(file)));
                }
            }
        }
        missing
    }
}

fn file_name(file: usize) -> &'static str {
    if file == LOG { wardlock::disk::log::FILE } else { wardlock::disk::snapshots::FILE }
}

impl fmt::Display for FlipReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<15} {:<10} {:<22} {:>8} {:>8} {:>8} {:>8} {:>11}",
            "file", "commits in", "page", "damaged", "refused", "same", "unread", "rolled back"
        )?;
        for ((file, two_phase, kind), found) in &self.outcomes {
            writeln!(
                f,
                "{:<15} {:<10} {:<22} {:>8} {:>8} {:>8} {:>8} {:>11}",
                file_name(*file),
                if *two_phase { "two phases" } else { "one phase" },
                kind.name(),
                found.all(),
                found.refused + found.panicked,
                found.harmless,
                found.unread,
                found.rolled_back
            )?;
        }
        let panicked = self.sum(|_, _| true).panicked;
        write!(
            f,
            "{} bits and sectors ({}) damaged in {} files; {panicked} refusals were panics; no other contents found",
            self.damaged(),
            self.sectors,
            self.victims
        )
    }
}

/// A file to damage, and what may be found then.
struct Victim {
    file: usize,
    two_phase: bool,
    images: [Image; 2],
    whole: Found,
    /// Without the file's last commit. None: it was closed.
    before: Option<Found>,
    kinds: BTreeMap<Kind, Vec<(u64, u64)>>,
    /// What is read when the undamaged file is started from.
    read: Vec<(u64, u64)>,
    options: Options,
    name: String,
}

/// Damages so many places of files that recordings from this seed on leave.
pub fn flips(seed: u64, count: u64) -> Result<FlipReport, Loss> {
    let mut victims = Vec::new();
    for (at, two_phase) in [false, true, false, true].into_iter().enumerate() {
        let seed = seed + at as u64;
        let plan = Plan { seed, steps: 160, two_phase, restarts: false, failure: None };
        let loss = |what| Loss { seed, call: None, what, tried: 0 };
        let recording = record(&plan).map_err(loss)?;
        victims.extend(choose(&recording).map_err(loss)?);
    }
    let kinds: usize = victims.iter().map(|victim| victim.kinds.len()).sum();
    let each = count.div_ceil(kinds.max(1) as u64);
    let (next, tried) = (AtomicUsize::new(0), AtomicU64::new(0));
    let outcome = Mutex::new(Ok(FlipReport::default()));
    let work = || {
        while let Some(victim) = victims.get(next.fetch_add(1, Relaxed)) {
            let found = damage(victim, seed, each, &tried);
            let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
            match (found, outcome.as_mut()) {
                (Ok(report), Ok(all)) => all.add(&report),
                (Err(what), Ok(_)) => *outcome = Err(Loss { seed, call: None, what, tried: tried.load(Relaxed) }),
                (_, Err(_)) => {}
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    outcome.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Some files as crashes after a commit leave them, and as they are closed.
fn choose(recording: &Recording) -> Result<Vec<Victim>, String> {
    let options = Options { cache_bytes: 1 << 20, ..recording.plan.options() };
    let mut random = Random::new(recording.plan.seed);
    let mut layers = [LOG, SNAPSHOTS].map(|file| Layers::new(recording.base[file].clone()));
    // What each file held after its last sync but one, and where the journal's records begin.
    let mut last: [Option<Found>; 2] = [None, None];
    let mut records: Vec<(u64, u64)> = Vec::new();
    let mut victims = Vec::new();
    for (at, event) in recording.events.iter().enumerate() {
        let What::Call(file, call) = &event.what else { continue };
        layers[*file].apply(call);
        match (event.point, call) {
            (Point::JournalWrite, Call::Write(at, data)) => {
                let length = data.get(24..).and_then(|rest| rest.first_chunk()).map_or(0, |at| u32::from_le_bytes(*at));
                records.push((*at, at + 28 + u64::from(length)));
            }
            (Point::DatabaseSync | Point::Recovery | Point::Stop, _) if *file == LOG => records.clear(),
            _ => {}
        }
        let commits = matches!(event.point, Point::JournalSync | Point::DatabaseSync | Point::SnapshotSync);
        if !commits || *call != Call::Sync {
            continue;
        }
        let images = layers.each_ref().map(|layers| layers.survive(Survivors::Synced));
        let whole = start(&images, &options)?;
        // The other file is as it is now.
        let before = last[*file].replace(whole.clone()).map(|last| match *file {
            LOG => Found { snapshots: whole.snapshots.clone(), ..last },
            _ => Found { log: whole.log.clone(), ..last },
        });
        let is_wanted = before.as_ref() != Some(&whole)
            && match event.point {
                // The first record after a commit of the database is all that tells of its loss.
                Point::JournalSync => random.one_in(if records.len() > 1 { 10 } else { 3 }),
                Point::DatabaseSync => random.one_in(10),
                _ => random.one_in(4),
            };
        if let Some(before) = before.filter(|_| is_wanted) {
            let name = format!("{} after call {at}, a {}", file_name(*file), event.point.name());
            victims.push(Victim::new(recording, *file, images, whole, Some(before), &records, &options, name)?);
        }
    }
    let images = recording.disks.each_ref().map(Disk::image);
    for file in [LOG, SNAPSHOTS] {
        let (whole, name) = (start(&images, &options)?, format!("{} as it was closed", file_name(file)));
        victims.push(Victim::new(recording, file, images.clone(), whole, None, &[], &options, name)?);
    }
    Ok(victims)
}

fn start(images: &[Image; 2], options: &Options) -> Result<Found, String> {
    let [log, snapshots] = images;
    let found = Found { log: find::open_log(log, options)?, snapshots: find::open_snapshots(snapshots)? };
    found.check_cover()?;
    Ok(found)
}

impl Victim {
    #[expect(clippy::too_many_arguments, reason = "the one place that makes one")]
    fn new(
        recording: &Recording,
        file: usize,
        images: [Image; 2],
        whole: Found,
        before: Option<Found>,
        records: &[(u64, u64)],
        options: &Options,
        name: String,
    ) -> Result<Victim, String> {
        let read = reads(file, &images[file], options)?;
        let kinds = kinds(file, &images[file], records, &read);
        let (two_phase, options) = (recording.plan.two_phase, options.clone());
        let name = format!("{name}, seed {}", recording.plan.seed);
        Ok(Victim { file, two_phase, images, whole, before, kinds, read, options, name })
    }

    /// What is found where this file is another.
    fn start_from(&self, damaged: Image) -> Option<Result<Found, String>> {
        let mut images = self.images.clone();
        images[self.file] = damaged;
        catch_unwind(AssertUnwindSafe(|| start(&images, &self.options))).ok()
    }
}

/// The byte ranges that a start reads.
fn reads(file: usize, image: &Image, options: &Options) -> Result<Vec<(u64, u64)>, String> {
    let disk = Disk::from(image.clone());
    let ranges = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&ranges);
    disk.watch(Arc::new(move |call| {
        if let Call::Read(at, len) = call {
            seen.lock().unwrap_or_else(PoisonError::into_inner).push((*at, at + *len as u64));
        }
    }));
    if file == LOG {
        let opened = SharedLog::open(disk.clone(), options.clone(), find::never()).map_err(|e| e.to_string())?;
        find::read_log(&opened.0)?;
        disk.power_off(Survivors::Synced);
    } else {
        let opened = Snapshots::open(disk.clone(), 1 << 20).map_err(|e| e.to_string())?;
        find::read_snapshots(&opened)?;
        disk.power_off(Survivors::Synced);
    }
    let found = std::mem::take(&mut *ranges.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(found)
}

/// Where the bytes of each kind lie.
fn kinds(file: usize, image: &Image, records: &[(u64, u64)], read: &[(u64, u64)]) -> BTreeMap<Kind, Vec<(u64, u64)>> {
    let mut kinds: BTreeMap<Kind, Vec<(u64, u64)>> = BTreeMap::new();
    let mut put = |kind: Kind, from: u64, to: u64| kinds.entry(kind).or_default().push((from, to));
    let page = PAGE as u64;
    let behind = if file == LOG { BEHIND } else { 0 };
    if file == LOG {
        put(Kind::LogHeader, 0, 28);
        let mut used = 28;
        for (at, (from, to)) in records.iter().enumerate() {
            put(Kind::JournalRest, used, *from);
            put(if at + 1 == records.len() { Kind::LastRecord } else { Kind::Record }, *from, *to);
            used = *to;
        }
        put(Kind::JournalRest, used, BEHIND);
    }
    let transaction = |slot: u64| {
        let mut id = [0; 8];
        image.read(behind + slot + 104, &mut id);
        u64::from_le_bytes(id)
    };
    let (newer, older) = if transaction(64) > transaction(192) { (64, 192) } else { (192, 64) };
    put(Kind::GodByte, behind + 9, behind + 10);
    put(Kind::Geometry, behind, behind + 9);
    put(Kind::Geometry, behind + 12, behind + 32);
    put(Kind::NewerSlot, behind + newer, behind + newer + 128);
    put(Kind::OlderSlot, behind + older, behind + older + 128);
    put(Kind::HeaderRest, behind + 10, behind + 12);
    put(Kind::HeaderRest, behind + 32, behind + 64);
    put(Kind::HeaderRest, behind + 320, behind + page);
    let mut of_page: BTreeMap<u64, Kind> = BTreeMap::new();
    for (from, to) in read.iter().filter(|(from, _)| *from >= behind + page) {
        let mut first = [0];
        image.read(*from, &mut first);
        let kind = if first[0] == 2 { Kind::Branch } else { Kind::Leaf };
        (from / page..to.div_ceil(page)).for_each(|at| {
            of_page.entry(at).or_insert(kind);
        });
    }
    for at in behind / page + 1..image.len() as u64 / page {
        put(of_page.get(&at).copied().unwrap_or(Kind::Free), at * page, (at + 1) * page);
    }
    kinds
}

/// Damages each kind of page in so many places.
fn damage(victim: &Victim, seed: u64, each: u64, tried: &AtomicU64) -> Result<FlipReport, String> {
    let mut report = FlipReport { victims: 1, ..FlipReport::default() };
    let image = &victim.images[victim.file];
    for (kind, ranges) in &victim.kinds {
        let bytes: u64 = ranges.iter().map(|(from, to)| to - from).sum();
        let byte = |mut at: u64| {
            for (from, to) in ranges {
                if at < to - from {
                    return from + at;
                }
                at -= to - from;
            }
            ranges[0].0
        };
        let mut random = Random::new(seed_of(seed, *kind as usize, ranges[0].0 ^ bytes));
        // Of what is small each bit is flipped.
        let is_small = bytes <= each;
        let times = if is_small { bytes * 8 } else { each };
        for time in 0..times {
            let mut damaged = image.clone();
            let (at, what) = if !is_small && time % 16 == 0 {
                let sector = byte(random.below(bytes)) / SECTOR as u64 * SECTOR as u64;
                damaged.write(sector, &[0; SECTOR]);
                report.sectors += 1;
                ((sector, sector + SECTOR as u64), format!("the sector at {sector} is zeros"))
            } else {
                let bit = if is_small { time } else { random.below(bytes * 8) };
                let bit = byte(bit / 8) * 8 + bit % 8;
                damaged.flip(bit);
                ((bit / 8, bit / 8 + 1), format!("bit {} of byte {} is flipped", bit % 8, bit / 8))
            };
            let is_read = victim.read.iter().any(|(from, to)| *from < at.1 && at.0 < *to);
            let outcomes = report.outcomes.entry((victim.file, victim.two_phase, *kind)).or_default();
            let told = |why: &str| format!("{}: {what}, in a {}: {why}", victim.name, kind.name());
            tried.fetch_add(1, Relaxed);
            match victim.start_from(damaged) {
                None if is_read => outcomes.panicked += 1,
                Some(Err(_)) if is_read => outcomes.refused += 1,
                None => return Err(told("nothing reads it, and the start panics")),
                Some(Err(why)) => return Err(told(&format!("nothing reads it, and the start fails: {why}"))),
                Some(Ok(found)) if found == victim.whole && is_read => outcomes.harmless += 1,
                Some(Ok(found)) if found == victim.whole => outcomes.unread += 1,
                Some(Ok(found)) if victim.before.as_ref() == Some(&found) && victim.may_roll_back(*kind, at) => {
                    outcomes.rolled_back += 1;
                }
                Some(Ok(found)) => {
                    let is_before = victim.before.as_ref() == Some(&found);
                    let older =
                        if is_before { "those before the last commit" } else { "neither those of now nor of before" };
                    return Err(told(&format!("other contents are found, {older}")));
                }
            }
        }
    }
    Ok(report)
}

impl Victim {
    /// Where damage may pass for a commit that never finished. A two-phase commit has only one byte for that.
    fn may_roll_back(&self, kind: Kind, damaged: (u64, u64)) -> bool {
        match kind {
            // A sector that begins elsewhere may hold a part of it.
            Kind::LastRecord | Kind::Record | Kind::JournalRest => {
                let last = self.kinds.get(&Kind::LastRecord).into_iter().flatten();
                last.into_iter().any(|(from, to)| *from < damaged.1 && damaged.0 < *to)
            }
            Kind::NewerSlot | Kind::Branch | Kind::Leaf => !self.two_phase || self.file == SNAPSHOTS,
            Kind::GodByte => self.two_phase && self.file == LOG,
            _ => false,
        }
    }
}
