//! Why a command did not end well: for people on standard error, for programs as JSON and as the
//! exit code.

use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

use kvorum_replication::Happened;
use kvorum_rpc::client::{ClientError, ErrorKind};
use serde_json::json;

use crate::output::Format;
use crate::statement::SyntaxError;
use crate::text::quoted;

/// What went wrong, as `kind` in JSON names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The key is not there.
    NotFound,
    /// The command line, a statement or an input file is wrong.
    Usage,
    /// The cluster, or one of its processes, said so.
    Cluster(ErrorKind),
    /// A data directory is in use, or is none.
    Refused,
    /// A data directory is damaged.
    Corrupt,
    /// A local file, pipe or terminal failed.
    Io,
    /// Whoever reads our output has stopped reading, as `head` does. Nothing to report.
    OutputClosed,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::Usage => "usage",
            Self::Cluster(kind) => kind.name(),
            Self::Refused => "refused",
            Self::Corrupt => "corrupt",
            Self::Io => "io",
            Self::OutputClosed => "output-closed",
        }
    }
}

/// A command's error.
#[derive(Clone, Debug)]
pub(crate) struct CommandError {
    /// What went wrong.
    pub(crate) kind: Kind,
    /// Whether the cluster may have changed.
    pub(crate) happened: Happened,
    /// What and where, in one sentence without a full stop.
    pub(crate) what: String,
    /// What to do about it; empty if that is plain.
    pub(crate) remedy: String,
}

impl CommandError {
    /// The command line or the input is wrong.
    pub(crate) fn usage(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, happened: Happened::No, what: what.into(), remedy: remedy.into() }
    }

    /// The same error, with the line of the input that it is about.
    pub(crate) fn on_line(self, number: usize) -> Self {
        Self { what: format!("line {number}: {}", self.what), ..self }
    }

    /// The key is not there.
    pub(crate) fn not_found(key: &[u8]) -> Self {
        Self {
            kind: Kind::NotFound,
            happened: Happened::No,
            what: format!("there is no key {}", quoted(key)),
            remedy: String::new(),
        }
    }

    /// Something of this machine failed, not of the cluster.
    pub(crate) fn io(doing: &str, error: &io::Error) -> Self {
        Self {
            kind: Kind::Io,
            happened: Happened::No,
            what: format!("{doing}: {error}"),
            remedy: String::new(),
        }
    }

    /// The exit code, as `kvorum --help` lists them.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }

    /// As [`Self::exit_code`], for those who compare.
    pub(crate) fn code(&self) -> u8 {
        if self.happened == Happened::Unknown {
            return 5;
        }
        match self.kind {
            Kind::OutputClosed => 0,
            Kind::NotFound => 1,
            Kind::Usage | Kind::Cluster(ErrorKind::Invalid) => 2,
            Kind::Cluster(ErrorKind::Conflict | ErrorKind::PreconditionFailed) => 3,
            Kind::Io
            | Kind::Refused
            | Kind::Cluster(
                ErrorKind::Unavailable
                | ErrorKind::Overloaded
                | ErrorKind::SnapshotExpired
                | ErrorKind::DiskFull
                | ErrorKind::Refused,
            ) => 4,
            Kind::Cluster(
                ErrorKind::Unknown | ErrorKind::SessionExpired | ErrorKind::StaleSequence,
            ) => 5,
            Kind::Corrupt | Kind::Cluster(ErrorKind::Corrupt) => 6,
        }
    }

    /// The error as it goes to standard error, without a newline at the end.
    pub(crate) fn render(&self, format: Format) -> String {
        match format {
            Format::Text => {
                let mut text = format!("kvorum: {}", self.what);
                if !self.remedy.is_empty() {
                    // Writing to a string cannot fail.
                    let _ = write!(text, "\n  {}", self.remedy);
                }
                text
            }
            Format::Json => {
                let error = match &self.remedy[..] {
                    "" => self.what.clone(),
                    remedy => format!("{}; {remedy}", self.what),
                };
                let happened = match self.happened {
                    Happened::No => "no",
                    Happened::Unknown => "unknown",
                };
                json!({"error": error, "kind": self.kind.name(), "happened": happened}).to_string()
            }
        }
    }
}

impl From<ClientError> for CommandError {
    fn from(error: ClientError) -> Self {
        Self {
            kind: Kind::Cluster(error.kind),
            happened: error.happened,
            what: format!("{}: {}", error.kind, error.what),
            remedy: error.remedy,
        }
    }
}

impl From<SyntaxError> for CommandError {
    fn from(error: SyntaxError) -> Self {
        let place = error.column.map(|column| format!("column {column}: ")).unwrap_or_default();
        Self::usage(format!("{place}{}", error.what), "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: Kind, happened: Happened) -> CommandError {
        let (what, remedy) = ("it broke (here)".to_owned(), "mend it".to_owned());
        CommandError { kind, happened, what, remedy }
    }

    #[test]
    fn every_kind_has_its_exit_code() {
        let cases = [
            (Kind::OutputClosed, 0),
            (Kind::NotFound, 1),
            (Kind::Usage, 2),
            (Kind::Cluster(ErrorKind::Invalid), 2),
            (Kind::Cluster(ErrorKind::Conflict), 3),
            (Kind::Cluster(ErrorKind::PreconditionFailed), 3),
            (Kind::Cluster(ErrorKind::Unavailable), 4),
            (Kind::Cluster(ErrorKind::Overloaded), 4),
            (Kind::Cluster(ErrorKind::SnapshotExpired), 4),
            (Kind::Cluster(ErrorKind::DiskFull), 4),
            (Kind::Cluster(ErrorKind::Refused), 4),
            (Kind::Io, 4),
            (Kind::Refused, 4),
            (Kind::Corrupt, 6),
            (Kind::Cluster(ErrorKind::Unknown), 5),
            (Kind::Cluster(ErrorKind::SessionExpired), 5),
            (Kind::Cluster(ErrorKind::StaleSequence), 5),
            (Kind::Cluster(ErrorKind::Corrupt), 6),
        ];
        for (kind, code) in cases {
            assert_eq!(error(kind, Happened::No).code(), code, "{kind:?}");
        }
        // Whatever broke: that a write may have happened comes first.
        let corrupt = Kind::Cluster(ErrorKind::Corrupt);
        assert_eq!(error(corrupt, Happened::Unknown).code(), 5);
    }

    #[test]
    fn errors_are_for_people_or_for_programs() {
        let unknown = error(Kind::Cluster(ErrorKind::Unknown), Happened::Unknown);
        assert_eq!(unknown.render(Format::Text), "kvorum: it broke (here)\n  mend it");
        let json: serde_json::Value = serde_json::from_str(&unknown.render(Format::Json)).unwrap();
        let expected =
            json!({"error": "it broke (here); mend it", "kind": "unknown", "happened": "unknown"});
        assert_eq!(json, expected);
    }
}
