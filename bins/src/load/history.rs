//! What a load asked and was answered, for a checker: a JSON object a line.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Serialize, Serializer};

use super::worker::{Ended, Record};
use super::workload::Action;
use super::{LoadError, io_error};

/// A file of history lines, written by many workers.
#[derive(Debug)]
pub(super) struct History {
    path: PathBuf,
    file: Mutex<BufWriter<File>>,
}

impl History {
    /// Creates the file; an older one of the name is overwritten.
    pub(super) fn create(path: &Path) -> Result<Self, LoadError> {
        let file = File::create(path).map_err(io_error(format!("creating {}", path.display())))?;
        Ok(Self { path: path.to_owned(), file: Mutex::new(BufWriter::new(file)) })
    }

    /// Adds one line.
    pub(super) fn add(&self, client: u32, record: &Record) -> Result<(), LoadError> {
        let mut line = serde_json::to_vec(&Line::of(client, record))
            .map_err(|error| self.failed(error.into()))?;
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&line).map_err(|error| self.failed(error))
    }

    /// Hands all lines to the operating system.
    pub(super) fn flush(&self) -> Result<(), LoadError> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.flush().map_err(|error| self.failed(error))
    }

    fn failed(&self, error: io::Error) -> LoadError {
        io_error(format!("writing {}", self.path.display()))(error)
    }
}

/// One line, in the order in which people read it.
#[derive(Serialize)]
struct Line<'a> {
    client: u32,
    op: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<Text<'a>>,
    /// What a transaction requires, which is nothing.
    #[serde(rename = "if", skip_serializing_if = "Option::is_none")]
    preconditions: Option<[(); 0]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    writes: Option<Vec<(Text<'a>, Text<'a>)>>,
    call: u64,
    ret: u64,
    ok: Ok,
    /// The place of the precondition that did not hold; a compare-and-set has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Text<'a>>,
}

impl<'a> Line<'a> {
    fn of(client: u32, record: &'a Record) -> Self {
        let (value, expected) = match &record.operation.action {
            Action::Put(value) => (Some(value), None),
            Action::CompareAndSet { expected, value } => (Some(value), expected.as_ref()),
            Action::Get | Action::Delete | Action::Transact { .. } => (None, None),
            Action::Scan { .. } => unreachable!("the format has no scans that end at a limit"),
            Action::ReadModifyWrite(_) => unreachable!("it is written down as what it is made of"),
        };
        let key = Text(&record.operation.key);
        let writes = match &record.operation.action {
            Action::Transact { value, others } => {
                let others = others.iter().map(|(key, value)| (Text(key), Text(value)));
                Some(
                    std::iter::once((Text(&record.operation.key), Text(value)))
                        .chain(others)
                        .collect(),
                )
            }
            _ => None,
        };
        let (ok, failed, result) = match &record.ended {
            Ended::Done(result) => (Ok::Yes, None, result.as_ref()),
            Ended::PreconditionFailed => (Ok::No, Some(0), None),
            Ended::NotDone => (Ok::No, None, None),
            Ended::Unknown => (Ok::Unknown, None, None),
        };
        Self {
            client,
            op: record.operation.sort().name(),
            key: writes.is_none().then_some(key),
            value: value.map(|value| Text(value)),
            expected: expected.map(|expected| Text(expected)),
            preconditions: writes.is_some().then_some([]),
            writes,
            call: record.call_nanos,
            ret: record.return_nanos,
            ok,
            failed,
            result: result.map(|result| Text(result)),
        }
    }
}

/// Bytes as text. A load's own keys and values are; what somebody else wrote and is not text could
/// not be compared with anything of this history anyway.
struct Text<'a>(&'a [u8]);

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&String::from_utf8_lossy(self.0))
    }
}

enum Ok {
    Yes,
    No,
    Unknown,
}

impl Serialize for Ok {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Yes => serializer.serialize_bool(true),
            Self::No => serializer.serialize_bool(false),
            Self::Unknown => serializer.serialize_str("unknown"),
        }
    }
}
