//! Writes a segment from entries that come in order.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::block::BlockBuilder;
use super::{Compression, Footer, Handle, SegmentMeta, filter, path_of};
use crate::codec::{Place, checksum, put_u32};
use crate::error::{Error, Result};
use crate::key::{Kind, Tag, compare};
use crate::planted::{Bug, Planted};
use crate::vfs::{OpenMode, Vfs, VfsFile};

/// Entries between restarts. In the index every key is one, so that it is searched in place.
const RESTART_INTERVAL: usize = 16;
/// Writes go to the file in pieces of at least this size.
const WRITE_BYTES: usize = 1 << 20;

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
    index: BlockBuilder,
    hashes: Vec<u64>,
    entries: u64,
    deletes: u64,
    sequence_max: u64,
    smallest: Bytes,
    last_key: Vec<u8>,
    last_tag: Tag,
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
            block: BlockBuilder::new(RESTART_INTERVAL),
            index: BlockBuilder::new(1),
            hashes: Vec::new(),
            entries: 0,
            deletes: 0,
            sequence_max: 0,
            smallest: Bytes::new(),
            last_key: Vec::new(),
            last_tag: Tag::NEWEST,
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
        if first || self.last_key != key {
            self.hashes.push(filter::hash(key));
            self.last_key.clear();
            self.last_key.extend_from_slice(key);
        }
        self.last_tag = tag;
        self.entries += 1;
        self.deletes += u64::from(tag.kind() == Kind::Delete);
        self.sequence_max = self.sequence_max.max(tag.sequence());
        self.block.add(key, tag, value);
        if self.block.bytes() >= self.options.block_bytes { self.end_block() } else { Ok(()) }
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
        if !self.block.is_empty() {
            self.end_block()?;
        }
        if self.hashes.len() > 1 && self.options.planted.has(Bug::FilterForgetsKey) {
            self.hashes.pop();
        }
        let filter = filter::build(&self.hashes, self.options.filter_bits_per_key);
        let filter = self.put_block(filter, Compression::None)?;
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
        let mut properties = Vec::new();
        meta.encode(&mut properties);
        let properties = self.put_block(properties, Compression::None)?;
        let index = self.index.finish();
        let index = self.put_block(index, Compression::None)?;

        let footer = Footer { id: self.id, filter, properties, index }.encode();
        let place = Place { file: self.id, offset: self.offset() };
        self.pending.extend_from_slice(&footer);
        put_u32(&mut self.pending, checksum(place, &footer));
        self.write_pending()?;
        if !self.options.planted.has(Bug::SegmentNotSynced) {
            self.file.sync().map_err(Error::io("sync", &self.path))?;
        }
        meta.bytes = self.written;
        Ok(meta)
    }

    fn end_block(&mut self) -> Result<()> {
        let payload = self.block.finish();
        let handle = self.put_block(payload, self.options.compression)?;
        let mut value = Vec::new();
        handle.encode(&mut value);
        self.index.add(&self.last_key, self.last_tag, &value);
        Ok(())
    }

    fn put_block(&mut self, payload: Vec<u8>, compression: Compression) -> Result<Handle> {
        let (payload, compression) = compress(payload, compression);
        let place = Place { file: self.id, offset: self.offset() };
        let handle = Handle { offset: place.offset, bytes: payload.len() as u32 };
        let begin = self.pending.len();
        self.pending.extend_from_slice(&payload);
        self.pending.push(compression.stored());
        let checksum = checksum(place, &self.pending[begin..]);
        put_u32(&mut self.pending, checksum);
        if self.pending.len() >= WRITE_BYTES {
            self.write_pending()?
        }
        Ok(handle)
    }

    fn offset(&self) -> u64 {
        self.written + self.pending.len() as u64
    }

    fn write_pending(&mut self) -> Result<()> {
        let written = self.file.write_at(&self.pending, self.written);
        written.map_err(Error::io("write", &self.path))?;
        self.written += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }
}

/// As wanted, unless that saves less than an eighth.
fn compress(payload: Vec<u8>, wanted: Compression) -> (Vec<u8>, Compression) {
    match wanted {
        Compression::None => (payload, Compression::None),
        Compression::Lz4 => {
            let packed = lz4_flex::compress_prepend_size(&payload);
            if packed.len() < payload.len() - payload.len() / 8 {
                (packed, Compression::Lz4)
            } else {
                (payload, Compression::None)
            }
        }
    }
}
