//! Blocks of version 1, which are read but not written any more: sorted entries with shared key
//! prefixes, and places from which to read without them.
//!
//! ```text
//! entry    shared varint | unshared varint | tag varint | value length varint | key end | value
//! block    entry... | restart u32... | number of restarts u32
//! ```
//!
//! Every `interval`th entry is a restart: its key shares nothing, and its offset is listed at the
//! end, so that a search can halve its way to it. Nothing here is trusted: the checksum says that
//! the bytes are what a writer wrote, not that the writer was right.

use std::cmp::Ordering;
use std::ops::Range;

use bytes::Bytes;

use super::Handle;
use crate::codec::{Malformed, Reader};
use crate::key::{KEY_BYTES_MAX, Tag, compare};

/// A block to be read.
#[derive(Clone)]
pub(super) struct Block {
    bytes: Bytes,
    entries_end: usize,
    restarts: usize,
}

/// An entry but for the part of its key that it shares with the one before.
struct Stored<'a> {
    shared: usize,
    key_end: &'a [u8],
    tag: Tag,
    value: Range<usize>,
}

impl Block {
    pub(super) fn parse(bytes: Bytes) -> Result<Block, Malformed> {
        let (rest, count) = bytes.split_last_chunk::<4>().ok_or(Malformed("a block too short"))?;
        let restarts = u32::from_le_bytes(*count) as usize;
        let entries_end = restarts.checked_mul(4).and_then(|list| rest.len().checked_sub(list));
        let entries_end = entries_end.ok_or(Malformed("more restarts than the block holds"))?;
        if (restarts == 0) != (entries_end == 0) {
            return Err(Malformed("a block with restarts but no entries, or the reverse"));
        }
        Ok(Block { bytes, entries_end, restarts })
    }

    /// How many restarts there are; in a block whose interval is one, how many entries.
    pub(super) fn restarts(&self) -> usize {
        self.restarts
    }

    fn restart(&self, index: usize) -> Result<usize, Malformed> {
        let at = self.entries_end + 4 * index;
        let offset = Reader::new(&self.bytes[at..]).u32()? as usize;
        if offset >= self.entries_end {
            return Err(Malformed("a restart beyond the entries"));
        }
        Ok(offset)
    }

    fn entry(&self, at: usize) -> Result<Stored<'_>, Malformed> {
        let mut reader = Reader::new(&self.bytes[at..self.entries_end]);
        let shared = reader.length(KEY_BYTES_MAX)?;
        let unshared = reader.length(KEY_BYTES_MAX)?;
        let tag = Tag::from_stored(reader.varint()?).ok_or(Malformed("an entry without number"))?;
        let value_bytes = reader.length(self.entries_end)?;
        let key_end = reader.bytes(unshared)?;
        let value_at = self.entries_end - reader.remaining();
        reader.bytes(value_bytes)?;
        Ok(Stored { shared, key_end, tag, value: value_at..value_at + value_bytes })
    }

    /// The key and tag of the entry at a restart.
    fn restart_entry(&self, index: usize) -> Result<(&[u8], Tag), Malformed> {
        let stored = self.entry(self.restart(index)?)?;
        if stored.shared != 0 {
            return Err(Malformed("a restart that shares a prefix"));
        }
        Ok((stored.key_end, stored.tag))
    }

    /// What the index says of a block: where in this payload the last key is, its tag, and where the
    /// block is.
    pub(super) fn index_entry(
        &self,
        number: usize,
    ) -> Result<(Range<usize>, Tag, Handle), Malformed> {
        let at = self.restart(number)?;
        let stored = self.entry(at)?;
        if stored.shared != 0 {
            return Err(Malformed("a restart that shares a prefix"));
        }
        let key = stored.value.start - stored.key_end.len()..stored.value.start;
        let handle = Handle::decode(&mut Reader::new(&self.bytes[stored.value]))?;
        Ok((key, stored.tag, handle))
    }

    /// How many restarts stand before this entry.
    fn restarts_before(&self, key: &[u8], tag: Tag) -> Result<usize, Malformed> {
        let (mut low, mut high) = (0, self.restarts);
        while low < high {
            let middle = low + (high - low) / 2;
            let (at_key, at_tag) = self.restart_entry(middle)?;
            if compare((at_key, at_tag), (key, tag)) == Ordering::Less {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}

/// The first version of a key that is `tag` or older: its tag, and where in the block its value is.
pub(super) fn find(
    block: Bytes,
    key: &[u8],
    tag: Tag,
) -> Result<Option<(Tag, Range<usize>)>, Malformed> {
    let mut cursor = BlockCursor::new(Block::parse(block)?);
    cursor.seek(Some((key, tag)))?;
    let found = cursor.is_valid() && cursor.key() == key;
    Ok(found.then_some((cursor.tag, cursor.value)))
}

/// Walks the entries of one block. After an error it is at no entry.
pub(super) struct BlockCursor {
    block: Block,
    key: Vec<u8>,
    tag: Tag,
    value: Range<usize>,
    /// Where the current entry begins; `None` if there is none.
    at: Option<usize>,
}

impl BlockCursor {
    pub(super) fn new(block: Block) -> BlockCursor {
        BlockCursor { block, key: Vec::new(), tag: Tag::OLDEST, value: 0..0, at: None }
    }

    pub(super) fn is_valid(&self) -> bool {
        self.at.is_some()
    }

    pub(super) fn key(&self) -> &[u8] {
        &self.key
    }

    pub(super) fn tag(&self) -> Tag {
        self.tag
    }

    pub(super) fn value(&self) -> Bytes {
        self.block.bytes.slice(self.value.clone())
    }

    /// The same, for who needs it only until the next step.
    pub(super) fn value_ref(&self) -> &[u8] {
        &self.block.bytes[self.value.clone()]
    }

    /// To the first entry at or after `to`, or the very first.
    pub(super) fn seek(&mut self, to: Option<(&[u8], Tag)>) -> Result<(), Malformed> {
        let Some((key, tag)) = to else { return self.read_restart(0) };
        let before = self.block.restarts_before(key, tag)?;
        self.read_restart(before.saturating_sub(1))?;
        while self.is_valid() && compare((&self.key, self.tag), (key, tag)) == Ordering::Less {
            self.next()?;
        }
        Ok(())
    }

    /// To the last entry before `to`, or the very last.
    pub(super) fn seek_before(&mut self, to: Option<(&[u8], Tag)>) -> Result<(), Malformed> {
        let before = match to {
            Some((key, tag)) => self.block.restarts_before(key, tag)?,
            None => self.block.restarts,
        };
        let Some(restart) = before.checked_sub(1) else {
            self.at = None;
            return Ok(());
        };
        let end = self.block.entries_end;
        let is_before = |cursor: &BlockCursor| match to {
            Some(to) => compare((&cursor.key, cursor.tag), to) == Ordering::Less,
            None => true,
        };
        self.read_last_that(restart, end, is_before)
    }

    pub(super) fn next(&mut self) -> Result<(), Malformed> {
        if self.at.is_some() { self.read(self.value.end) } else { Ok(()) }
    }

    /// Entries do not know where the one before them begins, so this reads on from the restart
    /// before; an interval is short.
    pub(super) fn previous(&mut self) -> Result<(), Malformed> {
        let Some(at) = self.at else { return Ok(()) };
        let (mut low, mut high) = (0, self.block.restarts);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.block.restart(middle)? < at { low = middle + 1 } else { high = middle }
        }
        let Some(restart) = low.checked_sub(1) else {
            self.at = None;
            return Ok(());
        };
        self.read_last_that(restart, at, |_| true)
    }

    /// From a restart on, to the last entry that begins before `end` and satisfies. The restart's
    /// own entry does.
    fn read_last_that(
        &mut self,
        restart: usize,
        end: usize,
        satisfies: impl Fn(&BlockCursor) -> bool,
    ) -> Result<(), Malformed> {
        self.read_restart(restart)?;
        let mut found = self.at;
        while self.value.end < end {
            self.next()?;
            if !satisfies(self) {
                break;
            }
            found = self.at;
        }
        if self.at == found {
            return Ok(());
        }
        // One too far: the key it had is gone, so walk there again.
        self.read_restart(restart)?;
        while self.at != found {
            self.next()?;
        }
        Ok(())
    }

    fn read_restart(&mut self, index: usize) -> Result<(), Malformed> {
        self.at = None;
        if self.block.restarts == 0 {
            return Ok(());
        }
        self.key.clear();
        let at = self.block.restart(index)?;
        self.read(at)
    }

    /// Reads the entry at `at`, given that `self.key` is that of the entry before.
    fn read(&mut self, at: usize) -> Result<(), Malformed> {
        self.at = None;
        if at == self.block.entries_end {
            return Ok(());
        }
        let stored = self.block.entry(at)?;
        if stored.shared > self.key.len() || stored.shared + stored.key_end.len() > KEY_BYTES_MAX {
            return Err(Malformed("a key that shares more than there is"));
        }
        self.key.truncate(stored.shared);
        self.key.extend_from_slice(stored.key_end);
        self.tag = stored.tag;
        self.value = stored.value;
        self.at = Some(at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::{put_u32, put_varint};
    use crate::key::Kind;

    /// Collects the entries of one block, which must come in order.
    struct BlockBuilder {
        buffer: Vec<u8>,
        restarts: Vec<u32>,
        interval: usize,
        since_restart: usize,
        last_key: Vec<u8>,
    }

    impl BlockBuilder {
        fn new(interval: usize) -> BlockBuilder {
            BlockBuilder {
                buffer: Vec::new(),
                restarts: Vec::new(),
                interval,
                since_restart: 0,
                last_key: Vec::new(),
            }
        }

        fn add(&mut self, key: &[u8], tag: Tag, value: &[u8]) {
            let restart = self.restarts.is_empty() || self.since_restart == self.interval;
            let shared = if restart {
                // Blocks stay far below 4 GiB: they are closed once they reach their target.
                self.restarts.push(self.buffer.len() as u32);
                self.since_restart = 0;
                0
            } else {
                self.last_key.iter().zip(key).take_while(|(a, b)| a == b).count()
            };
            put_varint(&mut self.buffer, shared as u64);
            put_varint(&mut self.buffer, (key.len() - shared) as u64);
            put_varint(&mut self.buffer, tag.stored());
            put_varint(&mut self.buffer, value.len() as u64);
            self.buffer.extend_from_slice(&key[shared..]);
            self.buffer.extend_from_slice(value);
            self.last_key.truncate(shared);
            self.last_key.extend_from_slice(&key[shared..]);
            self.since_restart += 1;
        }

        /// What [`BlockBuilder::finish`] would answer with now, in bytes.
        fn bytes(&self) -> usize {
            self.buffer.len() + 4 * (self.restarts.len() + 1)
        }

        /// The block's bytes; the builder begins anew.
        fn finish(&mut self) -> Vec<u8> {
            for restart in &self.restarts {
                put_u32(&mut self.buffer, *restart);
            }
            put_u32(&mut self.buffer, self.restarts.len() as u32);
            self.restarts.clear();
            self.since_restart = 0;
            self.last_key.clear();
            std::mem::take(&mut self.buffer)
        }
    }

    type Entry = (Vec<u8>, Tag, Vec<u8>);

    fn build(entries: &[Entry], interval: usize) -> Block {
        let mut builder = BlockBuilder::new(interval);
        for (key, tag, value) in entries {
            builder.add(key, *tag, value);
        }
        let bytes = builder.bytes();
        let block = builder.finish();
        assert_eq!(block.len(), bytes);
        Block::parse(Bytes::from(block)).unwrap()
    }

    fn current(cursor: &BlockCursor) -> Option<Entry> {
        cursor
            .is_valid()
            .then(|| (cursor.key().to_vec(), cursor.tag(), cursor.value_ref().to_vec()))
    }

    fn walk(block: &Block, backwards: bool) -> Vec<Entry> {
        let mut cursor = BlockCursor::new(block.clone());
        if backwards { cursor.seek_before(None) } else { cursor.seek(None) }.unwrap();
        let mut entries = Vec::new();
        while let Some(entry) = current(&cursor) {
            entries.push(entry);
            if backwards { cursor.previous() } else { cursor.next() }.unwrap();
        }
        entries
    }

    #[test]
    fn an_empty_block_has_no_entries() {
        let block = build(&[], 4);
        assert!(walk(&block, false).is_empty());
        assert!(walk(&block, true).is_empty());
    }

    proptest! {
        #[test]
        fn reads_what_was_built(
            keys in proptest::collection::btree_map("[ab]{0,4}", 1u64..4, 0..40),
            interval in 1usize..6,
            probe in "[abc]{0,4}",
            probe_at in 0u64..5,
        ) {
            let entries: Vec<Entry> = keys
                .iter()
                .flat_map(|(key, versions)| (1..=*versions).rev().map(move |v| (key, v)))
                .map(|(key, v)| (key.clone().into(), Tag::new(v, Kind::Put), vec![v as u8; 3]))
                .collect();
            let block = build(&entries, interval);
            prop_assert_eq!(&walk(&block, false), &entries);
            let reversed: Vec<Entry> = entries.iter().rev().cloned().collect();
            prop_assert_eq!(&walk(&block, true), &reversed);

            let to = (probe.as_bytes(), Tag::newest_of(probe_at));
            let is_before = |e: &&Entry| compare((&e.0, e.1), to) == Ordering::Less;
            let mut cursor = BlockCursor::new(block);
            cursor.seek(Some(to)).unwrap();
            prop_assert_eq!(current(&cursor), entries.iter().find(|e| !is_before(e)).cloned());
            cursor.seek_before(Some(to)).unwrap();
            prop_assert_eq!(current(&cursor), entries.iter().rfind(is_before).cloned());
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_panic(bytes: Vec<u8>, from_end in 0u32..4) {
            let mut bytes = bytes;
            put_u32(&mut bytes, from_end);
            if let Ok(block) = Block::parse(Bytes::from(bytes)) {
                let mut cursor = BlockCursor::new(block);
                let _ = cursor.seek(Some((b"k", Tag::NEWEST)));
                while cursor.is_valid() && cursor.next().is_ok() {}
                let _ = cursor.seek_before(None);
                for _ in 0..100 {
                    let _ = cursor.previous();
                }
            }
        }
    }
}
