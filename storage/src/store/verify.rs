//! Checks everything that is in segments, and reports all that is wrong with it.

use super::{Store, lock};
use crate::error::{Error, Result};
use crate::manifest::{self, Manifest};
use crate::segment::{Counted, Segment};

/// What [`Store::verify`] found.
#[derive(Debug, Default)]
pub struct VerifyReport {
    /// Segments that were read.
    pub segments: u64,
    /// Blocks of data that were right.
    pub blocks: u64,
    /// Entries that were right, versions and deletes included.
    pub entries: u64,
    /// Bytes of the segments that were read.
    pub bytes: u64,
    /// What is wrong; empty if nothing is.
    pub problems: Vec<Error>,
}

impl Store {
    /// Reads every segment, those included that are staged and sealed, and the manifest anew and
    /// checks them: checksums, order, the filters, and that they agree with each other. Reads and
    /// writes go on meanwhile. The log was checked when the store was opened.
    ///
    /// What is damaged is in the report; an error means that checking itself failed.
    pub fn verify(&self) -> Result<VerifyReport> {
        let mut report = VerifyReport::default();
        let inner = &self.inner;
        let (view, staged) = {
            // Under the lock, so that the file and the memory are of the same moment.
            let manifest = lock(&inner.manifest);
            match Manifest::read(&*inner.vfs, &inner.dir) {
                Ok(Some(stored)) if stored == *manifest => {}
                Ok(Some(_)) => {
                    let what = "the manifest on disk is another one than was written";
                    let path = inner.dir.join(manifest::NAME);
                    report.problems.push(Error::corrupt(&path, 0, what));
                }
                Ok(None) => {
                    report.problems.push(Error::Missing { file: inner.dir.join(manifest::NAME) });
                }
                Err(error @ Error::Corrupt { .. }) => report.problems.push(error),
                Err(error) => return Err(error),
            }
            (inner.view(), manifest.staged.clone())
        };
        if let Some((level, a, b)) = view.levels.overlap() {
            let what = format!("segments {a:#x} and {b:#x} of level {level} overlap");
            report.problems.push(Error::corrupt(&inner.segments_dir, 0, what));
        }
        for (_, segment) in view.levels.iter() {
            report.add(segment.meta().bytes, segment.check());
        }
        for meta in staged.iter().flat_map(|staged| &staged.segments) {
            let (dir, meta, planted) = (&inner.segments_dir, meta.clone(), inner.planted());
            let bytes = meta.bytes;
            let segment = Segment::open(&*inner.vfs, dir, meta, &inner.cache, planted);
            let is_gone = || lock(&inner.manifest).staged != staged;
            match segment {
                // Installed or thrown away since.
                Err(Error::Missing { .. }) if is_gone() => {}
                Err(error @ Error::Io { .. }) => return Err(error),
                segment => report.add(bytes, segment.and_then(|segment| segment.check())),
            }
        }
        Ok(report)
    }
}

impl VerifyReport {
    fn add(&mut self, bytes: u64, checked: Result<Counted>) {
        self.segments += 1;
        self.bytes += bytes;
        match checked {
            Ok(counted) => {
                self.blocks += counted.blocks;
                self.entries += counted.entries;
            }
            Err(problem) => self.problems.push(problem),
        }
    }
}
