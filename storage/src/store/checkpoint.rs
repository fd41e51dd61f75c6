//! Checkpoints: a second store with the same content, for the price of a few directory entries.

use std::path::Path;

use super::open::{SEGMENTS, create_dir_durably};
use super::{Store, lock};
use crate::error::{Error, Result};
use crate::log::Position;
use crate::manifest::Manifest;
use crate::segment::path_of;

impl Store {
    /// Makes a store in another directory of the same file system, with everything that was
    /// applied before this call. Segments never change, so the two stores share them by hard
    /// links; the new one's log is empty.
    ///
    /// The records of an owner's log are not in it, and marks begin anew: an owner that needs more
    /// than the applied batches must save the rest itself.
    ///
    /// The directory is made, or must be empty. Once this has returned it holds a store, durably.
    /// After a crash or an error before that, it holds links at most, and no store: remove it, and
    /// try again. [`Options::create_if_missing`](crate::Options) keeps a directory in which there is
    /// no store from being taken for an empty one.
    ///
    /// This waits for the flush of what is in memory, and for no copying: afterwards the links cost
    /// disk space only as the two stores grow apart. To take a copy to another disk, copy the files of
    /// the checkpoint, which never change while nobody opens it.
    pub fn checkpoint(&self, dir: &Path) -> Result<()> {
        let inner = &self.inner;
        inner.flush_all()?;
        let segments_dir = dir.join(SEGMENTS);
        let vfs = &*inner.vfs;
        create_dir_durably(vfs, &segments_dir)?;
        let names = vfs.list(&segments_dir).map_err(Error::io("list", &segments_dir))?;
        if !names.is_empty() || Manifest::read(vfs, dir)?.is_some() {
            let dir = dir.display();
            let what = format!("{dir} already holds a store, or parts of one: choose another");
            return Err(Error::invalid(what));
        }
        // Held throughout, so that no compaction removes a file before it is linked.
        let manifest = lock(&inner.manifest);
        for (_, segment) in &manifest.segments {
            let to = path_of(&segments_dir, segment.id);
            vfs.hard_link(&path_of(&inner.segments_dir, segment.id), &to)
                .map_err(Error::io("link", &to))?;
        }
        vfs.sync_dir(&segments_dir).map_err(Error::io("sync the directory", &segments_dir))?;
        let copy = Manifest {
            // As that of a new store, whose log is not there yet.
            generation: 1,
            flushed_position: Position(0),
            // Marks are commonly positions in the log, which begins anew.
            flushed_mark: 0,
            // They are no part of what was applied.
            staged: None,
            ..manifest.clone()
        };
        copy.write(vfs, dir, inner.options.planted)
    }
}
