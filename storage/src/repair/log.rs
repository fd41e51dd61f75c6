//! Writes the part of a log that can be used, as a log of its own.

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::inspect::{Directory, LogPlan};
use crate::log::{LogItem, Rewriter};
use crate::options::Options;

/// Writes the planned records, under their positions, into a directory that holds no log.
pub(super) fn write(
    source: &Directory,
    plan: &LogPlan,
    dir: &Path,
    options: &Options,
) -> Result<()> {
    let first = plan.used.start.max(1);
    let mut rewriter = Rewriter::begin(Arc::clone(source.vfs()), dir, options.log, first)?;
    let mut expected = first;
    let mut survey = source.log()?;
    while let Some(item) = survey.next()? {
        let LogItem::Record(record) = item else { continue };
        if !plan.used.contains(&record.position.0) {
            continue;
        }
        if record.position.0 != expected {
            return Err(Error::corrupt(&source.log_dir(), 0, "the log changes while it is read"));
        }
        expected += 1;
        rewriter.add(record.kind, &record.payload)?;
    }
    if expected != plan.used.end.max(first) {
        return Err(Error::corrupt(&source.log_dir(), 0, "the log changes while it is read"));
    }
    rewriter.finish()
}
