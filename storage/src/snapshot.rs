//! Snapshots: reading at one point for as long as one likes.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex};

use arc_swap::Guard;
use bytes::Bytes;

use crate::cursor::Direction;
use crate::error::Result;
use crate::key::Sequence;
use crate::planted::Bug;
use crate::range::KeyRange;
use crate::scan::{Cursor, Scan};
use crate::store::{Inner, View, lock};

/// The store as it was at one point. Dropping it lets compaction forget that point.
///
/// It holds no memory and no files by itself, but every version that it can see is kept while it
/// lives. If the store is replaced meanwhile by [`Store::install`](crate::Store::install), all that
/// was there is kept, in memory and on disk.
pub struct Snapshot {
    store: Arc<Inner>,
    /// How often the store had been replaced before.
    installs: u64,
    sequence: Sequence,
}

impl Snapshot {
    pub(crate) fn new(store: &Arc<Inner>) -> Snapshot {
        let (installs, sequence) = store.snapshots.register(|| store.visible());
        Snapshot { store: Arc::clone(store), installs, sequence }
    }

    /// The key's value at that point.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.view().get(key, self.sequence())
    }

    /// What `found` makes of the key's value, as in [`Store::get_with`](crate::Store::get_with).
    pub fn get_with<T>(&self, key: &[u8], found: impl FnOnce(&[u8]) -> T) -> Result<Option<T>> {
        self.view().get_with(key, self.sequence(), found)
    }

    /// The keys of a range and their values at that point.
    pub fn scan(&self, range: impl Into<KeyRange>, direction: Direction) -> Result<Scan> {
        Scan::new(self.cursor(range), direction)
    }

    /// Walks a range both ways, as it was at that point.
    #[must_use]
    pub fn cursor(&self, range: impl Into<KeyRange>) -> Cursor {
        self.view().cursor(range.into(), self.sequence())
    }

    fn view(&self) -> Guard<Arc<View>> {
        let view = self.store.borrow_view();
        if view.installs == self.installs {
            return view;
        }
        let replaced = self.store.snapshots.replaced(self.installs);
        Guard::from_inner(replaced.expect("a replaced view is kept while a snapshot of it lives"))
    }

    fn sequence(&self) -> Sequence {
        match self.store.planted().has(Bug::SnapshotSeesLaterWrites) {
            true => self.store.visible(),
            false => self.sequence,
        }
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let unread = self.store.snapshots.forget(self.installs, self.sequence);
        // With it may go whole memtables and the maps of many files: not under the lock.
        drop(unread);
    }
}

/// Who reads the store as it was.
#[derive(Default)]
pub(crate) struct Snapshots {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How often the store was replaced since it was opened.
    installs: u64,
    /// At which sequences somebody reads what there is now, and how many do.
    readers: BTreeMap<Sequence, usize>,
    /// What was replaced and is still read, by the number of replacements before; and by how many.
    replaced: BTreeMap<u64, (Arc<View>, usize)>,
}

impl Snapshots {
    /// Adds a reader at the sequence that `now` answers with. Asked under the lock, so that a
    /// compaction sees either this reader or an earlier `now`.
    fn register(&self, now: impl FnOnce() -> Sequence) -> (u64, Sequence) {
        let mut state = lock(&self.state);
        let sequence = now();
        *state.readers.entry(sequence).or_default() += 1;
        (state.installs, sequence)
    }

    /// Answers with the view that nobody reads any more, if that was the last one to do so.
    fn forget(&self, installs: u64, sequence: Sequence) -> Option<Arc<View>> {
        let mut state = lock(&self.state);
        if installs == state.installs {
            if let Entry::Occupied(mut count) = state.readers.entry(sequence) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
            return None;
        }
        let Entry::Occupied(mut replaced) = state.replaced.entry(installs) else { return None };
        let (_, count) = replaced.get_mut();
        *count -= 1;
        (*count == 0).then(|| replaced.remove().0)
    }

    /// Replaces the store: `change` makes the next view and answers with the one before. That is
    /// kept if somebody reads it. Under the lock, so that nobody is registered in between.
    pub(crate) fn replace(&self, change: impl FnOnce() -> Arc<View>) -> Arc<View> {
        let mut state = lock(&self.state);
        let old = change();
        let readers = std::mem::take(&mut state.readers).into_values().sum();
        if readers > 0 {
            let installs = state.installs;
            state.replaced.insert(installs, (Arc::clone(&old), readers));
        }
        state.installs += 1;
        old
    }

    fn replaced(&self, installs: u64) -> Option<Arc<View>> {
        lock(&self.state).replaced.get(&installs).map(|(view, _)| Arc::clone(view))
    }

    /// All readers of what there is now, rising, and where the next one would begin.
    pub(crate) fn all(&self, now: impl FnOnce() -> Sequence) -> (Vec<Sequence>, Sequence) {
        let state = lock(&self.state);
        (state.readers.keys().copied().collect(), now())
    }

    pub(crate) fn count(&self) -> usize {
        let state = lock(&self.state);
        let replaced = state.replaced.values().map(|(_, count)| count);
        state.readers.values().chain(replaced).sum()
    }
}
