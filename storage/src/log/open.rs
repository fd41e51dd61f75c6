//! Opens a log: finds its files and its end, and makes sure of both before anything is added.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::LogOptions;
use super::file::{FileHeader, Name};
use super::files::{self, Files, Listing, Live};
use super::replay::{Replay, TornTail};
use super::tail::{self, Tail};
use super::writer::{Failure, Maker, OpenFile, Writer};
use crate::error::{Error, Result};
use crate::marker;
use crate::vfs::{OpenMode, Vfs, VfsLock};

/// The lock's file name. Not merely `LOCK`, so that a log can share a directory.
pub(crate) const LOCK_NAME: &str = "log.lock";

/// What an open log consists of.
pub(super) struct Opened {
    pub(super) writer: Writer,
    pub(super) files: Files,
    pub(super) replay: Replay,
    pub(super) lock: Box<dyn VfsLock>,
}

pub(super) fn open(vfs: Arc<dyn Vfs>, dir: &Path, options: LogOptions) -> Result<Opened> {
    options.validate()?;
    vfs.create_dir_all(dir).map_err(Error::io("create the directory", dir))?;
    let lock = lock(&*vfs, dir)?;
    marker::refuse(&*vfs, dir)?;
    let listing = Listing::read(&*vfs, dir)?;
    let headers = listing.headers(&*vfs, dir)?;
    // Everything that can refuse to open comes before the first change to the disk.
    let last = headers.last().copied();
    let tail = last.map(|last| tail::find(&*vfs, dir, last, options.planted)).transpose()?;
    let free = listing.tidy(&*vfs, &options)?;
    let (writer, replay) = match (last, tail) {
        (Some(last), Some(tail)) => resume(&vfs, dir, options, &headers, last, &tail)?,
        _ => begin(&vfs, dir, options)?,
    };
    let live = if headers.is_empty() {
        VecDeque::from([Live { number: 1, first: 1, bytes: writer.bytes() }])
    } else {
        live(&*vfs, dir, &headers)?
    };
    Ok(Opened { writer, files: Files::new(live, free), replay, lock })
}

fn lock(vfs: &dyn Vfs, dir: &Path) -> Result<Box<dyn VfsLock>> {
    let path = dir.join(LOCK_NAME);
    vfs.lock(&path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Error::Locked { path },
        _ => Error::io("lock", &path)(error),
    })
}

/// Makes the first file of a new log.
fn begin(vfs: &Arc<dyn Vfs>, dir: &Path, options: LogOptions) -> Result<(Writer, Replay)> {
    // The directory itself may be new, and its own entry not durable yet.
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        vfs.sync_dir(parent).map_err(Error::io("sync the directory", parent))?;
    }
    let (capacity, planted) = (options.file_bytes, options.planted);
    let maker = Maker { vfs: &**vfs, dir, number: 1, first: 1, capacity, planted };
    let made = maker.make(options.salt);
    let file = made.map_err(|(Failure::Refused(error) | Failure::Broken(error))| error)?;
    let writer = Writer::new(Arc::clone(vfs), dir, options, file, 0, true);
    let files = VecDeque::new();
    let replay = Replay::new(Arc::clone(vfs), dir.to_path_buf(), options, files, (0, 0), None);
    Ok((writer, replay))
}

/// Goes on in the last file of a log: cuts what is torn, and makes durable what is there, since
/// the owner will act on it.
fn resume(
    vfs: &Arc<dyn Vfs>,
    dir: &Path,
    options: LogOptions,
    headers: &[FileHeader],
    header: FileHeader,
    tail: &Tail,
) -> Result<(Writer, Replay)> {
    let path = Name::Live(header.number).path(dir);
    let file = vfs.open(&path, OpenMode::ReadWrite).map_err(Error::io("open", &path))?;
    tail.settle(&*file, &path, options.planted)?;
    vfs.sync_dir(dir).map_err(Error::io("sync the directory", dir))?;

    let torn = (tail.remains > tail.offset).then(|| TornTail {
        file: path.clone(),
        offset: tail.offset,
        bytes: tail.remains - tail.offset,
    });
    let end = (tail.offset, tail.next);
    let files = headers.iter().copied().collect();
    let replay = Replay::new(Arc::clone(vfs), dir.to_path_buf(), options, files, end, torn);

    let capacity = file.len().map_err(Error::io("read the length of", &path))?;
    let file = OpenFile { header, path, file, offset: tail.offset, capacity };
    let marked = tail.marked || tail.next == header.first;
    let mut writer = Writer::new(Arc::clone(vfs), dir, options, file, tail.next - 1, marked);
    writer.mark()?;
    Ok((writer, replay))
}

fn live(vfs: &dyn Vfs, dir: &Path, headers: &[FileHeader]) -> Result<VecDeque<Live>> {
    let live = |header: &FileHeader| {
        let bytes = files::length(vfs, &Name::Live(header.number).path(dir))?;
        Ok(Live { number: header.number, first: header.first, bytes })
    };
    headers.iter().map(live).collect()
}
