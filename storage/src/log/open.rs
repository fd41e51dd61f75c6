//! Opens a log: finds its files and its end, and makes sure of both before anything is added.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::LogOptions;
use super::file::{FileHeader, Name};
use super::files::{self, Files, Listing, Live};
use super::maker::{Failure, Maker, OpenFile};
use super::replay::{Replay, TornTail};
use super::state::End;
use super::tail::{self, Tail};
use crate::error::{Error, Result};
use crate::marker;
use crate::vfs::{Vfs, VfsLock};

/// The lock's file name. Not merely `LOCK`, so that a log can share a directory.
pub(crate) const LOCK_NAME: &str = "log.lock";

/// What an open log consists of.
pub(super) struct Opened {
    pub(super) end: End,
    /// The last position; everything up to there is.
    pub(super) durable: u64,
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
    let (end, durable, replay) = match (last, tail) {
        (Some(last), Some(tail)) => resume(&vfs, dir, options, &headers, last, &tail)?,
        _ => begin(&vfs, dir, options)?,
    };
    let live = if headers.is_empty() {
        VecDeque::from([Live { number: 1, first: 1, bytes: end.offset }])
    } else {
        live(&*vfs, dir, &headers)?
    };
    Ok(Opened { end, durable, files: Files::new(live, free), replay, lock })
}

fn lock(vfs: &dyn Vfs, dir: &Path) -> Result<Box<dyn VfsLock>> {
    let path = dir.join(LOCK_NAME);
    vfs.lock(&path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Error::Locked { path },
        _ => Error::io("lock", &path)(error),
    })
}

/// Makes the first file of a new log.
fn begin(vfs: &Arc<dyn Vfs>, dir: &Path, options: LogOptions) -> Result<(End, u64, Replay)> {
    // The directory itself may be new, and its own entry not durable yet.
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        vfs.sync_dir(parent).map_err(Error::io("sync the directory", parent))?;
    }
    let maker = Maker { vfs: &**vfs, dir, options: &options, number: 1, first: 1, frame_bytes: 0 };
    let file = maker.make().map_err(Failure::into_error)?;
    let files = VecDeque::new();
    let replay = Replay::new(Arc::clone(vfs), dir.to_path_buf(), options, files, (0, 0), None);
    Ok((End::of_new(file), 0, replay))
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
) -> Result<(End, u64, Replay)> {
    let file = OpenFile::resume(&**vfs, dir, header)?;
    tail.settle(&*file.file, &file.path, options.planted)?;
    vfs.sync_dir(dir).map_err(Error::io("sync the directory", dir))?;

    let torn = (tail.remains > tail.offset).then(|| TornTail {
        file: file.path.clone(),
        offset: tail.offset,
        bytes: tail.remains - tail.offset,
    });
    let end = (tail.offset, tail.next);
    let files = headers.iter().copied().collect();
    let replay = Replay::new(Arc::clone(vfs), dir.to_path_buf(), options, files, end, torn);

    let marked = tail.marked || tail.next == header.first;
    let zeros_to = file.zeros_to.max(tail.offset);
    let end = End { file: Arc::new(file), offset: tail.offset, zeros_to, marked };
    Ok((end, tail.next - 1, replay))
}

fn live(vfs: &dyn Vfs, dir: &Path, headers: &[FileHeader]) -> Result<VecDeque<Live>> {
    let live = |header: &FileHeader| {
        let bytes = files::length(vfs, &Name::Live(header.number).path(dir))?;
        Ok(Live { number: header.number, first: header.first, bytes })
    };
    headers.iter().map(live).collect()
}
