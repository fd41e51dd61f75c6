//! The nodes of the tree, and how they compare keys.
//!
//! A node holds entries between two fences: the separators to its left and right, which never
//! change while it lives. What the keys of both fences begin with, all keys between them begin
//! with, so a node keeps of each key one *word*: the 8 bytes behind that. Whole keys are compared
//! only where words are the same.

use std::cmp::Ordering;
use std::sync::atomic::{
    AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};

use crate::key::{Tag, compare};

/// Entries of a leaf: their words, then where they stand.
pub(super) const LEAF_ENTRIES: usize = 31;
/// Separators of an inner node, which has one more child.
pub(super) const SEPARATORS: usize = 30;
/// What [`shared`] adds for two versions of one key: then the word is the version.
const KEY_END: usize = 1;

/// The index of an entry, in the order of the inserts.
pub(super) type EntryId = u32;
/// The index of a leaf or of an inner node, whichever the level says.
pub(super) type NodeId = u32;

/// How much the keys of two fences have in common: then all between them have it too.
pub(super) fn shared(low: &[u8], high: &[u8]) -> u32 {
    let same = low.iter().zip(high).take_while(|(low, high)| low == high).count();
    // Keys are far shorter than 4 GiB.
    (if low == high { same + KEY_END } else { same }) as u32
}

/// The order of two keys that have the same word in a node which leaves out so many bytes.
pub(super) fn compare_tied(left_out: u32, a: (&[u8], Tag), b: (&[u8], Tag)) -> Ordering {
    if a.0.len().max(b.0.len()) > left_out as usize + size_of::<u64>() {
        return compare(a, b);
    }
    // Filled up with zeros they are the same: the shorter is the beginning of the longer.
    a.0.len().cmp(&b.0.len()).then(b.1.cmp(&a.1))
}

/// The word that a node which leaves out so many bytes has for this key: words that differ are in
/// the order of what they stand for. A key that ends is filled up with zeros.
pub(super) fn word(key: &[u8], tag: Tag, left_out: u32) -> u64 {
    let left_out = left_out as usize;
    if left_out > key.len() {
        return !tag.stored();
    }
    let rest = &key[left_out..];
    match rest.first_chunk() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => {
            let mut padded = [0; size_of::<u64>()];
            padded[..rest.len()].copy_from_slice(rest);
            u64::from_be_bytes(padded)
        }
    }
}

/// Entries: in order those it was made with, then in the order of their arrival the others. One
/// writer appends, and nothing changes that is counted.
pub(super) struct Leaf {
    left_out: AtomicU32,
    /// So many at the beginning are in order: those that the leaf was made with.
    sorted: AtomicU32,
    count: AtomicU32,
    words: [AtomicU64; LEAF_ENTRIES],
    entries: [AtomicU32; LEAF_ENTRIES],
}

impl Default for Leaf {
    fn default() -> Leaf {
        Leaf {
            left_out: AtomicU32::new(0),
            sorted: AtomicU32::new(0),
            count: AtomicU32::new(0),
            words: [const { AtomicU64::new(0) }; LEAF_ENTRIES],
            entries: [const { AtomicU32::new(0) }; LEAF_ENTRIES],
        }
    }
}

impl Leaf {
    /// For the writer, before any reader finds the leaf.
    pub(super) fn begin(&self, left_out: u32, sorted: usize) {
        self.left_out.store(left_out, Relaxed);
        self.sorted.store(sorted as u32, Relaxed);
    }

    pub(super) fn left_out(&self) -> u32 {
        self.left_out.load(Relaxed)
    }

    /// Whether there was room. Readers see all of the entry or nothing.
    pub(super) fn push(&self, word: u64, entry: EntryId) -> bool {
        let count = self.count.load(Relaxed);
        let Some(place) = self.words.get(count as usize) else { return false };
        place.store(word, Relaxed);
        self.entries[count as usize].store(entry, Relaxed);
        self.count.store(count + 1, Release);
        true
    }

    /// What is in it now.
    pub(super) fn seen(&self) -> SeenLeaf<'_> {
        let count = self.count.load(Acquire) as usize;
        let sorted = self.sorted.load(Relaxed) as usize;
        SeenLeaf { words: &self.words[..count], entries: &self.entries[..count], sorted }
    }
}

/// The entries of a leaf that were in it at some moment.
#[derive(Clone, Copy)]
pub(super) struct SeenLeaf<'a> {
    words: &'a [AtomicU64],
    entries: &'a [AtomicU32],
    /// So many at the beginning are in order.
    pub(super) sorted: usize,
}

impl SeenLeaf<'_> {
    pub(super) fn item(self, index: usize) -> (u64, EntryId) {
        (self.words[index].load(Relaxed), self.entries[index].load(Relaxed))
    }

    /// All, with their words.
    pub(super) fn items(self) -> impl DoubleEndedIterator<Item = (u64, EntryId)> {
        (0..self.words.len()).map(move |index| self.item(index))
    }

    /// Those that came later than the leaf, the last first.
    pub(super) fn later(self) -> impl Iterator<Item = (u64, EntryId)> {
        (self.sorted..self.words.len()).rev().map(move |index| self.item(index))
    }
}

/// Separators in order, and the children between them. Only a child is ever replaced; for another
/// separator there is another node.
pub(super) struct Inner {
    left_out: AtomicU32,
    count: AtomicU32,
    words: [AtomicU64; SEPARATORS],
    separators: [AtomicU32; SEPARATORS],
    pub(super) children: [AtomicU32; SEPARATORS + 1],
}

impl Default for Inner {
    fn default() -> Inner {
        Inner {
            left_out: AtomicU32::new(0),
            count: AtomicU32::new(0),
            words: [const { AtomicU64::new(0) }; SEPARATORS],
            separators: [const { AtomicU32::new(0) }; SEPARATORS],
            children: [const { AtomicU32::new(0) }; SEPARATORS + 1],
        }
    }
}

impl Inner {
    /// For the writer, before any reader finds the node.
    pub(super) fn fill(&self, left_out: u32, separators: &[(u64, EntryId)], children: &[NodeId]) {
        assert_eq!(separators.len() + 1, children.len(), "a child on both sides of each separator");
        self.left_out.store(left_out, Relaxed);
        self.count.store(separators.len() as u32, Relaxed);
        for (index, (word, separator)) in separators.iter().enumerate() {
            self.words[index].store(*word, Relaxed);
            self.separators[index].store(*separator, Relaxed);
        }
        for (place, child) in self.children.iter().zip(children) {
            place.store(*child, Relaxed);
        }
    }

    pub(super) fn left_out(&self) -> u32 {
        self.left_out.load(Relaxed)
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Relaxed) as usize
    }

    pub(super) fn separator(&self, index: usize) -> Option<EntryId> {
        (index < self.len()).then(|| self.separators[index].load(Relaxed))
    }

    /// All separators with their words.
    pub(super) fn separators(&self) -> Vec<(u64, EntryId)> {
        let places = self.words.iter().zip(&self.separators).take(self.len());
        places.map(|(word, separator)| (word.load(Relaxed), separator.load(Relaxed))).collect()
    }

    /// How many separators have a smaller word, and how many a word that is not greater.
    pub(super) fn rank(&self, sought: u64) -> (usize, usize) {
        let words = &self.words[..self.len()];
        let (mut smaller, mut same) = (0, 0);
        for word in words {
            let word = word.load(Relaxed);
            smaller += usize::from(word < sought);
            same += usize::from(word == sought);
        }
        (smaller, smaller + same)
    }
}
