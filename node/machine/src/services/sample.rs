//! A few instances of a service, drawn by weight.
//!
//! Each healthy instance gets a number that is distributed exponentially with its weight as the rate, and the least
//! numbers are taken: so the first is drawn with probability by weight, the second likewise from those that are left,
//! and so on (Efraimidis and Spirakis, *Weighted random sampling with a reservoir*, 2006). The chance in the numbers
//! comes from a hash of the asker's seed and the instance's id, and the logarithm is reckoned in integers: the same
//! state and the same seed give the same sample on every machine.

use std::collections::BinaryHeap;

use super::{Instance, Service};
use crate::{ids::Name, planted};

/// How many bits the logarithm has behind its point.
const FRACTION: u32 = 24;

impl Service {
    /// At most `count` healthy instances; of weight 0 only where no others are left. The first drawn comes first.
    pub(super) fn sample(&self, count: usize, seed: u64) -> Vec<(&Name, &Instance)> {
        let healthy = self.instances.iter();
        let healthy = healthy.filter(|(_, instance)| instance.health.is_healthy() || planted!("sample-ignores-health"));
        // The greatest on top, to be put out by a lesser one.
        let mut drawn: BinaryHeap<(bool, u64, &Name)> = BinaryHeap::with_capacity(count + 1);
        for (id, instance) in healthy {
            let weight = instance.spec.weight;
            drawn.push((weight == 0, wait(hash(seed, id), weight.max(1)), id));
            if drawn.len() > count {
                drawn.pop();
            }
        }
        drawn.into_sorted_vec().into_iter().map(|(_, _, id)| (id, &self.instances[id])).collect()
    }
}

/// −log₂(chance / 2⁶⁴) / weight, scaled up.
fn wait(chance: u64, weight: u16) -> u64 {
    let chance = chance.max(1);
    let zeros = chance.leading_zeros();
    // In [1, 2), with 63 bits behind the point; squaring it moves the next bit of its logarithm before the point.
    let mut mantissa = chance << zeros;
    let mut log = u64::from(63 - zeros);
    for _ in 0..FRACTION {
        let square = (u128::from(mantissa) * u128::from(mantissa)) >> 63;
        let bit = (square >> 64) as u64;
        mantissa = (square >> bit) as u64;
        log = log << 1 | bit;
    }
    let below = (64 << FRACTION) - log;
    (below << (63 - 7 - FRACTION)) / u64::from(weight)
}

/// FNV-1a of the id, mixed with the seed as MurmurHash3 ends.
fn hash(seed: u64, id: &Name) -> u64 {
    let bytes = id.as_str().bytes();
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mix = |hash: u64| {
        let hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        let hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^ hash >> 33
    };
    mix(mix(seed ^ 0x9e37_79b9_7f4a_7c15) ^ hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_one() {
        let scale = 2f64.powi(63 - 7);
        for chance in [1, 2, 3, 12_345, 1 << 33, u64::MAX / 3, u64::MAX - 1, u64::MAX] {
            let exact = 64.0 - (chance as f64).log2();
            let is = wait(chance, 1) as f64 / scale;
            assert!((is - exact).abs() < 1e-6, "{is} for {exact}");
        }
    }
}
