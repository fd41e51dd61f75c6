//! Messages and records in a few words, for the trace.

use kvorum_replication::two_phase::any_replica::message::{
    Decision, Knowledge, Message, Settled, Vote, Work,
};
use kvorum_replication::two_phase::any_replica::record::Record;
use kvorum_replication::{Stamp, Transaction};

use crate::words::{text, transaction};

/// A message in a few words.
pub(super) fn message(message: &Message) -> String {
    match message {
        Message::Prepare(prepare) => {
            let (txn, age, below) = (prepare.txn, prepare.age, prepare.finished_below);
            format!("prepare {txn} of age {age}:{} [over below {below}]", work(&prepare.work))
        }
        Message::Vote { txn, vote, clock } => {
            format!("{txn}: {} [clock {clock}]", self::vote(vote))
        }
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
    }
}

/// What a transaction does, with a space before it.
fn work(work: &Work) -> String {
    match work {
        Work::OpenSession { client } => format!(" open session {}", client.0),
        Work::Write { stamp, writes, checked } => {
            let writes = Transaction { preconditions: Vec::new(), writes: writes.clone() };
            let checked: String =
                checked.iter().map(|key| format!(" looks at {}", text(key))).collect();
            let stamp = stamp.map(|it| format!(" as {}", self::stamp(it))).unwrap_or_default();
            format!("{}{checked}{stamp}", transaction(&writes))
        }
    }
}

fn stamp(stamp: Stamp) -> String {
    format!("write {} of session {}", stamp.sequence, stamp.client.0)
}

fn decision(decision: Decision) -> &'static str {
    match decision {
        Decision::Commit => "committed",
        Decision::Abort => "aborted",
    }
}

fn vote(vote: &Vote) -> String {
    match vote {
        Vote::Yes => "votes yes".to_owned(),
        Vote::Conflict(key) => format!("dies, somebody older wants {}", text(key)),
        Vote::InFlight => "dies, another try of it, or its session, is on its way".to_owned(),
        Vote::Settled(Settled::Committed) => "votes no, it was committed before".to_owned(),
        Vote::Settled(Settled::Refused { precondition }) => {
            format!("votes no, it was refused before, for precondition {precondition}")
        }
        Vote::StaleSequence => "votes no, it is older than the session remembers".to_owned(),
        Vote::SessionExpired => "votes no, the session is not known here".to_owned(),
        Vote::Refused => "votes no, it is over or was given up".to_owned(),
        Vote::Overloaded => "votes no, too much is prepared".to_owned(),
        Vote::DiskFull => "votes no, the disk is full".to_owned(),
        Vote::Absent => "takes no part yet".to_owned(),
    }
}

/// A record in a few words.
pub(super) fn record(record: &Record) -> String {
    match record {
        Record::Started { incarnation } => format!("this is start {incarnation}"),
        Record::Prepared(prepared) => format!("the promise to commit {} if told so", prepared.txn),
        Record::Committed(committed) => format!("{} is committed", committed.txn),
        Record::Decided { txn, decision } => {
            format!("{txn} is {}, and that is done here", self::decision(*decision))
        }
        Record::Ended { txn } => format!("everybody has {txn}"),
        Record::Refused { stamp, precondition } => {
            format!("{} is refused, for precondition {precondition}", self::stamp(*stamp))
        }
        Record::Checkpoint(_) => "a checkpoint".to_owned(),
    }
}
