//! How much there is of what.

use bytes::Bytes;

use super::{Directory, Layout, Overlay, list_if_there, map_segment};
use crate::error::{Error, Result};
use crate::levels::LEVELS;
use crate::log::{LogExtent, Position};
use crate::segment::{LostKeys, path_of, read_meta};
use crate::vfs::OpenMode;

/// What a directory holds.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Files, empty ones included.
    pub files: u64,
    /// Their lengths, space reserved for the log included.
    pub bytes: u64,
    /// The manifest's number; none if there is no manifest that can be read.
    pub generation: Option<u64>,
    /// Every batch up to this mark is in segments.
    pub flushed_mark: u64,
    /// The segments rest on log records up to here.
    pub flushed_position: Position,
    /// The levels in use, from level 0 down. Without a manifest all segments count as level 0.
    pub levels: Vec<LevelSummary>,
    /// What is staged and sealed, and waits to be installed.
    pub staged: Option<StagedSummary>,
    /// How far the log goes.
    pub log: LogExtent,
    /// Live rows, those included that only the log has.
    pub keys: u64,
    /// Bytes of their keys and values.
    pub row_bytes: u64,
    /// What could not be counted.
    pub lost: Vec<LostKeys>,
}

/// A level of the tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelSummary {
    /// How many segments.
    pub segments: u64,
    /// Their files together.
    pub bytes: u64,
    /// Their entries, versions and deletes included.
    pub entries: u64,
    /// Those that are deletes.
    pub deletes: u64,
}

/// Rows that wait to take the place of all others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StagedSummary {
    /// The mark that they are the state at.
    pub mark: u64,
    /// How many segments.
    pub segments: u64,
    /// Their files together.
    pub bytes: u64,
    /// Rows in them.
    pub rows: u64,
}

/// A segment as the manifest has it, or without a manifest the segment itself.
#[derive(Clone, Debug)]
pub struct SegmentSummary {
    /// Its number.
    pub id: u64,
    /// Its level; none if no manifest says, or if it is staged.
    pub level: Option<usize>,
    /// Whether it waits to be installed.
    pub staged: bool,
    /// Length of its file.
    pub bytes: u64,
    /// Entries, versions and deletes included.
    pub entries: u64,
    /// Those that are deletes.
    pub deletes: u64,
    /// The newest entry's number.
    pub sequence_max: u64,
    /// The smallest key.
    pub smallest: Bytes,
    /// The largest key.
    pub largest: Bytes,
}

impl Summary {
    /// Bytes of segments for each byte of live rows; none without rows.
    #[must_use]
    pub fn space_amplification(&self) -> Option<f64> {
        let bytes = sum(self.levels.iter().map(|level| level.bytes));
        (self.row_bytes > 0 && bytes > 0).then(|| bytes as f64 / self.row_bytes as f64)
    }
}

impl Directory {
    /// The manifest's own numbers by name, if it can be read.
    #[must_use]
    pub fn manifest_summary(&self) -> Option<Vec<(&'static str, u64)>> {
        let manifest = self.manifest()?;
        let mut numbers = vec![
            ("generation", manifest.generation),
            ("next segment", manifest.next_segment),
            ("flushed mark", manifest.flushed_mark),
            ("flushed position", manifest.flushed_position.0),
            ("last sequence", manifest.last_sequence),
            ("segments", manifest.segments.len() as u64),
        ];
        if let Some(staged) = &manifest.staged {
            numbers.push(("staged mark", staged.mark));
            numbers.push(("staged segments", staged.segments.len() as u64));
        }
        Some(numbers)
    }

    /// The segments, staged ones last, and why those that cannot be read cannot be.
    pub fn segments(&self) -> Result<Vec<Result<SegmentSummary>>> {
        let mut found = Vec::new();
        let staged = self.staged().into_iter().flat_map(|staged| &staged.segments);
        let staged = staged.map(|meta| (None, meta.id, Some(meta.clone()), true));
        let tree = self.tree().into_iter().map(|(level, id, meta)| (level, id, meta, false));
        for (level, id, meta, staged) in tree.chain(staged) {
            let read = || {
                let path = path_of(&self.segments_dir(), id);
                read_meta(&path, id, &map_segment(self, id)?)
            };
            let meta = match meta.map_or_else(read, Ok) {
                Ok(meta) => meta,
                Err(error @ (Error::Corrupt { .. } | Error::Missing { .. })) => {
                    found.push(Err(error));
                    continue;
                }
                Err(error) => return Err(error),
            };
            found.push(Ok(SegmentSummary {
                id,
                level,
                staged,
                bytes: meta.bytes,
                entries: meta.entries,
                deletes: meta.deletes,
                sequence_max: meta.sequence_max,
                smallest: meta.smallest,
                largest: meta.largest,
            }));
        }
        Ok(found)
    }

    /// Counts everything. `overlay` is what the log says beyond the segments, and `log` how far it
    /// goes, from whoever has read it.
    pub fn summary(&self, overlay: &Overlay, log: LogExtent) -> Result<Summary> {
        let mut summary = Summary { log, ..Summary::default() };
        if let Some(manifest) = self.manifest() {
            summary.generation = Some(manifest.generation);
            summary.flushed_mark = manifest.flushed_mark;
            summary.flushed_position = manifest.flushed_position;
        }
        summary.staged = self.staged().map(|staged| StagedSummary {
            mark: staged.mark,
            segments: staged.segments.len() as u64,
            bytes: sum(staged.segments.iter().map(|segment| segment.bytes)),
            rows: sum(staged.segments.iter().map(|segment| segment.entries)),
        });
        self.count_files(&mut summary)?;
        if self.layout() == Layout::Log {
            return Ok(summary);
        }
        let mut levels = [LevelSummary::default(); LEVELS];
        for segment in self.segments()?.into_iter().flatten() {
            if segment.staged {
                continue;
            }
            let level = &mut levels[segment.level.unwrap_or(0)];
            level.segments += 1;
            level.bytes = level.bytes.saturating_add(segment.bytes);
            level.entries = level.entries.saturating_add(segment.entries);
            level.deletes = level.deletes.saturating_add(segment.deletes);
        }
        let used = levels.iter().rposition(|level| level.segments > 0).map_or(0, |last| last + 1);
        summary.levels = levels[..used].to_vec();
        let mut rows = self.rows(overlay, b"")?;
        while let Some((key, value)) = rows.next()? {
            summary.keys += 1;
            summary.row_bytes += (key.len() + value.len()) as u64;
            summary.lost.append(&mut rows.take_lost());
        }
        summary.lost.append(&mut rows.take_lost());
        Ok(summary)
    }

    fn count_files(&self, summary: &mut Summary) -> Result<()> {
        let mut dirs = vec![self.path().to_path_buf()];
        if self.layout() == Layout::Store {
            dirs.extend([self.segments_dir(), self.log_dir()]);
        }
        for dir in &dirs {
            for name in list_if_there(&**self.vfs(), dir)? {
                let path = dir.join(&name);
                if dirs.contains(&path) {
                    continue;
                }
                // What cannot be opened is no file of ours, such as a directory.
                let Ok(file) = self.vfs().open(&path, OpenMode::Read) else { continue };
                summary.files += 1;
                let len = file.len().map_err(Error::io("read the length of", &path))?;
                summary.bytes = summary.bytes.saturating_add(len);
            }
        }
        Ok(())
    }
}

/// What a manifest says of lengths nobody has checked here, and the sum of two may be more than a
/// number holds.
fn sum(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}
