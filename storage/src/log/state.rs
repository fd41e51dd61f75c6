//! What the threads that append and those that wait share: the records that wait to be written,
//! and how far the log has come.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;

use super::frame::Group;
use super::options::LogStats;
use super::writer::{Failure, Writer};
use crate::error::Error;

/// A frame takes no more records once it is this big, so that replaying holds little in memory,
/// and large backlogs fit into files.
pub(super) const GROUP_BYTES: usize = 1 << 20;

/// So many buffers are kept for the groups to come.
const SPARE_BUFFERS_MAX: usize = 4;

/// A buffer that a huge record has blown up beyond this is not kept.
const SPARE_BYTES_MAX: usize = 4 * GROUP_BYTES;

/// How far a caller wants its record to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// Handed to the system: it survives the end of the process.
    Written,
    /// Synced: it survives a power cut.
    Durable,
}

/// Guarded by the log's one lock, which nobody holds while the disk works.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Records that wait, oldest first; new ones join the last group.
    groups: VecDeque<Group>,
    pub(super) pending_bytes: usize,
    spare: Vec<Vec<u8>>,
    /// The last position given out.
    pub(super) last: u64,
    pub(super) written: u64,
    pub(super) durable: u64,
    /// How many bytes of the last file are in use.
    pub(super) file_bytes: u64,
    /// A thread is writing for all.
    pub(super) leading: bool,
    /// So many rounds were refused by the disk and will be tried again.
    pub(super) refusals: u64,
    /// What the last round met with, if it was refused.
    pub(super) refusal: Option<Refusal>,
    pub(super) poison: Option<Poison>,
    pub(super) stats: LogStats,
}

/// Why the log takes no more.
#[derive(Clone, Debug)]
pub(super) struct Poison {
    pub(super) path: PathBuf,
    pub(super) why: String,
}

impl Poison {
    pub(super) fn error(&self) -> Error {
        Error::Poisoned { path: self.path.clone(), why: self.why.clone() }
    }
}

/// An error that each of those who waited is told.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    doing: &'static str,
    path: PathBuf,
    kind: io::ErrorKind,
    why: String,
}

impl Refusal {
    fn new(error: &Error) -> Self {
        let why = error.to_string();
        match error {
            Error::DiskFull { doing, path } => {
                Self { doing, path: path.clone(), kind: io::ErrorKind::StorageFull, why }
            }
            Error::Io { doing, path, source } => {
                Self { doing, path: path.clone(), kind: source.kind(), why: source.to_string() }
            }
            Error::Corrupt { .. }
            | Error::Poisoned { .. }
            | Error::Overloaded { .. }
            | Error::Locked { .. }
            | Error::Missing { .. }
            | Error::Incomplete { .. }
            | Error::Invalid { .. } => {
                Self { doing: "write", path: PathBuf::new(), kind: io::ErrorKind::Other, why }
            }
        }
    }

    pub(super) fn error(&self) -> Error {
        Error::io(self.doing, &self.path)(io::Error::new(self.kind, self.why.clone()))
    }
}

impl State {
    /// Nothing waits, and everything up to `durable` is.
    pub(super) fn new(durable: u64, file_bytes: u64) -> Self {
        Self { last: durable, written: durable, durable, file_bytes, ..Self::default() }
    }

    /// The last position that has come so far.
    pub(super) fn reached(&self, goal: Goal) -> u64 {
        match goal {
            // After a failure the system may hold it or not.
            Goal::Written if self.poison.is_some() => self.durable,
            Goal::Written => self.written,
            Goal::Durable => self.durable,
        }
    }

    /// Gives a record the next position and a place in the group that is forming.
    pub(super) fn append(&mut self, kind: u8, parts: &[&[u8]]) -> u64 {
        let position = self.last + 1;
        if self.groups.back().is_none_or(|group| group.bytes() >= GROUP_BYTES) {
            let buffer = self.spare.pop().unwrap_or_default();
            self.groups.push_back(Group::new(position, buffer));
        }
        let group = self.groups.back_mut().expect("there is a group: one was pushed if need be");
        let before = group.bytes();
        group.push(kind, parts);
        self.pending_bytes += group.bytes() - before;
        self.last = position;
        self.stats.appends += 1;
        position
    }

    /// Hands what waits to the leader; new records form new groups meanwhile.
    pub(super) fn take(&mut self) -> VecDeque<Group> {
        std::mem::take(&mut self.groups)
    }

    /// Takes account of what a leader has done. `left` it has not written.
    pub(super) fn settle(
        &mut self,
        writer: &Writer,
        done: Vec<Group>,
        mut left: VecDeque<Group>,
        failure: Option<&Failure>,
    ) {
        self.written = writer.written();
        self.durable = writer.durable();
        self.file_bytes = writer.bytes();
        writer.count(&mut self.stats);
        for group in done {
            self.pending_bytes -= group.payload_bytes();
            self.keep(group.into_buffer());
        }
        left.append(&mut self.groups);
        self.groups = left;
        self.refusal = None;
        match failure {
            None => {}
            Some(Failure::Refused(error)) => {
                self.refusals += 1;
                self.refusal = Some(Refusal::new(error));
            }
            Some(Failure::Broken(error)) => {
                let path = writer.path().to_path_buf();
                self.poison.get_or_insert(Poison { path, why: error.to_string() });
            }
        }
    }

    fn keep(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS_MAX && buffer.capacity() <= SPARE_BYTES_MAX {
            self.spare.push(buffer);
        }
    }
}
