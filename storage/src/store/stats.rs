//! What a store tells of itself.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Store;
use crate::histogram::Latencies;
use crate::levels::LEVELS;
use crate::log::LogStats;
use crate::manifest::Staged;

/// Counts since the store was opened.
#[derive(Default)]
pub(super) struct Counters {
    /// Keys and values that were applied.
    pub(super) applied_bytes: AtomicU64,
    pub(super) flushes: AtomicU64,
    pub(super) flushed_bytes: AtomicU64,
    pub(super) compactions: AtomicU64,
    pub(super) moves: AtomicU64,
    pub(super) compacted_bytes_read: AtomicU64,
    pub(super) compacted_bytes_written: AtomicU64,
    pub(super) log_cuts: AtomicU64,
    pub(super) installs: AtomicU64,
    pub(super) ingests: AtomicU64,
    pub(super) ingested_rows: AtomicU64,
    pub(super) ingested_bytes: AtomicU64,
    /// What is staged now, sealed or not.
    pub(super) staged_rows: AtomicU64,
    pub(super) staged_bytes: AtomicU64,
}

impl Counters {
    pub(super) fn at_opening(staged: Option<&Staged>) -> Counters {
        let counters = Counters::default();
        for segment in staged.iter().flat_map(|staged| &staged.segments) {
            counters.staged_rows.fetch_add(segment.entries, Relaxed);
            counters.staged_bytes.fetch_add(segment.bytes, Relaxed);
        }
        counters
    }

    /// Rows were ingested, into segments of so many bytes.
    pub(super) fn note_ingest(&self, rows: u64, bytes: u64) {
        self.ingests.fetch_add(1, Relaxed);
        self.ingested_rows.fetch_add(rows, Relaxed);
        self.ingested_bytes.fetch_add(bytes, Relaxed);
    }

    /// Nothing is staged any more.
    pub(super) fn forget_staged(&self) {
        self.staged_rows.store(0, Relaxed);
        self.staged_bytes.store(0, Relaxed);
    }
}

/// What a level holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelStats {
    /// How many segments.
    pub segments: usize,
    /// Their files together.
    pub bytes: u64,
    /// Their entries, versions and deletes included.
    pub entries: u64,
}

/// What filters answered, for a sample of the keys that were got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FilterStats {
    /// Filters that were asked whether their segment may have the key.
    pub asked: u64,
    /// Those that let it pass: the segment was searched.
    pub passed: u64,
    /// Those of them whose segment did not have it.
    pub passed_wrongly: u64,
    /// Gets that were answered from memory, so that no filter was asked.
    pub from_memtables: u64,
}

impl FilterStats {
    /// Of the keys that a segment does not have, the part that its filter let pass; `None` if there
    /// was no such key.
    #[must_use]
    pub fn false_positives(&self) -> Option<f64> {
        let absent = self.asked - self.passed + self.passed_wrongly;
        (absent > 0).then(|| self.passed_wrongly as f64 / absent as f64)
    }
}

/// How long things took. Gets and buffered writes are measured in samples: their counts are of those.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LatencyStats {
    /// [`Store::get`] and [`Store::get_with`].
    pub get: Latencies,
    /// [`Store::write`] until the batch was durable, stalls included.
    pub synced_write: Latencies,
    /// [`Store::write`] until the system had the batch, stalls included.
    pub buffered_write: Latencies,
    /// Writes that were held back, or did background work, because that was behind.
    pub stall: Latencies,
    /// Flushes of a memtable.
    pub flush: Latencies,
    /// Merges of segments.
    pub compaction: Latencies,
}

/// A store's state, and what it did since it was opened. As text it is a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Memory of the active memtable.
    pub memtable_bytes: usize,
    /// Frozen memtables that wait for their flush.
    pub frozen_memtables: usize,
    /// Their memory.
    pub frozen_bytes: usize,
    /// The levels, from level 0 down.
    pub levels: Vec<LevelStats>,
    /// Length of the log on disk.
    pub log_bytes: u64,
    /// What the log did.
    pub log: LogStats,
    /// Snapshots that are open.
    pub snapshots: usize,
    /// Keys and values of the batches that were applied, those of a replay included.
    pub applied_bytes: u64,
    /// Memtables written to segments.
    pub flushes: u64,
    /// Bytes of those segments.
    pub flushed_bytes: u64,
    /// Merges of segments.
    pub compactions: u64,
    /// Segments that went down a level as they were.
    pub moves: u64,
    /// Bytes that merges read.
    pub compacted_bytes_read: u64,
    /// Bytes that merges wrote.
    pub compacted_bytes_written: u64,
    /// How often the log was cut.
    pub log_cuts: u64,
    /// How often staged rows took the place of all others.
    pub installs: u64,
    /// How often rows were ingested.
    pub ingests: u64,
    /// Those rows, deletes included.
    pub ingested_rows: u64,
    /// Bytes of the segments that they made.
    pub ingested_bytes: u64,
    /// Rows that are staged now, sealed or not.
    pub staged_rows: u64,
    /// Bytes of the segments that they are written to, roughly.
    pub staged_bytes: u64,
    /// What filters kept out.
    pub filters: FilterStats,
    /// How long things took.
    pub latencies: LatencyStats,
}

impl Stats {
    /// Bytes written to disk, to the log and to segments, for each byte of keys and values that was
    /// applied. `None` if nothing was. What was ingested is left out: it is written once.
    #[must_use]
    pub fn write_amplification(&self) -> Option<f64> {
        let written = self.log.bytes + self.flushed_bytes + self.compacted_bytes_written;
        (self.applied_bytes > 0).then(|| written as f64 / self.applied_bytes as f64)
    }

    /// In how many places a key may have to be looked for: memtables, segments of level 0, and levels
    /// below. Filters spare most of them a look at the disk.
    #[must_use]
    pub fn read_amplification(&self) -> usize {
        let [flushed, sorted @ ..] = self.levels.as_slice() else { return 1 };
        let sorted = sorted.iter().filter(|level| level.segments > 0).count();
        1 + self.frozen_memtables + flushed.segments + sorted
    }

    /// Bytes of all segments for each byte of the lowest level in use, which has no key twice but for
    /// snapshots: what lies above it replaces some of it, or will. `None` without segments.
    #[must_use]
    pub fn space_amplification(&self) -> Option<f64> {
        let lowest = self.levels.iter().rfind(|level| level.bytes > 0)?;
        let all: u64 = self.levels.iter().map(|level| level.bytes).sum();
        Some(all as f64 / lowest.bytes as f64)
    }
}

impl Store {
    /// The store's state, and what it did since it was opened.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let inner = &self.inner;
        let view = inner.view();
        let level_stats = |level| {
            let mut stats = LevelStats::default();
            for segment in view.levels.level(level) {
                stats.segments += 1;
                stats.bytes += segment.meta().bytes;
                stats.entries += segment.meta().entries;
            }
            stats
        };
        let counters = &inner.counters;
        Stats {
            memtable_bytes: view.active.bytes(),
            frozen_memtables: view.frozen.len(),
            frozen_bytes: view.frozen.iter().map(|memtable| memtable.bytes()).sum(),
            levels: (0..LEVELS).map(level_stats).collect(),
            log_bytes: inner.log.bytes(),
            log: inner.log.stats(),
            snapshots: inner.snapshots.count(),
            applied_bytes: counters.applied_bytes.load(Relaxed),
            flushes: counters.flushes.load(Relaxed),
            flushed_bytes: counters.flushed_bytes.load(Relaxed),
            compactions: counters.compactions.load(Relaxed),
            moves: counters.moves.load(Relaxed),
            compacted_bytes_read: counters.compacted_bytes_read.load(Relaxed),
            compacted_bytes_written: counters.compacted_bytes_written.load(Relaxed),
            log_cuts: counters.log_cuts.load(Relaxed),
            installs: counters.installs.load(Relaxed),
            ingests: counters.ingests.load(Relaxed),
            ingested_rows: counters.ingested_rows.load(Relaxed),
            ingested_bytes: counters.ingested_bytes.load(Relaxed),
            staged_rows: counters.staged_rows.load(Relaxed),
            staged_bytes: counters.staged_bytes.load(Relaxed),
            filters: inner.meter.filters(),
            latencies: inner.meter.latencies(),
        }
    }
}
