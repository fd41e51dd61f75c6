//! Merges sorted sources into new segments.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::cursor::Merge;
use crate::error::{Error, Result};
use crate::levels::Levels;
use crate::planted::Bug;
use crate::segment::{BlockCache, Segment, SegmentMeta, SegmentOptions, SegmentWriter, path_of};
use crate::vfs::Vfs;

use super::retention::Retention;

/// So much of a file is written before it is synced. Written all at once at the end, it would stand
/// in the way of the log's own syncs.
const SYNC_BYTES: u64 = 4 << 20;
/// So many entries are merged before others are told, and asked whether to go on.
const ENTRIES_AT_ONCE: u64 = 256;

/// Where and how the result is written.
pub(crate) struct Job<'a> {
    pub(crate) vfs: &'a dyn Vfs,
    /// The directory of segments.
    pub(crate) dir: &'a Path,
    pub(crate) options: SegmentOptions,
    /// For whoever reads the result.
    pub(crate) cache: &'a Arc<BlockCache>,
    /// The result is cut into segments of about this size; `None` for a single one.
    pub(crate) segment_bytes: Option<u64>,
    pub(crate) next_segment: &'a AtomicU64,
    /// The tree, of which the levels from `below` on may hold older versions of the keys; `None` if
    /// others may as well.
    pub(crate) levels: &'a Levels,
    pub(crate) below: Option<usize>,
    /// Entries from this key on are another's.
    pub(crate) end: Option<&'a [u8]>,
    /// Told now and then how many more entries were read; whether the result is still wanted.
    pub(crate) goes_on: &'a dyn Fn(u64) -> bool,
}

/// Segments that are durable, but that no manifest names yet.
#[derive(Default)]
pub(crate) struct Output {
    pub(crate) segments: Vec<Arc<Segment>>,
    /// Entries that were read.
    pub(crate) entries: u64,
}

impl Job<'_> {
    /// Writes what survives of the sources. On failure nothing of it remains. What does not
    /// go on ends early, and its result is of no use.
    ///
    /// No segment ends between two versions of a key: levels promise disjoint ranges of keys.
    pub(crate) fn run(&self, merge: Merge, retention: Retention) -> Result<Output> {
        let mut created = Vec::new();
        let result = self.write(merge, retention, &mut created);
        if result.is_err() {
            for id in created {
                // Should this fail too, the file is removed as an orphan at the next opening.
                let _ = self.vfs.remove(&path_of(self.dir, id));
            }
        }
        result
    }

    fn write(
        &self,
        mut merge: Merge,
        mut retention: Retention,
        created: &mut Vec<u64>,
    ) -> Result<Output> {
        let mut finished = Vec::new();
        let mut writer: Option<SegmentWriter> = None;
        let mut entries = 0;
        while let Some((key, tag)) = merge.current() {
            if self.end.is_some_and(|end| key >= end) {
                break;
            }
            entries += 1;
            if entries % ENTRIES_AT_ONCE == 0 && !(self.goes_on)(ENTRIES_AT_ONCE) {
                break;
            }
            if retention.keeps(key, tag, |key| self.is_oldest(key)) {
                if let Some(full) = writer.take_if(|writer| self.is_full(writer, key)) {
                    finished.push(full.finish()?);
                }
                let writer = match &mut writer {
                    Some(writer) => writer,
                    None => {
                        let id = self.next_segment.fetch_add(1, Relaxed);
                        created.push(id);
                        writer.insert(SegmentWriter::create(self.vfs, self.dir, id, self.options)?)
                    }
                };
                writer.add(key, tag, merge.value_ref())?;
                writer.sync_each(SYNC_BYTES)?;
            }
            merge.step()?;
        }
        if let Some(last) = writer {
            finished.push(last.finish()?);
        }
        let planted = self.options.planted;
        if !finished.is_empty() && !planted.has(Bug::SegmentDirectoryNotSynced) {
            self.vfs.sync_dir(self.dir).map_err(Error::io("sync", self.dir))?;
        }
        let open = |meta: SegmentMeta| {
            Segment::open(self.vfs, self.dir, meta, self.cache, planted).map(Arc::new)
        };
        Ok(Output { segments: finished.into_iter().map(open).collect::<Result<_>>()?, entries })
    }

    fn is_full(&self, writer: &SegmentWriter, key: &[u8]) -> bool {
        self.segment_bytes.is_some_and(|bytes| writer.bytes() >= bytes) && writer.last_key() != key
    }

    fn is_oldest(&self, key: &[u8]) -> bool {
        let too_deep = usize::from(self.options.planted.has(Bug::DropDeletesEarly));
        self.below.is_some_and(|below| !self.levels.spans_from(below + too_deep, key))
    }
}
