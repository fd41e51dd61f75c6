//! What a judge said, for people and for programs.

use std::time::Duration;

use kvorum::lab::numbers::{counted, grouped, lasting};
use kvorum_checker::{Ending, Record, Verdict, write_line};
use serde_json::{Value as Json, json};

use super::Model;
use super::file::File;
use crate::error::LabError;
use crate::output::{Format, Output};

/// What was judged, and the verdict with its reasons.
pub(super) fn one(
    output: &mut Output,
    model: Model,
    file: &File,
    verdict: &Verdict,
) -> Result<(), LabError> {
    match output.format {
        Format::Json => output.json(&object(model, file, verdict)),
        Format::Text => {
            output.line(format!("{}: {}", file.name, size(model, file)))?;
            match verdict {
                Verdict::Holds => output.line(format!("{}: holds", model.name())),
                Verdict::Violated(violation) => {
                    output.line(format!("{}: VIOLATED\n{violation}", model.name()))
                }
                Verdict::Undecided { why } => output.line(format!(
                    "{}: UNDECIDED, neither kept nor broken for all the judge knows\n{why}",
                    model.name()
                )),
            }
        }
    }
}

/// The same in a line.
pub(super) fn one_of_many(
    output: &mut Output,
    model: Model,
    file: &File,
    verdict: &Verdict,
) -> Result<(), LabError> {
    let name = &file.name;
    match (output.format, verdict) {
        (Format::Json, verdict) => output.json(&object(model, file, verdict)),
        (Format::Text, Verdict::Holds) => {
            output.line(format!("holds      {name}: {}", size(model, file)))
        }
        (Format::Text, Verdict::Violated(violation)) => {
            let words = violation.words.lines().next().unwrap_or_default();
            output.line(format!("VIOLATED   {name}: {}: {words}", violation.rule))
        }
        (Format::Text, Verdict::Undecided { why }) => {
            output.line(format!("UNDECIDED  {name}: {why}"))
        }
    }
}

fn size(model: Model, file: &File) -> String {
    if model.is_of_copies() {
        let copies = file.copies.iter();
        let copies: Vec<_> = copies
            .map(|(name, rows)| format!("{} on {name}", counted(rows.len() as u64, "row", "rows")))
            .collect();
        return copies.join(", ");
    }
    let counts = [
        (file.ended(is_done), "done"),
        (file.ended(is_not_done), "not done"),
        (file.ended(is_unknown), "of unknown outcome"),
    ];
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    let counts: Vec<_> = counts.map(|(count, what)| format!("{} {what}", grouped(count))).collect();
    format!(
        "{} ({}) of {} on {} in {}",
        counted(file.history.len() as u64, "operation", "operations"),
        counts.join(", "),
        counted(file.clients(), "client", "clients"),
        counted(file.keys(), "key", "keys"),
        length(file.length())
    )
}

/// Histories made by hand have small numbers, which mean nanoseconds.
fn length(time: Duration) -> String {
    lasting(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

fn is_done(ending: Ending) -> bool {
    ending == Ending::Done
}

fn is_not_done(ending: Ending) -> bool {
    matches!(ending, Ending::NotDone | Ending::PreconditionFailed(_))
}

fn is_unknown(ending: Ending) -> bool {
    ending == Ending::Unknown
}

fn object(model: Model, file: &File, verdict: &Verdict) -> Json {
    let mut object = json!({
        "file": file.name,
        "model": model.name(),
        "operations": file.history.len(),
        "done": file.ended(is_done),
        "not_done": file.ended(is_not_done),
        "unknown": file.ended(is_unknown),
        "clients": file.clients(),
        "keys": file.keys(),
        "copies": file.copies.len(),
        "seconds": file.length().as_secs_f64(),
    });
    match verdict {
        Verdict::Holds => object["verdict"] = "holds".into(),
        Verdict::Violated(violation) => {
            object["verdict"] = "violated".into();
            object["rule"] = violation.rule.to_string().into();
            object["words"] = violation.words.clone().into();
            object["offending"] = violation.operations.iter().map(line_of).collect();
        }
        Verdict::Undecided { why } => {
            object["verdict"] = "undecided".into();
            object["words"] = why.clone().into();
        }
    }
    object
}

/// An operation as a history has it.
fn line_of(record: &Record) -> Json {
    let mut line = Vec::new();
    let written = write_line(&mut line, record).map_err(serde_json::Error::io);
    // A record that cannot be written as a line was not read from one; its words are better than
    // nothing.
    written
        .and_then(|()| serde_json::from_slice(&line))
        .unwrap_or_else(|_| Json::from(record.to_string()))
}
