//! Writes records that were read from a damaged log as a new one, under the same positions.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use super::files::{Files, Live};
use super::maker::{Failure, Maker};
use super::state::{End, GROUP_BYTES, State};
use super::{Log, LogOptions, lock};
use crate::error::{Error, Result};
use crate::vfs::Vfs;

/// A log that is being written by its one owner. It counts once [`Rewriter::finish`] has returned.
pub(crate) struct Rewriter {
    log: Log,
}

impl Rewriter {
    /// Begins a log whose first record has this position, in a directory that holds none.
    pub(crate) fn begin(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        options: LogOptions,
        first: u64,
    ) -> Result<Self> {
        options.validate()?;
        let maker = Maker { vfs: &*vfs, dir, options: &options, number: 1, first, frame_bytes: 0 };
        let end = End::of_new(maker.make().map_err(Failure::into_error)?);
        let live = Live { number: 1, first, bytes: end.offset };
        let files = Files::new(VecDeque::from([live]), Vec::new());
        let state = State::new(first - 1, end);
        Ok(Self { log: Log::assemble(vfs, dir, options, state, files, None) })
    }

    /// Adds the next record.
    pub(crate) fn add(&mut self, kind: u8, payload: &[u8]) -> Result<()> {
        self.log.append(kind, payload)?;
        if self.log.pending_bytes() >= GROUP_BYTES { self.log.write() } else { Ok(()) }
    }

    /// Makes everything durable, and adds the mark that bears witness of it.
    pub(crate) fn finish(self) -> Result<()> {
        self.log.sync(self.log.last())?;
        self.log.mark()?;
        let file = Arc::clone(&lock(&self.log.state).end.file);
        file.file.sync().map_err(Error::io("sync", &file.path))
    }
}
