//! What was applied since the last flush, in memory and in order.
//!
//! One thread at a time inserts, any number read meanwhile without a lock. A memtable also knows
//! what a flush must know of it: how far the log must be durable first, and which of the owner's
//! marks it holds.

mod chunked;
mod skip_list;

use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};

use bytes::Bytes;

use self::skip_list::{NODE_BYTES, NodeId, SkipList};
use crate::key::{Sequence, Tag};
use crate::log::Position;

pub(crate) struct Memtable {
    list: SkipList,
    bytes: AtomicUsize,
    entries: AtomicU64,
    last_sequence: AtomicU64,
    last_mark: AtomicU64,
    covered_by: AtomicU64,
}

impl Memtable {
    pub(crate) fn new() -> Memtable {
        Memtable {
            list: SkipList::new(),
            bytes: AtomicUsize::new(0),
            entries: AtomicU64::new(0),
            last_sequence: AtomicU64::new(0),
            last_mark: AtomicU64::new(0),
            covered_by: AtomicU64::new(0),
        }
    }

    /// Adds a version of a key. Readers find it at once, but none that is at an earlier sequence.
    pub(crate) fn insert(&self, key: &[u8], tag: Tag, value: &[u8]) {
        self.list.insert(key, tag, value);
        self.bytes.fetch_add(key.len() + value.len() + NODE_BYTES, Relaxed);
        self.entries.fetch_add(1, Relaxed);
        self.last_sequence.fetch_max(tag.sequence(), Relaxed);
    }

    /// Notes that everything up to the owner's `mark` is in here or was flushed before, and stands
    /// on log records up to `covered_by`.
    pub(crate) fn note(&self, mark: u64, covered_by: Position) {
        self.covered_by.fetch_max(covered_by.0, Release);
        self.last_mark.fetch_max(mark, Release);
    }

    /// The newest version of the key that a reader at `sequence` may see: its tag and value.
    pub(crate) fn get(&self, key: &[u8], sequence: Sequence) -> Option<(Tag, Bytes)> {
        let id = self.list.seek(key, Tag::newest_of(sequence))?;
        let node = self.list.node(id);
        (node.key() == key).then(|| (node.tag(), node.value()))
    }

    /// Roughly what it takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
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

/// Walks a memtable, which it keeps alive.
pub(crate) struct MemtableCursor {
    memtable: Arc<Memtable>,
    at: Option<NodeId>,
}

impl MemtableCursor {
    pub(crate) fn new(memtable: Arc<Memtable>) -> MemtableCursor {
        MemtableCursor { memtable, at: None }
    }

    /// To the first entry at or after `to`, or the very first.
    pub(crate) fn seek(&mut self, to: Option<(&[u8], Tag)>) {
        let list = &self.memtable.list;
        self.at = match to {
            Some((key, tag)) => list.seek(key, tag),
            None => list.first(),
        };
    }

    /// To the last entry before `to`, or the very last.
    pub(crate) fn seek_before(&mut self, to: Option<(&[u8], Tag)>) {
        let list = &self.memtable.list;
        self.at = match to {
            Some((key, tag)) => list.seek_before(key, tag),
            None => list.last(),
        };
    }

    pub(crate) fn next(&mut self) {
        self.at = self.at.and_then(|id| self.memtable.list.next(id));
    }

    /// Nodes have no link back, so this is a search; a walk backwards costs a logarithm a step.
    pub(crate) fn previous(&mut self) {
        self.at = self.at.and_then(|id| {
            let node = self.memtable.list.node(id);
            self.memtable.list.seek_before(node.key(), node.tag())
        });
    }

    pub(crate) fn is_valid(&self) -> bool {
        self.at.is_some()
    }

    pub(crate) fn key(&self) -> &[u8] {
        self.at.map_or(&[], |id| self.memtable.list.node(id).key())
    }

    pub(crate) fn tag(&self) -> Tag {
        self.at.map_or(Tag::OLDEST, |id| self.memtable.list.node(id).tag())
    }

    pub(crate) fn value(&self) -> Bytes {
        self.at.map_or_else(Bytes::new, |id| self.memtable.list.node(id).value())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Kind;

    #[test]
    fn a_reader_sees_the_newest_version_that_is_not_newer_than_it() {
        let memtable = Memtable::new();
        memtable.insert(b"k", Tag::new(2, Kind::Put), b"two");
        memtable.insert(b"k", Tag::new(5, Kind::Delete), b"");
        memtable.insert(b"k", Tag::new(9, Kind::Put), b"nine");
        memtable.insert(b"kk", Tag::new(1, Kind::Put), b"other");

        let seen = |sequence| memtable.get(b"k", sequence).map(|(tag, value)| (tag.kind(), value));
        assert_eq!(seen(1), None);
        assert_eq!(seen(2), Some((Kind::Put, Bytes::from_static(b"two"))));
        assert_eq!(seen(4), Some((Kind::Put, Bytes::from_static(b"two"))));
        assert_eq!(seen(5), Some((Kind::Delete, Bytes::new())));
        assert_eq!(seen(100), Some((Kind::Put, Bytes::from_static(b"nine"))));
        assert_eq!(memtable.get(b"j", 100), None);
        assert_eq!(memtable.get(b"z", 100), None);
    }

    #[test]
    fn a_cursor_walks_back_the_way_it_came() {
        let memtable = Arc::new(Memtable::new());
        for step in 0..100u64 {
            let key = (step * 37 % 100) as u8;
            memtable.insert(&[key], Tag::new(step + 1, Kind::Put), &[key]);
        }
        let mut cursor = MemtableCursor::new(memtable);
        let mut there = Vec::new();
        cursor.seek(None);
        while cursor.is_valid() {
            there.push((cursor.key().to_vec(), cursor.value()));
            cursor.next();
        }
        let mut back = Vec::new();
        cursor.seek_before(None);
        while cursor.is_valid() {
            back.push((cursor.key().to_vec(), cursor.value()));
            cursor.previous();
        }
        back.reverse();
        assert_eq!(there.len(), 100);
        assert_eq!(there, back);
    }
}
