//! Hashing for tables that a core looks things up in and never goes through. It depends on the
//! core's seed alone, so that the same inputs have the same effects, and whoever does not know the
//! seed does not know which keys collide.

use core::hash::{BuildHasher, Hasher};

/// A map by hash. Its order means nothing: nothing may be read off it that has an effect.
pub(crate) type Hashed<K, V> = hashbrown::HashMap<K, V, Seeded>;

/// An odd number without a pattern: the golden ratio's fraction.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Makes the hashers of one table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seeded(u64);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        // The seed of a core is used for other things as well.
        Self(fold(seed ^ 0x6a09_e667_f3bc_c909))
    }
}

impl BuildHasher for Seeded {
    type Hasher = Folding;

    fn build_hasher(&self) -> Folding {
        Folding(self.0)
    }
}

/// Takes eight bytes at a time, folding a product of 128 bits over each.
#[derive(Clone, Debug)]
pub(crate) struct Folding(u64);

impl Hasher for Folding {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.write_u64(u64::from_le_bytes(*word));
        }
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            self.write_u64(u64::from_le_bytes(last));
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(u64::from(byte));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = fold(self.0 ^ number);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

fn fold(number: u64) -> u64 {
    // Without the addition zero would stay zero whatever follows.
    let product = u128::from(number.wrapping_add(FACTOR)) * u128::from(FACTOR);
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;
    use alloc::format;

    use bytes::Bytes;

    use super::*;

    #[test]
    fn keys_that_differ_little_are_spread() {
        for seed in [0, 1, u64::MAX] {
            let seeded = Seeded::new(seed);
            let hash = |name: &str| seeded.hash_one(Bytes::copy_from_slice(name.as_bytes()));
            let keys = (0..4096).map(|number| format!("key{number:013}"));
            let hashes: BTreeSet<u64> = keys.map(|key| hash(&key)).collect();
            assert_eq!(hashes.len(), 4096);
            // The table takes its places from the lowest bits and its tags from the highest seven.
            let low: BTreeSet<u64> = hashes.iter().map(|hash| hash & 0xfff).collect();
            let high: BTreeSet<u64> = hashes.iter().map(|hash| hash >> 57).collect();
            assert!(low.len() > 2400, "{} of 4096 places", low.len());
            assert_eq!(high.len(), 128);
            assert_ne!(hash("a"), hash("a\0"));
            assert_ne!(hash(""), hash("\0"));
        }
    }

    #[test]
    fn another_seed_is_another_hash() {
        let hash = |seed| Seeded::new(seed).hash_one(7_u64);
        assert_eq!(hash(1), hash(1));
        assert_ne!(hash(1), hash(2));
    }
}
