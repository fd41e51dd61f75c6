//! Writing: batches that an owner's log stands for, and batches that the store logs itself.

use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use bytes::Bytes;

use super::in_flight::Inserting;
use super::meter::is_turn;
use super::pressure::Pressure;
use super::{Inner, Store, lock};
use crate::batch::{Batch, CountPrefix};
use crate::error::{Error, Result};
use crate::key::Sequence;
use crate::log::Position;
use crate::memtable::Memtable;

/// The kind of log record that holds a batch of [`Store::write`]. Owners' kinds are 16 and above.
pub const WRITE_BATCH: u8 = 1;

/// When [`Store::write`] answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Once the batch is durable.
    #[default]
    Sync,
    /// Once the operating system has the batch: it survives the process, but not a power cut.
    Buffered,
}

/// How far batches were applied, or have their place.
pub(super) struct Applied {
    pub(super) last_sequence: Sequence,
    pub(super) last_mark: u64,
    /// The last that is to be durable before anyone sees it.
    pub(super) last_synced: Position,
}

/// A batch that has its place in the log, its sequences and its memtable.
struct Placed<'a> {
    position: Position,
    /// What comes before it and is to be durable before anyone sees it ends here.
    behind: Position,
    memtable: Arc<Memtable>,
    first: Sequence,
    inserting: Inserting<'a>,
}

impl Store {
    /// Makes a batch visible, all of it at once. Nothing is written: the batch stands in a log
    /// record of the caller's, from which the caller will apply it again after a crash.
    ///
    /// `mark` numbers the batches in the order in which a replay meets them: it rises with each. A
    /// mark that was flushed before this opening is skipped, if the log record is as old; that is
    /// all the caller needs to know of what replay may repeat. The records that the batch rests on
    /// end at `covered_by`; they need not be durable yet, but are made so before the batch goes to a
    /// segment.
    ///
    /// This never waits for the disk and never refuses for want of room, since what it is given
    /// was decided. Ask [`Store::pressure`] before taking on new work.
    pub fn apply(&self, mark: u64, covered_by: Position, batch: &Batch) -> Result<()> {
        if self.inner.embedded {
            return Err(Error::invalid("a store opened with `open` logs its own batches: `write`"));
        }
        self.inner.apply(mark, covered_by, batch)
    }

    /// The owner needs no log record before `before` for its own recovery.
    ///
    /// The log is cut there by a later [`Store::maintain`], once every batch that was applied
    /// before this call is in segments.
    pub fn release(&self, before: Position) {
        let mark = self.inner.writer().last_mark;
        lock(&self.inner.releases).add(before, mark);
        // Otherwise the next flush will see to it: waking somebody for each word would be much.
        if mark <= self.flushed_mark() || self.inner.log_is_too_long() {
            self.inner.signal.raise();
        }
    }

    /// Logs a batch, waits as `durability` says, and makes it visible. Batches become visible in
    /// the order of the log, and each only when it is as durable as was asked for: one that is only
    /// buffered waits for those before it that are to be synced. Those that wait for the disk
    /// together are synced together.
    ///
    /// If flush and compaction are behind, the caller waits a little first; if they are far behind, it
    /// does some of their work. After [`Error::Invalid`] and [`Error::Overloaded`] nothing was written. After any other error the
    /// outcome is unknown: the batch may become visible yet, now or after the next opening; but
    /// while the log refuses, writes that come later fail before they reach it.
    pub fn write(&self, batch: Batch, durability: Durability) -> Result<Position> {
        let inner = &self.inner;
        if !inner.embedded {
            return Err(Error::invalid("the log of this store is its owner's: `apply`"));
        }
        batch.validate()?;
        let begun = (durability == Durability::Sync || is_turn()).then(Instant::now);
        let bytes = batch.bytes();
        inner.wait_for_room(bytes)?;
        let count = batch.len();
        let stored = batch.into_stored();
        let Placed { position, behind, memtable, first, inserting } =
            inner.place(count, &stored, durability)?;
        // Beside other threads, and beside a sync that may be under way: nobody sees it yet.
        memtable.insert(stored, count, first);
        inserting.done();
        match durability {
            Durability::Sync => inner.log.sync(position)?,
            Durability::Buffered => {
                inner.log.write()?;
                inner.in_flight.note_written(position);
                if behind > inner.log.durable() {
                    inner.log.sync(behind)?;
                }
            }
        }
        inner.counters.applied_bytes.fetch_add(bytes as u64, Relaxed);
        inner.show(first + count as u64 - 1);
        if let Some(begun) = begun {
            inner.meter.note_write(durability, begun);
        }
        Ok(position)
    }

    /// Writes one key.
    pub fn put(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        durability: Durability,
    ) -> Result<Position> {
        let mut batch = Batch::new();
        batch.put(key, value);
        self.write(batch, durability)
    }

    /// Deletes one key, which need not be there.
    pub fn delete(&self, key: impl AsRef<[u8]>, durability: Durability) -> Result<Position> {
        let mut batch = Batch::new();
        batch.delete(key);
        self.write(batch, durability)
    }
}

impl Inner {
    pub(super) fn apply(&self, mark: u64, covered_by: Position, batch: &Batch) -> Result<()> {
        batch.validate()?;
        self.check_position(covered_by, "a batch")?;
        let (count, stored) = (batch.len(), Bytes::copy_from_slice(batch.stored()));
        let mut applied = self.writer();
        if mark <= applied.last_mark {
            let replayed = mark > 0
                && applied.last_mark == self.flushed_at_open
                && covered_by <= self.last_at_open;
            return if replayed { Ok(()) } else { Err(mark_fell(mark, applied.last_mark)) };
        }
        let memtable = self.place_next(&mut applied, mark, covered_by, (count, stored.len()));
        memtable.insert(stored, count, applied.last_sequence + 1 - count as u64);
        self.counters.applied_bytes.fetch_add(batch.bytes() as u64, Relaxed);
        // From here on readers see the batch: all of it.
        self.visible.store(applied.last_sequence, Release);
        Ok(())
    }

    pub(super) fn check_position(&self, covered_by: Position, what: &str) -> Result<()> {
        if covered_by <= self.log.last() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "{what} that rests on log record {covered_by}, which is not there"
        )))
    }

    /// Puts a batch into the log, and keeps a place for it among all others.
    fn place(&self, count: usize, stored: &Bytes, durability: Durability) -> Result<Placed<'_>> {
        let prefix = CountPrefix::new(count);
        let mut applied = loop {
            let applied = self.writer();
            if !self.in_flight.is_full() {
                break applied;
            }
            drop(applied);
            self.log.sync(self.log.last())?;
            self.in_flight.advance(self.log.durable(), &self.visible);
            std::thread::yield_now();
        };
        let position = self.log.append_parts(WRITE_BATCH, &[prefix.as_slice(), stored])?;
        let first = applied.last_sequence + 1;
        let memtable = self.place_next(&mut applied, position.0, position, (count, stored.len()));
        let inserting = self.in_flight.begin(position, applied.last_sequence, durability);
        if durability == Durability::Sync {
            applied.last_synced = position;
        }
        Ok(Placed { position, behind: applied.last_synced, memtable, first, inserting })
    }

    /// Gives a batch, of so many operations and stored bytes, its sequences and its memtable.
    fn place_next(
        &self,
        applied: &mut Applied,
        mark: u64,
        covered_by: Position,
        (count, bytes): (usize, usize),
    ) -> Arc<Memtable> {
        assert!(mark > applied.last_mark, "marks rise, and so do positions in the log");
        let mut active = Arc::clone(&self.view().active);
        let full = active.bytes() + Memtable::bytes_of(count, bytes) > self.options.memtable_bytes;
        if full && active.entries() > 0 {
            self.freeze();
            active = Arc::clone(&self.view().active);
        }
        applied.last_sequence += count as u64;
        applied.last_mark = mark;
        active.announce(count, bytes, applied.last_sequence);
        active.note(mark, covered_by);
        active
    }

    /// Waits until readers see this sequence, all up to which is as durable as was asked for.
    pub(super) fn show(&self, sequence: Sequence) {
        self.in_flight.wait(sequence, self.log.durable(), &self.visible);
    }

    /// The right to apply. A thread that panicked with it left half a batch behind, which the next
    /// batch would make visible: then nothing more may be applied in this process.
    pub(super) fn writer(&self) -> MutexGuard<'_, Applied> {
        self.applied.lock().expect("no thread panicked while it applied a batch")
    }

    /// Puts a new memtable in the place of the active one. The caller holds `applied`.
    pub(super) fn freeze(&self) {
        self.change_view(|view| view.frozen());
        self.signal.raise();
    }

    /// Holds an embedded writer back, or makes it help, until there is room; refuses while the log
    /// does.
    pub(super) fn wait_for_room(&self, bytes: usize) -> Result<()> {
        if self.log.is_refusing() {
            // See whether the disk has room again, before anything new is appended.
            let last = self.log.last();
            self.log.sync(last)?;
            self.in_flight.advance(self.log.durable(), &self.visible);
        }
        if self.pressure() == Pressure::None {
            return Ok(());
        }
        let begun = Instant::now();
        let result = self.make_room(bytes);
        self.meter.stalls.record(begun.elapsed());
        result
    }

    fn make_room(&self, bytes: usize) -> Result<()> {
        loop {
            match self.pressure() {
                Pressure::None => return Ok(()),
                Pressure::Slow(delay) => {
                    self.throttle.wait(bytes, delay);
                    return Ok(());
                }
                Pressure::Stop => self.relieve()?,
            }
        }
    }
}

fn mark_fell(mark: u64, last: u64) -> Error {
    Error::invalid(format!("a batch marked {mark}, where marks must rise and {last} was the last"))
}
