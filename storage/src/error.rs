//! What can go wrong in the engine, told so that the reader knows what to do about it.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

/// The engine's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation of the engine failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried, to be read after "cannot".
        doing: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// Stored bytes are not what was written. Nothing of them was believed.
    #[error("{} is corrupt at byte {offset}: {what}", file.display())]
    Corrupt {
        /// The file that lied.
        file: PathBuf,
        /// Where in it the first doubtful byte stands, as near as is known.
        offset: u64,
        /// What does not fit.
        what: Cow<'static, str>,
    },

    /// An earlier write or sync failed, and nobody knows what it left on the disk. Everything
    /// acknowledged before is safe; nothing more is taken until the store is opened again.
    #[error("{} takes no more writes until it is opened again: {why}", path.display())]
    Poisoned {
        /// The file whose write or sync failed.
        path: PathBuf,
        /// The failure that did it.
        why: String,
    },

    /// No room on the disk. Reads go on; writes do once there is room again.
    #[error("disk full: no room to {doing} {}", path.display())]
    DiskFull {
        /// What was tried, to be read after "no room to".
        doing: &'static str,
        /// On which file or directory.
        path: PathBuf,
    },

    /// So much waits to be written that no more is taken. Nothing happened; try again once the
    /// disk has caught up.
    #[error("overloaded: {what}")]
    Overloaded {
        /// Which limit was met.
        what: Cow<'static, str>,
    },

    /// Another process, or another handle in this one, has the directory open.
    #[error("{} is locked: it is already open elsewhere", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },

    /// A file that must be there is not.
    #[error("{} is missing", file.display())]
    Missing {
        /// The file.
        file: PathBuf,
    },

    /// What is there is not all that was: a repair could not save everything, or was broken off.
    /// To serve it would be to deny what is lost.
    #[error("{} is not whole: {why}, as {} says", file.parent().unwrap_or(file).display(), file.display())]
    Incomplete {
        /// The file that says so, and what is lost.
        file: PathBuf,
        /// In a few words.
        why: &'static str,
    },

    /// The caller asked for what cannot be. Nothing happened.
    #[error("{what}")]
    Invalid {
        /// What was wrong with the request.
        what: Cow<'static, str>,
    },
}

/// Whether what ended in an error happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// It did not, and will not.
    No,
    /// Nobody knows: it may have, or may yet. Read, or do again what may be done twice.
    Unknown,
}

impl Error {
    /// Whether the write that ended in this error happened, as far as the error alone can tell.
    #[must_use]
    pub fn happened(&self) -> Happened {
        match self {
            Self::Invalid { .. }
            | Self::Overloaded { .. }
            | Self::Locked { .. }
            | Self::Missing { .. }
            | Self::Incomplete { .. } => Happened::No,
            Self::Io { .. }
            | Self::DiskFull { .. }
            | Self::Poisoned { .. }
            | Self::Corrupt { .. } => Happened::Unknown,
        }
    }

    /// What to do about it, in a sentence for people.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Io { .. } => "see that the disk is well and may be written to, then open again",
            Self::Corrupt { .. } => {
                "look at all damage (`inspect`), then restore a checkpoint, or save what can be \
                 saved (`repair`)"
            }
            Self::Poisoned { .. } => {
                "see that the disk is well, then open again: what was acknowledged is there"
            }
            Self::DiskFull { .. } => "make room on the disk: writes then go on by themselves",
            Self::Overloaded { .. } => "wait a little, and do it again",
            Self::Locked { .. } => "end the other process, or drop the other handle",
            Self::Missing { .. } => "put the file back, or restore a checkpoint, or `repair`",
            Self::Incomplete { .. } => {
                "read what the file says is lost; restore a checkpoint, or repair again"
            }
            Self::Invalid { .. } => "ask for something else: it is the caller's to mend",
        }
    }

    /// For `map_err`: an I/O error with what was tried and where. A full disk becomes
    /// [`Error::DiskFull`], whatever the operation.
    pub fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { doing, path: path.to_path_buf() }
            }
            _ => Self::Io { doing, path: path.to_path_buf(), source },
        }
    }

    /// Stored bytes at `offset` of `file` are not what was written.
    pub fn corrupt(file: &Path, offset: u64, what: impl Into<Cow<'static, str>>) -> Self {
        Self::Corrupt { file: file.to_path_buf(), offset, what: what.into() }
    }

    /// The caller asked for what cannot be.
    pub fn invalid(what: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid { what: what.into() }
    }
}
