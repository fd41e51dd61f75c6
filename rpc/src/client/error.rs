//! What a client is told when an operation did not end well.

use std::fmt;
use std::time::Duration;

use kvorum_replication::{Failure, Happened, NodeId};

/// Why an operation failed, whether it happened all the same, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ClientError {
    /// The sort of failure, for programs.
    pub kind: ErrorKind,
    /// Whether the operation may have changed something.
    pub happened: Happened,
    /// Of a transaction that did not happen since a precondition does not hold: which one, from 0.
    pub failed_precondition: Option<usize>,
    /// What went wrong, and where.
    pub what: String,
    /// What to do about it; a sentence.
    pub remedy: String,
}

/// What to do if too little of the cluster can be reached.
const DID_NOT_HAPPEN: &str =
    "it did not happen: see kvorum status, and try again once enough nodes are up";

/// What to do if more is asked than can be done.
const TOO_MUCH: &str = "it did not happen: try again a little later, with fewer at a time";

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
    /// The snapshot of a long scan is not held any more.
    SnapshotExpired,
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
    /// There is no room on a disk.
    DiskFull,
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
            Self::SnapshotExpired => "snapshot-expired",
            Self::Unknown => "unknown",
            Self::SessionExpired => "session-expired",
            Self::StaleSequence => "stale-sequence",
            Self::Invalid => "invalid",
            Self::Refused => "refused",
            Self::DiskFull => "disk-full",
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

impl ClientError {
    /// A server's failure, in words for whoever has to do something about it.
    pub(super) fn from_failure(operation: &str, failure: Failure, at: &str) -> Self {
        let happened = failure.happened();
        let mut failed_precondition = None;
        if let Failure::PreconditionFailed { index, .. } = &failure {
            failed_precondition = usize::try_from(*index).ok();
        }
        let (kind, why, remedy) = explain(failure);
        let what = format!("{operation} failed: {why} ({at})");
        Self { kind, happened, failed_precondition, what, remedy: remedy.to_owned() }
    }

    pub(super) fn invalid(reason: String) -> Self {
        Self::new(ErrorKind::Invalid, Happened::No, reason, "make it smaller, or split it")
    }

    pub(super) fn no_address() -> Self {
        let what = "no address to connect to".to_owned();
        Self::new(ErrorKind::Invalid, Happened::No, what, "name one with --connect HOST:PORT")
    }

    /// A key that a transaction has read was changed before it could commit.
    pub(super) fn changed(key: &[u8]) -> Self {
        let what = format!("transaction failed: key {} was changed meanwhile", Shown(key));
        Self::new(ErrorKind::Conflict, Happened::No, what, "try again")
    }

    /// A precondition was found not to hold, by reading.
    pub(super) fn does_not_hold(index: usize, key: &[u8]) -> Self {
        let what = format!("precondition {} does not hold of key {}", index + 1, Shown(key));
        Self {
            failed_precondition: Some(index),
            ..Self::new(
                ErrorKind::PreconditionFailed,
                Happened::No,
                what,
                "read the key, and decide anew",
            )
        }
    }

    /// The same conflict, which was met with every try.
    pub(super) fn gave_up(self, tries: u32, timeout: Duration) -> Self {
        let tries = match tries {
            1 => return self,
            tries => format!("{tries} tries within {} ms", timeout.as_millis()),
        };
        Self { what: format!("{}; gave up after {tries}", self.what), ..self }
    }

    /// A server that answers pages without saying of which snapshot.
    pub(super) fn holds_no_snapshots(at: &str) -> Self {
        Self::refused(format!("{at} holds no snapshots for long scans"))
    }

    pub(super) fn unreachable(reasons: String) -> Self {
        Self::new(
            ErrorKind::Unavailable,
            Happened::No,
            format!("cannot connect: {reasons}"),
            "check that the server runs and listens there",
        )
    }

    pub(super) fn refused(reasons: String) -> Self {
        Self::new(
            ErrorKind::Refused,
            Happened::No,
            format!("the server refuses: {reasons}"),
            "check the token, and that client and server are of one version",
        )
    }

    pub(super) fn misdirected(at: &str) -> Self {
        let what = format!("{at} does not serve this, and does not know who does");
        Self::new(ErrorKind::Refused, Happened::No, what, "connect to the coordinator")
    }

    /// What an operation had to do first failed, so it was not even asked for.
    pub(super) fn before_it_began(self) -> Self {
        match self.kind {
            ErrorKind::Unknown => {
                Self::new(ErrorKind::Unavailable, Happened::No, self.what, DID_NOT_HAPPEN)
            }
            _ => Self { happened: Happened::No, ..self },
        }
    }

    pub(super) fn overloaded(what: String) -> Self {
        Self::new(ErrorKind::Overloaded, Happened::No, what, TOO_MUCH)
    }

    pub(super) fn late(what: String) -> Self {
        Self::new(ErrorKind::Unavailable, Happened::No, what, "see kvorum status, and try again")
    }

    pub(super) fn unknown(what: String) -> Self {
        Self::new(
            ErrorKind::Unknown,
            Happened::Unknown,
            what,
            "read the keys to see whether it happened",
        )
    }

    pub(super) fn garbled(what: String, writes: bool) -> Self {
        match writes {
            true => Self::unknown(what),
            false => Self::refused(what),
        }
    }

    fn new(kind: ErrorKind, happened: Happened, what: String, remedy: &str) -> Self {
        Self { kind, happened, failed_precondition: None, what, remedy: remedy.to_owned() }
    }
}

fn explain(failure: Failure) -> (ErrorKind, String, &'static str) {
    match failure {
        Failure::Conflict { key } => (
            ErrorKind::Conflict,
            format!("another transaction in flight holds key {}", Shown(&key)),
            "try again",
        ),
        Failure::PreconditionFailed { index, key } => (
            ErrorKind::PreconditionFailed,
            format!("precondition {} does not hold of key {}", index + 1, Shown(&key)),
            "read the key, and decide anew",
        ),
        Failure::Unavailable { reason } => (ErrorKind::Unavailable, reason, DID_NOT_HAPPEN),
        Failure::Overloaded => (
            ErrorKind::Overloaded,
            "too many requests are in flight".to_owned(),
            TOO_MUCH,
        ),
        Failure::SnapshotExpired => (
            ErrorKind::SnapshotExpired,
            "the snapshot of this scan is not held any more: nothing was read of it for too long, or \
             its replica was lost"
                .to_owned(),
            "scan again",
        ),
        Failure::Unknown { reason } => {
            (ErrorKind::Unknown, reason, "read the keys to see whether it happened")
        }
        Failure::SessionExpired => (
            ErrorKind::SessionExpired,
            "the cluster has forgotten this client's session, and with it whether an earlier try \
             happened"
                .to_owned(),
            "read the keys to see whether it happened",
        ),
        Failure::StaleSequence => (
            ErrorKind::StaleSequence,
            "the client had already settled this write".to_owned(),
            "read the keys to see whether it happened",
        ),
        Failure::Invalid { reason } => (ErrorKind::Invalid, reason, "make it smaller, or split it"),
        Failure::Redirect { to } => (
            ErrorKind::Refused,
            format!("this node does not serve that, {to} does"),
            "connect to that one",
        ),
        Failure::DiskFull { node } => (
            ErrorKind::DiskFull,
            format!("there is no room on the disk of {}", named(node)),
            "free some; reads go on, and writes will once there is room",
        ),
        Failure::Storage { reason } => (
            ErrorKind::Corrupt,
            reason,
            "see that server's log, and kvorum store verify on its data directory",
        ),
    }
}

fn named(node: NodeId) -> String {
    match node {
        NodeId::COORDINATOR => "the coordinator".to_owned(),
        NodeId(number) => format!("replica {number}"),
    }
}

/// A key as a person can read it.
struct Shown<'a>(&'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const BYTES_MAX: usize = 64;
        let (head, rest) = self.0.split_at(self.0.len().min(BYTES_MAX));
        write!(f, "\"{}\"", head.escape_ascii())?;
        match rest.is_empty() {
            true => Ok(()),
            false => write!(f, "... of {} bytes", self.0.len()),
        }
    }
}
