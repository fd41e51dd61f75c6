//! Moves, shares and removes the files of a directory.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::inspect::{Directory, Layout, list_if_there};
use crate::log::{LOCK_NAME, is_log_name};
use crate::manifest;
use crate::segment::id_of;
use crate::store::{LOG, SEGMENTS};
use crate::vfs::{OpenMode, Vfs};

/// What begins the names of directories in which a repair keeps what it has replaced.
const KEPT_PREFIX: &str = "lost-";

/// So many repairs in place of one directory.
const KEPT_MAX: u32 = 10_000;

/// How much is copied at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Whether a name is that of such a directory.
pub(crate) fn is_kept(name: &str) -> bool {
    name.strip_prefix(KEPT_PREFIX).is_some_and(|number| number.parse::<u32>().is_ok())
}

/// The name of one that is not there yet.
pub(super) fn free_name(directory: &Directory) -> Result<String> {
    let is_free = |name: &String| !directory.names().contains(name);
    (1..=KEPT_MAX)
        .map(|number| format!("{KEPT_PREFIX}{number}"))
        .find(is_free)
        .ok_or_else(|| Error::invalid("there are too many directories of earlier repairs"))
}

/// The files that make up a store or a log, as directory and name, but for locks and what is the
/// owner's. Directories first whose files must be there before others'.
fn files(vfs: &dyn Vfs, dir: &Path, layout: Layout) -> Result<Vec<(PathBuf, String)>> {
    let is_log = |name: &String| is_log_name(name) && name != LOCK_NAME;
    let mut files = Vec::new();
    let mut add = |dir: PathBuf, wanted: &dyn Fn(&String) -> bool| -> Result<()> {
        let names = list_if_there(vfs, &dir)?;
        files.extend(names.into_iter().filter(wanted).map(|name| (dir.clone(), name)));
        Ok(())
    };
    match layout {
        Layout::Log => add(dir.to_path_buf(), &is_log)?,
        Layout::Store => {
            add(dir.join(SEGMENTS), &|name| id_of(name).is_some())?;
            add(dir.join(LOG), &is_log)?;
            let manifests = [manifest::NAME, manifest::NAME_TEMPORARY];
            add(dir.to_path_buf(), &|name| manifests.contains(&name.as_str()))?;
        }
    }
    Ok(files)
}

/// Moves everything that makes up a store or a log to another directory: first all new names, then,
/// once these are durable, away with the old ones. May be broken off and done again.
pub(super) fn move_all(directory: &Directory, to: &Path) -> Result<()> {
    let (vfs, from) = (&**directory.vfs(), directory.path());
    let mut dirs = vec![to.to_path_buf()];
    if directory.layout() == Layout::Store {
        dirs.extend([to.join(SEGMENTS), to.join(LOG)]);
    }
    for dir in &dirs {
        vfs.create_dir_all(dir).map_err(Error::io("create the directory", dir))?;
    }
    let files = files(vfs, from, directory.layout())?;
    for (dir, name) in &files {
        let below = dir.strip_prefix(from).unwrap_or(Path::new(""));
        let (old, new) = (dir.join(name), to.join(below).join(name));
        match vfs.hard_link(&old, &new) {
            Ok(()) => {}
            // By an earlier attempt.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io("link", &new)(error)),
        }
    }
    for dir in dirs.iter().map(PathBuf::as_path).chain([from]) {
        vfs.sync_dir(dir).map_err(Error::io("sync the directory", dir))?;
    }
    remove_all(vfs, &files)
}

/// Removes what makes up a store or a log: the unfinished work of an earlier attempt.
pub(super) fn clear(vfs: &dyn Vfs, dir: &Path, layout: Layout) -> Result<()> {
    remove_all(vfs, &files(vfs, dir, layout)?)
}

fn remove_all(vfs: &dyn Vfs, files: &[(PathBuf, String)]) -> Result<()> {
    let mut last: Option<&PathBuf> = None;
    for (dir, name) in files {
        let path = dir.join(name);
        vfs.remove(&path).map_err(Error::io("remove", &path))?;
        if let Some(before) = last.replace(dir).filter(|before| *before != dir) {
            vfs.sync_dir(before).map_err(Error::io("sync the directory", before))?;
        }
    }
    match last {
        Some(dir) => vfs.sync_dir(dir).map_err(Error::io("sync the directory", dir)),
        None => Ok(()),
    }
}

/// The owner's own files, into a directory other than their own. Its directory is the caller's to
/// sync.
pub(super) fn take_along(source: &Directory, target: &Path) -> Result<()> {
    let vfs = &**source.vfs();
    for name in source.owner().files {
        let (from, to) = (source.path().join(name), target.join(name));
        // In place they have never left.
        if list_if_there(vfs, source.path())?.iter().any(|there| there == name) {
            copy(vfs, &from, &to)?;
        }
    }
    Ok(())
}

/// Makes a file that never changes available under another name, durably but for its directory.
pub(super) fn share(vfs: &dyn Vfs, from: &Path, to: &Path) -> Result<()> {
    match vfs.hard_link(from, to) {
        Ok(()) => Ok(()),
        // Another file system, or one without links.
        Err(_) => copy(vfs, from, to),
    }
}

fn copy(vfs: &dyn Vfs, from: &Path, to: &Path) -> Result<()> {
    remove_if_there(vfs, to)?;
    let source = vfs.open(from, OpenMode::Read).map_err(Error::io("open", from))?;
    let target = vfs.open(to, OpenMode::Create).map_err(Error::io("create", to))?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut offset = 0;
    loop {
        let count = source.read_at(&mut buffer, offset).map_err(Error::io("read", from))?;
        if count == 0 {
            break;
        }
        target.write_at(&buffer[..count], offset).map_err(Error::io("write", to))?;
        offset += count as u64;
    }
    target.sync().map_err(Error::io("sync", to))
}

pub(super) fn remove_if_there(vfs: &dyn Vfs, path: &Path) -> Result<()> {
    match vfs.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
