//! Histories as text: one JSON object a line.
//!
//! ```text
//! {"client":1,"op":"put","key":"k","value":"v","call":10,"ret":20,"ok":true}
//! {"client":2,"op":"get","key":"k","call":12,"ret":18,"ok":true,"result":"v"}
//! {"client":1,"op":"cas","key":"k","expected":"v","value":"w","call":30,"ret":44,"ok":false}
//! {"client":3,"op":"del","key":"k","call":31,"ret":90,"ok":"unknown"}
//! {"client":4,"op":"mget","keys":["a","b"],"call":1,"ret":2,"ok":true,"results":["x",null]}
//! {"client":4,"op":"scan","start":"a","end":"z","call":1,"ret":2,"ok":true,"rows":[["k","v"]]}
//! {"client":5,"op":"txn","if":[["absent","k"],["equals","l","v"]],
//!  "writes":[["k","v"],["l",null]],"call":1,"ret":2,"ok":true}
//! {"client":6,"op":"list","ops":[["append","x","1"],["read","x",["1"]]],"call":1,"ret":2,"ok":true}
//! {"client":6,"op":"rw","ops":[["read","x",null],["write","x","1"]],"call":3,"ret":4,"ok":true}
//! {"copy":"n1","rows":[["k","v"]]}
//! ```
//!
//! An operation that did not happen has `"ok":false`; if it was since a precondition did not hold,
//! `"failed"` is that precondition's place. Times are nanoseconds of one clock. `list` and `rw` are
//! transactions of micro-operations on lists and on registers; a read that was not answered has two
//! words. A `copy` is what one copy of the data held at the end.
//!
//! The reader is strict, since a field that is passed over is a fact that is not judged: whatever
//! it does not know, or does not expect in such a line, is an error that names line and field.

mod line;
mod micro;

use std::io::{self, BufRead, Write};

use crate::history::{History, Record};
use line::Line;

/// A history that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The file could not be read.
    #[error("line {line}: {source}")]
    Read {
        /// Which line, from 1.
        line: usize,
        /// Why.
        source: io::Error,
    },
    /// A line is no operation.
    #[error("line {line}: {what}")]
    Malformed {
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// What a client asked and was answered.
    Operation(Record),
    /// What one copy of the data held at the end.
    Copy(FinalCopy),
}

/// What one copy of the data held at the end: its name, and its rows.
pub type FinalCopy = (String, Vec<(String, String)>);

/// The lines of a file, one after the other, so that a history need not fit memory as text; empty
/// lines are skipped.
pub fn read_entries(from: impl BufRead) -> impl Iterator<Item = Result<Entry, LineError>> {
    from.lines().zip(1..).filter_map(|(text, line)| match text {
        Err(source) => Some(Err(LineError::Read { line, source })),
        Ok(text) if text.trim().is_empty() => None,
        Ok(text) => Some(entry(&text).map_err(|what| LineError::Malformed { line, what })),
    })
}

/// Reads the operations of a file; copies are passed over.
pub fn read_lines(from: impl BufRead) -> Result<History, LineError> {
    let mut history = History::new();
    for entry in read_entries(from) {
        if let Entry::Operation(record) = entry? {
            history.push(record);
        }
    }
    Ok(history)
}

fn entry(text: &str) -> Result<Entry, String> {
    let line: Line = serde_json::from_str(text).map_err(|error| error.to_string())?;
    line.into_entry()
}

/// Writes one operation as a line.
pub fn write_line(to: impl Write, record: &Record) -> io::Result<()> {
    write(to, &Line::of(record)?)
}

/// Writes what one copy of the data held at the end as a line.
pub fn write_copy(to: impl Write, copy: &FinalCopy) -> io::Result<()> {
    write(to, &Line::of_copy(copy))
}

fn write(mut to: impl Write, line: &Line) -> io::Result<()> {
    serde_json::to_writer(&mut to, line)?;
    to.write_all(b"\n")
}
