//! What clients ask and hear, in words short enough to read a protocol by.

use kvorum_replication::{
    Answer, Failure, Key, NodeId, Outcome, Precondition, Row, Stamp, Transaction, Write,
};

pub(crate) fn node(node: NodeId) -> String {
    if node == NodeId::COORDINATOR { "c".to_owned() } else { node.to_string() }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn writes(writes: &[Write]) -> String {
    let show = |write: &Write| match write {
        Write::Put(key, value) => format!("{}={}", text(key), text(value)),
        Write::Delete(key) => format!("del@{}", text(key)),
    };
    writes.iter().map(show).collect::<Vec<_>>().join(" ")
}

pub(crate) fn transaction(transaction: &Transaction) -> String {
    let show = |precondition: &Precondition| match precondition {
        Precondition::Absent(key) => format!("absent@{}", text(key)),
        Precondition::Present(key) => format!("present@{}", text(key)),
        Precondition::Equals(key, value) => format!("equals@{}@{}", text(key), text(value)),
    };
    let mut words: Vec<String> = transaction.preconditions.iter().map(show).collect();
    if !transaction.writes.is_empty() {
        words.push(writes(&transaction.writes));
    }
    words.join(" ")
}

/// With a space before it, if there is one.
pub(crate) fn stamp(stamp: Option<Stamp>) -> String {
    stamp.map_or_else(String::new, |stamp| {
        format!(" stamp@{}.{}.{}", stamp.client.0, stamp.sequence, stamp.answered_below)
    })
}

pub(crate) fn rows<'a>(rows: impl IntoIterator<Item = (&'a Key, &'a Key)>) -> String {
    let show = |(key, value): (&Key, &Key)| format!("{}={}", text(key), text(value));
    format!("[{}]", rows.into_iter().map(show).collect::<Vec<_>>().join(" "))
}

pub(crate) fn answer(answer: &Answer) -> String {
    let value = |value: &Option<_>| value.as_ref().map_or("none".to_owned(), |v: &Key| text(v));
    match answer {
        Answer::Value(one) => value(one),
        Answer::Values(many) => many.iter().map(value).collect::<Vec<_>>().join(" "),
        Answer::Rows { rows: found, more } => {
            let found = rows(found.iter().map(|(key, value): &Row| (key, value)));
            format!("{found}{}", if *more { " and more" } else { "" })
        }
        Answer::Page { rows: found, more, held } => {
            let found = rows(found.iter().map(|(key, value): &Row| (key, value)));
            let held = held.map(|it| format!(", held by {} as {}.{}", it.by, it.run, it.number));
            format!("{found}{}{}", if *more { " and more" } else { "" }, held.unwrap_or_default())
        }
        Answer::NotHeld => "not held".to_owned(),
        Answer::TooManyHeld => "too many held".to_owned(),
        Answer::TooLarge { bytes } => format!("too large: {bytes} bytes"),
        Answer::Failed(reason) => format!("failed: {reason}"),
    }
}

pub(crate) fn outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Session(client) => format!("session {}", client.0),
        Outcome::Committed => "committed".to_owned(),
        Outcome::Answer(found) => answer(found),
        Outcome::Failed(failure) => {
            format!("{} (happened: {:?})", self::failure(failure), failure.happened())
        }
    }
}

fn failure(failure: &Failure) -> String {
    match failure {
        Failure::Conflict { key } => format!("conflict on {}", text(key)),
        Failure::PreconditionFailed { index, key } => {
            format!("precondition {index} on {} failed", text(key))
        }
        Failure::Unavailable { reason } => format!("unavailable: {reason}"),
        Failure::Overloaded => "overloaded".to_owned(),
        Failure::SnapshotExpired => "snapshot expired".to_owned(),
        Failure::DiskFull { node: full } => format!("disk full: {}", node(*full)),
        Failure::Unknown { reason } => format!("unknown: {reason}"),
        Failure::SessionExpired => "session expired".to_owned(),
        Failure::StaleSequence => "stale sequence".to_owned(),
        Failure::Invalid { reason } => format!("invalid: {reason}"),
        Failure::Redirect { to } => format!("redirect to {}", node(*to)),
        Failure::Storage { reason } => format!("storage: {reason}"),
    }
}
