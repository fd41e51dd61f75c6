//! Hands back the records of a log, oldest first.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::Position;
use super::file::{FileHeader, Name};
use super::frame::Records;
use super::options::LogOptions;
use super::reader::{FrameReader, Step};
use crate::codec::Malformed;
use crate::error::{Error, Result};
use crate::vfs::{OpenMode, Vfs};

/// The records that a log held when it was opened, oldest first, a frame at a time in memory.
///
/// Opening a log has checked its last file, but the others are checked as they are read: what was
/// replayed may be relied on only when [`Replay::next`] has come to its end without an error.
/// The log may be appended to meanwhile, but not truncated beyond what has been read.
pub struct Replay {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    options: LogOptions,
    files: VecDeque<FileHeader>,
    /// Where the last file ends, and the position that follows.
    end: (u64, u64),
    reader: Option<FrameReader>,
    /// Where the frame stands that `records` come from.
    frame_at: u64,
    records: Records,
    report: RecoveryReport,
}

/// A record as it was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayedRecord {
    /// Its place in the log.
    pub position: Position,
    /// What the owner called it.
    pub kind: u8,
    /// What the owner put in.
    pub payload: Bytes,
}

/// What opening a log found, and what replaying it has read so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// How many files the log has.
    pub files: usize,
    /// How many records have been read.
    pub records: u64,
    /// How many bytes of frames have been read.
    pub bytes: u64,
    /// What was cut off the end: a write that a crash had torn, and that nobody was told had
    /// succeeded.
    pub torn: Option<TornTail>,
}

/// The remains of a torn write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The log's last file.
    pub file: PathBuf,
    /// Where the remains began.
    pub offset: u64,
    /// How far they reached.
    pub bytes: u64,
}

impl Replay {
    pub(super) fn new(
        vfs: Arc<dyn Vfs>,
        dir: PathBuf,
        options: LogOptions,
        files: VecDeque<FileHeader>,
        end: (u64, u64),
        torn: Option<TornTail>,
    ) -> Self {
        let report = RecoveryReport { files: files.len(), torn, ..RecoveryReport::default() };
        Self {
            vfs,
            dir,
            options,
            files,
            end,
            reader: None,
            frame_at: 0,
            records: Records::default(),
            report,
        }
    }

    /// The next record; none after the last.
    #[expect(clippy::should_implement_trait, reason = "it can fail, and then must not go on")]
    pub fn next(&mut self) -> Result<Option<ReplayedRecord>> {
        loop {
            if let Some((position, kind, payload)) = self.next_of_frame()? {
                self.report.records += 1;
                return Ok(Some(ReplayedRecord { position: Position(position), kind, payload }));
            }
            if !self.next_frame()? {
                return Ok(None);
            }
        }
    }

    /// What opening found and replaying has read so far.
    #[must_use]
    pub fn report(&self) -> &RecoveryReport {
        &self.report
    }

    fn next_of_frame(&mut self) -> Result<Option<(u64, u8, Bytes)>> {
        let read = self.records.next();
        match &self.reader {
            Some(reader) => read.map_err(Malformed::at(reader.path(), self.frame_at)),
            None => Ok(None),
        }
    }

    /// Has the system read the file that comes next while this one is worked on: what was written
    /// past its cache is not in memory.
    fn announce_next(&self) {
        let Some(next) = self.files.front() else { return };
        // If it cannot be opened, that is told when it is needed.
        if let Ok(file) = self.vfs.open(&Name::Live(next.number).path(&self.dir), OpenMode::Read) {
            file.will_need();
        }
    }

    /// Goes to the next frame, and answers whether there is one.
    fn next_frame(&mut self) -> Result<bool> {
        loop {
            if let Some(reader) = &mut self.reader {
                if at_end(reader, self.files.front(), self.end)? {
                    self.reader = None;
                    continue;
                }
                let Step::Frame { offset, header } = reader.step()? else {
                    let what = format!("no frame of position {}", reader.next_position());
                    return Err(Error::corrupt(reader.path(), reader.offset(), what));
                };
                let payload = Bytes::copy_from_slice(reader.payload(offset, header)?);
                self.frame_at = offset;
                self.records = Records::new(header, payload);
                self.report.bytes += header.frame_bytes();
                return Ok(true);
            }
            let Some(file) = self.files.pop_front() else { return Ok(false) };
            self.announce_next();
            self.reader =
                Some(FrameReader::open(&*self.vfs, &self.dir, file, self.options.planted)?);
        }
    }
}

/// Whether the reader has read all that counts of its file: up to where opening found the end of
/// the last one, and to the first position of the next file in the others.
fn at_end(reader: &FrameReader, next: Option<&FileHeader>, end: (u64, u64)) -> Result<bool> {
    let Some(next) = next else {
        return Ok((reader.offset(), reader.next_position()) == end);
    };
    if reader.next_position() > next.first {
        let name = Name::Live(next.number);
        let what = format!("holds records that {name} holds too");
        return Err(Error::corrupt(reader.path(), reader.offset(), what));
    }
    Ok(reader.next_position() == next.first)
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay").field("report", &self.report).finish_non_exhaustive()
    }
}
