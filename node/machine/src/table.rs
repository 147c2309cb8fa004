//! Things by key, each in a place that it keeps: found in O(1) by its key, and with no search by its
//! [`At`], which indexes and neighbours hold instead of a copy of the key.
//!
//! Places differ between replicas of equal state, for they depend on what came and went, and a restored
//! replica numbers anew. So no order but that of the keys is ever shown ([`Table::sorted`]).
//!
//! A look-up touches one slot of an open-addressed index of small numbers and then the entry itself;
//! entries lie in chunks, so growing copies the index only.

use std::{
    hash::BuildHasher,
    marker::PhantomData,
    ops::{Index, IndexMut},
    sync::LazyLock,
};

use crate::ids::*;

/// How many entries are allocated together.
const CHUNK: usize = 16;
/// The index's first size; always a power of two, and at most three quarters full.
const FIRST: usize = 8;
/// In the index: nothing here.
const NONE: u32 = u32::MAX;

/// Where an entry of a table by `K` lies, as long as it is there.
pub(crate) struct At<K>(u32, PhantomData<fn() -> K>);

impl<K> Clone for At<K> {
    fn clone(&self) -> At<K> {
        *self
    }
}

impl<K> Copy for At<K> {}

impl<K> Default for At<K> {
    /// Nowhere: what was decoded and is not placed yet.
    fn default() -> At<K> {
        At(NONE, PhantomData)
    }
}

impl<K> std::fmt::Debug for At<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "@{}", self.0)
    }
}

impl<K> PartialEq for At<K> {
    fn eq(&self, other: &At<K>) -> bool {
        self.0 == other.0
    }
}

impl<K> Eq for At<K> {}

impl<K> PartialOrd for At<K> {
    fn partial_cmp(&self, other: &At<K>) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<K> Ord for At<K> {
    fn cmp(&self, other: &At<K>) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

/// What things are found by. The hash places entries in the index and nothing else.
pub(crate) trait Keyed: Eq + Ord {
    fn hash32(&self) -> u32;
}

/// SipHash-1-3 under a key of the process's own, folded: clients choose names and session ids, and must not be
/// able to choose many that collide. The standard library's takes twice as long over so few bytes.
struct Sip([u64; 4]);

/// Chosen at random, once, so it differs between replicas: as do places, which it decides about and nothing else.
#[expect(clippy::disallowed_types, reason = "random on purpose: it decides about places, which nothing shows")]
static SECRET: LazyLock<[u64; 2]> = LazyLock::new(|| {
    let random = std::hash::RandomState::new();
    [random.hash_one(0), random.hash_one(1)]
});

impl Sip {
    fn new() -> Sip {
        let [a, b] = *SECRET;
        Sip([
            a ^ 0x736f_6d65_7073_6575,
            b ^ 0x646f_7261_6e64_6f6d,
            a ^ 0x6c79_6765_6e65_7261,
            b ^ 0x7465_6462_7974_6573,
        ])
    }

    fn round(&mut self) {
        let [a, b, c, d] = &mut self.0;
        *a = a.wrapping_add(*b);
        *c = c.wrapping_add(*d);
        *b = b.rotate_left(13) ^ *a;
        *d = d.rotate_left(16) ^ *c;
        *a = a.rotate_left(32).wrapping_add(*d);
        *c = c.wrapping_add(*b);
        *d = d.rotate_left(21) ^ *a;
        *b = b.rotate_left(17) ^ *c;
        *c = c.rotate_left(32);
    }

    fn word(&mut self, word: u64) {
        self.0[3] ^= word;
        self.round();
        self.0[0] ^= word;
    }

    fn finish(mut self) -> u32 {
        self.0[2] ^= 0xff;
        (0..3).for_each(|_| self.round());
        let all = self.0[0] ^ self.0[1] ^ self.0[2] ^ self.0[3];
        (all ^ (all >> 32)) as u32
    }
}

impl Keyed for Key {
    fn hash32(&self) -> u32 {
        let mut sip = Sip::new();
        let name = self.name.as_str().as_bytes();
        let (words, rest) = name.as_chunks::<8>();
        words.iter().for_each(|word| sip.word(u64::from_le_bytes(*word)));
        // The length keeps apart what zeros at the end would make alike.
        let rest = rest.iter().rev().fold(0, |all, byte| (all << 8) | u64::from(*byte));
        sip.word(rest | (name.len() as u64 & 0x3f) << 56 | (self.kind as u64) << 62);
        sip.finish()
    }
}

impl Keyed for SessionId {
    fn hash32(&self) -> u32 {
        let mut sip = Sip::new();
        sip.word(self.0 as u64);
        sip.word((self.0 >> 64) as u64);
        sip.finish()
    }
}

impl Keyed for Token {
    /// Tokens are the shard's own and come in a row: it is enough to spread them.
    fn hash32(&self) -> u32 {
        (self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Table<K, V> {
    /// The hash and the place of each entry, at or after the slot that the hash names.
    index: Vec<(u32, u32)>,
    chunks: Vec<Vec<Option<(K, V)>>>,
    free: Vec<u32>,
    len: usize,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Table<K, V> {
        Table { index: Vec::new(), chunks: Vec::new(), free: Vec::new(), len: 0 }
    }
}

impl<K: Keyed, V> Table<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The slot of the index in which `key` is.
    fn slot(&self, key: &K, hash: u32) -> Option<usize> {
        let mask = self.index.len().wrapping_sub(1);
        let mut slot = hash as usize & mask;
        loop {
            let (other, at) = *self.index.get(slot)?;
            if at == NONE {
                return None;
            }
            if other == hash && self.key(At(at, PhantomData)) == key {
                return Some(slot);
            }
            slot = (slot + 1) & mask;
        }
    }

    pub(crate) fn find(&self, key: &K) -> Option<At<K>> {
        let slot = self.slot(key, key.hash32())?;
        Some(At(self.index[slot].1, PhantomData))
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.find(key).map(|at| &self[at])
    }

    /// The key and the value at a place.
    pub(crate) fn entry(&self, at: At<K>) -> (&K, &V) {
        let cell = &self.chunks[at.0 as usize / CHUNK][at.0 as usize % CHUNK];
        cell.as_ref().map(|(key, value)| (key, value)).expect("a place is let go of with its entry")
    }

    /// The key and the value at a place, to change the value.
    pub(crate) fn entry_mut(&mut self, at: At<K>) -> (&K, &mut V) {
        let cell = &mut self.chunks[at.0 as usize / CHUNK][at.0 as usize % CHUNK];
        cell.as_mut().map(|(key, value)| (&*key, value)).expect("a place is let go of with its entry")
    }

    pub(crate) fn key(&self, at: At<K>) -> &K {
        self.entry(at).0
    }

    /// Enters what is not there yet.
    pub(crate) fn insert(&mut self, key: K, value: V) -> At<K> {
        let hash = key.hash32();
        assert!(self.slot(&key, hash).is_none(), "invariant 6: a key was entered into a table twice");
        if (self.len + 1) * 4 > self.index.len() * 3 {
            self.grow();
        }
        self.len += 1;
        let cell = Some((key, value));
        let at = match self.free.pop() {
            Some(at) => {
                self.chunks[at as usize / CHUNK][at as usize % CHUNK] = cell;
                at
            }
            None => {
                if self.chunks.last().is_none_or(|last| last.len() == CHUNK) {
                    self.chunks.push(Vec::with_capacity(CHUNK));
                }
                let before = self.chunks.len() - 1;
                let last = &mut self.chunks[before];
                last.push(cell);
                (before * CHUNK + last.len() - 1) as u32
            }
        };
        point(&mut self.index, hash, at);
        At(at, PhantomData)
    }

    fn grow(&mut self) {
        let mut index = vec![(0, NONE); (self.index.len() * 2).max(FIRST)];
        for (hash, at) in self.index.iter().filter(|slot| slot.1 != NONE) {
            point(&mut index, *hash, *at);
        }
        self.index = index;
    }

    /// Takes out what is at a place.
    pub(crate) fn remove(&mut self, at: At<K>) -> (K, V) {
        let key = self.key(at);
        let mut hole = self.slot(key, key.hash32()).expect("invariant 6: what is in a table is in its index");
        // What was pushed along by the leaving entry moves back, so that no search ends early.
        let mask = self.index.len() - 1;
        let mut slot = hole;
        loop {
            slot = (slot + 1) & mask;
            let (hash, other) = self.index[slot];
            if other == NONE {
                break;
            }
            let pushed = slot.wrapping_sub(hash as usize) & mask;
            if pushed >= slot.wrapping_sub(hole) & mask {
                self.index[hole] = self.index[slot];
                hole = slot;
            }
        }
        self.index[hole] = (0, NONE);
        self.len -= 1;
        self.free.push(at.0);
        self.chunks[at.0 as usize / CHUNK][at.0 as usize % CHUNK].take().expect("it was just found")
    }

    /// All entries in the order of their keys: O(n log n).
    pub(crate) fn sorted(&self) -> Vec<(&K, &V)> {
        let mut all: Vec<(&K, &V)> = self.chunks.iter().flatten().flatten().map(|(key, value)| (key, value)).collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all
    }
}

/// Enters a place into an index that has room.
fn point(index: &mut [(u32, u32)], hash: u32, at: u32) {
    let mask = index.len() - 1;
    let mut slot = hash as usize & mask;
    while index[slot].1 != NONE {
        slot = (slot + 1) & mask;
    }
    index[slot] = (hash, at);
}

impl<K: Keyed, V> Index<At<K>> for Table<K, V> {
    type Output = V;

    fn index(&self, at: At<K>) -> &V {
        self.entry(at).1
    }
}

impl<K: Keyed, V> IndexMut<At<K>> for Table<K, V> {
    fn index_mut(&mut self, at: At<K>) -> &mut V {
        self.entry_mut(at).1
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Many comings and goings on few keys, so that slots collide and entries are pushed along.
    #[test]
    fn it_agrees_with_an_ordered_map() {
        let (mut table, mut map) = (Table::default(), BTreeMap::new());
        let mut dice = 1u64;
        for step in 0..20_000u64 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let key = Token((dice >> 33) % 300);
            match table.find(&key) {
                Some(at) if dice >> 63 == 0 => {
                    assert_eq!(table.remove(at), (key, map.remove(&key).expect("both have it")));
                }
                Some(at) => assert_eq!(Some(&table[at]), map.get(&key)),
                None => {
                    assert_eq!(map.insert(key, step), None);
                    let at = table.insert(key, step);
                    assert_eq!(table.entry(at), (&key, &step));
                }
            }
            assert_eq!(table.len(), map.len());
        }
        assert_eq!(table.sorted(), map.iter().collect::<Vec<_>>());
        assert!(map.keys().all(|key| table.get(key) == map.get(key)));
        assert!(table.chunks.len() <= 300usize.div_ceil(CHUNK), "places are used again");
    }
}
