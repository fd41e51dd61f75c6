//! Inputs and effects in words short enough to read a protocol by.

use kvorum_replication::two_phase::message::{Decision, Knowledge, Message, Prepare, TxnId, Vote};
use kvorum_replication::two_phase::record::{
    CoordinatorRecord, ParticipantRecord, Prepared, SessionTable,
};
use kvorum_replication::{Key, NodeId, Page, Query, Range};

use crate::harness::show::{answer, node, stamp, text, transaction, writes};
use crate::node::{Of, Record};

fn nodes(list: &[NodeId]) -> String {
    list.iter().map(|id| node(*id)).collect::<Vec<_>>().join(",")
}

fn txn(id: &TxnId) -> String {
    format!("{}.{}", id.epoch, id.number)
}

fn decision(decision: Decision) -> String {
    match decision {
        Decision::Commit(number) => format!("commit{number}"),
        Decision::Abort => "abort".to_owned(),
    }
}

fn query(query: &Query) -> String {
    let keys = |keys: &[Key]| keys.iter().map(|key| text(key)).collect::<Vec<_>>().join(" ");
    match query {
        Query::Get(key) => format!("get {}", text(key)),
        Query::GetMany(many) => format!("get {}", keys(many)),
        Query::Scan(range) => scan(range),
        Query::Page(Page { range, of, .. }) => match of {
            Some(held) => format!("{} of {}.{}.{}", scan(range), held.by, held.run, held.number),
            None => format!("{} held", scan(range)),
        },
    }
}

fn scan(range: &Range) -> String {
    let end = range.end.as_ref().map_or_else(String::new, |end| text(end));
    format!("scan {}..{end} limit {}", text(&range.start), range.limit)
}

/// The first word of [`message`], by which scripts choose messages.
pub(crate) fn kind(message: &Message) -> &'static str {
    match message {
        Message::Prepare(_) => "prepare",
        Message::Vote { .. } => "vote",
        Message::Decide { decision: Decision::Commit(_), .. } => "commit",
        Message::Decide { decision: Decision::Abort, .. } => "abort",
        Message::Acknowledge { .. } => "ack",
        Message::Inquire { .. } => "inquire",
        Message::Inform { .. } => "inform",
        Message::Read { .. } => "read",
        Message::ReadAnswer { .. } => "answer",
    }
}

pub(crate) fn message(message: &Message) -> String {
    let kind = kind(message);
    match message {
        Message::Prepare(prepare) => prepare_words(prepare),
        Message::Vote { txn: id, vote } => format!("{kind} {} {}", txn(id), vote_words(vote)),
        Message::Decide { txn: id, decision: Decision::Commit(number), finished_below } => {
            format!("{kind} {} {number} below {}", txn(id), txn(finished_below))
        }
        Message::Decide { txn: id, decision: Decision::Abort, finished_below } => {
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
        Message::Read { read, epoch, query: asked } => {
            format!("{kind} {epoch}.{read} {}", query(asked))
        }
        Message::ReadAnswer { read, epoch, answer: found } => {
            format!("{kind} {epoch}.{read} {}", answer(found))
        }
    }
}

fn prepare_words(prepare: &Prepare) -> String {
    let alone = prepare
        .one_phase
        .map_or_else(String::new, |one_phase| format!(" alone{}", stamp(one_phase.stamp)));
    format!(
        "prepare {} {}{alone} below {}",
        txn(&prepare.txn),
        transaction(&prepare.transaction),
        txn(&prepare.finished_below)
    )
}

fn vote_words(vote: &Vote) -> String {
    match vote {
        Vote::Yes => "yes".to_owned(),
        Vote::Conflict(key) => format!("conflict on {}", text(key)),
        Vote::PreconditionFailed { index, key } => {
            format!("precondition {index} on {} failed", text(key))
        }
        Vote::Refused => "refused".to_owned(),
        Vote::Overloaded => "overloaded".to_owned(),
        Vote::DiskFull => "disk full".to_owned(),
        Vote::Failed(reason) => format!("failed: {reason}"),
        Vote::Committed => "committed".to_owned(),
    }
}

fn sessions(table: &SessionTable) -> String {
    let list: Vec<String> = table
        .sessions
        .iter()
        .map(|session| {
            format!("{}@{}..{:?}", session.client.0, session.answered_below, session.committed)
        })
        .collect();
    format!("next {} [{}]", table.next_client, list.join(" "))
}

pub(crate) fn record(record: &Record) -> String {
    match record {
        Of::Coordinator(record) => coordinator_record(record),
        Of::Participant(record) => participant_record(record),
    }
}

fn coordinator_record(record: &CoordinatorRecord) -> String {
    match record {
        CoordinatorRecord::Started { epoch } => format!("started epoch {epoch}"),
        CoordinatorRecord::SessionOpened { client } => format!("session {}", client.0),
        CoordinatorRecord::Committed { txn: id, number, stamp: of, participants } => {
            format!("committed {} {number}{} by {}", txn(id), stamp(*of), nodes(participants))
        }
        CoordinatorRecord::Ended { txn: id } => format!("ended {}", txn(id)),
        CoordinatorRecord::Checkpoint(checkpoint) => {
            let committed: Vec<String> = checkpoint
                .committed
                .iter()
                .map(|it| format!("{} {} by {}", txn(&it.txn), it.number, nodes(&it.participants)))
                .collect();
            format!(
                "checkpoint epoch {} commits {} [{}] sessions {}",
                checkpoint.epoch,
                checkpoint.commits,
                committed.join("; "),
                sessions(&checkpoint.sessions)
            )
        }
    }
}

fn prepared(record: &Prepared) -> String {
    let mut words = vec![txn(&record.txn), writes(&record.writes)];
    words.extend(record.checked.iter().map(|key| format!("check@{}", text(key))));
    words.retain(|word| !word.is_empty());
    words.join(" ")
}

fn participant_record(record: &ParticipantRecord) -> String {
    match record {
        ParticipantRecord::Started { incarnation } => format!("started incarnation {incarnation}"),
        ParticipantRecord::Prepared(record) => format!("prepared {}", prepared(record)),
        ParticipantRecord::Decided { txn: id, decision: known } => {
            format!("decided {} {}", txn(id), decision(*known))
        }
        ParticipantRecord::CommittedAlone { txn: id, stamp: of, writes: list } => {
            format!("committed alone {}{} {}", txn(id), stamp(*of), writes(list))
        }
        ParticipantRecord::Checkpoint(checkpoint) => {
            let promised: Vec<String> = checkpoint.prepared.iter().map(prepared).collect();
            let decided: Vec<String> = checkpoint
                .decided
                .iter()
                .map(|(id, known)| format!("{} {}", txn(id), decision(*known)))
                .collect();
            let progress: Vec<String> = checkpoint
                .coordinators
                .iter()
                .map(|it| format!("below {} applied {}", txn(&it.finished_below), it.applied))
                .collect();
            format!(
                "checkpoint incarnation {} prepared [{}] decided [{}] {} sessions {}",
                checkpoint.incarnation,
                promised.join("; "),
                decided.join("; "),
                progress.join("; "),
                sessions(&checkpoint.sessions)
            )
        }
    }
}
