//! Sorted rows that become segments of the tree without passing through log and memtable.
//!
//! ```text
//! put, delete ──► segment files, durable ──► memtables that meet them flushed ──► manifest ──► seen
//!                                                                             ▲
//!                                                   writers wait from here ───┘ to the end
//! ```
//!
//! All rows have one sequence, which is chosen when the first file is begun, far above all that will
//! be written until the end: so a snapshot of the time between does not see them, and they are newer
//! than all that was written before they became visible. What is written afterwards gets sequences
//! above theirs.
//!
//! A replay gives batches new sequences, above all that the manifest knows. So no batch that the
//! rows cover may still have to be replayed: memtables that hold such keys are flushed first.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};

use super::maintain::Edit;
use super::sorted::{SortedRows, check_row};
use super::write::Applied;
use super::{Durability, Inner, Store, View, lock};
use crate::batch::{Batch, Change};
use crate::compaction::Plan;
use crate::error::{Error, Result};
use crate::key::{Kind, SEQUENCE_STRIDE, Sequence};
use crate::levels::{LEVELS, Levels};
use crate::log::Position;
use crate::segment::{Segment, SegmentMeta};

/// Fewer bytes than this are written as one batch: a sync of the log costs less than a file.
const BATCH_BYTES: usize = 256 << 10;

/// Sequences from here on are kept for what is written: the engine counts to twice as many.
const SEQUENCE_LIMIT: Sequence = 1 << 62;

/// Rows on their way into a store, by rising keys. [`Ingest::finish`] makes all of them visible at
/// once; dropping it before that leaves nothing of them.
///
/// Memory holds at most a piece of one file, or 256 KiB of rows while there are not more.
pub struct Ingest {
    store: Store,
    rows: Rows,
    count: u64,
    /// Why rows are missing: nothing more is taken then.
    broken: Option<String>,
}

enum Rows {
    /// To be written as a batch.
    Few(Batch),
    /// To become segments.
    Many(Box<SortedRows>),
}

/// What became of the rows of an [`Ingest`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ingested {
    /// How many there were, deletes included.
    pub rows: u64,
    /// Segments that they made; none if they were so few that they were written as a batch.
    pub segments: u64,
    /// Bytes of those segments.
    pub bytes: u64,
}

impl Store {
    /// Takes rows by rising keys, far faster than batches: they are written once, as segments, and
    /// placed on the lowest level on which they lie over all that they overlap. When this returns
    /// they are durable, visible, all at once, and newer than all that was written before; and so
    /// is all that was written before.
    ///
    /// Keys that do not rise are refused by name ([`Error::Invalid`]). After that error and
    /// [`Error::Overloaded`] nothing has happened. After any other the outcome is unknown: all rows
    /// may be there, now or after the next opening, or none. Only a store of [`Store::open`] takes
    /// rows this way: under an owner's log a replay would know nothing of them, so there the rows are
    /// staged ([`Store::stage`]).
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use kvorum_storage::{Options, Store, vfs::MemoryVfs};
    /// # fn main() -> kvorum_storage::Result<()> {
    /// # let (vfs, dir) = (Arc::new(MemoryVfs::new()), "/store".as_ref());
    /// let store = Store::open(vfs, dir, Options::default())?;
    /// store.ingest((0..100_000_u32).map(|number| (number.to_be_bytes(), "a value")))?;
    /// assert_eq!(store.get(&99_u32.to_be_bytes())?.as_deref(), Some(&b"a value"[..]));
    /// # Ok(())
    /// # }
    /// ```
    pub fn ingest<K, V>(&self, rows: impl IntoIterator<Item = (K, V)>) -> Result<Ingested>
    where
        K: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        let mut ingest = self.begin_ingest()?;
        for (key, value) in rows {
            ingest.put(key.as_ref(), value.as_ref())?;
        }
        ingest.finish()
    }

    /// As [`Store::ingest`], for rows that come piece by piece, or deletes among them. One at a time:
    /// while there is another, this is refused.
    pub fn begin_ingest(&self) -> Result<Ingest> {
        let inner = &self.inner;
        if !inner.embedded {
            let what = "the log of this store is its owner's, and would not tell of ingested rows: `stage`, `seal_staged`, `install`";
            return Err(Error::invalid(what));
        }
        inner.check_poison()?;
        if inner.ingesting.swap(true, Acquire) {
            return Err(Error::invalid("rows are being ingested already: one ingest at a time"));
        }
        let rows = Rows::Few(Batch::new());
        Ok(Ingest { store: self.clone(), rows, count: 0, broken: None })
    }
}

impl Ingest {
    /// Adds a row. After [`Error::Invalid`], as of a key that is not above the last one, it was not
    /// added, and the next may be; after any other error all are given up.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        self.add(key, Kind::Put, value)
    }

    /// Adds a key that is to have no value, whether it has one or not. Errors as for [`Ingest::put`].
    pub fn delete(&mut self, key: &[u8]) -> Result<()> {
        self.add(key, Kind::Delete, &[])
    }

    /// How many rows were added.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.count
    }

    /// Makes all rows durable and visible, as [`Store::ingest`] says. Writers wait while the manifest
    /// is written, and while a memtable is flushed that they filled with keys of the rows meanwhile.
    pub fn finish(mut self) -> Result<Ingested> {
        self.check_broken()?;
        let rows = self.count;
        match &mut self.rows {
            Rows::Few(batch) if batch.is_empty() => Ok(Ingested::default()),
            Rows::Few(batch) => {
                self.store.write(std::mem::take(batch), Durability::Sync)?;
                self.store.inner.counters.note_ingest(rows, 0);
                Ok(Ingested { rows, ..Ingested::default() })
            }
            Rows::Many(sorted) => {
                let segments = self.store.inner.take_in(sorted)?;
                // They are the tree's: not to be removed when this is dropped.
                self.rows = Rows::Few(Batch::new());
                let bytes = segments.iter().map(|segment| segment.meta().bytes).sum();
                self.store.inner.counters.note_ingest(rows, bytes);
                Ok(Ingested { rows, segments: segments.len() as u64, bytes })
            }
        }
    }

    fn check_broken(&self) -> Result<()> {
        match &self.broken {
            None => Ok(()),
            Some(why) => Err(Error::invalid(format!("the ingest was given up: {why}"))),
        }
    }

    fn add(&mut self, key: &[u8], kind: Kind, value: &[u8]) -> Result<()> {
        self.check_broken()?;
        check_row("ingested", self.last_key(), key, value)?;
        let added = self.add_checked(key, kind, value);
        match &added {
            Ok(()) => self.count += 1,
            Err(error) => {
                self.store.inner.poison_if_in_doubt(error);
                self.broken = Some(error.to_string());
            }
        }
        added
    }

    fn last_key(&self) -> Option<&[u8]> {
        match &self.rows {
            Rows::Few(batch) => batch.last_key(),
            Rows::Many(sorted) => sorted.last_key(),
        }
    }

    fn add_checked(&mut self, key: &[u8], kind: Kind, value: &[u8]) -> Result<()> {
        let store = &self.store.inner;
        let batch = match &mut self.rows {
            Rows::Many(sorted) => return sorted.add(store, key, kind, value).map(drop),
            Rows::Few(batch) => batch,
        };
        match kind {
            Kind::Put => batch.put(key, value),
            Kind::Delete => batch.delete(key),
        };
        if batch.bytes() <= BATCH_BYTES.min(store.options.memtable_bytes / 4) {
            return Ok(());
        }
        let batch = std::mem::take(batch);
        let sorted = Box::new(SortedRows::new(store.sequence_ahead()?));
        self.rows = Rows::Many(sorted);
        let Rows::Many(sorted) = &mut self.rows else { return Ok(()) };
        for Change { key, kind, value, .. } in batch.changes() {
            sorted.add(store, key, kind, value)?;
        }
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        let store = &self.store.inner;
        // Where it is not known which manifest is there, it may be one that names the files.
        if let Rows::Many(sorted) = std::mem::replace(&mut self.rows, Rows::Few(Batch::new()))
            && store.poison.get().is_none()
        {
            store.remove_unnamed(&sorted.into_ids());
        }
        store.ingesting.store(false, Release);
    }
}

impl Inner {
    /// A sequence that everything that is written before the rows are visible stays below. It is a
    /// multiple of the stride, as no other is but by chance: a repair knows ingested rows by that.
    fn sequence_ahead(&self) -> Result<Sequence> {
        let next = self.writer().last_sequence / SEQUENCE_STRIDE + 2;
        let sequence = next.saturating_mul(SEQUENCE_STRIDE);
        if sequence < SEQUENCE_LIMIT {
            return Ok(sequence);
        }
        Err(Error::invalid("so often were rows ingested that no number is left: write batches"))
    }

    /// Makes the rows part of the tree.
    fn take_in(&self, sorted: &mut SortedRows) -> Result<Vec<Arc<Segment>>> {
        let result = self.try_take_in(sorted);
        result.inspect_err(|error| self.poison_if_in_doubt(error))
    }

    fn try_take_in(&self, sorted: &mut SortedRows) -> Result<Vec<Arc<Segment>>> {
        let open = |meta: SegmentMeta| {
            let planted = self.options.planted;
            Segment::open(&*self.vfs, &self.segments_dir, meta, &self.cache, planted).map(Arc::new)
        };
        self.check_poison()?;
        let metas = sorted.finish(self)?;
        let segments: Vec<Arc<Segment>> = metas.into_iter().map(open).collect::<Result<_>>()?;
        self.wait_for_room(0)?;
        // What can be done before writers wait.
        self.log.sync(self.log.last())?;
        if self.view().holds_keys_of(&segments) {
            self.flush_all()?;
        }
        // Nobody flushes or applies from here on.
        let _flushing = lock(&self.flushing);
        let mut applied = self.writer();
        self.settle_before(&mut applied, &segments, sorted.sequence())?;
        let sequence = sorted.sequence();
        self.compactions.hold(|running| {
            let view = self.view();
            let level = |segment: &Arc<Segment>| level_over(&view.levels, running, segment.meta());
            let added = segments.iter().map(|segment| (level(segment), segment.clone())).collect();
            let edit = Edit { added, last_sequence: sequence, ..Edit::default() };
            self.edit(&mut lock(&self.manifest), edit, Position::default())
        })?;
        // From here on nothing fails.
        applied.last_sequence = sequence;
        self.visible.store(sequence, Release);
        Ok(segments)
    }

    /// Brings to segments, and makes durable, all that must be there before the rows.
    fn settle_before(
        &self,
        applied: &mut Applied,
        segments: &[Arc<Segment>],
        sequence: Sequence,
    ) -> Result<()> {
        if applied.last_sequence >= sequence {
            let what = "more was written meanwhile than an ingest can come after: do it again";
            return Err(Error::Overloaded { what: what.into() });
        }
        // A store that has the rows has all that came before.
        self.log.sync(Position(applied.last_mark))?;
        // Nobody gets a place from here on, and who has one is in the memtable after this.
        self.show(applied.last_sequence);
        // A reader who has the view of before takes a later sequence at most as his: what is applied
        // after the rows must not be in that view, or he would see it without them.
        self.renew_memtable();
        while self.view().holds_keys_of(segments) {
            self.flush_oldest()?;
        }
        Ok(())
    }

    /// Puts a new memtable in the place of the active one. The caller holds `applied`.
    fn renew_memtable(&self) {
        if !self.view().active.is_untouched() {
            return self.freeze();
        }
        self.change_view(|view| view.with_new_active());
    }
}

/// The lowest level on which a segment lies over all that it overlaps, and where nothing that a
/// compaction under way will put there can meet it. Level 0 takes all: nothing is newer.
fn level_over(levels: &Levels, running: &[&Plan], segment: &SegmentMeta) -> usize {
    let (smallest, largest) = (&segment.smallest, &segment.largest);
    let is_free = |level: &usize| {
        running.iter().all(|plan| {
            let (from, to) = &plan.range;
            plan.to != *level || largest < from || to < smallest
        })
    };
    let first = (0..LEVELS).find(|level| levels.overlaps(*level, smallest, largest));
    (1..first.unwrap_or(LEVELS)).rev().find(is_free).unwrap_or(0)
}

impl View {
    /// Whether a memtable has a key between the smallest and the largest of one of the segments.
    fn holds_keys_of(&self, segments: &[Arc<Segment>]) -> bool {
        let memtables = || std::iter::once(&self.active).chain(&self.frozen);
        segments.iter().any(|segment| {
            let meta = segment.meta();
            memtables().any(|memtable| memtable.holds_any(&meta.smallest, &meta.largest))
        })
    }
}
