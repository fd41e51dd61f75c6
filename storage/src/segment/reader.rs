//! Reads a segment through a memory map, and believes no block before its checksum was seen right.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;

use super::block::{Block, BlockCursor};
use super::filter::Filter;
use super::{
    BLOCK_BYTES_MAX, Compression, FOOTER_BYTES, Footer, Handle, SegmentMeta, TRAILER_BYTES, path_of,
};
use crate::codec::{Malformed, Place, Reader, checksum};
use crate::error::{Error, Result};
use crate::key::{Sequence, Tag};
use crate::planted::{Bug, Planted};
use crate::vfs::{OpenMode, Vfs};

/// When a block's checksum is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// When the block is first read since the segment was opened: its pages are the same from then
    /// on, but for what a disk does to pages that the system dropped and reads again. For reads.
    Once,
    /// Each time. For what copies entries elsewhere, where a fault would get a fresh checksum.
    Always,
}

/// An open segment.
pub(crate) struct Segment {
    pub(super) meta: SegmentMeta,
    pub(super) path: PathBuf,
    map: Bytes,
    footer: Footer,
    index: OnceLock<Index>,
    filter: OnceLock<Filter>,
    planted: Planted,
}

/// The index, and which data blocks were already seen right: a bit each.
struct Index {
    block: Block,
    seen_right: Box<[AtomicU64]>,
}

impl Segment {
    /// Opens the segment that the manifest describes. Only the footer is read.
    pub(crate) fn open(
        vfs: &dyn Vfs,
        dir: &Path,
        meta: SegmentMeta,
        planted: Planted,
    ) -> Result<Segment> {
        let path = path_of(dir, meta.id);
        let file = vfs.open(&path, OpenMode::Read).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => Error::Missing { file: path.clone() },
            _ => Error::io("open", &path)(source),
        })?;
        let map = file.map().map_err(Error::io("map", &path))?;
        Ok(Segment { planted, ..Segment::of_bytes(&path, meta, map)? })
    }

    /// The segment with this content, however it was read.
    pub(crate) fn of_bytes(path: &Path, meta: SegmentMeta, bytes: Bytes) -> Result<Segment> {
        if bytes.len() as u64 != meta.bytes {
            let what =
                format!("{} bytes long, where the manifest says {}", bytes.len(), meta.bytes);
            return Err(Error::corrupt(path, 0, what));
        }
        let footer = read_footer(&bytes, meta.id, path)?;
        Ok(Segment::from_parts(meta, path.to_owned(), bytes, footer))
    }

    pub(super) fn from_parts(
        meta: SegmentMeta,
        path: PathBuf,
        map: Bytes,
        footer: Footer,
    ) -> Segment {
        let (index, filter, planted) = (OnceLock::new(), OnceLock::new(), Planted::default());
        Segment { meta, path, map, footer, index, filter, planted }
    }

    pub(crate) fn meta(&self) -> &SegmentMeta {
        &self.meta
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The newest version of the key that a reader at `sequence` may see: its tag and value, which
    /// keeps the segment's content in memory as long as it lives. `hash` is that of the key, by
    /// [`super::hash`]: it is the same for all segments.
    pub(crate) fn get(
        &self,
        key: &[u8],
        hash: u64,
        sequence: Sequence,
    ) -> Result<Option<(Tag, Bytes)>> {
        let cursor = self.find(key, hash, sequence)?;
        Ok(cursor.map(|cursor| (cursor.tag(), cursor.value())))
    }

    /// The same, for who needs the value only for a moment: nothing is counted or copied.
    pub(crate) fn get_with<T>(
        &self,
        key: &[u8],
        hash: u64,
        sequence: Sequence,
        found: impl FnOnce(Tag, &[u8]) -> T,
    ) -> Result<Option<T>> {
        let cursor = self.find(key, hash, sequence)?;
        Ok(cursor.map(|cursor| found(cursor.tag(), cursor.value_ref())))
    }

    /// What the filter says of a key.
    pub(crate) fn may_contain(&self, hash: u64) -> Result<bool> {
        Ok(self.filter()?.may_contain(hash))
    }

    fn find(&self, key: &[u8], hash: u64, sequence: Sequence) -> Result<Option<BlockCursor>> {
        if !self.meta.spans(key) || !self.filter()?.may_contain(hash) {
            return Ok(None);
        }
        let tag = Tag::newest_of(sequence);
        let before = self.blocks_before(key, tag)?;
        if before == self.blocks()? {
            return Ok(None);
        }
        let mut cursor = self.data_block(before, Check::Once)?;
        cursor.seek(Some((key, tag))).map_err(|malformed| self.lied(before, malformed))?;
        let found = cursor.is_valid() && cursor.key() == key;
        Ok(found.then_some(cursor))
    }

    /// How many data blocks there are.
    pub(super) fn blocks(&self) -> Result<usize> {
        Ok(self.index()?.block.restarts())
    }

    /// How many data blocks end before this entry.
    pub(super) fn blocks_before(&self, key: &[u8], tag: Tag) -> Result<usize> {
        let before = self.index()?.block.restarts_before(key, tag);
        before.map_err(Malformed::at(&self.path, self.footer.index.offset))
    }

    pub(super) fn data_block(&self, number: usize, check: Check) -> Result<BlockCursor> {
        let index = self.index()?;
        let handle = self.data_handle(number)?;
        let (word, bit) = (&index.seen_right[number / 64], 1 << (number % 64));
        let seen_right = check == Check::Once && word.load(Relaxed) & bit != 0;
        let payload = self.payload(handle, !seen_right)?;
        if !seen_right {
            word.fetch_or(bit, Relaxed);
        }
        let block = Block::parse(payload).map_err(Malformed::at(&self.path, handle.offset))?;
        Ok(BlockCursor::new(block))
    }

    /// The index entry of a data block: the key and tag that it must end with.
    pub(super) fn end_of(&self, number: usize) -> Result<(&[u8], Tag)> {
        let entry = self.index()?.block.restart_entry(number);
        let (key, tag, _) = entry.map_err(Malformed::at(&self.path, self.footer.index.offset))?;
        Ok((key, tag))
    }

    pub(super) fn data_handle(&self, number: usize) -> Result<Handle> {
        let entry = self.index()?.block.restart_entry(number);
        let handle = entry.and_then(|(_, _, value)| Handle::decode(&mut Reader::new(value)));
        handle.map_err(Malformed::at(&self.path, self.footer.index.offset))
    }

    /// At most so many keys, one for each of about equal pieces of the segment, rising.
    pub(crate) fn sample_keys(&self, count: usize) -> Result<Vec<Bytes>> {
        let blocks = self.blocks()?;
        let count = count.min(blocks);
        let key = |piece: usize| {
            let (key, _) = self.end_of((piece * 2 + 1) * blocks / (count * 2))?;
            Ok(Bytes::copy_from_slice(key))
        };
        (0..count).map(key).collect()
    }

    /// The error for a data block that has the right checksum and makes no sense.
    pub(super) fn lied(&self, number: usize, malformed: Malformed) -> Error {
        let offset = self.data_handle(number).map_or(0, |handle| handle.offset);
        Malformed::at(&self.path, offset)(malformed)
    }

    pub(super) fn filter(&self) -> Result<&Filter> {
        if let Some(filter) = self.filter.get() {
            return Ok(filter);
        }
        let filter = self.read_filter()?;
        Ok(self.filter.get_or_init(|| filter))
    }

    pub(super) fn read_filter(&self) -> Result<Filter> {
        let payload = self.payload(self.footer.filter, true)?;
        Filter::parse(&payload).map_err(Malformed::at(&self.path, self.footer.filter.offset))
    }

    /// What the segment says of itself; its length is not in it.
    pub(super) fn read_properties(&self) -> Result<SegmentMeta> {
        let payload = self.payload(self.footer.properties, true)?;
        let mut reader = Reader::new(&payload);
        let meta = SegmentMeta::decode(&mut reader).and_then(|meta| {
            reader.finish()?;
            Ok(SegmentMeta { bytes: self.meta.bytes, ..meta })
        });
        meta.map_err(Malformed::at(&self.path, self.footer.properties.offset))
    }

    pub(super) fn read_index(&self) -> Result<Block> {
        let payload = self.payload(self.footer.index, true)?;
        Block::parse(payload).map_err(Malformed::at(&self.path, self.footer.index.offset))
    }

    /// Where the data blocks end.
    pub(super) fn data_end(&self) -> u64 {
        self.footer.filter.offset
    }

    /// Whether the footer still is what it was at opening.
    pub(super) fn recheck_footer(&self) -> Result<()> {
        read_footer(&self.map, self.meta.id, &self.path).map(drop)
    }

    fn index(&self) -> Result<&Index> {
        if let Some(index) = self.index.get() {
            return Ok(index);
        }
        let block = self.read_index()?;
        let words = block.restarts().div_ceil(64);
        let seen_right = (0..words).map(|_| AtomicU64::new(0)).collect();
        Ok(self.index.get_or_init(|| Index { block, seen_right }))
    }

    /// The bytes of a block, decompressed.
    fn payload(&self, handle: Handle, check: bool) -> Result<Bytes> {
        let check = check && !self.planted.has(Bug::TrustBlocks);
        payload(&self.map, self.meta.id, handle, &self.path, check)
    }

    /// Whether every entry of the index can be read.
    pub(super) fn check_index(&self) -> Result<()> {
        for number in 0..self.blocks()? {
            self.end_of(number)?;
            self.data_handle(number)?;
        }
        Ok(())
    }
}

/// The bytes of a block of the segment `id`, decompressed.
pub(super) fn payload(
    map: &Bytes,
    id: u64,
    handle: Handle,
    path: &Path,
    check: bool,
) -> Result<Bytes> {
    let corrupt = |what| Error::corrupt(path, handle.offset, what);
    let end = map.len().saturating_sub(FOOTER_BYTES);
    let payload_bytes = handle.bytes as usize;
    let begin = usize::try_from(handle.offset).ok().filter(|begin| {
        begin.checked_add(payload_bytes + TRAILER_BYTES).is_some_and(|after| after <= end)
    });
    let begin = begin.ok_or_else(|| corrupt("a block beyond the end"))?;
    let after_payload = begin + payload_bytes;
    let compression = map[after_payload];
    if check {
        let place = Place { file: id, offset: handle.offset };
        let mut stored = Reader::new(&map[after_payload + 1..]);
        let stored = stored.u32().map_err(Malformed::at(path, handle.offset))?;
        if checksum(place, &map[begin..=after_payload]) != stored {
            return Err(corrupt("a block's checksum does not match"));
        }
    }
    match Compression::from_stored(compression) {
        Some(Compression::None) => Ok(map.slice(begin..after_payload)),
        Some(Compression::Lz4) => decompress(&map[begin..after_payload]).map_err(corrupt),
        None => Err(corrupt("a block compressed in a way that this program does not know")),
    }
}

fn decompress(packed: &[u8]) -> Result<Bytes, &'static str> {
    // The length comes first, and is bounded before anything of that length is allocated.
    let (length, packed) = packed.split_first_chunk::<4>().ok_or("a compressed block too short")?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > BLOCK_BYTES_MAX || length / 256 > packed.len() {
        return Err("a compressed block longer than can be");
    }
    match lz4_flex::decompress(packed, length) {
        Ok(payload) if payload.len() == length => Ok(Bytes::from(payload)),
        Ok(_) | Err(_) => Err("a block does not decompress"),
    }
}

pub(super) fn read_footer(map: &[u8], id: u64, path: &Path) -> Result<Footer> {
    let Some(offset) = map.len().checked_sub(FOOTER_BYTES) else {
        return Err(Error::corrupt(path, 0, "too short for a segment"));
    };
    let corrupt = |what| Error::corrupt(path, offset as u64, what);
    let (content, stored) = map[offset..].split_at(FOOTER_BYTES - 4);
    let footer = Footer::decode(content).map_err(Malformed::at(path, offset as u64))?;
    let place = Place { file: id, offset: offset as u64 };
    if checksum(place, content).to_le_bytes() != stored {
        return Err(corrupt("the footer's checksum does not match"));
    }
    if footer.id != id {
        return Err(corrupt("the segment is another one than its name says"));
    }
    // Blocks lie one after the other, without a gap in which a fault could hide.
    let after =
        |handle: Handle| handle.offset.checked_add(u64::from(handle.bytes) + TRAILER_BYTES as u64);
    let fits = after(footer.filter) == Some(footer.properties.offset)
        && after(footer.properties) == Some(footer.index.offset)
        && after(footer.index) == Some(offset as u64);
    if fits { Ok(footer) } else { Err(corrupt("the footer's blocks do not fit together")) }
}
