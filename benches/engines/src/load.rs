//! Keys and values that can be made again from a number, so that every answer can be checked.

use anyhow::{Result, ensure};

/// Keys have this many bytes.
pub(crate) const KEY_BYTES: usize = 16;

/// A key.
pub(crate) type Key = [u8; KEY_BYTES];

/// Of so many values one is compared to its last byte, the others in their first sixteen.
const THOROUGH_EVERY: u64 = 64;

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// A bijection whose results look random (the finaliser of splitmix64).
pub(crate) fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(GOLDEN);
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

/// The key with this number. No two are the same, and their order is random.
pub(crate) fn key(index: u64) -> Key {
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&mix(index).to_be_bytes());
    key[8..].copy_from_slice(&mix(!index).to_be_bytes());
    key
}

/// A key that no number below 2^63 has, and that lies among those that do.
pub(crate) fn absent_key(index: u64) -> Key {
    key(index | 1 << 63)
}

/// Fills a value: what it was put for, and then bytes that nothing can compress.
fn fill(value: &mut [u8], index: u64, generation: u64) {
    let seed = seed(index, generation);
    value[..8].copy_from_slice(&generation.to_le_bytes());
    for (at, chunk) in (1..).zip(value[8..].chunks_mut(8)) {
        chunk.copy_from_slice(&word(seed, at).to_le_bytes()[..chunk.len()]);
    }
}

fn seed(index: u64, generation: u64) -> u64 {
    mix(index ^ mix(generation))
}

fn word(seed: u64, at: u64) -> u64 {
    mix(seed.wrapping_add(at.wrapping_mul(GOLDEN)))
}

/// Checks that a value was put for this key, in this generation or a later one.
pub(crate) fn check(value: &[u8], index: u64, at_least: u64, bytes: usize) -> Result<()> {
    ensure!(value.len() == bytes, "key {index} has a value of {} bytes", value.len());
    let mut head = [0; 16];
    head.copy_from_slice(&value[..16]);
    let (generation, first) = (u128::from_le_bytes(head) as u64, u128::from_le_bytes(head) >> 64);
    let expected = word(seed(index, generation), 1);
    ensure!(first == u128::from(expected), "key {index} has the value of another key");
    ensure!(generation >= at_least, "key {index} has value {generation}, older than {at_least}");
    if mix(index ^ first as u64).is_multiple_of(THOROUGH_EVERY) {
        let mut whole = vec![0; bytes];
        fill(&mut whole, index, generation);
        ensure!(value == whole, "the value of key {index} is damaged");
    }
    Ok(())
}

/// Entries to be put together, in memory that is used again.
#[derive(Default)]
pub(crate) struct Entries {
    keys: Vec<Key>,
    values: Vec<u8>,
    value_bytes: usize,
}

impl Entries {
    /// No entries yet.
    pub(crate) fn new(value_bytes: usize) -> Entries {
        Entries { value_bytes, ..Entries::default() }
    }

    /// Forgets them.
    pub(crate) fn clear(&mut self) {
        self.keys.clear();
        self.values.clear();
    }

    /// Adds the key with this number, with the value that it has in this generation.
    pub(crate) fn push(&mut self, index: u64, generation: u64) {
        self.keys.push(key(index));
        let from = self.values.len();
        self.values.resize(from + self.value_bytes, 0);
        fill(&mut self.values[from..], index, generation);
    }

    /// Keys and values.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&Key, &[u8])> {
        self.keys.iter().zip(self.values.chunks(self.value_bytes.max(1)))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Bytes of their keys and values.
    pub(crate) fn bytes(&self) -> u64 {
        (self.keys.len() * KEY_BYTES + self.values.len()) as u64
    }
}

/// Numbers that look random and are the same in every run.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(mix(seed))
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        ((u128::from(mix(self.0)) * u128::from(end)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(index: u64, generation: u64) -> Vec<u8> {
        let mut value = vec![0; 100];
        fill(&mut value, index, generation);
        value
    }

    #[test]
    fn a_value_is_known_again_and_no_other_is_taken_for_it() {
        for index in 0..1_000 {
            check(&value(index, 3), index, 3, 100).unwrap();
            check(&value(index, 3), index, 1, 100).unwrap();
            assert!(check(&value(index, 3), index, 4, 100).is_err(), "too old");
            assert!(check(&value(index, 3), index + 1, 3, 100).is_err(), "another key's");
            assert!(check(&value(index, 3)[..99], index, 3, 100).is_err(), "cut short");
        }
    }

    #[test]
    fn some_values_are_compared_whole() {
        let is_found = |index| {
            let mut value = value(index, 0);
            value[99] ^= 1;
            check(&value, index, 0, 100).is_err()
        };
        let found = (0..6_400).filter(|&index| is_found(index)).count();
        assert!((50..200).contains(&found), "{found} of 6400");
    }

    #[test]
    fn absent_keys_are_absent() {
        let keys: std::collections::HashSet<Key> = (0..10_000).map(key).collect();
        assert_eq!(keys.len(), 10_000);
        assert!((0..10_000).all(|index| !keys.contains(&absent_key(index))));
    }
}
