//! Randomness, for everything in a process that draws any: the operating system's, or, on a thread that was
//! seeded, a seed's.
//!
//! A simulated cluster runs on one thread, and one seed must give one run. What draws there is spread wide (ids,
//! pauses, election timeouts, the order in which a map is walked) and part of it lies in the consensus library,
//! which takes its source from a type and not from an argument. So the seed is the thread's.

use std::{cell::RefCell, convert::Infallible, hash::BuildHasher};

use rand::{
    Rng, RngExt, SeedableRng, TryRng,
    distr::{
        Distribution, StandardUniform,
        uniform::{SampleRange, SampleUniform},
    },
    rngs::StdRng,
};
use siphasher::sip::SipHasher13;

thread_local! {
    static SEEDED: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// From here on this thread draws from the seed, in tasks and runtimes that begin on it too.
pub fn seed(seed: u64) {
    SEEDED.set(Some(StdRng::seed_from_u64(seed)));
}

/// Whether this thread was seeded: then it is alone in its cluster, and its time is not real.
pub fn is_seeded() -> bool {
    SEEDED.with_borrow(Option::is_some)
}

/// This thread's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct Source;

/// Any value.
pub fn any<T>() -> T
where
    StandardUniform: Distribution<T>,
{
    Source.random()
}

/// A value of this range. It must not be empty.
pub fn within<T: SampleUniform>(range: impl SampleRange<T>) -> T {
    Source.random_range(range)
}

impl Source {
    fn draw<T>(draw: impl FnOnce(&mut dyn Rng) -> T) -> Result<T, Infallible> {
        SEEDED.with_borrow_mut(|seeded| match seeded {
            Some(seeded) => Ok(draw(seeded)),
            None => Ok(draw(&mut rand::rng())),
        })
    }
}

impl TryRng for Source {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Source::draw(|from| from.next_u32())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Source::draw(|from| from.next_u64())
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        Source::draw(|from| from.fill_bytes(out))
    }
}

/// Hashes under a key of its own, which nobody outside can guess: what `std` does, from this thread's randomness.
#[derive(Clone, Debug)]
pub struct Hashing(u64, u64);

impl Default for Hashing {
    fn default() -> Hashing {
        Hashing(any(), any())
    }
}

impl BuildHasher for Hashing {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

/// A hash map whose order nobody outside can guess, and a seed repeats.
pub type Map<K, V> = std::collections::HashMap<K, V, Hashing>;
/// A hash set likewise.
pub type Set<K> = std::collections::HashSet<K, Hashing>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence_and_one_order() {
        let run = |with: u64| {
            std::thread::spawn(move || {
                seed(with);
                let map: Map<u32, u32> = (0..100).map(|n| (n, n)).collect();
                (any::<u128>(), map.into_keys().collect::<Vec<_>>())
            })
            .join()
            .expect("no panic")
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn a_thread_without_a_seed_repeats_nothing() {
        assert_ne!(any::<u128>(), any::<u128>());
        assert!(!is_seeded());
    }
}
