//! Why the lab could not do what it was asked. That something was found to be wrong is no error
//! here: it is an answer, with an exit code of its own.

use std::fmt::Display;
use std::process::ExitCode;

use serde_json::json;

use crate::output::Format;

/// The exit code of a history or a run that breaks a promise.
pub(crate) const VIOLATED: u8 = 1;

/// The exit code if a judge gave up: neither is known.
pub(crate) const UNDECIDED: u8 = 5;

/// A command's error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LabError {
    /// The command line or an input file is wrong.
    Usage {
        /// What and where, in one sentence without a full stop.
        what: String,
        /// What to do about it; empty if that is plain.
        remedy: String,
    },
    /// This machine, or the cluster on it, did not do what was needed.
    CannotRun {
        /// What and where, in one sentence without a full stop.
        what: String,
        /// What to do about it; empty if that is plain.
        remedy: String,
    },
    /// Whoever reads our output has stopped reading, as `head` does. Nothing to report.
    OutputClosed,
}

impl LabError {
    /// The command line or an input file is wrong.
    pub(crate) fn usage(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Usage { what: what.into(), remedy: remedy.into() }
    }

    /// Something of this machine failed.
    pub(crate) fn cannot(doing: &str, error: &dyn Display) -> Self {
        Self::CannotRun { what: format!("{doing}: {error}"), remedy: String::new() }
    }

    /// The exit code, as `kvorum-lab --help` lists them.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }

    /// As [`Self::exit_code`], for those who compare.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::Usage { .. } => 2,
            Self::CannotRun { .. } => 4,
        }
    }

    /// The error as it goes to standard error, without a newline at the end.
    pub(crate) fn render(&self, format: Format) -> String {
        let (what, remedy, kind) = match self {
            Self::Usage { what, remedy } => (&what[..], &remedy[..], "usage"),
            Self::CannotRun { what, remedy } => (&what[..], &remedy[..], "cannot-run"),
            Self::OutputClosed => ("standard output was closed", "", "output-closed"),
        };
        match (format, remedy) {
            (Format::Text, "") => format!("kvorum-lab: {what}"),
            (Format::Text, remedy) => format!("kvorum-lab: {what}\n  {remedy}"),
            (Format::Json, "") => json!({"error": what, "kind": kind}).to_string(),
            (Format::Json, remedy) => {
                json!({"error": format!("{what}; {remedy}"), "kind": kind}).to_string()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_for_people_or_for_programs() {
        let error = LabError::usage("line 3: no such operation", "see `kvorum-lab check --help`");
        let text = "kvorum-lab: line 3: no such operation\n  see `kvorum-lab check --help`";
        assert_eq!((error.code(), &error.render(Format::Text)[..]), (2, text));
        let json: serde_json::Value = serde_json::from_str(&error.render(Format::Json)).unwrap();
        let words = "line 3: no such operation; see `kvorum-lab check --help`";
        assert_eq!(json, json!({"error": words, "kind": "usage"}));
        let error = LabError::cannot("reading history", &"no such file");
        let text = "kvorum-lab: reading history: no such file";
        assert_eq!((error.code(), &error.render(Format::Text)[..]), (4, text));
    }
}
