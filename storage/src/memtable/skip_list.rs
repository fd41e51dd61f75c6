//! A skip list that one writer extends while many readers walk it without a lock.
//!
//! Nodes are never removed and never move: a link is an index into a growing array. A node is
//! complete before the first link to it is stored (release), and whoever follows a link loads it
//! with acquire, so no reader sees half a node. The whole list dies at once with its memtable.
//! (Pugh, "Skip lists: a probabilistic alternative to balanced trees", 1990.)

use std::cmp::Ordering;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Acquire, Ordering::Release};
use std::sync::{Mutex, OnceLock, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};

use super::chunked::Chunked;
use crate::key::{Tag, compare};

/// One node in `BRANCHING` reaches the next level: at this height the list holds 4^12 nodes well.
const HEIGHT_MAX: usize = 12;
const BRANCHING: u64 = 4;
/// Keys and values are copied into chunks of this size, so that a small entry does not keep alive
/// the large network or log buffer that it arrived in.
const CHUNK_BYTES: usize = 256 << 10;
/// What a node takes beside its key and value: itself and its share of the links.
pub(super) const NODE_BYTES: usize = 72;

/// A node's index; none is zero.
pub(super) type NodeId = u32;
const NIL: NodeId = 0;

pub(super) struct Node {
    /// The key, directly followed by the value.
    entry: Bytes,
    key_bytes: u32,
    /// Index of the first of the node's links, one for each level it reaches.
    links: u32,
    pub(super) tag: Tag,
}

impl Node {
    pub(super) fn key(&self) -> &[u8] {
        &self.entry[..self.key_bytes as usize]
    }

    pub(super) fn value(&self) -> Bytes {
        self.entry.slice(self.key_bytes as usize..)
    }
}

pub(super) struct SkipList {
    nodes: Chunked<OnceLock<Node>>,
    links: Chunked<AtomicU32>,
    head: [AtomicU32; HEIGHT_MAX],
    /// Levels in use.
    height: AtomicUsize,
    writer: Mutex<Writer>,
}

/// What only the writer touches.
struct Writer {
    chunk: BytesMut,
    next_node: u32,
    next_link: u32,
    /// State of the generator of heights. Its seed is fixed: the same inserts, the same list.
    random: u64,
}

impl SkipList {
    pub(super) fn new() -> SkipList {
        SkipList {
            nodes: Chunked::new(),
            links: Chunked::new(),
            head: [const { AtomicU32::new(NIL) }; HEIGHT_MAX],
            height: AtomicUsize::new(1),
            writer: Mutex::new(Writer {
                chunk: BytesMut::new(),
                next_node: 1,
                next_link: 0,
                random: 0x9E37_79B9_7F4A_7C15,
            }),
        }
    }

    /// Adds an entry, which must not be there yet.
    pub(super) fn insert(&self, key: &[u8], tag: Tag, value: &[u8]) {
        // A writer that panicked left at worst a node that no link leads to.
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let height = writer.random_height();
        let (id, links) = writer.take_ids(height);
        let entry = writer.copy_in(key, value);

        let before = self.predecessors(key, tag);
        for (level, &predecessor) in before.iter().enumerate().take(height) {
            let successor = self.link(predecessor, level).load(Acquire);
            self.links.get_or_grow(links + level as u32).store(successor, Release);
        }
        let node = Node { entry, key_bytes: key.len() as u32, links, tag };
        let fresh = self.nodes.get_or_grow(id).set(node).is_ok();
        assert!(fresh, "a node id is handed out once");
        for (level, &predecessor) in before.iter().enumerate().take(height) {
            self.link(predecessor, level).store(id, Release);
        }
        self.height.fetch_max(height, Release);
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        let cell = self.nodes.get(id).and_then(OnceLock::get);
        cell.expect("a node is complete before the first link to it")
    }

    pub(super) fn first(&self) -> Option<NodeId> {
        some(self.head[0].load(Acquire))
    }

    pub(super) fn next(&self, id: NodeId) -> Option<NodeId> {
        some(self.link(id, 0).load(Acquire))
    }

    /// The first entry at or after this one.
    pub(super) fn seek(&self, key: &[u8], tag: Tag) -> Option<NodeId> {
        let before = self.seek_before(key, tag).unwrap_or(NIL);
        self.next(before)
    }

    /// The last entry before this one.
    pub(super) fn seek_before(&self, key: &[u8], tag: Tag) -> Option<NodeId> {
        let mut at = NIL;
        for level in (0..self.height.load(Acquire)).rev() {
            at = self.walk(at, level, |node| {
                compare((node.key(), node.tag), (key, tag)) == Ordering::Less
            });
        }
        some(at)
    }

    pub(super) fn last(&self) -> Option<NodeId> {
        let mut at = NIL;
        for level in (0..self.height.load(Acquire)).rev() {
            at = self.walk(at, level, |_| true);
        }
        some(at)
    }

    /// At each level the last node before this entry, or the head.
    fn predecessors(&self, key: &[u8], tag: Tag) -> [NodeId; HEIGHT_MAX] {
        let mut before = [NIL; HEIGHT_MAX];
        let mut at = NIL;
        for level in (0..self.height.load(Acquire)).rev() {
            at = self.walk(at, level, |node| {
                compare((node.key(), node.tag), (key, tag)) == Ordering::Less
            });
            before[level] = at;
        }
        before
    }

    /// From `at` along one level for as long as the next node satisfies.
    fn walk(&self, mut at: NodeId, level: usize, satisfies: impl Fn(&Node) -> bool) -> NodeId {
        loop {
            let next = self.link(at, level).load(Acquire);
            if next == NIL || !satisfies(self.node(next)) {
                return at;
            }
            at = next;
        }
    }

    fn link(&self, id: NodeId, level: usize) -> &AtomicU32 {
        if id == NIL {
            return &self.head[level];
        }
        let link = self.links.get(self.node(id).links + level as u32);
        link.expect("a node's links are made before the node")
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

    fn take_ids(&mut self, height: usize) -> (NodeId, u32) {
        let (id, links) = (self.next_node, self.next_link);
        self.next_node = id.checked_add(1).expect("a memtable is flushed long before 2^32 entries");
        self.next_link =
            links.checked_add(height as u32).expect("a memtable is flushed long before 2^32 links");
        (id, links)
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
    use crate::key::Kind;

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
