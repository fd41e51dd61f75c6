//! Reads a segment through a memory map, and believes no block before its checksum was seen right.

use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::cache::BlockCache;
use super::entries::EntryCursor;
use super::filter::Filter;
use super::index::Index;
use super::{
    BLOCK_BYTES_MAX, BlockKind, Compression, FOOTER_BYTES, Footer, Handle, SegmentMeta,
    TRAILER_BYTES, Version, block, path_of, version1,
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
    /// Without one compressed blocks are decompressed each time.
    cache: Option<Arc<BlockCache>>,
    planted: Planted,
}

/// What a look-up has found.
struct Found<'a> {
    block: Payload<'a>,
    tag: Tag,
    value: Range<usize>,
}

impl Segment {
    /// Opens the segment that the manifest describes. Only the footer is read.
    pub(crate) fn open(
        vfs: &dyn Vfs,
        dir: &Path,
        meta: SegmentMeta,
        cache: &Arc<BlockCache>,
        planted: Planted,
    ) -> Result<Segment> {
        let path = path_of(dir, meta.id);
        let file = vfs.open(&path, OpenMode::Read).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => Error::Missing { file: path.clone() },
            _ => Error::io("open", &path)(source),
        })?;
        let map = file.map().map_err(Error::io("map", &path))?;
        let cache = Some(Arc::clone(cache));
        Ok(Segment { cache, planted, ..Segment::of_bytes(&path, meta, map)? })
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
        Segment { meta, path, map, footer, index, filter, cache: None, planted }
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
        let found = self.find(key, hash, sequence)?;
        Ok(found.map(|Found { block, tag, value }| (tag, self.counted(block).slice(value))))
    }

    /// The same, for who needs the value only for a moment: nothing is counted or copied.
    pub(crate) fn get_with<T>(
        &self,
        key: &[u8],
        hash: u64,
        sequence: Sequence,
        found: impl FnOnce(Tag, &[u8]) -> T,
    ) -> Result<Option<T>> {
        let it = self.find(key, hash, sequence)?;
        Ok(it.map(|it| found(it.tag, &it.block[it.value])))
    }

    /// What the filter says of a key.
    pub(crate) fn may_contain(&self, hash: u64) -> Result<bool> {
        Ok(self.filter()?.may_contain(hash))
    }

    fn find(&self, key: &[u8], hash: u64, sequence: Sequence) -> Result<Option<Found<'_>>> {
        if !self.meta.spans(key) || !self.filter()?.may_contain(hash) {
            return Ok(None);
        }
        let tag = Tag::newest_of(sequence);
        let number = self.index()?.block_of(key, tag);
        let block = self.data_payload(number, Check::Once)?;
        let found = match self.footer.version {
            Version::One => version1::find(self.counted(block.clone()), key, tag),
            Version::Two => block::find(&block, key, tag, block::fingerprint(hash)),
        };
        let found = found.map_err(|malformed| self.lied(number, malformed))?;
        Ok(found.map(|(tag, value)| Found { block, tag, value }))
    }

    /// How many data blocks there are: at least one.
    pub(super) fn blocks(&self) -> Result<usize> {
        Ok(self.index()?.blocks())
    }

    /// The data block in which this entry is, if it is in any.
    pub(super) fn block_of(&self, key: &[u8], tag: Tag) -> Result<usize> {
        Ok(self.index()?.block_of(key, tag))
    }

    /// A data block, at none of its entries. The key is for its memory only.
    pub(super) fn data_block(
        &self,
        number: usize,
        check: Check,
        key: Vec<u8>,
    ) -> Result<EntryCursor> {
        let block = self.counted(self.data_payload(number, check)?);
        let cursor = EntryCursor::new(self.footer.version, block, key);
        cursor.map_err(|malformed| self.lied(number, malformed))
    }

    fn data_payload(&self, number: usize, check: Check) -> Result<Payload<'_>> {
        let index = self.index()?;
        let handle = index.handle(number);
        let seen_right = check == Check::Once && index.was_seen_right(number);
        if seen_right
            && self.kind_of(handle).is_some_and(|kind| kind.compression != Compression::None)
            && let Some(block) = self.cache.as_ref().and_then(|it| it.get((self.meta.id, number)))
        {
            return Ok(Payload::Unpacked(block));
        }
        let block = self.payload(handle, !seen_right)?;
        if !seen_right {
            index.seen_right(number);
        }
        // Whoever reads all of it anew reads it once.
        if let (Check::Once, Payload::Unpacked(block), Some(cache)) = (check, &block, &self.cache) {
            cache.put((self.meta.id, number), block);
        }
        Ok(block)
    }

    fn kind_of(&self, handle: Handle) -> Option<BlockKind> {
        let at = usize::try_from(handle.offset).ok()?.checked_add(handle.bytes as usize)?;
        self.map.get(at).and_then(|kind| BlockKind::from_stored(*kind))
    }

    /// A block that keeps in memory what it lies in.
    fn counted(&self, block: Payload<'_>) -> Bytes {
        match block {
            Payload::Mapped(block) => self.map.slice_ref(block),
            Payload::Unpacked(block) => block,
        }
    }

    /// The least key and tag that can be in a block; none for the first one.
    pub(super) fn lower_bound(&self, number: usize) -> Result<Option<(Vec<u8>, Tag)>> {
        Ok(self.index()?.lower_bound(number))
    }

    pub(super) fn data_handle(&self, number: usize) -> Result<Handle> {
        Ok(self.index()?.handle(number))
    }

    /// At most so many keys, one for each of about equal pieces of the segment, rising.
    pub(crate) fn sample_keys(&self, count: usize) -> Result<Vec<Bytes>> {
        let blocks = self.blocks()?;
        let count = count.min(blocks);
        let key = |piece: usize| {
            let end = self.lower_bound((piece * 2 + 1) * blocks / (count * 2) + 1)?;
            Ok(end.map_or_else(|| self.meta.largest.clone(), |(key, _)| Bytes::from(key)))
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
        let stored = self.counted(self.payload(self.footer.filter, true)?);
        let offset = self.footer.filter.offset;
        let filter = Filter::parse(&stored, self.footer.version, offset);
        filter.map_err(Malformed::at(&self.path, offset))
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

    pub(super) fn read_index(&self) -> Result<Index> {
        let stored = self.counted(self.payload(self.footer.index, true)?);
        let index = match self.footer.version {
            Version::One => Index::parse_version1(stored, self.data_end()),
            Version::Two => Index::parse(stored, self.data_end()),
        };
        index.map_err(Malformed::at(&self.path, self.footer.index.offset))
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
        let index = self.read_index()?;
        Ok(self.index.get_or_init(|| index))
    }

    /// The bytes of a block, decompressed.
    fn payload(&self, handle: Handle, check: bool) -> Result<Payload<'_>> {
        let check = check && !self.planted.has(Bug::TrustBlocks);
        let (kind, block) = payload(&self.map, self.meta.id, handle, &self.path, check)?;
        if kind.version == self.footer.version {
            return Ok(block);
        }
        let what = "a block of another version than its segment";
        Err(Error::corrupt(&self.path, handle.offset, what))
    }
}

/// The bytes of a block, decompressed.
#[derive(Clone)]
pub(super) enum Payload<'a> {
    /// Where they are in the map.
    Mapped(&'a [u8]),
    Unpacked(Bytes),
}

impl Deref for Payload<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Payload::Mapped(block) => block,
            Payload::Unpacked(block) => block,
        }
    }
}

/// A block of the segment `id`.
pub(super) fn payload<'a>(
    map: &'a [u8],
    id: u64,
    handle: Handle,
    path: &Path,
    check: bool,
) -> Result<(BlockKind, Payload<'a>)> {
    let corrupt = |what| Error::corrupt(path, handle.offset, what);
    let end = map.len().saturating_sub(FOOTER_BYTES);
    let payload_bytes = handle.bytes as usize;
    let begin = usize::try_from(handle.offset).ok().filter(|begin| {
        begin.checked_add(payload_bytes + TRAILER_BYTES).is_some_and(|after| after <= end)
    });
    let begin = begin.ok_or_else(|| corrupt("a block beyond the end"))?;
    let after_payload = begin + payload_bytes;
    if check {
        let place = Place { file: id, offset: handle.offset };
        let mut stored = Reader::new(&map[after_payload + 1..]);
        let stored = stored.u32().map_err(Malformed::at(path, handle.offset))?;
        if checksum(place, &map[begin..=after_payload]) != stored {
            return Err(corrupt("a block's checksum does not match"));
        }
    }
    let kind = BlockKind::from_stored(map[after_payload]);
    let kind = kind.ok_or_else(|| corrupt("a block of a kind that this program does not know"))?;
    let block = &map[begin..after_payload];
    let block = match kind.compression {
        Compression::None => Payload::Mapped(block),
        Compression::Lz4 => Payload::Unpacked(decompress(block).map_err(corrupt)?),
    };
    Ok((kind, block))
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
