//! The search itself: one seed is one run, and what it compares can differ.

use super::{
    find,
    record::{LOG, Plan, Recording, SNAPSHOTS, What, record},
};
use crate::disk::{Call, Disk, Image};

fn plan(seed: u64) -> Plan {
    Plan { seed, steps: 80, two_phase: false, restarts: true, failure: None }
}

fn calls(recording: &Recording) -> Vec<String> {
    let crc = |bytes: &[u8]| crc32c::crc32c(bytes);
    let told = recording.events.iter().map(|event| match &event.what {
        What::Call(file, Call::Write(at, data)) => format!("{file} {at} {} {:?}", crc(data), event.moment),
        What::Call(file, call) => format!("{file} {:?} {call:?} {:?}", event.point, event.moment),
        What::PowerOff(images) => format!("off {:?}", images.each_ref().map(|image| crc(&image.to_bytes()))),
    });
    told.collect()
}

#[test]
fn a_seed_makes_the_same_calls_every_time_and_another_seed_others() {
    for seed in 1..5 {
        let (one, again) = (record(&plan(seed)).unwrap(), record(&plan(seed)).unwrap());
        assert!(calls(&one) == calls(&again), "seed {seed} made two runs");
        assert!(calls(&one) != calls(&record(&plan(seed + 10)).unwrap()));
    }
}

#[test]
fn a_disk_from_which_something_is_missing_is_told_from_one_that_is_whole() {
    let recording = record(&plan(1)).unwrap();
    let options = recording.plan.options();
    let read = |images: [&Image; 2]| find::Found {
        log: find::open_log(images[LOG], &options).unwrap(),
        snapshots: find::open_snapshots(images[SNAPSHOTS]).unwrap(),
    };
    let images = recording.disks.each_ref().map(Disk::image);
    let (expected, end) = (&recording.expected, &recording.end);
    read([&images[LOG], &images[SNAPSHOTS]]).check(expected, end).unwrap();
    let [log, snapshots] = &recording.base;
    for lost in [[log, &images[SNAPSHOTS]], [&images[LOG], snapshots], [log, snapshots]] {
        assert!(read(lost).check(expected, end).is_err());
    }
    // Views that were left one after the other do not fit together.
    let mut mixed = read([&images[LOG], &images[SNAPSHOTS]]);
    mixed.log.groups[1].0.vote = mixed.log.groups[2].0.vote;
    assert!(mixed.check(expected, end).is_err());
    let mut ahead = read([&images[LOG], &images[SNAPSHOTS]]);
    let beyond = |index| wardlock::raft::types::pos_from_wire(wardlock_wire::raft::LogPos { term: 1, index });
    ahead.log.groups[1].1 = Some(beyond(1 << 40));
    assert!(ahead.check(expected, end).is_err());
}
