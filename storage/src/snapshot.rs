//! Snapshots: reading at one point for as long as one likes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::cursor::Direction;
use crate::error::Result;
use crate::key::Sequence;
use crate::planted::Bug;
use crate::scan::{KeyRange, Scan};
use crate::store::{Inner, lock};

/// The store as it was at one point. Dropping it lets compaction forget that point.
///
/// It holds no memory and no files by itself, but every version that it can see is kept while it
/// lives.
pub struct Snapshot {
    store: Arc<Inner>,
    sequence: Sequence,
}

impl Snapshot {
    pub(crate) fn new(store: &Arc<Inner>) -> Snapshot {
        let sequence = store.snapshots.register(|| store.visible());
        Snapshot { store: Arc::clone(store), sequence }
    }

    /// The key's value at that point.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.store.view().get(key, self.sequence())
    }

    /// The keys of a range and their values at that point.
    pub fn scan(&self, range: impl Into<KeyRange>, direction: Direction) -> Result<Scan> {
        self.store.view().scan(range.into(), direction, self.sequence())
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
        self.store.snapshots.forget(self.sequence);
    }
}

/// At which sequences somebody reads, and how many do.
#[derive(Default)]
pub(crate) struct Snapshots {
    readers: Mutex<BTreeMap<Sequence, usize>>,
}

impl Snapshots {
    /// Adds a reader at the sequence that `now` answers with. Asked under the lock, so that a
    /// compaction sees either this reader or an earlier `now`.
    fn register(&self, now: impl FnOnce() -> Sequence) -> Sequence {
        let mut readers = lock(&self.readers);
        let sequence = now();
        *readers.entry(sequence).or_default() += 1;
        sequence
    }

    fn forget(&self, sequence: Sequence) {
        let mut readers = lock(&self.readers);
        if let Some(count) = readers.get_mut(&sequence) {
            *count -= 1;
            if *count == 0 {
                readers.remove(&sequence);
            }
        }
    }

    /// All readers, rising, and where the next one would begin.
    pub(crate) fn all(&self, now: impl FnOnce() -> Sequence) -> (Vec<Sequence>, Sequence) {
        let readers = lock(&self.readers);
        (readers.keys().copied().collect(), now())
    }

    pub(crate) fn count(&self) -> usize {
        lock(&self.readers).values().sum()
    }
}
