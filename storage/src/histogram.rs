//! Durations counted in buckets that grow with them: cheap enough to be always there.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Buckets for each doubling of the duration: what is told of one is at most an eighth too long.
const STEPS: u64 = 8;
/// Doublings: all beyond eighteen minutes is one bucket.
const DOUBLINGS: u64 = 38;
const BUCKETS: usize = (STEPS * DOUBLINGS) as usize;

/// Counts that any number of threads add to.
pub(crate) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    total_nanos: AtomicU64,
    longest_nanos: AtomicU64,
}

/// How long something took, each time that it was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Latencies {
    /// How often it was measured.
    pub count: u64,
    /// All of it together.
    pub total: Duration,
    /// Half took no longer. This and the next two are told up to an eighth too long.
    pub median: Duration,
    /// Of a hundred, 99 took no longer.
    pub p99: Duration,
    /// Of a thousand, 999 took no longer.
    pub p999: Duration,
    /// The longest.
    pub longest: Duration,
}

impl Latencies {
    /// The mean; zero if nothing was measured.
    #[must_use]
    pub fn mean(&self) -> Duration {
        let nanos = self.total.as_nanos() / u128::from(self.count.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            total_nanos: AtomicU64::new(0),
            longest_nanos: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    pub(crate) fn record(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(nanos)].fetch_add(1, Relaxed);
        self.total_nanos.fetch_add(nanos, Relaxed);
        self.longest_nanos.fetch_max(nanos, Relaxed);
    }

    /// What was recorded. Threads that record meanwhile may be in it or not.
    pub(crate) fn latencies(&self) -> Latencies {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        let count = counts.iter().sum();
        let longest = self.longest_nanos.load(Relaxed);
        let quantile = |thousandths: u64| {
            // The number of those that took no longer, rounded up.
            let wanted = (u128::from(count) * u128::from(thousandths)).div_ceil(1000) as u64;
            let mut passed = 0;
            let bucket = counts.iter().position(|count| {
                passed += count;
                passed >= wanted
            });
            Duration::from_nanos(bucket.map_or(0, end_of).min(longest))
        };
        Latencies {
            count,
            total: Duration::from_nanos(self.total_nanos.load(Relaxed)),
            median: quantile(500),
            p99: quantile(990),
            p999: quantile(999),
            longest: Duration::from_nanos(longest),
        }
    }
}

fn bucket_of(nanos: u64) -> usize {
    if nanos < STEPS {
        return nanos as usize;
    }
    // The place of the highest bit says which doubling, the three behind it say where in that.
    let doubling = u64::from(nanos.ilog2() - STEPS.ilog2());
    let step = (nanos >> doubling) - STEPS;
    ((STEPS * (doubling + 1) + step) as usize).min(BUCKETS - 1)
}

/// The longest duration in a bucket.
fn end_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return bucket;
    }
    let (doubling, step) = (bucket / STEPS - 1, bucket % STEPS);
    ((STEPS + step + 1) << doubling) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_and_hold_what_they_say() {
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        for bucket in 0..BUCKETS - 1 {
            let end = end_of(bucket);
            assert_eq!(bucket_of(end), bucket, "{end}");
            assert_eq!(bucket_of(end + 1), bucket + 1, "{end}");
            let begin = bucket.checked_sub(1).map_or(0, |before| end_of(before) + 1);
            assert!((end - begin) * STEPS <= end, "from {begin} to {end}");
        }
    }

    #[test]
    fn quantiles_are_near_and_the_longest_is_exact() {
        let histogram = Histogram::default();
        assert_eq!(histogram.latencies(), Latencies::default());
        for micros in 1..=1000 {
            histogram.record(Duration::from_micros(micros));
        }
        let latencies = histogram.latencies();
        let near = |told: Duration, micros: u64| {
            let exact = Duration::from_micros(micros);
            assert!(told >= exact && told <= exact * 9 / 8, "{told:?} for {exact:?}");
        };
        near(latencies.median, 500);
        near(latencies.p99, 990);
        near(latencies.p999, 999);
        assert_eq!((latencies.count, latencies.longest), (1000, Duration::from_millis(1)));
        assert_eq!(latencies.mean(), Duration::from_nanos(500_500));
    }
}
