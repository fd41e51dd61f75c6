//! How much writers must be held back: a pure function of what is left to do.
//!
//! The delay grows by the same factor for each further piece of debt, from nearly nothing to the
//! longest. As more debt means slower writers, the debt comes to rest where they are as fast as the
//! work is: there is no cliff to fall from. Stopping is for a disk that does not follow at all.

use std::time::Duration;

use crate::store::Pressure;

/// From the shortest delay to the longest it doubles so often.
const DOUBLINGS: u64 = 8;
/// Thousandths of what memtables may hold, frozen ones and the active one, from which on writers
/// are slowed down. Below it a flush takes no longer than it takes to fill the next one.
const MEMORY_SLOW: u64 = 650;

/// What is left to do of one kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Level {
    pub(crate) now: u64,
    /// Writers are slowed down beyond this,
    pub(crate) slow: u64,
    /// and stopped from here on.
    pub(crate) stop: u64,
}

impl Level {
    /// From nothing at `slow` to 1000 at `stop`.
    fn thousandths(self) -> u64 {
        let beyond = u128::from(self.now.saturating_sub(self.slow));
        let whole = u128::from(self.stop.saturating_sub(self.slow).max(1));
        (beyond * 1000 / whole).min(1000) as u64
    }
}

/// All that is left to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Debt {
    /// Memory of all memtables that is not in segments yet, and how much there may be.
    pub(crate) memory: u64,
    pub(crate) memory_max: u64,
    pub(crate) frozen: usize,
    pub(crate) frozen_max: usize,
    /// Thousandths of segments in level 0.
    pub(crate) level0: Level,
    /// Bytes that sorted levels hold beyond their targets.
    pub(crate) excess: Level,
}

impl Debt {
    pub(crate) fn pressure(&self, delay_max: Duration) -> Pressure {
        let levels = self.level0.thousandths().max(self.excess.thousandths());
        // With nothing frozen there is nothing to wait for.
        let memory = match self.frozen {
            0 => 0,
            _ => {
                let slow = self.memory_max * MEMORY_SLOW / 1000;
                Level { now: self.memory, slow, stop: self.memory_max }.thousandths()
            }
        };
        if self.frozen >= self.frozen_max || levels == 1000 {
            return Pressure::Stop;
        }
        match memory.max(levels) {
            0 => Pressure::None,
            debt => Pressure::Slow(delay(debt, delay_max)),
        }
    }
}

/// The delay at so many thousandths of the debt, from 1 to 1000.
fn delay(debt: u64, delay_max: Duration) -> Duration {
    let halvings = DOUBLINGS * (1000 - debt);
    let longer = delay_max.as_nanos() as u64 >> (halvings / 1000);
    // Between two halvings in a straight line.
    Duration::from_nanos(longer - longer * (halvings % 1000) / 2000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_micros(2560);

    fn none() -> Debt {
        let level0 = Level { now: 0, slow: 8000, stop: 16_000 };
        let excess = Level { now: 0, slow: 1 << 30, stop: 1 << 33 };
        Debt { memory: 0, memory_max: 400, frozen: 0, frozen_max: 4, level0, excess }
    }

    fn check(change: impl Fn(&mut Debt), expected: Pressure) {
        let mut debt = none();
        change(&mut debt);
        assert_eq!(debt.pressure(MAX), expected, "{debt:?}");
    }

    #[test]
    fn who_keeps_up_is_not_held_back() {
        check(|_| (), Pressure::None);
        check(|debt| debt.level0.now = 8000, Pressure::None);
        check(|debt| (debt.frozen, debt.memory) = (1, 200), Pressure::None);
        check(|debt| (debt.frozen, debt.memory) = (0, 399), Pressure::None);
        check(|debt| debt.excess.now = 1 << 30, Pressure::None);
    }

    #[test]
    fn who_does_not_follow_is_stopped() {
        check(|debt| debt.frozen = 4, Pressure::Stop);
        check(|debt| debt.level0.now = 16_000, Pressure::Stop);
        check(|debt| debt.level0.now = u64::MAX, Pressure::Stop);
        check(|debt| debt.excess.now = 1 << 33, Pressure::Stop);
    }

    #[test]
    fn between_the_two_the_delay_grows_without_a_step() {
        check(|debt| debt.level0.now = 12_000, Pressure::Slow(MAX / 16));
        check(|debt| (debt.frozen, debt.memory) = (3, 400), Pressure::Slow(MAX));
        let mut last = Duration::ZERO;
        for debt in 1..=1000 {
            let next = delay(debt, MAX);
            assert!(next >= last, "{debt}");
            assert!(debt == 1 || next.as_nanos() * 1000 <= last.as_nanos() * 1010, "{debt}");
            last = next;
        }
        assert!(delay(1, MAX) <= MAX / 250, "{:?}", delay(1, MAX));
        assert_eq!(last, MAX);
    }
}
