//! Writes records that were read from a damaged log as a new one, under the same positions.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::LogOptions;
use super::files::{Files, Live};
use super::frame::Group;
use super::state::GROUP_BYTES;
use super::writer::{Failure, Maker, Writer};
use crate::error::{Error, Result};
use crate::vfs::Vfs;

/// A log that is being written by its one owner. It counts once [`Rewriter::finish`] has returned.
pub(crate) struct Rewriter {
    writer: Writer,
    files: Mutex<Files>,
    group: Group,
    options: LogOptions,
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
        let maker = Maker {
            vfs: &*vfs,
            dir,
            number: 1,
            first,
            capacity: options.file_bytes,
            planted: options.planted,
        };
        let file = maker.make(options.salt).map_err(error_of)?;
        let live = Live { number: 1, first, bytes: file.offset };
        let files = Mutex::new(Files::new(VecDeque::from([live]), Vec::new()));
        let writer = Writer::new(vfs, dir, options, file, first - 1, true);
        Ok(Self { writer, files, group: Group::new(first, Vec::new()), options })
    }

    /// Adds the next record.
    pub(crate) fn add(&mut self, kind: u8, payload: &[u8]) -> Result<()> {
        if payload.len() > self.options.record_bytes_max {
            let what =
                format!("a log record of {} bytes is more than the options allow", payload.len());
            return Err(Error::invalid(what));
        }
        self.group.push(kind, &[payload]);
        if self.group.payload_bytes() >= GROUP_BYTES { self.write() } else { Ok(()) }
    }

    /// Makes everything durable, and adds the mark that bears witness of it.
    pub(crate) fn finish(mut self) -> Result<()> {
        if self.group.payload_bytes() > 0 {
            self.write()?;
        }
        self.writer.sync().map_err(error_of)?;
        self.writer.mark()?;
        self.writer.sync().map_err(error_of)
    }

    fn write(&mut self) -> Result<()> {
        self.writer.write(&mut self.group, &self.files).map_err(error_of)?;
        self.group = Group::new(self.group.last() + 1, Vec::new());
        Ok(())
    }
}

fn error_of(failure: Failure) -> Error {
    let (Failure::Refused(error) | Failure::Broken(error)) = failure;
    error
}
