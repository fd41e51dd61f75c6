//! What came of a load: how often, and how long it took.

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
    /// Attempts refused since too little of the cluster was up; they were tried anew.
    pub unavailable: u64,
    /// Attempts refused since too much was in flight; they were tried anew.
    pub overloaded: u64,
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
    }
}

/// One worker's counts and latencies.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) counts: Counts,
    latencies_nanos: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        let max = u64::try_from(LATENCY_MAX.as_nanos()).expect("ten minutes fit in 64 bits");
        let histogram = Histogram::new_with_bounds(1, max, SIGNIFICANT_DIGITS);
        let latencies_nanos = histogram.expect("the bounds are in order and the digits below six");
        Self { counts: Counts::default(), latencies_nanos }
    }
}

impl Tally {
    /// Counts an operation that is done.
    pub(super) fn done(&mut self, latency: Duration) {
        self.counts.ok += 1;
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latencies_nanos.saturating_record(nanos);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        self.latencies_nanos.add(&other.latencies_nanos).expect("all have the same bounds");
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
    latencies_nanos: Histogram<u64>,
}

impl Summary {
    pub(super) fn new(tally: Tally, elapsed: Duration, longest_pause: Duration) -> Self {
        let Tally { counts, latencies_nanos } = tally;
        Self { counts, elapsed, longest_pause, latencies_nanos }
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

    #[test]
    fn percentiles_are_exact_to_three_digits() {
        let mut tally = Tally::default();
        for millis in 1..=1000 {
            tally.done(Duration::from_millis(millis));
        }
        let mut other = Tally::default();
        other.done(Duration::from_secs(10_000));
        tally.merge(&other);
        let summary = Summary::new(tally, Duration::from_secs(2), Duration::ZERO);
        let near = |latency: Duration, millis: f64| {
            let off = (latency.as_secs_f64() * 1e3 / millis - 1.0).abs();
            assert!(off < 0.002, "{latency:?} is not {millis} ms");
        };
        near(summary.latency(50.0), 501.0);
        near(summary.latency(99.0), 991.0);
        near(summary.latency_max(), 600_000.0);
        assert_eq!(summary.counts.ok, 1001);
        assert!((summary.per_second() - 500.5).abs() < 1e-9);
    }

    #[test]
    fn nothing_has_no_rate() {
        let summary = Summary::new(Tally::default(), Duration::ZERO, Duration::ZERO);
        assert_eq!((summary.per_second(), summary.latency(99.0)), (0.0, Duration::ZERO));
    }
}
