//! How long things take and what reads come upon: measured while a store works.
//!
//! What takes a microsecond is measured once in a while, so that measuring costs it next to nothing.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use super::stats::{FilterStats, LatencyStats};
use super::{Durability, View};
use crate::error::Result;
use crate::histogram::Histogram;
use crate::key::Sequence;
use crate::segment;

/// One of so many is measured of what is too short to measure each.
const SAMPLE: u32 = 128;

#[derive(Default)]
pub(super) struct Meter {
    gets: Histogram,
    synced_writes: Histogram,
    buffered_writes: Histogram,
    pub(super) stalls: Histogram,
    pub(super) flushes: Histogram,
    pub(super) compactions: Histogram,
    from_memtables: AtomicU64,
    filters_asked: AtomicU64,
    filters_passed: AtomicU64,
    filters_passed_wrongly: AtomicU64,
}

impl Meter {
    /// Reads a key, and measures that now and then.
    #[inline]
    pub(super) fn get<T>(
        &self,
        key: &[u8],
        (view, sequence): (&View, Sequence),
        read: impl FnOnce() -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        if is_turn() { self.measure_get(key, (view, sequence), read) } else { read() }
    }

    #[cold]
    fn measure_get<T>(
        &self,
        key: &[u8],
        (view, sequence): (&View, Sequence),
        read: impl FnOnce() -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let begun = Instant::now();
        let answer = read();
        self.gets.record(begun.elapsed());
        // What is wrong on the way, the answer has told.
        let _ = self.look_closely(key, view, sequence);
        answer
    }

    /// The same way again, to see what the filters said.
    fn look_closely(&self, key: &[u8], view: &View, sequence: Sequence) -> Result<()> {
        if view.is_in_memtable(key, sequence) {
            self.from_memtables.fetch_add(1, Relaxed);
            return Ok(());
        }
        let hash = segment::hash(key);
        for segment in view.levels.candidates(key) {
            if !segment.meta().spans(key) {
                continue;
            }
            self.filters_asked.fetch_add(1, Relaxed);
            if !segment.may_contain(hash)? {
                continue;
            }
            self.filters_passed.fetch_add(1, Relaxed);
            if segment.get_with(key, hash, Sequence::MAX >> 1, |_, _| ())?.is_some() {
                return Ok(());
            }
            self.filters_passed_wrongly.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    pub(super) fn note_write(&self, durability: Durability, begun: Instant) {
        match durability {
            Durability::Sync => self.synced_writes.record(begun.elapsed()),
            Durability::Buffered => self.buffered_writes.record(begun.elapsed()),
        }
    }

    pub(super) fn latencies(&self) -> LatencyStats {
        LatencyStats {
            get: self.gets.latencies(),
            synced_write: self.synced_writes.latencies(),
            buffered_write: self.buffered_writes.latencies(),
            stall: self.stalls.latencies(),
            flush: self.flushes.latencies(),
            compaction: self.compactions.latencies(),
        }
    }

    pub(super) fn filters(&self) -> FilterStats {
        let [asked, passed, passed_wrongly, from_memtables] = [
            &self.filters_asked,
            &self.filters_passed,
            &self.filters_passed_wrongly,
            &self.from_memtables,
        ]
        .map(|count| count.load(Relaxed));
        FilterStats { asked, passed, passed_wrongly, from_memtables }
    }
}

/// Whether this thread should measure what it does next.
#[inline]
pub(super) fn is_turn() -> bool {
    thread_local! {
        static TURN: Cell<u32> = const { Cell::new(0) };
    }
    TURN.with(|turn| {
        turn.set(turn.get().wrapping_add(1));
        turn.get().is_multiple_of(SAMPLE)
    })
}
