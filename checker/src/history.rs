//! What clients saw.

use std::fmt;

/// Elements of a list that are shown; of a longer one only its end.
pub(crate) const ELEMENTS_SHOWN_MAX: usize = 8;

/// Operations in any order; the judges sort by time themselves.
pub type History = Vec<Record>;

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who asked.
    pub client: u64,
    /// When it asked, in nanoseconds of a clock that all clients share and that never jumps.
    pub call: u64,
    /// When it learned the outcome. Without meaning if it never did ([`Ending::Unknown`]).
    pub ret: u64,
    /// How it ended.
    pub ending: Ending,
    /// What it asked for, and what it was told.
    pub operation: Operation,
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It happened; a read's result is what was read.
    Done,
    /// It did not happen and will not, and that says nothing about any key's value.
    NotDone,
    /// It did not happen since this precondition did not hold: so somebody looked at that key.
    /// Counted from 0; of a `cas` it is always 0.
    PreconditionFailed(usize),
    /// It may have happened, may yet happen, or never.
    Unknown,
}

/// What was asked, and for reads what was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read one key.
    Get {
        /// Which.
        key: String,
        /// Its value, if it was there.
        result: Option<String>,
    },
    /// Read several keys at one moment.
    GetMany {
        /// Which.
        keys: Vec<String>,
        /// Their values, in the same order.
        results: Vec<Option<String>>,
    },
    /// Read all keys from `start` up to and without `end`, at one moment.
    Scan {
        /// The first key that belongs to the range.
        start: String,
        /// The first key that does not; `None` has no end.
        end: Option<String>,
        /// What was there, in the order of the keys.
        rows: Vec<(String, String)>,
        /// Whether the answer stops early: nothing is said of keys behind the last row.
        more: bool,
    },
    /// Set a key, whatever it was.
    Put {
        /// Which.
        key: String,
        /// To what.
        value: String,
    },
    /// Remove a key, whether it was there or not.
    Delete {
        /// Which.
        key: String,
    },
    /// Set a key if it has a certain value.
    CompareAndSet {
        /// Which.
        key: String,
        /// What it must be; `None` means it must not be there.
        expected: Option<String>,
        /// What it becomes.
        value: String,
    },
    /// Change several keys at one moment, if all preconditions hold at that moment.
    Transact {
        /// All must hold.
        preconditions: Vec<Precondition>,
        /// Keys and their new values, `None` removes; the last one of a key wins.
        writes: Vec<(String, Option<String>)>,
    },
    /// Read and write registers, or read and append to lists, one after the other, as one
    /// transaction.
    MicroOperations(Vec<MicroOperation>),
}

/// A part of a transaction, in Elle's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MicroOperation {
    /// Add to the end of a list; a list that nobody appended to is empty.
    Append {
        /// Which list.
        key: String,
        /// What.
        value: String,
    },
    /// Set a register.
    Write {
        /// Which.
        key: String,
        /// To what; `None` removes it.
        value: Option<String>,
    },
    /// Read a list or a register, as the transaction itself left it so far.
    Read {
        /// Which.
        key: String,
        /// What it was.
        found: Found,
    },
}

/// What a read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The client never learned it.
    Unanswered,
    /// A register's value, if it was there.
    Register(Option<String>),
    /// A list's elements, oldest first.
    List(Vec<String>),
}

/// What must hold of a key for a transaction to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// The key is not there.
    Absent(String),
    /// The key is there.
    Present(String),
    /// The key has this value.
    Equals(String, String),
}

/// An operation as asked and as answered, without client and times.
pub(crate) struct Deed<'a>(pub(crate) &'a Record);

impl fmt::Display for Deed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.0;
        write!(f, "{}", record.operation)?;
        match record.ending {
            Ending::Done => record.operation.write_answer(f),
            Ending::NotDone => f.write_str(": did not happen"),
            Ending::PreconditionFailed(index) => {
                write!(f, ": did not happen, precondition {index} failed")
            }
            Ending::Unknown => f.write_str(": outcome unknown"),
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {} {}", self.client, Deed(self))?;
        match self.ending {
            Ending::Unknown => write!(f, ", called at {}", self.call),
            _ => write!(f, ", from {} to {}", self.call, self.ret),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get { key, .. } => write!(f, "get {key}"),
            Self::GetMany { keys, .. } => write!(f, "get {}", keys.join(" ")),
            Self::Scan { start, end: Some(end), .. } => write!(f, "scan {start}..{end}"),
            Self::Scan { start, end: None, .. } => write!(f, "scan {start}.."),
            Self::Put { key, value } => write!(f, "put {key}={value}"),
            Self::Delete { key } => write!(f, "del {key}"),
            Self::CompareAndSet { key, expected: Some(expected), value } => {
                write!(f, "cas {key} {expected}->{value}")
            }
            Self::CompareAndSet { key, expected: None, value } => {
                write!(f, "cas {key} (absent)->{value}")
            }
            Self::Transact { preconditions, writes } => write_transaction(f, preconditions, writes),
            Self::MicroOperations(operations) => {
                for (place, operation) in operations.iter().enumerate() {
                    let comma = if place == 0 { "" } else { ", " };
                    write!(f, "{comma}{operation}")?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for MicroOperation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Append { key, value } => write!(f, "append {value} to {key}"),
            Self::Write { key, value: Some(value) } => write!(f, "write {key}={value}"),
            Self::Write { key, value: None } => write!(f, "remove {key}"),
            Self::Read { key, found } => write!(f, "read {key}{found}"),
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unanswered => Ok(()),
            Self::Register(value) => write!(f, "={}", shown(value.as_deref())),
            Self::List(values) => {
                let hidden = values.len().saturating_sub(ELEMENTS_SHOWN_MAX);
                let before = if hidden > 0 { "... " } else { "" };
                write!(f, "=[{before}{}]", values[hidden..].join(" "))
            }
        }
    }
}

impl Operation {
    fn write_answer(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get { result, .. } => write!(f, ": read {}", shown(result.as_deref())),
            Self::GetMany { results, .. } => {
                let shown: Vec<&str> = results.iter().map(|r| shown(r.as_deref())).collect();
                write!(f, ": read {}", shown.join(" "))
            }
            Self::Scan { rows, more, .. } => {
                let rows: Vec<String> = rows.iter().map(|(k, v)| format!("{k}={v}")).collect();
                let more = if *more { " and more" } else { "" };
                write!(f, ": read [{}]{more}", rows.join(" "))
            }
            Self::Put { .. }
            | Self::Delete { .. }
            | Self::CompareAndSet { .. }
            | Self::Transact { .. }
            | Self::MicroOperations(_) => f.write_str(": done"),
        }
    }
}

fn shown(value: Option<&str>) -> &str {
    value.unwrap_or("(absent)")
}

fn write_transaction(
    f: &mut fmt::Formatter<'_>,
    preconditions: &[Precondition],
    writes: &[(String, Option<String>)],
) -> fmt::Result {
    f.write_str("txn")?;
    for precondition in preconditions {
        match precondition {
            Precondition::Absent(key) => write!(f, " if {key} absent")?,
            Precondition::Present(key) => write!(f, " if {key} present")?,
            Precondition::Equals(key, value) => write!(f, " if {key} is {value}")?,
        }
    }
    for (key, value) in writes {
        match value {
            Some(value) => write!(f, " put {key}={value}")?,
            None => write!(f, " del {key}")?,
        }
    }
    Ok(())
}
