//! Checkpoints: a second store with the same content, for the price of a few directory entries.

use std::path::Path;

use super::open::SEGMENTS;
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
    /// than the applied batches must save the rest itself. The directory must not hold a store yet. It holds one
    /// once this has returned; a crash before leaves nothing that can be opened by mistake.
    pub fn checkpoint(&self, dir: &Path) -> Result<()> {
        let inner = &self.inner;
        inner.flush_all()?;
        let segments_dir = dir.join(SEGMENTS);
        let vfs = &*inner.vfs;
        vfs.create_dir_all(&segments_dir)
            .map_err(Error::io("create the directory", &segments_dir))?;
        let names = vfs.list(&segments_dir).map_err(Error::io("list", &segments_dir))?;
        if !names.is_empty() || Manifest::read(vfs, dir)?.is_some() {
            let what = format!("{} already holds a store, or parts of one", dir.display());
            return Err(Error::invalid(what));
        }
        // Held throughout, so that no compaction removes a file before it is linked.
        let manifest = lock(&inner.manifest);
        for (_, segment) in &manifest.segments {
            let to = path_of(&segments_dir, segment.id);
            vfs.hard_link(&path_of(&inner.segments_dir, segment.id), &to)
                .map_err(Error::io("link", &to))?;
        }
        let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        for dir in [Some(segments_dir.as_path()), parent].into_iter().flatten() {
            vfs.sync_dir(dir).map_err(Error::io("sync the directory", dir))?;
        }
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
