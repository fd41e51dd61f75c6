//! What those who wait are told when the disk has failed, or would not.

use std::io;
use std::path::PathBuf;

use crate::error::Error;

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
    pub(super) fn new(error: &Error) -> Self {
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
