//! Numbers as keys of tries.

/// Data of a trie's key: a number, all of which counts. Though nothing is matched by its beginning, a trie takes memory
/// for what it holds only; a hash map has a table from the start, of 16 bytes for each entry that it may hold
/// (`htab_map_alloc`, kernel/bpf/hashtab.c, 6.12). Two words, as the data follows a length of 4 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Number {
    low: u32,
    high: u32,
}

impl Number {
    /// Bits of a key.
    pub const BITS: u32 = u64::BITS;
}

impl From<u64> for Number {
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "two halves")]
    fn from(number: u64) -> Self {
        Self { low: number as u32, high: (number >> u32::BITS) as u32 }
    }
}
