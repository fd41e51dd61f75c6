//! Which files the log consists of, and which are kept to be used again.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use super::LogOptions;
use super::file::{FileHeader, Name};
use crate::error::{Error, Result};
use crate::vfs::{OpenMode, Vfs};

/// A live file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Live {
    pub(super) number: u64,
    /// The position of its first record.
    pub(super) first: u64,
    /// How many bytes of it are in use; of the last file the log knows better.
    pub(super) bytes: u64,
}

/// The log's files, oldest first, never empty once the log is open.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) live: VecDeque<Live>,
    free: Vec<PathBuf>,
}

/// What a directory holds, by names.
#[derive(Debug, Default)]
pub(super) struct Listing {
    live: BTreeSet<u64>,
    unfinished: Vec<PathBuf>,
    free: Vec<(u64, PathBuf)>,
}

impl Listing {
    pub(super) fn read(vfs: &dyn Vfs, dir: &Path) -> Result<Self> {
        let mut listing = Self::default();
        for name in vfs.list(dir).map_err(Error::io("list", dir))? {
            let path = dir.join(&name);
            match Name::parse(&name) {
                Some(Name::Live(number)) => {
                    listing.live.insert(number);
                }
                Some(Name::New(_)) => listing.unfinished.push(path),
                Some(Name::Free(number)) => listing.free.push((number, path)),
                None => {}
            }
        }
        Ok(listing)
    }

    /// The numbers of the live files, oldest first.
    pub(super) fn live(&self) -> impl Iterator<Item = u64> {
        self.live.iter().copied()
    }

    /// The number of the last file, if no live file is there although there must be one.
    pub(super) fn missing_last(&self) -> Option<u64> {
        let free = self.free.last().filter(|_| self.live.is_empty());
        free.map(|(number, _)| number.saturating_add(1))
    }

    /// The headers of the live files, oldest first; none at all in a new directory. Fails if one
    /// is missing: the newest file never leaves a log, and the others leave it oldest first.
    pub(super) fn headers(&self, vfs: &dyn Vfs, dir: &Path) -> Result<Vec<FileHeader>> {
        if let Some(number) = self.missing_last() {
            return Err(Error::Missing { file: Name::Live(number).path(dir) });
        }
        let mut headers: Vec<FileHeader> = Vec::new();
        for number in &self.live {
            if let Some(before) = headers.last()
                && before.number + 1 != *number
            {
                return Err(Error::Missing { file: Name::Live(before.number + 1).path(dir) });
            }
            let header = FileHeader::read(vfs, dir, *number)?;
            if headers.last().is_some_and(|before| before.first > header.first) {
                let what = "begins before the file before it";
                return Err(Error::corrupt(&Name::Live(*number).path(dir), 0, what));
            }
            headers.push(header);
        }
        Ok(headers)
    }

    /// Removes what was never finished, and the free files that are too many or of another size
    /// than this log's.
    pub(super) fn tidy(self, vfs: &dyn Vfs, options: &LogOptions) -> Result<Vec<PathBuf>> {
        let mut free = Vec::new();
        let mut surplus = self.unfinished;
        for (_, path) in self.free {
            let fits =
                free.len() < options.recycle_files_max && options.recycles(length(vfs, &path)?);
            if fits { free.push(path) } else { surplus.push(path) }
        }
        for path in surplus {
            vfs.remove(&path).map_err(Error::io("remove", &path))?;
        }
        Ok(free)
    }
}

impl Files {
    pub(super) fn new(live: VecDeque<Live>, free: Vec<PathBuf>) -> Self {
        Self { live, free }
    }

    /// The position of the first record that is still there, or of the next one.
    pub(super) fn first(&self) -> u64 {
        self.live.front().map_or(1, |file| file.first)
    }

    /// Bytes in the files before the last.
    pub(super) fn closed_bytes(&self) -> u64 {
        let closed = self.live.len().saturating_sub(1);
        self.live.iter().take(closed).map(|file| file.bytes).sum()
    }

    pub(super) fn take_free(&mut self) -> Option<PathBuf> {
        self.free.pop()
    }

    /// The free files beyond so many.
    pub(super) fn take_surplus(&mut self, keep: usize) -> Vec<PathBuf> {
        self.free.split_off(keep.min(self.free.len()))
    }

    pub(super) fn put_free(&mut self, path: PathBuf) {
        self.free.push(path);
    }

    /// The oldest file, if all its records stand before `position`.
    pub(super) fn oldest_before(&self, position: u64) -> Option<Live> {
        let second = self.live.get(1)?;
        if second.first <= position { self.live.front().copied() } else { None }
    }

    /// Whether a file of that many bytes is worth keeping.
    pub(super) fn recycles(&self, file_bytes: u64, options: &LogOptions) -> bool {
        self.free.len() < options.recycle_files_max && options.recycles(file_bytes)
    }
}

/// Takes a file that is no longer live out of the log, durably. Answers its new name if it was
/// kept to be used again.
///
/// The directory is synced for each file: were two to leave at once, a crash could bring the
/// older one back and not the younger, and the log would seem to miss a file.
pub(super) fn retire(
    vfs: &dyn Vfs,
    dir: &Path,
    number: u64,
    recycle: bool,
) -> Result<Option<PathBuf>> {
    let path = Name::Live(number).path(dir);
    let free = recycle.then(|| Name::Free(number).path(dir));
    match &free {
        Some(free) => vfs.rename(&path, free).map_err(Error::io("rename", &path))?,
        None => vfs.remove(&path).map_err(Error::io("remove", &path))?,
    }
    vfs.sync_dir(dir).map_err(Error::io("sync the directory", dir))?;
    Ok(free)
}

/// The length of a file.
pub(super) fn length(vfs: &dyn Vfs, path: &Path) -> Result<u64> {
    let file = vfs.open(path, OpenMode::Read).map_err(Error::io("open", path))?;
    file.len().map_err(Error::io("read the length of", path))
}
