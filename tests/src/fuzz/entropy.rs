//! Where the choices of a case come from.

use crate::engine::random::{Random, hash};

/// Choices, one after the other.
#[derive(Clone, Debug)]
pub enum Entropy<'a> {
    /// They follow from a number.
    Seeded(u64),
    /// They are given, two bytes each; when there are no more they are all the same.
    Given(&'a [u8]),
}

impl Entropy<'_> {
    /// The choices of a case of a run.
    #[must_use]
    pub fn of_case(target: &str, seed: u64, case: u64) -> Self {
        let name = target.bytes().fold(0, |sum, byte| sum * 31 + u64::from(byte));
        Self::Seeded(hash(&[name, seed, case]))
    }

    /// From 0 up to `end`, without it.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        let end = end.max(1);
        match self {
            Self::Seeded(state) => {
                let mut random = Random::new(*state);
                let next = random.next();
                *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
                next % end
            }
            Self::Given(bytes) => {
                let (taken, rest) = bytes.split_at(bytes.len().min(2));
                *bytes = rest;
                taken.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)) % end
            }
        }
    }

    /// An index into something of this length, which is not empty.
    pub(super) fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    pub(super) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}
