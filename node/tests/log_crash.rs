//! A crash after every call to the disk, with whatever of the unsynced writes: the log and the
//! snapshots are found as some prefix of their calls left them, and what was confirmed is in it.

mod log_support;

use std::collections::VecDeque;

use log_support::*;
use openraft::{
    storage::{IOFlushed, RaftLogStorage},
    type_config::TypeConfigExt,
};
use wardlock::{
    disk::{
        log::{GroupLog, Options},
        snapshots::Snapshots,
    },
    raft::types::Types,
};
use wardlock_placement::GroupId;
use wardlock_wire::raft::{LogPos, Members, SnapshotMeta};

const GROUPS: u64 = 3;

/// Few rows and little slack, so that resets and deletions happen all the time; after so many commits the
/// journal's rows move on, or earlier, when it is full.
fn tight(settle_every: u32) -> Options {
    Options { max_rows: 6, slack_bytes: 4 << 10, settle_every, ..small() }
}

/// One group as the script drives it, and what it should hold after each call.
struct Driven {
    log: GroupLog,
    now: View,
    term: u64,
    history: Vec<View>,
    confirmed: u64,
    waits: VecDeque<(u64, tokio::sync::oneshot::Receiver<std::io::Result<()>>)>,
}

impl Driven {
    fn next_index(&self) -> u64 {
        let last = self.now.entries.last().map(|entry| entry.log_id).or(self.now.purged);
        last.map_or(0, |last| last.index + 1)
    }

    /// The model has made one call more; the log is about to.
    fn issued(&mut self) -> u64 {
        self.history.push(self.now.clone());
        self.history.len() as u64 - 1
    }

    fn poll(&mut self) {
        while let Some((call, durable)) = self.waits.front_mut()
            && let Ok(result) = durable.try_recv()
        {
            result.unwrap();
            self.confirmed = *call;
            self.waits.pop_front();
        }
    }
}

fn note(disk: &MemDisk, groups: &[Driven]) {
    disk.note(groups.iter().flat_map(|group| [group.confirmed, group.history.len() as u64 - 1]).collect());
}

/// Runs a random script and answers what each group should hold after each of its calls.
async fn script(disk: &MemDisk, steps: u64, settle_every: u32, random: &mut Random) -> Vec<Vec<View>> {
    let log = start(disk, tight(settle_every));
    let mut groups: Vec<Driven> = (0..GROUPS)
        .map(|group| Driven {
            log: log.group(GroupId(group as u32)),
            now: View::default(),
            term: 1,
            history: vec![View::default()],
            confirmed: 0,
            waits: VecDeque::new(),
        })
        .collect();
    for _ in 0..steps {
        // The first group idles most of the time and is moved instead.
        let at = if random.below(12) == 0 { 0 } else { 1 + random.below(GROUPS - 1) };
        let choice = random.below(10);
        groups.iter_mut().for_each(Driven::poll);
        let group = &mut groups[at as usize];
        match choice {
            0 => {
                group.term += 1;
                group.now.vote = Some(vote(group.term));
                let call = group.issued();
                note(disk, &groups);
                let group = &mut groups[at as usize];
                group.log.save_vote(&vote(group.term)).await.unwrap();
                group.confirmed = call;
            }
            1 if group.now.entries.len() > 2 => {
                let kept = group.now.entries.len() - 1 - random.below(2) as usize;
                group.now.entries.truncate(kept);
                let last = group.now.entries.last().map(|entry| entry.log_id).or(group.now.purged);
                group.issued();
                group.log.truncate_after(last).await.unwrap();
            }
            2 | 3 if !group.now.entries.is_empty() => {
                let upto = group.now.entries[random.below(group.now.entries.len() as u64) as usize].log_id;
                group.now.purged = Some(upto);
                group.now.entries.retain(|entry| entry.log_id.index > upto.index);
                group.issued();
                group.log.save_committed(Some(upto)).await.unwrap();
                group.log.purge(upto).await.unwrap();
            }
            4 if random.below(8) == 0 => {
                // As after a snapshot from the leader: past the end of the log.
                group.term += 1;
                let upto = id(group.term, group.next_index() + 10);
                group.now = View { purged: Some(upto), entries: Vec::new(), ..group.now.clone() };
                group.issued();
                group.log.purge(upto).await.unwrap();
            }
            _ => {
                let first = group.next_index();
                let len = random.below(1_500) as usize;
                let entries: Vec<_> =
                    (first..=first + random.below(3)).map(|index| entry(group.term, index, len)).collect();
                group.now.entries.extend(entries.iter().cloned());
                let call = group.issued();
                let (done, durable) = Types::oneshot();
                group.waits.push_back((call, durable));
                group.log.append(entries, IOFlushed::signal(done)).await.unwrap();
            }
        }
        note(disk, &groups);
        if random.below(3) == 0 {
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
        }
    }
    assert!(log.stats().resets > steps / 20, "the script must move groups: {:?}", log.stats());
    for group in &mut groups {
        while let Some((_, durable)) = group.waits.pop_front() {
            durable.await.unwrap().unwrap();
        }
    }
    groups.into_iter().map(|group| group.history).collect()
}

/// Opens an image and compares every group with its history.
async fn check(image: Vec<u8>, histories: &[Vec<View>], note: &[u64], goes_on: bool, what: &str) {
    let disk = MemDisk::with(image);
    let (log, writer) = open(&disk, tight(3)).unwrap_or_else(|e| panic!("{what}: {e}"));
    for (at, history) in histories.iter().enumerate() {
        let mut group = log.group(GroupId(at as u32));
        let found = view(&mut group).await;
        let (confirmed, issued) =
            note.get(at * 2..at * 2 + 2).map_or((0, 0), |note| (note[0] as usize, note[1] as usize));
        assert!(
            history[confirmed..=issued].contains(&found),
            "{what}: group {at} shows {found:?}, which none of calls {confirmed} to {issued} left"
        );
        let committed = group.read_committed().await.unwrap();
        let last = group.get_log_state().await.unwrap().last_log_id;
        assert!(committed.is_none_or(|committed| last.is_some_and(|last| committed.index <= last.index)), "{what}");
    }
    if goes_on {
        // The survivor writes on, enough to move and delete rows, and restarts once more.
        let writer = tokio::spawn(writer.run());
        let mut expected = Vec::new();
        for round in 0..10 {
            for at in 0..histories.len() as u32 {
                let mut group = log.group(GroupId(at));
                let next = group.get_log_state().await.unwrap().last_log_id.map_or(0, |last| last.index + 1);
                append(&mut group, vec![entry(99, next, 700)]).await.unwrap();
                if round == 9 {
                    expected.push(view(&mut group).await);
                }
            }
        }
        drop(log);
        writer.await.unwrap();
        let (log, _writer) = open(&disk, tight(3)).unwrap_or_else(|e| panic!("{what}, second start: {e}"));
        for (at, expected) in expected.iter().enumerate() {
            assert_eq!(view(&mut log.group(GroupId(at as u32))).await, *expected, "{what}, second start");
        }
    }
}

#[test]
fn a_crash_after_every_call_loses_nothing_confirmed() {
    let empty = empty_log();
    for (seed, steps, settle_every) in [(1, 250, 1), (2, 250, 3), (3, 250, 3), (4, 250, 40)] {
        let mut random = Random::new(seed);
        let disk = MemDisk::with(empty.clone()).record();
        let histories = paused(script(&disk, steps, settle_every, &mut random));
        let calls = disk.take_calls();
        assert!(calls.len() > 400, "only {} calls", calls.len());
        let mut wreckage = Wreckage::new(empty.clone());
        for (at, (call, note)) in calls.into_iter().enumerate() {
            let what = format!("seed {seed}, crash before call {at}");
            let survivors = if at % 3 == 0 { None } else { Some(&mut random) };
            let image = wreckage.image(survivors);
            paused(check(image, &histories, &note, at % 29 == 0, &what));
            wreckage.push(call);
        }
    }
}

#[test]
fn a_crash_while_a_snapshot_is_replaced_leaves_the_old_or_the_new() {
    let meta =
        |index| SnapshotMeta { last: Some(LogPos { term: 1, index }), members_at: None, members: Members::default() };
    let data = |index: u64| vec![index as u8; 200_000 * index as usize];
    let disk = MemDisk::with(empty_database()).record();
    let group = GroupId(5);
    let snapshots = Snapshots::open(disk.clone(), 1 << 20).unwrap();
    for index in 1..=3 {
        disk.note(vec![index - 1, index]);
        snapshots.save(group, &meta(index), &data(index)).unwrap();
        disk.note(vec![index, index]);
    }
    let mut random = Random::new(3);
    let mut wreckage = Wreckage::new(empty_database());
    let calls = disk.take_calls();
    let last = calls.last().map(|(_, note)| note.clone()).unwrap();
    assert_eq!(last, [2, 3], "the third save is the last thing on the disk");
    for (at, (call, note)) in calls.into_iter().enumerate() {
        let survivors = if at % 2 == 0 { None } else { Some(&mut random) };
        let snapshots = Snapshots::open(MemDisk::with(wreckage.image(survivors)), 1 << 20).unwrap();
        let found = snapshots.load(group).unwrap();
        let index = found.as_ref().map_or(0, |(meta, _)| meta.last.unwrap().index);
        let (saved, begun) = note.first().map_or((0, 0), |saved| (*saved, note[1]));
        assert!((saved..=begun).contains(&index), "before call {at}: {index}, not {saved} to {begun}");
        assert!(found.is_none_or(|(_, found)| found == data(index)));
        wreckage.push(call);
    }
}
