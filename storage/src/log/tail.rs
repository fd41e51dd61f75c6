//! Where the last log file ends, and what to make of what comes after.
//!
//! After a crash the end of the last file may be torn: frames that were never synced may be there,
//! be missing, or be there in part, in any mixture. Those from the first bad one on are cut. But a
//! bad frame that *had* been synced is corruption, and cutting it would lose what was acknowledged.
//! The difference shows in the frames behind it: each names the last position that was durable when
//! it was written.
//!
//! ```text
//!   frame 7 ok │ frame 8 bad │ frame 9 "durable before: 7"   8 had not been synced: cut at 8
//!   frame 7 ok │ frame 8 bad │ frame 9 "durable before: 8"   8 had been synced: corrupt, refuse
//! ```
//!
//! What is cut is overwritten with zeros, durably, before anything is written after the cut. A frame
//! that survived behind it would otherwise come back to life once a new frame of the right length
//! stood before it.

use std::collections::VecDeque;
use std::path::Path;

use super::file::FileHeader;
use super::frame::{FIRST_AT, FRAME_HEADER_BYTES, FrameHeader, IDENTITY_AT};
use super::reader::{FrameReader, Step, Window, frame_at, header_at};
use crate::codec::Place;
use crate::error::{Error, Result};
use crate::planted::{Bug, Planted};
use crate::vfs::{Vfs, VfsFile};

/// How much is searched, overwritten or written again at once.
const CHUNK_BYTES: usize = 64 << 10;

static ZEROS: [u8; CHUNK_BYTES] = [0; CHUNK_BYTES];

/// The end of the last log file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// Behind the last frame that counts.
    pub(super) offset: u64,
    /// The position that follows.
    pub(super) next: u64,
    /// Frames from here to `offset` may never have been synced: nothing proves that they were.
    pub(super) unproven: u64,
    /// Whether the last frame is a mark: all before it was durable.
    pub(super) marked: bool,
    /// To here there are remains of a torn write; `offset` if there are none.
    pub(super) remains: u64,
}

/// Reads the last log file to its end. Changes nothing. Fails if it says that another one follows.
pub(super) fn find(vfs: &dyn Vfs, dir: &Path, file: FileHeader, planted: Planted) -> Result<Tail> {
    let mut reader = FrameReader::open(vfs, dir, file, planted)?;
    // The frames that no later one has proven durable, as first position and offset.
    let mut unproven: VecDeque<(u64, u64)> = VecDeque::new();
    let mut marked = false;
    while let Step::Frame { offset, header } = reader.step()? {
        if header.is_seal() {
            let next = super::file::Name::Live(file.number + 1).path(dir);
            return Err(Error::Missing { file: next });
        }
        while unproven.front().is_some_and(|(first, _)| *first <= header.durable_before) {
            unproven.pop_front();
        }
        marked = header.records == 0;
        unproven.push_back((header.first, offset));
    }
    let (offset, next) = (reader.offset(), reader.next_position());
    let remains = remains(&mut reader, file)?;
    Ok(Tail {
        offset,
        next,
        unproven: unproven.front().map_or(offset, |(_, offset)| *offset),
        marked,
        remains,
    })
}

/// How far the remains reach that stand where a reader of the last file found no further frame.
/// Fails if what cannot be read there had been synced.
pub(super) fn remains(reader: &mut FrameReader, file: FileHeader) -> Result<u64> {
    let (offset, next) = (reader.offset(), reader.next_position());
    let window = reader.window();
    let mut remains = Remains::search(window, file, offset)?;
    if begins_frame(window, offset, next)? {
        remains.end = remains.end.max(offset + FRAME_HEADER_BYTES as u64);
    }
    if remains.durable_before >= next {
        let what = format!("the frame of position {next} had been synced and cannot be read");
        return Err(Error::corrupt(window.path(), offset, what));
    }
    Ok(remains.end)
}

/// The next good frame at or behind `from`, as its offset and header: where to go on behind damage.
pub(super) fn search(
    reader: &mut FrameReader,
    file: FileHeader,
    from: u64,
) -> Result<Option<(u64, FrameHeader)>> {
    let window = reader.window();
    let mut offset = from;
    while offset < window.file_bytes() {
        let left = usize::try_from(window.file_bytes() - offset).unwrap_or(usize::MAX);
        let count = left.min(CHUNK_BYTES);
        let Some(chunk) = window.bytes(offset, count)? else { break };
        for candidate in candidates(chunk, file.identity) {
            let at = (offset + candidate as u64).checked_sub(IDENTITY_AT as u64);
            let Some(at) = at.filter(|at| *at >= from) else { continue };
            if let Some(header) = frame_at(window, file, at, Planted::default())? {
                return Ok(Some((at, header)));
            }
        }
        if count == left {
            break;
        }
        offset += (count - size_of::<u64>() + 1) as u64;
    }
    Ok(None)
}

/// Whether a damaged header, with even its file's identity gone, still names the position that was
/// to come. Old bytes in a recycled file hardly ever do.
fn begins_frame(window: &mut Window, offset: u64, next: u64) -> Result<bool> {
    let header = window.bytes(offset, FRAME_HEADER_BYTES)?;
    Ok(header.is_some_and(|header| header[FIRST_AT..].starts_with(&next.to_le_bytes())))
}

/// What was found behind the last good frame.
struct Remains {
    from: u64,
    end: u64,
    /// The greatest that a header there names.
    durable_before: u64,
}

impl Remains {
    fn search(window: &mut Window, file: FileHeader, from: u64) -> Result<Self> {
        let mut remains = Self { from, end: from, durable_before: 0 };
        let mut offset = from;
        while offset < window.file_bytes() {
            let left = usize::try_from(window.file_bytes() - offset).unwrap_or(usize::MAX);
            let count = left.min(CHUNK_BYTES);
            let Some(chunk) = window.bytes(offset, count)? else { break };
            if chunk != &ZEROS[..count] {
                if !file.recycled {
                    let last = chunk.iter().rposition(|byte| *byte != 0).unwrap_or(0);
                    remains.end = remains.end.max(offset + last as u64 + 1);
                }
                for candidate in candidates(chunk, file.identity) {
                    remains.examine(window, file, offset, candidate)?;
                }
            }
            if count == left {
                break;
            }
            // Chunks overlap, so that no identity is cut in two.
            offset += (count - size_of::<u64>() + 1) as u64;
        }
        remains.end = remains.end.min(window.file_bytes());
        Ok(remains)
    }

    /// Looks whether the identity that stands in a chunk stands in a frame's header.
    fn examine(
        &mut self,
        window: &mut Window,
        file: FileHeader,
        chunk: u64,
        candidate: usize,
    ) -> Result<()> {
        let offset = chunk + candidate as u64 - IDENTITY_AT as u64;
        if offset < self.from {
            return Ok(());
        }
        // A header whose checksum is wrong proves nothing, but it is a torn write's, and its place
        // is to be overwritten.
        self.end = self.end.max(offset + FRAME_HEADER_BYTES as u64);
        let place = Place { file: file.identity, offset };
        if let Some(header) = header_at(window, place)? {
            self.end = self.end.max(offset.saturating_add(file.span(header.frame_bytes())));
            self.durable_before = self.durable_before.max(header.durable_before);
        }
        Ok(())
    }
}

/// Where in a chunk the identity stands, whatever it belongs to.
fn candidates(chunk: &[u8], identity: u64) -> Vec<usize> {
    let identity = identity.to_le_bytes();
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(at) = chunk[from..].iter().position(|byte| *byte == identity[0]) {
        if chunk[from + at..].starts_with(&identity) {
            found.push(from + at);
        }
        from += at + 1;
    }
    found
}

impl Tail {
    /// Makes true on the disk what [`find`] has found: cuts the remains, and makes durable what
    /// counts. May be broken off anywhere, and done again.
    pub(super) fn settle(&self, file: &dyn VfsFile, path: &Path, planted: Planted) -> Result<()> {
        self.write_again(file, path)?;
        if !planted.has(Bug::LeaveTornTail) {
            self.cut(file, path)?;
        }
        file.sync().map_err(Error::io("sync", path))
    }

    /// An earlier sync of these frames may have failed and left them in the system's cache only,
    /// where they can be read but count as written. Writing them again makes the next sync honest.
    fn write_again(&self, file: &dyn VfsFile, path: &Path) -> Result<()> {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut offset = self.unproven;
        while offset < self.offset {
            let left = usize::try_from(self.offset - offset).unwrap_or(usize::MAX);
            let chunk = &mut buffer[..left.min(CHUNK_BYTES)];
            let count = file.read_at(chunk, offset).map_err(Error::io("read", path))?;
            if count < chunk.len() {
                return Err(Error::corrupt(path, offset, "the file has become shorter"));
            }
            file.write_at(chunk, offset).map_err(Error::io("write", path))?;
            offset += count as u64;
        }
        Ok(())
    }

    fn cut(&self, file: &dyn VfsFile, path: &Path) -> Result<()> {
        let mut offset = self.offset;
        while offset < self.remains {
            let left = usize::try_from(self.remains - offset).unwrap_or(usize::MAX);
            let count = left.min(CHUNK_BYTES);
            file.write_at(&ZEROS[..count], offset).map_err(Error::io("cut the end of", path))?;
            offset += count as u64;
        }
        Ok(())
    }
}
