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
pub(super) const LEAF_ENTRIES: usize = 30;
/// Separators of an inner node, which has one more child.
pub(super) const SEPARATORS: usize = 30;
/// What [`shared`] adds for two versions of one key: then the word is the version.
const KEY_END: usize = 1;

/// The index of an entry, from one on.
pub(super) type EntryId = u32;
/// The separators to the left and right of a node, if there are.
pub(super) type Fences = (Option<EntryId>, Option<EntryId>);
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

/// Entries: in order those it was made with, then in the order of their arrival the others.
///
/// Who adds one takes the next place, fills it, and shows it by storing the entry's index last. A
/// leaf all of whose places are taken is closed before it is split: a place that is not filled by
/// then never will be, and who took it goes elsewhere. So nobody waits for anybody in a leaf, and
/// nothing of it changes once it is closed.
#[repr(C, align(64))]
pub(super) struct Leaf {
    left_out: AtomicU32,
    /// So many at the beginning are in order: those that the leaf was made with.
    sorted: AtomicU32,
    /// Places that were taken, and attempts to take one that there was not.
    taken: AtomicU32,
    /// The first entry that may be in the leaf, and the first of the next. They hold until it is
    /// closed: then there may be a leaf between it and its neighbour.
    low: AtomicU32,
    high: AtomicU32,
    entries: [AtomicU32; LEAF_ENTRIES],
    words: [AtomicU64; LEAF_ENTRIES],
}

/// No entry yet.
const EMPTY: EntryId = 0;
/// No entry ever: the leaf was closed first.
const CLOSED: EntryId = EntryId::MAX;

impl Default for Leaf {
    fn default() -> Leaf {
        Leaf {
            left_out: AtomicU32::new(0),
            sorted: AtomicU32::new(0),
            taken: AtomicU32::new(0),
            low: AtomicU32::new(EMPTY),
            high: AtomicU32::new(EMPTY),
            entries: [const { AtomicU32::new(EMPTY) }; LEAF_ENTRIES],
            words: [const { AtomicU64::new(0) }; LEAF_ENTRIES],
        }
    }
}

impl Leaf {
    /// For who makes the leaf, before anybody else finds it.
    pub(super) fn fill(
        &self,
        (low, high): Fences,
        left_out: u32,
        items: impl Iterator<Item = (u64, EntryId)>,
    ) {
        self.low.store(low.unwrap_or(EMPTY), Relaxed);
        self.high.store(high.unwrap_or(EMPTY), Relaxed);
        let mut count = 0;
        for (place, (word, entry)) in items.enumerate() {
            self.words[place].store(word, Relaxed);
            self.entries[place].store(entry, Relaxed);
            count += 1;
        }
        self.left_out.store(left_out, Relaxed);
        self.sorted.store(count, Relaxed);
        self.taken.store(count, Relaxed);
    }

    pub(super) fn left_out(&self) -> u32 {
        self.left_out.load(Relaxed)
    }

    pub(super) fn fences(&self) -> Fences {
        let fence = |fence: &AtomicU32| Some(fence.load(Relaxed)).filter(|id| *id != EMPTY);
        (fence(&self.low), fence(&self.high))
    }

    /// Whether there was room. Readers see all of the entry or nothing.
    pub(super) fn push(&self, word: u64, entry: EntryId) -> bool {
        self.take().is_some_and(|place| self.show(place, word, entry))
    }

    /// A place that nobody else is given, if there is one.
    fn take(&self) -> Option<usize> {
        // Looked at first, so that attempts do not add up to where they would count from zero.
        if self.taken.load(Relaxed) as usize >= LEAF_ENTRIES {
            return None;
        }
        let place = self.taken.fetch_add(1, Relaxed) as usize;
        (place < LEAF_ENTRIES).then_some(place)
    }

    /// Fills a place, unless the leaf was closed first.
    fn show(&self, place: usize, word: u64, entry: EntryId) -> bool {
        self.words[place].store(word, Relaxed);
        self.entries[place].compare_exchange(EMPTY, entry, Release, Relaxed).is_ok()
    }

    /// Lets nobody fill any more what is not filled. Only for a leaf that is full.
    pub(super) fn close(&self) {
        (0..LEAF_ENTRIES).for_each(|place| self.close_place(place));
    }

    fn close_place(&self, place: usize) {
        let entry = &self.entries[place];
        // Most are filled: looking costs less than trying.
        if entry.load(Relaxed) == EMPTY {
            let _ = entry.compare_exchange(EMPTY, CLOSED, Relaxed, Relaxed);
        }
    }

    /// Has the head and the end in the processor's caches before they are needed.
    pub(super) fn touch(&self) -> u64 {
        let end = (self.taken.load(Relaxed) as usize).min(LEAF_ENTRIES - 1);
        self.words[end].load(Relaxed) ^ u64::from(self.entries[end].load(Relaxed))
    }

    /// How many at the beginning are in order.
    pub(super) fn sorted(&self) -> usize {
        self.sorted.load(Relaxed) as usize
    }

    /// One of those that are in order.
    pub(super) fn sorted_item(&self, index: usize) -> (u64, EntryId) {
        (self.words[index].load(Relaxed), self.entries[index].load(Relaxed))
    }

    /// All, with their words.
    pub(super) fn items(&self) -> impl Iterator<Item = (u64, EntryId)> {
        self.shown(0)
    }

    /// Those that came later than the leaf.
    pub(super) fn later(&self) -> impl Iterator<Item = (u64, EntryId)> {
        self.shown(self.sorted())
    }

    fn shown(&self, from: usize) -> impl Iterator<Item = (u64, EntryId)> {
        let end = (self.taken.load(Relaxed) as usize).min(LEAF_ENTRIES);
        self.entries[from..end].iter().zip(&self.words[from..end]).filter_map(|(entry, word)| {
            // The word was stored before it, and so was all that it leads to.
            let entry = entry.load(Acquire);
            (entry != EMPTY && entry != CLOSED).then(|| (word.load(Relaxed), entry))
        })
    }
}

/// Separators in order, and the children between them. Only a child is ever replaced; for another
/// separator there is another node.
#[repr(align(64))]
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
    /// For who makes the node, before anybody else finds it.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amount;

    /// One who inserts takes a place, then fills it; one who splits closes the places one by one,
    /// then takes what is there. In every order of these steps, what he takes is what the others
    /// were told is in, no more and no less, and a reader sees nothing that goes again.
    #[test]
    fn whatever_the_order_a_split_takes_along_what_was_inserted() {
        let mut orders = 0;
        // Two steps of each of three who insert, three of who splits.
        every_order(&mut [2, 2, amount(2, 0), 3], &mut Vec::new(), &mut |order| {
            check_order(order);
            orders += 1;
        });
        assert_eq!(orders, amount(7560, 210));
    }

    fn every_order(left: &mut [usize; 4], order: &mut Vec<usize>, each: &mut impl FnMut(&[usize])) {
        if left.iter().all(|left| *left == 0) {
            return each(order);
        }
        for who in 0..left.len() {
            if left[who] > 0 {
                left[who] -= 1;
                order.push(who);
                every_order(left, order, each);
                order.pop();
                left[who] += 1;
            }
        }
    }

    fn check_order(order: &[usize]) {
        const SPLITS: usize = 3;
        const ROOM: usize = 2;
        let leaf = Leaf::default();
        let before = (LEAF_ENTRIES - ROOM) as EntryId;
        leaf.fill((None, None), 0, (1..=before).map(|id| (u64::from(id), id)));
        let ids = || leaf.items().map(|(_, id)| id).collect::<Vec<_>>();
        let mut places = [None; 3];
        let mut steps = [0; 4];
        let (mut inserted, mut seen) = (Vec::new(), ids());
        let mut is_full = false;
        for who in order {
            match (*who, steps[*who]) {
                // Only who finds the leaf full closes it.
                (SPLITS, 0) => is_full = leaf.taken.load(Relaxed) as usize >= LEAF_ENTRIES,
                (SPLITS, step) if is_full => leaf.close_place(LEAF_ENTRIES - step),
                (SPLITS, _) => {}
                (who, 0) => places[who] = leaf.take(),
                (who, _) => {
                    let id = 100 + who as EntryId;
                    let is_in = places[who].is_some_and(|place| leaf.show(place, 7, id));
                    inserted.extend(is_in.then_some(id));
                }
            }
            steps[*who] += 1;
            let now = ids();
            assert!(seen.iter().all(|id| now.contains(id)), "{order:?}: an entry is gone");
            assert!(inserted.iter().all(|id| now.contains(id)), "{order:?}: not shown");
            seen = now;
        }
        assert_eq!(seen.len(), before as usize + inserted.len(), "{order:?}");
        assert!(leaf.items().all(|(word, id)| id <= before || word == 7), "{order:?}");
        assert!(places.iter().flatten().count() <= ROOM, "{order:?}");
        let is_closed = |place: usize| leaf.entries[place].load(Relaxed) == CLOSED;
        let closed = (0..LEAF_ENTRIES).filter(|place| is_closed(*place)).count();
        assert!(closed == 0 || is_full, "{order:?}");
        assert!(!is_full || inserted.len() + closed == ROOM, "{order:?}: nothing comes later");
    }
}
