//! What a leader does with the disk, while nobody holds the log's lock.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::file::ALIGNMENT_MAX;
use super::files::{Files, Live};
use super::frame::{FRAME_HEADER_BYTES, Group};
use super::maker::{Failure, Maker, OpenFile, write_zeros};
use super::options::LogOptions;
use super::state::End;
use super::turn::{Change, Load, Way, Zeros};
use crate::codec::Place;
use crate::error::{Error, Result};
use crate::planted::Bug;
use crate::vfs::Vfs;

/// Writes frames, each behind the one before.
pub(super) fn write(load: &mut Load) -> Result<(), Failure> {
    let file = &load.file;
    let mut offset = load.offset;
    let mut left = load.groups.len();
    for group in &mut load.groups {
        left -= 1;
        let mut bytes = file.header.span(group.bytes() as u64);
        let next = offset + bytes;
        if load.way == Way::Cached && load.is_last && left == 0 && file.header.alignment > 1 {
            // The rest of the page as well, so that the system need not read it first.
            let page = next.next_multiple_of(ALIGNMENT_MAX as u64).min(file.capacity);
            bytes = page - offset;
        }
        let written = put(file, load.way, group, offset, load.durable_before, bytes);
        written.map_err(Failure::unless_full)?;
        offset = next;
    }
    if let Some(from) = load.write_back {
        file.file.start_sync(from, load.offset - from);
    }
    Ok(())
}

/// Writes one frame at `offset`, with zeros behind it up to so many `bytes`.
pub(super) fn put(
    file: &OpenFile,
    way: Way,
    group: &mut Group,
    offset: u64,
    durable_before: u64,
    bytes: u64,
) -> Result<()> {
    let bytes = usize::try_from(bytes).map_err(|_| Error::invalid("a frame too large"))?;
    let place = Place { file: file.header.identity, offset };
    let frame = group.frame(place, durable_before, bytes);
    let written = match (way, &file.direct) {
        (Way::Direct | Way::Bulk, Some(direct)) => direct.write_at(frame, offset),
        (Way::Direct | Way::Bulk | Way::Cached, _) => file.file.write_at(frame, offset),
    };
    written.map_err(Error::io("write", &file.path))
}

/// Makes everything durable that has been written to a file.
pub(super) fn sync(file: &OpenFile, options: &LogOptions) -> Result<(), Failure> {
    let mut synced = file.file.sync();
    if synced.is_err() && options.planted.has(Bug::RetryFailedSync) {
        synced = file.file.sync();
    }
    synced.map_err(Error::io("sync", &file.path)).map_err(Failure::Broken)
}

/// Syncs a file that is full, so that only the last file of a log can hold what was not.
pub(super) fn sync_full(change: &Change, options: &LogOptions) -> Result<(), Failure> {
    if change.unsynced && !options.planted.has(Bug::SkipSyncOfFullFile) {
        return sync(&change.full.file, options);
    }
    Ok(())
}

/// Makes the file that follows one that is full and synced, and then seals that one, before anything
/// is written to the new one: so the new one cannot be missed unnoticed.
pub(super) fn change_file(
    vfs: &dyn Vfs,
    dir: &Path,
    options: &LogOptions,
    change: &Change,
    files: &Mutex<Files>,
) -> Result<End, Failure> {
    let End { file: full, offset, .. } = &change.full;
    let (number, first) = (full.header.number + 1, change.last + 1);
    let maker = Maker { vfs, dir, options, number, first, frame_bytes: change.frame_bytes };
    let made = End::of_new(maker.make_or_recycle(files)?);
    let used = offset + seal(change, options)?;
    let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(closed) = files.live.back_mut() {
        closed.bytes = used;
    }
    files.live.push_back(Live { number, first, bytes: made.offset });
    Ok(made)
}

/// How many bytes the seal takes.
fn seal(change: &Change, options: &LogOptions) -> Result<u64, Failure> {
    let End { file: full, offset, .. } = &change.full;
    let bytes = full.header.span(FRAME_HEADER_BYTES as u64);
    if offset + bytes > full.capacity {
        // A file of the version that had no seals may have no room for one.
        return Ok(0);
    }
    let mut seal = Group::seal(change.last + 1);
    let sealed = put(full, Way::Direct, &mut seal, *offset, change.last, bytes);
    sealed.map_err(Failure::unless_full)?;
    if !options.planted.has(Bug::SkipSyncOfFullFile) {
        sync(full, options)?;
    }
    Ok(bytes)
}

/// Writes a piece of zeros ahead of the frames; to where it came.
pub(super) fn fill(zeros: &Zeros) -> Result<u64, Failure> {
    let Zeros { file, from } = zeros;
    match &file.direct {
        Some(direct) => {
            let written = write_zeros(&**direct, &file.path, *from, file.capacity);
            written.map_err(Failure::unless_full)
        }
        None => Ok(file.capacity),
    }
}
