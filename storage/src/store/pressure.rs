//! Holding writers back while flush and compaction have too much to do.

use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::{Inner, Store, View, lock};
use crate::compaction::{Debt, Level};

/// What a delay of [`Pressure::Slow`] is for: so many bytes of keys and values.
pub const PRESSURE_BYTES: usize = 16 << 10;

/// A flush that has written all its entries is done by so many hundredths.
const FLUSH_PERCENT: u128 = 75;

/// A shorter wait is put off until there is more of it: threads do not sleep so exactly.
const WAIT_MIN: Duration = Duration::from_micros(200);
/// No single write waits longer. Should that not be enough, memory fills up and writers stop.
const WAIT_MAX: Duration = Duration::from_millis(10);

/// Whether flush and compaction keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// They do.
    None,
    /// Not quite: wait so long for each [`PRESSURE_BYTES`] that are written. The delay grows with
    /// what there is to do.
    Slow(Duration),
    /// Take no new work until [`Store::maintain`] has caught up.
    Stop,
}

impl Store {
    /// Whether flush and compaction keep up.
    #[must_use]
    pub fn pressure(&self) -> Pressure {
        self.inner.pressure()
    }
}

impl Inner {
    pub(super) fn pressure(&self) -> Pressure {
        let view = self.view();
        self.debt(&view).pressure(self.options.slow_delay)
    }

    /// What there is left to do, that which is being done taken off as it is done.
    fn debt(&self, view: &View) -> Debt {
        let options = &self.options;
        let flush_left = view.frozen.last().map_or(0, |oldest| {
            let entries = u128::from(oldest.entries().max(1));
            let written = u128::from(self.flushed_entries.load(Relaxed)).min(entries);
            let bytes = oldest.bytes() as u128;
            // What is written has to be synced and installed yet.
            (bytes - bytes * written * FLUSH_PERCENT / entries / 100) as u64
        });
        let free = options.memtables_max.saturating_sub(view.frozen.len());
        let room = free.saturating_mul(options.memtable_bytes).saturating_sub(view.active.bytes());
        let segments = view.levels.level(0).len() as u64 * 1000;
        Debt {
            flush_left,
            room: room as u64,
            frozen: view.frozen.len(),
            frozen_max: options.memtables_max,
            level0: Level {
                now: segments.saturating_sub(self.compactions.level0_done()),
                slow: options.level0_segments_slow as u64 * 1000,
                stop: options.level0_segments_stop as u64 * 1000,
            },
            excess: Level {
                now: view.excess,
                slow: options.compaction_debt_max / 4,
                stop: options.compaction_debt_max,
            },
        }
    }
}

/// Spreads delays over those who write, however many they are.
#[derive(Default)]
pub(super) struct Throttle {
    /// When all that was let through has had its delay.
    free_at: Mutex<Option<Instant>>,
}

impl Throttle {
    /// Waits for so many bytes to have their delay, or a moment.
    pub(super) fn wait(&self, bytes: usize, delay: Duration) {
        let wait = self.reserve(Instant::now(), bytes, delay);
        if wait >= WAIT_MIN {
            std::thread::sleep(wait);
        }
    }

    fn reserve(&self, now: Instant, bytes: usize, delay: Duration) -> Duration {
        let share = delay.mul_f64(bytes as f64 / PRESSURE_BYTES as f64);
        let mut free_at = lock(&self.free_at);
        let begin = free_at.map_or(now, |free_at| free_at.max(now));
        let end = (begin + share).min(now + WAIT_MAX);
        *free_at = Some(end);
        end - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_add_up_and_none_is_too_long() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let delay = Duration::from_micros(400);
        let reserve = |after, bytes| throttle.reserve(now + after, bytes, delay);
        let none = Duration::ZERO;
        assert_eq!(reserve(none, PRESSURE_BYTES / 4), delay / 4);
        assert_eq!(reserve(none, PRESSURE_BYTES * 2), delay * 9 / 4, "behind the other");
        assert_eq!(reserve(delay, PRESSURE_BYTES), delay * 9 / 4, "some of it is over");
        assert_eq!(reserve(delay * 9, PRESSURE_BYTES), delay, "all of it is over");
        assert_eq!(reserve(delay * 9, 1 << 30), WAIT_MAX);
        assert_eq!(reserve(delay * 9, 1 << 30), WAIT_MAX);
    }
}
