//! Numbers that are the same for the same seed.

/// xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled", 2016).
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// The sequence `stream` of a seed.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        // Neighbouring seeds would begin alike, and 0 would stay 0.
        let mixed = seed.wrapping_add(stream.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut random = Self(mixed ^ 0xd1b5_4a32_d192_ed03 | 1);
        for _ in 0..8 {
            random.next();
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }

    /// A number below `end`, which is not 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// One of `all`.
    pub(super) fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        let index = usize::try_from(self.below(all.len() as u64)).unwrap_or_default();
        &all[index]
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn seeds_decide_and_every_value_comes() {
        let take = |seed, stream| -> Vec<u64> {
            let mut random = Random::new(seed, stream);
            (0..100).map(|_| random.below(10)).collect()
        };
        assert_eq!(take(1, 0), take(1, 0));
        assert_ne!(take(1, 0), take(2, 0));
        assert_ne!(take(1, 0), take(1, 1));
        assert!((0..10).all(|value| take(0, 0).contains(&value)));
    }
}
