//! Inputs and effects in words short enough to read a protocol by.

use kvorum_replication::two_phase::any_replica::message::{
    Age, Decision, Knowledge, Message, Prepare, Settled, TxnId, Vote, Work,
};
use kvorum_replication::two_phase::any_replica::record::{
    Checkpoint, CommittedState, Prepared, Record, SessionTable,
};
use kvorum_replication::{NodeId, Stamp};

use crate::harness::show::{text, writes};

/// COORDINATOR.EPOCH.NUMBER
pub(crate) fn txn(id: &TxnId) -> String {
    format!("{}.{}.{}", id.coordinator.0, id.epoch, id.number)
}

/// The clock, and the first try's name if that is not this one.
fn age(age: &Age, of: &TxnId) -> String {
    match age.first == *of {
        true => format!("age {}", age.clock),
        false => format!("age {} of {}", age.clock, txn(&age.first)),
    }
}

fn nodes(list: &[NodeId]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn stamp(stamp: &Stamp) -> String {
    format!("stamp@{}.{}.{}", stamp.client.0, stamp.sequence, stamp.answered_below)
}

fn work(work: &Work) -> String {
    match work {
        Work::OpenSession { client } => format!("session {}", client.0),
        Work::Write { stamp: of, writes: list, checked } => {
            let mut words = vec![writes(list)];
            words.extend(checked.iter().map(|key| format!("check@{}", text(key))));
            words.extend(of.iter().map(stamp));
            words.join(" ")
        }
    }
}

fn decision(decision: Decision) -> &'static str {
    match decision {
        Decision::Commit => "commit",
        Decision::Abort => "abort",
    }
}

fn settled(settled: Settled) -> String {
    match settled {
        Settled::Committed => "committed".to_owned(),
        Settled::Refused { precondition } => format!("refused by precondition {precondition}"),
    }
}

/// The first word of [`message`], by which scripts choose messages.
pub(crate) fn kind(message: &Message) -> &'static str {
    match message {
        Message::Prepare(_) => "prepare",
        Message::Vote { .. } => "vote",
        Message::Decide { decision, .. } => self::decision(*decision),
        Message::Acknowledge { .. } => "ack",
        Message::Inquire { .. } => "inquire",
        Message::Inform { .. } => "inform",
    }
}

pub(crate) fn message(message: &Message) -> String {
    let kind = kind(message);
    match message {
        Message::Prepare(Prepare { txn: id, age: of, work: it, finished_below, .. }) => {
            format!("{kind} {} {} {} below {}", txn(id), age(of, id), work(it), txn(finished_below))
        }
        Message::Vote { txn: id, vote, clock: _ } => {
            format!("{kind} {} {}", txn(id), words_of(vote))
        }
        Message::Decide { txn: id, decision: _, finished_below } => {
            format!("{kind} {} below {}", txn(id), txn(finished_below))
        }
        Message::Acknowledge { txn: id } | Message::Inquire { txn: id } => {
            format!("{kind} {}", txn(id))
        }
        Message::Inform { txn: id, knowledge: Knowledge::Undecided } => {
            format!("{kind} {} undecided", txn(id))
        }
        Message::Inform { txn: id, knowledge: Knowledge::Decided(known) } => {
            format!("{kind} {} {}", txn(id), decision(*known))
        }
    }
}

fn words_of(vote: &Vote) -> String {
    match vote {
        Vote::Yes => "yes".to_owned(),
        Vote::Conflict(key) => format!("conflict on {}", text(key)),
        Vote::InFlight => "in flight".to_owned(),
        Vote::Settled(how) => format!("settled: {}", settled(*how)),
        Vote::StaleSequence => "stale sequence".to_owned(),
        Vote::SessionExpired => "session expired".to_owned(),
        Vote::Refused => "refused".to_owned(),
        Vote::Overloaded => "overloaded".to_owned(),
        Vote::DiskFull => "disk full".to_owned(),
        Vote::Absent => "absent".to_owned(),
    }
}

pub(crate) fn record(record: &Record) -> String {
    match record {
        Record::Started { incarnation } => format!("started {incarnation}"),
        Record::Prepared(it) => format!("prepared {}", prepared(it)),
        Record::Committed(it) => {
            format!("committed {} {} by {}", txn(&it.txn), work(&it.work), nodes(&it.participants))
        }
        Record::Decided { txn: id, decision: known } => {
            format!("decided {} {}", txn(id), decision(*known))
        }
        Record::Ended { txn: id } => format!("ended {}", txn(id)),
        Record::Refused { stamp: of, precondition } => {
            format!("refused {} by precondition {precondition}", stamp(of))
        }
        Record::Checkpoint(it) => checkpoint(it),
    }
}

fn prepared(record: &Prepared) -> String {
    format!("{} {}", txn(&record.txn), work(&record.work))
}

fn checkpoint(checkpoint: &Checkpoint) -> String {
    let promised: Vec<String> = checkpoint.prepared.iter().map(prepared).collect();
    let decided: Vec<String> = checkpoint
        .decided
        .iter()
        .map(|(id, known)| format!("{} {}", txn(id), decision(*known)))
        .collect();
    let below: Vec<String> = checkpoint.finished_below.iter().map(txn).collect();
    let commit = |it: &CommittedState| {
        let rest = it.work.as_ref().map_or("applied".to_owned(), |it| work(it));
        format!("{} {rest} by {}", txn(&it.txn), nodes(&it.participants))
    };
    let committed: Vec<String> = checkpoint.committed.iter().map(commit).collect();
    format!(
        "checkpoint {} clock {} prepared [{}] decided [{}] below [{}] committed [{}] sessions {}",
        checkpoint.incarnation,
        checkpoint.clock,
        promised.join("; "),
        decided.join("; "),
        below.join(" "),
        committed.join("; "),
        sessions(&checkpoint.sessions)
    )
}

fn sessions(table: &SessionTable) -> String {
    let list: Vec<String> = table
        .sessions
        .iter()
        .map(|session| {
            let list: Vec<String> = session
                .settled
                .iter()
                .map(|(sequence, how)| format!("{sequence} {}", settled(*how)))
                .collect();
            format!("{}@{} {list:?}", session.client.0, session.answered_below)
        })
        .collect();
    format!("next {} [{}]", table.next_client, list.join(" "))
}
