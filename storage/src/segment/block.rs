//! Blocks: sorted entries, and a directory by which each of them is found without the others.
//!
//! ```text
//! entry    key end bytes varint | tag varint | key end | value
//! block    entry... | offset... | fingerprint u8... | prefix
//!          | prefix bytes u32 | 2 * number of entries + wide u32
//! ```
//!
//! What all keys of a block begin with is in it once. An entry reaches from its offset to the next
//! one's; offsets are u32 in a wide block and u16 in others. A key's fingerprint is the low byte of
//! its hash: a look-up compares these, a few cache lines of them, and then touches the entry that it
//! wants and of all others one in 256.
//!
//! Nothing here is trusted: the checksum says that the bytes are what a writer wrote, not that the
//! writer was right.

use std::cmp::Ordering;
use std::ops::Range;

use bytes::Bytes;

use crate::codec::{Malformed, Reader, put_u32, put_varint, varint_bytes};
use crate::key::{KEY_BYTES_MAX, Tag, compare};

const TAIL_BYTES: usize = 8;

/// What of a key's hash a block keeps.
pub(super) fn fingerprint(hash: u64) -> u8 {
    hash.to_le_bytes()[0]
}

/// How many bytes two keys begin with in common.
pub(super) fn shared(a: &[u8], b: &[u8]) -> usize {
    let words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
    let same = 8 * words.take_while(|(a, b)| a == b).count();
    same + a[same..].iter().zip(&b[same..]).take_while(|(a, b)| a == b).count()
}

/// Collects the entries of one block, which must come in order.
#[derive(Default)]
pub(super) struct BlockBuilder {
    /// Keys and values as they came: what the keys share is known at the end.
    raw: Vec<u8>,
    heads: Vec<Head>,
    fingerprints: Vec<u8>,
    offsets: Vec<u32>,
    /// What all keys so far begin with.
    prefix_bytes: usize,
    /// Of tags and lengths.
    head_bytes: usize,
}

struct Head {
    key_bytes: usize,
    value_bytes: usize,
    tag: Tag,
}

impl BlockBuilder {
    pub(super) fn add(&mut self, key: &[u8], tag: Tag, value: &[u8], fingerprint: u8) {
        self.prefix_bytes = self.prefix_with(key);
        self.raw.extend_from_slice(key);
        self.raw.extend_from_slice(value);
        self.heads.push(Head { key_bytes: key.len(), value_bytes: value.len(), tag });
        self.fingerprints.push(fingerprint);
        self.head_bytes += varint_bytes(tag.stored()) + varint_bytes(key.len() as u64);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    pub(super) fn entries(&self) -> usize {
        self.heads.len()
    }

    /// What [`BlockBuilder::finish`] would write now, in bytes, or a little more.
    pub(super) fn bytes(&self) -> usize {
        self.bytes_of(self.heads.len(), self.prefix_bytes, 0)
    }

    /// The same with one more entry.
    pub(super) fn bytes_with(&self, key: &[u8], value: &[u8]) -> usize {
        let more = key.len() + value.len() + varint_bytes(u64::MAX >> 1);
        self.bytes_of(self.heads.len() + 1, self.prefix_with(key), more)
    }

    fn bytes_of(&self, entries: usize, prefix: usize, more: usize) -> usize {
        let content = self.raw.len() + self.head_bytes + more - entries * prefix;
        let offset_bytes = if content > WIDE_FROM { 4 } else { 2 };
        content + entries * (offset_bytes + 1) + prefix + TAIL_BYTES
    }

    fn prefix_with(&self, key: &[u8]) -> usize {
        match self.heads.first() {
            Some(_) => shared(&self.raw[..self.prefix_bytes], key),
            None => key.len(),
        }
    }

    /// Appends the block's bytes; the builder begins anew.
    pub(super) fn finish(&mut self, to: &mut Vec<u8>) {
        let begin = to.len();
        let mut raw = self.raw.as_slice();
        for head in &self.heads {
            let (entry, rest) = raw.split_at(head.key_bytes + head.value_bytes);
            raw = rest;
            // Blocks stay below 4 GiB: only an entry alone in its block is larger than the target.
            self.offsets.push((to.len() - begin) as u32);
            put_varint(to, (head.key_bytes - self.prefix_bytes) as u64);
            put_varint(to, head.tag.stored());
            to.extend_from_slice(&entry[self.prefix_bytes..]);
        }
        let wide = self.offsets.last().is_some_and(|&last| last as usize > WIDE_FROM);
        for offset in &self.offsets {
            let bytes = offset.to_le_bytes();
            to.extend_from_slice(if wide { &bytes } else { &bytes[..2] });
        }
        to.extend_from_slice(&self.fingerprints);
        to.extend_from_slice(&self.raw[..self.prefix_bytes]);
        put_u32(to, self.prefix_bytes as u32);
        put_u32(to, (self.heads.len() as u32) << 1 | u32::from(wide));
        self.raw.clear();
        self.heads.clear();
        self.fingerprints.clear();
        self.offsets.clear();
        (self.prefix_bytes, self.head_bytes) = (0, 0);
    }
}

/// The greatest offset of two bytes.
const WIDE_FROM: usize = u16::MAX as usize;

/// Where what is in a block.
#[derive(Clone, Copy)]
struct Layout {
    entries: usize,
    wide: bool,
    /// Here the entries end and the offsets begin.
    entries_end: usize,
    fingerprints_at: usize,
    prefix_at: usize,
    prefix_end: usize,
}

/// An entry but for the prefix of its key.
struct Stored<'a> {
    key_end: &'a [u8],
    tag: Tag,
    value: Range<usize>,
}

impl Layout {
    fn parse(block: &[u8]) -> Result<Layout, Malformed> {
        let (rest, tail) =
            block.split_last_chunk::<TAIL_BYTES>().ok_or(Malformed("a block too short"))?;
        let mut tail = Reader::new(tail);
        let prefix_bytes = tail.u32()? as usize;
        let counted = tail.u32()?;
        let (entries, wide) = ((counted >> 1) as usize, counted & 1 == 1);
        if prefix_bytes > KEY_BYTES_MAX {
            return Err(Malformed("a block whose keys begin with more than a key"));
        }
        // No overflow: each number has at most 31 bits, and a usize has 64.
        let prefix_end = rest.len();
        let directory = entries * if wide { 5 } else { 3 } + prefix_bytes;
        let entries_end =
            prefix_end.checked_sub(directory).ok_or(Malformed("a directory above its block"))?;
        let prefix_at = prefix_end - prefix_bytes;
        let fingerprints_at = prefix_at - entries;
        Ok(Layout { entries, wide, entries_end, fingerprints_at, prefix_at, prefix_end })
    }

    fn prefix<'a>(&self, block: &'a [u8]) -> &'a [u8] {
        &block[self.prefix_at..self.prefix_end]
    }

    #[inline]
    fn fingerprints<'a>(&self, block: &'a [u8]) -> &'a [u8] {
        &block[self.fingerprints_at..self.prefix_at]
    }

    /// Where an entry begins, or where the last one ends.
    #[inline]
    fn offset(&self, block: &[u8], number: usize) -> Result<usize, Malformed> {
        if number == self.entries {
            return Ok(self.entries_end);
        }
        let mut reader = if self.wide {
            Reader::new(&block[self.entries_end + 4 * number..])
        } else {
            Reader::new(&block[self.entries_end + 2 * number..])
        };
        Ok(if self.wide { reader.u32()? as usize } else { usize::from(reader.u16()?) })
    }

    #[inline]
    fn entry<'a>(&self, block: &'a [u8], number: usize) -> Result<Stored<'a>, Malformed> {
        self.entry_at(block, self.offset(block, number)?, number)
    }

    /// An entry of which is known where it begins.
    #[inline]
    fn entry_at<'a>(
        &self,
        block: &'a [u8],
        from: usize,
        number: usize,
    ) -> Result<Stored<'a>, Malformed> {
        let to = self.offset(block, number + 1)?;
        if to > self.entries_end {
            return Err(Malformed("an entry beyond the entries"));
        }
        let entry = block.get(from..to).ok_or(Malformed("an entry that ends before it begins"))?;
        let mut reader = Reader::new(entry);
        let key_end_bytes = reader.length(KEY_BYTES_MAX)?;
        let tag = Tag::from_stored(reader.varint()?).ok_or(Malformed("an entry without number"))?;
        let key_end = reader.bytes(key_end_bytes)?;
        Ok(Stored { key_end, tag, value: to - reader.remaining()..to })
    }

    /// How many entries stand before this one would.
    fn entries_before(&self, block: &[u8], key: &[u8], tag: Tag) -> Result<usize, Malformed> {
        let prefix = self.prefix(block);
        let Some(key_end) = key.strip_prefix(prefix) else {
            return Ok(if key < prefix { 0 } else { self.entries });
        };
        let (mut low, mut high) = (0, self.entries);
        while low < high {
            let middle = low + (high - low) / 2;
            let stored = self.entry(block, middle)?;
            if compare((stored.key_end, stored.tag), (key_end, tag)) == Ordering::Less {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}

/// The first version of a key that is `tag` or older, by the fingerprint of its hash: its tag, and
/// where in the block its value is.
pub(super) fn find(
    block: &[u8],
    key: &[u8],
    tag: Tag,
    fingerprint: u8,
) -> Result<Option<(Tag, Range<usize>)>, Malformed> {
    let layout = Layout::parse(block)?;
    let Some(key_end) = key.strip_prefix(layout.prefix(block)) else { return Ok(None) };
    let (chunks, rest) = layout.fingerprints(block).as_chunks::<8>();
    let mut last = [!fingerprint; 8];
    last[..rest.len()].copy_from_slice(rest);
    for (number, chunk) in chunks.iter().chain([&last]).enumerate() {
        let mut same = bytes_equal_to(*chunk, fingerprint);
        while same != 0 {
            let stored = layout.entry(block, 8 * number + same.trailing_zeros() as usize / 8)?;
            if stored.key_end == key_end && stored.tag <= tag {
                return Ok(Some((stored.tag, stored.value)));
            }
            same &= same - 1;
        }
    }
    Ok(None)
}

/// The highest bit of each byte that is this one, lowest address first.
fn bytes_equal_to(bytes: [u8; 8], byte: u8) -> u64 {
    const LOW: u64 = u64::from_ne_bytes([0x7f; 8]);
    let differ = u64::from_le_bytes(bytes) ^ u64::from_ne_bytes([byte; 8]);
    // Adding carries into the high bit of a byte if any of its low bits is set, and never beyond.
    !(((differ & LOW) + LOW) | differ | LOW)
}

/// Walks the entries of one block. After an error it is at no entry.
pub(super) struct BlockCursor {
    block: Bytes,
    layout: Layout,
    /// Which entry it is at; their number if it is at none.
    number: usize,
    key: Vec<u8>,
    tag: Tag,
    value: Range<usize>,
}

impl BlockCursor {
    /// At no entry. The key is for its memory only.
    pub(super) fn new(block: Bytes, mut key: Vec<u8>) -> Result<BlockCursor, Malformed> {
        let layout = Layout::parse(&block)?;
        key.clear();
        key.extend_from_slice(layout.prefix(&block));
        let number = layout.entries;
        Ok(BlockCursor { block, layout, number, key, tag: Tag::OLDEST, value: 0..0 })
    }

    /// The memory of the key, for the next cursor.
    pub(super) fn into_key(self) -> Vec<u8> {
        self.key
    }

    #[inline]
    pub(super) fn is_valid(&self) -> bool {
        self.number < self.layout.entries
    }

    #[inline]
    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    #[inline]
    pub(super) fn tag(&self) -> Tag {
        self.tag
    }

    pub(super) fn value(&self) -> Bytes {
        self.block.slice(self.value.clone())
    }

    /// The same, for who needs it only until the next step.
    #[inline]
    pub(super) fn value_ref(&self) -> &[u8] {
        &self.block[self.value.clone()]
    }

    /// The fingerprint that a look-up of the current entry finds it by.
    pub(super) fn fingerprint(&self) -> Option<u8> {
        self.layout.fingerprints(&self.block).get(self.number).copied()
    }

    /// To the first entry at or after `to`, or the very first.
    pub(super) fn seek(&mut self, to: Option<(&[u8], Tag)>) -> Result<(), Malformed> {
        let before = self.before(to, 0)?;
        self.read(before)
    }

    /// To the last entry before `to`, or the very last.
    pub(super) fn seek_before(&mut self, to: Option<(&[u8], Tag)>) -> Result<(), Malformed> {
        let before = self.before(to, self.layout.entries)?;
        self.read(before.checked_sub(1).unwrap_or(self.layout.entries))
    }

    #[inline]
    pub(super) fn next(&mut self) -> Result<(), Malformed> {
        if self.is_valid() { self.read_at(self.value.end, self.number + 1) } else { Ok(()) }
    }

    pub(super) fn previous(&mut self) -> Result<(), Malformed> {
        if self.is_valid() {
            self.read(self.number.checked_sub(1).unwrap_or(self.layout.entries))
        } else {
            Ok(())
        }
    }

    fn before(&mut self, to: Option<(&[u8], Tag)>, otherwise: usize) -> Result<usize, Malformed> {
        self.number = self.layout.entries;
        match to {
            Some((key, tag)) => self.layout.entries_before(&self.block, key, tag),
            None => Ok(otherwise),
        }
    }

    fn read(&mut self, number: usize) -> Result<(), Malformed> {
        self.number = self.layout.entries;
        let at = self.layout.offset(&self.block, number)?;
        self.read_at(at, number)
    }

    #[inline]
    fn read_at(&mut self, at: usize, number: usize) -> Result<(), Malformed> {
        self.number = self.layout.entries;
        if number == self.layout.entries {
            return Ok(());
        }
        let stored = self.layout.entry_at(&self.block, at, number)?;
        let prefix_bytes = self.layout.prefix_end - self.layout.prefix_at;
        if prefix_bytes + stored.key_end.len() > KEY_BYTES_MAX {
            return Err(Malformed("a key above the limit"));
        }
        self.key.truncate(prefix_bytes);
        self.key.extend_from_slice(stored.key_end);
        (self.tag, self.value) = (stored.tag, stored.value);
        self.number = number;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::filter::hash;
    use super::*;
    use crate::key::Kind;

    type Entry = (Vec<u8>, Tag, Vec<u8>);

    fn put(key: &[u8], sequence: u64, value: &[u8]) -> Entry {
        (key.to_vec(), Tag::new(sequence, Kind::Put), value.to_vec())
    }

    /// With fingerprints that this makes of hashes.
    fn build_with(entries: &[Entry], fingerprint: impl Fn(u64) -> u8) -> Bytes {
        let mut builder = BlockBuilder::default();
        let mut promised = builder.bytes();
        for (key, tag, value) in entries {
            promised = builder.bytes_with(key, value);
            builder.add(key, *tag, value, fingerprint(hash(key)));
            assert!(builder.bytes() <= promised);
        }
        assert_eq!(builder.entries(), entries.len());
        let mut block = vec![7; 3];
        builder.finish(&mut block);
        assert!(block.len() - 3 <= promised);
        assert!(builder.is_empty());
        Bytes::from(block).slice(3..)
    }

    fn build(entries: &[Entry]) -> Bytes {
        build_with(entries, fingerprint)
    }

    fn cursor(block: &Bytes) -> BlockCursor {
        BlockCursor::new(block.clone(), b"of another block".to_vec()).unwrap()
    }

    fn current(cursor: &BlockCursor) -> Option<Entry> {
        assert_eq!(cursor.is_valid(), cursor.fingerprint().is_some());
        assert!(!cursor.is_valid() || cursor.value() == cursor.value_ref());
        cursor.is_valid().then(|| (cursor.key().to_vec(), cursor.tag(), cursor.value().to_vec()))
    }

    fn walk(block: &Bytes, backwards: bool) -> Vec<Entry> {
        let mut cursor = cursor(block);
        if backwards { cursor.seek_before(None) } else { cursor.seek(None) }.unwrap();
        let mut entries = Vec::new();
        while let Some(entry) = current(&cursor) {
            entries.push(entry);
            if backwards { cursor.previous() } else { cursor.next() }.unwrap();
        }
        entries
    }

    /// Everything there is to read, against the entries and by an entry that may not be there.
    fn check(block: &Bytes, entries: &[Entry], to: (&[u8], Tag), fingerprint: u8) {
        assert_eq!(walk(block, false), entries);
        let reversed: Vec<Entry> = entries.iter().rev().cloned().collect();
        assert_eq!(walk(block, true), reversed);

        let is_before = |e: &&Entry| compare((&e.0, e.1), to) == Ordering::Less;
        let at_or_after = entries.iter().find(|e| !is_before(e));
        let mut cursor = cursor(block);
        cursor.seek(Some(to)).unwrap();
        assert_eq!(current(&cursor).as_ref(), at_or_after);
        cursor.seek_before(Some(to)).unwrap();
        assert_eq!(current(&cursor).as_ref(), entries.iter().rfind(is_before));

        let found = find(block, to.0, to.1, fingerprint).unwrap();
        let found = found.map(|(tag, value)| (to.0.to_vec(), tag, block[value].to_vec()));
        assert_eq!(found.as_ref(), at_or_after.filter(|(key, _, _)| key == to.0));
    }

    #[test]
    fn an_empty_block_has_no_entries() {
        check(&build(&[]), &[], (b"", Tag::NEWEST), 0);
    }

    #[test]
    fn a_byte_is_found_wherever_it_is_and_nowhere_else() {
        for byte in 0..=u8::MAX {
            for at in 0..8 {
                for other in [byte ^ 1, byte ^ 0x80, !byte, byte.wrapping_add(1)] {
                    let mut bytes = [other; 8];
                    bytes[at] = byte;
                    assert_eq!(bytes_equal_to(bytes, byte), 0x80 << (8 * at), "{bytes:?}");
                }
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "many MiB, compared byte by byte")]
    fn the_longest_keys_and_values_fit() {
        let long = vec![b'k'; KEY_BYTES_MAX];
        let value = vec![b'v'; crate::key::VALUE_BYTES_MAX];
        let entries = [put(b"", 3, b""), put(&long, 9, &value), put(&long, 8, b"old")];
        for entries in [&entries[..], &entries[1..], &entries[2..]] {
            let block = build(entries);
            for (key, tag, _) in entries {
                check(&block, entries, (key, *tag), fingerprint(hash(key)));
            }
        }
    }

    /// So many that their offsets need four bytes.
    #[test]
    fn a_wide_block_is_read() {
        let keys = (0..300_u32).map(|number| number.to_be_bytes());
        let entries: Vec<Entry> = keys.map(|key| put(&key, 5, &[b'v'; 400])).collect();
        let block = build(&entries);
        for number in [0_u32, 1, 162, 163, 299, 300] {
            let key = number.to_be_bytes();
            check(&block, &entries, (&key, Tag::NEWEST), fingerprint(hash(&key)));
        }
    }

    proptest! {
        #[test]
        fn reads_what_was_built(
            prefix in prop_oneof![Just(""), Just("a prefix longer than a word "), Just("b")],
            keys in proptest::collection::btree_map("[ab]{0,4}", 1u64..4, 0..40),
            probe in "[abc]{0,4}",
            with_prefix: bool,
            probe_at in 0u64..5,
            colliding: bool,
        ) {
            let entries: Vec<Entry> = keys
                .iter()
                .flat_map(|(key, versions)| (1..=*versions).rev().map(move |v| (key, v)))
                .map(|(key, v)| put((prefix.to_owned() + key).as_bytes(), v, &[v as u8; 3]))
                .collect();
            let probe = if with_prefix { prefix.to_owned() + &probe } else { probe };
            let mask = if colliding { 1 } else { u8::MAX };
            let masked = |hash| fingerprint(hash) & mask;
            let block = build_with(&entries, masked);
            let to = (probe.as_bytes(), Tag::newest_of(probe_at));
            check(&block, &entries, to, masked(hash(to.0)));
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_panic(
            mut bytes in proptest::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..60),
            prefix_bytes in 0u32..4,
            counted in 0u32..20,
            tail: bool,
        ) {
            if tail {
                put_u32(&mut bytes, prefix_bytes);
                put_u32(&mut bytes, counted);
            }
            for byte in 0..4 {
                let _ = find(&bytes, b"", Tag::NEWEST, byte);
                let _ = find(&bytes, &[0], Tag::NEWEST, byte);
            }
            if let Ok(mut cursor) = BlockCursor::new(Bytes::from(bytes), Vec::new()) {
                let _ = cursor.seek(Some((b"k", Tag::NEWEST)));
                while cursor.is_valid() && cursor.next().is_ok() {}
                let _ = cursor.seek_before(None);
                while cursor.is_valid() && cursor.previous().is_ok() {}
            }
        }
    }
}
