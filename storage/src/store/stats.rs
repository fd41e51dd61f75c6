//! What a store tells of itself.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Store;
use crate::levels::LEVELS;
use crate::log::LogStats;
use crate::manifest::Staged;

/// Counts since the store was opened.
#[derive(Default)]
pub(super) struct Counters {
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

/// A store's state, and what it did since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
}

impl Stats {
    /// Bytes written to segments for each byte flushed: what compaction costs. One if nothing was
    /// merged yet.
    #[must_use]
    pub fn write_amplification(&self) -> f64 {
        if self.flushed_bytes == 0 {
            return 1.0;
        }
        (self.flushed_bytes + self.compacted_bytes_written) as f64 / self.flushed_bytes as f64
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
        }
    }
}
