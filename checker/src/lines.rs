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
//! ```
//!
//! An operation that did not happen has `"ok":false`; if it was since a precondition did not hold,
//! `"failed"` is that precondition's place. Times are nanoseconds of one clock.

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

use crate::history::{Ending, History, Operation, Precondition, Record};

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

/// Reads a history; empty lines are skipped.
pub fn read_lines(from: impl BufRead) -> Result<History, LineError> {
    let mut history = History::new();
    for (text, line) in from.lines().zip(1..) {
        let text = text.map_err(|source| LineError::Read { line, source })?;
        if text.trim().is_empty() {
            continue;
        }
        let malformed = |what: String| LineError::Malformed { line, what };
        let parsed: Line =
            serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        history.push(parsed.into_record().map_err(malformed)?);
    }
    Ok(history)
}

/// Writes one operation as a line.
pub fn write_line(mut to: impl Write, record: &Record) -> io::Result<()> {
    serde_json::to_writer(&mut to, &Line::of(record))?;
    to.write_all(b"\n")
}

/// One line, before it is known to make sense.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Line {
    client: u64,
    op: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<String>,
    #[serde(rename = "if", skip_serializing_if = "Option::is_none")]
    preconditions: Option<Vec<Vec<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    writes: Option<Vec<(String, Option<String>)>>,
    call: u64,
    ret: Option<u64>,
    ok: Ok,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<Vec<Option<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<Vec<(String, String)>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    more: Option<bool>,
}

/// `true`, `false` or `"unknown"`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(untagged)]
enum Ok {
    Known(bool),
    Word(String),
}

impl Default for Ok {
    fn default() -> Self {
        Self::Known(true)
    }
}

fn need<T>(field: Option<T>, name: &str) -> Result<T, String> {
    field.ok_or_else(|| format!("the field \"{name}\" is missing"))
}

impl Line {
    fn into_record(self) -> Result<Record, String> {
        let ending = match (&self.ok, self.failed) {
            (Ok::Known(true), _) => Ending::Done,
            (Ok::Known(false), Some(index)) => Ending::PreconditionFailed(index),
            (Ok::Known(false), None) => Ending::NotDone,
            (Ok::Word(word), _) if word == "unknown" => Ending::Unknown,
            (Ok::Word(word), _) => return Err(format!("\"ok\" is {word:?}")),
        };
        let (client, call) = (self.client, self.call);
        let ret = match ending {
            Ending::Unknown => self.ret.unwrap_or(call),
            Ending::Done | Ending::NotDone | Ending::PreconditionFailed(_) => {
                need(self.ret, "ret")?
            }
        };
        if ret < call {
            return Err(format!("it returned at {ret}, before it was called at {call}"));
        }
        let operation = self.into_operation(ending == Ending::Done)?;
        Ok(Record { client, call, ret, ending, operation })
    }

    fn into_operation(self, done: bool) -> Result<Operation, String> {
        Ok(match self.op.as_str() {
            "get" => Operation::Get { key: need(self.key, "key")?, result: self.result },
            "put" => {
                Operation::Put { key: need(self.key, "key")?, value: need(self.value, "value")? }
            }
            "del" => Operation::Delete { key: need(self.key, "key")? },
            "cas" => Operation::CompareAndSet {
                key: need(self.key, "key")?,
                expected: self.expected,
                value: need(self.value, "value")?,
            },
            "mget" => {
                let keys = need(self.keys, "keys")?;
                let results = match self.results {
                    Some(results) if results.len() == keys.len() => results,
                    None if !done => vec![None; keys.len()],
                    _ => return Err("\"results\" must be as many as \"keys\"".to_owned()),
                };
                Operation::GetMany { keys, results }
            }
            "scan" => Operation::Scan {
                start: self.start.unwrap_or_default(),
                end: self.end,
                rows: if done { need(self.rows, "rows")? } else { Vec::new() },
                more: self.more.unwrap_or(false),
            },
            "txn" => Operation::Transact {
                preconditions: self
                    .preconditions
                    .unwrap_or_default()
                    .into_iter()
                    .map(parse_precondition)
                    .collect::<Result<_, _>>()?,
                writes: self.writes.unwrap_or_default(),
            },
            other => return Err(format!("no such operation: {other:?}")),
        })
    }

    fn of(record: &Record) -> Self {
        let (ok, failed) = match record.ending {
            Ending::Done => (Ok::Known(true), None),
            Ending::NotDone => (Ok::Known(false), None),
            Ending::PreconditionFailed(index) => (Ok::Known(false), Some(index)),
            Ending::Unknown => (Ok::Word("unknown".to_owned()), None),
        };
        let line = Self {
            client: record.client,
            call: record.call,
            ret: Some(record.ret),
            ok,
            failed,
            ..Self::default()
        };
        line.with_operation(record.operation.clone())
    }

    fn with_operation(self, operation: Operation) -> Self {
        let op = |op: &str| op.to_owned();
        match operation {
            Operation::Get { key, result } => {
                Self { op: op("get"), key: Some(key), result, ..self }
            }
            Operation::Put { key, value } => {
                Self { op: op("put"), key: Some(key), value: Some(value), ..self }
            }
            Operation::Delete { key } => Self { op: op("del"), key: Some(key), ..self },
            Operation::CompareAndSet { key, expected, value } => {
                Self { op: op("cas"), key: Some(key), expected, value: Some(value), ..self }
            }
            Operation::GetMany { keys, results } => {
                Self { op: op("mget"), keys: Some(keys), results: Some(results), ..self }
            }
            Operation::Scan { start, end, rows, more } => Self {
                op: op("scan"),
                start: Some(start),
                end,
                rows: Some(rows),
                more: Some(more),
                ..self
            },
            Operation::Transact { preconditions, writes } => Self {
                op: op("txn"),
                preconditions: Some(preconditions.into_iter().map(write_precondition).collect()),
                writes: Some(writes),
                ..self
            },
        }
    }
}

fn parse_precondition(words: Vec<String>) -> Result<Precondition, String> {
    let mut words = words.into_iter();
    let parsed = match (words.next().as_deref(), words.next(), words.next(), words.next()) {
        (Some("absent"), Some(key), None, None) => Precondition::Absent(key),
        (Some("present"), Some(key), None, None) => Precondition::Present(key),
        (Some("equals"), Some(key), Some(value), None) => Precondition::Equals(key, value),
        _ => return Err("a precondition is none of absent, present, equals".to_owned()),
    };
    Ok(parsed)
}

fn write_precondition(precondition: Precondition) -> Vec<String> {
    match precondition {
        Precondition::Absent(key) => vec!["absent".to_owned(), key],
        Precondition::Present(key) => vec!["present".to_owned(), key],
        Precondition::Equals(key, value) => vec!["equals".to_owned(), key, value],
    }
}
