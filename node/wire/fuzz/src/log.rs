//! What comes from the disk: the log's rows, its marks, its whole file, the snapshots' descriptions.

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Unstructured};
use wardlock::disk::{
    log::inspect::{self, Said},
    snapshots,
};
use wardlock_placement::GroupId;

use crate::{
    image::{self, Base, EMPTY, MemDisk, USED, View},
    within,
};

/// The bound of [`within`] for what lies on the disk: as much as it has, some times over.
fn ample(length: usize) -> usize {
    40 * length + (2 << 20)
}

/// A sealed value without its seal, and the key that it stands under: `kind · position · key · value`. An even
/// kind has the seal made right, so that what lies behind the checksum is reached.
fn sealed(data: &[u8]) -> Option<(bool, usize, u64, Vec<u8>)> {
    let [kind, position, key, value @ ..] = data else { return None };
    let (is_sealed, key) = (kind % 2 == 0, u64::from(*key));
    let value = if is_sealed { inspect::seal(key, value) } else { value.to_vec() };
    Some((is_sealed, usize::from(*position), key, value))
}

/// Whether the last four bytes are the checksum of the others under the key, by the format's words.
fn has_checksum(key: u64, value: &[u8]) -> bool {
    let Some((body, sum)) = value.split_last_chunk::<4>() else { return false };
    crc32c::crc32c(&[&key.to_le_bytes(), body].concat()).to_le_bytes() == *sum
}

/// A row.
///
/// It is refused or says the same when it is written again, byte for byte. Nothing is said by a row whose
/// checksum is not right, nor by one of which a byte was changed, nor under another number.
pub fn rows(data: &[u8]) {
    let Some((_, position, row, value)) = sealed(data) else { return };
    let read = within(ample(value.len()), "reading a row", || inspect::read(row, &value));
    let Ok(said) = read else { return };
    assert!(has_checksum(row, &value), "a row was read whose checksum is wrong");
    assert_eq!(inspect::write(row, &said).as_ref(), Ok(&value), "a row says more or less than it holds");
    assert!(inspect::read(row + 1, &value).is_err(), "a row stood in for another");
    let mut damaged = value;
    let at = position % damaged.len();
    damaged[at] ^= 0x10;
    assert!(inspect::read(row, &damaged).is_err(), "a damaged row was read");
}

/// A group's marks.
///
/// They are refused or the same when they are written and read again.
pub fn marks(data: &[u8]) {
    let Some((_, position, group, value)) = sealed(data) else { return };
    let group = GroupId(group as u32);
    let Ok(again) = inspect::marks(group, &value) else { return };
    assert!(has_checksum(group.0.into(), &value), "marks were read whose checksum is wrong");
    assert_eq!(inspect::marks(group, &again).as_ref(), Ok(&again));
    assert!(inspect::marks(GroupId(group.0 + 1), &value).is_err(), "marks stood in for another group's");
    let mut damaged = value;
    let at = position % damaged.len();
    damaged[at] ^= 0x10;
    assert!(inspect::marks(group, &damaged).is_err(), "damaged marks were read");
}

/// What stands beside a snapshot's chunks.
///
/// It is refused, or its checksum is right; a changed byte is noticed.
pub fn snapshot_records(data: &[u8]) {
    let Some((_, position, group, value)) = sealed(data) else { return };
    let group = GroupId(group as u32);
    let read = within(ample(value.len()), "reading a description", || snapshots::inspect(group, &value));
    if read.is_err() {
        return;
    }
    assert!(has_checksum(group.0.into(), &value), "a description was read whose checksum is wrong");
    let mut damaged = value;
    let at = position % damaged.len();
    damaged[at] ^= 0x10;
    assert!(snapshots::inspect(group, &damaged).is_err(), "a damaged description was read");
}

/// A record of a row that somebody made up.
#[derive(Arbitrary, Clone, Debug)]
enum Made {
    Entries { group: u8, first: Index, lengths: Vec<u8> },
    Truncate { group: u8, from: Index },
    Reset { group: u8, first: Index, lengths: Vec<u8> },
}

/// Mostly an index that could be.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Index {
    /// Behind the last that the group was given.
    Next,
    Small(u8),
    FromEnd(u8),
    Any(u64),
}

impl Index {
    fn value(self, next: u64) -> u64 {
        match self {
            Index::Next => next,
            Index::Small(n) => n.into(),
            Index::FromEnd(n) => u64::MAX - u64::from(n),
            Index::Any(n) => n,
        }
    }
}

/// Whole rows with right checksums, as no log would write them, in the journal of a log's file.
///
/// The log refuses to open, or it opens and works: what it shows hangs together, it takes entries, moves idle
/// groups, and shows the same when it is opened again.
pub fn replay(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let (base, mut next): (&Base, BTreeMap<u8, u64>) = match input.arbitrary().unwrap_or(false) {
        true => (&USED, BTreeMap::from([(1, 8), (2, 6)])),
        false => (&EMPTY, BTreeMap::new()),
    };
    let mut rows = Vec::new();
    while rows.len() < image::JOURNAL_PAGES as usize && !input.is_empty() {
        let Ok(made) = input.arbitrary::<Vec<Made>>() else { break };
        let said: Vec<Said> = made.iter().take(16).map(|made| said(made, &mut next)).collect();
        let row = base.next_row + rows.len() as u64;
        rows.push(inspect::write(row, &said).expect("a small row"));
    }
    let disk = MemDisk::with(base.with_rows(base.next_row, &rows));
    open_and_use(disk);
}

fn said(made: &Made, next: &mut BTreeMap<u8, u64>) -> Said {
    let mut entries = |group: u8, first: Index, lengths: &[u8]| {
        let end = next.entry(group).or_default();
        let first = first.value(*end);
        let lengths = &lengths[..lengths.len().min(20)];
        let entries = lengths.iter().enumerate();
        // Some entries say another index than theirs, or are none at all.
        let entries: Vec<Vec<u8>> = entries
            .map(|(at, length)| match length {
                255 => vec![0xff; 3],
                length => image::encoded(3, first.wrapping_add(at as u64), usize::from(*length % 64)),
            })
            .collect();
        *end = first.wrapping_add(entries.len() as u64);
        (GroupId(group.into()), first, entries)
    };
    match made {
        Made::Entries { group, first, lengths } => {
            let (group, first, entries) = entries(group % 4, *first, lengths);
            Said::Entries { group, first, entries }
        }
        Made::Reset { group, first, lengths } => {
            let (group, first, entries) = entries(group % 4, *first, lengths);
            Said::Reset { group, first, entries }
        }
        Made::Truncate { group, from } => {
            let group = group % 4;
            let end = next.entry(group).or_default();
            let from = from.value(*end);
            *end = from.min(*end);
            Said::Truncate { group: GroupId(group.into()), from }
        }
    }
}

/// A change of a file.
#[derive(Arbitrary, Debug)]
struct Edit {
    at: Place,
    bytes: Bytes,
}

#[derive(Arbitrary, Debug)]
enum Place {
    /// In one of the first pages: the header and the journal.
    Front { page: u8, at: u16 },
    /// In one of the database's pages.
    Behind { page: u16, at: u16 },
}

#[derive(Arbitrary, Debug)]
enum Bytes {
    Flip(u8),
    Some(Vec<u8>),
    /// A whole page of one byte.
    Page(u8),
    /// The page is the copy of another.
    Copy(u8),
    /// The file ends here.
    End,
}

/// A log's file with something changed in it.
///
/// The log refuses to open, or opens and works, as with [`replay`].
pub fn images(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut bytes = USED.bytes.clone();
    for _ in 0..8 {
        let Ok(edit) = input.arbitrary::<Edit>() else { break };
        change(&mut bytes, &edit);
        if input.is_empty() {
            break;
        }
    }
    open_and_use(MemDisk::with(bytes));
}

fn change(file: &mut Vec<u8>, edit: &Edit) {
    let at = match edit.at {
        Place::Front { page, at } => usize::from(page % 8) * image::PAGE + usize::from(at) % image::PAGE,
        Place::Behind { page, at } => usize::from(page) * image::PAGE + usize::from(at) % image::PAGE,
    };
    if file.is_empty() {
        return;
    }
    let at = at % file.len();
    let page = at - at % image::PAGE;
    let end = (page + image::PAGE).min(file.len());
    match &edit.bytes {
        Bytes::Flip(bit) => file[at] ^= 1 << (bit % 8),
        Bytes::Some(some) => {
            let end = (at + some.len()).min(file.len());
            file[at..end].copy_from_slice(&some[..end - at]);
        }
        Bytes::Page(byte) => file[page..end].fill(*byte),
        Bytes::Copy(of) => {
            let from = usize::from(*of) * image::PAGE % file.len();
            let piece = file[from..(from + image::PAGE).min(file.len())].to_vec();
            let length = piece.len().min(end - page);
            file[page..page + length].copy_from_slice(&piece[..length]);
        }
        Bytes::End => file.truncate(at),
    }
}

/// Opens the log on a disk; where it opens, uses it.
fn open_and_use(disk: MemDisk) {
    let size = disk.bytes().len();
    let opened = within(8 * size + (24 << 20), "opening a log", || image::open(&disk, image::options()));
    let Ok((log, writer)) = opened else { return };
    let shown = image::run(async {
        let writing = tokio::spawn(writer.run());
        // A quiet group's entries are moved while another's come in.
        for round in 0..3 {
            for id in log.groups().into_iter().chain([GroupId(9)]) {
                let mut group = log.group(id);
                let before = image::view(&mut group).await;
                let last = before.entries.last().map(|entry| entry.log_id).or(before.purged);
                let next = last.map_or(Some(0), |last| last.index.checked_add(1)).filter(|next| *next < 1 << 60);
                // A log that stands at the end of all numbers has no next entry.
                let Some(next) = next else { continue };
                if round % 2 == id.0 % 2 {
                    image::append(&mut group, vec![image::entry(1 << 40, next, 9)])
                        .await
                        .expect("an open log takes it");
                }
            }
        }
        let shown = views(&log).await;
        log.close();
        writing.await.expect("the writer ends");
        shown
    });
    let (again, _writer) = image::open(&disk, image::options()).expect("what was open opens again");
    let shown_again = image::run(views(&again));
    assert_eq!(shown_again, shown, "a log shows something else when it is opened again");
}

async fn views(log: &wardlock::disk::log::SharedLog) -> BTreeMap<GroupId, View> {
    let mut all = BTreeMap::new();
    for id in log.groups() {
        let view = image::view(&mut log.group(id)).await;
        // A group that has nothing is as good as none.
        if view.vote.is_some() || view.purged.is_some() || !view.entries.is_empty() {
            all.insert(id, view);
        }
    }
    all
}
