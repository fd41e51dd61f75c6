//! All that a reader needs, as it is at one moment.

use std::sync::{Arc, Mutex};

use arc_swap::{ArcSwap, Guard};
use bytes::Bytes;

use super::lock;
use crate::compaction::Limits;
use crate::cursor::Source;
use crate::error::Result;
use crate::key::{Kind, Sequence, Tag};
use crate::levels::Levels;
use crate::memtable::Memtable;
use crate::range::KeyRange;
use crate::scan::Cursor;
use crate::segment::{Check, Segment};

/// The memtables and the tree. The active memtable goes on to grow; all else never changes.
pub(crate) struct View {
    /// How often all of it was replaced since the store was opened.
    pub(crate) installs: u64,
    pub(super) active: Arc<Memtable>,
    /// Frozen memtables, newest first.
    pub(super) frozen: Vec<Arc<Memtable>>,
    pub(super) levels: Arc<Levels>,
    /// Bytes that sorted levels hold beyond their targets.
    pub(super) excess: u64,
}

/// The view that there is now. Readers take it without a lock and without a count that they
/// share, so they do not slow each other down.
pub(super) struct CurrentView {
    view: ArcSwap<View>,
    /// Held by the one who replaces it.
    replacing: Mutex<()>,
}

impl CurrentView {
    pub(super) fn new(view: View) -> CurrentView {
        CurrentView { view: ArcSwap::from_pointee(view), replacing: Mutex::new(()) }
    }

    /// For a moment: a reader who keeps it makes it count.
    pub(super) fn borrow(&self) -> Guard<Arc<View>> {
        self.view.load()
    }

    pub(super) fn get(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Makes the next view, one at a time. With the last one may go a whole memtable: what is not
    /// read any more is dropped here, after the lock.
    pub(super) fn replace(&self, change: impl FnOnce(&Arc<View>) -> View) {
        let last = {
            let _replacing = lock(&self.replacing);
            let next = change(&self.view.load());
            self.view.swap(Arc::new(next))
        };
        drop(last);
    }
}

impl View {
    /// The key's value for a reader at `sequence`. What is above is newer: the first find counts.
    pub(crate) fn get(&self, key: &[u8], sequence: Sequence) -> Result<Option<Bytes>> {
        for memtable in self.memtables() {
            if let Some((tag, value)) = memtable.get(key, sequence) {
                return Ok(is_put(tag).then_some(value));
            }
        }
        let found = self.levels.get(key, sequence)?;
        Ok(found.and_then(|(tag, value)| is_put(tag).then_some(value)))
    }

    /// The same, for who needs the value only for a moment: nothing is counted or copied.
    pub(crate) fn get_with<T>(
        &self,
        key: &[u8],
        sequence: Sequence,
        found: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>> {
        for memtable in self.memtables() {
            if let Some((tag, value)) = memtable.get_ref(key, sequence) {
                return Ok(is_put(tag).then(|| found(value)));
            }
        }
        let found = |tag, value: &[u8]| is_put(tag).then(|| found(value));
        Ok(self.levels.get_with(key, sequence, found)?.flatten())
    }

    /// Whether a memtable knows the key, so that nothing below is asked.
    pub(super) fn is_in_memtable(&self, key: &[u8], sequence: Sequence) -> bool {
        self.memtables().any(|memtable| memtable.get(key, sequence).is_some())
    }

    /// Walks the range, at no entry yet. What cannot hold any of it is left out.
    pub(crate) fn cursor(&self, range: KeyRange, sequence: Sequence) -> Cursor {
        let mut sources: Vec<Source> = self.memtables().map(Source::memtable).collect();
        let overlaps = |segment: &&Arc<Segment>| range.overlaps(segment.meta());
        let flushed = self.levels.level(0).iter().filter(overlaps);
        sources.extend(flushed.map(|segment| Source::segment(segment, Check::Once)));
        for level in self.levels.sorted() {
            let before = range.low().map_or(0, |key| level.count_before(key));
            // The next may end with the very key that the range begins behind: then the one after.
            if level.segments()[before..].iter().take(2).any(|it| range.overlaps(it.meta())) {
                sources.push(Source::level(level, Check::Once));
            }
        }
        Cursor::new(sources, range, sequence)
    }

    /// Those that hold anything, newest first. A reader takes its sequence first, so that what is
    /// put into an empty one from now on is newer than what it reads.
    fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        let all = std::iter::once(&self.active).chain(&self.frozen);
        all.filter(|memtable| memtable.entries() > 0)
    }

    /// The same with the active memtable frozen, and a new one.
    pub(super) fn frozen(&self) -> View {
        let mut frozen = vec![Arc::clone(&self.active)];
        frozen.extend(self.frozen.iter().cloned());
        View {
            installs: self.installs,
            active: Arc::new(Memtable::new()),
            frozen,
            levels: Arc::clone(&self.levels),
            excess: self.excess,
        }
    }

    /// The same with a new active memtable in the place of one in which nothing is.
    pub(super) fn with_new_active(&self) -> View {
        View {
            installs: self.installs,
            active: Arc::new(Memtable::new()),
            frozen: self.frozen.clone(),
            levels: Arc::clone(&self.levels),
            excess: self.excess,
        }
    }

    /// The same without the oldest frozen memtable, if it was flushed, and with another tree.
    pub(super) fn flushed(
        &self,
        flushed: Option<&Arc<Memtable>>,
        levels: Levels,
        limits: &Limits,
    ) -> View {
        let is_left = |memtable: &&Arc<Memtable>| {
            flushed.is_none_or(|flushed| !Arc::ptr_eq(flushed, memtable))
        };
        View {
            installs: self.installs,
            active: Arc::clone(&self.active),
            frozen: self.frozen.iter().filter(is_left).cloned().collect(),
            excess: limits.excess(&levels.shape()),
            levels: Arc::new(levels),
        }
    }
}

fn is_put(tag: Tag) -> bool {
    tag.kind() == Kind::Put
}
