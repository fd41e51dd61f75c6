//! Times as a reader wants them: since the first operation shown, in one unit, no finer than needed.

use crate::history::{Ending, Record};

/// How the times of some operations are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// The first call: time zero.
    pub(crate) origin: u64,
    unit: Unit,
    decimals: usize,
}

#[derive(Clone, Copy, Debug)]
struct Unit {
    name: &'static str,
    nanoseconds: u64,
    /// Digits behind the point that make up a nanosecond.
    decimals_max: usize,
}

const UNITS: [Unit; 4] = [
    Unit { name: "s", nanoseconds: 1_000_000_000, decimals_max: 9 },
    Unit { name: "ms", nanoseconds: 1_000_000, decimals_max: 6 },
    Unit { name: "µs", nanoseconds: 1_000, decimals_max: 3 },
    Unit { name: "ns", nanoseconds: 1, decimals_max: 0 },
];

/// The largest unit of which a span is at least this many.
const WHOLE_MIN: u64 = 2;

impl Times {
    pub(crate) fn of(operations: &[Record]) -> Self {
        let mut moments: Vec<u64> = operations.iter().flat_map(moments).collect();
        moments.sort_unstable();
        moments.dedup();
        let origin = moments.first().copied().unwrap_or(0);
        let span = moments.last().copied().unwrap_or(0) - origin;
        let unit = unit_of(span);
        // Two moments that differ are written differently.
        let gap = moments.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap_or(span);
        let mut decimals = 0;
        let mut step = unit.nanoseconds;
        while step > gap && decimals < unit.decimals_max {
            decimals += 1;
            step /= 10;
        }
        Self { origin, unit, decimals }
    }

    /// A moment, with its unit.
    pub(crate) fn at(&self, time: u64) -> String {
        write(time.saturating_sub(self.origin), self.unit, self.decimals)
    }

    /// From when to when an operation ran.
    pub(crate) fn span(&self, record: &Record) -> String {
        match record.ending {
            Ending::Unknown => format!("from {}", self.at(record.call)),
            Ending::Done | Ending::NotDone | Ending::PreconditionFailed(_) => {
                format!("from {} to {}", self.at(record.call), self.at(record.ret))
            }
        }
    }
}

/// A time of the history's own clock.
pub(crate) fn absolute(time: u64) -> String {
    let unit = unit_of(time);
    let mut decimals = unit.decimals_max;
    let mut step = 10;
    while decimals > 0 && time.is_multiple_of(step) {
        decimals -= 1;
        step *= 10;
    }
    write(time, unit, decimals)
}

/// How long something took, in three digits or so.
pub(crate) fn duration(nanoseconds: u64) -> String {
    let unit = unit_of(nanoseconds);
    let whole = nanoseconds / unit.nanoseconds;
    write(nanoseconds, unit, if whole >= 100 { 0 } else { unit.decimals_max.min(1) })
}

/// When an operation began, and when it was over if that is known.
pub(crate) fn moments(record: &Record) -> impl Iterator<Item = u64> {
    let ret = (record.ending != Ending::Unknown).then_some(record.ret);
    [Some(record.call), ret].into_iter().flatten()
}

fn unit_of(span: u64) -> Unit {
    let fits = |unit: &&Unit| span >= WHOLE_MIN * unit.nanoseconds;
    UNITS.iter().find(fits).copied().unwrap_or(UNITS[UNITS.len() - 1])
}

fn write(nanoseconds: u64, unit: Unit, decimals: usize) -> String {
    let (whole, part) = (nanoseconds / unit.nanoseconds, nanoseconds % unit.nanoseconds);
    let Unit { name, decimals_max, .. } = unit;
    let digits = format!("{part:0decimals_max$}");
    match decimals {
        0 => format!("{whole} {name}"),
        _ => format!("{whole}.{} {name}", &digits[..decimals.min(decimals_max)]),
    }
}
