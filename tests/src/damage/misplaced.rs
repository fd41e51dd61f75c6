//! What disks do with right bytes: write them elsewhere, or not at all, so that what was there before
//! is read. And what people do with right files: copy them over each other.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use kvorum_storage::vfs::{MemoryVfs, OpenMode, Vfs as _};

/// What a disk writes at once.
const SECTOR: usize = 512;

/// Bytes in the wrong place of a file.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Misplaced {
    /// Two sectors have changed places.
    Swapped { a: usize, b: usize },
    /// A sector is that of another file, or of another place in this one.
    Sector { from: PathBuf, offset: usize, to: usize },
    /// The file is another one, under its name.
    File { from: PathBuf },
}

impl fmt::Debug for Misplaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Swapped { a, b } => write!(f, "sectors at {a} and {b} swapped"),
            Self::Sector { from, offset, to } => {
                write!(f, "the sector at {to} is that at {offset} of {}", from.display())
            }
            Self::File { from } => write!(f, "all of it is {}", from.display()),
        }
    }
}

impl Misplaced {
    /// Does it, durably.
    pub(super) fn put(&self, disk: &MemoryVfs, path: &Path) -> io::Result<()> {
        let mut bytes = read(disk, path)?;
        match self {
            Self::Swapped { a, b } => {
                let (first, second) = (sector(&bytes, *a).to_vec(), sector(&bytes, *b).to_vec());
                bytes[*a..*a + first.len()].copy_from_slice(&first_of(&second, first.len()));
                bytes[*b..*b + second.len()].copy_from_slice(&first_of(&first, second.len()));
            }
            Self::Sector { from, offset, to } => {
                let other = read(disk, from)?;
                let other = sector(&other, *offset);
                let count = other.len().min(bytes.len() - to);
                bytes[*to..to + count].copy_from_slice(&other[..count]);
            }
            Self::File { from } => bytes = read(disk, from)?,
        }
        let file = disk.open(path, OpenMode::ReadWrite)?;
        file.set_len(bytes.len() as u64)?;
        file.write_at(&bytes, 0)?;
        file.sync()
    }
}

fn read(disk: &MemoryVfs, path: &Path) -> io::Result<Vec<u8>> {
    Ok(disk.open(path, OpenMode::Read)?.map()?.to_vec())
}

fn sector(bytes: &[u8], at: usize) -> &[u8] {
    &bytes[at.min(bytes.len())..(at + SECTOR).min(bytes.len())]
}

/// The last sector of a file may be shorter than others.
fn first_of(bytes: &[u8], count: usize) -> Vec<u8> {
    let mut cut = bytes.to_vec();
    cut.resize(count, 0);
    cut
}

/// All of it that can be done to a file. Where that changes nothing, it is left out.
pub(super) fn all(disk: &MemoryVfs, path: &Path, step: usize) -> io::Result<Vec<Misplaced>> {
    let bytes = read(disk, path)?;
    let end = counted(disk, path, &bytes);
    let mut found = Vec::new();
    let others: Vec<PathBuf> =
        disk.files().into_iter().filter(|other| other != path && is_like(other, path)).collect();
    for to in (0..end).step_by(SECTOR * step.div_ceil(4)) {
        for other in (0..end).step_by(SECTOR).filter(|other| *other > to) {
            found.push(Misplaced::Swapped { a: to, b: other });
        }
        for other in (0..end).step_by(SECTOR).filter(|other| *other != to) {
            found.push(Misplaced::Sector { from: path.to_path_buf(), offset: other, to });
        }
        for from in &others {
            // At the same offset, as in a file that was there before, and at the beginning.
            found.push(Misplaced::Sector { from: from.clone(), offset: to, to });
            found.push(Misplaced::Sector { from: from.clone(), offset: 0, to });
        }
    }
    found.extend(others.into_iter().map(|from| Misplaced::File { from }));
    let changes = |misplaced: &Misplaced| -> io::Result<bool> {
        let image = disk.crash_image(kvorum_storage::vfs::CrashMode::KeepAll);
        misplaced.put(&image, path)?;
        Ok(read(&image, path)? != bytes)
    };
    let mut changing = Vec::new();
    for misplaced in found {
        if changes(&misplaced)? {
            changing.push(misplaced);
        }
    }
    Ok(changing)
}

/// Files of the same kind.
fn is_like(a: &Path, b: &Path) -> bool {
    a.extension() == b.extension() && a.parent() == b.parent()
}

/// How much of a file counts: of the last file of a log all but the sectors with its last frames. A
/// log that has lost these as a whole looks like one that they were never written to, since nothing
/// else speaks of them; they are torn, as after a power cut.
fn counted(disk: &MemoryVfs, path: &Path, bytes: &[u8]) -> usize {
    let is_log = |path: &Path| path.extension().is_some_and(|end| end == "log");
    let is_last = is_log(path)
        && disk
            .files()
            .iter()
            .all(|other| !is_log(other) || !is_like(other, path) || *other <= *path);
    if !is_last {
        return bytes.len();
    }
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    end.saturating_sub(3 * SECTOR)
}
