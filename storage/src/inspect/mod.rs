//! Looks at the directory of a store or a log that no program has open, sound or damaged, and
//! changes nothing: not even the torn end of a log, which opening would cut.
//!
//! - [`Directory::verify`] reads every byte that counts and names everything that is wrong.
//! - [`Directory::rows`] and [`Directory::log`] read what can be read, and name what cannot.
//! - [`Directory::summary`] counts.
//!
//! What is wrong is a value, a [`Finding`]; an [`Error`] means that looking itself failed. Mending is
//! the business of [`crate::repair`].

mod entries;
mod plan;
mod rows;
mod segments;
mod summary;
mod verify;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::plan::{ApplyTo, BatchOf, LogPlan, own_batch};
pub use self::rows::{Overlay, Rows};
pub use self::summary::{LevelSummary, SegmentSummary, StagedSummary, Summary};
pub use self::verify::{CheckRecord, Finding, Grade, Lost, Verified};
use crate::error::{Error, Result};
use crate::log::{self, LogSurvey, ReplayedRecord};
use crate::manifest::{self, Manifest, Staged};
use crate::marker;
use crate::segment::id_of;
use crate::store::{LOCK as STORE_LOCK, LOG, SEGMENTS};
use crate::vfs::{Vfs, VfsLock};

pub(crate) use self::entries::Entries;
pub(crate) use self::segments::map_segment;

/// No store lives to see such a segment; below it, adding never overflows.
const SEGMENT_ID_MAX: u64 = 1 << 62;

/// What a directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// A store: manifest, segments, and a log in a directory of its own.
    Store,
    /// A log and nothing else.
    Log,
}

/// What the program above keeps in the same directory, and how it reads the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Owner {
    /// What the directory must be, if the program knows.
    pub layout: Option<Layout>,
    /// Files of the program itself. A repair takes them along.
    pub files: &'static [&'static str],
    /// Files that a crash of it may leave behind.
    pub leftovers: &'static [&'static str],
    /// Files by which it locks the directory.
    pub locks: &'static [&'static str],
    /// Whether a record of this kind stands for all before it. A store without an owner has none:
    /// each record of its log is a batch.
    pub is_checkpoint: Option<fn(u8) -> bool>,
    /// The mark of the staged rows that a record says to install, if it says so. Only an owner that
    /// calls [`Store::install`](crate::Store::install) has such records. Its marks are numbers of its
    /// own, not positions of the log: use [`Directory::replay_into`].
    pub installs: Option<fn(&ReplayedRecord) -> Option<u64>>,
}

/// A directory that is looked at; as long as this lives no program can open it for work.
pub struct Directory {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    layout: Layout,
    owner: Owner,
    /// In it, sorted.
    names: Vec<String>,
    manifest: Option<Manifest>,
    /// Why there is no manifest.
    manifest_damage: Option<Error>,
    /// The segments that are there.
    segment_files: BTreeSet<u64>,
    _locks: Vec<Box<dyn VfsLock>>,
}

impl Directory {
    /// Locks the directory as far as it has lock files, and sees what it is.
    ///
    /// Nothing is created: where there is no lock file no program has ever locked it.
    pub fn open(vfs: Arc<dyn Vfs>, dir: &Path, owner: Owner) -> Result<Self> {
        let names = vfs.list(dir).map_err(Error::io("list", dir))?;
        let layout = owner.layout.or_else(|| layout_of(&names)).ok_or_else(|| {
            let what = format!("{} holds neither a store nor a log", dir.display());
            Error::invalid(what)
        })?;
        let locks = lock_all(&*vfs, dir, &names, &owner)?;
        let mut directory = Self {
            vfs,
            dir: dir.to_path_buf(),
            layout,
            owner,
            names,
            manifest: None,
            manifest_damage: None,
            segment_files: BTreeSet::new(),
            _locks: locks,
        };
        if layout == Layout::Store {
            directory.read_tree()?;
        }
        Ok(directory)
    }

    /// What it is.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Where its log is.
    #[must_use]
    pub fn log_dir(&self) -> PathBuf {
        match self.layout {
            Layout::Store => self.dir.join(LOG),
            Layout::Log => self.dir.clone(),
        }
    }

    /// Whether nothing has begun here yet: there is no manifest, no segment and no log.
    pub fn is_blank(&self) -> Result<bool> {
        let missing = match self.layout {
            Layout::Store => matches!(self.manifest_damage, Some(Error::Missing { .. })),
            Layout::Log => true,
        };
        Ok(missing && self.segment_files.is_empty() && !self.has_log()?)
    }

    /// Whether a repair is at work here, or could not save everything: what is missing may stand
    /// aside, and the repair speaks of it.
    #[must_use]
    pub fn has_marker(&self) -> bool {
        self.names.iter().any(|name| name == marker::NAME)
    }

    /// Whether there is no log where there must have been one: a store has one from its second
    /// manifest on.
    pub(crate) fn has_lost_its_log(&self) -> Result<bool> {
        let may_be_young = self.manifest.as_ref().is_some_and(|it| it.generation <= 1);
        Ok(!may_be_young && !self.has_log()? && !self.is_blank()?)
    }

    fn has_log(&self) -> Result<bool> {
        let names = list_if_there(&*self.vfs, &self.log_dir())?;
        Ok(names.iter().any(|name| log::is_log_name(name) && name != log::LOCK_NAME))
    }

    /// Every batch of the log with this mark or a smaller one is in segments; 0 if the manifest
    /// that says it cannot be read, and then applying them all again gives the same rows.
    #[must_use]
    pub fn flushed_mark(&self) -> u64 {
        self.manifest.as_ref().map_or(0, |manifest| manifest.flushed_mark)
    }

    /// The log, from its beginning.
    pub fn log(&self) -> Result<LogSurvey> {
        LogSurvey::new(Arc::clone(&self.vfs), &self.log_dir())
    }

    pub(crate) fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// The mark of the rows that are staged and wait to be installed.
    #[must_use]
    pub fn sealed_mark(&self) -> Option<u64> {
        self.staged().map(|staged| staged.mark)
    }

    pub(crate) fn staged(&self) -> Option<&Staged> {
        self.manifest.as_ref()?.staged.as_ref()
    }

    /// The mark that a record says to install, unless segments reach it already.
    pub(crate) fn is_to_install(&self, record: &ReplayedRecord) -> Option<u64> {
        let mark = self.owner.installs.and_then(|installs| installs(record))?;
        (mark > self.flushed_mark()).then_some(mark)
    }

    pub(crate) fn segments_dir(&self) -> PathBuf {
        self.dir.join(SEGMENTS)
    }

    pub(crate) fn segment_files(&self) -> &BTreeSet<u64> {
        &self.segment_files
    }

    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    pub(crate) fn owner(&self) -> &Owner {
        &self.owner
    }

    pub(crate) fn vfs(&self) -> &Arc<dyn Vfs> {
        &self.vfs
    }

    fn read_tree(&mut self) -> Result<()> {
        self.segment_files = list_if_there(&*self.vfs, &self.segments_dir())?
            .iter()
            .filter_map(|name| id_of(name))
            .filter(|id| *id <= SEGMENT_ID_MAX)
            .collect();
        match Manifest::read(&*self.vfs, &self.dir) {
            Ok(Some(manifest)) => self.manifest = Some(manifest),
            Ok(None) => {
                let file = self.dir.join(manifest::NAME);
                self.manifest_damage = Some(Error::Missing { file });
            }
            Err(error @ Error::Corrupt { .. }) => self.manifest_damage = Some(error),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl std::fmt::Debug for Directory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { dir, layout, .. } = self;
        f.debug_struct("Directory")
            .field("dir", dir)
            .field("layout", layout)
            .finish_non_exhaustive()
    }
}

/// The names in a directory, none if it is not there.
pub(crate) fn list_if_there(vfs: &dyn Vfs, dir: &Path) -> Result<Vec<String>> {
    match vfs.list(dir) {
        Ok(names) => Ok(names),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::io("list", dir)(error)),
    }
}

fn layout_of(names: &[String]) -> Option<Layout> {
    let store = [manifest::NAME, manifest::NAME_TEMPORARY, STORE_LOCK, SEGMENTS, LOG];
    if names.iter().any(|name| store.contains(&name.as_str())) {
        return Some(Layout::Store);
    }
    names.iter().any(|name| log::is_log_name(name)).then_some(Layout::Log)
}

fn lock_all(
    vfs: &dyn Vfs,
    dir: &Path,
    names: &[String],
    owner: &Owner,
) -> Result<Vec<Box<dyn VfsLock>>> {
    let log_dir = dir.join(LOG);
    let in_log = match names.iter().any(|name| name == LOG) {
        true => list_if_there(vfs, &log_dir)?,
        false => Vec::new(),
    };
    let ours = owner.locks.iter().copied().chain([STORE_LOCK, log::LOCK_NAME]);
    let here = ours.filter(|lock| names.iter().any(|name| name == lock)).map(|lock| dir.join(lock));
    let there = in_log.iter().filter(|name| *name == log::LOCK_NAME).map(|lock| log_dir.join(lock));
    let mut locks = Vec::new();
    for path in here.chain(there) {
        match vfs.lock(&path) {
            Ok(lock) => locks.push(lock),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => return Err(Error::Locked { path }),
                // Where nothing can be written no program is at work.
                io::ErrorKind::ReadOnlyFilesystem => {}
                _ => return Err(Error::io("lock", &path)(error)),
            },
        }
    }
    Ok(locks)
}
