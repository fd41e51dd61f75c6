//! What came of a load: how often, and how long it took.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest latency that is told from a longer one.
const LATENCY_MAX: Duration = Duration::from_secs(600);

/// Three significant digits: 1.234 ms is told from 1.235 ms.
const SIGNIFICANT_DIGITS: u8 = 3;

/// How operations ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Done: a write happened, a read was answered.
    pub ok: u64,
    /// Refused, since another transaction in flight held the key.
    pub conflict: u64,
    /// Refused, since the key did not have the expected value.
    pub precondition_failed: u64,
    /// May have happened or not.
    pub unknown: u64,
    /// Attempts refused since too little of the cluster was up; in a closed loop they were tried
    /// anew.
    pub unavailable: u64,
    /// Attempts refused since too much was in flight; in a closed loop they were tried anew.
    pub overloaded: u64,
    /// Begins of a read-modify-write from the beginning, since somebody else was faster.
    pub retried: u64,
    /// Operations of an open loop that were due and never began: all that may be outstanding was.
    pub not_begun: u64,
}

impl Counts {
    /// Operations that ended, one way or another.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.ok + self.conflict + self.precondition_failed + self.unknown
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.ok += other.ok;
        self.conflict += other.conflict;
        self.precondition_failed += other.precondition_failed;
        self.unknown += other.unknown;
        self.unavailable += other.unavailable;
        self.overloaded += other.overloaded;
        self.retried += other.retried;
        self.not_begun += other.not_begun;
    }
}

/// What one thread has counted, for others to look at meanwhile.
#[derive(Debug, Default)]
pub(super) struct Posted {
    ok: AtomicU64,
    refused: AtomicU64,
    overloaded: AtomicU64,
    failed: AtomicU64,
}

impl Posted {
    /// Only one thread posts, so that a store is enough.
    pub(super) fn post(&self, counts: &Counts) {
        self.ok.store(counts.ok, Ordering::Relaxed);
        self.refused.store(counts.unavailable, Ordering::Relaxed);
        self.overloaded.store(counts.overloaded, Ordering::Relaxed);
        self.failed.store(counts.ended() - counts.ok, Ordering::Relaxed);
    }

    /// What was posted last. Conflicts, failed preconditions and unknown outcomes are one number,
    /// counted as unknown.
    pub(super) fn counts(&self) -> Counts {
        Counts {
            ok: self.ok.load(Ordering::Relaxed),
            unavailable: self.refused.load(Ordering::Relaxed),
            overloaded: self.overloaded.load(Ordering::Relaxed),
            unknown: self.failed.load(Ordering::Relaxed),
            ..Counts::default()
        }
    }
}

/// One thread's counts and latencies.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) counts: Counts,
    latencies_nanos: Histogram<u64>,
    /// Of what was refused as overloaded.
    refusals_nanos: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        let histogram = || {
            let max = u64::try_from(LATENCY_MAX.as_nanos()).expect("ten minutes fit in 64 bits");
            let histogram = Histogram::new_with_bounds(1, max, SIGNIFICANT_DIGITS);
            histogram.expect("the bounds are in order and the digits below six")
        };
        let (latencies_nanos, refusals_nanos) = (histogram(), histogram());
        Self { counts: Counts::default(), latencies_nanos, refusals_nanos }
    }
}

impl Tally {
    /// Counts an operation that is done.
    pub(super) fn done(&mut self, nanos: u64) {
        self.counts.ok += 1;
        self.latencies_nanos.saturating_record(nanos);
    }

    /// Counts an attempt that was refused since too much was in flight.
    pub(super) fn overloaded(&mut self, nanos: u64) {
        self.counts.overloaded += 1;
        self.refusals_nanos.saturating_record(nanos);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        const SAME: &str = "all have the same bounds";
        self.counts.add(&other.counts);
        self.latencies_nanos.add(&other.latencies_nanos).expect(SAME);
        self.refusals_nanos.add(&other.refusals_nanos).expect(SAME);
    }
}

/// What came of a load.
#[derive(Clone, Debug)]
pub struct Summary {
    /// How the operations that were measured ended.
    pub counts: Counts,
    /// From the end of the warm-up to the end of the last operation.
    pub elapsed: Duration,
    /// The longest time in which nothing was acknowledged.
    pub longest_pause: Duration,
    /// The time that the load itself was on a processor, the warm-up included.
    pub cpu: Duration,
    /// All attempts of that time.
    pub attempts: u64,
    latencies_nanos: Histogram<u64>,
    refusals_nanos: Histogram<u64>,
}

impl Summary {
    pub(super) fn new(
        tally: Tally,
        elapsed: Duration,
        longest_pause: Duration,
        cpu: Duration,
        all: Counts,
    ) -> Self {
        let Tally { counts, latencies_nanos, refusals_nanos } = tally;
        let attempts = all.ended() + all.unavailable + all.overloaded;
        Self { counts, elapsed, longest_pause, cpu, attempts, latencies_nanos, refusals_nanos }
    }

    /// Operations done in a second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        if self.elapsed.is_zero() {
            return 0.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "nobody counts to 2^52 in one load")]
        let ok = self.counts.ok as f64;
        ok / self.elapsed.as_secs_f64()
    }

    /// So many percent of the operations that are done took at most this long.
    #[must_use]
    pub fn latency(&self, percentile: f64) -> Duration {
        Duration::from_nanos(self.latencies_nanos.value_at_percentile(percentile))
    }

    /// So many percent of the refusals as overloaded took at most this long.
    #[must_use]
    pub fn refusal(&self, percentile: f64) -> Duration {
        Duration::from_nanos(self.refusals_nanos.value_at_percentile(percentile))
    }

    /// The time on a processor that the load itself took for an attempt.
    #[must_use]
    pub fn cpu_each(&self) -> Duration {
        let each = self.cpu.as_nanos() / u128::from(self.attempts.max(1));
        Duration::from_nanos(u64::try_from(each).unwrap_or(u64::MAX))
    }

    /// The longest latency.
    #[must_use]
    pub fn latency_max(&self) -> Duration {
        Duration::from_nanos(self.latencies_nanos.max())
    }

    /// The average latency.
    #[must_use]
    pub fn latency_mean(&self) -> Duration {
        Duration::from_secs_f64(self.latencies_nanos.mean() / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(tally: Tally, elapsed: Duration) -> Summary {
        Summary::new(tally, elapsed, Duration::ZERO, Duration::ZERO, Counts::default())
    }

    #[test]
    fn what_is_posted_can_be_seen() {
        let posted = Posted::default();
        let counts = Counts {
            ok: 5,
            conflict: 1,
            unknown: 2,
            unavailable: 3,
            overloaded: 4,
            ..Counts::default()
        };
        posted.post(&counts);
        let seen = posted.counts();
        assert_eq!((seen.ok, seen.ended()), (counts.ok, counts.ended()));
        assert_eq!((seen.unavailable, seen.overloaded), (3, 4));
    }

    #[test]
    fn percentiles_are_exact_to_three_digits() {
        let mut tally = Tally::default();
        for millis in 1..=1000 {
            tally.done(millis * 1_000_000);
        }
        let mut other = Tally::default();
        other.done(10_000_000_000_000);
        other.overloaded(7_000_000);
        tally.merge(&other);
        let summary = summary(tally, Duration::from_secs(2));
        let near = |latency: Duration, millis: f64| {
            let off = (latency.as_secs_f64() * 1e3 / millis - 1.0).abs();
            assert!(off < 0.002, "{latency:?} is not {millis} ms");
        };
        near(summary.latency(50.0), 501.0);
        near(summary.latency(99.0), 991.0);
        near(summary.latency_max(), 600_000.0);
        near(summary.refusal(50.0), 7.0);
        assert_eq!((summary.counts.ok, summary.counts.overloaded), (1001, 1));
        assert!((summary.per_second() - 500.5).abs() < 1e-9);
    }

    #[test]
    fn nothing_has_no_rate() {
        let summary = summary(Tally::default(), Duration::ZERO);
        assert_eq!((summary.per_second(), summary.latency(99.0)), (0.0, Duration::ZERO));
        assert_eq!(summary.cpu_each(), Duration::ZERO);
    }
}
