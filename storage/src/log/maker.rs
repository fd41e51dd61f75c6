//! Makes log files, out of nothing or out of former ones.
//!
//! A file gets its name last, when its header is durable. Its room is reserved at once, but zeros
//! are written into it piece by piece, ahead of the frames: where something had been written before,
//! a sync has only the frames to make durable, and not the map of the file as well. Only the first
//! piece is written here, so that no one waits for more. A file that is used again needs none.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::buffer::Buffer;
use super::file::{FILE_HEADER_BYTES, FileHeader, Name};
use super::files::Files;
use super::frame::FRAME_HEADER_BYTES;
use super::options::LogOptions;
use crate::error::{Error, Result};
use crate::planted::Bug;
use crate::vfs::{OpenMode, Vfs, VfsDirect, VfsFile};

/// So much of a file is filled with zeros at once. Those who come meanwhile wait for it.
pub(super) const ZEROS_BYTES: usize = 256 << 10;

/// A write that did not succeed.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing that counts was touched: the same may be tried again later.
    Refused(Error),
    /// Nobody knows what is on the disk now. Nothing may be written any more.
    Broken(Error),
}

impl Failure {
    /// A full disk says clearly that the bytes did not get there, and may have room again later.
    pub(super) fn unless_full(error: Error) -> Self {
        match error {
            Error::DiskFull { .. } => Self::Refused(error),
            error => Self::Broken(error),
        }
    }

    /// The error, for whoever tries once only.
    pub(super) fn into_error(self) -> Error {
        let (Self::Refused(error) | Self::Broken(error)) = self;
        error
    }
}

/// The last log file, open for writing.
pub(super) struct OpenFile {
    pub(super) header: FileHeader,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn VfsFile>,
    /// For writes past the system's cache, if frames are aligned for that.
    pub(super) direct: Option<Arc<dyn VfsDirect>>,
    /// To here space is reserved.
    pub(super) capacity: u64,
    /// To here zeros were written, or something else before.
    pub(super) zeros_to: u64,
}

impl fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl OpenFile {
    /// A file that was there before.
    pub(super) fn resume(vfs: &dyn Vfs, dir: &Path, header: FileHeader) -> Result<Self> {
        let path = Name::Live(header.number).path(dir);
        let file = vfs.open(&path, OpenMode::ReadWrite).map_err(Error::io("open", &path))?;
        let direct = vfs.open_direct(&path).map_err(Error::io("open", &path))?;
        let fits = |direct: &Arc<dyn VfsDirect>| {
            header.alignment > 0 && header.alignment.is_multiple_of(direct.alignment() as u64)
        };
        let length = file.len().map_err(Error::io("read the length of", &path))?;
        let capacity = if header.alignment == 0 { length } else { header.capacity };
        let zeros_to = if header.recycled { capacity } else { 0 };
        Ok(Self { header, path, file, direct: direct.filter(fits), capacity, zeros_to })
    }

    /// Frames leave so much room at the end: for a mark, and for the seal.
    pub(super) fn reserve_bytes(&self) -> u64 {
        2 * self.header.span(FRAME_HEADER_BYTES as u64)
    }
}

/// Makes the file of a log that has this number and whose first record has this position.
pub(super) struct Maker<'a> {
    pub(super) vfs: &'a dyn Vfs,
    pub(super) dir: &'a Path,
    pub(super) options: &'a LogOptions,
    pub(super) number: u64,
    pub(super) first: u64,
    /// The size of the first frame.
    pub(super) frame_bytes: u64,
}

impl Maker<'_> {
    /// Out of a former log file if there is one, or out of nothing.
    pub(super) fn make_or_recycle(&self, files: &Mutex<Files>) -> Result<OpenFile, Failure> {
        // Not in the `if let`, which would hold the lock while the disk works.
        let free = lock(files).take_free();
        if let Some(path) = free {
            match self.recycle(&path) {
                Ok(Some(made)) => return Ok(made),
                Ok(None) | Err(Failure::Refused(_)) => lock(files).put_free(path),
                Err(broken) => return Err(broken),
            }
        }
        self.make()
    }

    /// Out of nothing.
    pub(super) fn make(&self) -> Result<OpenFile, Failure> {
        let path = Name::New(self.number).path(self.dir);
        // What an earlier attempt left; usually there is none.
        let _ = self.vfs.remove(&path);
        let file = self.vfs.open(&path, OpenMode::Create).map_err(Error::io("create", &path));
        let made = self.fill(file.map_err(Failure::Refused)?, &path);
        if made.is_err() {
            // Gives back what little room the attempt took; the next one tries to as well.
            let _ = self.vfs.remove(&path);
        }
        made
    }

    fn fill(&self, file: Arc<dyn VfsFile>, path: &Path) -> Result<OpenFile, Failure> {
        let (header, direct) = self.header(path)?;
        let frames = header.span(FILE_HEADER_BYTES as u64) + header.span(self.frame_bytes);
        let needed = frames + 2 * header.span(FRAME_HEADER_BYTES as u64);
        let capacity = header.span(self.options.file_bytes.max(needed));
        let allocated = file.allocate(capacity).map_err(Error::io("reserve space for", path));
        allocated.map_err(Failure::Refused)?;
        let header = FileHeader { capacity, ..header };
        let zeros_to = match &direct {
            Some(direct) => {
                let written = write_zeros(&**direct, path, 0, capacity);
                written.map_err(Failure::unless_full)?
            }
            None => 0,
        };
        let path = path.to_path_buf();
        self.finish(OpenFile { header, path, file, direct, capacity, zeros_to })
    }

    /// Out of a former log file, if it is large enough.
    fn recycle(&self, free: &Path) -> Result<Option<OpenFile>, Failure> {
        let file = self.vfs.open(free, OpenMode::ReadWrite).map_err(Error::io("open", free));
        let file = file.map_err(Failure::Refused)?;
        let length = file.len().map_err(Error::io("read the length of", free));
        let length = length.map_err(Failure::Refused)?;
        let (header, direct) = self.header(free)?;
        let capacity = length - length % header.alignment;
        let header = FileHeader { capacity, recycled: true, ..header };
        let path = free.to_path_buf();
        let file = OpenFile { header, path, file, direct, capacity, zeros_to: capacity };
        let needed = header.frames_at() + header.span(self.frame_bytes) + file.reserve_bytes();
        if needed > capacity { Ok(None) } else { self.finish(file).map(Some) }
    }

    fn header(&self, path: &Path) -> Result<(FileHeader, Option<Arc<dyn VfsDirect>>), Failure> {
        let direct = self.vfs.open_direct(path).map_err(Error::io("open", path));
        let direct = direct.map_err(Failure::Refused)?;
        let mut header = FileHeader::new(self.number, self.options.salt, self.first);
        header.alignment = direct.as_ref().map_or(1, |direct| direct.alignment() as u64);
        if self.options.planted.has(Bug::ReplayRecycledRecords) {
            header.identity = 1;
        }
        Ok((header, direct))
    }

    fn finish(&self, made: OpenFile) -> Result<OpenFile, Failure> {
        let (from, path) = (&made.path, Name::Live(self.number).path(self.dir));
        let written =
            made.file.write_at(&made.header.encode(), 0).map_err(Error::io("write", from));
        written.map_err(Failure::unless_full)?;
        made.file.sync().map_err(Error::io("sync", from)).map_err(Failure::unless_full)?;
        let renamed = self.vfs.rename(from, &path).map_err(Error::io("rename", from));
        renamed.map_err(Failure::unless_full)?;
        if !self.options.planted.has(Bug::SkipLogDirectorySync) {
            let synced = self.vfs.sync_dir(self.dir);
            synced.map_err(Error::io("sync the directory", self.dir)).map_err(Failure::Broken)?;
        }
        Ok(OpenFile { path, ..made })
    }
}

/// Writes the next piece of zeros of a file; to where it came.
pub(super) fn write_zeros(
    direct: &dyn VfsDirect,
    path: &Path,
    from: u64,
    capacity: u64,
) -> Result<u64> {
    let left = usize::try_from(capacity.saturating_sub(from)).unwrap_or(usize::MAX);
    let mut zeros = Buffer::default();
    zeros.resize(left.min(ZEROS_BYTES));
    direct.write_at(zeros.bytes(), from).map_err(Error::io("write", path))?;
    Ok(from + zeros.len() as u64)
}

fn lock(files: &Mutex<Files>) -> std::sync::MutexGuard<'_, Files> {
    files.lock().unwrap_or_else(PoisonError::into_inner)
}
