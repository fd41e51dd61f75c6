//! What was applied since the last flush, in memory and in order.
//!
//! Any number of threads insert, and any number read meanwhile, without a lock. A memtable also
//! knows what a flush must know of it: how far the log must be durable first, and which of the
//! owner's marks it holds.

mod bulk;
mod chunked;
mod entries;
mod node;
#[cfg(test)]
mod tests;
mod tree;

use std::cmp::Ordering::Less;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};

use bytes::Bytes;

pub(crate) use self::bulk::Load;
use self::entries::{PIECE_BYTES, PIECE_BYTES_MAX, SLOT_BYTES};
use self::node::EntryId;
use self::tree::{Bound, GROUP, New, Run, Tree};
use crate::batch::{Change, Changes};
use crate::key::{Sequence, Tag, compare};
use crate::log::Position;

pub(crate) struct Memtable {
    tree: Tree,
    /// What pieces and slots take, those included that were announced only.
    bytes: AtomicUsize,
    entries: AtomicU64,
    last_sequence: AtomicU64,
    last_mark: AtomicU64,
    covered_by: AtomicU64,
}

impl Memtable {
    pub(crate) fn new() -> Memtable {
        Memtable {
            tree: Tree::new(),
            bytes: AtomicUsize::new(0),
            entries: AtomicU64::new(0),
            last_sequence: AtomicU64::new(0),
            last_mark: AtomicU64::new(0),
            covered_by: AtomicU64::new(0),
        }
    }

    /// What a batch takes, beside its part of the nodes: so many operations, stored in so many bytes.
    pub(crate) fn bytes_of(operations: usize, stored_bytes: usize) -> usize {
        PIECE_BYTES + stored_bytes + operations * SLOT_BYTES
    }

    /// Counts a batch that will be inserted here, whenever that will be: so many operations, the
    /// last of which has this sequence.
    pub(crate) fn announce(&self, operations: usize, stored_bytes: usize, last: Sequence) {
        self.bytes.fetch_add(Memtable::bytes_of(operations, stored_bytes), Relaxed);
        self.entries.fetch_add(operations as u64, Relaxed);
        self.last_sequence.fetch_max(last, Relaxed);
    }

    /// Notes that everything up to the owner's `mark` is in here or was flushed before, and stands
    /// on log records up to `covered_by`.
    pub(crate) fn note(&self, mark: u64, covered_by: Position) {
        self.covered_by.fetch_max(covered_by.0, Release);
        self.last_mark.fetch_max(mark, Release);
    }

    /// Inserts the operations of a stored batch that was announced, the first with this sequence.
    /// Readers find them at once, but none that is at an earlier sequence.
    pub(crate) fn insert(&self, stored: Bytes, count: usize, first: Sequence) {
        let mut group = [New::default(); GROUP];
        let mut grouped = 0;
        self.fill(stored, count, first, |id, change, tag| {
            group[grouped] = New { id, key: change.key, tag };
            grouped += 1;
            if grouped == GROUP {
                self.tree.insert(&group);
                grouped = 0;
            }
        });
        self.tree.insert(&group[..grouped]);
    }

    /// Keeps a stored batch, and makes entries of its operations, which no leaf shows yet.
    fn fill<'a>(
        &'a self,
        stored: Bytes,
        count: usize,
        first: Sequence,
        mut each: impl FnMut(EntryId, Change<'a>, Tag),
    ) {
        let entries = &self.tree.entries;
        let first_id = entries.take(count);
        let (mut rest, mut number) = (stored, 0);
        while number < count {
            let (id, piece) = entries.keep(rest);
            let mut changes = Changes::new(piece);
            while number < count && changes.offset() <= PIECE_BYTES_MAX {
                let change = changes.next().ok().flatten();
                let change = change.expect("a batch is checked before it is applied");
                let tag = Tag::new(first + number as u64, change.kind);
                let entry = first_id + number as EntryId;
                entries.fill(entry, id, change, tag);
                each(entry, change, tag);
                number += 1;
            }
            if number == count {
                return;
            }
            rest = piece.slice(changes.offset()..);
        }
    }

    /// The newest version of the key that a reader at `sequence` may see: its tag and value.
    pub(crate) fn get(&self, key: &[u8], sequence: Sequence) -> Option<(Tag, Bytes)> {
        let (tag, id) = self.find(key, sequence)?;
        Some((tag, self.tree.entries.shared_value(id)))
    }

    /// The same, where it lies.
    pub(crate) fn get_ref(&self, key: &[u8], sequence: Sequence) -> Option<(Tag, &[u8])> {
        let (tag, id) = self.find(key, sequence)?;
        Some((tag, self.tree.entries.value(id)))
    }

    fn find(&self, key: &[u8], sequence: Sequence) -> Option<(Tag, EntryId)> {
        let id = self.tree.seek(key, Tag::newest_of(sequence))?;
        let (found, tag) = self.tree.entries.place(id);
        (found == key).then_some((tag, id))
    }

    /// Whether it has a key between these two, or one of them.
    pub(crate) fn holds_any(&self, smallest: &[u8], largest: &[u8]) -> bool {
        let next = self.tree.seek(smallest, Tag::NEWEST);
        next.is_some_and(|id| self.tree.entries.place(id).0 <= largest)
    }

    /// What it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed) + self.tree.node_bytes()
    }

    pub(crate) fn entries(&self) -> u64 {
        self.entries.load(Relaxed)
    }

    /// Whether nothing was noted in it, hence nothing inserted either.
    pub(crate) fn is_untouched(&self) -> bool {
        self.last_mark() == 0
    }

    pub(crate) fn last_sequence(&self) -> Sequence {
        self.last_sequence.load(Relaxed)
    }

    pub(crate) fn last_mark(&self) -> u64 {
        self.last_mark.load(Acquire)
    }

    pub(crate) fn covered_by(&self) -> Position {
        Position(self.covered_by.load(Acquire))
    }
}

/// Walks a memtable, which it keeps alive. Of what is inserted meanwhile it may see some: a reader
/// passes over that, since it is newer than what he reads.
pub(crate) struct MemtableCursor {
    memtable: Arc<Memtable>,
    /// The entries of one leaf, in order.
    run: Run,
    /// Which of them; behind them if the walk is over.
    at: usize,
}

impl MemtableCursor {
    pub(crate) fn new(memtable: Arc<Memtable>) -> MemtableCursor {
        MemtableCursor { memtable, run: Run::default(), at: 0 }
    }

    /// To the first entry at or after `to`, or the very first.
    pub(crate) fn seek(&mut self, to: Option<(&[u8], Tag)>) {
        let tree = &self.memtable.tree;
        self.run = tree.run(to.map_or(Bound::First, |(key, tag)| Bound::At(key, tag)));
        self.at = to.map_or(0, |to| self.count_before(to));
        self.skip_to_next_leaf();
    }

    /// To the last entry before `to`, or the very last.
    pub(crate) fn seek_before(&mut self, to: Option<(&[u8], Tag)>) {
        let tree = &self.memtable.tree;
        self.run = tree.run(to.map_or(Bound::Last, |(key, tag)| Bound::Before(key, tag)));
        let before = to.map_or(self.run.entries().len(), |to| self.count_before(to));
        self.at = before.checked_sub(1).unwrap_or(self.run.entries().len());
    }

    pub(crate) fn next(&mut self) {
        if self.is_valid() {
            self.at += 1;
            self.skip_to_next_leaf();
        }
    }

    pub(crate) fn previous(&mut self) {
        match (self.is_valid(), self.at.checked_sub(1)) {
            (false, _) => {}
            (true, Some(before)) => self.at = before,
            (true, None) => {
                let memtable = Arc::clone(&self.memtable);
                let first = memtable.tree.entries.place(self.run.entries()[0]);
                self.seek_before(Some(first));
            }
        }
    }

    pub(crate) fn is_valid(&self) -> bool {
        self.at < self.run.entries().len()
    }

    pub(crate) fn key(&self) -> &[u8] {
        self.entry().map_or(&[], |id| self.memtable.tree.entries.place(id).0)
    }

    pub(crate) fn tag(&self) -> Tag {
        self.entry().map_or(Tag::OLDEST, |id| self.memtable.tree.entries.tag(id))
    }

    pub(crate) fn value(&self) -> Bytes {
        self.entry().map_or_else(Bytes::new, |id| self.memtable.tree.entries.shared_value(id))
    }

    pub(crate) fn value_ref(&self) -> &[u8] {
        self.entry().map_or(&[], |id| self.memtable.tree.entries.value(id))
    }

    fn entry(&self) -> Option<EntryId> {
        self.run.entries().get(self.at).copied()
    }

    /// How many of the leaf's entries are before this place.
    fn count_before(&self, to: (&[u8], Tag)) -> usize {
        let tree = &self.memtable.tree;
        let is_before = |id: &EntryId| compare(tree.entries.place(*id), to) == Less;
        self.run.entries().partition_point(is_before)
    }

    /// From behind the last entry of a leaf to the first of the next, if there is one.
    fn skip_to_next_leaf(&mut self) {
        if let (false, Some(next)) = (self.is_valid(), self.run.next) {
            let tree = &self.memtable.tree;
            let (key, tag) = tree.entries.place(next);
            self.run = tree.run(Bound::At(key, tag));
            self.at = 0;
            // Who has walked all of a leaf most probably wants all of the next.
            tree.entries.touch(self.run.entries());
        }
    }
}
