//! Maps by number that need no hash of every byte.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

/// A map whose keys are numbers, some of which the other side chooses.
pub(crate) type NumberMap<K, V> = HashMap<K, V, Numbers>;

/// Hashes a number by multiplying it with one that nobody else knows, who could else make up
/// numbers that collide.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    odd: u64,
}

impl Default for Numbers {
    fn default() -> Self {
        Self { odd: RandomState::new().build_hasher().finish() | 1 }
    }
}

impl BuildHasher for Numbers {
    type Hasher = NumberHasher;

    fn build_hasher(&self) -> NumberHasher {
        NumberHasher { odd: self.odd, hash: self.odd }
    }
}

/// See [`Numbers`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct NumberHasher {
    odd: u64,
    hash: u64,
}

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    /// Both halves of the product, so that every bit of the number is in every bit of the hash.
    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.hash ^ number) * u128::from(self.odd);
        self.hash = product as u64 ^ (product >> 64) as u64;
    }

    fn finish(&self) -> u64 {
        self.hash
    }
}
