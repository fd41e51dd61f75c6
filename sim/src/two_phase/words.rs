//! Messages in a few words, for the trace.

use kvorum_replication::two_phase::message::{Decision, Knowledge, Message, Vote};
use kvorum_replication::{Answer, Precondition, Query, Transaction, Write};

/// A message in a few words.
pub(super) fn message(message: &Message) -> String {
    match message {
        Message::Prepare(prepare) => {
            let how = if prepare.one_phase.is_some() { "decide alone" } else { "prepare" };
            let (txn, below) = (prepare.txn, prepare.finished_below);
            format!("{how} {txn}:{} [over below {below}]", transaction(&prepare.transaction))
        }
        Message::Vote { txn, vote } => format!("{txn}: {}", self::vote(vote)),
        Message::Decide { txn, decision, finished_below } => {
            format!("{txn} is {} [over below {finished_below}]", self::decision(*decision))
        }
        Message::Acknowledge { txn } => format!("{txn} is applied and durable here"),
        Message::Inquire { txn } => format!("how did {txn} end?"),
        Message::Inform { txn, knowledge: Knowledge::Decided(decision) } => {
            format!("{txn} is {}", self::decision(*decision))
        }
        Message::Inform { txn, knowledge: Knowledge::Undecided } => {
            format!("{txn} is not decided, as far as is known here")
        }
        Message::Read { read, epoch, query } => format!("read {epoch}.{read}: {}", asked(query)),
        Message::ReadAnswer { read, epoch, answer } => {
            format!("read {epoch}.{read} finds {}", found(answer))
        }
    }
}

fn decision(decision: Decision) -> String {
    match decision {
        Decision::Commit(number) => format!("committed as {number}"),
        Decision::Abort => "aborted".to_owned(),
    }
}

fn vote(vote: &Vote) -> String {
    match vote {
        Vote::Yes => "votes yes".to_owned(),
        Vote::Conflict(key) => format!("votes no, {} is locked", text(key)),
        Vote::PreconditionFailed { index, key } => {
            format!("votes no, precondition {index} does not hold, on {}", text(key))
        }
        Vote::Refused => "votes no, it was given up here".to_owned(),
        Vote::Overloaded => "votes no, too much is prepared".to_owned(),
        Vote::DiskFull => "votes no, the disk is full".to_owned(),
        Vote::Failed(why) => format!("votes no: {why}"),
        Vote::Committed => "is committed here, durably".to_owned(),
    }
}

fn transaction(transaction: &Transaction) -> String {
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

fn asked(query: &Query) -> String {
    match query {
        Query::Get(key) => text(key),
        Query::GetMany(keys) => {
            keys.iter().map(|key| text(key)).collect::<Vec<_>>().join(" and ")
        }
        Query::Scan(range) => {
            let end = range.end.as_ref().map_or_else(|| "the end".to_owned(), |end| text(end));
            format!("from {:?} to {end}, at most {}", text(&range.start), range.limit)
        }
    }
}

fn found(answer: &Answer) -> String {
    let one = |value: Option<&bytes::Bytes>| value.map_or("nothing".to_owned(), |it| text(it));
    match answer {
        Answer::Value(value) => one(value.as_ref()),
        Answer::Values(values) => {
            values.iter().map(|it| one(it.as_ref())).collect::<Vec<_>>().join(" and ")
        }
        Answer::Rows { rows, more } => {
            let rows = rows.iter().map(|(key, value)| format!("{}={}", text(key), text(value)));
            let shown = rows.collect::<Vec<_>>().join(" ");
            format!("[{shown}]{}", if *more { " and more" } else { "" })
        }
        Answer::Failed(why) => format!("an error: {why}"),
    }
}

/// Keys and values here are short texts; some values are padded, which is not worth reading.
fn text(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 24;
    let text = String::from_utf8_lossy(bytes);
    match text.char_indices().nth(SHOWN_MAX) {
        Some((end, _)) => format!("{}..({} bytes)", text[..end].trim_end_matches('.'), bytes.len()),
        None => text.into_owned(),
    }
}
