//! What a client is told when an operation did not end well.

use std::fmt;

use kvorum_replication::Happened;

/// Why an operation failed, whether it happened all the same, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ClientError {
    /// The sort of failure, for programs.
    pub kind: ErrorKind,
    /// Whether the operation may have changed something.
    pub happened: Happened,
    /// What went wrong, and where.
    pub what: String,
    /// What to do about it; a sentence.
    pub remedy: String,
}

/// The sorts of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Another transaction in flight holds a key.
    Conflict,
    /// A precondition of the transaction does not hold.
    PreconditionFailed,
    /// Too little of the cluster can be reached.
    Unavailable,
    /// Too much is in flight.
    Overloaded,
    /// The deadline came before the outcome was known.
    Unknown,
    /// The cluster does not know the client's session any more.
    SessionExpired,
    /// The client had said that it would not ask for this write again.
    StaleSequence,
    /// The request breaks a limit or a rule.
    Invalid,
    /// The server does not let this client in, or speaks another protocol.
    Refused,
    /// A store is corrupt, or its disk fails.
    Corrupt,
}

impl ErrorKind {
    /// The name by which programs know it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::PreconditionFailed => "precondition-failed",
            Self::Unavailable => "unavailable",
            Self::Overloaded => "overloaded",
            Self::Unknown => "unknown",
            Self::SessionExpired => "session-expired",
            Self::StaleSequence => "stale-sequence",
            Self::Invalid => "invalid",
            Self::Refused => "refused",
            Self::Corrupt => "corrupt",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}
