//! The one source of chance of a run, split so that one part's draws do not shift another's.

use kvorum_replication::random::Random;

/// Draws for one part of the world.
#[derive(Clone, Debug)]
pub(crate) struct Chance(Random);

impl Chance {
    /// The draws of the part called `part` in the run of this seed.
    pub(crate) fn new(seed: u64, part: &str) -> Self {
        let mut salt = 0xcbf2_9ce4_8422_2325_u64;
        for byte in part.bytes() {
            salt = (salt ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let mut random = Random::new(seed ^ salt);
        random.next_u64();
        Self(random)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    pub(crate) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("it is below a length")
    }

    /// From `low` up to and with `high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// True so many times in a million.
    pub(crate) fn per_million(&mut self, parts: u64) -> bool {
        self.below(1_000_000) < parts
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }

    /// One of the choices, each as often as its weight says.
    pub(crate) fn weighted<T: Copy>(&mut self, choices: &[(u64, T)]) -> T {
        let mut left = self.below(choices.iter().map(|(weight, _)| weight).sum());
        for (weight, choice) in choices {
            if left < *weight {
                return *choice;
            }
            left -= weight;
        }
        unreachable!("the draw is below the sum of the weights")
    }
}
