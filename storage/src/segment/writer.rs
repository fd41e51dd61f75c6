//! Writes a segment from entries that come in order.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use lz4_flex::block::{compress_into, get_maximum_output_size};

use super::block::{BlockBuilder, fingerprint};
use super::index::IndexBuilder;
use super::{BlockKind, Compression, Footer, Handle, SegmentMeta, Version, filter, path_of};
use crate::codec::{Place, checksum, put_u32};
use crate::error::{Error, Result};
use crate::key::{Kind, Tag, compare};
use crate::planted::{Bug, Planted};
use crate::vfs::{OpenMode, Vfs, VfsFile};

/// Writes go to the file in pieces of this size, at multiples of it. Larger ones are slower: pieces of
/// 1 MiB took Linux ten times as long, which was most of a flush, on a processor that writers need.
const WRITE_BYTES: usize = 64 << 10;
/// The most entries of a block, so that fingerprints of one byte tell them apart.
const BLOCK_ENTRIES_MAX: usize = 256;

/// How segments are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentOptions {
    pub(crate) block_bytes: usize,
    pub(crate) filter_bits_per_key: u32,
    pub(crate) compression: Compression,
    pub(crate) planted: Planted,
}

/// A segment that is being written. It exists once [`SegmentWriter::finish`] said so and its
/// directory was synced; until then its file is to be removed.
pub(crate) struct SegmentWriter {
    file: Arc<dyn VfsFile>,
    path: PathBuf,
    options: SegmentOptions,
    id: u64,
    /// Not yet given to the file, which has everything before it.
    pending: Vec<u8>,
    written: u64,
    /// Durable up to here.
    synced: u64,
    block: BlockBuilder,
    /// Memory for a block that is to be compressed.
    unpacked: Vec<u8>,
    index: IndexBuilder,
    /// Of all keys, for the filter: how large it must be is known at the end.
    hashes: Vec<u64>,
    entries: u64,
    deletes: u64,
    sequence_max: u64,
    smallest: Bytes,
    last_key: Vec<u8>,
    last_tag: Tag,
    /// Of the last key.
    hash: u64,
}

impl SegmentWriter {
    pub(crate) fn create(
        vfs: &dyn Vfs,
        dir: &Path,
        id: u64,
        options: SegmentOptions,
    ) -> Result<SegmentWriter> {
        let path = path_of(dir, id);
        let file = vfs.open(&path, OpenMode::Create).map_err(Error::io("create", &path))?;
        Ok(SegmentWriter {
            file,
            path,
            options,
            id,
            pending: Vec::new(),
            written: 0,
            synced: 0,
            block: BlockBuilder::default(),
            unpacked: Vec::new(),
            index: IndexBuilder::default(),
            hashes: Vec::new(),
            entries: 0,
            deletes: 0,
            sequence_max: 0,
            smallest: Bytes::new(),
            last_key: Vec::new(),
            last_tag: Tag::NEWEST,
            hash: 0,
        })
    }

    /// Adds an entry, which must come after the one before.
    pub(crate) fn add(&mut self, key: &[u8], tag: Tag, value: &[u8]) -> Result<()> {
        let first = self.entries == 0;
        if first {
            self.smallest = Bytes::copy_from_slice(key);
        } else if compare((&self.last_key, self.last_tag), (key, tag)) != Ordering::Less {
            let what = "entries for it came out of order; what they were read from is damaged";
            return Err(Error::corrupt(&self.path, self.bytes(), what));
        }
        if !self.block.is_empty()
            && (self.block.entries() == BLOCK_ENTRIES_MAX
                || self.block.bytes_with(key, value) > self.options.block_bytes)
        {
            self.end_block(Some(key))?;
        }
        if first || self.last_key != key {
            self.hash = filter::hash(key);
            self.hashes.push(self.hash);
            self.last_key.clear();
            self.last_key.extend_from_slice(key);
        }
        self.last_tag = tag;
        self.entries += 1;
        self.deletes += u64::from(tag.kind() == Kind::Delete);
        self.sequence_max = self.sequence_max.max(tag.sequence());
        self.block.add(key, tag, value, fingerprint(self.hash));
        Ok(())
    }

    /// The file's length so far, roughly.
    pub(crate) fn bytes(&self) -> u64 {
        self.written + (self.pending.len() + self.block.bytes()) as u64
    }

    /// The user key of the last entry.
    pub(crate) fn last_key(&self) -> &[u8] {
        &self.last_key
    }

    /// Makes what was written durable, if it is so much or more.
    pub(crate) fn sync_each(&mut self, bytes: u64) -> Result<()> {
        if self.written - self.synced < bytes {
            return Ok(());
        }
        self.file.sync().map_err(Error::io("sync", &self.path))?;
        self.synced = self.written;
        Ok(())
    }

    /// Writes what is left and makes the file durable; its directory is the caller's to sync.
    pub(crate) fn finish(mut self) -> Result<SegmentMeta> {
        assert!(self.entries > 0, "a segment has at least one entry");
        self.end_block(None)?;
        if self.hashes.len() > 1 && self.options.planted.has(Bug::FilterForgetsKey) {
            self.hashes.pop();
        }
        let (begin, offset) = (self.pending.len(), self.offset());
        filter::build(
            &std::mem::take(&mut self.hashes),
            self.options.filter_bits_per_key,
            offset,
            &mut self.pending,
        );
        let filter = self.seal_block(begin, Compression::None)?;
        let mut meta = SegmentMeta {
            id: self.id,
            bytes: 0,
            entries: self.entries,
            deletes: self.deletes,
            smallest: self.smallest.clone(),
            largest: Bytes::copy_from_slice(&self.last_key),
            sequence_max: self.sequence_max,
        };
        // The length of the file is not known in its middle; there it is stored as zero.
        let begin = self.pending.len();
        meta.encode(&mut self.pending);
        let properties = self.seal_block(begin, Compression::None)?;
        let begin = self.pending.len();
        self.index.finish(&mut self.pending);
        let index = self.seal_block(begin, Compression::None)?;

        let (version, id) = (Version::Two, self.id);
        let footer = Footer { version, id, filter, properties, index }.encode();
        let place = Place { file: self.id, offset: self.offset() };
        self.pending.extend_from_slice(&footer);
        put_u32(&mut self.pending, checksum(place, &footer));
        self.write(self.pending.len())?;
        if !self.options.planted.has(Bug::SegmentNotSynced) {
            self.file.sync().map_err(Error::io("sync", &self.path))?;
        }
        meta.bytes = self.written;
        Ok(meta)
    }

    /// Ends a block that is not empty; the next one begins with this key.
    fn end_block(&mut self, next: Option<&[u8]>) -> Result<()> {
        let begin = self.pending.len();
        let compression = match self.options.compression {
            Compression::None => {
                self.block.finish(&mut self.pending);
                Compression::None
            }
            Compression::Lz4 => {
                self.unpacked.clear();
                self.block.finish(&mut self.unpacked);
                pack(&self.unpacked, &mut self.pending)
            }
        };
        let handle = self.seal_block(begin, compression)?;
        self.index.add(handle.bytes, (&self.last_key, self.last_tag), next);
        Ok(())
    }

    /// Ends the block whose payload begins here in what is pending.
    fn seal_block(&mut self, begin: usize, compression: Compression) -> Result<Handle> {
        let offset = self.written + begin as u64;
        let handle = Handle { offset, bytes: (self.pending.len() - begin) as u32 };
        self.pending.push(BlockKind { version: Version::Two, compression }.stored());
        let checksum = checksum(Place { file: self.id, offset }, &self.pending[begin..]);
        put_u32(&mut self.pending, checksum);
        self.write(self.pending.len() / WRITE_BYTES * WRITE_BYTES)?;
        Ok(handle)
    }

    fn offset(&self) -> u64 {
        self.written + self.pending.len() as u64
    }

    /// Gives so many of the pending bytes to the file.
    fn write(&mut self, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let written = self.file.write_at(&self.pending[..bytes], self.written);
        written.map_err(Error::io("write", &self.path))?;
        self.written += bytes as u64;
        self.pending.drain(..bytes);
        Ok(())
    }
}

/// Appends a payload compressed, unless that saves less than an eighth; and says which.
fn pack(payload: &[u8], to: &mut Vec<u8>) -> Compression {
    let begin = to.len();
    put_u32(to, payload.len() as u32);
    let head_end = to.len();
    to.resize(head_end + get_maximum_output_size(payload.len()), 0);
    // It has as much room as it can need, and would only fail for want of it.
    if let Ok(bytes) = compress_into(payload, &mut to[head_end..]) {
        to.truncate(head_end + bytes);
        if to.len() - begin < payload.len() - payload.len() / 8 {
            return Compression::Lz4;
        }
    }
    to.truncate(begin);
    to.extend_from_slice(payload);
    Compression::None
}
