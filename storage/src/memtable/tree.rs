//! A B+tree that one writer extends while many readers search it without a lock.
//!
//! A search meets a cache line and often a page that it does not have at each step, so there must
//! be few of them: at a few hundred thousand entries it goes through three inner nodes, and an
//! insert then touches of the leaf its head and the place behind its last entry.
//!
//! ```text
//!   inner │ left out, count │ words of the separators, sorted │ separators │ children
//!   leaf  │ left out, count │ words of the entries, as they came │ entries
//! ```
//!
//! An insert appends to a leaf, and the leaf's count, stored last (release), shows it. A leaf that
//! is full is copied into two, and so is the inner node above it, with one more separator: readers
//! find the copies by the one store, in the node above or the root, that puts them in the place
//! of the old. Whoever is in an old node meanwhile finds there all that was in the tree when he
//! came. Nothing is freed before the whole tree dies with its memtable. A separator is the first
//! entry of what is to its right, and entries are never removed: so it is there.
//! (Bayer and Unterauer, "Prefix B-trees", 1977; what is left out of the words.)

use std::cmp::Ordering::{self, Equal, Greater, Less};
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Mutex, OnceLock, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};

use super::chunked::Chunked;
use super::node::{
    EntryId, Inner, LEAF_ENTRIES, Leaf, NodeId, SEPARATORS, compare_tied, shared, word,
};
use crate::key::Tag;

/// Inner nodes above each other: half full they have 16 children, so eight levels hold 2^32 leaves.
const HEIGHT_MAX: usize = 8;
/// Keys and values are copied into chunks of this size, so that a small entry does not keep alive
/// the large network or log buffer that it arrived in.
const CHUNK_BYTES: usize = 256 << 10;
/// To shorten the words of a leaf is worth reading its keys if so many bytes are gained.
const GAIN_BYTES_MIN: u32 = 4;
/// What an entry is counted with beside its key and value: the handle to it, and its part of the
/// nodes. Those that were copied and are read no more come on top, some 30 bytes an entry.
pub(super) const NODE_BYTES: usize = 84;

pub(super) struct Entry {
    /// The key, directly followed by the value.
    bytes: Bytes,
    key_bytes: u32,
    tag: Tag,
}

impl Entry {
    pub(super) fn key(&self) -> &[u8] {
        &self.bytes[..self.key_bytes as usize]
    }

    pub(super) fn tag(&self) -> Tag {
        self.tag
    }

    pub(super) fn value(&self) -> Bytes {
        self.bytes.slice(self.key_bytes as usize..)
    }

    pub(super) fn value_ref(&self) -> &[u8] {
        &self.bytes[self.key_bytes as usize..]
    }

    fn place(&self) -> (&[u8], Tag) {
        (self.key(), self.tag)
    }
}

pub(super) struct Tree {
    entries: Chunked<OnceLock<Entry>, 6>,
    leaves: Chunked<Leaf, 0>,
    inners: Chunked<Inner, 0>,
    /// The level of the root, and its id.
    root: AtomicU64,
    writer: Mutex<Writer>,
}

/// What only the writer touches.
#[derive(Default)]
struct Writer {
    chunk: BytesMut,
    next_entry: EntryId,
    next_leaf: NodeId,
    next_inner: NodeId,
}

/// What a search looks for among the leaves.
#[derive(Clone, Copy)]
pub(super) enum Bound<'a> {
    First,
    /// Where this entry is or would be.
    At(&'a [u8], Tag),
    /// Where the last entry before this one is.
    Before(&'a [u8], Tag),
    Last,
}

/// The way from the root to a leaf: the inner nodes, and which child of each.
struct Path {
    steps: [(NodeId, usize); HEIGHT_MAX],
    height: usize,
    leaf: NodeId,
}

/// The entries of one leaf, in order.
#[derive(Default)]
pub(super) struct Run {
    pub(super) entries: Vec<EntryId>,
    /// The first entry of the next leaf.
    pub(super) next: Option<EntryId>,
}

impl Tree {
    pub(super) fn new() -> Tree {
        let tree = Tree {
            entries: Chunked::new(),
            leaves: Chunked::new(),
            inners: Chunked::new(),
            root: AtomicU64::new(0),
            writer: Mutex::new(Writer { next_leaf: 1, ..Writer::default() }),
        };
        tree.leaves.get_or_grow(0);
        tree
    }

    /// Adds an entry, which must not be there yet.
    pub(super) fn insert(&self, key: &[u8], tag: Tag, value: &[u8]) {
        // A writer that panicked left at worst an entry and nodes that nothing leads to.
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let id = writer.next_entry;
        let path = self.descend(Bound::At(key, tag));
        let entry = Entry { bytes: writer.copy_in(key, value), key_bytes: key.len() as u32, tag };
        let fresh = self.entries.get_or_grow(id).set(entry).is_ok();
        assert!(fresh, "an entry's index is handed out once");
        writer.next_entry = id.checked_add(1).expect("a memtable is flushed long before 2^32");

        let leaf = self.leaf(path.leaf);
        if !leaf.push(word(key, tag, leaf.left_out()), id) {
            self.split(&mut writer, &path, id);
        }
    }

    pub(super) fn entry(&self, id: EntryId) -> &Entry {
        let entry = self.entries.get(id).and_then(OnceLock::get);
        entry.expect("an entry is complete before a leaf shows it")
    }

    /// The first entry at or after this one.
    pub(super) fn seek(&self, key: &[u8], tag: Tag) -> Option<EntryId> {
        let path = self.descend(Bound::At(key, tag));
        let leaf = self.leaf(path.leaf);
        let seen = leaf.seen();
        let left_out = leaf.left_out();
        let sought = (word(key, tag, left_out), (key, tag));
        let compare = |item, to| self.compare_in_node(left_out, item, to);
        let (mut low, mut high) = (0, seen.sorted);
        while low < high {
            let middle = low.midpoint(high);
            match compare(seen.item(middle), sought) {
                Less => low = middle + 1,
                Equal | Greater => high = middle,
            }
        }
        let mut first = (low < seen.sorted).then(|| seen.item(low));
        for item in seen.later() {
            let beats = |(word, id)| compare(item, (word, self.entry(id).place())) == Less;
            if item.0 >= sought.0 && first.is_none_or(beats) && compare(item, sought) != Less {
                first = Some(item);
            }
        }
        if let Some((_, id)) = first {
            return Some(id);
        }
        // All of the leaf is before it, so it is the first of the next.
        self.fences(&path, path.height).1
    }

    /// The leaf of this place, if it has entries.
    pub(super) fn run(&self, bound: Bound<'_>) -> Run {
        let path = self.descend(bound);
        let leaf = self.leaf(path.leaf);
        let mut items: Vec<_> = leaf.seen().items().collect();
        self.sort(leaf.left_out(), &mut items);
        let entries = items.into_iter().map(|(_, entry)| entry).collect();
        Run { entries, next: self.fences(&path, path.height).1 }
    }

    fn leaf(&self, id: NodeId) -> &Leaf {
        self.leaves.get(id).expect("a leaf is complete before a node leads to it")
    }

    fn inner(&self, id: NodeId) -> &Inner {
        self.inners.get(id).expect("a node is complete before another leads to it")
    }

    /// The order of an entry and a place, each with its word in a node which leaves out so many bytes.
    fn compare_in_node(
        &self,
        left_out: u32,
        (word, id): (u64, EntryId),
        (sought, place): (u64, (&[u8], Tag)),
    ) -> Ordering {
        let tied = || compare_tied(left_out, self.entry(id).place(), place);
        word.cmp(&sought).then_with(tied)
    }

    /// Sorts entries of one node which leaves out so many bytes.
    fn sort(&self, left_out: u32, items: &mut [(u64, EntryId)]) {
        items.sort_by(|a, (word, id)| {
            let tied = || compare_tied(left_out, self.entry(a.1).place(), self.entry(*id).place());
            a.0.cmp(word).then_with(tied)
        });
    }

    fn descend(&self, bound: Bound<'_>) -> Path {
        let root = self.root.load(Acquire);
        let (height, mut at) = ((root >> u32::BITS) as usize, root as NodeId);
        let mut steps = [(0, 0); HEIGHT_MAX];
        for step in &mut steps[..height] {
            let inner = self.inner(at);
            let child = match bound {
                Bound::First => 0,
                Bound::Last => inner.len(),
                Bound::At(key, tag) => self.child_of(inner, key, tag, true),
                Bound::Before(key, tag) => self.child_of(inner, key, tag, false),
            };
            *step = (at, child);
            at = inner.children[child].load(Acquire);
        }
        Path { steps, height, leaf: at }
    }

    /// How many separators are before this place, or at it if that counts.
    fn child_of(&self, inner: &Inner, key: &[u8], tag: Tag, at_counts: bool) -> usize {
        let (mut low, mut high) = inner.rank(word(key, tag, inner.left_out()));
        while low < high {
            let middle = low.midpoint(high);
            let separator = inner.separator(middle).expect("it is below the count");
            match compare_tied(inner.left_out(), self.entry(separator).place(), (key, tag)) {
                Less => low = middle + 1,
                Equal if at_counts => low = middle + 1,
                Equal | Greater => high = middle,
            }
        }
        low
    }

    /// The separators to the left and right of the node that so many steps of the path lead to.
    fn fences(&self, path: &Path, steps: usize) -> (Option<EntryId>, Option<EntryId>) {
        let steps = || path.steps[..steps].iter().rev();
        let low = steps().find(|(_, child)| *child > 0);
        let low = low.and_then(|(id, child)| self.inner(*id).separator(child - 1));
        (low, steps().find_map(|(id, child)| self.inner(*id).separator(*child)))
    }

    /// How many bytes a node between these fences leaves out.
    fn left_out(&self, low: Option<EntryId>, high: Option<EntryId>) -> u32 {
        match (low, high) {
            (Some(low), Some(high)) => shared(self.entry(low).key(), self.entry(high).key()),
            _ => 0,
        }
    }

    /// Puts two leaves in the place of a full one, and the entry in one of them.
    fn split(&self, writer: &mut Writer, path: &Path, id: EntryId) {
        let full = self.leaf(path.leaf);
        let left_out = full.left_out();
        let entry = self.entry(id);
        let mut items: Vec<_> = full.seen().items().collect();
        items.push((word(entry.key(), entry.tag, left_out), id));
        self.sort(left_out, &mut items);
        let (low, high) = self.fences(path, path.height);
        if items.last().is_some_and(|(_, last)| *last == id) {
            // Keys that come in order would leave half of each leaf empty: this one stays full.
            let right = self.new_leaf(writer, left_out, (Some(id), high), &items[LEAF_ENTRIES..]);
            return self.replace(writer, path, path.leaf, id, right);
        }
        let (smaller, greater) = items.split_at(items.len() / 2);
        let separator = greater[0].1;
        let left = self.new_leaf(writer, left_out, (low, Some(separator)), smaller);
        let right = self.new_leaf(writer, left_out, (Some(separator), high), greater);
        self.replace(writer, path, left, separator, right);
    }

    /// A leaf of these entries, whose words leave out so many bytes, or more.
    fn new_leaf(
        &self,
        writer: &mut Writer,
        left_out: u32,
        (low, high): (Option<EntryId>, Option<EntryId>),
        items: &[(u64, EntryId)],
    ) -> NodeId {
        let id = writer.next_leaf;
        writer.next_leaf += 1;
        let leaf = self.leaves.get_or_grow(id);
        let could = self.left_out(low, high);
        let is_one_key = low.is_some_and(|low| could as usize > self.entry(low).key().len());
        let gains = could >= left_out + GAIN_BYTES_MIN || (is_one_key && could > left_out);
        leaf.begin(if gains { could } else { left_out }, items.len());
        for (old, id) in items {
            let entry = self.entry(*id);
            let word = if gains { word(entry.key(), entry.tag, could) } else { *old };
            assert!(leaf.push(word, *id), "a leaf has room for half of one that is full");
        }
        id
    }

    /// Puts two nodes in the place of the one that the path leads to, with a separator between them.
    fn replace(
        &self,
        writer: &mut Writer,
        path: &Path,
        mut left: NodeId,
        mut separator: EntryId,
        mut right: NodeId,
    ) {
        for step in (0..path.height).rev() {
            let (id, child) = path.steps[step];
            let old = self.inner(id);
            let place = self.entry(separator);
            let mut separators = old.separators();
            separators.insert(child, (word(place.key(), place.tag, old.left_out()), separator));
            let children = &old.children[..=old.len()];
            let mut children: Vec<_> = children.iter().map(|child| child.load(Relaxed)).collect();
            children[child] = left;
            children.insert(child + 1, right);
            if separators.len() <= SEPARATORS {
                let copy = self.new_inner(writer, old.left_out(), &separators, &children);
                return self.publish(path, step, copy);
            }
            let (low, high) = self.fences(path, step);
            let middle = separators.len() / 2;
            separator = separators[middle].1;
            let (first, last) = children.split_at(middle + 1);
            left = self.new_between(writer, (low, Some(separator)), &separators[..middle], first);
            let behind = &separators[middle + 1..];
            right = self.new_between(writer, (Some(separator), high), behind, last);
        }
        let first = self.entry(separator);
        let separators = [(word(first.key(), first.tag, 0), separator)];
        let root = self.new_inner(writer, 0, &separators, &[left, right]);
        assert!(path.height < HEIGHT_MAX, "the height holds every leaf that there can be");
        self.root.store(((path.height + 1) as u64) << u32::BITS | u64::from(root), Release);
    }

    /// Shows a node in the place of the one that so many steps of the path lead to.
    fn publish(&self, path: &Path, steps: usize, id: NodeId) {
        match path.steps[..steps].last() {
            Some((above, child)) => self.inner(*above).children[*child].store(id, Release),
            None => self.root.store((path.height as u64) << u32::BITS | u64::from(id), Release),
        }
    }

    /// An inner node whose words leave out what its fences share.
    fn new_between(
        &self,
        writer: &mut Writer,
        (low, high): (Option<EntryId>, Option<EntryId>),
        separators: &[(u64, EntryId)],
        children: &[NodeId],
    ) -> NodeId {
        let left_out = self.left_out(low, high);
        let with_word = |(_, id): &(u64, EntryId)| {
            let entry = self.entry(*id);
            (word(entry.key(), entry.tag, left_out), *id)
        };
        let separators: Vec<_> = separators.iter().map(with_word).collect();
        self.new_inner(writer, left_out, &separators, children)
    }

    fn new_inner(
        &self,
        writer: &mut Writer,
        left_out: u32,
        separators: &[(u64, EntryId)],
        children: &[NodeId],
    ) -> NodeId {
        let id = writer.next_inner;
        writer.next_inner += 1;
        self.inners.get_or_grow(id).fill(left_out, separators, children);
        id
    }
}

impl Writer {
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
