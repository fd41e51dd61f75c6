//! Puts frames into the last log file, and makes the next one when it is full.
//!
//! Only one thread at a time writes: the leader of a group commit.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::file::{FRAMES_AT, FileHeader, Name};
use super::files::{Files, Live};
use super::frame::{FRAME_HEADER_BYTES, Group};
use super::options::{LogOptions, LogStats};
use crate::codec::Place;
use crate::error::{Error, Result};
use crate::planted::{Bug, Planted};
use crate::vfs::{OpenMode, Vfs, VfsFile};

/// Frames leave so much room at the end of a file: for a mark, and for the seal.
const RESERVE_BYTES: u64 = 2 * FRAME_HEADER_BYTES as u64;

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
    fn unless_full(error: Error) -> Self {
        match error {
            Error::DiskFull { .. } => Self::Refused(error),
            error => Self::Broken(error),
        }
    }
}

/// The last log file, open for writing.
pub(super) struct Writer {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    options: LogOptions,
    file: OpenFile,
    /// Frames were written since the last sync.
    unsynced: bool,
    /// The last frame is a mark, or there is none: all before it is proven durable.
    marked: bool,
    written: u64,
    durable: u64,
    stats: LogStats,
}

pub(super) struct OpenFile {
    pub(super) header: FileHeader,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn VfsFile>,
    /// Where the next frame goes.
    pub(super) offset: u64,
    /// To here space is reserved.
    pub(super) capacity: u64,
}

impl Writer {
    /// Goes on in a file all of whose records, up to the position `durable`, are durable.
    pub(super) fn new(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        options: LogOptions,
        file: OpenFile,
        durable: u64,
        marked: bool,
    ) -> Self {
        Self {
            vfs,
            dir: dir.to_path_buf(),
            options,
            file,
            unsynced: false,
            marked,
            written: durable,
            durable,
            stats: LogStats::default(),
        }
    }

    pub(super) fn written(&self) -> u64 {
        self.written
    }

    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    /// How many bytes of the last file are in use.
    pub(super) fn bytes(&self) -> u64 {
        self.file.offset
    }

    pub(super) fn path(&self) -> &Path {
        &self.file.path
    }

    /// Puts what the writer has done where the log tells it.
    pub(super) fn count(&self, stats: &mut LogStats) {
        *stats = LogStats { appends: stats.appends, ..self.stats };
    }

    /// Writes a group as one frame. After a refusal the same group, or one that begins with it,
    /// must come again.
    pub(super) fn write(&mut self, group: &mut Group, files: &Mutex<Files>) -> Result<(), Failure> {
        let bytes = group.bytes() as u64;
        if self.file.offset + bytes + RESERVE_BYTES > self.file.capacity {
            self.next_file(group.first(), bytes, files)?;
        }
        self.put(group).map_err(Failure::unless_full)?;
        self.stats.frames += 1;
        self.marked = false;
        self.written = group.last();
        Ok(())
    }

    /// Makes everything written durable.
    pub(super) fn sync(&mut self) -> Result<(), Failure> {
        if self.unsynced {
            let mut synced = self.file.file.sync();
            if synced.is_err() && self.options.planted.has(Bug::RetryFailedSync) {
                synced = self.file.file.sync();
            }
            let synced = synced.map_err(Error::io("sync", &self.file.path));
            synced.map_err(Failure::Broken)?;
            self.stats.syncs += 1;
            self.unsynced = false;
        }
        self.durable = self.written;
        Ok(())
    }

    /// Adds an empty frame that bears witness that all before it was durable, so that damage done
    /// to the last records later is told from a torn write. Not synced: if it is lost, nothing is.
    pub(super) fn mark(&mut self) -> Result<()> {
        let end = self.file.offset + FRAME_HEADER_BYTES as u64;
        if self.marked || self.durable < self.written || end > self.file.capacity {
            return Ok(());
        }
        match self.put(&mut Group::new(self.written + 1, Vec::new())) {
            Ok(()) => self.marked = true,
            // It would have been better to have it, but a full disk must not keep a log closed.
            Err(Error::DiskFull { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn put(&mut self, group: &mut Group) -> Result<()> {
        let OpenFile { header, path, file, offset, .. } = &mut self.file;
        let place = Place { file: header.identity, offset: *offset };
        let frame = group.frame(place, self.durable);
        file.write_at(frame, *offset).map_err(Error::io("write", path))?;
        *offset += frame.len() as u64;
        self.unsynced = true;
        self.stats.bytes += frame.len() as u64;
        Ok(())
    }

    /// Goes on in a new file. The old one is synced first, so that only the last file of a log can
    /// hold what was not; and it is sealed before anything is written to the new one, so that the
    /// new one cannot be missed unnoticed.
    fn next_file(
        &mut self,
        first: u64,
        frame_bytes: u64,
        files: &Mutex<Files>,
    ) -> Result<(), Failure> {
        self.sync_full_file()?;
        let number = self.file.header.number + 1;
        let needed = FRAMES_AT + frame_bytes + RESERVE_BYTES;
        let capacity = self.options.file_bytes.max(needed);
        let planted = self.options.planted;
        let maker = Maker { vfs: &*self.vfs, dir: &self.dir, number, first, capacity, planted };
        let made = self.make_or_recycle(&maker, files)?;
        self.seal()?;
        self.stats.files_made += 1;
        self.stats.files_recycled += u64::from(made.header.recycled);
        let used = std::mem::replace(&mut self.file, made).offset;
        let mut files = lock(files);
        if let Some(closed) = files.live.back_mut() {
            closed.bytes = used;
        }
        files.live.push_back(Live { number, first, bytes: FRAMES_AT });
        self.marked = true;
        Ok(())
    }

    fn seal(&mut self) -> Result<(), Failure> {
        // A file of the version that had no seals may have no room for one.
        if self.file.offset + FRAME_HEADER_BYTES as u64 <= self.file.capacity {
            self.put(&mut Group::seal(self.written + 1)).map_err(Failure::unless_full)?;
            self.sync_full_file()?;
        }
        Ok(())
    }

    fn sync_full_file(&mut self) -> Result<(), Failure> {
        self.unsynced &= !self.options.planted.has(Bug::SkipSyncOfFullFile);
        self.sync()
    }

    fn make_or_recycle(
        &self,
        maker: &Maker<'_>,
        files: &Mutex<Files>,
    ) -> Result<OpenFile, Failure> {
        let salt = self.options.salt;
        if maker.capacity == self.options.file_bytes {
            // Not in the `if let`, which would hold the lock while the disk works.
            let free = lock(files).take_free();
            if let Some(path) = free {
                match maker.recycle(&path, salt) {
                    Err(Failure::Refused(_)) => lock(files).put_free(path),
                    made => return made,
                }
            }
        }
        maker.make(salt)
    }
}

fn lock(files: &Mutex<Files>) -> std::sync::MutexGuard<'_, Files> {
    files.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a log file. It gets its name last, when its header is durable.
pub(super) struct Maker<'a> {
    pub(super) vfs: &'a dyn Vfs,
    pub(super) dir: &'a Path,
    pub(super) number: u64,
    pub(super) first: u64,
    pub(super) capacity: u64,
    pub(super) planted: Planted,
}

impl Maker<'_> {
    /// Out of nothing.
    pub(super) fn make(&self, salt: u64) -> Result<OpenFile, Failure> {
        let path = Name::New(self.number).path(self.dir);
        // What an earlier attempt left; usually there is none.
        let _ = self.vfs.remove(&path);
        let file = self.vfs.open(&path, OpenMode::Create).map_err(Error::io("create", &path));
        let file = file.map_err(Failure::Refused)?;
        let allocated = file.allocate(self.capacity).map_err(Error::io("reserve space for", &path));
        let made = match allocated {
            Ok(()) => self.finish(file, &path, self.header(salt, false)),
            Err(error) => Err(Failure::Refused(error)),
        };
        if made.is_err() {
            // Gives back what little room the attempt took; the next one tries to as well.
            let _ = self.vfs.remove(&path);
        }
        made
    }

    /// Out of a former log file.
    fn recycle(&self, free: &Path, salt: u64) -> Result<OpenFile, Failure> {
        let file = self.vfs.open(free, OpenMode::ReadWrite).map_err(Error::io("open", free));
        let file = file.map_err(Failure::Refused)?;
        self.finish(file, free, self.header(salt, true))
    }

    fn header(&self, salt: u64, recycled: bool) -> FileHeader {
        FileHeader::new(self.number, salt, self.first, self.capacity, recycled)
    }

    fn finish(
        &self,
        file: Arc<dyn VfsFile>,
        from: &Path,
        mut header: FileHeader,
    ) -> Result<OpenFile, Failure> {
        if self.planted.has(Bug::ReplayRecycledRecords) {
            header.identity = 1;
        }
        let path = Name::Live(self.number).path(self.dir);
        let written = file.write_at(&header.encode(), 0).map_err(Error::io("write", from));
        written.map_err(Failure::unless_full)?;
        file.sync().map_err(Error::io("sync", from)).map_err(Failure::unless_full)?;
        let renamed = self.vfs.rename(from, &path).map_err(Error::io("rename", from));
        renamed.map_err(Failure::unless_full)?;
        if !self.planted.has(Bug::SkipLogDirectorySync) {
            let synced = self.vfs.sync_dir(self.dir);
            synced.map_err(Error::io("sync the directory", self.dir)).map_err(Failure::Broken)?;
        }
        Ok(OpenFile { header, path, file, offset: FRAMES_AT, capacity: self.capacity })
    }
}
