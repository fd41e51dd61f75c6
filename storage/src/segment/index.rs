//! The index: where blocks begin, and which keys come where.
//!
//! ```text
//! index    blocks u32 | prefix slice | payload bytes varint
//!          | for each block but the first:
//!            separator slice | bound varint | payload bytes varint
//! ```
//!
//! A *separator* lies between two blocks: above all entries of the one, and not above those of the
//! other. Where the two meet with different keys, it is the shortest key that does (Bayer and
//! Unterauer, "Prefix B-trees", 1977), and its bound is 0, before all versions. Where a key's
//! versions go on in the next block, it is that key, with the tag just behind the last one's.
//!
//! Of a stored index that was read, memory holds besides it where each block begins, where its
//! separator is, and the words by which `layers` finds it. All in all that is about 40 bytes a block:
//! for a billion entries of 144 bytes in blocks of 16 KiB, 360 MB.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;

use super::block::shared;
use super::layers::Layers;
use super::{BLOCK_BYTES_MAX, Handle, TRAILER_BYTES, version1};
use crate::codec::{Malformed, Reader, put_slice, put_u32, put_varint};
use crate::key::{KEY_BYTES_MAX, Tag, compare};

/// Collects what the index of a segment says.
#[derive(Default)]
pub(super) struct IndexBuilder {
    /// Of the blocks' payloads.
    bytes: Vec<u32>,
    /// One behind the other, each with the place where it ends and its bound.
    separators: Vec<u8>,
    ends: Vec<(usize, Option<Tag>)>,
}

impl IndexBuilder {
    /// Adds a block with so many bytes of payload. If another one follows, so do the last entry of
    /// this one and the first key of that one.
    pub(super) fn add(&mut self, bytes: u32, last: (&[u8], Tag), next: Option<&[u8]>) {
        self.bytes.push(bytes);
        let Some(next) = next else { return };
        let (last_key, last_tag) = last;
        let (separator, bound) = if last_key == next {
            (next, Some(last_tag.after()))
        } else {
            (&next[..=shared(last_key, next)], None)
        };
        self.separators.extend_from_slice(separator);
        self.ends.push((self.separators.len(), bound));
    }

    /// Appends its stored form.
    pub(super) fn finish(&self, to: &mut Vec<u8>) {
        let first = self.ends.first().map_or(0, |(end, _)| *end);
        let last = self.ends.iter().rev().nth(1).map_or(0, |(end, _)| *end);
        // What the first and the last begin with, all between do.
        let prefix_bytes = shared(&self.separators[..first], &self.separators[last..]);
        put_u32(to, self.bytes.len() as u32);
        put_slice(to, &self.separators[..prefix_bytes]);
        let mut from = 0;
        for (number, bytes) in self.bytes.iter().enumerate() {
            if let Some((end, bound)) = number.checked_sub(1).map(|before| self.ends[before]) {
                put_slice(to, &self.separators[from + prefix_bytes..end]);
                put_varint(to, bound.map_or(0, Tag::stored));
                from = end;
            }
            put_varint(to, u64::from(*bytes));
        }
    }
}

/// An index to be searched.
pub(super) struct Index {
    /// Behind the prefix, separators are pieces of this.
    bytes: Bytes,
    prefix: Box<[u8]>,
    /// Where each block begins, and where the last one ends.
    offsets: Box<[u64]>,
    /// Those of all blocks but the first.
    separators: Box<[Separator]>,
    /// Their bounds; empty if all are before all versions.
    bounds: Box<[Tag]>,
    layers: Layers,
    /// Which data blocks were already seen right: a bit each.
    seen_right: Box<[AtomicU64]>,
}

#[derive(Clone, Copy)]
struct Separator {
    at: u32,
    bytes: u32,
}

impl Index {
    /// Of a segment whose data blocks end at `data_end`.
    pub(super) fn parse(bytes: Bytes, data_end: u64) -> Result<Index, Malformed> {
        let mut reader = Reader::new(&bytes);
        let blocks = reader.u32()? as usize;
        if blocks == 0 || blocks > reader.remaining() {
            return Err(Malformed("an index of more blocks than it has room for, or of none"));
        }
        let prefix = reader.slice(KEY_BYTES_MAX)?;
        let mut parts = Parts::with_capacity(blocks);
        for number in 0..blocks {
            if number > 0 {
                let separator = reader.slice(KEY_BYTES_MAX - prefix.len())?;
                let end = bytes.len() - reader.remaining();
                let bound = match reader.varint()? {
                    0 => Tag::NEWEST,
                    stored => Tag::bound(stored),
                };
                parts.separator(&bytes, end - separator.len()..end, bound)?;
            }
            parts.handle(reader.length(BLOCK_BYTES_MAX)? as u64)?;
        }
        reader.finish()?;
        let prefix = prefix.into();
        Index::of_parts(bytes, prefix, parts, data_end)
    }

    /// That of version 1, which names the last entry of each block.
    pub(super) fn parse_version1(bytes: Bytes, data_end: u64) -> Result<Index, Malformed> {
        let block = version1::Block::parse(bytes.clone())?;
        let blocks = block.restarts();
        if blocks == 0 {
            return Err(Malformed("an index of no blocks"));
        }
        let mut parts = Parts::with_capacity(blocks);
        let first = &bytes[block.index_entry(0)?.0];
        let last = &bytes[block.index_entry(blocks.saturating_sub(2))?.0];
        let prefix: Box<[u8]> = first[..shared(first, last)].into();
        for number in 0..blocks {
            let (key, tag, handle) = block.index_entry(number)?;
            if handle.offset != parts.end {
                return Err(Malformed("a gap between blocks"));
            }
            parts.handle(u64::from(handle.bytes))?;
            if number + 1 < blocks {
                if !bytes[key.clone()].starts_with(&prefix) {
                    return Err(Malformed("an index out of order"));
                }
                parts.separator(&bytes, key.start + prefix.len()..key.end, tag.after())?;
            }
        }
        Index::of_parts(bytes, prefix, parts, data_end)
    }

    fn of_parts(
        bytes: Bytes,
        prefix: Box<[u8]>,
        mut parts: Parts,
        data_end: u64,
    ) -> Result<Index, Malformed> {
        if parts.end != data_end {
            return Err(Malformed("the blocks of the index do not end where the data ends"));
        }
        let blocks = parts.offsets.len();
        parts.offsets.push(data_end);
        if parts.bounds.iter().all(|bound| *bound == Tag::NEWEST) {
            parts.bounds.clear();
        }
        let separator = |number: usize| parts.separators[number].of(&bytes);
        let layers = Layers::new(parts.separators.len(), separator);
        Ok(Index {
            prefix,
            offsets: parts.offsets.into(),
            separators: parts.separators.into(),
            bounds: parts.bounds.into(),
            layers,
            seen_right: (0..blocks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            bytes,
        })
    }

    /// How many data blocks there are: at least one.
    pub(super) fn blocks(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Where a block is.
    pub(super) fn handle(&self, number: usize) -> Handle {
        let (from, to) = (self.offsets[number], self.offsets[number + 1]);
        Handle { offset: from, bytes: (to - from) as u32 - TRAILER_BYTES as u32 }
    }

    /// The block in which an entry is, if it is in any. The blocks before hold only what comes
    /// before it, and those behind it nothing that does.
    pub(super) fn block_of(&self, key: &[u8], tag: Tag) -> usize {
        let Some(rest) = key.strip_prefix(&*self.prefix) else {
            return if key < &*self.prefix { 0 } else { self.separators.len() };
        };
        let Range { start: mut low, end: mut high } = self.layers.around(rest);
        while low < high {
            let middle = low + (high - low) / 2;
            if compare(self.separator(middle), (rest, tag)) == Ordering::Greater {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low
    }

    /// The separator below a block but the first, without the prefix.
    fn separator(&self, number: usize) -> (&[u8], Tag) {
        let key = self.separators[number].of(&self.bytes);
        (key, self.bounds.get(number).copied().unwrap_or(Tag::NEWEST))
    }

    /// The least key and tag that can be in a block; none for the first one.
    pub(super) fn lower_bound(&self, number: usize) -> Option<(Vec<u8>, Tag)> {
        let number = number.checked_sub(1).filter(|number| *number < self.separators.len())?;
        let (key, bound) = self.separator(number);
        Some(([&*self.prefix, key].concat(), bound))
    }

    pub(super) fn was_seen_right(&self, number: usize) -> bool {
        self.seen_right[number / 64].load(Relaxed) & (1 << (number % 64)) != 0
    }

    pub(super) fn seen_right(&self, number: usize) {
        self.seen_right[number / 64].fetch_or(1 << (number % 64), Relaxed);
    }
}

/// What an index consists of, while it is read.
struct Parts {
    offsets: Vec<u64>,
    separators: Vec<Separator>,
    bounds: Vec<Tag>,
    /// Where the blocks so far end.
    end: u64,
}

impl Parts {
    fn with_capacity(blocks: usize) -> Parts {
        let (offsets, separators) = (Vec::with_capacity(blocks + 1), Vec::with_capacity(blocks));
        Parts { offsets, separators, bounds: Vec::new(), end: 0 }
    }

    /// A block behind those so far.
    fn handle(&mut self, bytes: u64) -> Result<(), Malformed> {
        self.offsets.push(self.end);
        let end = bytes.checked_add(TRAILER_BYTES as u64).and_then(|it| self.end.checked_add(it));
        self.end = end.ok_or(Malformed("blocks beyond what a file can hold"))?;
        Ok(())
    }

    /// What separates the block behind it from those before.
    fn separator(&mut self, bytes: &[u8], at: Range<usize>, bound: Tag) -> Result<(), Malformed> {
        let separator = &bytes[at.clone()];
        if let (Some(before), Some(before_bound)) = (self.separators.last(), self.bounds.last()) {
            let before_end = before.at as usize + before.bytes as usize;
            let before = (before.of(bytes), *before_bound);
            if at.start < before_end || compare(before, (separator, bound)) != Ordering::Less {
                return Err(Malformed("an index out of order"));
            }
        }
        let start = u32::try_from(at.start).map_err(|_| Malformed("an index above 4 GiB"))?;
        self.separators.push(Separator { at: start, bytes: separator.len() as u32 });
        self.bounds.push(bound);
        Ok(())
    }
}

impl Separator {
    fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.at as usize..][..self.bytes as usize]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::amount;
    use crate::key::Kind;

    type Entry = (Vec<u8>, Tag);

    /// Of blocks with these entries, one byte more in each.
    fn build(blocks: &[Vec<Entry>]) -> (Vec<u8>, u64) {
        let mut builder = IndexBuilder::default();
        for (number, block) in blocks.iter().enumerate() {
            let (key, tag) = block.last().unwrap();
            let next = blocks.get(number + 1).map(|next| next[0].0.as_slice());
            builder.add(number as u32, (key, *tag), next);
        }
        let mut index = Vec::new();
        builder.finish(&mut index);
        let count = blocks.len() as u64;
        (index, count * (count - 1) / 2 + count * TRAILER_BYTES as u64)
    }

    fn check(entries: &[Entry], block_entries: usize, probe: (&[u8], Tag)) {
        let blocks: Vec<Vec<Entry>> = entries.chunks(block_entries).map(<[_]>::to_vec).collect();
        let (stored, data_end) = build(&blocks);
        let index = Index::parse(Bytes::from(stored.clone()), data_end).unwrap();
        assert_eq!(index.blocks(), blocks.len());
        let mut offset = 0;
        for (number, block) in blocks.iter().enumerate() {
            assert_eq!(index.handle(number), Handle { offset, bytes: number as u32 });
            offset += number as u64 + TRAILER_BYTES as u64;
            for (key, tag) in block {
                assert_eq!(index.block_of(key, *tag), number, "{key:?} {tag:?}");
            }
            if let Some((key, bound)) = index.lower_bound(number) {
                let before = blocks[number - 1].last().unwrap();
                assert_eq!(compare((&before.0, before.1), (&key, bound)), Ordering::Less);
                let first = &block[0];
                assert_ne!(compare((&key, bound), (&first.0, first.1)), Ordering::Greater);
            } else {
                assert_eq!(number, 0);
            }
        }
        assert_eq!(index.lower_bound(blocks.len()), None);
        // What comes at or after the probe and has its key is in its block, or nowhere.
        let number = index.block_of(probe.0, probe.1);
        let after = |entry: &&Entry| compare((&entry.0, entry.1), probe) != Ordering::Less;
        if let Some(found) = entries.iter().find(after)
            && found.0 == probe.0
        {
            assert_eq!(index.block_of(&found.0, found.1), number, "{probe:?}");
        }
        let is_less = |entry: &Entry| compare((&entry.0, entry.1), probe) == Ordering::Less;
        assert!(blocks[..number].iter().flatten().all(is_less), "{probe:?}");
        assert!(!blocks[number + 1..].iter().flatten().any(is_less), "{probe:?}");

        for end in 0..stored.len() {
            assert!(Index::parse(Bytes::copy_from_slice(&stored[..end]), data_end).is_err());
        }
        assert!(Index::parse(Bytes::from(stored), data_end + 1).is_err());
    }

    #[test]
    fn separators_are_short() {
        let keys = [&b"some common prefix, and apple"[..], b"some common prefix, and banana"];
        let tag = Tag::new(1, Kind::Put);
        let blocks: Vec<_> = keys.iter().map(|key| vec![(key.to_vec(), tag)]).collect();
        let (stored, data_end) = build(&blocks);
        let index = Index::parse(stored.into(), data_end).unwrap();
        assert_eq!(index.lower_bound(1).unwrap().0, b"some common prefix, and b");
    }

    #[test]
    fn keys_that_differ_late_or_lie_unevenly_are_found() {
        let tag = Tag::new(1, Kind::Put);
        let mut keys: Vec<Vec<u8>> = Vec::new();
        for tenant in [&b"a tenant with a long name/"[..], b"another tenant/", b"z"] {
            for number in 0..amount(400_u32, 10) {
                keys.push([tenant, &(number * number).to_be_bytes()].concat());
            }
        }
        keys.extend((0..40).map(|zeros| vec![0; zeros]));
        keys.sort();
        let entries: Vec<Entry> = keys.into_iter().map(|key| (key, tag)).collect();
        for block_entries in [1, 2, 7, 100] {
            check(&entries, block_entries, (b"another tenant/", Tag::NEWEST));
        }
    }

    proptest! {
        #[test]
        fn every_entry_is_in_the_block_that_the_index_says(
            prefix in prop_oneof![Just(""), Just("longer than one word "), Just("b")],
            keys in proptest::collection::btree_map("[ab\u{0}]{0,12}", 1u64..5, 1..60),
            block_entries in 1usize..6,
            probe in "[abc\u{0}]{0,12}",
            with_prefix: bool,
            probe_at in 0u64..6,
        ) {
            let tags = |versions: u64| (1..=versions).rev().map(|it| Tag::new(it, Kind::Put));
            let entries: Vec<Entry> = keys
                .iter()
                .flat_map(|(key, versions)| tags(*versions).map(move |tag| (key, tag)))
                .map(|(key, tag)| ((prefix.to_owned() + key).into_bytes(), tag))
                .collect();
            let probe = if with_prefix { prefix.to_owned() + &probe } else { probe };
            check(&entries, block_entries, (probe.as_bytes(), Tag::newest_of(probe_at)));
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_panic(
            blocks in 0u32..6,
            bytes in proptest::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..40),
            data_end in 0u64..40,
            version1: bool,
        ) {
            let mut stored = Vec::new();
            put_u32(&mut stored, blocks);
            stored.extend_from_slice(&bytes);
            let index = if version1 {
                Index::parse_version1(Bytes::from(stored), data_end)
            } else {
                Index::parse(Bytes::from(stored), data_end)
            };
            if let Ok(index) = index {
                for key in [&[][..], &[0], &[1, 1], &[255; 20]] {
                    prop_assert!(index.block_of(key, Tag::NEWEST) < index.blocks());
                }
            }
        }
    }
}
