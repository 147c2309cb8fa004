//! What a start finds, and whether it may be found.
//!
//! # What is compared
//! 1. The groups' logs are together what some one call left: not before the last that was confirmed, not after
//!    the last that was issued. So nothing confirmed is lost, nothing truncated comes back, no vote goes back.
//! 2. A committed position is one that was saved, and the log's entry there, if it is there, is that entry.
//! 3. Each group's snapshot is the last whose save has returned, or one that was being saved.
//! 4. What a log has purged its group's snapshot covers.

use bytes::Bytes;
use futures_util::FutureExt;
use openraft::{RaftLogReader, storage::RaftLogStorage};
use wardlock::{
    disk::{
        OnFatal,
        log::{GroupLog, Options, SharedLog},
        snapshots::Snapshots,
    },
    raft::types::LogId,
};
use wardlock_placement::GroupId;
use wardlock_wire::raft::SnapshotMeta;

use super::work::{GROUPS, Moment, Saved, View, Work};
use crate::disk::{Disk, Image};

/// All that may ever be found; a [`Moment`] says which part of it may be found then.
pub(crate) struct Expected {
    calls: Vec<(usize, View)>,
    /// Each group's last call, at each call.
    last: Vec<[usize; GROUPS]>,
    snapshots: [Vec<Option<Saved>>; GROUPS],
    committed: [Vec<Option<LogId>>; GROUPS],
}

impl Expected {
    pub(crate) fn new(work: &Work) -> Expected {
        let mut last = [0; GROUPS];
        let advance = |(call, (group, _)): (usize, &(usize, View))| {
            last[*group] = call;
            last
        };
        Expected {
            last: work.calls.iter().enumerate().map(advance).collect(),
            calls: work.calls.clone(),
            snapshots: work.snapshots.clone(),
            committed: work.committed.clone(),
        }
    }
}

/// Each group's log and committed position.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LogFound {
    pub(crate) groups: Vec<(View, Option<LogId>)>,
}

/// Each group's snapshot.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SnapshotsFound {
    pub(crate) groups: Vec<Option<(SnapshotMeta, Bytes)>>,
}

/// Both files.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    pub(crate) log: LogFound,
    pub(crate) snapshots: SnapshotsFound,
}

/// Fails whoever hears of a disk error where there is none.
pub(crate) fn never() -> OnFatal {
    std::sync::Arc::new(|why| panic!("{why}"))
}

/// What both hold that were opened.
pub(crate) fn read(log: &SharedLog, snapshots: &Snapshots) -> Result<Found, String> {
    Ok(Found { log: read_log(log)?, snapshots: read_snapshots(snapshots)? })
}

/// What a log holds.
pub(crate) fn read_log(log: &SharedLog) -> Result<LogFound, String> {
    let groups = (0..GROUPS as u32).map(|group| view(&mut log.group(GroupId(group)))).collect::<Result<_, _>>()?;
    Ok(LogFound { groups })
}

fn view(log: &mut GroupLog) -> Result<(View, Option<LogId>), String> {
    // The log reads from memory: nobody waits.
    let now = "a read of the log waits";
    let entries = log.try_get_log_entries(..).now_or_never().ok_or(now)?.map_err(|e| e.to_string())?;
    let state = log.get_log_state().now_or_never().ok_or(now)?.map_err(|e| e.to_string())?;
    let committed = log.read_committed().now_or_never().ok_or(now)?.map_err(|e| e.to_string())?;
    let last = entries.last().map(|entry| entry.log_id).or(state.last_purged_log_id);
    if state.last_log_id != last {
        return Err(format!("group {} says that its log ends at {:?}, not at {last:?}", log.id(), state.last_log_id));
    }
    Ok((View { vote: log.vote(), purged: state.last_purged_log_id, entries }, committed))
}

/// What the snapshots' file holds.
pub(crate) fn read_snapshots(snapshots: &Snapshots) -> Result<SnapshotsFound, String> {
    let load = |group| snapshots.load(GroupId(group)).map_err(|e| e.to_string());
    Ok(SnapshotsFound { groups: (0..GROUPS as u32).map(load).collect::<Result<_, _>>()? })
}

/// Starts the log from an image.
pub(crate) fn open_log(image: &Image, options: &Options) -> Result<LogFound, String> {
    let disk = Disk::from(image.clone());
    let (log, writer) = SharedLog::open(disk.clone(), options.clone(), never()).map_err(|e| e.to_string())?;
    let found = read_log(&log);
    // A clean stop would be one commit more, and nobody looks at it.
    disk.power_off(crate::disk::Survivors::Synced);
    drop((log, writer));
    found
}

/// Opens the snapshots from an image.
pub(crate) fn open_snapshots(image: &Image) -> Result<SnapshotsFound, String> {
    let disk = Disk::from(image.clone());
    let snapshots = Snapshots::open(disk.clone(), 1 << 20).map_err(|e| e.to_string())?;
    let found = read_snapshots(&snapshots);
    disk.power_off(crate::disk::Survivors::Synced);
    found
}

/// A found snapshot, as it was saved.
pub(crate) fn saved(found: &Option<(SnapshotMeta, Bytes)>) -> Option<Saved> {
    let (meta, data) = found.as_ref()?;
    Some(Saved { last: meta.last?, bytes: data.len() })
}

impl Found {
    /// Whether all of it may be found at this moment.
    pub(crate) fn check(&self, expected: &Expected, moment: &Moment) -> Result<(), String> {
        self.log.check(expected, moment)?;
        self.snapshots.check(expected, moment)?;
        self.check_cover()
    }

    /// Whether the snapshots cover what the logs have purged.
    pub(crate) fn check_cover(&self) -> Result<(), String> {
        for (group, ((view, _), snapshot)) in self.log.groups.iter().zip(&self.snapshots.groups).enumerate() {
            let Some(purged) = view.purged else { continue };
            let found = snapshot.as_ref().and_then(|(meta, _)| meta.last).map(|last| last.index);
            if found.is_none_or(|found| found < purged.index) {
                return Err(format!("group {group} has purged up to {purged}, and its snapshot reaches to {found:?}"));
            }
        }
        Ok(())
    }
}

impl LogFound {
    pub(crate) fn check(&self, expected: &Expected, moment: &Moment) -> Result<(), String> {
        let mut last = expected.last[moment.confirmed];
        let is_right = |group: usize, call: usize| expected.calls[call].1 == self.groups[group].0;
        let mut right: [bool; GROUPS] = std::array::from_fn(|group| is_right(group, last[group]));
        let mut call = moment.confirmed;
        while right.contains(&false) {
            call += 1;
            if call > moment.issued {
                return Err(self.describe(expected, moment));
            }
            let group = expected.calls[call].0;
            last[group] = call;
            right[group] = is_right(group, call);
        }
        self.check_committed(expected, moment)
    }

    fn check_committed(&self, expected: &Expected, moment: &Moment) -> Result<(), String> {
        for (group, (view, committed)) in self.groups.iter().enumerate() {
            let Some(found) = committed else { continue };
            let (from, to) = moment.committed[group];
            if !expected.committed[group][from..=to].contains(committed) {
                return Err(format!("group {group} has {found} for its committed position, which nobody saved"));
            }
            let last = view.entries.last().map(|entry| entry.log_id).or(view.purged);
            if last.is_none_or(|last| last.index < found.index) {
                return Err(format!("group {group} has committed up to {found}, and its log ends at {last:?}"));
            }
            let there = view.entries.iter().find(|entry| entry.log_id.index == found.index);
            if let Some(other) = there.filter(|entry| entry.log_id != *found) {
                return Err(format!("group {group} has committed {found}, and its log has {} there", other.log_id));
            }
        }
        Ok(())
    }

    fn describe(&self, expected: &Expected, moment: &Moment) -> String {
        let (confirmed, issued) = (moment.confirmed, moment.issued);
        let last = expected.last[confirmed];
        for (group, (found, _)) in self.groups.iter().enumerate() {
            let calls = || (confirmed..=issued).filter(|call| expected.calls[*call].0 == group);
            if expected.calls[last[group]].1 != *found && calls().all(|call| expected.calls[call].1 != *found) {
                let older = (0..confirmed).rev().find(|call| expected.calls[*call] == (group, found.clone()));
                let older = older.map_or("no call at all left".to_owned(), |call| format!("call {call} left"));
                let wanted = short(&expected.calls[last[group]].1);
                return format!(
                    "group {group} shows {}, which {older}; calls up to {confirmed} were confirmed, which left \
                     {wanted}, and {issued} is the last that was issued",
                    short(found)
                );
            }
        }
        format!("no one call from {confirmed} to {issued} left all groups as they are: each is what another left")
    }
}

fn short(view: &View) -> String {
    let ends = |at: Option<&wardlock::raft::types::Entry>| at.map(|entry| entry.log_id.to_string()).unwrap_or_default();
    format!(
        "vote {}, purged {}, {} entries {}..{}",
        view.vote.map(|vote| vote.to_string()).unwrap_or_default(),
        view.purged.map(|purged| purged.to_string()).unwrap_or_default(),
        view.entries.len(),
        ends(view.entries.first()),
        ends(view.entries.last()),
    )
}

impl SnapshotsFound {
    pub(crate) fn check(&self, expected: &Expected, moment: &Moment) -> Result<(), String> {
        for (group, found) in self.groups.iter().enumerate() {
            let (from, to) = moment.snapshots[group];
            let is_right = |wanted: &Option<Saved>| match (wanted, found) {
                (None, None) => true,
                (Some(wanted), Some((meta, data))) => {
                    meta.last == Some(wanted.last) && data.len() == wanted.bytes && *data == wanted.data()
                }
                _ => false,
            };
            if !expected.snapshots[group][from..=to].iter().any(is_right) {
                let (wanted, found) = (&expected.snapshots[group][from..=to], saved(found));
                return Err(format!("group {group} has the snapshot {found:?}, which is none of {wanted:?}"));
            }
        }
        Ok(())
    }
}
