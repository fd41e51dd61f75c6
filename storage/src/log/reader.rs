//! Reads a log file frame by frame, believing nothing.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file::{FileHeader, Name};
use super::frame::{FRAME_HEADER_BYTES, FrameHeader};
use crate::codec::{self, Place};
use crate::error::{Error, Result};
use crate::planted::{Bug, Planted};
use crate::vfs::{OpenMode, Vfs, VfsFile};

/// How much is read at once.
const WINDOW_BYTES: usize = 256 << 10;

/// A file, seen through a window of bytes that moves with what is asked for.
pub(super) struct Window {
    path: PathBuf,
    file: Arc<dyn VfsFile>,
    file_bytes: u64,
    start: u64,
    buffer: Vec<u8>,
}

impl Window {
    pub(super) fn open(vfs: &dyn Vfs, path: PathBuf) -> Result<Self> {
        let file = vfs.open(&path, OpenMode::Read).map_err(Error::io("open", &path))?;
        let file_bytes = file.len().map_err(Error::io("read the length of", &path))?;
        Ok(Self { path, file, file_bytes, start: 0, buffer: Vec::new() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// `count` bytes at `offset`; none if the file ends before.
    pub(super) fn bytes(&mut self, offset: u64, count: usize) -> Result<Option<&[u8]>> {
        match offset.checked_add(count as u64) {
            Some(end) if end <= self.file_bytes => {}
            _ => return Ok(None),
        }
        if !self.holds(offset, count) {
            self.fill(offset, count)?;
        }
        if !self.holds(offset, count) {
            // The file has become shorter since it was opened.
            return Ok(None);
        }
        let range = self.range(offset, count);
        Ok(Some(&self.buffer[range]))
    }

    fn holds(&self, offset: u64, count: usize) -> bool {
        offset >= self.start && offset + count as u64 <= self.start + self.buffer.len() as u64
    }

    /// Only for bytes that the window holds.
    fn range(&self, offset: u64, count: usize) -> Range<usize> {
        let from = usize::try_from(offset - self.start).expect("an offset inside a buffer");
        from..from + count
    }

    fn fill(&mut self, offset: u64, count: usize) -> Result<()> {
        let left = usize::try_from(self.file_bytes - offset).unwrap_or(usize::MAX);
        self.buffer.resize(count.max(WINDOW_BYTES).min(left), 0);
        let filled = self.file.read_at(&mut self.buffer, offset);
        let filled = filled.map_err(Error::io("read", &self.path))?;
        self.buffer.truncate(filled);
        self.start = offset;
        Ok(())
    }
}

/// What stands where a frame may begin.
pub(super) enum Step {
    /// A frame whose checksums are right.
    Frame { offset: u64, header: FrameHeader },
    /// No such frame. Whether that is the end, a torn write or corruption is for others to say.
    Nothing,
}

/// Goes through the frames of one file, in order.
pub(super) struct FrameReader {
    window: Window,
    file: FileHeader,
    offset: u64,
    next: u64,
    planted: Planted,
}

impl FrameReader {
    pub(super) fn open(
        vfs: &dyn Vfs,
        dir: &Path,
        header: FileHeader,
        planted: Planted,
    ) -> Result<Self> {
        let window = Window::open(vfs, Name::Live(header.number).path(dir))?;
        Ok(Self { window, file: header, offset: header.frames_at(), next: header.first, planted })
    }

    /// Where the next frame would stand.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The position that its first record would have.
    pub(super) fn next_position(&self) -> u64 {
        self.next
    }

    pub(super) fn path(&self) -> &Path {
        self.window.path()
    }

    pub(super) fn window(&mut self) -> &mut Window {
        &mut self.window
    }

    /// Goes on with the frame at `offset`, whatever stood before it.
    pub(super) fn resume(&mut self, offset: u64, next: u64) {
        self.offset = offset;
        self.next = next;
    }

    /// Reads the next frame. A frame that is whole but does not continue the one before was never
    /// written like that: it is corrupt.
    pub(super) fn step(&mut self) -> Result<Step> {
        let Some(header) = frame_at(&mut self.window, self.file, self.offset, self.planted)? else {
            return Ok(Step::Nothing);
        };
        if header.first != self.next || header.durable_before >= header.first {
            let what = format!("a frame of position {} instead of {}", header.first, self.next);
            return Err(Error::corrupt(self.path(), self.offset, what));
        }
        let offset = self.offset;
        self.offset += self.file.span(header.frame_bytes());
        self.next = header.next();
        Ok(Step::Frame { offset, header })
    }

    /// The payload of a frame that [`FrameReader::step`] has just answered.
    pub(super) fn payload(&mut self, offset: u64, header: FrameHeader) -> Result<&[u8]> {
        let payload_at = offset + FRAME_HEADER_BYTES as u64;
        match self.window.bytes(payload_at, header.payload_bytes as usize) {
            Ok(Some(payload)) => Ok(payload),
            Ok(None) => unreachable!("the window holds what step has just checked"),
            Err(error) => Err(error),
        }
    }
}

/// The header of the frame that stands at an offset of a file, if it is good, payload, zeros behind
/// it and all. The window then holds the payload.
pub(super) fn frame_at(
    window: &mut Window,
    file: FileHeader,
    offset: u64,
    planted: Planted,
) -> Result<Option<FrameHeader>> {
    let place = Place { file: file.identity, offset };
    let Some(header) = header_at(window, place)? else { return Ok(None) };
    let payload_at = offset + FRAME_HEADER_BYTES as u64;
    // A u32 fits, and so does an alignment more.
    let payload_bytes = header.payload_bytes as usize;
    let zeros = file.span(header.frame_bytes()) - header.frame_bytes();
    let behind = window.bytes(payload_at, payload_bytes + zeros as usize)?;
    let good = behind.is_some_and(|behind| {
        let (payload, zeros) = behind.split_at(payload_bytes);
        let matches = codec::checksum(place, payload) == header.payload_checksum;
        matches && zeros.iter().all(|byte| *byte == 0) || planted.has(Bug::TakeTornTail)
    });
    Ok(good.then_some(header))
}

/// The frame header at a place, if a valid one stands there.
pub(super) fn header_at(window: &mut Window, place: Place) -> Result<Option<FrameHeader>> {
    let bytes = window.bytes(place.offset, FRAME_HEADER_BYTES)?;
    let header = bytes.and_then(|bytes| bytes.first_chunk());
    Ok(header.and_then(|header| FrameHeader::decode(header, place)))
}
