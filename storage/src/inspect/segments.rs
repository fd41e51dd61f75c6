//! The files of segments.

use std::io;

use bytes::Bytes;

use super::Directory;
use crate::error::{Error, Result};
use crate::segment::{SegmentMeta, path_of};
use crate::vfs::{OpenMode, VfsFile};

/// A segment's content, mapped; fails with [`Error::Missing`] if it is not there.
pub(crate) fn map_segment(directory: &Directory, id: u64) -> Result<Bytes> {
    let path = path_of(&directory.segments_dir(), id);
    let file = open(directory, id)?;
    file.map().map_err(Error::io("map", &path))
}

/// A segment's content, read: a page that the disk cannot give is an error here, where with a map
/// it would be the end of the process.
pub(super) fn read_segment(directory: &Directory, id: u64) -> Result<Bytes> {
    let path = path_of(&directory.segments_dir(), id);
    let file = open(directory, id)?;
    let len = file.len().map_err(Error::io("read", &path))?;
    let len = usize::try_from(len).map_err(|_| Error::corrupt(&path, 0, "too long a segment"))?;
    let mut bytes = vec![0; len];
    let count = file.read_at(&mut bytes, 0).map_err(Error::io("read", &path))?;
    bytes.truncate(count);
    Ok(bytes.into())
}

fn open(directory: &Directory, id: u64) -> Result<std::sync::Arc<dyn VfsFile>> {
    let path = path_of(&directory.segments_dir(), id);
    directory.vfs().open(&path, OpenMode::Read).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Error::Missing { file: path.clone() },
        _ => Error::io("open", &path)(source),
    })
}

impl Directory {
    /// The segments of the tree, each with its level and what the manifest says of it; without a
    /// manifest all that are there, on no level.
    pub(crate) fn tree(&self) -> Vec<(Option<usize>, u64, Option<SegmentMeta>)> {
        match &self.manifest {
            Some(manifest) => manifest
                .segments
                .iter()
                .map(|(level, meta)| (Some(*level), meta.id, Some(meta.clone())))
                .collect(),
            None => self.segment_files.iter().map(|id| (None, *id, None)).collect(),
        }
    }
}
