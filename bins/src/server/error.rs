//! Why a server did not start, or has stopped: what, where, and what to do; and its exit code.

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use kvorum_node::NodeError;
use kvorum_storage::Error as StorageError;

/// Why a server ended.
#[derive(Debug)]
pub(super) struct ServeError {
    kind: Kind,
    what: String,
    /// Empty if what to do is plain.
    remedy: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Something failed while it served, or kept it from serving.
    Failed,
    /// The command line is wrong.
    Usage,
    /// The address or the data directory is somebody else's.
    Refused,
    /// The data is not what was written.
    Corrupt,
}

impl ServeError {
    pub(super) fn failed(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { kind: Kind::Failed, what: what.into(), remedy: remedy.into() }
    }

    pub(super) fn usage(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, what: what.into(), remedy: remedy.into() }
    }

    pub(super) fn refused(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { kind: Kind::Refused, what: what.into(), remedy: remedy.into() }
    }

    fn corrupt(what: impl Into<String>) -> Self {
        let remedy = "nothing was changed. kvorum store verify names all that is wrong, and kvorum \
                      store repair saves what it can; the other replicas hold the same rows";
        Self { kind: Kind::Corrupt, what: what.into(), remedy: remedy.to_owned() }
    }

    fn incomplete(what: impl Into<String>) -> Self {
        let remedy = "a node that has lost rows or promises may not serve. kvorum store dump reads \
                      what is left; the other replicas hold the same rows";
        Self { kind: Kind::Corrupt, what: what.into(), remedy: remedy.to_owned() }
    }

    /// What a node's error means to whoever started it on this directory.
    pub(super) fn of_node(error: NodeError, data_dir: &Path) -> Self {
        let what = error.to_string();
        match error {
            NodeError::Storage(error) => Self::of_storage(&error, data_dir),
            NodeError::Record { .. } => Self::corrupt(what),
            // Says itself what to do.
            NodeError::WrongIdentity { .. }
            | NodeError::WrongProtocol { .. }
            | NodeError::WrongWindow { .. } => Self::refused(what, ""),
            NodeError::CannotRejoin { .. } => Self::usage(
                what,
                "its rows are on the other nodes: take them into a new cluster (kvorum export)",
            ),
            NodeError::WrongCluster { .. } => Self::refused(
                what,
                "start it among the processes of its own cluster, or give it another --data-dir",
            ),
            NodeError::FailPoint(_) => Self::usage(what, ""),
            NodeError::Thread(_) => Self::failed(what, "raise the limit of processes (ulimit -u)"),
        }
    }

    fn of_storage(error: &StorageError, data_dir: &Path) -> Self {
        let what = error.to_string();
        match error {
            StorageError::Corrupt { .. } | StorageError::Missing { .. } => Self::corrupt(what),
            StorageError::Incomplete { .. } => Self::incomplete(what),
            StorageError::Locked { .. } => Self::refused(
                format!("the data directory {} is in use by another process", data_dir.display()),
                "stop that process, or give this one a --data-dir of its own",
            ),
            StorageError::DiskFull { .. } => {
                Self::failed(what, "make room on that disk, and start again: nothing is lost")
            }
            StorageError::Io { .. } => Self::failed(
                what,
                "see that the directory can be written to and that the disk is well, and start again",
            ),
            StorageError::Poisoned { .. } => Self::failed(
                what,
                "see that the disk is well, and start again: what was acknowledged is safe",
            ),
            StorageError::Overloaded { .. } | StorageError::Invalid { .. } => {
                Self::failed(what, "")
            }
        }
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self.kind {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Refused => 4,
            Kind::Corrupt => 6,
        })
    }
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kvorumd: {}", self.what)?;
        if !self.remedy.is_empty() {
            write!(f, "\n  {}", self.remedy)?;
        }
        Ok(())
    }
}
