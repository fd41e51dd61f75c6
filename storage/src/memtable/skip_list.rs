//! A skip list that one writer extends while many readers walk it without a lock.
//!
//! Nodes are never removed and never move: a link is an index into a growing array of words, in
//! which a node's words stand together.
//!
//! ```text
//!   key bytes and entry │ tag │ key, its first 32 bytes, in whole words │ a link for each level
//! ```
//!
//! A search meets a cache line that it does not have at nearly every step, so a step should touch
//! one: what is compared and what is followed stand side by side. A node is complete before the
//! first link to it is stored (release), and whoever follows a link loads it with acquire, so no
//! reader sees half a node. The whole list dies at once with its memtable.
//! (Pugh, "Skip lists: a probabilistic alternative to balanced trees", 1990.)

use std::cmp::Reverse;
use std::sync::atomic::{
    AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use std::sync::{Mutex, OnceLock, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};

use super::chunked::{Chunked, with_room};
use crate::key::Tag;

/// One node in `BRANCHING` reaches the next level: at this height the list holds 4^12 nodes well.
const HEIGHT_MAX: usize = 12;
const BRANCHING: u64 = 4;
/// Keys and values are copied into chunks of this size, so that a small entry does not keep alive
/// the large network or log buffer that it arrived in.
const CHUNK_BYTES: usize = 256 << 10;
/// Words of a node: before its key, and of its key.
const KEY_AT: usize = 2;
const KEY_WORDS_MAX: usize = 4;
const KEY_BYTES_INLINE: usize = KEY_WORDS_MAX * WORD_BYTES;
const WORD_BYTES: usize = size_of::<u64>();
/// What an entry of a short key takes beside its key and value: its node and the handle to it.
pub(super) const NODE_BYTES: usize = 84;

/// The index of a node's first word; none is zero.
pub(super) type NodeId = u32;
const NIL: NodeId = 0;

#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    list: &'a SkipList,
    /// The node's, and whatever stands behind them.
    words: &'a [AtomicU64],
}

impl<'a> Node<'a> {
    fn key_bytes(self) -> usize {
        (self.words[0].load(Relaxed) >> u32::BITS) as usize
    }

    /// The key, directly followed by the value.
    fn entry(self) -> &'a Bytes {
        let index = self.words[0].load(Relaxed) as u32;
        let entry = self.list.entries.get(index).and_then(OnceLock::get);
        entry.expect("an entry is complete before its node")
    }

    pub(super) fn tag(self) -> Tag {
        let stored = self.words[1].load(Relaxed);
        Tag::from_stored(stored).expect("a node is complete before the first link to it")
    }

    pub(super) fn key(self) -> &'a [u8] {
        &self.entry()[..self.key_bytes()]
    }

    pub(super) fn value(self) -> Bytes {
        self.entry().slice(self.key_bytes()..)
    }

    fn link(self, level: usize) -> &'a AtomicU64 {
        &self.words[KEY_AT + key_words(self.key_bytes()) + level]
    }

    fn is_before(self, sought: &Sought<'_>) -> bool {
        let key_bytes = self.key_bytes();
        let own = &self.words[KEY_AT..KEY_AT + key_words(key_bytes)];
        for (index, sought) in sought.words.iter().enumerate() {
            let own = own.get(index).map_or(0, |word| word.load(Relaxed));
            if own != *sought {
                return own < *sought;
            }
        }
        // As far as they stand in words they are the same, padded with zeros: if one ends there,
        // it is the beginning of the other.
        if key_bytes.min(sought.key.len()) > KEY_BYTES_INLINE {
            (self.key(), Reverse(self.tag())) < (sought.key, Reverse(sought.tag))
        } else {
            (key_bytes, Reverse(self.tag())) < (sought.key.len(), Reverse(sought.tag))
        }
    }
}

/// A place in the order of the list, as it is compared.
struct Sought<'a> {
    key: &'a [u8],
    tag: Tag,
    /// The key's first bytes, so that numbers compare as the bytes do, and zeros.
    words: [u64; KEY_WORDS_MAX],
}

impl<'a> Sought<'a> {
    fn new(key: &'a [u8], tag: Tag) -> Sought<'a> {
        let mut words = [0; KEY_WORDS_MAX];
        for (word, bytes) in words.iter_mut().zip(key.chunks(WORD_BYTES)) {
            let mut padded = [0; WORD_BYTES];
            padded[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_be_bytes(padded);
        }
        Sought { key, tag, words }
    }
}

/// Words that a node of such a key has for it.
fn key_words(key_bytes: usize) -> usize {
    key_bytes.div_ceil(WORD_BYTES).min(KEY_WORDS_MAX)
}

pub(super) struct SkipList {
    words: Chunked<AtomicU64>,
    entries: Chunked<OnceLock<Bytes>>,
    head: [AtomicU64; HEIGHT_MAX],
    /// Levels in use.
    height: AtomicUsize,
    writer: Mutex<Writer>,
}

/// What only the writer touches.
struct Writer {
    chunk: BytesMut,
    next_word: u32,
    next_entry: u32,
    /// State of the generator of heights. Its seed is fixed: the same inserts, the same list.
    random: u64,
}

impl SkipList {
    pub(super) fn new() -> SkipList {
        SkipList {
            words: Chunked::new(),
            entries: Chunked::new(),
            head: [const { AtomicU64::new(NIL as u64) }; HEIGHT_MAX],
            height: AtomicUsize::new(1),
            writer: Mutex::new(Writer {
                chunk: BytesMut::new(),
                next_word: 1,
                next_entry: 0,
                random: 0x9E37_79B9_7F4A_7C15,
            }),
        }
    }

    /// Adds an entry, which must not be there yet.
    pub(super) fn insert(&self, key: &[u8], tag: Tag, value: &[u8]) {
        // A writer that panicked left at worst a node that no link leads to.
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let height = writer.random_height();
        let key_words = key_words(key.len());
        let (id, entry) = writer.take_ids(KEY_AT + key_words + height);
        let fresh = self.entries.get_or_grow(entry).set(writer.copy_in(key, value)).is_ok();
        assert!(fresh, "an entry's index is handed out once");

        let sought = Sought::new(key, tag);
        let before = self.predecessors(&sought);
        let words = self.words.run_or_grow(id);
        words[0].store((key.len() as u64) << u32::BITS | u64::from(entry), Relaxed);
        words[1].store(tag.stored(), Relaxed);
        for (place, word) in words[KEY_AT..KEY_AT + key_words].iter().zip(sought.words) {
            place.store(word, Relaxed);
        }
        for (level, &predecessor) in before.iter().enumerate().take(height) {
            let successor = self.link(predecessor, level).load(Acquire);
            words[KEY_AT + key_words + level].store(successor, Relaxed);
        }
        for (level, &predecessor) in before.iter().enumerate().take(height) {
            self.link(predecessor, level).store(u64::from(id), Release);
        }
        self.height.fetch_max(height, Release);
    }

    pub(super) fn node(&self, id: NodeId) -> Node<'_> {
        let words = self.words.run(id).expect("a node is complete before the first link to it");
        Node { list: self, words }
    }

    pub(super) fn first(&self) -> Option<NodeId> {
        some(self.follow(NIL, 0))
    }

    pub(super) fn next(&self, id: NodeId) -> Option<NodeId> {
        some(self.follow(id, 0))
    }

    /// The first entry at or after this one.
    pub(super) fn seek(&self, key: &[u8], tag: Tag) -> Option<NodeId> {
        let before = self.seek_before(key, tag).unwrap_or(NIL);
        self.next(before)
    }

    /// The last entry before this one.
    pub(super) fn seek_before(&self, key: &[u8], tag: Tag) -> Option<NodeId> {
        let [before, ..] = self.predecessors(&Sought::new(key, tag));
        some(before)
    }

    pub(super) fn last(&self) -> Option<NodeId> {
        let mut at = NIL;
        for level in (0..self.height.load(Acquire)).rev() {
            loop {
                match self.follow(at, level) {
                    NIL => break,
                    next => at = next,
                }
            }
        }
        some(at)
    }

    /// At each level the last node before this place, or the head.
    fn predecessors(&self, sought: &Sought<'_>) -> [NodeId; HEIGHT_MAX] {
        let mut before = [NIL; HEIGHT_MAX];
        let mut at = NIL;
        // The level above has shown that this one is not before it.
        let mut behind = NIL;
        for level in (0..self.height.load(Acquire)).rev() {
            loop {
                let next = self.follow(at, level);
                if next == NIL || next == behind || !self.node(next).is_before(sought) {
                    behind = next;
                    break;
                }
                at = next;
            }
            before[level] = at;
        }
        before
    }

    /// The next node at this level.
    fn follow(&self, at: NodeId, level: usize) -> NodeId {
        // Only ids are stored.
        self.link(at, level).load(Acquire) as NodeId
    }

    fn link(&self, id: NodeId, level: usize) -> &AtomicU64 {
        if id == NIL { &self.head[level] } else { self.node(id).link(level) }
    }
}

impl Writer {
    fn random_height(&mut self) -> usize {
        let mut height = 1;
        loop {
            // Marsaglia's xorshift64.
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            if height == HEIGHT_MAX || !self.random.is_multiple_of(BRANCHING) {
                return height;
            }
            height += 1;
        }
    }

    /// The places of a node of so many words and of its entry.
    fn take_ids(&mut self, words: usize) -> (NodeId, u32) {
        let (word, entry) = (self.next_word, self.next_entry);
        let id = with_room(word, words);
        let next = id.and_then(|id| id.checked_add(words as u32));
        self.next_word = next.expect("a memtable is flushed long before 2^32 words");
        self.next_entry = entry + 1;
        (id.expect("it was just used"), entry)
    }

    fn copy_in(&mut self, key: &[u8], value: &[u8]) -> Bytes {
        let bytes = key.len() + value.len();
        if self.chunk.capacity() < bytes {
            self.chunk = BytesMut::with_capacity(bytes.max(CHUNK_BYTES));
        }
        self.chunk.put_slice(key);
        self.chunk.put_slice(value);
        self.chunk.split().freeze()
    }
}

fn some(id: NodeId) -> Option<NodeId> {
    (id != NIL).then_some(id)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::key::{Kind, compare};

    fn tag(sequence: u64) -> Tag {
        Tag::new(sequence, Kind::Put)
    }

    /// Keys 0, 2, 4, ... in an order that is not theirs.
    fn even_list(count: u32) -> SkipList {
        let list = SkipList::new();
        for step in 0..count {
            let key = step.wrapping_mul(7919) % count * 2;
            list.insert(&key.to_be_bytes(), tag(1), &key.to_le_bytes());
        }
        list
    }

    #[test]
    fn walks_in_order_and_seeks_both_ways() {
        let list = even_list(1009);
        let key_of = |id: Option<NodeId>| {
            id.map(|id| u32::from_be_bytes(list.node(id).key().try_into().unwrap()))
        };
        let mut at = list.first();
        for expected in 0..1009 {
            assert_eq!(key_of(at), Some(expected * 2));
            assert_eq!(list.node(at.unwrap()).value(), (expected * 2).to_le_bytes().as_slice());
            at = list.next(at.unwrap());
        }
        assert_eq!(at, None);
        assert_eq!(key_of(list.last()), Some(2016));
        for key in 0u32..2017 {
            let found = key_of(list.seek(&key.to_be_bytes(), Tag::NEWEST));
            assert_eq!(found, Some(key.next_multiple_of(2)));
            let before = key_of(list.seek_before(&key.to_be_bytes(), Tag::NEWEST));
            assert_eq!(before, key.checked_sub(1).map(|below| below / 2 * 2));
        }
        assert_eq!(list.seek(&2017u32.to_be_bytes(), Tag::NEWEST), None);
    }

    /// Keys that agree in their words, end in zeros, or differ behind what stands in the node.
    #[test]
    fn the_order_is_the_engines_whatever_the_keys() {
        let mut entries: Vec<(Vec<u8>, Tag)> = Vec::new();
        for bytes in 0..80 {
            for last in [0, 1, 0x7f, 0xff] {
                for filler in [0, b'a'] {
                    let mut key = vec![filler; bytes];
                    key.extend([last]);
                    entries.extend([(key.clone(), tag(1)), (key, tag(2))]);
                }
            }
        }
        entries.sort_by(|a, b| compare((&a.0, a.1), (&b.0, b.1)));
        entries.dedup();
        let list = SkipList::new();
        for step in 0..entries.len() {
            let (key, tag) = &entries[step * 7919 % entries.len()];
            list.insert(key, *tag, b"v");
        }
        let mut at = list.first();
        for (index, (key, tag)) in entries.iter().enumerate() {
            let id = at.unwrap();
            assert_eq!((list.node(id).key(), list.node(id).tag()), (&key[..], *tag));
            assert_eq!(list.seek(key, *tag), Some(id));
            assert_eq!(list.seek_before(key, *tag).is_none(), index == 0);
            at = list.next(id);
        }
        assert_eq!(at, None);
    }

    #[test]
    fn readers_see_a_growing_prefix_while_the_writer_writes() {
        let (list, done) = (SkipList::new(), AtomicBool::new(false));
        let walk = || -> Vec<Vec<u8>> {
            let mut keys = Vec::new();
            let mut at = list.first();
            while let Some(id) = at {
                keys.push(list.node(id).key().to_vec());
                at = list.next(id);
            }
            keys
        };
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut seen = BTreeSet::new();
                    while !done.load(Acquire) {
                        let keys = walk();
                        assert!(keys.is_sorted());
                        let now: BTreeSet<_> = keys.into_iter().collect();
                        assert!(now.is_superset(&seen), "an entry that was there is gone");
                        seen = now;
                    }
                });
            }
            for step in 0..20_000u32 {
                list.insert(&step.wrapping_mul(2_654_435_761).to_be_bytes(), tag(1), b"v");
            }
            done.store(true, Release);
        });
        assert_eq!(walk().len(), 20_000);
    }
}
