//! Writing: batches that an owner's log stands for, and batches that the store logs itself.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use bytes::Bytes;

use super::maintain::Maintained;
use super::meter::is_turn;
use super::pressure::Pressure;
use super::{Inner, Store, lock};
use crate::batch::{Batch, Operation};
use crate::error::{Error, Result};
use crate::key::{Kind, Sequence, Tag};
use crate::log::Position;

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

/// How far batches were applied.
pub(super) struct Applied {
    pub(super) last_sequence: Sequence,
    pub(super) last_mark: u64,
}

/// Embedded writes between their log record and their application, by position.
#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<(Position, Batch)>,
}

impl Store {
    /// Makes a batch visible, all of it at once. Nothing is written: the batch stands in a log
    /// record of the caller's, from which the caller will apply it again after a crash.
    ///
    /// `mark` numbers the batches in the order in which a replay meets them: it rises with each. A
    /// mark that was flushed before this opening is skipped, if the log record is as old; that is
    /// all the caller needs to know of what replay may repeat. The records that the batch rests on end at `covered_by`;
    /// they need not be durable yet, but are made so before the batch goes to a segment.
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
    /// the order of the log; those that wait for the disk together are synced together.
    ///
    /// If flush and compaction are far behind, the caller does some of their work first. After
    /// [`Error::Invalid`] and [`Error::Overloaded`] nothing was written. After any other error the
    /// outcome is unknown: the batch may become visible yet, now or after the next opening; but
    /// while the log refuses, writes that come later fail before they reach it.
    pub fn write(&self, batch: Batch, durability: Durability) -> Result<Position> {
        if !self.inner.embedded {
            return Err(Error::invalid("the log of this store is its owner's: `apply`"));
        }
        batch.validate()?;
        let begun = (durability == Durability::Sync || is_turn()).then(Instant::now);
        self.inner.wait_for_room(batch.bytes())?;
        let mut record = Vec::with_capacity(batch.bytes() + 16 * batch.len() + 8);
        batch.encode(&mut record);
        let position = {
            // Under the lock, so that the queue has the order of the log.
            let mut queue = lock(&self.inner.queue);
            let position = self.inner.log.append(WRITE_BATCH, &record)?;
            queue.waiting.push_back((position, batch));
            position
        };
        match durability {
            Durability::Sync => self.inner.log.sync(position)?,
            Durability::Buffered => self.inner.log.write()?,
        }
        self.inner.apply_queue(position);
        if let Some(begun) = begun {
            let meter = &self.inner.meter;
            match durability {
                Durability::Sync => meter.synced_writes.record(begun.elapsed()),
                Durability::Buffered => meter.buffered_writes.record(begun.elapsed()),
            }
        }
        Ok(position)
    }

    /// Writes one key.
    pub fn put(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        durability: Durability,
    ) -> Result<Position> {
        let mut batch = Batch::new();
        batch.put(key, value);
        self.write(batch, durability)
    }

    /// Deletes one key, which need not be there.
    pub fn delete(&self, key: impl Into<Bytes>, durability: Durability) -> Result<Position> {
        let mut batch = Batch::new();
        batch.delete(key);
        self.write(batch, durability)
    }
}

impl Inner {
    pub(super) fn apply(&self, mark: u64, covered_by: Position, batch: &Batch) -> Result<()> {
        batch.validate()?;
        self.check_position(covered_by, "a batch")?;
        let mut applied = self.writer();
        if mark <= applied.last_mark {
            let replayed = mark > 0
                && applied.last_mark == self.flushed_at_open
                && covered_by <= self.last_at_open;
            return if replayed { Ok(()) } else { Err(mark_fell(mark, applied.last_mark)) };
        }
        self.apply_next(&mut applied, mark, covered_by, batch);
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

    /// Applies the embedded writes up to `position`, unless another thread did.
    fn apply_queue(&self, position: Position) {
        let mut applied = self.writer();
        loop {
            let next = lock(&self.queue).waiting.pop_front_if(|(at, _)| *at <= position);
            let Some((at, batch)) = next else { return };
            assert!(at.0 > applied.last_mark, "the queue has the order of the log");
            self.apply_next(&mut applied, at.0, at, &batch);
        }
    }

    fn apply_next(&self, applied: &mut Applied, mark: u64, covered_by: Position, batch: &Batch) {
        let mut active = Arc::clone(&self.view().active);
        let is_full = active.bytes() + batch.bytes() > self.options.memtable_bytes;
        if is_full && active.entries() > 0 {
            self.freeze();
            active = Arc::clone(&self.view().active);
        }
        for operation in batch.operations() {
            applied.last_sequence += 1;
            match operation {
                Operation::Put { key, value } => {
                    active.insert(key, Tag::new(applied.last_sequence, Kind::Put), value);
                }
                Operation::Delete { key } => {
                    active.insert(key, Tag::new(applied.last_sequence, Kind::Delete), &[]);
                }
            }
        }
        active.note(mark, covered_by);
        self.counters.applied_bytes.fetch_add(batch.bytes() as u64, Relaxed);
        applied.last_mark = mark;
        // From here on readers see the batch: all of it.
        self.visible.store(applied.last_sequence, Release);
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
            self.apply_queue(last);
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
                Pressure::Stop => {
                    let seen = self.signal.installed();
                    if self.maintain()? == Maintained::Nothing && self.pressure() == Pressure::Stop
                    {
                        // Others are at it: wait for what they install.
                        self.signal.wait_installed(seen);
                    }
                }
            }
        }
    }
}

fn mark_fell(mark: u64, last: u64) -> Error {
    Error::invalid(format!("a batch marked {mark}, where marks must rise and {last} was the last"))
}
