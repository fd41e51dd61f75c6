//! What a log may be told, and what it tells of itself.

use super::file::{ALIGNMENT_MAX, FILE_HEADER_BYTES};
use super::frame::FRAME_HEADER_BYTES;
use crate::error::{Error, Result};
use crate::planted::Planted;

/// The largest [`LogOptions::record_bytes_max`]: lengths of frames are 32 bits wide.
const RECORD_BYTES_LIMIT: usize = 1 << 30;

/// The largest [`LogOptions::file_bytes`].
const FILE_BYTES_LIMIT: u64 = 1 << 40;

/// How a log is to be kept. May change from one opening to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// The size of a log file. Space for it is reserved when it is made.
    pub file_bytes: u64,
    /// So many files that are no longer needed are kept to be used again: their space is sure, and
    /// on most file systems syncing is faster where something had been written before.
    pub recycle_files_max: usize,
    /// The largest record.
    pub record_bytes_max: usize,
    /// The most that may wait to be written; above it [`Error::Overloaded`] refuses more.
    pub pending_bytes_max: usize,
    /// Goes into every checksum of the files that are made from now on. A number that clients
    /// cannot guess keeps them from planting bytes that look like a frame.
    pub salt: u64,
    /// A bug on purpose.
    pub planted: Planted,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            file_bytes: 16 << 20,
            recycle_files_max: 8,
            record_bytes_max: 64 << 20,
            pending_bytes_max: 256 << 20,
            salt: 0,
            planted: Planted::default(),
        }
    }
}

impl LogOptions {
    pub(super) fn validate(&self) -> Result<()> {
        let file_bytes_min = (FILE_HEADER_BYTES + FRAME_HEADER_BYTES) as u64;
        if !(file_bytes_min..=FILE_BYTES_LIMIT).contains(&self.file_bytes) {
            return Err(Error::invalid(format!(
                "log files of {} bytes: must be from {file_bytes_min} to {FILE_BYTES_LIMIT}",
                self.file_bytes
            )));
        }
        if !(1..=RECORD_BYTES_LIMIT).contains(&self.record_bytes_max) {
            return Err(Error::invalid(format!(
                "log records of up to {} bytes: must be from 1 to {RECORD_BYTES_LIMIT}",
                self.record_bytes_max
            )));
        }
        if self.pending_bytes_max < self.record_bytes_max {
            return Err(Error::invalid(format!(
                "{} bytes may wait for the log, which is less than one record of {}",
                self.pending_bytes_max, self.record_bytes_max
            )));
        }
        Ok(())
    }

    /// Whether a file of that many bytes is worth keeping. The alignment of frames can have made it
    /// a little longer than was asked for.
    pub(super) fn recycles(&self, file_bytes: u64) -> bool {
        (self.file_bytes..self.file_bytes + ALIGNMENT_MAX as u64).contains(&file_bytes)
    }
}

/// What a log has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Records appended.
    pub appends: u64,
    /// Frames written; each holds the records of one group.
    pub frames: u64,
    /// Syncs of log files.
    pub syncs: u64,
    /// Bytes of frames written.
    pub bytes: u64,
    /// Files begun.
    pub files_made: u64,
    /// Those of them that had been log files before.
    pub files_recycled: u64,
}
