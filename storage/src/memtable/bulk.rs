//! Builds a tree of many entries at once, for a recovery: sorted first, it takes a fraction of the
//! time of as many inserts.

use std::cmp::Ordering;

use bytes::Bytes;

use super::Memtable;
use super::node::{EntryId, LEAF_ENTRIES, Leaf, NodeId, SEPARATORS, shared, word};
use super::tree::{Taken, Tree};
use crate::key::{Sequence, compare};
use crate::log::Position;

/// Entries of a leaf, and children of an inner node, so that there is room for what comes later.
const LEAF_FILL: usize = LEAF_ENTRIES * 3 / 4;
const INNER_FILL: usize = SEPARATORS * 3 / 4;
/// So few entries with the same word are sorted by comparing their keys.
const FEW: usize = 32;
/// Keys that still have the same words after so many steps are compared too.
const STEPS_MAX: usize = 64;

/// A memtable that nobody else sees yet, and what is to be inserted into it.
pub(crate) struct Load {
    memtable: Memtable,
    /// The entries, with the words of nodes that leave out nothing.
    items: Vec<(u64, EntryId)>,
}

impl Load {
    pub(crate) fn new() -> Load {
        Load { memtable: Memtable::new(), items: Vec::new() }
    }

    /// Adds a batch, the first of whose operations has this sequence. `stored` is kept.
    pub(crate) fn add(&mut self, stored: Bytes, count: usize, first: Sequence, mark: Position) {
        self.memtable.announce(count, stored.len(), first + count as u64 - 1);
        self.memtable.note(mark.0, mark);
        let items = &mut self.items;
        self.memtable.fill(stored, count, first, |id, change, tag| {
            items.push((word(change.key, tag, 0), id));
        });
    }

    /// What the memtable will take, with a guess of its nodes.
    pub(crate) fn bytes(&self) -> usize {
        self.memtable.bytes() + self.items.len() * size_of::<Leaf>() / LEAF_FILL
    }

    pub(crate) fn entries(&self) -> usize {
        self.items.len()
    }

    /// The memtable with all in it.
    pub(crate) fn finish(mut self) -> Memtable {
        self.memtable.tree.build(&mut self.items);
        self.memtable
    }
}

impl Tree {
    /// Puts entries into a tree that has none.
    fn build(&self, items: &mut [(u64, EntryId)]) {
        if items.is_empty() {
            return;
        }
        self.sort_words(0, items, STEPS_MAX);
        let mut taken = self.taken();
        let mut nodes = Vec::with_capacity(items.len() / LEAF_FILL + 1);
        let mut rest = &items[..];
        let mut low = None;
        while !rest.is_empty() {
            let (leaf, behind) = rest.split_at(LEAF_FILL.min(rest.len()));
            let high = behind.first().map(|(_, id)| *id);
            nodes.push((low, self.new_leaf(&mut taken, 0, (low, high), leaf)));
            (low, rest) = (high, behind);
        }
        let mut height = 0;
        while nodes.len() > 1 {
            nodes = self.build_level(&mut taken, &nodes);
            height += 1;
        }
        self.set_root(height, nodes[0].1);
    }

    /// The inner nodes above these nodes, each of which comes with the separator to its left.
    fn build_level(
        &self,
        taken: &mut Taken,
        nodes: &[(Option<EntryId>, NodeId)],
    ) -> Vec<(Option<EntryId>, NodeId)> {
        let mut above = Vec::with_capacity(nodes.len() / INNER_FILL + 1);
        let mut rest = nodes;
        while !rest.is_empty() {
            // A node with one child would have no separator.
            let count = if rest.len() <= SEPARATORS { rest.len() } else { INNER_FILL };
            let (children, behind) = rest.split_at(count);
            let low = children[0].0;
            let high = behind.first().and_then(|(low, _)| *low);
            let separators: Vec<_> =
                children[1..].iter().filter_map(|(low, _)| low.map(|low| (0, low))).collect();
            let children: Vec<NodeId> = children.iter().map(|(_, node)| *node).collect();
            above.push((low, self.new_between(taken, (low, high), &separators, &children)));
            rest = behind;
        }
        above
    }

    /// Sorts entries that all have the words of a node which leaves out so many bytes, and the same
    /// key up to there.
    fn sort_words(&self, left_out: usize, items: &mut [(u64, EntryId)], steps: usize) {
        // Stable: the versions of one key are in reverse order then, which is sorted at once.
        items.sort_by_key(|(word, _)| *word);
        for same in items.chunk_by_mut(|a, b| a.0 == b.0) {
            if same.len() > 1 {
                self.sort_same(left_out + size_of::<u64>(), same, steps);
            }
        }
    }

    /// Sorts entries that have the same key up to here, unless it ends before.
    fn sort_same(&self, up_to: usize, items: &mut [(u64, EntryId)], steps: usize) {
        let key = |id: EntryId| self.entries.place(id).0;
        let first = key(items[0].1);
        let same = |(_, id): &(u64, EntryId)| shared(first, key(*id)) as usize;
        if items.len() <= FEW || steps == 0 || items.iter().map(same).any(|same| same < up_to) {
            items.sort_by(|a, b| self.compare(a.1, b.1));
            return;
        }
        let up_to = items.iter().map(same).min().unwrap_or(up_to);
        let outer = items[0].0;
        for item in &mut *items {
            *item = self.with_word(item.1, up_to as u32);
        }
        self.sort_words(up_to, items, steps - 1);
        for (word, _) in items {
            *word = outer;
        }
    }

    fn compare(&self, a: EntryId, b: EntryId) -> Ordering {
        compare(self.entries.place(a), self.entries.place(b))
    }
}
