//! When operations are to begin, if the load has a rate of its own.

use kvorum_replication::random::Random;

use super::distribution::fraction;

const NANOS_PER_SECOND: f64 = 1e9;

/// What makes the next operation begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// The answer to the one before (closed loop).
    Closed,
    /// The clock, whatever became of those before (open loop).
    Open {
        /// Operations a second.
        rate: f64,
        /// How they are apart.
        arrivals: Arrivals,
    },
}

/// How the operations of an open loop are apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// All by the same time.
    Fixed,
    /// As those of many who do not know of each other: exponentially distributed.
    Poisson,
}

/// The times at which the operations of one thread are to begin. Nothing is kept of those that are
/// due and have not begun: an operation that begins late still has its time, however many there are.
#[derive(Debug)]
pub(super) struct Schedule {
    gap_nanos: f64,
    arrivals: Arrivals,
    random: Random,
    next_nanos: f64,
    end_nanos: u64,
}

impl Schedule {
    /// So many operations a second from `begin` to before `end`. The first comes after a part of a
    /// gap that is another one for each of several threads.
    pub(super) fn new(
        rate: f64,
        arrivals: Arrivals,
        mut random: Random,
        begin_nanos: u64,
        end_nanos: u64,
    ) -> Self {
        let gap_nanos = NANOS_PER_SECOND / rate;
        let next_nanos = as_float(begin_nanos) + fraction(&mut random) * gap_nanos;
        Self { gap_nanos, arrivals, random, next_nanos, end_nanos }
    }

    /// When the next is to begin; none if there is no more.
    pub(super) fn next_at(&self) -> Option<u64> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not below 0")]
        let next = self.next_nanos as u64;
        (next < self.end_nanos).then_some(next)
    }

    /// The time of the next if it has come; then the one behind it is the next.
    pub(super) fn take(&mut self, now_nanos: u64) -> Option<u64> {
        let next = self.next_at().filter(|next| *next <= now_nanos)?;
        self.next_nanos += match self.arrivals {
            Arrivals::Fixed => self.gap_nanos,
            Arrivals::Poisson => -(1.0 - fraction(&mut self.random)).ln() * self.gap_nanos,
        };
        Some(next)
    }

    /// Takes all that are left, and counts those not before `from`.
    pub(super) fn take_rest(&mut self, now_nanos: u64, from_nanos: u64) -> u64 {
        let rest = std::iter::from_fn(|| self.take(now_nanos));
        let count = rest.filter(|at| *at >= from_nanos).count() as u64;
        self.end_nanos = 0;
        count
    }
}

#[expect(clippy::cast_precision_loss, reason = "a load of a hundred days has 2^53 nanoseconds")]
fn as_float(nanos: u64) -> f64 {
    nanos as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn all(rate: f64, arrivals: Arrivals, seconds: u64) -> Vec<u64> {
        let begin = 7 * SECOND;
        let end = begin + seconds * SECOND;
        let mut schedule = Schedule::new(rate, arrivals, Random::new(5), begin, end);
        let all: Vec<u64> = std::iter::from_fn(|| schedule.take(u64::MAX)).collect();
        assert_eq!(schedule.next_at(), None);
        assert!(all.is_sorted() && all[0] >= begin && all[all.len() - 1] < end);
        all
    }

    #[test]
    fn fixed_arrivals_are_evenly_apart() {
        let all = all(3_000.0, Arrivals::Fixed, 10);
        assert!(all.len().abs_diff(30_000) <= 1, "{}", all.len());
        assert!(all.windows(2).all(|pair| (pair[1] - pair[0]).abs_diff(SECOND / 3_000) <= 1));
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_spread() {
        let all = all(10_000.0, Arrivals::Poisson, 10);
        assert!(all.len().abs_diff(100_000) < 1_500, "{}", all.len());
        // Of exponential gaps 1 - 1/e are below their mean.
        let below = all.windows(2).filter(|pair| pair[1] - pair[0] < SECOND / 10_000).count();
        let share = below as f64 / all.len() as f64;
        assert!((share - 0.632).abs() < 0.01, "{share}");
    }

    #[test]
    fn nothing_is_due_before_its_time() {
        let mut schedule = Schedule::new(10.0, Arrivals::Fixed, Random::new(1), 0, SECOND);
        let first = schedule.next_at().unwrap();
        assert_eq!(schedule.take(first - 1), None);
        assert_eq!(schedule.take(first), Some(first));
        assert_eq!(schedule.take(first), None);
        assert_eq!(schedule.next_at(), Some(first + SECOND / 10));
    }

    #[test]
    fn what_is_left_is_counted_from_where_it_is_measured() {
        let mut schedule = Schedule::new(10.0, Arrivals::Fixed, Random::new(1), 0, 2 * SECOND);
        assert_eq!(schedule.take_rest(2 * SECOND, SECOND), 10);
        assert_eq!((schedule.next_at(), schedule.take(u64::MAX)), (None, None));
    }
}
