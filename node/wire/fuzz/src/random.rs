//! A small generator: the same seed, the same numbers.

/// See the module.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`, which must not be zero.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }

    /// Changes some bytes, as a fuzzer does that knows nothing: flips, interesting numbers, cuts, doublings.
    pub fn mutate(&mut self, bytes: &mut Vec<u8>) {
        const NOTABLE: [u8; 8] = [0, 1, 0x7f, 0x80, 0xff, 0xfe, b'%', b'"'];
        for _ in 0..=self.below(4) {
            if bytes.is_empty() {
                bytes.push(NOTABLE[self.below(NOTABLE.len())]);
            }
            let at = self.below(bytes.len());
            match self.below(6) {
                0 | 1 => bytes[at] ^= 1 << self.below(8),
                2 => bytes[at] = NOTABLE[self.below(NOTABLE.len())],
                3 => bytes.truncate(at),
                4 => bytes.insert(at, self.below(256) as u8),
                _ => {
                    let end = (at + 1 + self.below(16)).min(bytes.len());
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
        }
    }
}
