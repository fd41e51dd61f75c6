//! How long operations take, and who is to blame: beside the writers run two bystanders, one that only
//! sleeps and one that writes a few bytes to a file of its own and syncs them. Where they stood
//! still as well, it was the machine.
//!
//! All of it outlives a kill: it goes to files.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Buckets of a histogram: 16 for each power of two of microseconds.
const BUCKETS: usize = 640;

const HISTOGRAM: &str = "histogram";
const EVENTS: &str = "events";

/// Whose time it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A write to the store.
    Write,
    /// A bystander that sleeps for a moment.
    Sleep,
    /// A bystander that writes and syncs a file of its own.
    Disk,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Write, Self::Sleep, Self::Disk];

    fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Sleep => "sleep",
            Self::Disk => "disk",
        }
    }
}

/// How often what took how long.
#[derive(Clone, Debug)]
pub(crate) struct Histogram(Vec<u64>);

impl Default for Histogram {
    fn default() -> Self {
        Self(vec![0; BUCKETS])
    }
}

fn bucket(micros: u64) -> usize {
    if micros < 16 {
        return micros as usize;
    }
    let exponent = micros.ilog2() as usize;
    ((exponent - 3) * 16 + ((micros >> (exponent - 4)) & 15) as usize).min(BUCKETS - 1)
}

/// The largest number of microseconds in a bucket.
fn bucket_end(bucket: usize) -> u64 {
    if bucket < 16 {
        return bucket as u64;
    }
    let (exponent, part) = (bucket / 16 + 3, bucket as u64 % 16);
    ((16 + part + 1) << (exponent - 4)) - 1
}

impl Histogram {
    pub(crate) fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine += theirs;
        }
    }

    /// The time that this part of all stayed below.
    pub(crate) fn quantile(&self, part: f64) -> Duration {
        let wanted = (self.count() as f64 * part).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.0.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return Duration::from_micros(bucket_end(bucket));
            }
        }
        Duration::ZERO
    }
}

/// Something that took long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) kind: Kind,
    /// Since the process began.
    pub(crate) from: Duration,
    pub(crate) to: Duration,
}

impl Event {
    pub(crate) fn took(&self) -> Duration {
        self.to.saturating_sub(self.from)
    }

    /// Whether one of these lasted for at least half of it at the same time.
    pub(crate) fn is_shared_with(&self, others: &[Self], kind: Kind) -> bool {
        let of_kind = others.iter().filter(|other| other.kind == kind);
        let common = of_kind.map(|it| it.to.min(self.to).saturating_sub(it.from.max(self.from)));
        common.sum::<Duration>() * 2 >= self.took()
    }
}

/// Watches threads, each by its number.
pub(crate) struct Probes {
    began: Instant,
    threads: Vec<Thread>,
    histogram: Vec<AtomicU64>,
    histogram_file: File,
    events: File,
    /// What takes longer is written down.
    long: Duration,
}

struct Thread {
    kind: Kind,
    /// Microseconds at which it began what it is at, and one; 0 while it is at nothing.
    since: AtomicU64,
}

impl Probes {
    /// With files in this directory.
    pub(crate) fn new(dir: &Path, kinds: &[Kind], long: Duration) -> io::Result<Self> {
        let thread = |kind: &Kind| Thread { kind: *kind, since: AtomicU64::new(0) };
        Ok(Self {
            began: Instant::now(),
            threads: kinds.iter().map(thread).collect(),
            histogram: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            histogram_file: File::create(dir.join(HISTOGRAM))?,
            events: OpenOptions::new()
                .create(true)
                .write(true)
                .truncate(true)
                .open(dir.join(EVENTS))?,
            long,
        })
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    /// Does something, on the thread of this number, and takes the time.
    pub(crate) fn time<T>(&self, thread: usize, what: impl FnOnce() -> T) -> io::Result<T> {
        let of = &self.threads[thread];
        let from = self.now();
        of.since.store(from + 1, Relaxed);
        let result = what();
        of.since.store(0, Relaxed);
        let to = self.now();
        if of.kind == Kind::Write {
            self.histogram[bucket(to - from)].fetch_add(1, Relaxed);
        }
        if to - from > self.long.as_micros() as u64 {
            self.write_down(thread, from, to)?;
        }
        Ok(result)
    }

    fn write_down(&self, thread: usize, from: u64, to: u64) -> io::Result<()> {
        let line = format!("{} {thread} {from} {to}\n", self.threads[thread].kind.name());
        (&self.events).write_all(line.as_bytes())
    }

    /// Writes down what has been long already, and all counts. To be called every few milliseconds.
    pub(crate) fn look(&self) -> io::Result<()> {
        for (number, thread) in self.threads.iter().enumerate() {
            let (since, now) = (thread.since.load(Relaxed), self.now());
            if since > 0 && now.saturating_sub(since) > self.long.as_micros() as u64 {
                self.write_down(number, since - 1, now)?;
            }
        }
        let counts: Vec<u8> =
            self.histogram.iter().flat_map(|count| count.load(Relaxed).to_le_bytes()).collect();
        self.histogram_file.write_all_at(&counts, 0)
    }
}

/// What probes left in a directory.
pub(crate) fn read(dir: &Path) -> io::Result<(Histogram, Vec<Event>)> {
    let mut histogram = Histogram::default();
    let counts = std::fs::read(dir.join(HISTOGRAM)).unwrap_or_default();
    for (count, bytes) in histogram.0.iter_mut().zip(counts.chunks_exact(8)) {
        *count = bytes.try_into().map_or(0, u64::from_le_bytes);
    }
    let lines = std::fs::read_to_string(dir.join(EVENTS)).unwrap_or_default();
    // What was looked at several times while it lasted is one event.
    let mut events: BTreeMap<(Kind, u64, u64), u64> = BTreeMap::new();
    for line in lines.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [kind, thread, from, to] = words.as_slice() else { continue };
        let kind = Kind::ALL.into_iter().find(|it| it.name() == *kind);
        let numbers = [thread, from, to].map(|word| word.parse::<u64>());
        if let (Some(kind), [Ok(thread), Ok(from), Ok(to)]) = (kind, numbers) {
            let end = events.entry((kind, thread, from)).or_default();
            *end = to.max(*end);
        }
    }
    let event = |((kind, _, from), to)| Event {
        kind,
        from: Duration::from_micros(from),
        to: Duration::from_micros(to),
    };
    Ok((histogram, events.into_iter().map(event).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_what_they_say() {
        for micros in (0..5000).chain([1 << 20, 123_456_789, 1 << 40]) {
            let bucket = bucket(micros);
            assert!(micros <= bucket_end(bucket), "{micros}");
            assert!(bucket == 0 || micros > bucket_end(bucket - 1), "{micros}");
        }
    }

    #[test]
    fn a_stall_is_shared_if_others_stood_still_for_half_of_it() {
        let event = |kind, from, to| Event {
            kind,
            from: Duration::from_millis(from),
            to: Duration::from_millis(to),
        };
        let stall = event(Kind::Write, 100, 200);
        let sleeps = [event(Kind::Sleep, 90, 130), event(Kind::Sleep, 140, 170)];
        assert!(stall.is_shared_with(&sleeps, Kind::Sleep));
        assert!(!stall.is_shared_with(&sleeps, Kind::Disk));
        assert!(!stall.is_shared_with(&sleeps[..1], Kind::Sleep));
    }
}
