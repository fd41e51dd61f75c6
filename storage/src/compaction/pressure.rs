//! How much writers must be held back: a pure function of what is left to do.
//!
//! The delay grows by the same factor for each further piece of debt, from nearly nothing to the
//! longest. As more debt means slower writers, the debt comes to rest where they are as fast as the
//! work is: there is no cliff to fall from. Stopping is for a disk that does not follow at all.

use std::time::Duration;

use crate::store::Pressure;

/// From the shortest delay to the longest it doubles so often.
const DOUBLINGS: u64 = 8;
/// Writers are slowed down when the flush under way has more left to write than memory has room
/// for: were they as fast as it is, they would be stopped before its end.
const MEMORY: Level = Level { now: 0, slow: 500, stop: 1000 };

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
    /// Memory of the oldest frozen memtable that its flush has yet to write.
    pub(crate) flush_left: u64,
    /// Memory that can be filled before there are too many frozen memtables.
    pub(crate) room: u64,
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
        let both = u128::from(self.flush_left) + u128::from(self.room);
        let now = (u128::from(self.flush_left) * 1000 / both.max(1)) as u64;
        let memory = Level { now, ..MEMORY }.thousandths();
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
        Debt { flush_left: 0, room: 400, frozen: 0, frozen_max: 4, level0, excess }
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
        check(|debt| (debt.room, debt.flush_left) = (100, 100), Pressure::None);
        check(|debt| debt.room = 0, Pressure::None);
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
        check(|debt| (debt.room, debt.flush_left) = (100, 300), Pressure::Slow(MAX / 16));
        check(|debt| (debt.room, debt.flush_left) = (0, 100), Pressure::Slow(MAX));
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
