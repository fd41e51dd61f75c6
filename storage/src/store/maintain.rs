//! The background work: flushing, compacting, cutting the log. One unit at a time, on the thread
//! of whoever calls.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::Release};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

use super::{Inner, Pressure, Store, lock};
use crate::compaction::{Job, Output, Retention};
use crate::cursor::{Direction, Merge, Source};
use crate::error::{Error, Result};
use crate::key::Sequence;
use crate::levels::Levels;
use crate::log::Position;
use crate::manifest::Manifest;
use crate::memtable::Memtable;
use crate::planted::Bug;
use crate::segment::Segment;

/// What [`Store::maintain`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maintained {
    /// One unit of work. There may be more.
    Did(Work),
    /// There is nothing to do, or others are doing it.
    Nothing,
}

/// A unit of background work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A frozen memtable became a segment of level 0.
    Flushed,
    /// The log was cut as far as its owner and the flushes allow.
    CutLog,
    /// Segments of this level were merged into the next, or moved there.
    Compacted {
        /// The upper one of the two levels.
        level: usize,
    },
    /// Some of the files that an install left over were removed.
    Removed,
}

/// A change of the tree.
#[derive(Default)]
pub(super) struct Edit<'a> {
    pub(super) removed: BTreeSet<u64>,
    pub(super) added: Vec<(usize, Arc<Segment>)>,
    pub(super) flushed: Option<&'a Arc<Memtable>>,
    /// That of what is added, if it is no older than all that was flushed.
    pub(super) last_sequence: Sequence,
}

impl Store {
    /// Does one unit of the work that waits: removes files that an install left over, flushes a
    /// memtable, cuts the log, or compacts.
    ///
    /// After [`Error::DiskFull`] nothing has changed; a later call tries again. After an error that
    /// leaves the disk in doubt the store takes no more work until it is opened again; reads go on.
    pub fn maintain(&self) -> Result<Maintained> {
        self.inner.maintain()
    }

    /// Waits until there may be work for [`Store::maintain`], or the time is over; whether there
    /// may be. Each cause wakes one waiter.
    pub fn wait_for_maintenance(&self, timeout: Duration) -> bool {
        self.inner.signal.wait(timeout)
    }

    /// Ends a wait in [`Store::wait_for_maintenance`], for an owner that wants its thread back.
    pub fn wake_maintenance(&self) {
        self.inner.signal.raise();
    }

    /// Brings everything that was applied before this call to segments, and cuts the log.
    pub fn flush(&self) -> Result<()> {
        self.inner.flush_all()
    }
}

impl Inner {
    pub(super) fn maintain(&self) -> Result<Maintained> {
        self.check_poison()?;
        // First, since a flush may fail for want of the room that this gives back.
        if self.remove_outdated() {
            return Ok(Maintained::Did(Work::Removed));
        }
        if let Some(_flushing) = try_lock(&self.flushing) {
            if self.view().frozen.is_empty() && self.log_is_too_long() {
                let _applied = self.writer();
                self.freeze();
            }
            if self.flush_oldest()? {
                return Ok(Maintained::Did(Work::Flushed));
            }
            if self.cut_log()? {
                return Ok(Maintained::Did(Work::CutLog));
            }
        }
        Ok(self.compact_some()?.map_or(Maintained::Nothing, Maintained::Did))
    }

    /// Flushes a memtable in the middle of other work, if one waits and nobody does it: a compaction
    /// may take seconds, and writers come to a halt when memory is full. Whether that went well.
    pub(super) fn flush_meanwhile(&self) -> bool {
        if self.borrow_view().frozen.is_empty() {
            return true;
        }
        let Some(_flushing) = try_lock(&self.flushing) else { return true };
        // Who flushes next is told of a failure.
        self.flush_oldest().and_then(|_| self.cut_log()).is_ok()
    }

    /// What a writer does who must stop: the work that would let him go on, if nobody is at it;
    /// else he waits for a moment. He does not help others with a compaction, which would keep him
    /// for longer than its end does.
    pub(super) fn relieve(&self) -> Result<()> {
        self.check_poison()?;
        let seen = self.signal.installed();
        let is_memory = self.borrow_view().frozen.len() >= self.options.memtables_max;
        let is_done = match try_lock(&self.flushing) {
            Some(_flushing) if is_memory => {
                self.remove_outdated();
                self.flush_oldest()? | self.cut_log()?
            }
            guard => {
                drop(guard);
                !is_memory && !self.compactions.is_any() && self.maintain()? != Maintained::Nothing
            }
        };
        if !is_done && self.pressure() == Pressure::Stop {
            // Others are at it: wait for what they install.
            self.signal.wait_installed(seen);
        }
        Ok(())
    }

    pub(super) fn flush_all(&self) -> Result<()> {
        self.check_poison()?;
        let _flushing = lock(&self.flushing);
        {
            let _applied = self.writer();
            if !self.view().active.is_untouched() {
                self.freeze();
            }
        }
        while self.flush_oldest()? {}
        self.cut_log()?;
        Ok(())
    }

    /// Whether the memtable should be flushed although it is not full, for the log's sake: the log
    /// is longer than wanted, has grown by a good part since the last time, and there is something
    /// to be cut by a flush.
    pub(super) fn log_is_too_long(&self) -> bool {
        let bytes = self.log.bytes();
        let grown = bytes.saturating_sub(self.log_bytes_flushed.load(Relaxed));
        bytes > self.options.log_bytes_max
            && grown > self.options.log_bytes_max / 4
            && !self.view().active.is_untouched()
            && (self.embedded || !lock(&self.releases).is_empty())
    }

    /// Flushes the oldest frozen memtable; whether there was one. The caller holds `flushing`.
    pub(super) fn flush_oldest(&self) -> Result<bool> {
        let (memtable, installs) = {
            let view = self.borrow_view();
            let Some(memtable) = view.frozen.last() else { return Ok(false) };
            (Arc::clone(memtable), view.installs)
        };
        let memtable = &memtable;
        // A segment must never hold what the log could still lose.
        if !self.options.planted.has(Bug::FlushAheadOfLog) {
            self.log.sync(memtable.covered_by())?;
            // Nor lack what a thread has yet to insert.
            self.show(memtable.last_sequence());
        }
        if self.options.planted.has(Bug::CutLogBeforeFlush)
            && let Some(before) = lock(&self.releases).take(memtable.last_mark())
        {
            self.log.truncate_before(before)?;
        }
        let begun = Instant::now();
        let mut added = Vec::new();
        if memtable.entries() > 0 {
            let merge = Merge::new(vec![Source::memtable(memtable)], None, Direction::Forwards)?;
            self.flushed_entries.store(0, Relaxed);
            let levels = Arc::clone(&self.borrow_view().levels);
            let goes_on = |entries| {
                count(&self.flushed_entries, entries);
                true
            };
            let output = self.run(merge, self.job(&levels, &goes_on))?;
            count(&self.counters.flushed_bytes, bytes_of(&output.segments));
            added.extend(output.segments.into_iter().map(|segment| (0, segment)));
        }
        let edit = Edit { added, flushed: Some(memtable), ..Edit::default() };
        let is_flushed = self.change_tree(installs, edit)?;
        self.flushed_entries.store(0, Relaxed);
        count(&self.counters.flushes, u64::from(is_flushed));
        self.meter.flushes.record(begun.elapsed());
        Ok(true)
    }

    /// Cuts the log as far as the owner and the flushes allow; whether that is further than before.
    fn cut_log(&self) -> Result<bool> {
        let flushed_mark = self.flushed_mark.load(Relaxed);
        if self.embedded && !self.replaying.load(Relaxed) {
            lock(&self.releases).add(Position(flushed_mark + 1), flushed_mark);
        }
        let too_far = u64::from(self.options.planted.has(Bug::CutOneTooFar));
        let before = lock(&self.releases).take(flushed_mark + too_far);
        let Some(before) = before else { return Ok(false) };
        let first = self.log.first();
        if let Err(error) = self.note_cut(before).and_then(|()| self.log.truncate_before(before)) {
            // Later there may be room for the note, or no want of open files. A poisoned log is cut no
            // more, and must not keep others from compacting.
            if !matches!(error, Error::Poisoned { .. }) {
                lock(&self.releases).put_back(before, flushed_mark);
            }
            return Err(error);
        }
        self.log_bytes_flushed.store(self.log.bytes(), Relaxed);
        // Only whole files go: most words free none.
        let is_cut = self.log.first() > first;
        count(&self.counters.log_cuts, u64::from(is_cut));
        Ok(is_cut)
    }

    /// Writes down that the log may begin here, before it does: a log that begins behind what the
    /// manifest says has lost files. So has one that ends before that, so it must be durable.
    fn note_cut(&self, before: Position) -> Result<()> {
        let rests_on = Position(before.0.saturating_sub(1)).min(self.log.last());
        let noted = lock(&self.manifest).flushed_position >= rests_on;
        if noted || !self.log.would_cut(before) {
            return Ok(());
        }
        self.log.sync(rests_on)?;
        self.edit(&mut lock(&self.manifest), Edit::default(), rests_on)
    }

    /// What is to be written from this tree.
    pub(super) fn job<'a>(
        &'a self,
        levels: &'a Levels,
        goes_on: &'a dyn Fn(u64) -> bool,
    ) -> Job<'a> {
        Job {
            vfs: &*self.vfs,
            dir: &self.segments_dir,
            options: self.options.segment(0),
            cache: &self.cache,
            segment_bytes: None,
            next_segment: &self.next_segment,
            levels,
            below: Some(0),
            end: None,
            goes_on,
        }
    }

    /// Merges into new segments what somebody can still see.
    pub(super) fn run(&self, merge: Merge, job: Job<'_>) -> Result<Output> {
        let (mut snapshots, now) = self.snapshots.all(|| self.visible());
        if self.options.planted.has(Bug::CompactionForgetsSnapshots) {
            snapshots.clear();
        }
        let result = job.run(merge, Retention::new(snapshots, now));
        result.inspect_err(|error| self.poison_if_in_doubt(error))
    }

    /// Makes an edit of the tree part of the store, unless all of it was replaced since there had been
    /// so many installs: then it would bring old rows back, and what it adds is thrown away. Whether
    /// it was made.
    pub(super) fn change_tree(&self, installs: u64, edit: Edit<'_>) -> Result<bool> {
        let mut manifest = lock(&self.manifest);
        if self.view().installs != installs {
            self.discard_added(&edit);
            return Ok(false);
        }
        self.edit(&mut manifest, edit, Position::default())?;
        Ok(true)
    }

    /// Makes an edit part of the store: first on disk, then in memory. Nothing before and at this
    /// position of the log is needed any more.
    pub(super) fn edit(
        &self,
        manifest: &mut Manifest,
        edit: Edit<'_>,
        rests_on: Position,
    ) -> Result<()> {
        let mut next = manifest.clone();
        next.generation += 1;
        next.next_segment = self.next_segment_id();
        next.segments.retain(|(_, segment)| !edit.removed.contains(&segment.id));
        let added = edit.added.iter().map(|(level, segment)| (*level, segment.meta().clone()));
        next.segments.extend(added);
        next.flushed_position = next.flushed_position.max(rests_on);
        next.last_sequence = next.last_sequence.max(edit.last_sequence);
        if let Some(memtable) = edit.flushed {
            next.flushed_mark = memtable.last_mark();
            next.flushed_position = next.flushed_position.max(memtable.covered_by());
            next.last_sequence = next.last_sequence.max(memtable.last_sequence());
        }
        // What was reached otherwise will not be installed.
        let flushed_mark = next.flushed_mark;
        let outdated = next.staged.take_if(|staged| staged.mark <= flushed_mark);
        if let Err(error) = next.write(&*self.vfs, &self.dir, self.options.planted) {
            self.poison_if_in_doubt(&error);
            if self.poison.get().is_none() {
                // The manifest is the old one for sure, so that nothing names the new segments.
                self.discard_added(&edit);
            }
            return Err(error);
        }
        self.change_view(|view| {
            let levels = view.levels.edited(&edit.removed, edit.added);
            view.flushed(edit.flushed, levels, &self.options.limits())
        });
        self.flushed_mark.store(next.flushed_mark, Release);
        *manifest = next;
        if let Some(outdated) = outdated {
            self.put_out_staged(&outdated);
            self.counters.forget_staged();
        }
        self.signal.install();
        Ok(())
    }

    /// Removes the segments that an edit would have added; what it would have moved stays.
    fn discard_added(&self, edit: &Edit<'_>) {
        let is_new =
            |(_, segment): &&(usize, Arc<Segment>)| !edit.removed.contains(&segment.meta().id);
        let new: Vec<_> = edit.added.iter().filter(is_new).map(|(_, s)| s.clone()).collect();
        self.discard(&new);
    }

    pub(super) fn discard(&self, segments: &[Arc<Segment>]) {
        for segment in segments {
            let _ = self.vfs.remove(segment.path());
        }
    }
}

pub(super) fn bytes_of(segments: &[Arc<Segment>]) -> u64 {
    segments.iter().map(|segment| segment.meta().bytes).sum()
}

pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Relaxed);
}

fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
