//! One line: its fields, and which of them belong together.

use std::io;

use serde::{Deserialize, Serialize};

use super::micro::{self, Micro};
use super::{Entry, FinalCopy};
use crate::history::{Ending, Operation, Precondition, Record};

/// One line, before it is known to make sense.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    op: Option<String>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    ops: Option<Vec<Micro>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    call: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ret: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ok: Option<Ok>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<Vec<Option<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    copy: Option<String>,
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

fn need<T>(field: &mut Option<T>, name: &str) -> Result<T, String> {
    field.take().ok_or_else(|| format!("the field \"{name}\" is missing"))
}

impl Line {
    pub(super) fn into_entry(mut self) -> Result<Entry, String> {
        let (entry, of) = match self.copy.take() {
            Some(name) => (Entry::Copy((name, need(&mut self.rows, "rows")?)), "copy".to_owned()),
            None => {
                let op = need(&mut self.op, "op")?;
                (Entry::Operation(self.take_record(&op)?), op)
            }
        };
        match self.left_over() {
            None => Ok(entry),
            Some(field) => Err(format!("the field \"{field}\" does not belong to \"{of}\"")),
        }
    }

    fn take_record(&mut self, op: &str) -> Result<Record, String> {
        let ending = match (need(&mut self.ok, "ok")?, self.failed) {
            (Ok::Known(true), _) => Ending::Done,
            (Ok::Known(false), Some(index)) => Ending::PreconditionFailed(index),
            (Ok::Known(false), None) => Ending::NotDone,
            (Ok::Word(word), _) if word == "unknown" => Ending::Unknown,
            (Ok::Word(word), _) => return Err(format!("\"ok\" is {word:?}")),
        };
        if matches!(ending, Ending::PreconditionFailed(_)) {
            self.failed = None;
        }
        let client = need(&mut self.client, "client")?;
        let call = need(&mut self.call, "call")?;
        let ret = match ending {
            Ending::Unknown => self.ret.take().unwrap_or(call),
            Ending::Done | Ending::NotDone | Ending::PreconditionFailed(_) => {
                need(&mut self.ret, "ret")?
            }
        };
        if ret < call {
            return Err(format!("it returned at {ret}, before it was called at {call}"));
        }
        let operation = self.take_operation(op, ending == Ending::Done)?;
        Ok(Record { client, call, ret, ending, operation })
    }

    fn take_operation(&mut self, op: &str, done: bool) -> Result<Operation, String> {
        Ok(match op {
            "get" => {
                Operation::Get { key: need(&mut self.key, "key")?, result: self.result.take() }
            }
            "put" => Operation::Put {
                key: need(&mut self.key, "key")?,
                value: need(&mut self.value, "value")?,
            },
            "del" => Operation::Delete { key: need(&mut self.key, "key")? },
            "cas" => Operation::CompareAndSet {
                key: need(&mut self.key, "key")?,
                expected: self.expected.take(),
                value: need(&mut self.value, "value")?,
            },
            "mget" => {
                let keys = need(&mut self.keys, "keys")?;
                let results = match self.results.take() {
                    Some(results) if results.len() == keys.len() => results,
                    None if !done => vec![None; keys.len()],
                    _ => return Err("\"results\" must be as many as \"keys\"".to_owned()),
                };
                Operation::GetMany { keys, results }
            }
            "scan" => Operation::Scan {
                start: self.start.take().unwrap_or_default(),
                end: self.end.take(),
                rows: match self.rows.take() {
                    Some(rows) => rows,
                    None if !done => Vec::new(),
                    None => return Err("the field \"rows\" is missing".to_owned()),
                },
                more: self.more.take().unwrap_or(false),
            },
            "txn" => Operation::Transact {
                preconditions: (self.preconditions.take().unwrap_or_default().into_iter())
                    .map(parse_precondition)
                    .collect::<Result<_, _>>()?,
                writes: self.writes.take().unwrap_or_default(),
            },
            "list" | "rw" => {
                Operation::MicroOperations(micro::parse(need(&mut self.ops, "ops")?, op, done)?)
            }
            other => return Err(format!("no such operation: {other:?}")),
        })
    }

    /// A field that nobody asked for.
    fn left_over(&self) -> Option<&'static str> {
        let there = [
            ("client", self.client.is_some()),
            ("op", self.op.is_some()),
            ("key", self.key.is_some()),
            ("value", self.value.is_some()),
            ("expected", self.expected.is_some()),
            ("keys", self.keys.is_some()),
            ("start", self.start.is_some()),
            ("end", self.end.is_some()),
            ("if", self.preconditions.is_some()),
            ("writes", self.writes.is_some()),
            ("ops", self.ops.is_some()),
            ("call", self.call.is_some()),
            ("ret", self.ret.is_some()),
            ("ok", self.ok.is_some()),
            ("failed", self.failed.is_some()),
            ("result", self.result.is_some()),
            ("results", self.results.is_some()),
            ("copy", self.copy.is_some()),
            ("rows", self.rows.is_some()),
            ("more", self.more.is_some()),
        ];
        there.iter().find(|(_, there)| *there).map(|(name, _)| *name)
    }

    pub(super) fn of_copy((name, rows): &FinalCopy) -> Self {
        Self { copy: Some(name.clone()), rows: Some(rows.clone()), ..Self::default() }
    }

    /// Fails on a transaction of lists and registers together, for which there is no line.
    pub(super) fn of(record: &Record) -> io::Result<Self> {
        let (ok, failed) = match record.ending {
            Ending::Done => (Ok::Known(true), None),
            Ending::NotDone => (Ok::Known(false), None),
            Ending::PreconditionFailed(index) => (Ok::Known(false), Some(index)),
            Ending::Unknown => (Ok::Word("unknown".to_owned()), None),
        };
        let line = Self {
            client: Some(record.client),
            call: Some(record.call),
            ret: Some(record.ret),
            ok: Some(ok),
            failed,
            ..Self::default()
        };
        line.with_operation(record.operation.clone())
    }

    fn with_operation(self, operation: Operation) -> io::Result<Self> {
        let op = |op: &str| Some(op.to_owned());
        Ok(match operation {
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
            Operation::MicroOperations(operations) => {
                let (name, ops) = micro::write(operations)?;
                Self { op: op(name), ops: Some(ops), ..self }
            }
        })
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
