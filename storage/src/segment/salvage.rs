//! Reads what can be read of a segment, block by block, and names what cannot.
//!
//! The index says where blocks begin and which keys they end with, so that one bad block costs its
//! own entries and no others. If the index or the footer is what is bad, the blocks are found by
//! their checksums: they lie one behind the other without gaps, and a checksum covers its own place,
//! so that the right length is the one at which it matches.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::entries::EntryCursor;
use super::reader::{Check, Payload, Segment, payload, read_footer};
use super::{BLOCK_BYTES_MAX, BlockKind, FOOTER_BYTES, Handle, SegmentMeta, TRAILER_BYTES};
use crate::codec::{Malformed, Place, checksum_append};
use crate::error::{Error, Result};
use crate::key::{Tag, compare};

/// An entry that was read.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: Bytes,
    pub(crate) tag: Tag,
    pub(crate) value: Bytes,
}

/// Entries that cannot be read, by the keys between which they lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostKeys {
    /// The segment.
    pub file: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// Why not.
    pub why: String,
    /// They come at or after this key.
    pub from: Bytes,
    /// They come at or before this one; none if nobody knows where they end.
    pub to: Option<Bytes>,
}

/// What stands next in a segment.
pub(crate) enum Piece {
    Block(Vec<Entry>),
    Lost(LostKeys),
}

/// Walks a segment.
pub(crate) struct Salvage {
    source: Source,
    path: PathBuf,
    /// What the manifest, or else the segment itself, says of it.
    meta: Option<SegmentMeta>,
    next: usize,
    last: Option<(Bytes, Tag)>,
    /// Something besides data blocks is wrong.
    pub(crate) flaws: Vec<Error>,
}

enum Source {
    /// By the index.
    Indexed(Box<Segment>),
    /// By the blocks that were found; whether that is all of them.
    Found { segment: Loose, handles: Vec<Handle>, end: Result<(), u64> },
}

/// A segment whose index cannot be used.
struct Loose {
    id: u64,
    map: Bytes,
}

impl Salvage {
    /// Of a segment with this content, of which the manifest perhaps says something.
    pub(crate) fn new(path: &Path, id: u64, map: Bytes, meta: Option<SegmentMeta>) -> Salvage {
        let mut flaws = Vec::new();
        let source = match indexed(path, id, &map, meta.as_ref(), &mut flaws) {
            Ok(segment) => Source::Indexed(Box::new(segment)),
            Err(error) => {
                flaws.push(error);
                scan(id, map, path)
            }
        };
        let meta = match &source {
            Source::Indexed(segment) => Some(segment.meta().clone()),
            Source::Found { .. } => meta,
        };
        Salvage { source, path: path.to_path_buf(), meta, next: 0, last: None, flaws }
    }

    /// What is known of the segment besides its entries.
    pub(crate) fn meta(&self) -> Option<&SegmentMeta> {
        self.meta.as_ref()
    }

    /// Passes over the blocks that end before this key, if an index tells.
    pub(crate) fn skip_to(&mut self, key: &[u8]) {
        if let Source::Indexed(segment) = &self.source
            && let Ok(number) = segment.block_of(key, Tag::NEWEST)
        {
            self.next = number;
        }
    }

    /// The next block, or the place of one; none at the end.
    pub(crate) fn next(&mut self) -> Option<Piece> {
        let number = self.next;
        let (offset, block) = match &self.source {
            Source::Indexed(segment) => {
                if number >= segment.blocks().unwrap_or(0) {
                    return None;
                }
                let offset = segment.data_handle(number).map_or(0, |handle| handle.offset);
                (offset, segment.data_block(number, Check::Always, Vec::new()))
            }
            Source::Found { segment, handles, end } => match handles.get(number) {
                Some(handle) => (handle.offset, segment.block(*handle, &self.path)),
                None => match end {
                    Err(offset) if number == handles.len() => {
                        (*offset, Err(Error::corrupt(&self.path, *offset, "no block is found")))
                    }
                    Ok(()) | Err(_) => return None,
                },
            },
        };
        self.next += 1;
        let entries = block.and_then(|cursor| {
            entries(cursor, self.last.as_ref()).map_err(Malformed::at(&self.path, offset))
        });
        Some(match entries {
            Ok(entries) => {
                self.last = entries.last().map(|entry| (entry.key.clone(), entry.tag));
                Piece::Block(entries)
            }
            Err(error) => Piece::Lost(self.lost(number, offset, &error)),
        })
    }

    fn lost(&self, number: usize, offset: u64, error: &Error) -> LostKeys {
        let why = match error {
            Error::Corrupt { what, .. } => what.clone().into_owned(),
            other => other.to_string(),
        };
        let smallest = || self.meta.as_ref().map(|meta| meta.smallest.clone());
        let largest = || self.meta.as_ref().map(|meta| meta.largest.clone());
        let (from, to) = match &self.source {
            Source::Indexed(segment) => {
                let bound = |number| segment.lower_bound(number).ok().flatten();
                let key = |(key, _): (Vec<u8>, Tag)| Bytes::from(key);
                let from = bound(number).map(key).or_else(smallest);
                (from, bound(number + 1).map(key).or_else(largest))
            }
            Source::Found { .. } => {
                (self.last.as_ref().map(|(key, _)| key.clone()).or_else(smallest), largest())
            }
        };
        let from = from.unwrap_or_default();
        LostKeys { file: self.path.clone(), offset, why, from, to }
    }
}

/// The segment with a good footer and index. Other flaws are noted.
fn indexed(
    path: &Path,
    id: u64,
    map: &Bytes,
    meta: Option<&SegmentMeta>,
    flaws: &mut Vec<Error>,
) -> Result<Segment> {
    let footer = read_footer(map, id, path)?;
    let listed = meta.cloned().unwrap_or_else(|| SegmentMeta {
        id,
        bytes: map.len() as u64,
        entries: 0,
        deletes: 0,
        smallest: Bytes::new(),
        largest: Bytes::new(),
        sequence_max: 0,
    });
    if listed.bytes != map.len() as u64 {
        let what = format!("{} bytes long, where the manifest says {}", map.len(), listed.bytes);
        return Err(Error::corrupt(path, 0, what));
    }
    let mut segment = Segment::from_parts(listed, path.to_path_buf(), map.clone(), footer);
    segment.blocks()?;
    match segment.read_properties() {
        Ok(properties) if meta.is_none() => segment.meta = properties,
        Ok(properties) if properties != segment.meta => {
            flaws.push(Error::corrupt(path, 0, "its properties differ from the manifest's"));
        }
        Ok(_) => {}
        Err(error) => flaws.push(error),
    }
    flaws.extend(segment.read_filter().err());
    Ok(segment)
}

/// The entries of a block, which must come behind `last` and in order.
fn entries(
    mut cursor: EntryCursor,
    last: Option<&(Bytes, Tag)>,
) -> std::result::Result<Vec<Entry>, Malformed> {
    let mut entries: Vec<Entry> = Vec::new();
    cursor.seek(None)?;
    while cursor.is_valid() {
        let before = match entries.last() {
            Some(entry) => Some((entry.key.as_ref(), entry.tag)),
            None => last.map(|(key, tag)| (key.as_ref(), *tag)),
        };
        let here = (cursor.key(), cursor.tag());
        if before.is_some_and(|before| compare(before, here).is_ge()) {
            return Err(Malformed("entries out of order"));
        }
        let key = Bytes::copy_from_slice(cursor.key());
        entries.push(Entry { key, tag: cursor.tag(), value: cursor.value() });
        cursor.next()?;
    }
    Ok(entries)
}

impl Loose {
    fn block(&self, handle: Handle, path: &Path) -> Result<EntryCursor> {
        let (kind, block) = payload(&self.map, self.id, handle, path, true)?;
        let block = match block {
            Payload::Mapped(block) => self.map.slice_ref(block),
            Payload::Unpacked(block) => block,
        };
        let cursor = EntryCursor::new(kind.version, block, Vec::new());
        cursor.map_err(Malformed::at(path, handle.offset))
    }
}

/// Finds the data blocks of a segment by their checksums.
fn scan(id: u64, map: Bytes, path: &Path) -> Source {
    let (mut handles, mut offset) = (Vec::new(), 0);
    // A good footer says where they end. Otherwise filter, properties and index follow them.
    let footer = read_footer(&map, id, path).ok();
    let data_end = footer.and_then(|footer| usize::try_from(footer.filter.offset).ok());
    let end = data_end.unwrap_or(map.len().saturating_sub(FOOTER_BYTES)).min(map.len());
    while offset < end
        && let Some(handle) = find_block(id, &map[..end], offset)
    {
        offset += handle.bytes as usize + TRAILER_BYTES;
        handles.push(handle);
    }
    let others = if data_end.is_some() { 0 } else { 3 };
    let complete = offset == end && handles.len() > others;
    if complete {
        handles.truncate(handles.len() - others);
    } else if data_end.is_none() {
        let loose = Loose { id, map: map.clone() };
        let is_data = |handle: &Handle| {
            let block = loose.block(*handle, path);
            block.is_ok_and(|cursor| entries(cursor, None).is_ok_and(|it| !it.is_empty()))
        };
        let data = handles.iter().take_while(|handle| is_data(handle)).count();
        handles.truncate(data);
    }
    let end = if complete { Ok(()) } else { Err(offset as u64) };
    Source::Found { segment: Loose { id, map }, handles, end }
}

/// The block that begins here, if one does: of the length at which the checksum behind it matches.
fn find_block(id: u64, content: &[u8], offset: usize) -> Option<Handle> {
    let place = Place { file: id, offset: offset as u64 };
    let mut sum = place.checksum();
    let rest = &content[offset..];
    let longest = rest.len().checked_sub(TRAILER_BYTES)?.min(BLOCK_BYTES_MAX);
    for bytes in 0..=longest {
        let trailer = &rest[bytes..bytes + TRAILER_BYTES];
        if BlockKind::from_stored(trailer[0]).is_some()
            && checksum_append(sum, &trailer[..1]).to_le_bytes() == trailer[1..]
        {
            return Some(Handle { offset: offset as u64, bytes: u32::try_from(bytes).ok()? });
        }
        sum = checksum_append(sum, &rest[bytes..=bytes]);
    }
    None
}

/// What a segment says of itself, if its footer and properties can be read.
pub(crate) fn read_meta(path: &Path, id: u64, map: &Bytes) -> Result<SegmentMeta> {
    let mut flaws = Vec::new();
    let segment = indexed(path, id, map, None, &mut flaws)?;
    match flaws.pop() {
        Some(flaw) => Err(flaw),
        None => Ok(segment.meta.clone()),
    }
}
