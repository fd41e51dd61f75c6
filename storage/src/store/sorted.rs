//! Rows that come sorted, on their way to segments: what staging and ingesting have in common.

use std::sync::atomic::Ordering::Relaxed;

use super::Inner;
use crate::batch::check_length;
use crate::error::{Error, Result};
use crate::key::{KEY_BYTES_MAX, Kind, Sequence, Tag, VALUE_BYTES_MAX};
use crate::levels::LEVELS;
use crate::planted::Bug;
use crate::segment::{SegmentMeta, SegmentWriter, path_of};

/// So much of a file is written before it is synced. Who hands the rows over waits for that: tens of
/// milliseconds at a time on a slow disk, where a whole file would take most of a second.
const SYNC_BYTES: u64 = 4 << 20;

/// Rows of one sequence. They go to segment files as they come: memory holds a piece of one file.
pub(super) struct SortedRows {
    sequence: Sequence,
    writer: Option<SegmentWriter>,
    /// Whole and synced, but for the directory.
    finished: Vec<SegmentMeta>,
    /// Of every file that was made for them.
    ids: Vec<u64>,
}

impl SortedRows {
    pub(super) fn new(sequence: Sequence) -> SortedRows {
        SortedRows { sequence, writer: None, finished: Vec::new(), ids: Vec::new() }
    }

    pub(super) fn sequence(&self) -> Sequence {
        self.sequence
    }

    pub(super) fn last_key(&self) -> Option<&[u8]> {
        let last = self.finished.last().map(|segment| segment.largest.as_ref());
        self.writer.as_ref().map(SegmentWriter::last_key).or(last)
    }

    /// Of every file that was made.
    pub(super) fn into_ids(self) -> Vec<u64> {
        self.ids
    }

    /// Adds a row, which comes after all others. Answers with what the files have grown by, roughly.
    pub(super) fn add(
        &mut self,
        store: &Inner,
        key: &[u8],
        kind: Kind,
        value: &[u8],
    ) -> Result<u64> {
        let is_full = |writer: &mut SegmentWriter| writer.bytes() >= store.options.segment_bytes;
        if let Some(full) = self.writer.take_if(is_full) {
            self.finished.push(full.finish()?);
        }
        let writer = match &mut self.writer {
            Some(writer) => writer,
            None => {
                let id = store.next_segment.fetch_add(1, Relaxed);
                self.ids.push(id);
                // They go as deep as there is room.
                let options = store.options.segment(LEVELS - 1);
                let dir = &store.segments_dir;
                self.writer.insert(SegmentWriter::create(&*store.vfs, dir, id, options)?)
            }
        };
        let before = writer.bytes();
        writer.add(key, Tag::new(self.sequence, kind), value)?;
        writer.sync_each(SYNC_BYTES)?;
        Ok(writer.bytes().saturating_sub(before))
    }

    /// Writes what is left, and makes the files durable. No manifest names them yet.
    pub(super) fn finish(&mut self, store: &Inner) -> Result<Vec<SegmentMeta>> {
        if let Some(last) = self.writer.take() {
            self.finished.push(last.finish()?);
        }
        let planted = store.options.planted;
        if !self.finished.is_empty() && !planted.has(Bug::SegmentDirectoryNotSynced) {
            let dir = &store.segments_dir;
            store.vfs.sync_dir(dir).map_err(Error::io("sync", dir))?;
        }
        Ok(std::mem::take(&mut self.finished))
    }
}

/// Whether a row can be stored behind the last one. `what` says what is done to it.
pub(super) fn check_row(what: &str, last: Option<&[u8]>, key: &[u8], value: &[u8]) -> Result<()> {
    check_length("key", key.len(), KEY_BYTES_MAX)?;
    check_length("value", value.len(), VALUE_BYTES_MAX)?;
    let Some(last) = last.filter(|last| *last >= key) else { return Ok(()) };
    Err(Error::invalid(format!(
        "{what} keys must rise, and \"{}\" does not come after \"{}\"",
        key.escape_ascii(),
        last.escape_ascii(),
    )))
}

impl Inner {
    /// Removes files that no manifest names. At once, since the room may be needed for what comes
    /// next. One that cannot be removed is an orphan, and goes at the next opening.
    pub(super) fn remove_unnamed(&self, ids: &[u64]) {
        for id in ids {
            let _ = self.vfs.remove(&path_of(&self.segments_dir, *id));
        }
    }
}
