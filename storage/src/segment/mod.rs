//! Segments: immutable sorted files, each block with a checksum that knows where it belongs.
//!
//! ```text
//! segment    data block... | filter block | properties block | index block | footer
//! on disk    a block's payload | kind u8 | checksum u32
//! footer     magic | version u32 | reserved u32 | segment id u64
//!            | filter, properties and index: offset u64, payload bytes u32 each | checksum u32
//! ```
//!
//! Checksums are CRC-32C over the segment's id, the offset in it and the bytes, so that a block
//! which a disk returns in the place of another is not believed. Segments are read through a
//! memory map; values that lie uncompressed in it are handed out without a copy.
//!
//! A look-up asks the `filter`, which touches one cache line; the `index`, which touches two or three
//! that are mostly at hand; the fingerprints of one `block`; and there the entry. Nothing is
//! allocated, and counted only what is handed out. Segments of version 1 are read as well: their
//! blocks and their index are those of `version1`, the rest is the same.

mod block;
mod cache;
mod check;
mod cursor;
mod entries;
mod filter;
mod index;
mod layers;
mod reader;
mod salvage;
mod version1;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::codec::{Malformed, Reader, put_slice, put_u32, put_u64};
use crate::key::{KEY_BYTES_MAX, Sequence};

pub(crate) use self::cache::BlockCache;
pub(crate) use self::check::Counted;
pub(crate) use self::cursor::SegmentCursor;
pub(crate) use self::filter::hash;
pub(crate) use self::reader::{Check, Segment};
pub use self::salvage::LostKeys;
pub(crate) use self::salvage::{Entry, Piece, Salvage, read_meta};
pub(crate) use self::writer::{SegmentOptions, SegmentWriter};

const MAGIC: [u8; 8] = *b"kvorumsg";
const FOOTER_BYTES: usize = 64;
/// What follows a block's payload: its kind, which is how it is compressed, and its checksum.
const TRAILER_BYTES: usize = 5;
/// Larger blocks are never written: an entry of the greatest size fits into one with room to spare.
const BLOCK_BYTES_MAX: usize = 1 << 30;
/// No segment comes to so many entries: a memtable holds fewer, and a merge cuts what it writes. Of
/// as many segments as a manifest has room for they can be added up.
const ENTRIES_END: u64 = 1 << 38;

const SUFFIX: &str = ".segment";

/// How blocks are compressed. Blocks that do not shrink are stored as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all: values are read without a copy, and each block is checked once.
    #[default]
    None,
    /// LZ4: less space for more work. Blocks are decompressed as they are read, and kept as long as
    /// [`Options::block_cache_bytes`](crate::Options::block_cache_bytes) has room for them.
    Lz4,
}

/// Which format a segment has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// Read only.
    One,
    Two,
}

/// What the byte behind a payload says: the format that the block has, and how it is compressed.
/// So a block is known for what it is without the footer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BlockKind {
    version: Version,
    compression: Compression,
}

impl BlockKind {
    fn stored(self) -> u8 {
        let version = match self.version {
            Version::One => 0,
            Version::Two => 0x20,
        };
        let compression = match self.compression {
            Compression::None => 0,
            Compression::Lz4 => 1,
        };
        version | compression
    }

    fn from_stored(stored: u8) -> Option<BlockKind> {
        let (version, compression) = match stored {
            0x00 => (Version::One, Compression::None),
            0x01 => (Version::One, Compression::Lz4),
            0x20 => (Version::Two, Compression::None),
            0x21 => (Version::Two, Compression::Lz4),
            _ => return None,
        };
        Some(BlockKind { version, compression })
    }
}

/// What is known of a segment without opening it; the manifest and the segment itself both keep it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentMeta {
    pub(crate) id: u64,
    /// The whole file.
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
    /// How many of the entries are deletes.
    pub(crate) deletes: u64,
    pub(crate) smallest: Bytes,
    pub(crate) largest: Bytes,
    pub(crate) sequence_max: Sequence,
}

impl SegmentMeta {
    /// Whether the key lies between the smallest and the largest.
    pub(crate) fn spans(&self, key: &[u8]) -> bool {
        self.smallest.as_ref() <= key && key <= self.largest.as_ref()
    }

    pub(crate) fn overlaps(&self, smallest: &[u8], largest: &[u8]) -> bool {
        self.smallest.as_ref() <= largest && smallest <= self.largest.as_ref()
    }

    pub(crate) fn encode(&self, buffer: &mut Vec<u8>) {
        for number in [self.id, self.bytes, self.entries, self.deletes, self.sequence_max] {
            put_u64(buffer, number);
        }
        put_slice(buffer, &self.smallest);
        put_slice(buffer, &self.largest);
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<SegmentMeta, Malformed> {
        let meta = SegmentMeta {
            id: reader.u64()?,
            bytes: reader.u64()?,
            entries: reader.u64()?,
            deletes: reader.u64()?,
            sequence_max: reader.u64()?,
            smallest: Bytes::copy_from_slice(reader.slice(KEY_BYTES_MAX)?),
            largest: Bytes::copy_from_slice(reader.slice(KEY_BYTES_MAX)?),
        };
        if meta.smallest > meta.largest {
            return Err(Malformed("a segment whose smallest key is above its largest"));
        }
        if meta.entries >= ENTRIES_END || meta.deletes > meta.entries {
            return Err(Malformed("a number of entries or deletes that no segment has"));
        }
        Ok(meta)
    }
}

/// The name of a segment's file.
pub(crate) fn path_of(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}{SUFFIX}"))
}

/// The id in a segment's file name; `None` for any other file.
pub(crate) fn id_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let plain = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

/// Where a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Handle {
    offset: u64,
    /// Of the payload, without the trailer.
    bytes: u32,
}

impl Handle {
    fn encode(self, buffer: &mut Vec<u8>) {
        put_u64(buffer, self.offset);
        put_u32(buffer, self.bytes);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Handle, Malformed> {
        Ok(Handle { offset: reader.u64()?, bytes: reader.u32()? })
    }
}

/// The end of a segment, from which everything else is found.
struct Footer {
    version: Version,
    id: u64,
    filter: Handle,
    properties: Handle,
    index: Handle,
}

impl Footer {
    /// All but the checksum.
    fn encode(&self) -> Vec<u8> {
        let mut buffer = Vec::with_capacity(FOOTER_BYTES);
        buffer.extend_from_slice(&MAGIC);
        let version = match self.version {
            Version::One => 1,
            Version::Two => 2,
        };
        put_u32(&mut buffer, version);
        put_u32(&mut buffer, 0);
        put_u64(&mut buffer, self.id);
        self.filter.encode(&mut buffer);
        self.properties.encode(&mut buffer);
        self.index.encode(&mut buffer);
        buffer
    }

    fn decode(bytes: &[u8]) -> Result<Footer, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.array::<8>()? != MAGIC {
            return Err(Malformed("the footer is not that of a segment"));
        }
        let version = match (reader.u32()?, reader.u32()?) {
            (1, 0) => Version::One,
            (2, 0) => Version::Two,
            _ => {
                let what =
                    "the segment is of a version that this program does not know: a newer one may";
                return Err(Malformed(what));
            }
        };
        Ok(Footer {
            version,
            id: reader.u64()?,
            filter: Handle::decode(&mut reader)?,
            properties: Handle::decode(&mut reader)?,
            index: Handle::decode(&mut reader)?,
        })
    }
}
