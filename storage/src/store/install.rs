//! Staged rows take the place of everything: one manifest, and one step for readers.
//!
//! What an install must not leave behind, and what sees to it:
//!
//! - memtables and frozen memtables: they are not in the next view;
//! - a flush or a compaction that is under way: what it has made is of a tree that is gone, and is
//!   thrown away when it comes to change the tree ([`Inner::change_tree`]);
//! - records of the log that a replay would apply again: the flushed mark covers them.
//!
//! What it must leave: snapshots keep the view that they were taken of, and scans theirs.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};

use super::{Inner, Store, View, lock};
use crate::compaction::BOTTOM;
use crate::error::{Error, Result};
use crate::key::SEQUENCE_STAGED;
use crate::levels::Levels;
use crate::log::Position;
use crate::manifest::{Manifest, Staged};
use crate::memtable::Memtable;
use crate::segment::{Segment, path_of};

/// Files are removed so many at a time, so that a flush need not wait long for its turn.
const REMOVED_AT_ONCE: usize = 8;

/// The file of a segment that no manifest names any more.
pub(super) struct Outdated {
    path: PathBuf,
    /// Who reads from it has it mapped. Letting go of the last map takes as long as removing.
    _segment: Option<Arc<Segment>>,
}

impl Store {
    /// Makes the rows that were sealed under this mark the store, and nothing else, as if every
    /// batch up to `mark` had been applied: all at once for readers, and for a crash. What was
    /// applied before is gone, but snapshots and scans that were begun before keep it.
    ///
    /// If segments reach the mark already, as in a replay of what was installed before a crash, this
    /// does nothing. `covered_by` is the position of the log record that says so, as in
    /// [`Store::apply`].
    ///
    /// If nothing is sealed under this mark, the error names it. After an error the store is as it
    /// was; but after one that leaves the disk in doubt, the next opening may find the rows
    /// installed.
    pub fn install(&self, mark: u64, covered_by: Position) -> Result<()> {
        let inner = &self.inner;
        inner.refuse_embedded("staged rows are installed")?;
        inner.check_poison()?;
        inner.check_position(covered_by, "an install")?;
        if mark <= self.flushed_mark() {
            return Ok(());
        }
        // A segment must never hold what the log could still lose.
        inner.log.sync(covered_by)?;
        // Nobody applies meanwhile: the memtables must hold what the view says, and no more.
        let mut applied = inner.writer();
        let mut manifest = lock(&inner.manifest);
        if mark <= applied.last_mark {
            let last = applied.last_mark;
            let what = format!("mark {mark} cannot be installed: mark {last} was applied");
            return Err(Error::invalid(what));
        }
        let staged = manifest.sealed_under(mark)?;
        let segments = inner.open_staged(staged)?;
        // They are all there is: nothing will have to be merged below them.
        let level = BOTTOM;
        let last_sequence = applied.last_sequence.max(SEQUENCE_STAGED);
        let next = Manifest {
            generation: manifest.generation + 1,
            next_segment: inner.next_segment_id(),
            flushed_mark: mark,
            flushed_position: manifest.flushed_position.max(covered_by),
            last_sequence,
            segments: segments.iter().map(|it| (level, it.meta().clone())).collect(),
            staged: None,
        };
        next.write(&*inner.vfs, &inner.dir, inner.options.planted)
            .inspect_err(|error| inner.poison_if_in_doubt(error))?;
        // From here on nothing fails.
        applied.last_mark = mark;
        applied.last_sequence = last_sequence;
        let levels = Levels::new(segments.into_iter().map(|segment| (level, segment)));
        let old = inner.replace_view(levels, last_sequence);
        inner.flushed_mark.store(mark, Release);
        *manifest = next;
        inner.put_out(old.levels.iter().map(|(_, segment)| Arc::clone(segment)));
        drop(manifest);
        drop(applied);
        inner.counters.installs.fetch_add(1, Relaxed);
        inner.counters.forget_staged();
        inner.signal.install();
        Ok(())
    }
}

impl Manifest {
    fn sealed_under(&self, mark: u64) -> Result<&Staged> {
        let what = match &self.staged {
            Some(staged) if staged.mark == mark => return Ok(staged),
            Some(staged) => format!("what is sealed is the state at mark {}", staged.mark),
            None => "nothing is sealed".to_owned(),
        };
        Err(Error::invalid(format!("mark {mark} cannot be installed: {what}")))
    }
}

impl Inner {
    /// Opens what is staged, and looks at all of it but the rows: they are checked as they are read.
    pub(super) fn open_staged(&self, staged: &Staged) -> Result<Vec<Arc<Segment>>> {
        let planted = self.options.planted;
        let open = |meta: &_| {
            let meta = Clone::clone(meta);
            let segment =
                Segment::open(&*self.vfs, &self.segments_dir, meta, &self.cache, planted)?;
            segment.check_frame()?;
            Ok(Arc::new(segment))
        };
        staged.segments.iter().map(open).collect()
    }

    /// Shows readers this tree and empty memtables. Answers with the view before.
    fn replace_view(&self, levels: Levels, last_sequence: u64) -> Arc<View> {
        // First, so that no reader who sees the new tree reads it from before it was there.
        self.visible.store(last_sequence, Release);
        self.snapshots.replace(|| {
            let mut old = self.view();
            self.change_view(|view| {
                old = Arc::clone(view);
                View {
                    installs: view.installs + 1,
                    active: Arc::new(Memtable::new()),
                    frozen: Vec::new(),
                    levels: Arc::new(levels),
                    excess: 0,
                }
            });
            old
        })
    }

    /// Leaves files to be removed by [`Store::maintain`]: many of them take a while.
    fn put_out(&self, segments: impl Iterator<Item = Arc<Segment>>) {
        let outdated = segments.map(|segment| Outdated {
            path: segment.path().to_path_buf(),
            _segment: Some(segment),
        });
        lock(&self.outdated).extend(outdated);
    }

    /// As [`Self::put_out`], for what was staged and will not be installed.
    pub(super) fn put_out_staged(&self, staged: &Staged) {
        let path = |id| path_of(&self.segments_dir, id);
        let outdated =
            staged.segments.iter().map(|it| Outdated { path: path(it.id), _segment: None });
        lock(&self.outdated).extend(outdated);
    }

    /// Removes some of the files that nobody names; whether there were any.
    pub(super) fn remove_outdated(&self) -> bool {
        let some: Vec<Outdated> = {
            let mut outdated = lock(&self.outdated);
            let from = outdated.len().saturating_sub(REMOVED_AT_ONCE);
            outdated.drain(from..).collect()
        };
        for file in &some {
            // A file that cannot be removed now is an orphan, and goes at the next opening.
            let _ = self.vfs.remove(&file.path);
        }
        !some.is_empty()
    }
}
