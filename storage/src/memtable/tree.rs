//! A B+tree that many threads extend while many others search it without a lock.
//!
//! A search meets a cache line and often a page that it does not have at each step, so there must
//! be few of them: at a few hundred thousand entries it goes through three inner nodes, and an
//! insert then touches of the leaf its head and the place behind its last entry.
//!
//! ```text
//!   inner │ left out, count │ words of the separators, sorted │ separators │ children
//!   leaf  │ left out, count │ entries, as they came │ their words
//! ```
//!
//! An insert takes a place in a leaf and fills it; no thread waits for another there. A leaf that
//! is full is closed and copied into two, and so is the inner node above it, with one more
//! separator: others find the copies by the one store, in the node above or the root, that puts
//! them in the place of the old. That is done under a lock, by one insert in some fifteen. Whoever
//! is in an old node meanwhile finds there all that was in the tree when he came, and whoever wants
//! to insert finds it full, and comes again. Nothing is freed before the whole tree dies with its
//! memtable. A separator is the first entry of what is to its right, and entries are never removed:
//! so it is there. (Bayer and Unterauer, "Prefix B-trees", 1977; what is left out of the words.)

use std::cmp::Ordering::{self, Equal, Greater, Less};
use std::hint::black_box;
use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::chunked::Chunked;
use super::entries::Entries;
use super::node::{
    EntryId, Fences, Inner, LEAF_ENTRIES, Leaf, NodeId, SEPARATORS, compare_tied, shared, word,
};
use crate::key::{Tag, compare};

/// Inner nodes above each other: half full they have 16 children, so eight levels hold 2^32 leaves.
const HEIGHT_MAX: usize = 8;
/// To shorten the words of a leaf is worth reading its keys if so many bytes are gained.
const GAIN_BYTES_MIN: u32 = 4;
/// So many entries go down the tree together: the processor then waits for several nodes at once.
pub(super) const GROUP: usize = 16;
/// So many hot keys are known.
const HOT_KEYS: usize = 64;

pub(super) struct Tree {
    pub(super) entries: Entries,
    pub(super) leaves: Chunked<Leaf, 3>,
    pub(super) inners: Chunked<Inner, 3>,
    /// The level of the root, and its id.
    pub(super) root: AtomicU64,
    splitting: Mutex<Taken>,
    /// For some keys with many versions: the upper half of a word has the key's hash, the lower the
    /// leaf of its newest version, or one that has been closed since.
    hot: [AtomicU64; HOT_KEYS],
    has_hot: AtomicBool,
    /// What all nodes take, those included that were copied and are read no more.
    node_bytes: AtomicUsize,
}

/// How many nodes there are. Only who splits makes any.
pub(super) struct Taken {
    leaves: NodeId,
    inners: NodeId,
}

/// An entry that was filled and that no leaf shows yet.
#[derive(Clone, Copy, Default)]
pub(super) struct New<'a> {
    pub(super) id: EntryId,
    pub(super) key: &'a [u8],
    pub(super) tag: Tag,
}

impl<'a> New<'a> {
    fn place(&self) -> (&'a [u8], Tag) {
        (self.key, self.tag)
    }
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
    entries: [EntryId; LEAF_ENTRIES],
    count: usize,
    /// The first entry of the next leaf.
    pub(super) next: Option<EntryId>,
}

impl Run {
    pub(super) fn entries(&self) -> &[EntryId] {
        &self.entries[..self.count]
    }
}

impl Tree {
    pub(super) fn new() -> Tree {
        let tree = Tree {
            entries: Entries::new(),
            leaves: Chunked::new(),
            inners: Chunked::new(),
            root: AtomicU64::new(0),
            splitting: Mutex::new(Taken { leaves: 0, inners: 0 }),
            hot: [const { AtomicU64::new(0) }; HOT_KEYS],
            has_hot: AtomicBool::new(false),
            node_bytes: AtomicUsize::new(0),
        };
        tree.take_leaf(&mut tree.taken());
        tree
    }

    /// What its nodes take in memory.
    pub(super) fn node_bytes(&self) -> usize {
        self.node_bytes.load(Relaxed)
    }

    /// Adds entries, none of which may be there yet: at most [`GROUP`].
    pub(super) fn insert(&self, group: &[New<'_>]) {
        if group.is_sorted_by(|a, b| compare(a.place(), b.place()) == Less)
            || group.is_sorted_by(|a, b| compare(a.place(), b.place()) == Greater)
        {
            return self.insert_in_order(group);
        }
        if !self.has_hot.load(Relaxed) {
            return self.insert_scattered(group);
        }
        let (mut scattered, mut count) = ([New::default(); GROUP], 0);
        for new in group {
            if !self.insert_hot(new) {
                scattered[count] = *new;
                count += 1;
            }
        }
        self.insert_scattered(&scattered[..count]);
    }

    /// Adds entries of which each is near the one before, most probably in the same leaf.
    fn insert_in_order(&self, group: &[New<'_>]) {
        let mut near = None;
        for new in group {
            if near.is_some_and(|leaf| self.insert_here(leaf, new)) || self.insert_hot(new) {
                continue;
            }
            near = Some(self.insert_one(None, new));
        }
    }

    /// Adds entries that are anywhere. They go down the tree together.
    fn insert_scattered(&self, group: &[New<'_>]) {
        let root = self.root.load(Acquire);
        let mut places = [root as NodeId; GROUP];
        for _ in 0..root >> u32::BITS {
            for (place, new) in places.iter_mut().zip(group) {
                let inner = self.inner(*place);
                let child = self.child_of(inner, new.key, new.tag, true);
                *place = inner.children[child].load(Acquire);
            }
        }
        // What the processor writes to in the end would wait for each leaf in turn.
        let touched = places.iter().zip(group).map(|(place, _)| self.leaf(*place).touch());
        black_box(touched.fold(0, |all, leaf| all ^ leaf));
        for (place, new) in places.iter().zip(group) {
            if !self.push(self.leaf(*place), new) {
                self.insert_one(Some(*place), new);
            }
        }
    }

    /// Adds an entry, for which there was no room in this leaf; says where.
    fn insert_one(&self, full: Option<NodeId>, new: &New<'_>) -> NodeId {
        // Others may have split it meanwhile.
        let path = self.descend(Bound::At(new.key, new.tag));
        if Some(path.leaf) != full && self.push(self.leaf(path.leaf), new) {
            return path.leaf;
        }
        let mut taken = self.taken();
        let path = self.descend(Bound::At(new.key, new.tag));
        if self.push(self.leaf(path.leaf), new) {
            return path.leaf;
        }
        self.split(&mut taken, &path, new)
    }

    fn push(&self, leaf: &Leaf, new: &New<'_>) -> bool {
        leaf.push(word(new.key, new.tag, leaf.left_out()), new.id)
    }

    /// Adds an entry to this leaf, if that is where it belongs, and there is room.
    fn insert_here(&self, leaf: NodeId, new: &New<'_>) -> bool {
        let leaf = self.leaf(leaf);
        let (low, high) = leaf.fences();
        let is_after = |id| compare(self.entries.place(id), new.place()) != Greater;
        low.is_none_or(is_after) && !high.is_some_and(is_after) && self.push(leaf, new)
    }

    /// Adds an entry that is a version of a hot key, if it is known where its newest version is.
    fn insert_hot(&self, new: &New<'_>) -> bool {
        let hash = hash(new.key);
        let hot = self.hot[hash as usize % HOT_KEYS].load(Acquire);
        let (is_hot, leaf) = ((hot >> u32::BITS) as u32 == hash, hot as NodeId);
        is_hot && hot != 0 && self.insert_here(leaf, new)
    }

    /// Notes that a key is hot: a leaf was split among its versions, and the newest is here.
    fn note_hot(&self, key: &[u8], leaf: NodeId) {
        let hash = hash(key);
        let hot = u64::from(hash) << u32::BITS | u64::from(leaf);
        self.hot[hash as usize % HOT_KEYS].store(hot, Release);
        self.has_hot.store(true, Relaxed);
    }

    /// The right to split. A thread that panicked with it left at worst a leaf that is closed, which
    /// the next one splits, and nodes that nothing leads to.
    pub(super) fn taken(&self) -> MutexGuard<'_, Taken> {
        self.splitting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first entry at or after this one.
    pub(super) fn seek(&self, key: &[u8], tag: Tag) -> Option<EntryId> {
        let path = self.descend(Bound::At(key, tag));
        let leaf = self.leaf(path.leaf);
        let left_out = leaf.left_out();
        let sought = (word(key, tag, left_out), (key, tag));
        let compare = |item, to| self.compare_in_node(left_out, item, to);
        let (mut low, mut high) = (0, leaf.sorted());
        while low < high {
            let middle = low.midpoint(high);
            match compare(leaf.sorted_item(middle), sought) {
                Less => low = middle + 1,
                Equal | Greater => high = middle,
            }
        }
        let mut first = (low < leaf.sorted()).then(|| leaf.sorted_item(low));
        for item in leaf.later() {
            let beats = |(word, id)| compare(item, (word, self.entries.place(id))) == Less;
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
        let (mut items, mut count) = ([(0, 0); LEAF_ENTRIES], 0);
        for (place, item) in items.iter_mut().zip(leaf.items()) {
            *place = item;
            count += 1;
        }
        self.sort(leaf.left_out(), &mut items[..count]);
        let entries = items.map(|(_, entry)| entry);
        Run { entries, count, next: self.fences(&path, path.height).1 }
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
        let tied = || compare_tied(left_out, self.entries.place(id), place);
        word.cmp(&sought).then_with(tied)
    }

    /// Sorts entries of one node which leaves out so many bytes.
    fn sort(&self, left_out: u32, items: &mut [(u64, EntryId)]) {
        items.sort_by(|a, (word, id)| {
            let tied = || compare_tied(left_out, self.entries.place(a.1), self.entries.place(*id));
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
            match compare_tied(inner.left_out(), self.entries.place(separator), (key, tag)) {
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
    pub(super) fn left_out(&self, low: Option<EntryId>, high: Option<EntryId>) -> u32 {
        match (low, high) {
            (Some(low), Some(high)) => {
                shared(self.entries.place(low).0, self.entries.place(high).0)
            }
            _ => 0,
        }
    }

    /// Puts two leaves in the place of a full one, and the entry in one of them; says which.
    fn split(&self, taken: &mut Taken, path: &Path, new: &New<'_>) -> NodeId {
        let full = self.leaf(path.leaf);
        full.close();
        let left_out = full.left_out();
        let (low, high) = self.fences(path, path.height);
        let mut items: Vec<_> = full.items().collect();
        let before = items.last().map(|(_, last)| *last);
        items.push((word(new.key, new.tag, left_out), new.id));
        self.sort(left_out, &mut items);
        if items.len() <= LEAF_ENTRIES / 2 {
            // Most who had taken a place had not filled it, and come again.
            let leaf = self.new_leaf(taken, left_out, (low, high), &items);
            self.publish(path, path.height, leaf);
            return leaf;
        }
        // Keys that come in order, or in reverse, would leave half of each leaf empty: then the full
        // leaf stays as it is. So it is with the versions of a key, of which the newest is the first.
        let is_new = |at: usize| items[at].1 == new.id;
        let is_before = |at: usize| Some(items[at].1) == before;
        let last = items.len() - 1;
        let (at, stays) = match () {
            () if is_new(last) && is_before(last - 1) => (last, true),
            () if is_new(0) && is_before(1) => (1, true),
            () => (items.len() / 2, false),
        };
        let (smaller, greater) = items.split_at(at);
        let separator = greater[0].1;
        let left = match stays && at > 1 {
            true => path.leaf,
            false => self.new_leaf(taken, left_out, (low, Some(separator)), smaller),
        };
        let right = match stays && at == 1 {
            true => path.leaf,
            false => self.new_leaf(taken, left_out, (Some(separator), high), greater),
        };
        self.replace(taken, path, left, separator, right);
        let goes_left = smaller.iter().any(|(_, id)| *id == new.id);
        let leaf = if goes_left { left } else { right };
        if self.entries.place(separator).0 == new.key {
            self.note_hot(new.key, leaf);
        }
        leaf
    }

    /// A leaf of these entries, whose words leave out so many bytes, or more.
    pub(super) fn new_leaf(
        &self,
        taken: &mut Taken,
        left_out: u32,
        (low, high): Fences,
        items: &[(u64, EntryId)],
    ) -> NodeId {
        let could = self.left_out(low, high);
        let is_one_key = low.is_some_and(|low| could as usize > self.entries.place(low).0.len());
        let gains = could >= left_out + GAIN_BYTES_MIN || (is_one_key && could > left_out);
        let id = self.take_leaf(taken);
        let leaf = self.leaf(id);
        if gains {
            leaf.fill((low, high), could, items.iter().map(|(_, id)| self.with_word(*id, could)));
        } else {
            leaf.fill((low, high), left_out, items.iter().copied());
        }
        id
    }

    fn take_leaf(&self, taken: &mut Taken) -> NodeId {
        let id = taken.leaves;
        taken.leaves += 1;
        self.leaves.get_or_grow(id);
        self.node_bytes.fetch_add(size_of::<Leaf>(), Relaxed);
        id
    }

    /// The entry with its word in a node which leaves out so many bytes.
    pub(super) fn with_word(&self, id: EntryId, left_out: u32) -> (u64, EntryId) {
        let (key, tag) = self.entries.place(id);
        (word(key, tag, left_out), id)
    }

    /// Puts two nodes in the place of the one that the path leads to, with a separator between them.
    fn replace(
        &self,
        taken: &mut Taken,
        path: &Path,
        mut left: NodeId,
        mut separator: EntryId,
        mut right: NodeId,
    ) {
        for step in (0..path.height).rev() {
            let (id, child) = path.steps[step];
            let old = self.inner(id);
            let mut separators = old.separators();
            separators.insert(child, self.with_word(separator, old.left_out()));
            let children = &old.children[..=old.len()];
            let mut children: Vec<_> = children.iter().map(|child| child.load(Relaxed)).collect();
            children[child] = left;
            children.insert(child + 1, right);
            if separators.len() <= SEPARATORS {
                let copy = self.new_inner(taken, old.left_out(), &separators, &children);
                return self.publish(path, step, copy);
            }
            let (low, high) = self.fences(path, step);
            let middle = separators.len() / 2;
            separator = separators[middle].1;
            let (first, last) = children.split_at(middle + 1);
            left = self.new_between(taken, (low, Some(separator)), &separators[..middle], first);
            let behind = &separators[middle + 1..];
            right = self.new_between(taken, (Some(separator), high), behind, last);
        }
        let separators = [self.with_word(separator, 0)];
        let root = self.new_inner(taken, 0, &separators, &[left, right]);
        self.set_root(path.height + 1, root);
    }

    pub(super) fn set_root(&self, height: usize, id: NodeId) {
        assert!(height <= HEIGHT_MAX, "the height holds every leaf that there can be");
        self.root.store((height as u64) << u32::BITS | u64::from(id), Release);
    }

    /// Shows a node in the place of the one that so many steps of the path lead to.
    fn publish(&self, path: &Path, steps: usize, id: NodeId) {
        match path.steps[..steps].last() {
            Some((above, child)) => self.inner(*above).children[*child].store(id, Release),
            None => self.set_root(path.height, id),
        }
    }

    /// An inner node whose words leave out what its fences share.
    pub(super) fn new_between(
        &self,
        taken: &mut Taken,
        (low, high): Fences,
        separators: &[(u64, EntryId)],
        children: &[NodeId],
    ) -> NodeId {
        let left_out = self.left_out(low, high);
        let with_word = |(_, id): &(u64, EntryId)| self.with_word(*id, left_out);
        let separators: Vec<_> = separators.iter().map(with_word).collect();
        self.new_inner(taken, left_out, &separators, children)
    }

    fn new_inner(
        &self,
        taken: &mut Taken,
        left_out: u32,
        separators: &[(u64, EntryId)],
        children: &[NodeId],
    ) -> NodeId {
        let id = taken.inners;
        taken.inners += 1;
        self.node_bytes.fetch_add(size_of::<Inner>(), Relaxed);
        self.inners.get_or_grow(id).fill(left_out, separators, children);
        id
    }
}

/// Of a key's beginning, end and length: good enough to tell a few keys apart.
fn hash(key: &[u8]) -> u32 {
    let edge = |bytes: Option<&[u8; 8]>| bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let short = || key.iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
    let first = key.first_chunk().map_or_else(short, |first| edge(Some(first)));
    let mixed = first ^ edge(key.last_chunk()).rotate_left(32) ^ key.len() as u64;
    (mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> u32::BITS) as u32
}
