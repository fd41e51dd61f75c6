//! Checks everything that is in segments, and reports all that is wrong with it.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Store, View, lock};
use crate::error::{Error, Result};
use crate::manifest::{self, Manifest, Staged};
use crate::segment::{Counted, Segment};

/// A check at a bounded rate rests whenever it is so much ahead.
const REST_MIN: Duration = Duration::from_millis(5);

/// What [`Store::verify`] found. As text it is a line for each problem, and a summary.
#[derive(Debug, Default)]
#[non_exhaustive]
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
    /// Whether it was stopped before all was read.
    pub was_stopped: bool,
}

/// How far a check has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyProgress {
    /// Bytes of segments that were read.
    pub bytes: u64,
    /// Those that there are to read.
    pub bytes_total: u64,
    /// Problems that were found.
    pub problems: usize,
}

impl Store {
    /// Reads every segment, those included that are staged and sealed, and the manifest anew and
    /// checks them: checksums, order, the filters, and that they agree with each other. Reads and
    /// writes go on meanwhile. The log was checked when the store was opened.
    ///
    /// What is damaged is in the report; an error means that checking itself failed.
    pub fn verify(&self) -> Result<VerifyReport> {
        self.verify_with(u64::MAX, |_| true)
    }

    /// As [`Store::verify`], beside other work: it reads at most so many bytes a second, resting on
    /// the caller's thread, and calls `go_on` after each block of data, which stops it by answering
    /// `false`.
    pub fn verify_with(
        &self,
        bytes_per_second: u64,
        go_on: impl FnMut(VerifyProgress) -> bool,
    ) -> Result<VerifyReport> {
        let mut report = VerifyReport::default();
        let (view, staged) = self.check_manifest(&mut report)?;
        if let Some((level, a, b)) = view.levels.overlap() {
            let what = format!("segments {a:#x} and {b:#x} of level {level} overlap");
            report.problems.push(Error::corrupt(&self.inner.segments_dir, 0, what));
        }
        let waiting = || staged.iter().flat_map(|staged| &staged.segments);
        let metas = view.levels.iter().map(|(_, segment)| segment.meta()).chain(waiting());
        let mut pace = Pace {
            bytes_per_second: bytes_per_second.max(1),
            begun: Instant::now(),
            bytes_total: metas.map(|meta| meta.bytes).sum(),
            go_on,
        };
        for (_, segment) in view.levels.iter() {
            if !pace.check(&mut report, segment) {
                return Ok(report);
            }
        }
        for meta in waiting() {
            let inner = &self.inner;
            let (dir, planted) = (&inner.segments_dir, inner.planted());
            let segment = Segment::open(&*inner.vfs, dir, meta.clone(), &inner.cache, planted);
            let is_gone = || lock(&inner.manifest).staged != staged;
            match segment {
                // Installed or thrown away since.
                Err(Error::Missing { .. }) if is_gone() => {}
                Err(error @ Error::Io { .. }) => return Err(error),
                Err(error) => report.add(meta.bytes, Err(error)),
                Ok(segment) if !pace.check(&mut report, &segment) => return Ok(report),
                Ok(_) => {}
            }
        }
        Ok(report)
    }

    /// Reads the manifest again. Answers with the tree, and with what is staged, as it says.
    fn check_manifest(&self, report: &mut VerifyReport) -> Result<(Arc<View>, Option<Staged>)> {
        let inner = &self.inner;
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
        Ok((inner.view(), manifest.staged.clone()))
    }
}

/// A check under way.
struct Pace<F> {
    bytes_per_second: u64,
    begun: Instant,
    bytes_total: u64,
    go_on: F,
}

impl<F: FnMut(VerifyProgress) -> bool> Pace<F> {
    /// Checks a segment; whether to go on.
    fn check(&mut self, report: &mut VerifyReport, segment: &Segment) -> bool {
        let (before, problems) = (report.bytes, report.problems.len());
        let checked = segment.check_while(&mut |read| self.is_to_go_on(before + read, problems));
        let checked = match checked {
            Ok(None) => {
                report.was_stopped = true;
                return false;
            }
            Ok(Some(counted)) => Ok(counted),
            Err(problem) => Err(problem),
        };
        report.add(segment.meta().bytes, checked);
        true
    }

    fn is_to_go_on(&mut self, bytes: u64, problems: usize) -> bool {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let due = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let ahead = due.saturating_sub(self.begun.elapsed());
        if ahead >= REST_MIN {
            std::thread::sleep(ahead);
        }
        (self.go_on)(VerifyProgress { bytes, bytes_total: self.bytes_total, problems })
    }
}

impl VerifyReport {
    /// Whether all was read, and nothing is wrong with it.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty() && !self.was_stopped
    }

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

impl Display for VerifyReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "{problem}")?;
        }
        let VerifyReport { segments, blocks, entries, bytes, .. } = self;
        let verdict = match (self.problems.len(), self.was_stopped) {
            (0, false) => "nothing is wrong".to_owned(),
            (0, true) => "stopped before the end, nothing wrong so far".to_owned(),
            (1, _) => "1 problem".to_owned(),
            (count, _) => format!("{count} problems"),
        };
        write!(
            f,
            "{segments} segments, {blocks} blocks, {entries} entries, {bytes} bytes: {verdict}"
        )
    }
}
