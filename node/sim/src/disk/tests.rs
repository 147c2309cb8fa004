//! The disk keeps its own promises, or nothing that is proved on it holds.

use std::collections::BTreeSet;

use super::*;

fn write(disk: &Disk, at: u64, byte: u8, len: usize) {
    disk.write(at, &vec![byte; len]).unwrap();
}

fn found(image: &Disk, at: usize) -> u8 {
    image.bytes()[at]
}

#[test]
fn a_power_cut_keeps_what_was_synced_and_any_part_of_the_rest() {
    let disk = Disk::default();
    write(&disk, 0, 1, 2 * PAGE);
    disk.sync_data().unwrap();
    write(&disk, 100, 2, PAGE);
    assert_eq!(found(&disk, 100), 2, "what was written is read back");
    let survivor = |survivors| Disk::from(disk.survive(survivors));
    assert_eq!(found(&survivor(Survivors::Synced), 100), 1);
    assert_eq!(survivor(Survivors::All).bytes(), disk.bytes());
    let mut torn = 0;
    for seed in 0..100 {
        let bytes = survivor(Survivors::Torn(seed)).bytes();
        assert_eq!((bytes.len(), bytes[99], bytes[100 + PAGE]), (2 * PAGE, 1, 1));
        for sector in bytes.chunks(SECTOR).skip(1).take(7) {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector never tears");
        }
        let new = bytes[100..100 + PAGE].iter().filter(|byte| **byte == 2).count();
        torn += u32::from(new > 0 && new < PAGE);
        assert_eq!(bytes, survivor(Survivors::Torn(seed)).bytes(), "the same seed leaves the same bytes");
    }
    assert!(torn > 50, "only {torn} of 100 were torn");
}

#[test]
fn an_older_write_may_survive_a_newer_one_to_the_same_place() {
    let disk = Disk::with(vec![0; PAGE]);
    write(&disk, 0, 1, SECTOR);
    write(&disk, 0, 2, SECTOR);
    let found: BTreeSet<u8> = (0..64).map(|seed| disk.survive(Survivors::Torn(seed)).to_bytes()[0]).collect();
    assert_eq!(found, BTreeSet::from([0, 1, 2]));
}

#[test]
fn after_a_power_cut_the_old_handle_is_dead_and_the_new_one_whole() {
    let disk = Disk::with(vec![7; 10]);
    let clone = disk.clone();
    let next = disk.power_off(Survivors::Synced);
    assert!(clone.write(0, b"late").is_err() && clone.read(0, &mut [0]).is_err() && clone.sync_data().is_err());
    assert_eq!(next.bytes(), vec![7; 10]);
    write(&next, 0, 1, 1);
    assert_eq!((found(&next, 0), found(&clone, 0)), (1, 7));
}

#[test]
fn a_killed_process_leaves_its_writes_but_not_their_durability() {
    let disk = Disk::with(vec![0; PAGE]);
    write(&disk, 0, 1, PAGE);
    let next = disk.kill();
    assert_eq!(found(&next, 0), 1);
    assert!(disk.write(0, b"late").is_err());
    assert_eq!(found(&next.power_off(Survivors::Synced), 0), 0);
}

#[test]
fn failures_hit_the_calls_that_were_chosen() {
    let disk = Disk::with(vec![0; 4 * PAGE]);
    disk.fail(Failure::Io(1..2));
    disk.fail(Failure::Full(3..5));
    disk.fail(Failure::Read(1..2));
    let mut byte = [0];
    assert!(disk.read(0, &mut byte).is_ok());
    assert_eq!(disk.read(0, &mut byte).unwrap_err().raw_os_error(), Some(EIO));
    assert!(disk.read(0, &mut byte).is_ok());
    assert!(disk.sync_data().is_ok());
    assert_eq!(disk.sync_data().unwrap_err().raw_os_error(), Some(EIO));
    assert!(disk.write(0, &[1; PAGE]).is_ok());
    assert_eq!(disk.write(0, &[2; PAGE]).unwrap_err().raw_os_error(), Some(ENOSPC));
    assert_eq!((found(&disk, PAGE / 2 - 1), found(&disk, PAGE / 2)), (2, 1), "half of it was written");
    assert!(disk.sync_data().is_ok(), "a full disk still syncs");
    assert!(disk.write(0, &[3; PAGE]).is_ok(), "it was full for a while");
    assert_eq!((disk.count(), disk.reads()), (6, 3));
    disk.bound(Some(4 * PAGE as u64));
    assert!(disk.write(3 * PAGE as u64, &[4; PAGE]).is_ok());
    assert_eq!(disk.set_len(5 * PAGE as u64).unwrap_err().raw_os_error(), Some(ENOSPC));
    assert_eq!(disk.write(4 * PAGE as u64, &[4]).unwrap_err().raw_os_error(), Some(ENOSPC));
}

#[test]
fn a_sync_that_failed_is_not_made_good_by_the_next() {
    let disk = Disk::with(vec![0; 3 * PAGE]);
    write(&disk, 0, 1, PAGE);
    disk.fail(Failure::Io(1..2));
    assert!(disk.sync_data().is_err());
    write(&disk, PAGE as u64, 2, PAGE);
    disk.sync_data().unwrap();
    let after = disk.survive(Survivors::Synced).to_bytes();
    assert_eq!((after[0], after[PAGE]), (0, 2), "the first write can be read and is lost all the same");
    assert_eq!(found(&disk, 0), 1);
    assert!((0..64).any(|seed| disk.survive(Survivors::Torn(seed)).to_bytes()[0] == 1), "or the disk had it");
    write(&disk, 8, 3, 1);
    disk.sync_data().unwrap();
    assert_eq!(disk.survive(Survivors::Synced).to_bytes()[0], 1, "written again, it is synced");
}

#[test]
fn lengths_are_kept_and_new_bytes_are_zeros() {
    let disk = Disk::with(vec![9; PAGE + 10]);
    disk.set_len(PAGE as u64 + 5).unwrap();
    disk.set_len(3 * PAGE as u64).unwrap();
    disk.sync_data().unwrap();
    for bytes in [disk.bytes(), disk.survive(Survivors::Synced).to_bytes()] {
        assert_eq!((bytes.len(), bytes[PAGE + 4], bytes[PAGE + 5], bytes[2 * PAGE]), (3 * PAGE, 9, 0, 0));
    }
    let mut out = [0; 2];
    assert!(disk.read(3 * PAGE as u64 - 1, &mut out).is_err(), "beyond the end");
    disk.flip(8 * 3 + 1);
    assert_eq!((found(&disk, 2), found(&disk, 3)), (9, 9 ^ 2));
    disk.put(PAGE as u64 - 1, &[5, 5]);
    assert_eq!(found(&disk.power_off(Survivors::Synced), PAGE), 5);
}

#[test]
fn a_watch_sees_each_call_before_it_happens() {
    let disk = Disk::with(vec![0; 8]);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (log, handle) = (Arc::clone(&seen), disk.clone());
    disk.watch(Arc::new(move |call| log.lock().unwrap().push((call.clone(), handle.image().to_bytes()[0]))));
    disk.write(0, &[1]).unwrap();
    disk.sync_data().unwrap();
    disk.read(0, &mut [0; 2]).unwrap();
    let expected = [(Call::Write(0, Bytes::from_static(&[1])), 0), (Call::Sync, 1), (Call::Read(0, 2), 1)];
    assert_eq!(*seen.lock().unwrap(), expected);
}
