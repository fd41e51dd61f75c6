//! The run cut into slices of equal length: what ended in each of them, and how long it had taken.

use std::ops::Range;

use super::text::nanos_of;
use super::{OperationPoint, PointEnding, Report};

/// At most so many slices: about as many as a page has room to draw side by side.
const SLICES_MAX: u64 = 300;

/// The shortest slice; in less than that nothing ends.
const SLICE_NANOS_MIN: u64 = 1_000_000;

/// The shortest time without an acknowledged write that counts as an outage: as long as a person
/// who waits for an answer does not mind.
const OUTAGE_NANOS_MIN: u64 = 200_000_000;

/// And at least so many times the usual time between two acknowledged writes: a run with few
/// clients is not out of service between their writes.
const OUTAGE_FACTOR: u64 = 10;

/// All slices of a run.
#[derive(Debug)]
pub(super) struct Slices {
    /// How long each is.
    pub(super) nanos: u64,
    /// One after the other from the beginning on; at least one.
    pub(super) each: Vec<Slice>,
}

/// What ended in one slice.
#[derive(Clone, Debug, Default)]
pub(super) struct Slice {
    /// How many operations, by [`PointEnding`].
    pub(super) ended: [u64; 3],
    /// How long those took that were done; nothing if none was.
    pub(super) took: Option<Latencies>,
}

/// How long operations took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Latencies {
    pub(super) p50: u64,
    pub(super) p90: u64,
    pub(super) p99: u64,
    pub(super) max: u64,
}

impl Slices {
    pub(super) fn of(report: &Report) -> Self {
        let ends = report.operations.iter().map(|operation| operation.end);
        let until = ends.chain(report.faults.iter().map(|fault| fault.to)).max().unwrap_or(0);
        let length = nanos_of(report.length).max(SLICE_NANOS_MIN);
        let nanos = round_up(until.max(length).div_ceil(SLICES_MAX).max(SLICE_NANOS_MIN));
        // What ends a moment after the run belongs to its last slice: that is no new one.
        let until = if until < length.saturating_add(nanos) { length } else { until };
        let count = usize::try_from(until.div_ceil(nanos)).expect("no more than the maximum");
        let mut each = vec![Slice::default(); count];
        let mut took = vec![Vec::new(); count];
        for operation in &report.operations {
            // What ends with the very end belongs to the last slice.
            let index =
                usize::try_from(operation.end / nanos).map_or(count - 1, |i| i.min(count - 1));
            each[index].ended[operation.ending as usize] += 1;
            if operation.ending == PointEnding::Ok {
                took[index].push(operation.took());
            }
        }
        for (slice, took) in each.iter_mut().zip(took) {
            slice.took = Latencies::of(took);
        }
        Self { nanos, each }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.each.len()
    }

    /// When the last one ends, which is where the time axis does.
    pub(super) fn end(&self) -> u64 {
        self.nanos.saturating_mul(self.each.len() as u64)
    }

    /// A count in a slice as a rate, in operations a second.
    #[expect(clippy::cast_precision_loss, reason = "it is drawn, and shown with three digits")]
    pub(super) fn rate(&self, count: u64) -> f64 {
        count as f64 * 1e9 / self.nanos as f64
    }

    /// Where on the time axis a moment is, in percent.
    #[expect(clippy::cast_precision_loss, reason = "it is drawn")]
    pub(super) fn percent(&self, nanos: u64) -> f64 {
        nanos.min(self.end()) as f64 * 100.0 / self.end() as f64
    }
}

impl Latencies {
    pub(super) fn of(mut nanos: Vec<u64>) -> Option<Self> {
        nanos.sort_unstable();
        let max = *nanos.last()?;
        let rank = |percent: usize| nanos[(nanos.len() * percent).div_ceil(100).max(1) - 1];
        Some(Self { p50: rank(50), p90: rank(90), p99: rank(99), max })
    }
}

impl OperationPoint {
    pub(super) fn took(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// The times in which no write was acknowledged; none if nobody wrote.
pub(super) fn outages(report: &Report) -> Vec<Range<u64>> {
    let writes = || report.operations.iter().filter(|operation| operation.writes);
    if writes().next().is_none() {
        return Vec::new();
    }
    let acknowledged = writes().filter(|write| write.ending == PointEnding::Ok);
    let mut moments: Vec<u64> = acknowledged.map(|write| write.end).collect();
    let end = nanos_of(report.length).max(moments.iter().copied().max().unwrap_or(0));
    moments.push(end);
    moments.sort_unstable();
    let usual = end / moments.len() as u64;
    let outage_min = OUTAGE_NANOS_MIN.max(usual.saturating_mul(OUTAGE_FACTOR).min(end / 2));
    let since = std::iter::once(0).chain(moments.iter().copied());
    let gaps = since.zip(moments.iter().copied()).map(|(from, to)| from..to);
    gaps.filter(|gap| gap.end - gap.start >= outage_min).collect()
}

/// The next of 1, 2, 5, 10, 20 and so on.
pub(super) fn round_up(number: u64) -> u64 {
    let mut power = 1;
    loop {
        for digit in [1, 2, 5] {
            match u64::checked_mul(power, digit) {
                Some(round) if round >= number => return round,
                Some(_) => {}
                None => return number,
            }
        }
        power = power.saturating_mul(10);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn put(start: u64, end: u64, ending: PointEnding) -> OperationPoint {
        OperationPoint { start, end, kind: "put", writes: true, ending, words: None }
    }

    fn report(seconds: u64, operations: Vec<OperationPoint>) -> Report {
        Report { length: Duration::from_secs(seconds), operations, ..Report::default() }
    }

    #[test]
    fn round_numbers() {
        let cases = [(0, 1), (1, 1), (3, 5), (5, 5), (6, 10), (101, 200), (u64::MAX, u64::MAX)];
        for (number, round) in cases {
            assert_eq!(round_up(number), round);
        }
    }

    #[test]
    fn each_operation_is_in_one_slice() {
        let operations = vec![
            put(0, 10, PointEnding::Ok),
            put(0, SECOND, PointEnding::Refused),
            put(5, 60 * SECOND, PointEnding::Unknown),
        ];
        let slices = Slices::of(&report(60, operations));
        assert_eq!((slices.nanos, slices.count(), slices.end()), (SECOND / 5, 300, 60 * SECOND));
        assert_eq!(slices.each[0].ended, [1, 0, 0]);
        assert_eq!(slices.each[5].ended, [0, 1, 0]);
        assert_eq!(slices.each[299].ended, [0, 0, 1]);
        assert_eq!(slices.each[0].took.map(|took| took.max), Some(10));
        assert_eq!(slices.each[5].took, None, "only what was done counts");
        assert!((slices.rate(3) - 15.0).abs() < 1e-9);
    }

    #[test]
    fn a_run_of_nothing_has_a_slice() {
        let slices = Slices::of(&Report::default());
        assert_eq!(slices.count(), 1);
        assert!(slices.percent(0).abs() < 1e-9);
        let endless = OperationPoint { end: u64::MAX, ..put(0, 0, PointEnding::Unknown) };
        let slices = Slices::of(&report(1, vec![endless]));
        assert!(slices.count() <= 300, "{}", slices.count());
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        assert_eq!(Latencies::of(Vec::new()), None);
        let of = |nanos: Vec<u64>| Latencies::of(nanos).unwrap();
        assert_eq!(of(vec![7]), Latencies { p50: 7, p90: 7, p99: 7, max: 7 });
        let hundred = of((1..=100).rev().collect());
        assert_eq!(hundred, Latencies { p50: 50, p90: 90, p99: 99, max: 100 });
    }

    #[test]
    fn outages_are_where_no_write_was_acknowledged() {
        let ok = |millis: u64| put(0, millis * 1_000_000, PointEnding::Ok);
        let mut operations: Vec<_> = (0..100).map(|index| ok(index * 10)).collect();
        operations.extend((300..400).map(|index| ok(index * 10)));
        operations.push(put(0, 2 * SECOND, PointEnding::Refused));
        let outage = 990_000_000..3 * SECOND;
        assert_eq!(outages(&report(4, operations.clone())), std::slice::from_ref(&outage));
        let at_the_end = 3_990_000_000..5 * SECOND;
        assert_eq!(outages(&report(5, operations)), [outage, at_the_end]);

        assert_eq!(outages(&report(4, Vec::new())), [], "nobody wrote");
        let refused = vec![put(0, 10, PointEnding::Refused)];
        assert_eq!(outages(&report(4, refused)), std::slice::from_ref(&(0..4 * SECOND)));
        let rare: Vec<_> = (0..10).map(|index| ok(index * 1_000)).collect();
        assert_eq!(outages(&report(10, rare)), [], "one client that writes once a second");
    }
}
