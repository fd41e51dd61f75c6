//! What travels between clients and nodes, in a few words, for the trace.

use bytes::Bytes;
use kvorum_replication::{
    Answer, Failure, Outcome, Page, Precondition, Query, Range, Transaction, Write,
};

/// How a request ended.
pub(crate) fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Session(client) => format!("session {}", client.0),
        Outcome::Committed => "done".to_owned(),
        Outcome::Answer(answer) => found(answer),
        Outcome::Failed(failure) => self::failure(failure),
    }
}

fn failure(failure: &Failure) -> String {
    match failure {
        Failure::Conflict { key } => format!("not done, {} is locked", text(key)),
        Failure::PreconditionFailed { index, key } => {
            format!("not done, precondition {index} does not hold, on {}", text(key))
        }
        Failure::Unavailable { reason } => format!("not done, {reason}"),
        Failure::Overloaded => "not done, overloaded".to_owned(),
        Failure::SnapshotExpired => "not done, the snapshot has expired".to_owned(),
        Failure::Unknown { reason } => format!("unknown, {reason}"),
        Failure::SessionExpired => "the session has expired".to_owned(),
        Failure::StaleSequence => "the write is older than the session remembers".to_owned(),
        Failure::Invalid { reason } => format!("invalid, {reason}"),
        Failure::Redirect { to } => format!("not done, ask {to}"),
        Failure::DiskFull { node } => format!("not done, the disk of {node} is full"),
        Failure::Storage { reason } => format!("not done, {reason}"),
    }
}

/// What a transaction checks and writes, each with a space before it.
pub(crate) fn transaction(transaction: &Transaction) -> String {
    let mut shown = String::new();
    for precondition in &transaction.preconditions {
        shown += &match precondition {
            Precondition::Absent(key) => format!(" if {} absent", text(key)),
            Precondition::Present(key) => format!(" if {} present", text(key)),
            Precondition::Equals(key, value) => format!(" if {}={}", text(key), text(value)),
        };
    }
    for write in &transaction.writes {
        shown += &match write {
            Write::Put(key, value) => format!(" put {}={}", text(key), text(value)),
            Write::Delete(key) => format!(" del {}", text(key)),
        };
    }
    shown
}

/// What a read asks for.
pub(crate) fn asked(query: &Query) -> String {
    match query {
        Query::Get(key) => text(key),
        Query::GetMany(keys) => keys.iter().map(|key| text(key)).collect::<Vec<_>>().join(" and "),
        Query::Scan(range) => scanned(range),
        Query::Page(Page { range, of: None, .. }) => format!("a page {}", scanned(range)),
        Query::Page(Page { range, of: Some(held), .. }) => {
            format!("a page {} of snapshot {} of {}", scanned(range), held.number, held.by)
        }
    }
}

fn scanned(range: &Range) -> String {
    let end = range.end.as_ref().map_or_else(|| "the end".to_owned(), |end| text(end));
    format!("from {:?} to {end}, at most {}", text(&range.start), range.limit)
}

/// What a read found.
pub(crate) fn found(answer: &Answer) -> String {
    let one = |value: Option<&Bytes>| value.map_or_else(|| "nothing".to_owned(), |it| text(it));
    match answer {
        Answer::Value(value) => one(value.as_ref()),
        Answer::Values(values) => {
            values.iter().map(|it| one(it.as_ref())).collect::<Vec<_>>().join(" and ")
        }
        Answer::Rows { rows, more } | Answer::Page { rows, more, .. } => {
            let rows = rows.iter().map(|(key, value)| format!("{}={}", text(key), text(value)));
            let shown = rows.collect::<Vec<_>>().join(" ");
            format!("[{shown}]{}", if *more { " and more" } else { "" })
        }
        Answer::NotHeld => "a snapshot that is not held".to_owned(),
        Answer::TooManyHeld => "too many snapshots held".to_owned(),
        Answer::TooLarge { bytes } => format!("too much, {bytes} bytes"),
        Answer::Failed(why) => format!("an error: {why}"),
    }
}

/// Keys and values here are short texts; some values are padded, which is not worth reading.
pub(crate) fn text(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 24;
    let text = String::from_utf8_lossy(bytes);
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}..({} bytes)", text[..end].trim_end_matches('.'), bytes.len()),
        None => text.into_owned(),
    }
}
