//! What was written and what is durable, and what a power cut leaves of the difference.

use std::ops::Range;

use bytes::Bytes;

use super::{Call, Image, PAGE, Random};

/// What a disk writes whole or not at all.
pub const SECTOR: usize = 512;

/// What a power cut leaves of the writes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survivors {
    /// None of them.
    Synced,
    /// All of them.
    All,
    /// A part in torn sectors, of this seed.
    Torn(u64),
}

/// The contents of a disk.
#[derive(Clone, Default)]
pub(crate) struct Layers {
    now: Image,
    synced: Image,
    /// Pages that the next sync makes durable.
    dirty: Vec<usize>,
    /// Mutations that no sync has made durable.
    pending: Vec<Call>,
    /// Those of which a sync failed: no later one makes them good.
    lost: Vec<Call>,
}

impl Layers {
    /// This image, durably.
    pub(crate) fn new(image: Image) -> Layers {
        Layers { synced: image.clone(), now: image, ..Layers::default() }
    }

    /// What a process reads.
    pub(crate) fn now(&self) -> &Image {
        &self.now
    }

    /// Whether everything is durable, so that a power cut leaves one image only.
    pub(crate) fn is_clean(&self) -> bool {
        self.pending.is_empty() && self.lost.is_empty()
    }

    /// The sectors that are not durable.
    pub(crate) fn torn_sectors(&self) -> usize {
        self.unsynced().map(|call| pieces(call).len()).sum()
    }

    /// Carries a call out.
    pub(crate) fn apply(&mut self, call: &Call) {
        match call {
            Call::Read(..) => {}
            Call::Sync => self.sync(),
            call => {
                self.dirty.extend(match call {
                    // What is cut off and added again later is zeros, durably, too.
                    Call::Len(len) => *len as usize / PAGE..self.now.len().max(*len as usize).div_ceil(PAGE),
                    call => pages(call),
                });
                change(&mut self.now, call);
                self.pending.push(call.clone());
            }
        }
    }

    /// Carries out as much of a call as happens where it fails: the first half of a write. What a failed sync
    /// should have made durable is lost to all later ones.
    pub(super) fn fail(&mut self, call: &Call) {
        match call {
            Call::Write(at, data) => {
                let half = data.len() / 2 / SECTOR * SECTOR;
                if half > 0 {
                    self.apply(&Call::Write(*at, data.slice(..half)));
                }
            }
            Call::Sync => {
                self.dirty.clear();
                self.lost.append(&mut self.pending);
            }
            Call::Read(..) | Call::Len(_) => {}
        }
    }

    fn sync(&mut self) {
        self.synced.set_len(self.now.len() as u64);
        for page in &self.dirty {
            self.synced.copy_page(&self.now, *page);
        }
        // A page goes to the disk whole, with whatever else stands in it.
        self.lost.retain(|call| matches!(call, Call::Write(..)) && pages(call).all(|page| !self.dirty.contains(&page)));
        self.dirty.clear();
        self.pending.clear();
    }

    pub(super) fn put(&mut self, at: u64, bytes: &[u8]) {
        self.now.write(at, bytes);
        self.synced.write(at, bytes);
    }

    pub(super) fn flip(&mut self, bit: u64) {
        self.now.flip(bit);
        self.synced.flip(bit);
    }

    fn unsynced(&self) -> impl Iterator<Item = &Call> {
        self.lost.iter().chain(&self.pending)
    }

    /// What a power cut leaves.
    pub(crate) fn survive(&self, survivors: Survivors) -> Image {
        match survivors {
            Survivors::Synced => self.synced.clone(),
            Survivors::All => self.now.clone(),
            Survivors::Torn(seed) => self.tear(&mut Random::new(seed)),
        }
    }

    /// Sectors at random, with any odds; or whole writes; or all but one write or sector; or one alone, for
    /// what goes wrong often depends on a single one.
    fn tear(&self, random: &mut Random) -> Image {
        let mut image = self.synced.clone();
        let calls: Vec<Vec<Call>> = self.unsynced().map(pieces).collect();
        let all = calls.iter().map(Vec::len).sum::<usize>() as u64;
        let (how, odds) = (random.below(8), 1 + random.below(7));
        let (one_call, one_sector) = (random.below(calls.len() as u64), random.below(all));
        let mut number = 0;
        for (at, call) in (0..).zip(&calls) {
            let whole = random.below(8) < odds;
            for piece in call {
                let survives = match how {
                    0..=2 => random.below(8) < odds,
                    3 => whole,
                    4 => at != one_call,
                    5 => at == one_call,
                    6 => number != one_sector,
                    _ => number == one_sector,
                };
                if survives {
                    change(&mut image, piece);
                }
                number += 1;
            }
        }
        image
    }
}

fn change(image: &mut Image, call: &Call) {
    match call {
        Call::Write(at, data) => image.write(*at, data),
        Call::Len(len) => image.set_len(*len),
        Call::Read(..) | Call::Sync => {}
    }
}

/// The pages that a write changes.
fn pages(call: &Call) -> Range<usize> {
    match call {
        Call::Write(at, data) => *at as usize / PAGE..(*at as usize + data.len()).div_ceil(PAGE),
        Call::Read(..) | Call::Len(_) | Call::Sync => 0..0,
    }
}

/// What of a call survives or not on its own: each sector of a write.
fn pieces(call: &Call) -> Vec<Call> {
    let Call::Write(at, data) = call else { return vec![call.clone()] };
    let mut pieces = Vec::with_capacity(data.len() / SECTOR + 1);
    let mut done = 0;
    while done < data.len() {
        let from = *at as usize + done;
        let count = (SECTOR - from % SECTOR).min(data.len() - done);
        let sector: Bytes = data.slice(done..done + count);
        pieces.push(Call::Write(from as u64, sector));
        done += count;
    }
    pieces
}
